"""The images inside the page: small ones for every cell of the confusion matrix, and a few with what decided."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from inceptionnet.data.augment import as_input
from inceptionnet.data.preprocess import Pixels, Preprocessing
from inceptionnet.data.splits import Split
from inceptionnet.errors import DecodeError, MissingExtraError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.explain import attribute, overlay
from inceptionnet.model import InceptionNet
from inceptionnet.report.plots import seen

SMALL_PX, LARGE_PX = 96, 224
MOST, BUDGET_BYTES = 3000, 5_000_000
"""Small images on a page, and what they may take of it."""
WORST, BEST = 12, 6
LATER = 4
"""A cell of right answers gets its first image with the fifth of a cell of mistakes."""


@dataclass(frozen=True)
class Example:
    """One image beside what decided about it; data URIs."""

    name: str
    label: str
    predicted: str
    confidence: float
    image: str
    overlay: str | None


def small_images(evaluation: Evaluation, split: Split, prep: Preprocessing) -> dict[str, list[tuple[str, float, str]]]:
    """For cells "LABEL,PREDICTED" of the confusion matrix: name, confidence and WebP file in base64 of images.

    The surest mistakes and the least sure right answers come first. Where not all fit, each cell has its first before
    any has its second.
    """
    cells: dict[str, list[tuple[str, float, str]]] = defaultdict(list)
    room = BUDGET_BYTES
    for i in _in_turn(evaluation)[:MOST]:
        index = int(evaluation.indices[i])
        try:
            pixels = seen(split, index, prep)
        except DecodeError:  # it was there when the network saw it
            continue
        text = _encoded(pixels, SMALL_PX, "WEBP", 60)
        room -= len(text)
        if room < 0:
            break
        cell = f"{evaluation.labels[i]},{evaluation.predicted[i]}"
        cells[cell].append((split.names[index], round(float(evaluation.confidence[i]), 3), text))
    return dict(cells)


def _in_turn(evaluation: Evaluation) -> list[int]:
    """All images, in the order in which they get a place on the page."""
    sureness = np.where(evaluation.right, evaluation.confidence, -evaluation.confidence)
    order = np.argsort(sureness, kind="stable").tolist()
    cells = [(int(evaluation.labels[i]), int(evaluation.predicted[i])) for i in order]
    return _dealt(order, cells, [LATER * bool(evaluation.right[i]) for i in order])


def _dealt(order: Sequence[int], groups: Sequence[Hashable], later: Sequence[int]) -> list[int]:
    """`order` with the first of every group before any second, each group `later` by so many turns."""
    taken: Counter[Hashable] = Counter()
    turns = []
    for i, group, turn in zip(order, groups, later, strict=True):
        turns.append((taken[group] + turn, i))
        taken[group] += 1
    return [i for _, i in sorted(turns, key=lambda turn: turn[0])]


def worst(evaluation: Evaluation) -> list[int]:
    """The mistakes the network was surest of."""
    chosen: list[int] = evaluation.surest(right=False)[:WORST].tolist()
    return chosen


def best(evaluation: Evaluation) -> list[int]:
    """The right answers it was surest of, of as many classes as there are places."""
    order = evaluation.surest(right=True).tolist()
    return _dealt(order, evaluation.labels[order].tolist(), [0] * len(order))[:BEST]


def examples(
    evaluation: Evaluation, chosen: Sequence[int], split: Split, model: InceptionNet, prep: Preprocessing
) -> tuple[list[Example], str]:
    """Those images with a Grad-CAM overlay for the predicted class, and why there is none if so."""
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
    return "data:image/webp;base64," + _encoded(pixels, LARGE_PX, "WEBP", 80)


def _encoded(pixels: Pixels, most_px: int, form: str, quality: int) -> str:
    """(H, W, C) as a file of at most `most_px` a side, in base64."""
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if max(image.size) > most_px:
        image.thumbnail((most_px, most_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return base64.b64encode(file.getvalue()).decode("ascii")
