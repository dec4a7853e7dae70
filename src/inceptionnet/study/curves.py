"""Curves of several runs over one another, by epoch and by minutes; as files, and in the colours of a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inceptionnet.errors import RunError, listed
from inceptionnet.report.charts import WIDTH_IN, inline_svg, themed
from inceptionnet.report.plots import CURVES, PALETTE, bare, new_figure, over_epochs
from inceptionnet.system.files import replacing
from inceptionnet.train.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURES = {
    "top1_error": ("top-1 error (%)", "top1"),
    "top5_error": ("top-5 error (%)", "top5"),
    "loss": (CURVES["loss"][0], "loss"),
    "map": (CURVES["map"][0], "map"),
    "subset_error": ("subset error (%)", "subset_accuracy"),
}
"""What `read_curve` reads: its unit, for an axis, and the column of metrics.csv after the name of the split."""
PANELS = {"epoch": "epoch", "minutes": "minutes of training, evaluation included"}
"""What the curves are drawn by."""
STYLES = ("-", "--", ":", "-.")
"""Of the lines: the second for the colours PALETTE does not have, which begin again with its first, and so on."""
LONGEST = 36
"""Characters of a label; a longer one is shortened in its middle."""
HEIGHT_IN, LINE_IN = 3.2, 0.19
"""A panel, and a line of its legend."""


@dataclass(frozen=True)
class Curve:
    """A metric on held-out images over a training; one value for each evaluation."""

    label: str
    colour: int
    """Index into the palette; those above 7 have its colours again, with other lines."""
    epochs: Sequence[float]
    minutes: Sequence[float]
    """Since the training began, evaluations and restarts included."""
    values: Sequence[float]
    """In the unit that is drawn, such as the top-1 error in %."""
    faint: bool = False
    """A single seed behind the mean of its arm: a thin line without an entry in the legend."""


def read_curve(run: Run, what: str = "top1_error", *, label: str, colour: int, faint: bool = False) -> Curve:
    """A curve from metrics.csv: of the split that the run held out, by the weights that it kept (an average, if any).

    Args:
        what: top1_error or top5_error in %, loss; of several labels an image map, or subset_error in %.

    Raises:
        RunError: no epoch is finished yet, metrics.csv is damaged, or it has no such column.
    """
    rows = run.read_metrics() if (run.path / "metrics.csv").is_file() else []
    if not rows:
        raise RunError(
            f"{run.path}: expected a run with metrics.csv, no epoch of it is finished yet; go on with: "
            f"inceptionnet train --resume --out {run.path}"
        )
    name = MEASURES[what][1]
    column = next((f"{split}_{name}" for split in ("val", "test") if f"{split}_{name}" in rows[0]), "")
    if not column or not {"epoch", "elapsed_s"} <= rows[0].keys():
        raise RunError(
            f"{run.path / 'metrics.csv'}: expected the columns epoch, elapsed_s and val_{name} or test_{name}, got "
            f"{listed(rows[0], 30, ordered=True)}"
        )
    error = what.endswith("_error")
    values = [100 * (1 - row[column]) if error else row[column] for row in rows]
    return Curve(label, colour, [row["epoch"] for row in rows], [row["elapsed_s"] / 60 for row in rows], values, faint)


def draw_curves(curves: Mapping[str, Sequence[Curve]], title: str = "") -> Figure:
    """Two panels with the same curves, by epoch and by minutes, for each unit; the legend is above them.

    Args:
        curves: by their unit, see `MEASURES`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    named = max(sum(not curve.faint for curve in some) for some in curves.values())
    first = named if named <= 3 else -(-named // 2)  # entries above the first panel; the others are above the second
    figure = new_figure(2 * 4.8, len(curves) * (HEIGHT_IN + LINE_IN * first) + 0.3 * bool(title))
    rows = figure.subplots(len(curves), len(PANELS), squeeze=False)
    for panels, (unit, some) in zip(rows, curves.items(), strict=True):
        for axes, by in zip(panels, PANELS, strict=True):
            _draw(axes, some, unit, by)
        handles, labels = panels[0].get_legend_handles_labels()
        _legend(panels[0], handles[:first], labels[:first])
        _legend(panels[1], handles[first:], labels[first:])
    figure.suptitle(_plain(title))
    return figure


def curve_charts(curves: Sequence[Curve], unit: str, title: str) -> list[str]:
    """The two panels of `draw_curves` for a page, each as an SVG element with a legend of its own.

    Args:
        title: different from that of other charts of the page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def panel(by: str) -> Figure:
        figure = new_figure(WIDTH_IN, HEIGHT_IN + LINE_IN * sum(not curve.faint for curve in curves))
        axes = figure.subplots()
        _draw(axes, curves, unit, by)
        _legend(axes, *axes.get_legend_handles_labels())
        return figure

    return [themed_svg(lambda by=by: panel(by), f"{title}: {unit} by {by}") for by in PANELS]  # type: ignore[misc]


def themed_svg(make: Callable[[], Figure], title: str) -> str:
    """A figure as an SVG element for a page, in its colours for light and dark; the page includes palette.css.

    Args:
        make: draws it; called where black becomes the page's colour of text.
        title: what it shows, for readers who do not see it; different from that of other figures of the page.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    with themed():
        return inline_svg(make(), title)


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write a file for each kind, STEM.svg and STEM.png, the same bytes each time, and return their paths.

    Raises:
        RunError: a file cannot be written; an existing one is unchanged.
    """
    import matplotlib

    files = [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
    for file, kind in zip(files, kinds, strict=True):
        try:
            with replacing(file) as temporary, matplotlib.rc_context({"svg.hashsalt": stem.name}):
                figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}; choose another folder") from None
    return files


def _legend(axes: Axes, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend above the axes, so that it covers no line."""
    if handles:
        axes.legend(handles, labels, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)


def _draw(axes: Axes, curves: Sequence[Curve], unit: str, by: str) -> None:
    """One panel, without its legend."""
    for curve in sorted(curves, key=lambda one: not one.faint):  # the faint ones below the others
        x = curve.epochs if by == "epoch" else curve.minutes
        again, colour = divmod(curve.colour, len(PALETTE))
        look: dict[str, Any] = {"color": PALETTE[colour], "linestyle": STYLES[again % len(STYLES)]}
        if curve.faint:
            look |= {"alpha": 0.35, "linewidth": 0.8}
        else:
            name = _plain(_short(curve.label))
            look |= {"marker": "o", "markersize": 3 if len(x) > 1 else 6, "label": name}
            if len(curve.values):
                look["label"] = f"{name}: {curve.values[-1]:.3g} at the end"
        axes.plot(x, curve.values, **look)
    values = [value for curve in curves for value in curve.values]
    if unit == MEASURES["loss"][0] and values and max(values) > 20 * min(values) > 0:
        axes.set_yscale("log")  # the loss of the first epochs can be far larger
    axes.set(ylabel=unit, xlabel=PANELS[by])
    if by == "epoch":
        over_epochs(axes)
    else:
        bare(axes)


def _short(label: str) -> str:
    """Both ends of a long label: names of runs often differ at the last."""
    if len(label) <= LONGEST:
        return label
    return f"{label[: LONGEST // 3]}…{label[LONGEST // 3 + 1 - LONGEST :]}"


def _plain(text: str) -> str:
    """Text that matplotlib draws as it is: dollar signs are not formulas, and a first underscore hides nothing."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
