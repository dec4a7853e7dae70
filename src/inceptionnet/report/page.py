"""One HTML file that holds all of a run and its evaluation: no other file, no network; light, dark, and for print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import inceptionnet
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.draw import svg
from inceptionnet.errors import RunError, missing_extra
from inceptionnet.evaluate.metrics import LEVEL, Interval, Metrics
from inceptionnet.files import replacing
from inceptionnet.model import InceptionNet
from inceptionnet.report.charts import curve_charts, reliability_chart
from inceptionnet.report.images import best, examples, small_images, worst

MATRIX = 40
"""Up to so many classes the confusion matrix shows; of more, those with the most mistakes."""
PAIRS = 100
"""Of the classes taken for one another most often, so many are listed."""
SHORT = 12
"""Names in a list of settings."""


@dataclass(frozen=True)
class Subject:
    """What a report is about."""

    title: str
    metrics: Metrics
    split: AnySplit
    split_name: str
    split_note: str
    model: InceptionNet
    prep: Preprocessing
    epochs: Sequence[Mapping[str, float]] = ()
    """The lines of metrics.csv; none for weights without a run."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What run.json holds, or whatever is known of the weights."""
    repeat: str = ""
    """The command that does it again."""


def write_report(path: Path, subject: Subject) -> None:
    """Write the report.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed. Without captum the overlays are left out, and the page
            says so.
        RunError: the file cannot be written; one that was there is as it was.
    """
    text = rendered(subject)
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def rendered(subject: Subject) -> str:
    """The page as text. Raises: as `write_report`, but for writing."""
    check_extras()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("inceptionnet.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "within": _within, "duration": _duration}
    return environment.get_template("report.html").render(_content(subject))


def check_extras() -> None:
    """Raises: MissingExtraError without jinja2 or matplotlib."""
    for package in ("jinja2", "matplotlib"):
        try:
            import_module(package)
        except ImportError:
            raise missing_extra(package, "reports", "the report") from None


def _content(subject: Subject) -> dict[str, Any]:
    """What the template names."""
    metrics, model = subject.metrics, subject.model
    evaluation = metrics.evaluation
    found: dict[str, Any] = {"best": [], "worst": [], "no_overlays": ""}
    images: dict[str, list[tuple[str, float, str]]] = {}
    if isinstance(subject.split, Split):
        images = small_images(evaluation, subject.split, subject.prep)
        for which, chosen in (("worst", worst(evaluation)), ("best", best(evaluation))):
            found[which], why = examples(evaluation, chosen, subject.split, model, subject.prep)
            found["no_overlays"] = found["no_overlays"] or why
    shown = _shown(metrics)
    return found | {
        "version": inceptionnet.__version__,
        "subject": subject,
        "metrics": metrics,
        "evaluation": evaluation,
        "level": _percent(LEVEL, 0),
        "curves": curve_charts(subject.epochs) if subject.epochs else [],
        "reliability": reliability_chart(metrics),
        "drawing": svg(model.network),
        "streamed": not isinstance(subject.split, Split),
        "small": sum(map(len, images.values())),
        "rows": [(i, one) for i, one in enumerate(metrics.classes) if one.images],
        "pairs": metrics.confused[:PAIRS],
        "shown": shown,
        "timing": _timing(subject.epochs),
        "groups": _groups(subject.settings),
        "data": {
            "classes": evaluation.classes,
            "shown": shown,
            "together": _together(metrics.confusion[np.ix_(shown, shown)]),
            "recall": [one.recall for one in metrics.classes],
            "cells": [[int(i), int(j), int(metrics.confusion[i, j])] for i, j in np.argwhere(metrics.confusion)],
            "images": images,
        },
    }


def _shown(metrics: Metrics) -> list[int]:
    """The classes of the matrix, in their order: those with images or taken for one, and most mistakes."""
    of_it, taken = metrics.confusion.sum(1), metrics.confusion.sum(0)
    mistakes = of_it + taken - 2 * metrics.confusion.diagonal()
    there = np.flatnonzero(of_it + taken)
    most = there[np.argsort(-mistakes[there], kind="stable")][:MATRIX]
    return [int(i) for i in np.sort(most)]


def _together(confusion: npt.NDArray[np.int64]) -> list[int]:
    """An order in which classes that are taken for one another stand side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(confusion) < 3:
        return list(range(len(confusion)))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    distance = 1 - np.minimum((shares + shares.T) / 2, 1)
    np.fill_diagonal(distance, 0)
    return [int(i) for i in leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))]


def _timing(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds in all, and images a second in training; nothing of a run without epochs."""
    if not epochs:
        return {}
    rates = [row["images_per_s"] for row in epochs]
    return {
        "seconds": epochs[-1]["seconds"],
        "median": float(np.median(rates)),
        "slowest": min(rates),
        "fastest": max(rates),
        "waiting": float(np.mean([row["waiting"] for row in epochs])),
    }


def _groups(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Nested settings as one table a group, with dotted names in it; what has no group comes first."""
    groups: dict[str, dict[str, str]] = {"": {}}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            groups[name] = dict(_flat(value))
        else:
            groups[""][name] = _text(value)
    return {name: values for name, values in groups.items() if values}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", _text(value))]
    return rows


def _text(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            more = f" and {len(value) - SHORT} more" if len(value) > SHORT else ""
            return ", ".join(map(str, value[:SHORT])) + more
        case _:
            return str(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def _within(interval: Interval | None, form: str = "percent") -> str:
    """Both bounds; "percent" or a format."""
    if interval is None:
        return ""
    if form == "percent":
        return f"{100 * interval.low:.1f}–{100 * interval.high:.1f}\N{NO-BREAK SPACE}%"
    return f"{interval.low:{form}}–{interval.high:{form}}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
