"""Plots of a run: training curves, and held-out images with their predicted classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inceptionnet.data.bands import Pixels
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Split
from inceptionnet.errors import RunError
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.system.extras import import_extra
from inceptionnet.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from inceptionnet.evaluate.evaluation import Evaluation

TRAIN, HELD_OUT, RAW, INCORRECT, CORRECT = "#7a8793", "#1f6fb2", "#9fc5e8", "#b3261e", "#2b6a3f"
PALETTE = ("#002b8c", "#971f00", "#03a66c", "#ce72bc", "#999500", "#2660ff", "#754362", "#500205")
"""Curves of several runs, on white: apart for the colour-blind too, and the first four most. palette.css has them."""
COLUMNS, ROWS = 8, 2


CURVES = {
    "loss": ("cross-entropy loss", 1),
    "top1": ("accuracy (%)", 100),
    "map": ("mean average precision", 1),
    "subset_accuracy": ("subset accuracy (%)", 100),
}
"""The curves by epoch: axis label, and the factor to its unit; see `curves_of`."""


def curves(metrics: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Draw loss and accuracy on training and held-out images by epoch; with several labels an image also mean average
    precision, on held-out images.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    drawn = curves_of(metrics)
    figure = new_figure(4.5 * len(drawn), 4.2)
    for axes, what in zip(figure.subplots(1, len(drawn)), drawn, strict=True):
        draw_curve(axes, metrics, what)
    figure.suptitle(title)
    _save(figure, path)


def curves_of(metrics: Sequence[Mapping[str, float]]) -> list[str]:
    """The keys of CURVES that rows of metrics.csv have: accuracy for one label an image, the last two for several."""
    return [name for name in CURVES if any(key.endswith(f"_{name}") for key in metrics[0])]


def _held_out(row: Mapping[str, float]) -> str:
    return next(key for key in row if key.endswith("_loss") and key != "train_loss").removesuffix("_loss")


def draw_curve(axes: Axes, metrics: Sequence[Mapping[str, float]], what: str) -> None:
    """Draw one of `CURVES`: training, held-out, and with averaged weights the raw ones too."""
    unit, factor = CURVES[what]
    held_out = _held_out(metrics[0])
    epochs = [row["epoch"] for row in metrics]
    shown = [("train", "train, augmented", TRAIN)] if f"train_{what}" in metrics[0] else []
    if f"{held_out}_raw_{what}" not in metrics[0]:
        shown += [(held_out, held_out, HELD_OUT)]
    else:
        shown += [
            (f"{held_out}_raw", f"{held_out}, raw weights", RAW),
            (held_out, f"{held_out}, averaged", HELD_OUT),
        ]
    everything = [row[f"{name}_{what}"] for name, _, _ in shown for row in metrics]
    if what == "loss" and max(everything) > 20 * min(everything) > 0:
        axes.set_yscale("log")  # the held-out loss of the first epochs can be far larger
    for name, legend, colour in shown:
        values = [row[f"{name}_{what}"] * factor for row in metrics]
        if name == "train" and not epochs[0]:  # the fit of the classifier, to images that were not augmented
            values[0] = math.nan
        label = f"{legend}: {values[-1]:.3g} at the end"
        axes.plot(epochs, values, color=colour, label=label, marker="o", markersize=3 if len(epochs) > 1 else 6)
    axes.set(ylabel=unit)
    over_epochs(axes)
    axes.legend(
        frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9
    )  # above the axes, so that it covers no line


def speeds(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the throughput of each engine, fastest first, with a panel for each network and batch size.

    Args:
        rows: `Measurement.to_dict` of inceptionnet.engines.bench.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(f"{row['network']}, batch {row['batch_size']}", []).append(row)
    figure = new_figure(8, 0.9 + sum(0.75 + 0.34 * len(group) for group in groups.values()))
    heights = [1.5 + len(group) for group in groups.values()]
    panels = figure.subplots(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, group) in zip(panels, groups.items(), strict=True):
        slowest_first = sorted(group, key=lambda row: row["images_per_s"])
        several = len({row["precision"] for row in group}) > 1
        names = [f"{row['engine']} {row['precision']}" if several else row["engine"] for row in slowest_first]
        bars = axes.barh(names, [row["images_per_s"] for row in slowest_first])
        for bar in bars:
            bar.set_color(HELD_OUT if bar is bars[-1] else RAW)
        labels = [f"{row['images_per_s']:,.1f} images/s, {row['latency_ms']:,.1f} ms" for row in slowest_first]
        axes.bar_label(bars, labels, padding=4, fontsize=9)
        axes.set_title(name, loc="left", fontsize=10)
        axes.margins(x=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("throughput (images/s)")
    figure.suptitle(title)
    _save(figure, path)


def over_epochs(axes: Axes) -> None:
    """An x axis of whole epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # one epoch has one tick
    bare(axes)


def bare(axes: Axes) -> None:
    """A light grid without a frame."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def predictions(
    evaluation: Evaluation | MultiLabelEvaluation, split: Split, prep: Preprocessing, path: Path, title: str
) -> None:
    """Draw evenly spaced held-out images, then the most confident errors; of several labels those of the largest loss.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunError: the file cannot be written.
    """
    count = COLUMNS * ROWS
    even = np.unique(np.linspace(0, len(evaluation.labels) - 1, min(count, len(evaluation.labels))).astype(int))
    if isinstance(evaluation, MultiLabelEvaluation):
        errors = np.flatnonzero(~evaluation.correct)
        errors, first = errors[np.argsort(-evaluation.losses[errors], kind="stable")], "largest loss"
    else:
        errors, first = evaluation.most_confident(correct=False), "most confident"
    groups = [("evenly spaced", even), (f"{first} of {len(errors)} errors", errors[:count])]
    groups = [(heading, chosen) for heading, chosen in groups if len(chosen)]
    lines = [-(-len(chosen) // COLUMNS) for _, chosen in groups]
    figure = new_figure(1.45 * COLUMNS, 1.75 * sum(lines) + 0.5 * len(groups) + 0.6)
    figure.suptitle(f"{title}: {evaluation.summary} on {len(evaluation.labels)} held-out images")
    parts = figure.subfigures(len(groups), 1, height_ratios=lines, squeeze=False)[:, 0]
    for part, (heading, chosen), rows in zip(parts, groups, lines, strict=True):
        part.suptitle(heading, fontsize=10, color="#444444")
        grid = part.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, i in zip(grid, chosen, strict=False):
            _image(axes, evaluation, int(i), split, prep)
    _save(figure, path)


def _image(axes: Any, evaluation: Evaluation | MultiLabelEvaluation, i: int, split: Split, prep: Preprocessing) -> None:
    index = int(evaluation.indices[i])
    pixels = seen(split, index, prep)
    axes.imshow(pixels.squeeze(), cmap="gray" if prep.channels == 1 else None, vmin=0, vmax=255)
    if isinstance(evaluation, MultiLabelEvaluation):
        rows = evaluation.predicted[i], evaluation.labels[i]
        said, truth = (", ".join(np.array(evaluation.classes)[row]) or "none" for row in rows)
        text = _short(said)
    else:
        said, truth = (evaluation.classes[k[i]] for k in (evaluation.predicted, evaluation.labels))
        text = f"{_short(said)} {evaluation.confidence[i]:.0%}"
    if said != truth:
        text += f"\ntrue: {_short(truth)}"
    axes.set_title(text, fontsize=8, color=CORRECT if said == truth else INCORRECT, pad=3)


def seen(split: Split, index: int, prep: Preprocessing) -> Pixels:
    """An image after preprocessing (size_px, size_px, C). Raises: DecodeError."""
    return pixels_of(split.read(index), prep, split.names[index])


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure. Raises: MissingExtraError without matplotlib."""
    made = import_extra("matplotlib.figure", "reports", "plotting")  # heavy, and not needed to train; opens no window
    figure: Figure = made.Figure(figsize=(width_in, height_in), layout="constrained", dpi=130)
    return figure


def _save(figure: Figure, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}; choose another file") from None
