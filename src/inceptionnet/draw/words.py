"""Texts of the drawing: captions of layers, names of modules, and the legend.

Notation as in the papers: `/2` for a stride of 2, `V` for valid padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from inceptionnet.nets import PAPERS, analysis
from inceptionnet.nets.analysis import Row, Shape, pair
from inceptionnet.nets.spec import (
    Activation,
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Conv,
    Dropout,
    GlobalPool,
    Kernel,
    Leaf,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Network,
    SeparableConv,
    V,
)

POOLS = {"max": "max pool", "avgmax": "mean of avg and max pool", "catavgmax": "avg pool and max pool"}


def caption(node: Leaf, figure: str = "") -> tuple[str, str]:
    """The caption of a layer: `3×3 conv` and `96, /2 V` (number of filters or scale, stride, padding)."""
    marks: list[str] = []
    match node:
        case Conv():
            what = f"{_kernel(node.kernel)} {'conv' if node.relu else 'linear'}"
            marks = [_grid(node), "" if node.norm else "bias"]
        case SeparableConv():
            what = f"{_kernel(node.kernel)} separable conv"
            marks = [f"×{node.multiplier}", _grid(node), "" if node.norm else "bias"]
        case MaxPool():
            what, marks = f"{_kernel(node.kernel)} max pool", [_grid(node)]
        case AvgPool():
            what, marks = f"{_kernel(node.kernel)} avg pool", [_grid(node)]
        case AdaptiveAvgPool(grid=grid):
            what = "global avg pool" if grid == 1 else f"avg pool to {_kernel(grid)}"
        case LocalResponseNorm():
            what = "local response norm"
        case Dropout(p=p):
            what = f"dropout {100 * p:g} %"
        case Linear():
            what = "fully connected"
            marks = ["batch norm" if node.norm else "", "ReLU" if node.relu else "", "" if node.bias else "no bias"]
        case GlobalPool(kind=kind):
            what = f"global {POOLS[kind]}"
        case BatchNorm():
            what = "batch norm"
        case Activation(function=function):
            what = function.replace("_", " ")
    return what, ", ".join(part for part in (figure, *marks) if part)


def grid_text(shape: Shape) -> str:
    """Height × width × channels, the papers' order."""
    return f"{shape.height}×{shape.width}×{shape.channels}"


def listed(names: Iterable[str], order: Sequence[str]) -> str:
    """Names in short form, with runs of consecutive names in `order` abbreviated: `inception_3a, 3b, 4a – 4e`."""
    place = {name: i for i, name in enumerate(order)}
    runs = [
        [name for _, name in run]
        for _, run in groupby(enumerate(names), key=lambda numbered: place[numbered[1]] - numbered[0])
    ]
    head, underscore, _ = runs[0][0].rpartition("_")

    def short(name: str) -> str:
        return name.removeprefix(head + underscore) if name != runs[0][0] else name

    return ", ".join(
        ", ".join(short(name) for name in run) if len(run) < 3 else f"{short(run[0])} – {short(run[-1])}"
        for run in runs
    )


def counted(names: Sequence[str]) -> str:
    """A run of modules of one kind as in the papers: `4 × inception_a`, or `4 × mixed_6b – 6e` without numbers."""
    if len(names) == 1:
        return names[0]
    stem = names[0].rstrip("0123456789")
    if list(names) == [f"{stem}{i}" for i in range(1, len(names) + 1)]:
        return f"{len(names)} × {stem.rstrip('_')}"
    return f"{len(names)} × {names[0]} – {listed(names, names).rpartition(' ')[2]}"


def header(network: Network, rows: Sequence[Row]) -> tuple[str, ...]:
    """Header lines: summary, source, and totals with and without auxiliary heads."""
    cited = [f"[{key}]: {PAPERS[key]}" for key in re.findall(r"\[(v\d)\]", network.paper)]
    main = [row for row in rows if not row.path.startswith("aux.")]
    head = "head" if len(network.aux) == 1 else "heads"
    heads = f" ({analysis.parameters(rows):,} with the auxiliary {head})" if network.aux else ""
    totals = [
        f"{analysis.parameters(main):,} parameters{heads}",
        f"{_count(analysis.multiply_adds(main))} multiply-adds",
        f"input {grid_text(rows[0].input)}",
    ]
    return network.summary, ". ".join([f"Source: {network.paper}", *cited]), " · ".join(totals)


def notes(network: Network, rows: Sequence[Row], letters: bool) -> list[str]:
    """The legend for the notation used in this network; `letters`: whether numbers are shown as letters."""
    nodes = [row.node for row in rows]
    convs = [node for node in nodes if isinstance(node, Conv | SeparableConv)]
    windows = [node for node in nodes if isinstance(node, Conv | SeparableConv | MaxPool | AvgPool)]
    same = "as TensorFlow pads it" if network.conventions.same == "tensorflow" else "half the kernel on every side"
    normed = network.conventions.batch_norm_eps is not None
    counted_in = "count" if network.conventions.average_counts_padding else "do not count"
    told = [
        ("Next to a box: its output, height × width × channels.", True),
        ("A number in a circle: the kind of module, drawn in detail under that number.", True),
        ("A letter: a number that differs between modules, listed under the drawing.", letters),
        (f"conv: a convolution, {'batch norm' if normed else 'bias'} and ReLU; the number of filters is given.", True),
        ("linear: a convolution without ReLU.", any(isinstance(node, Conv) and not node.relu for node in nodes)),
        ("bias: a bias instead of batch norm.", not all(node.norm for node in convs)),
        (
            "separable, ×n: depthwise with n outputs per input channel, then 1×1.",
            any(isinstance(node, SeparableConv) for node in nodes),
        ),
        ("/2: stride 2, and so on.", any(node.stride > 1 for node in windows)),
        (f"V: valid, no padding; otherwise same, {same}.", any(node.padding == V for node in windows)),
        (f"Padding: same, {same}.", not any(node.padding == V for node in windows)),
        ("ceil: padded only after the last row and column.", any(node.padding == "ceil" for node in windows)),
        ("after: same, with the odd pixel of padding at the end.", any(node.padding == "after" for node in windows)),
        (
            f"Average pools {counted_in} the padding.",
            any(isinstance(node, AvgPool) and node.padding != V for node in nodes),
        ),
    ]
    return [note for note, holds in told if holds]


def _kernel(kernel: Kernel) -> str:
    height, width = pair(kernel)
    return f"{height}×{width}"


def _grid(node: Conv | SeparableConv | MaxPool | AvgPool) -> str:
    """Stride and padding of a layer."""
    padding = {"same": "", "valid": "V", "ceil": "ceil", "after": "after"}[node.padding]
    return " ".join(mark for mark in (f"/{node.stride}" if node.stride > 1 else "", padding) if mark)


def _count(number: int) -> str:
    return f"{number / 1e9:.4g} G" if number >= 1e9 else f"{number / 1e6:.4g} M"
