"""Images of the report: thumbnails for each cell of the confusion matrix, and a few with their Grad-CAM overlay."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from inceptionnet.data.augment import as_input
from inceptionnet.data.bands import Pixels
from inceptionnet.data.decode import decode_box
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Split
from inceptionnet.errors import DecodeError, MissingExtraError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.explain import attribute, overlay
from inceptionnet.model.network import InceptionNet
from inceptionnet.report.plots import seen

SMALL_PX, LARGE_PX = 96, 224
MOST, BUDGET_BYTES = 3000, 5_000_000
"""Limits on the thumbnails of a page: number and size."""
ERRORS, CORRECT = 12, 6
LATER = 4
"""A cell of correct predictions gets its first image together with the fifth of a cell of errors."""


@dataclass(frozen=True)
class Example:
    """One image and its Grad-CAM overlay, as data URIs."""

    name: str
    label: str
    predicted: str
    confidence: float
    image: str
    overlay: str | None


def small_images(evaluation: Evaluation, split: Split, prep: Preprocessing) -> dict[str, list[tuple[str, float, str]]]:
    """Thumbnails by cell "LABEL,PREDICTED" of the confusion matrix: name, confidence and WebP file in base64.

    The most confident errors and the least confident correct predictions come first. If not all fit, each cell has its
    first image before any has its second.
    """
    cells: dict[str, list[tuple[str, float, str]]] = defaultdict(list)

    def pixels(i: int) -> Pixels:
        return seen(split, int(evaluation.indices[i]), prep)

    for i, text in within_budget(_round_robin(evaluation)[:MOST], pixels, SMALL_PX, 60):
        cell = f"{evaluation.labels[i]},{evaluation.predicted[i]}"
        name = split.names[int(evaluation.indices[i])]
        cells[cell].append((name, round(float(evaluation.confidence[i]), 3), text))
    return dict(cells)


def within_budget(
    numbers: Iterable[int], pixels: Callable[[int], Pixels], side_px: int, quality: int
) -> Iterator[tuple[int, str]]:
    """Numbers of images with their thumbnails, as WebP files in base64 of BUDGET_BYTES together; the rest is left out.

    Images that were deleted or damaged since they were examined are skipped.
    """
    room = BUDGET_BYTES
    for i in numbers:
        try:
            found = pixels(i)
        except DecodeError:
            continue
        text = encoded(found, side_px, "WEBP", quality)
        room -= len(text)
        if room < 0:
            return
        yield i, text


def whole(split: Split, index: int, at_least_px: int) -> Pixels:
    """An image of a split, all of it, not what a network sees; for a thumbnail of that many pixels a side.

    Raises:
        DecodeError: it cannot be decoded.
    """
    name = split.names[index]
    return decode_box(
        split.read(index), lambda width, height: (0, 0, width, height), at_least_px=at_least_px, name=name
    )


def _round_robin(evaluation: Evaluation) -> list[int]:
    """All images, in the order in which they are put on the page."""
    confidence = np.where(evaluation.correct, evaluation.confidence, -evaluation.confidence)
    order = np.argsort(confidence, kind="stable").tolist()
    cells = [(int(evaluation.labels[i]), int(evaluation.predicted[i])) for i in order]
    return _interleaved(order, cells, [LATER * bool(evaluation.correct[i]) for i in order])


def _interleaved(order: Sequence[int], groups: Sequence[Hashable], later: Sequence[int]) -> list[int]:
    """`order` with the first of every group before any second; `later` delays a group by that many rounds."""
    used: Counter[Hashable] = Counter()
    rounds = []
    for i, group, delay in zip(order, groups, later, strict=True):
        rounds.append((used[group] + delay, i))
        used[group] += 1
    return [i for _, i in sorted(rounds, key=lambda one: one[0])]


def confident_errors(evaluation: Evaluation) -> list[int]:
    """The most confident errors."""
    chosen: list[int] = evaluation.most_confident(correct=False)[:ERRORS].tolist()
    return chosen


def confident_correct(evaluation: Evaluation) -> list[int]:
    """The most confident correct predictions, of as many classes as possible."""
    order = evaluation.most_confident(correct=True).tolist()
    return _interleaved(order, evaluation.labels[order].tolist(), [0] * len(order))[:CORRECT]


def examples(
    evaluation: Evaluation, chosen: Sequence[int], split: Split, model: InceptionNet, prep: Preprocessing
) -> tuple[list[Example], str]:
    """The chosen images with a Grad-CAM overlay for the predicted class, and why overlays are missing, if they are."""
    read: list[tuple[int, Pixels]] = []
    for i in chosen:
        try:
            read.append((i, seen(split, int(evaluation.indices[i]), prep)))
        except DecodeError:
            continue
    overlays: list[str | None] = [None] * len(read)
    why = ""
    if read:
        x = as_input([pixels for _, pixels in read], prep, model.device).to(next(model.parameters()).dtype)
        try:
            maps = attribute(model, x, torch.from_numpy(evaluation.predicted[[i for i, _ in read]]))
            overlays = [_uri(overlay(pixels, heat)) for (_, pixels), heat in zip(read, maps, strict=True)]
        except MissingExtraError as error:
            why = str(error)
    return [
        Example(
            split.names[int(evaluation.indices[i])],
            evaluation.classes[evaluation.labels[i]],
            evaluation.classes[evaluation.predicted[i]],
            float(evaluation.confidence[i]),
            _uri(pixels),
            laid,
        )
        for (i, pixels), laid in zip(read, overlays, strict=True)
    ], why


def _uri(pixels: Pixels) -> str:
    return "data:image/webp;base64," + encoded(pixels, LARGE_PX, "WEBP", 80)


def encoded(pixels: Pixels, most_px: int, form: str, quality: int) -> str:
    """(H, W, C) as an image file of at most `most_px` a side, in base64."""
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if max(image.size) > most_px:
        image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return base64.b64encode(file.getvalue()).decode("ascii")
