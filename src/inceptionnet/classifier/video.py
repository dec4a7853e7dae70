"""Predictions for images and for the frames of videos, a batch at a time, and of cameras, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from inceptionnet.data.images import Item
from inceptionnet.data.inputs import NamedImage
from inceptionnet.data.names import is_camera, is_video
from inceptionnet.data.video import Every, Frame, frames_of
from inceptionnet.errors import ConfigurationError, DecodeError, reason_of

if TYPE_CHECKING:
    from inceptionnet.classifier.classifier import Classifier
    from inceptionnet.evaluate.prediction import Prediction


def check_videos(images: Sequence[NamedImage], every: Every | None) -> bool:
    """Whether there are videos or a camera among what `find_images` found.

    Raises:
        ConfigurationError: some, and no interval; a camera, which has no end, and something else.
    """
    found = next((one.name for one in images if _has_frames(one.name)), None)
    if found is not None and every is None:
        kind = "camera" if is_camera(found) else "video"
        raise ConfigurationError(f"{found}: is a {kind}; give --every 1s for a frame of each second")
    camera = next((one.name for one in images if is_camera(one.name)), None)
    if camera and len(images) > 1:
        raise ConfigurationError(f"{camera}: expected one camera alone, since it has no end, got {len(images)} inputs")
    return found is not None


def _has_frames(name: str) -> bool:
    return is_video(name) or is_camera(name)


def predict_all(
    classifier: Classifier,
    images: Sequence[NamedImage],
    every: Every | None,
    top: int = 5,
    *,
    threshold: float | None = None,
    batch_size: int = 16,
) -> Iterator[Prediction]:
    """The prediction of each image, and of each frame that `every` takes of a video, as they come.

    What is wrong with a video follows its frames, as a row with the error. Raises: as `Classifier.stream`.
    """
    for videos, some in groupby(images, lambda one: _has_frames(one.name)):
        if not videos or every is None:
            items = [Item(one.name, one) for one in some]
            yield from classifier.stream(items, top, threshold=threshold, batch_size=batch_size)
            continue
        for one in some:
            at_once = 1 if is_camera(one.name) else batch_size
            yield from _of_video(classifier, one.name, every, top, threshold, at_once)


def _of_video(
    classifier: Classifier, name: str, every: Every, top: int, threshold: float | None, batch_size: int
) -> Iterator[Prediction]:
    from inceptionnet.evaluate.prediction import Prediction

    why = ""

    def frames() -> Iterator[Frame]:
        nonlocal why
        try:
            yield from frames_of(Path(name), every)
        except DecodeError as error:
            why = reason_of(error, name)

    taken = frames()
    while batch := list(islice(taken, batch_size)):
        items = [Item(name, one.image) for one in batch]
        rows = classifier.stream(items, top, threshold=threshold, batch_size=batch_size)
        yield from (replace(row, time_s=one.time_s, frame=one.number) for row, one in zip(rows, batch, strict=True))
    if why:
        yield Prediction(name, error=why)
