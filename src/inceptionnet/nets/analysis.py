"""Shapes, parameters, multiply-adds and receptive fields, from the tree alone (no torch).

Multiply-adds are those of convolutions and linear layers, as in the papers; batch norm, pools and sums do not count.
Parameters are the trainable ones: weights, biases, batch norm's gamma and beta.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from inceptionnet.nets.spec import (
    AdaptiveAvgPool,
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    GlobalPool,
    Kernel,
    Leaf,
    Linear,
    MaxPool,
    Network,
    Node,
    Padding,
    Residual,
    SeparableConv,
)


class Shape(NamedTuple):
    """Channels, height and width of the activations of one image; a vector has a 1 × 1 grid."""

    channels: int
    height: int
    width: int


class Field(NamedTuple):
    """Receptive field: height and width in input pixels, and the stride in input pixels between neighbouring values.

    Infinite after a global pool or linear layer, which cover the whole image at any size.
    """

    height: float
    width: float
    step: int


@dataclass(frozen=True)
class Row:
    """One node of the tree with shapes and counts; `path` is the name of its module."""

    path: str
    node: Node
    input: Shape
    output: Shape
    field: Field
    parameters: int
    multiply_adds: int

    @property
    def depth(self) -> int:
        """1 for an endpoint, more for its parts."""
        return self.path.count(".")

    @property
    def name(self) -> str:
        """The last part of the path: for an endpoint, its name."""
        return self.path.rpartition(".")[2]


class GridTooSmall(Exception):
    """The grid has become empty: the image is smaller than `minimum_size`."""


def analyse(network: Network, size: tuple[int, int] | None = None) -> list[Row]:
    """All nodes of the network in order of computation, each before its parts: body, head, auxiliary heads.

    Args:
        size: height and width of the image, px; default: the network's image size.

    Raises:
        GridTooSmall: the image is too small.
    """
    height, width = size or (network.input_size, network.input_size)
    body = _walk(network.body, "body", Shape(network.in_channels, height, width), Field(1, 1, 1), network)
    head = _walk(network.head, "head", body[0].output, body[0].field, network)
    rows = body[1:] + head[1:]
    for endpoint, chain in network.aux.items():
        on = next(row for row in body if row.path == f"body.{endpoint}")
        rows += _walk(chain, f"aux.{endpoint}", on.output, on.field, network)[1:]
    return rows


def endpoints(rows: Iterable[Row]) -> list[Row]:
    """The rows of the endpoints of body and head."""
    return [row for row in rows if row.depth == 1]


def parameters(rows: Iterable[Row]) -> int:
    """Number of trainable parameters."""
    return sum(row.parameters for row in rows if isinstance(row.node, Leaf))


def multiply_adds(rows: Iterable[Row]) -> int:
    """Multiply-adds per image."""
    return sum(row.multiply_adds for row in rows if isinstance(row.node, Leaf))


def minimum_size(network: Network) -> int:
    """The smallest image size (height and width), px, that the network can process."""
    sizes = range(1, 1024)  # 1023 px are enough for every network
    return sizes[bisect_left(sizes, True, key=lambda size: _fits(network, size))]


def _fits(network: Network, size: int) -> bool:
    try:
        analyse(network, (size, size))
    except GridTooSmall:
        return False
    return True


def closing(depth: int) -> Conv:
    """The linear convolution at the end of a residual block with `depth` input channels."""
    return Conv(depth, norm=False, relu=False)


def pair(kernel: Kernel) -> tuple[int, int]:
    """Height and width of a kernel."""
    return (kernel, kernel) if isinstance(kernel, int) else kernel


def _walk(node: Node, path: str, shape: Shape, field: Field, network: Network) -> list[Row]:
    """The row of the node, then those of its parts."""
    parts: list[list[Row]]
    match node:
        case Branches(chains=chains):
            parts = [_walk(chain, f"{path}.{name}", shape, field, network) for name, chain in chains.items()]
            outputs = [rows[0].output for rows in parts]
            if len({output[1:] for output in outputs}) > 1:
                raise GridTooSmall(f"{path}: the branches' grids differ, {outputs}")
            output = Shape(sum(output.channels for output in outputs), *outputs[0][1:])
            fields = [rows[0].field for rows in parts]
            seen = Field(max(f.height for f in fields), max(f.width for f in fields), fields[0].step)
        case Residual(body=body):
            branches = _walk(body, f"{path}.branches", shape, field, network)
            close = closing(shape.channels)
            parts = [branches, _walk(close, f"{path}.closing", branches[0].output, branches[0].field, network)]
            output, seen = shape, branches[0].field
        case Mapping() | Sequence():
            named = node.items() if isinstance(node, Mapping) else ((str(i), part) for i, part in enumerate(node))
            parts, output, seen = [], shape, field
            for name, part in named:
                parts.append(_walk(part, f"{path}.{name}", output, seen, network))
                output, seen = parts[-1][0].output, parts[-1][0].field
        case _:
            return [_leaf(node, path, shape, field, network)]
    own = Row(
        path,
        node,
        shape,
        output,
        seen,
        sum(rows[0].parameters for rows in parts),
        sum(rows[0].multiply_adds for rows in parts),
    )
    return [own, *(row for rows in parts for row in rows)]


def _leaf(node: Leaf, path: str, shape: Shape, field: Field, network: Network) -> Row:
    """The row of a node without parts."""
    c, h, w = shape
    output, seen, weights, per_output, norm = shape, field, 0, 0, True
    match node:
        case Conv(filters=filters, norm=norm) | SeparableConv(filters=filters, norm=norm):
            output, seen = _window(node, filters, shape, field, path)
            area = pair(node.kernel)[0] * pair(node.kernel)[1]
            multiplier = node.multiplier if isinstance(node, SeparableConv) else 0
            per_output = area * c * multiplier + c * multiplier * filters if multiplier else area * c * filters
            weights = per_output
        case MaxPool() | AvgPool():
            output, seen = _window(node, c, shape, field, path)
        case AdaptiveAvgPool(grid=grid):
            output = Shape(c, grid, grid)
            windows = (inf, inf) if grid == 1 else (_adaptive_window(h, grid), _adaptive_window(w, grid))
            seen = _seen(field, windows)
        case GlobalPool(kind=kind):
            output, seen = Shape(2 * c if kind == "catavgmax" else c, 1, 1), Field(inf, inf, field.step)
        case Linear(filters=filters, norm=norm):
            output, seen = Shape(filters, 1, 1), Field(inf, inf, field.step)
            weights = per_output = c * h * w * filters
            if not (node.bias or norm):
                return Row(path, node, shape, output, seen, weights, per_output)
        case BatchNorm():
            return Row(path, node, shape, output, seen, 2 * c, 0)
    if weights:
        weights += output.channels * (2 if norm and network.conventions.batch_norm_eps is not None else 1)
    return Row(path, node, shape, output, seen, weights, per_output * output.height * output.width)


def _window(
    node: Conv | SeparableConv | MaxPool | AvgPool, channels: int, shape: Shape, field: Field, path: str
) -> tuple[Shape, Field]:
    """Output and receptive field of a node with kernel, stride and padding."""
    kernel = pair(node.kernel)
    grid = [_steps(n, k, node.stride, node.padding) for n, k in zip(shape[1:], kernel, strict=True)]
    if min(grid) < 1:
        raise GridTooSmall(f"{path}: a {kernel[0]}×{kernel[1]} window on a grid of {shape.height}×{shape.width}")
    return Shape(channels, *grid), _seen(field, kernel)._replace(step=field.step * node.stride)


def _seen(field: Field, window: tuple[float, float]) -> Field:
    """The receptive field of a window over values with receptive field `field`."""
    height, width = ((k - 1) * field.step for k in window)
    return Field(field.height + height, field.width + width, field.step)


def _steps(length: int, kernel: int, stride: int, padding: Padding) -> int:
    """Positions of a window along one side; below 1 if it does not fit."""
    match padding:
        case "same" | "after":
            return -(-length // stride)
        case "valid":
            return (length - kernel) // stride + 1
        case "ceil":
            return -(-(length - kernel) // stride) + 1


def _adaptive_window(length: int, grid: int) -> int:
    """The longest window of an adaptive pool from `length` to `grid`."""
    return max(-(-(i + 1) * length // grid) - i * length // grid for i in range(grid))
