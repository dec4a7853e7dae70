"""Predictions for images that nobody has labelled, and the table they are written into."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.files import replacing


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image with their softmax probabilities, or why it cannot be decoded."""

    file: str
    """The image's path or name; `image 3` for the fourth of several that have none."""
    top: tuple[tuple[str, float], ...] = ()
    """(class, probability), the most probable first."""
    error: str = ""
    """Why the image could not be decoded; empty where it could."""

    @property
    def label(self) -> str:
        """The predicted class; empty where the image could not be decoded."""
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        """Of the predicted class; 0 where the image could not be decoded."""
        return self.top[0][1] if self.top else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: `file`, and either `top` or `error`."""
        if self.error:
            return {"file": self.file, "error": self.error}
        return {"file": self.file, "top": [{"class": name, "probability": p} for name, p in self.top]}


def most_probable(logits: Tensor, classes: Sequence[str], top: int) -> list[tuple[tuple[str, float], ...]]:
    """For each image its `top` classes with their softmax probabilities. Shapes: logits (N, classes)."""
    best = logits.float().softmax(1).topk(min(top, len(classes)))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple((classes[i], p) for i, p in zip(indices, values, strict=True)) for indices, values in rows]


def write_csv(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write one line per image: file, error, class_1, probability_1, class_2, …

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    most = max((len(prediction.top) for prediction in predictions), default=0)
    ranks = [f"{what}_{i}" for i in range(1, most + 1) for what in ("class", "probability")]
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["file", "error", *ranks])
        for prediction in predictions:
            cells = [cell for name, p in prediction.top for cell in (name, f"{p:.6f}")]
            writer.writerow([prediction.file, prediction.error, *cells])
