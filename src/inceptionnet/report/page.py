"""The report: a self-contained HTML file of a run and its evaluation, without network access; light, dark and print."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.draw import svg
from inceptionnet.evaluate.intervals import LEVEL
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
from inceptionnet.model.network import InceptionNet
from inceptionnet.report.charts import (
    curve_charts,
    penalty_charts,
    precision_recall_chart,
    range_test_chart,
    reliability_chart,
)
from inceptionnet.report.html import from_template, percent, write_html
from inceptionnet.report.images import confident_correct, confident_errors, examples, small_images
from inceptionnet.system.extras import import_extra

MATRIX = 40
"""The most classes in the confusion matrix; of more, those with the most errors are shown."""
PAIRS = 100
"""The most confused pairs, up to this many, are listed."""
SHORT = 12
"""Longer lists in the settings are shortened to this many items."""


@dataclass(frozen=True)
class Subject:
    """The content of a report."""

    title: str
    metrics: Metrics | MultiLabelMetrics
    split: AnySplit
    split_name: str
    split_note: str
    model: InceptionNet
    prep: Preprocessing
    epochs: Sequence[Mapping[str, float]] = ()
    """The rows of metrics.csv; empty for weights without a run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The content of run.json, or the metadata of the weights."""
    imbalance: str = ""
    """What to know about training classes of unequal size, in one line."""
    leaks: Sequence[str] = ()
    """What was found before the training: copies and groups in two splits, and shortcuts."""
    repeat: str = ""
    """The command that repeats the run."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """The content of head.json, if the classifier was fitted by logistic regression."""
    range_test: Mapping[str, Any] = field(default_factory=dict)
    """The content of range_test.json, if there was a learning-rate range test."""
    best: Mapping[str, float] = field(default_factory=dict)
    """The row of `epochs` that is best on the validation split, if epochs may be chosen by one."""
    chosen_by: str = ""
    """The metric by which it is the best, in words."""
    best_value: str = ""
    """The metric in that row."""
    last_value: str = ""
    """The metric in the last row."""

    @property
    def descent(self) -> Sequence[Mapping[str, float]]:
        """The epochs of gradient descent: without the fit of the classifier, which is epoch 0."""
        return [row for row in self.epochs if row["epoch"]]


def write_report(path: Path, subject: Subject) -> None:
    """Write the report.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed. Without captum the page has no overlays, and says so.
        RunError: the file cannot be written; an existing file is unchanged.
    """
    write_html(path, rendered(subject))


def rendered(subject: Subject) -> str:
    """The page as text. Raises: MissingExtraError, as `write_report`."""
    check_extras()
    return from_template("report.html", _content(subject), {"spaced": _spaced})


def _spaced(text: str) -> str:
    """A log line with the percent signs of the page."""
    return re.sub(r"(\d)%", "\\1\N{NO-BREAK SPACE}%", text)


def check_extras() -> None:
    """Raises: MissingExtraError without jinja2 or matplotlib."""
    for package in ("jinja2", "matplotlib"):
        import_extra(package, "reports", "the report")


def _content(subject: Subject) -> dict[str, Any]:
    """The variables of the template."""
    metrics, streamed = subject.metrics, not isinstance(subject.split, Split)
    several = isinstance(metrics, MultiLabelMetrics)
    return {
        "subject": subject,
        "metrics": metrics,
        "evaluation": metrics.evaluation,
        "decision": subject.model.outputs.decision(metrics.evaluation.classes, metrics.evaluation.threshold),
        "level": percent(LEVEL, 0),
        "curves": curve_charts(subject.epochs) if subject.descent else [],
        "penalties": penalty_charts(subject.head) if subject.head.get("trials") else [],
        "range_test": range_test_chart(subject.range_test) if subject.range_test.get("trials") else "",
        "drawing": svg(subject.model.network),
        "several": several,
        "streamed": streamed,
        "examined": not (several or streamed),
        "timing": _timing(subject.descent),
        "groups": _groups(subject.settings),
        **(_of_labels(metrics) if isinstance(metrics, MultiLabelMetrics) else _of_classes(subject, metrics)),
    }


def _of_labels(metrics: MultiLabelMetrics) -> dict[str, Any]:
    """The variables of images with several labels, which have no confusion matrix."""
    areas = zip(metrics.classes, metrics.average_precision, metrics.average_precision_intervals, strict=True)
    return {
        "rows": list(areas),
        "precision_recall": precision_recall_chart(metrics),
        "data": {"classes": [], "shown": [], "clustered": [], "recall": [], "cells": [], "images": {}},
    }


def _of_classes(subject: Subject, metrics: Metrics) -> dict[str, Any]:
    """The variables of images with one label."""
    model, confusion, evaluation = subject.model, metrics.confusion_matrix, metrics.evaluation
    found: dict[str, Any] = {"confident_correct": [], "confident_errors": [], "no_overlays": ""}
    images: dict[str, list[tuple[str, float, str]]] = {}
    if isinstance(subject.split, Split):
        images = small_images(evaluation, subject.split, subject.prep)
        for name, choose in (("confident_errors", confident_errors), ("confident_correct", confident_correct)):
            chosen = choose(evaluation)
            found[name], why = examples(evaluation, chosen, subject.split, model, subject.prep)
            found["no_overlays"] = found["no_overlays"] or why
    shown = _shown(metrics)
    return found | {
        "reliability": reliability_chart(metrics),
        "small": sum(map(len, images.values())),
        "rows": [(i, one) for i, one in enumerate(metrics.classes) if one.support],
        "pairs": metrics.confused_pairs[:PAIRS],
        "shown": shown,
        "data": {
            "classes": evaluation.classes,
            "shown": shown,
            "clustered": _clustered(confusion[np.ix_(shown, shown)]),
            "recall": [one.recall for one in metrics.classes],
            "cells": [[int(i), int(j), int(confusion[i, j])] for i, j in np.argwhere(confusion)],
            "images": images,
        },
    }


def _shown(metrics: Metrics) -> list[int]:
    """The classes of the matrix, in their order: of those with support or predictions, the ones with most errors."""
    support, predicted = metrics.confusion_matrix.sum(1), metrics.confusion_matrix.sum(0)
    errors = support + predicted - 2 * metrics.confusion_matrix.diagonal()
    occur = np.flatnonzero(support + predicted)
    most = occur[np.argsort(-errors[occur], kind="stable")][:MATRIX]
    return [int(i) for i in np.sort(most)]


def _clustered(confusion: npt.NDArray[np.int64]) -> list[int]:
    """An order of the classes by hierarchical clustering, so that confused classes are neighbours."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(confusion) < 3:
        return list(range(len(confusion)))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    distance = 1 - np.minimum((shares + shares.T) / 2, 1)
    np.fill_diagonal(distance, 0)
    return [int(i) for i in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


def _timing(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Total time, and training images/s; empty without epochs."""
    if not epochs:
        return {}
    rates = [row["images_per_s"] for row in epochs]
    return {
        "epochs": int(epochs[-1]["epoch"]),
        "seconds": epochs[-1]["elapsed_s"],
        "median": float(np.median(rates)),
        "slowest": min(rates),
        "fastest": max(rates),
        "data_wait": float(np.mean([row["data_wait"] for row in epochs])),
    }


def _groups(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Nested settings as one table per group, with dotted names; settings without a group come first."""
    groups: dict[str, dict[str, str]] = {"": {}}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            groups[name] = {key: _text(one) for key, one in flat(value)}
        else:
            groups[""][name] = _text(value)
    return {name: values for name, values in groups.items() if values}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (dotted name, value)."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: object) -> str:
    match value:
        case None | [] | ():
            return "–"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            more = f" and {len(value) - SHORT} more" if len(value) > SHORT else ""
            return ", ".join(map(str, value[:SHORT])) + more
        case _:
            return str(value)
