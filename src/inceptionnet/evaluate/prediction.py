"""Predictions for images that nobody has labelled, and the table they are written into."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.model.outputs import Outputs
from inceptionnet.system.files import replacing


@dataclass(frozen=True)
class Prediction:
    """The predicted class or labels of one image with their probabilities, or why it cannot be decoded."""

    file: str
    """The image's path or name; `image 3` for the fourth of several that have none."""
    top: tuple[tuple[str, float], ...] = ()
    """(class, probability), the predicted class first, then the most probable; with several labels an image all labels,
    the most probable first."""
    error: str = ""
    """Why the image could not be decoded; empty where it could."""
    labels: tuple[str, ...] | None = None
    """With several labels an image those at or above the threshold, the most probable first; else None."""
    time_s: float | None = None
    """Of a frame of a video, from its start; else None."""
    frame: int | None = None
    """Its number in the video, from 0."""

    @property
    def label(self) -> str:
        """The predicted class; empty where the image could not be decoded. With several labels an image, all, with `;`
        between them."""
        if self.labels is not None:
            return ";".join(self.labels)
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        """Of the predicted class, or of the most probable label; 0 where the image could not be decoded."""
        return self.top[0][1] if self.top else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: `file`, of a frame `time_s` and `frame`, and either `error` or `top`; with several labels
        an image `labels` and the `probabilities` of all."""
        what: dict[str, Any] = {"file": self.file}
        if self.time_s is not None:
            what |= {"time_s": self.time_s, "frame": self.frame}
        if self.error:
            return {**what, "error": self.error}
        if self.labels is not None:
            return {**what, "labels": list(self.labels), "probabilities": dict(self.top)}
        return {**what, "top": [{"class": name, "probability": p} for name, p in self.top]}


def predictions_of(
    files: Sequence[str],
    logits: npt.ArrayLike,
    classes: Sequence[str],
    outputs: Outputs,
    top: int,
    threshold: float | None,
) -> list[Prediction]:
    """The prediction of each image from its logits; one with an error where they are not finite.

    Args:
        top: number of classes to give; of several labels an image, all are given.
        threshold: see `Outputs.threshold`.

    Shapes: logits (N, logits).
    """
    probabilities = outputs.probabilities(np.asarray(logits, np.float32))
    predicted = outputs.predicted(probabilities, threshold).tolist()
    count = len(classes) if outputs.multi_label else min(top, len(classes))
    best = np.argsort(-probabilities, 1, kind="stable")[:, :count]
    found = []
    for file, order, row, said in zip(files, best.tolist(), probabilities.tolist(), predicted, strict=True):
        if any(map(isnan, row)):
            found.append(Prediction(file, error="the outputs of the network are not finite"))
            continue
        if outputs.multi_label:
            labels = tuple(classes[i] for i in order if said[i])
        else:
            order, labels = [said, *(i for i in order if i != said)][:count], None
        found.append(Prediction(file, tuple((classes[i], row[i]) for i in order), labels=labels))
    return found


def write_csv(path: Path, predictions: Sequence[Prediction], labels: Sequence[str] = ()) -> None:
    """Write one line per image: file, of frames of a video time_s and frame, error, class_1, probability_1, class_2, …

    With several labels an image: file, error, labels (with `;` between them), and probability_NAME for each label.

    Args:
        labels: all labels in the order of their columns; empty: one class an image.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    most = max((len(prediction.top) for prediction in predictions), default=0)
    ranks = [f"{what}_{i}" for i in range(1, most + 1) for what in ("class", "probability")]
    columns = ["labels", *(f"probability_{name}" for name in labels)] if labels else ranks
    timed = any(prediction.time_s is not None for prediction in predictions)
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["file", *["time_s", "frame"] * timed, "error", *columns])
        for prediction in predictions:
            if labels and prediction.top:
                of = dict(prediction.top)
                cells = [prediction.label, *(f"{of[name]:.6f}" for name in labels)]
            else:
                cells = [cell for name, p in prediction.top for cell in (name, f"{p:.6f}")]
            when = [prediction.time_s, prediction.frame] if timed else []
            writer.writerow([prediction.file, *when, prediction.error, *cells])
