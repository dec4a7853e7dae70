"""Charts of the report: matplotlib's SVG in the colours of the page, which differ between light and dark."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inceptionnet.errors import RunError
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
from inceptionnet.report.plots import (
    CURVES,
    HELD_OUT,
    PALETTE,
    RAW,
    TRAIN,
    bare,
    curves_of,
    draw_curve,
    new_figure,
    over_epochs,
)
from inceptionnet.system.extras import importing_torchmetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#123456"
"""Placeholder for the text colour until the SVG is written."""
COLOURS = {INK: "currentColor", TRAIN: "var(--train)", HELD_OUT: "var(--accent)", RAW: "var(--raw)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(PALETTE)
}
"""The colours of charts, and the page's CSS variables for them: of report.css, and --c0 to --c7 of palette.css."""
WIDTH_IN, HEIGHT_IN = 5.2, 3.6
SHOWN_RISE = 4
"""The loss of a range test is shown up to so many times its smallest value."""
CURVES_SHOWN = 8
"""Labels in the precision-recall chart: those with the largest support."""


def curve_charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Loss, accuracy and learning rate by epoch, as SVG elements. Raises: RunError: a column is missing."""
    try:
        return _curve_charts(rows)
    except (KeyError, StopIteration) as error:
        raise RunError(
            f"metrics.csv: expected a column {str(error) or 'val_loss'}, got none; restore the file"
        ) from None


def _curve_charts(rows: Sequence[Mapping[str, float]]) -> list[str]:
    charts = []
    with themed():
        for what in curves_of(rows):
            unit, _ = CURVES[what]
            figure = new_figure(WIDTH_IN, HEIGHT_IN)
            draw_curve(figure.subplots(), rows, what)
            charts.append(inline_svg(figure, f"{unit} by epoch"))
        figure = new_figure(WIDTH_IN, HEIGHT_IN)
        axes = figure.subplots()
        epochs = [row["epoch"] for row in rows]
        axes.plot(
            epochs,
            [row["lr"] or math.nan for row in rows],
            color=TRAIN,
            marker="o",
            markersize=3 if len(rows) > 1 else 6,
        )
        axes.set(ylabel="learning rate at the end of the epoch")
        over_epochs(axes)
        charts.append(inline_svg(figure, "learning rate by epoch"))
    return charts


def penalty_charts(head: Mapping[str, Any]) -> list[str]:
    """Cross-entropy and accuracy on held-out images by the penalty of a logistic regression, as SVG elements.

    Args:
        head: the content of head.json.
    """
    charts, trials, accuracy = [], head["trials"], (f"{head['measure']} (%)", 100)
    with themed():
        for what, (unit, factor) in {"loss": CURVES["loss"], "accuracy": accuracy}.items():
            figure = new_figure(WIDTH_IN, HEIGHT_IN)
            axes = figure.subplots()
            values = [factor * trial[what] for trial in trials]
            axes.plot([trial["penalty"] for trial in trials], values, color=HELD_OUT, marker="o", markersize=4,
                      label="held-out training images")  # fmt: skip
            axes.axvline(head["penalty"], color=TRAIN, linestyle="--", label=f"chosen: {head['penalty']:.3g}")
            axes.set(ylabel=unit, xlabel="penalty", xscale="log")
            axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, ncols=2)
            bare(axes)
            charts.append(inline_svg(figure, f"{unit} by penalty"))
    return charts


def range_test_chart(test: Mapping[str, Any]) -> str:
    """Loss by learning rate in a range test, as an SVG element.

    Args:
        test: the content of range_test.json.
    """
    with themed():
        figure = new_figure(WIDTH_IN, HEIGHT_IN)
        axes, lrs = figure.subplots(), [trial["lr"] for trial in test["trials"]]
        axes.plot(lrs, [trial["loss"] for trial in test["trials"]], color=RAW, marker="o", markersize=3,
                  linestyle="none", label="loss of a step")  # fmt: skip
        axes.plot(lrs, [trial["smoothed"] for trial in test["trials"]], color=HELD_OUT, label="smoothed")
        axes.axvline(test["peak_lr"], color=TRAIN, linestyle="--", label=f"peak: {test['peak_lr']:.3g}")
        axes.set(ylabel="training loss", xlabel="learning rate", xscale="log")
        lowest, top = min(trial["smoothed"] for trial in test["trials"]), axes.get_ylim()[1]
        axes.set_ylim(0, min(top, SHOWN_RISE * lowest))  # a loss that diverges would flatten the rest
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, ncols=3)
        bare(axes)
        return inline_svg(figure, "training loss by learning rate")


def reliability_chart(metrics: Metrics) -> str:
    """Reliability diagram with confidence intervals, and the number of images in each bin, as an SVG element."""
    with themed():
        figure = new_figure(WIDTH_IN, WIDTH_IN)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
        x = [one.confidence for one in metrics.bins]
        y = [one.accuracy for one in metrics.bins]
        bounds = [[a - one.interval.low for a, one in zip(y, metrics.bins, strict=True)],
                  [one.interval.high - a for a, one in zip(y, metrics.bins, strict=True)]]  # fmt: skip
        upper.plot([0, 1], [0, 1], color=TRAIN, linestyle="--", label="perfectly calibrated")
        upper.errorbar(
            x, y, yerr=bounds, color=HELD_OUT, marker="o", markersize=4, capsize=2, label="accuracy, 95 % interval"
        )
        upper.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1))
        upper.text(0.03, 0.95, "under-confident", fontsize=9, va="top", color=TRAIN)
        upper.text(0.97, 0.05, "over-confident", fontsize=9, ha="right", color=TRAIN)
        upper.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, ncols=2)
        for one in metrics.bins:
            width = one.high - one.low
            lower.bar(one.low + width / 2, one.images, width=0.9 * width, color=HELD_OUT)
        lower.set(xlabel="confidence", ylabel="images")
        bare(upper)
        bare(lower)
        return inline_svg(figure, f"reliability diagram: expected calibration error {metrics.ece:.1%}")


def precision_recall_chart(metrics: MultiLabelMetrics) -> str:
    """Precision by recall over all thresholds, a curve for each label, as an SVG element; empty without any label."""
    import torch

    with importing_torchmetrics():
        from torchmetrics.functional.classification import binary_precision_recall_curve

    evaluation = metrics.evaluation
    known = [i for i, area in enumerate(metrics.average_precision) if area is not None]
    shown = sorted(sorted(known, key=lambda i: -metrics.classes[i].support)[:CURVES_SHOWN])
    if not shown:
        return ""
    with themed():
        figure = new_figure(WIDTH_IN, WIDTH_IN)
        axes = figure.subplots()
        for i in shown:
            probabilities = torch.from_numpy(evaluation.probabilities[:, i])
            truth = torch.from_numpy(evaluation.labels[:, i]).long()
            precision, recall, _ = binary_precision_recall_curve(probabilities, truth)
            label = f"{metrics.classes[i].name}: AP {metrics.average_precision[i]:.3f}"
            axes.step(recall.tolist(), precision.tolist(), where="post", label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9, ncols=2)
        bare(axes)
        return inline_svg(figure, "precision-recall curves by label")


@contextmanager
def themed() -> Iterator[None]:
    """For figures that become an `inline_svg`: everything black by default is drawn in `INK`; text stays text.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    new_figure(1, 1)  # raises the package's own error if matplotlib is missing
    import matplotlib

    settings: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 11.0}
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    with matplotlib.rc_context(settings | dict.fromkeys(inked, INK)):
        yield


def inline_svg(figure: Figure, title: str) -> str:
    """A figure that was drawn within `themed`, as an SVG element that scales with the page and has its colours.

    Args:
        title: what the chart shows, for readers who do not see it; different from that of other charts of the page.
    """
    import matplotlib

    stream = io.StringIO()
    # The salt makes the ids differ between charts and stay the same between runs.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    head, _, rest = text.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    for colour, variable in COLOURS.items():
        rest = rest.replace(colour, variable)
    salt = re.sub(r"\W+", "-", title)
    rest = re.sub(r'\bid="', f'id="{salt}-', rest).replace('"#', f'"#{salt}-').replace("url(#", f"url(#{salt}-")
    return f'<svg class="chart" role="img" aria-label="{html.escape(title)}" {box[0]} xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
