"""Metrics of an evaluation with several labels an image: per label, averaged over labels, and over whole images.

torchmetrics computes precision, recall, F1, average precision, subset accuracy and Hamming loss. Intervals are Wilson's
for proportions of images, Student's t for means over images, and a bootstrap over images for what is averaged over
labels and for average precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from inceptionnet.evaluate.intervals import (
    LEVEL,
    RESAMPLES,
    Interval,
    mean_interval,
    percentile_interval,
    share_interval,
)
from inceptionnet.evaluate.metrics import ClassFigures, class_figures, ensemble
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.evaluate.paired import Paired, pairs
from inceptionnet.system.extras import importing_torchmetrics

WORK = 10**8
"""Images × labels × bootstrap samples that a bootstrap is limited to, some five seconds."""
FEWEST = 100
"""Bootstrap samples, whatever the number of images and labels."""


class Average(NamedTuple):
    """Precision, recall and F1 over all labels; 0 where undefined, as in torchmetrics and scikit-learn."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, eq=False)
class MultiLabelMetrics:
    """The metrics of an evaluation with several labels an image."""

    evaluation: MultiLabelEvaluation
    classes: tuple[ClassFigures, ...]
    """Of each label; `correct`: images that have it and are predicted to."""
    average_precision: tuple[float | None, ...]
    """Of each label: the area under its precision-recall curve, as a sum of steps; None without support."""
    average_precision_intervals: tuple[Interval | None, ...]
    macro: Average
    """Mean over the labels."""
    micro: Average
    """Of all pairs of image and label together."""
    mean_average_precision: float | None
    """Mean over the labels with support; None if no image has a label."""
    subset_accuracy: float
    hamming_loss: float
    intervals: Mapping[str, Interval | None]
    """By the names of `to_dict`; None if it cannot be computed."""
    members: tuple[MultiLabelMetrics, ...] = ()
    """The metrics of each network of an ensemble; empty for one network."""
    paired: Mapping[tuple[int, int], Paired] = field(default_factory=dict)
    """Every two networks of an ensemble, by position in `members`, compared by subset accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of an ensemble also `members` and `paired`, as `Metrics.to_dict`."""
        said = self.evaluation
        averages = {"macro": self.macro, "micro": self.micro}
        areas = zip(self.classes, self.average_precision, self.average_precision_intervals, strict=True)
        return {
            "images": len(said.labels),
            "threshold": said.threshold,
            "subset_accuracy": self.subset_accuracy,
            "hamming_loss": self.hamming_loss,
            "loss": said.loss,
            **{f"{kind}_{name}": value for kind, one in averages.items() for name, value in one._asdict().items()},
            "mean_average_precision": self.mean_average_precision,
            "intervals": {"level": LEVEL, **self.intervals},
            "classes": {
                one.name: {**one.to_dict(), "average_precision": area, "average_precision_interval": interval}
                for one, area, interval in areas
            },
            "decode_errors": [{"name": name, "reason": reason} for name, reason in said.decode_errors],
            **ensemble([(one.evaluation, one.to_dict()) for one in self.members], self.paired),
        }


def measure_labels(evaluation: MultiLabelEvaluation) -> MultiLabelMetrics:
    """Compute all metrics of an evaluation with several labels an image, and of its members."""
    with importing_torchmetrics():
        from torchmetrics.functional.classification import (
            multilabel_exact_match,
            multilabel_f1_score,
            multilabel_hamming_distance,
            multilabel_precision,
            multilabel_recall,
        )

    count = len(evaluation.classes)
    labels, predicted = (torch.from_numpy(array).long() for array in (evaluation.labels, evaluation.predicted))

    def of(metric: Any, average: str) -> Any:
        return metric(predicted, labels, num_labels=count, average=average).tolist()

    three = (multilabel_precision, multilabel_recall, multilabel_f1_score)
    support = evaluation.labels.sum(0)
    found, area_intervals = _bootstrap(evaluation)
    correct = (evaluation.labels & evaluation.predicted).sum(0)
    by_label = zip(evaluation.classes, support, correct, evaluation.predicted.sum(0), strict=True)
    figures = zip(*(of(metric, "none") for metric in three), strict=True)
    return MultiLabelMetrics(
        evaluation=evaluation,
        classes=tuple(
            class_figures(name, *map(int, numbers), *of_label)
            for (name, *numbers), of_label in zip(by_label, figures, strict=True)
        ),
        average_precision=evaluation.average_precision,
        average_precision_intervals=area_intervals,
        macro=Average(*(of(metric, "macro") for metric in three)),
        micro=Average(*(of(metric, "micro") for metric in three)),
        mean_average_precision=evaluation.mean_average_precision,
        subset_accuracy=multilabel_exact_match(predicted, labels, num_labels=count).item(),
        hamming_loss=multilabel_hamming_distance(predicted, labels, num_labels=count, average="micro").item(),
        intervals={
            "subset_accuracy": share_interval(int(evaluation.correct.sum()), len(labels)),
            "hamming_loss": mean_interval(evaluation.hamming_losses, most=1.0),
            "loss": mean_interval(evaluation.losses),
            **found,
        },
        members=tuple(map(measure_labels, evaluation.members)),
        paired=pairs(evaluation),
    )


def _bootstrap(
    evaluation: MultiLabelEvaluation,
) -> tuple[dict[str, Interval | None], tuple[Interval | None, ...]]:
    """Percentile bootstrap over images of what is averaged over labels, and of each label's average precision."""
    truth, predicted = evaluation.labels, evaluation.predicted
    images, count = truth.shape
    labels = np.flatnonzero(truth.any(0))
    found = np.full((max(FEWEST, min(RESAMPLES, WORK // truth.size)), 3 + count), np.nan)
    cells = np.concatenate([truth & predicted, truth, predicted], 1).astype(np.float32)
    areas = _Areas(truth[:, labels], evaluation.probabilities[:, labels])
    rng = np.random.default_rng(0)
    for row in found if images > 1 else found[:0]:
        times = np.bincount(rng.integers(images, size=images), minlength=images).astype(np.float32)
        correct, support, said = (times @ cells).reshape(3, count)
        row[0] = (2 * correct / np.maximum(support + said, 1)).mean()
        row[1] = 2 * correct.sum() / max(support.sum() + said.sum(), 1)
        row[3 + labels] = areas.of(times)
        if not np.isnan(row[3:]).all():
            row[2] = np.nanmean(row[3:])
    intervals = [percentile_interval(column) for column in found.T]
    names = ("macro_f1", "micro_f1", "mean_average_precision")
    return dict(zip(names, intervals, strict=False)), tuple(intervals[3:])


class _Areas:
    """Average precision of labels for images that count several times; sorted once for all bootstrap samples.

    Shapes: truth and probabilities (N, labels).
    """

    def __init__(self, truth: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float32]) -> None:
        self.order = np.argsort(-probabilities, axis=0, kind="stable")
        ranked = np.take_along_axis(probabilities, self.order, 0)
        self.truth = np.take_along_axis(truth, self.order, 0).astype(np.float32)
        # Equal probabilities are one step of the curve: each counts with the precision at the last of them.
        last = np.ones(ranked.shape, np.bool_)
        last[:-1] = ranked[1:] != ranked[:-1]
        ends = np.where(last, np.arange(len(ranked))[:, None], len(ranked))
        self.ends = np.minimum.accumulate(ends[::-1], 0)[::-1]

    def of(self, times: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One for each label; NaN without support. Shapes: times (N,) → (labels,)."""
        weights = times[self.order]
        hits = weights * self.truth
        precision = np.take_along_axis(hits.cumsum(0) / np.maximum(weights.cumsum(0), 1), self.ends, 0)
        support = hits.sum(0)
        area: npt.NDArray[np.float32] = (hits * precision).sum(0) / np.where(support > 0, support, np.nan)
        return area
