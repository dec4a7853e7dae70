"""From a fused network to the steps of kernels.cpp: one list for a batch size, with all memory planned once.

Branches of a concatenation write into slices of one buffer. Bias, ReLU and the sum of a residual block belong to the
step before them. Buffers that are not needed at the same time share memory. A layer that the kernels do not have is run
by torch, on the same buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.engines.fusion import ChannelBias, flat
from inceptionnet.engines.winograd.convolution import Convolution, is_plain
from inceptionnet.engines.winograd.library import Library
from inceptionnet.engines.winograd.memory import Buffer, View, Weights, arrange
from inceptionnet.model.modules import Concatenation, ResidualBlock, SameMaxPool, SamePad, same_padding

CONVOLUTION, WINOGRAD, MAX_POOL, AVERAGE_POOL, PAD, RESPONSE_NORM = range(6)
"""The kinds of steps.h."""

MOST_TAPS, MOST_CHANNELS = 64, 8192
"""The bounds of steps.h; what is larger is run by torch."""


@dataclass
class Layer:
    """One step: what steps.h has but for the addresses, or a module for torch."""

    source: View
    target: View
    fields: dict[str, int] = field(default_factory=dict)
    residual: View | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    scratch: int = 0
    """Floats that each thread needs."""
    module: nn.Module | None = None


class Plan:
    """The layers for one batch size; `source` and `target` are the network's input and output."""

    def __init__(self, body: nn.Module, shape: Sequence[int], threads: int, library: Library, weights: Weights) -> None:
        self.images: int
        self.images, channels, height, width = shape
        self.threads = threads
        self.library = library
        self.weights = weights
        self.layers: list[Layer] = []
        self.buffers: list[Buffer] = []
        self.source: View = View(self._buffer((height, width), channels), 0, channels)
        self.target: View = self._chain(body, self.source)
        self.target.buffer.last = len(self.layers)
        self.size: int = arrange(self.buffers, self.images)
        """Floats of the arena."""

    def _buffer(self, grid: tuple[int, int], channels: int) -> Buffer:
        made = Buffer(*grid, channels, len(self.layers), len(self.layers))
        self.buffers.append(made)
        return made

    def _add(
        self, source: View, grid: tuple[int, int], channels: int, into: Buffer | None, residual: View | None = None
    ) -> Layer:
        """A layer with a new target: all of a buffer of its own, or the next channels of `into`."""
        if into is None:
            target = View(self._buffer(grid, channels), 0, channels)
        else:
            if not into.channels:
                into.height, into.width = grid
            target = View(into, into.channels, channels)
            into.channels += channels
        layer = Layer(source, target, residual=residual)
        for view in (source, target, residual):
            if view is not None:
                view.buffer.last = len(self.layers)
        self.layers.append(layer)
        return layer

    def _chain(
        self, module: nn.Module, x: View, into: Buffer | None = None, residual: View | None = None,
        relu: bool = False,
    ) -> View:  # fmt: skip
        """The layers of a module in their order; the last one writes into `into` and has the residual sum and ReLU."""
        parts = list(flat(module))
        while parts:
            part, *rest = parts
            pad = None
            if type(part) is SamePad and rest and isinstance(rest[0], nn.Conv2d) and _has_kernel(rest[0]):
                pad, part, *rest = part, *rest
            bias: ChannelBias | None = None
            if rest and isinstance(part, nn.AvgPool2d) and isinstance(rest[0], ChannelBias):
                bias = rest[0]
                rest = rest[1:]
            own_relu = (
                bool(rest) and isinstance(rest[0], nn.ReLU) and not isinstance(part, Concatenation | ResidualBlock)
            )
            rest = rest[own_relu:]
            to, add, active = (None, None, own_relu) if rest else (into, residual, own_relu or relu)
            match part:
                case Concatenation():
                    buffer = to or self._buffer((0, 0), 0)
                    begin = buffer.channels
                    for branch in part.values():
                        self._chain(branch if any(flat(branch)) else Copy(), x, buffer)
                    x = View(buffer, begin, buffer.channels - begin)
                case ResidualBlock(scale=1.0):
                    inner = self._chain(part.branches, x)
                    x = self._chain(part.closing, inner, to, x, isinstance(part.relu, nn.ReLU))
                case nn.Conv2d() if _has_kernel(part):
                    x = self._convolution(part, pad, x, active, to, add)
                case SameMaxPool():
                    top, left = (same_padding(n, k, part.stride)[0] for n, k in zip(x.grid, part.kernel, strict=True))
                    grid = ceil(x.grid[0] / part.stride), ceil(x.grid[1] / part.stride)
                    x = self._pool(MAX_POOL, x, grid, part.kernel, (part.stride,) * 2, (top, left), active, to)
                case (
                    nn.MaxPool2d(dilation=1, return_indices=False)
                    | nn.AvgPool2d(divisor_override=None, ceil_mode=False)
                ):
                    kind = MAX_POOL if isinstance(part, nn.MaxPool2d) else AVERAGE_POOL
                    kernel, stride, padding = _pair(part.kernel_size), _pair(part.stride), _pair(part.padding)
                    grid = _pooled(x.grid, kernel, stride, padding, bool(part.ceil_mode))
                    x = self._pool(kind, x, grid, kernel, stride, padding, active, to)
                    if kind == AVERAGE_POOL:
                        self.layers[-1].fields["count_padding"] = int(bool(part.count_include_pad))
                        self.layers[-1].bias = self.library.bias(bias.bias if bias else None, x.channels)
                case nn.LocalResponseNorm(beta=0.75) if not own_relu:
                    x = self._response_norm(part, x, to)
                case _:
                    x = self._by_torch(nn.Sequential(part, *[nn.ReLU()] * active), x, to)
            if add is not None and (self.layers[-1].residual is None or own_relu):
                raise NotImplementedError(f"a residual block that ends in {type(part).__name__}")
            parts = rest
        return x

    def _convolution(
        self, conv: nn.Conv2d, pad: SamePad | None, x: View, relu: bool, into: Buffer | None, residual: View | None
    ) -> View:
        kernel, stride, around = _pair(conv.kernel_size), _pair(conv.stride), _pair(conv.padding)
        before, after = around, around
        if pad is not None:
            more = [same_padding(n, k, pad.stride) for n, k in zip(x.grid, pad.kernel, strict=True)]
            before = around[0] + more[0][0], around[1] + more[1][0]
            after = around[0] + more[0][1], around[1] + more[1][1]
        whole = x.grid[0] + before[0] + after[0], x.grid[1] + before[1] + after[1]
        grid = (whole[0] - kernel[0]) // stride[0] + 1, (whole[1] - kernel[1]) // stride[1] + 1
        sizes = Convolution(self.images, x.channels, conv.out_channels, kernel, stride, grid)
        tile = sizes.tile() if residual is None else None
        if tile is None and whole != x.grid:
            layer = self._add(x, whole, x.channels, None)
            layer.fields |= step_fields(PAD, (1, 1), (1, 1), before, self.images * whole[0])
            x, before = layer.target, (0, 0)
        layer = self._add(x, grid, conv.out_channels, into, residual)
        layer.weight = self.weights.packed(conv, sizes, tile)
        layer.bias = self.library.bias(conv.bias, conv.out_channels)
        layer.fields |= step_fields(CONVOLUTION if tile is None else WINOGRAD, kernel, stride, before, 1) | {
            "relu": relu
        }
        tasks, layer.scratch = sizes.tasks(tile, self.threads, self.library)
        layer.fields |= tasks
        return layer.target

    def _pool(
        self,
        kind: int,
        x: View,
        grid: tuple[int, int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        before: tuple[int, int],
        relu: bool,
        into: Buffer | None,
    ) -> View:
        layer = self._add(x, grid, x.channels, into)
        layer.fields |= step_fields(kind, kernel, stride, before, self.images * grid[0]) | {"relu": relu}
        return layer.target

    def _response_norm(self, norm: nn.LocalResponseNorm, x: View, into: Buffer | None) -> View:
        layer = self._add(x, x.grid, x.channels, into)
        layer.fields |= step_fields(RESPONSE_NORM, (1, norm.size), (1, 1), (0, 0), self.images * x.grid[0])
        layer.weight = torch.tensor([norm.alpha / norm.size, norm.k])
        layer.scratch = x.channels + norm.size + self.library.lanes
        return layer.target

    def _by_torch(self, module: nn.Module, x: View, into: Buffer | None) -> View:
        with torch.no_grad():
            _, channels, *grid = module(torch.zeros(1, x.channels, *x.grid)).shape
        layer = self._add(x, (grid[0], grid[1]), channels, into)
        layer.module = module
        return layer.target


def _has_kernel(conv: nn.Conv2d) -> bool:
    return is_plain(conv) and prod(conv.kernel_size) <= MOST_TAPS and conv.in_channels <= MOST_CHANNELS


class Copy(nn.Module):
    """A branch without a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same."""
        return x


def step_fields(
    kind: int, kernel: tuple[int, int], stride: tuple[int, int], before: tuple[int, int], chunks: int
) -> dict[str, int]:
    """The fields of a step that every kind with a window has."""
    return {
        "kind": kind, "kernel_height": kernel[0], "kernel_width": kernel[1], "stride_height": stride[0],
        "stride_width": stride[1], "top": before[0], "left": before[1], "chunks": chunks, "groups": 1,
    }  # fmt: skip


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pooled(
    grid: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], up: bool
) -> tuple[int, int]:
    """The grid after a pool, as torch counts it: rounded up, no window begins in the padding at the end."""

    def side(n: int, k: int, s: int, p: int) -> int:
        count = (n + 2 * p - k + (s - 1) * up) // s + 1
        return count - (up and (count - 1) * s >= n + p)

    return side(grid[0], kernel[0], stride[0], padding[0]), side(grid[1], kernel[1], stride[1], padding[1])
