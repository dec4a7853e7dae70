"""The figures of a study: curves of its arms over one another, and the differences that the verdict is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import mean
from typing import TYPE_CHECKING

from inceptionnet.report.plots import PALETTE, bare, new_figure
from inceptionnet.study.curves import MEASURES, Curve
from inceptionnet.study.result import Outcome, Result
from inceptionnet.study.spec import Study
from inceptionnet.study.tables import is_multi_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEAD = "dead features (%)"
TOP5_CLASSES = 10
"""Of fewer classes the top-5 error is in the tables only: it says little."""
ROW_IN = 0.62
"""Height of a comparison."""


def curves_of(study: Study, result: Result) -> dict[str, list[Curve]]:
    """Curves by their unit, the study's own figure first: the mean of each arm, and every seed faintly.

    From ten classes on the top-5 error is among them.
    """
    if is_multi_label(result.outcomes):
        drawn = {MEASURES["map"][0]: "map"}
    else:
        drawn = {MEASURES["top1_error"][0]: "top1"}
        with_top5 = all("val_top5" in row for one in result.outcomes for row in one.rows)
        if with_top5 and result.outcomes[0].classes >= TOP5_CLASSES:
            drawn[MEASURES["top5_error"][0]] = "top5"
    if study.figure == "dead_features":
        drawn = {DEAD: "dead_features"} | drawn
    return {unit: _curves(study, result, what) for unit, what in drawn.items()}


def draw_differences(result: Result) -> Figure:
    """The differences of every comparison: each seed, the mean with its interval, and the margin as a band.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = new_figure(8.0, 1.1 + ROW_IN * len(result.judged))
    axes = figure.subplots()
    for i, one in enumerate(result.judged):
        found, margin = one.difference, 100 * one.comparison.margin
        axes.barh(i, 2 * margin, left=-margin, height=0.5, color=PALETTE[1], alpha=0.18)
        axes.plot([100 * each for each in found.differences], [i] * len(found.differences), linestyle="none",
                  marker="o", markersize=4, color=PALETTE[0], alpha=0.45)  # fmt: skip
        if len(found.differences) > 1:
            axes.errorbar(100 * found.mean, i, xerr=100 * (found.high - found.mean), color=PALETTE[0], marker="D",
                          markersize=6, capsize=4)  # fmt: skip
    names = [f"{one.comparison.arm} − {one.comparison.against}\n{_short(one.comparison.quantity)}" for one in
             result.judged]  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set(xlabel="difference, points; band: smaller than of interest", ylim=(len(names) - 0.5, -0.5))
    axes.axvline(0, color=PALETTE[1], linewidth=1)
    bare(axes)
    return figure


def _curves(study: Study, result: Result, what: str) -> list[Curve]:
    found: list[Curve] = []
    for colour, name in enumerate(study.trained):
        seeds = [_curve(one, what, name, colour) for one in result.of(name)]
        if len(seeds) > 1:
            found += [replace(one, faint=True) for one in seeds]
        epochs, minutes, values = (_mean([getattr(one, key) for one in seeds]) for key in
                                   ("epochs", "minutes", "values"))  # fmt: skip
        found.append(Curve(name, colour, epochs, minutes, values))
    return found


def _curve(one: Outcome, what: str, label: str, colour: int) -> Curve:
    """One training, from the first to the last epoch that it had."""
    rows = [row for row in one.rows if row["epoch"]]
    values = one.curve(what)[: len(rows)]
    drawn = {"map": lambda value: value, "dead_features": lambda value: 100 * value}
    shown = [drawn.get(what, lambda value: 100 * (1 - value))(value) for value in values]
    return Curve(label, colour, [row["epoch"] for row in rows], [row["elapsed_s"] / 60 for row in rows], shown)


def _mean(columns: Sequence[Sequence[float]]) -> list[float]:
    """Element by element, of those that go so far."""
    return [mean(value for value in row if value is not None) for row in zip_longest(*columns)]


def _short(quantity: str) -> str:
    return quantity.replace("_", " ")
