"""Metrics of an evaluation: per class, confusion matrix, calibration, their intervals, comparison of networks.

torchmetrics computes precision, recall, F1, the confusion matrix and the calibration error. Intervals are Wilson's for
accuracy, precision and recall, Student's t for the mean loss, and a bootstrap over images for macro F1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.evaluate.intervals import LEVEL, Interval, bootstrap_interval, mean_interval, share_interval
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.evaluate.paired import Paired, pairs
from inceptionnet.system.extras import importing_torchmetrics

BINS = 15
"""Confidence bins of equal width, as usual for the expected calibration error."""


@dataclass(frozen=True)
class ClassFigures:
    """Metrics of one class; None where they are undefined."""

    name: str
    support: int
    """Images whose true class it is."""
    correct: int
    predicted: int
    """Images whose predicted class it is."""
    precision: float | None
    recall: float | None
    f1: float
    precision_interval: Interval | None
    recall_interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the name."""
        return {
            "support": self.support,
            "correct": self.correct,
            "predicted": self.predicted,
            "precision": self.precision,
            "precision_interval": self.precision_interval,
            "recall": self.recall,
            "recall_interval": self.recall_interval,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class Bin:
    """The predictions with confidence in [low, high), in the last bin [low, 1]."""

    low: float
    high: float
    images: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    interval: Interval
    """Of the accuracy."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """The metrics of an evaluation."""

    evaluation: Evaluation
    macro_precision: float
    """Macro average, as in torchmetrics: the mean over the classes with support or predictions."""
    macro_recall: float
    macro_f1: float
    ece: float
    """Expected calibration error: mean gap between confidence and accuracy over the bins, weighted by images."""
    confusion_matrix: npt.NDArray[np.int64]
    """(C, C): images by true class (row) and predicted class (column)."""
    classes: tuple[ClassFigures, ...]
    bins: tuple[Bin, ...]
    """The bins that hold images."""
    top1_interval: Interval
    topk_interval: Interval
    loss_interval: Interval | None
    macro_f1_interval: Interval
    members: tuple[Metrics, ...] = ()
    """The metrics of each network of an ensemble; empty for one network."""
    paired: Mapping[tuple[int, int], Paired] = field(default_factory=dict)
    """Every two networks of an ensemble, by position in `members`, compared on the same images."""

    @property
    def confused_pairs(self) -> list[tuple[int, int, int]]:
        """(true class, predicted class, images) of all errors, the most frequent pair first."""
        errors = self.confusion_matrix.copy()
        np.fill_diagonal(errors, 0)
        rows, columns = np.nonzero(errors)
        order = np.argsort(-errors[rows, columns], kind="stable")
        return [(int(i), int(j), int(errors[i, j])) for i, j in zip(rows[order], columns[order], strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `top5` (`top2` for few classes) if there are more than two classes.

        Of an ensemble also `members`, the metrics of each network, and `paired`, every two of them compared.
        """
        said = self.evaluation
        figures: dict[str, Any] = {"images": len(said.labels), "top1": said.top1}
        intervals: dict[str, Any] = {"level": LEVEL, "top1": self.top1_interval}
        if said.k > 1:
            figures[f"top{said.k}"] = said.topk
            intervals[f"top{said.k}"] = self.topk_interval
        names = said.classes
        if said.threshold is not None:
            figures["threshold"] = said.threshold
        return figures | {
            "loss": said.loss,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "expected_calibration_error": self.ece,
            "intervals": {**intervals, "loss": self.loss_interval, "macro_f1": self.macro_f1_interval},
            "classes": {one.name: one.to_dict() for one in self.classes if one.support},
            "confused_pairs": [
                {"label": names[i], "predicted": names[j], "images": n} for i, j, n in self.confused_pairs
            ],
            "calibration": [
                {
                    "confidence_from": one.low,
                    "confidence_to": one.high,
                    "images": one.images,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy,
                    "accuracy_interval": one.interval,
                }
                for one in self.bins
            ],
            "decode_errors": [{"name": name, "reason": reason} for name, reason in said.decode_errors],
            **ensemble([(one.evaluation, one.to_dict()) for one in self.members], self.paired),
        }


def ensemble(
    members: Sequence[tuple[Evaluation | MultiLabelEvaluation, dict[str, Any]]],
    paired: Mapping[tuple[int, int], Paired],
) -> dict[str, Any]:
    """`members`, from each one's evaluation and figures, and `paired`, for JSON; nothing for one network."""
    if not members:
        return {}
    for _, figures in members:
        del figures["decode_errors"]  # those of the whole: the images are the same
    files = [evaluation.file for evaluation, _ in members]
    return {
        "members": [{"file": one.file, "network": one.network, **figures} for one, figures in members],
        "paired": [
            {"first": files[i], "second": files[j], "members": [i, j], **one.to_dict()}
            for (i, j), one in paired.items()
        ],
    }


def measure(evaluation: Evaluation) -> Metrics:
    """Compute all metrics of an evaluation and of its members; 10 000 images take a fraction of a second."""
    with importing_torchmetrics():
        from torchmetrics.functional.classification import (
            binary_calibration_error,
            multiclass_confusion_matrix,
            multiclass_f1_score,
            multiclass_precision,
            multiclass_recall,
        )

    count = len(evaluation.classes)
    classes = max(count, 2)  # torchmetrics needs two; one without support or predictions changes nothing
    labels, predicted = torch.from_numpy(evaluation.labels), torch.from_numpy(evaluation.predicted)
    confidence, correct = torch.from_numpy(evaluation.confidence), torch.from_numpy(evaluation.correct)

    def of(metric: Any, average: str) -> Any:
        return metric(predicted, labels, num_classes=classes, average=average).tolist()

    by_class = zip(
        *(of(metric, "none") for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)), strict=True
    )
    confusion = multiclass_confusion_matrix(predicted, labels, num_classes=classes).numpy()[:count, :count]
    macro_f1 = of(multiclass_f1_score, "macro")
    return Metrics(
        evaluation=evaluation,
        macro_precision=of(multiclass_precision, "macro"),
        macro_recall=of(multiclass_recall, "macro"),
        macro_f1=macro_f1,
        # Binary: the probability of the predicted class against whether it is correct. Clamped below 1, since
        # torchmetrics puts a confidence of exactly 1 into a bin of its own.
        ece=binary_calibration_error(confidence.clamp(max=1 - 2**-24), correct.long(), n_bins=BINS, norm="l1").item(),
        confusion_matrix=confusion,
        classes=tuple(
            class_figures(name, int(confusion[i].sum()), int(confusion[i, i]), int(confusion[:, i].sum()), *three)
            for i, (name, three) in enumerate(zip(evaluation.classes, by_class, strict=False))
        ),
        bins=_bins(evaluation),
        top1_interval=share_interval(int(evaluation.correct.sum()), len(labels)),
        topk_interval=share_interval(int(evaluation.in_top.sum()), len(labels)),
        loss_interval=mean_interval(evaluation.losses),
        macro_f1_interval=bootstrap_interval(len(labels), lambda index: _macro_f1(evaluation, index)),
        members=tuple(map(measure, evaluation.members)),
        paired=pairs(evaluation),
    )


def class_figures(
    name: str, support: int, correct: int, predicted: int, precision: float, recall: float, f1: float
) -> ClassFigures:
    """The metrics of one class from its numbers of images, and from torchmetrics."""
    return ClassFigures(
        name, support, correct, predicted,
        precision if predicted else None, recall if support else None, f1,
        share_interval(correct, predicted) if predicted else None,
        share_interval(correct, support) if support else None,
    )  # fmt: skip


def _bins(evaluation: Evaluation) -> tuple[Bin, ...]:
    from scipy.stats import binned_statistic

    confidence = evaluation.confidence.astype(np.float64)
    values = [np.ones_like(confidence), confidence, evaluation.correct]
    (counts, sums, correct), edges, _ = binned_statistic(confidence, values, "sum", BINS, (0, 1))
    return tuple(
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(sums[i] / counts[i]),
            float(correct[i] / counts[i]),
            share_interval(int(correct[i]), int(counts[i])),
        )
        for i in np.flatnonzero(counts)
    )


def _macro_f1(evaluation: Evaluation, index: npt.NDArray[np.int64]) -> float:
    """As torchmetrics, without its input checks, which would take too long for a thousand bootstrap samples."""
    labels, predicted, count = evaluation.labels[index], evaluation.predicted[index], len(evaluation.classes)
    both = np.bincount(labels, minlength=count) + np.bincount(predicted, minlength=count)
    correct = np.bincount(labels[labels == predicted], minlength=count)
    return float((2 * correct[both > 0] / both[both > 0]).mean())
