"""Predictions for images and for the frames of videos, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from inceptionnet.data.images import Item
from inceptionnet.data.inputs import NamedImage
from inceptionnet.data.names import is_video
from inceptionnet.data.video import Every, Frame, frames_of
from inceptionnet.errors import ConfigurationError, DecodeError, reason_of

if TYPE_CHECKING:
    from inceptionnet.classifier.classifier import Classifier
    from inceptionnet.evaluate.prediction import Prediction


def check_videos(images: Sequence[NamedImage], every: Every | None) -> bool:
    """Whether there are videos among what `find_images` found. Raises: ConfigurationError: some, and no interval."""
    found = next((one.name for one in images if is_video(one.name)), None)
    if found is not None and every is None:
        raise ConfigurationError(f"{found}: is a video; give --every 1s for a frame of each second")
    return found is not None


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
    for videos, some in groupby(images, lambda one: is_video(one.name)):
        if not videos or every is None:
            items = [Item(one.name, one) for one in some]
            yield from classifier.stream(items, top, threshold=threshold, batch_size=batch_size)
            continue
        for one in some:
            yield from _of_video(classifier, one.name, every, top, threshold, batch_size)


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
