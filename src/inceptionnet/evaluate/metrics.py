"""What an evaluation comes to: class by class, which class is taken for which, calibration, and confidence intervals.

torchmetrics computes precision, recall, F1, the confusion matrix and the calibration error; scipy the intervals:
Wilson's for shares of images, Student's t for the mean loss, a bootstrap over images for F1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from inceptionnet.evaluate.evaluation import Evaluation

LEVEL = 0.95
"""Of every interval."""
BINS = 15
"""Of confidence, of equal width, as is usual for the expected calibration error."""
RESAMPLES = 1000


class Interval(NamedTuple):
    """Bounds of a figure at `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is told from the others; None where nothing is there to divide by."""

    name: str
    images: int
    """That are of this class."""
    right: int
    predicted: int
    """That were taken for it, rightly or not."""
    precision: float | None
    recall: float | None
    f1: float
    precision_interval: Interval | None
    recall_interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the name."""
        return {
            "images": self.images,
            "right": self.right,
            "predicted": self.predicted,
            "precision": self.precision,
            "precision_interval": self.precision_interval,
            "recall": self.recall,
            "recall_interval": self.recall_interval,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence lies in [low, high), in the last bin [low, 1]."""

    low: float
    high: float
    images: int
    confidence: float
    """Their mean confidence."""
    accuracy: float
    interval: Interval
    """Of the accuracy."""


@dataclass(frozen=True, eq=False)
class Metrics:
    """The figures of an evaluation."""

    evaluation: Evaluation
    macro_precision: float
    """Plain mean over the classes, as torchmetrics takes it: of those that any image is of or was taken for."""
    macro_recall: float
    macro_f1: float
    ece: float
    """Expected calibration error: mean distance between confidence and accuracy over the bins, weighted by images."""
    confusion: npt.NDArray[np.int64]
    """(C, C): images by label (row) and predicted class (column)."""
    classes: tuple[ClassFigures, ...]
    bins: tuple[Bin, ...]
    """Those with images in them."""
    top1_interval: Interval
    topk_interval: Interval
    loss_interval: Interval | None
    macro_f1_interval: Interval

    @property
    def confused(self) -> list[tuple[int, int, int]]:
        """(label, predicted, images) of what was taken for something else, the most frequent first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        rows, columns = np.nonzero(wrong)
        order = np.argsort(-wrong[rows, columns], kind="stable")
        return [(int(i), int(j), int(wrong[i, j])) for i, j in zip(rows[order], columns[order], strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `top5` (`top2` of few classes) only where there are more classes than that."""
        said = self.evaluation
        figures: dict[str, Any] = {"images": len(said.labels), "top1": said.top1}
        intervals: dict[str, Any] = {"level": LEVEL, "top1": self.top1_interval}
        if said.k > 1:
            figures[f"top{said.k}"] = said.topk
            intervals[f"top{said.k}"] = self.topk_interval
        names = said.classes
        return figures | {
            "loss": said.loss,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "intervals": {**intervals, "loss": self.loss_interval, "macro_f1": self.macro_f1_interval},
            "classes": {one.name: one.to_dict() for one in self.classes if one.images},
            "confused": [{"label": names[i], "predicted": names[j], "images": n} for i, j, n in self.confused],
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
            "decode_errors": [{"name": name, "reason": reason} for name, reason in said.bad],
        }


def measure(evaluation: Evaluation) -> Metrics:
    """All figures of an evaluation; those of 10 000 images take a fraction of a second."""
    from torchmetrics.functional.classification import (
        binary_calibration_error,
        multiclass_confusion_matrix,
        multiclass_f1_score,
        multiclass_precision,
        multiclass_recall,
    )

    count = len(evaluation.classes)
    told = max(count, 2)  # torchmetrics knows no fewer; of a second one that does not occur it takes no notice
    labels, predicted = torch.from_numpy(evaluation.labels), torch.from_numpy(evaluation.predicted)
    confidence, right = torch.from_numpy(evaluation.confidence), torch.from_numpy(evaluation.right)

    def of(metric: Any, average: str) -> Any:
        return metric(predicted, labels, num_classes=told, average=average).tolist()

    by_class = zip(
        *(of(metric, "none") for metric in (multiclass_precision, multiclass_recall, multiclass_f1_score)), strict=True
    )
    confusion = multiclass_confusion_matrix(predicted, labels, num_classes=told).numpy()[:count, :count]
    macro_f1 = of(multiclass_f1_score, "macro")
    return Metrics(
        evaluation=evaluation,
        macro_precision=of(multiclass_precision, "macro"),
        macro_recall=of(multiclass_recall, "macro"),
        macro_f1=macro_f1,
        # The probability of the predicted class against whether it is right: a question with two answers. Below 1,
        # since torchmetrics has a bin of its own for what is 1 after rounding.
        ece=binary_calibration_error(confidence.clamp(max=1 - 2**-24), right.long(), n_bins=BINS, norm="l1").item(),
        confusion=confusion,
        classes=tuple(
            _class(name, confusion[:, i], confusion[i], i, *three)
            for i, (name, three) in enumerate(zip(evaluation.classes, by_class, strict=False))
        ),
        bins=_bins(evaluation),
        top1_interval=_share(int(evaluation.right.sum()), len(labels)),
        topk_interval=_share(int(evaluation.in_top.sum()), len(labels)),
        loss_interval=_mean(evaluation.losses),
        macro_f1_interval=_macro_f1_interval(evaluation),
    )


def _class(
    name: str,
    taken: npt.NDArray[np.int64],
    of_it: npt.NDArray[np.int64],
    i: int,
    precision: float,
    recall: float,
    f1: float,
) -> ClassFigures:
    """The figures of class i from its column and row of the confusion matrix, and what torchmetrics says."""
    images, predicted, right = int(of_it.sum()), int(taken.sum()), int(of_it[i])
    return ClassFigures(
        name, images, right, predicted,
        precision if predicted else None, recall if images else None, f1,
        _share(right, predicted) if predicted else None, _share(right, images) if images else None,
    )  # fmt: skip


def _bins(evaluation: Evaluation) -> tuple[Bin, ...]:
    from scipy.stats import binned_statistic

    confidence = evaluation.confidence.astype(np.float64)
    values = [np.ones_like(confidence), confidence, evaluation.right]
    (counts, sums, right), edges, _ = binned_statistic(confidence, values, "sum", BINS, (0, 1))
    return tuple(
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(sums[i] / counts[i]),
            float(right[i] / counts[i]),
            _share(int(right[i]), int(counts[i])),
        )
        for i in np.flatnonzero(counts)
    )


def _share(part: int, whole: int) -> Interval:
    """Wilson's interval of a share, which holds for few images and for shares near 0 and 1 too."""
    from scipy.stats import binomtest

    found = binomtest(part, whole).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


def _mean(values: npt.NDArray[np.float32]) -> Interval | None:
    """Student's interval of a mean; None of a single value, or where all are the same."""
    from scipy.stats import sem, t

    if len(values) < 2 or not np.ptp(values):
        return None
    exact = values.astype(np.float64)
    low, high = t.interval(LEVEL, len(exact) - 1, loc=exact.mean(), scale=sem(exact))
    return Interval(float(low), float(high))


def _macro_f1_interval(evaluation: Evaluation) -> Interval:
    """Percentiles over data sets of the same size drawn from this one."""
    from scipy.stats import bootstrap

    if len(evaluation.labels) < 2:
        return Interval(0.0, 1.0)
    drawn = bootstrap(
        (np.arange(len(evaluation.labels)),),
        lambda index: _macro_f1(evaluation, index),
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(drawn.low), float(drawn.high))


def _macro_f1(evaluation: Evaluation, index: npt.NDArray[np.int64]) -> float:
    """What torchmetrics computes, without its checks, which a thousand resamples have no time for."""
    labels, predicted, count = evaluation.labels[index], evaluation.predicted[index], len(evaluation.classes)
    both = np.bincount(labels, minlength=count) + np.bincount(predicted, minlength=count)
    right = np.bincount(labels[labels == predicted], minlength=count)
    return float((2 * right[both > 0] / both[both > 0]).mean())
