"""The compiled kernels as Python sees them: what they have, what they read, and calls of them with tensors."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

TILES: dict[tuple[int, int, int], tuple[tuple[int, int], ...]] = {
    (1, 3, 1): ((1, 4), (1, 6)),
    (3, 1, 1): ((4, 1), (6, 1)),
    (1, 7, 1): ((1, 4), (1, 6)),
    (7, 1, 1): ((4, 1), (6, 1)),
    (3, 3, 1): ((4, 4), (6, 6)),
    (5, 5, 1): ((2, 2), (4, 4)),
    (3, 3, 2): ((3, 3), (4, 4), (5, 5)),
}
"""The tiles that kernels.cpp has, in outputs along height and width, by height, width and stride of the kernel."""


class Step(ctypes.Structure):
    """A layer, as steps.h has it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "kind", "relu", "images", "height", "width", "channels", "out_height", "out_width", "out_channels",
            "kernel_height", "kernel_width", "stride_height", "stride_width", "top", "left", "tile_height",
            "tile_width", "count_padding", "chunks", "groups",
        )),
        *((name, ctypes.c_int64) for name in ("distance", "out_distance", "residual_distance")),
        *((name, ctypes.c_void_p) for name in ("in", "weight", "bias", "residual", "out")),
    )  # fmt: skip


class Filters(ctypes.Structure):
    """The filters of a convolution and what transforms them, as filters.h has them."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "out_channels", "channels", "height", "width", "down_rows", "across_rows",
        )),
        *((name, ctypes.c_int64) for name in ("out_stride", "stride", "row", "step")),
        *((name, ctypes.c_void_p) for name in ("in", "down", "across")),
    )  # fmt: skip


@dataclass(frozen=True)
class Library:
    """The compiled kernels."""

    handle: ctypes.CDLL
    lanes: int
    """Floats of a vector."""
    rows: int
    """Pixels or tiles of a product."""

    @property
    def panel(self) -> int:
        """Output channels of a product."""
        return 2 * self.lanes

    def packed(self, filters: int, channels: int, down: Tensor, across: Tensor) -> int:
        """The number of floats that `pack` writes."""
        return len(down) * len(across) * channels * ceil(filters / self.lanes) * self.lanes

    def pack(
        self, weight: Tensor, down: Tensor, across: Tensor, threads: int, *, gradient: bool = False,
        into: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The filters of a convolution in the order of the products.

        Args:
            down, across: G of each side, see `Convolution.filters`.
            gradient: those of the convolution that gives the gradient of its input.
            into: memory for them, which may be larger. Default: new memory.

        Shapes: weight float32 (O, I, r, s); down float64 (R, r), across (S, s) → 1-D.
        """
        given = _filters(weight, down, across)
        if gradient:  # input and output channels changed over, and turned by half a turn
            given.out_channels, given.channels = given.channels, given.out_channels
            given.out_stride, given.stride = given.stride, given.out_stride
            address = weight.data_ptr() + 4 * ((given.height - 1) * given.row + (given.width - 1) * given.step)
            setattr(given, "in", address)
            given.row, given.step = -given.row, -given.step
        if into is None:
            into = torch.empty(self.packed(given.out_channels, given.channels, down, across))
        self.handle.pack(ctypes.byref(given), ctypes.c_void_p(into.data_ptr()), threads)
        return into

    def bias(self, values: Tensor | None, channels: int) -> Tensor:
        """A bias, with zeros up to a whole panel. Shapes: (C) or None → (C, rounded up)."""
        padded = torch.zeros(ceil(channels / self.panel) * self.panel)
        if values is not None:
            padded[:channels] = values.detach().flatten()
        return padded

    def gradient(
        self, step: Step, weight: Tensor, down: Tensor, across: Tensor, threads: int, memory: Tensor
    ) -> Tensor:
        """The gradient of the filters: of a step by tiles at stride 1, with that of its output as its residual.

        Args:
            memory: at least `gradient_memory` floats.

        Shapes: weight (O, I, r, s) → the same, in its memory format.
        """
        made = torch.empty_like(weight)
        given, address = _filters(made, down, across), ctypes.c_void_p(made.data_ptr())
        self.handle.gradient(
            ctypes.byref(step), ctypes.byref(given), ctypes.c_void_p(memory.data_ptr()), address, threads
        )
        return made

    def gradient_memory(self, step: Step, points: int, tiles: int, threads: int) -> int:
        """The number of floats that `gradient` needs."""
        return int(self.handle.gradient_memory(ctypes.byref(step), points, ctypes.c_int64(tiles), threads))

    def run(self, steps: ctypes.Array[Step], threads: int, scratch: int, scratch_size: int) -> None:
        """Execute the steps; `scratch` is the address of `scratch_size` floats for each thread."""
        self.handle.run(steps, len(steps), threads, ctypes.c_void_p(scratch), ctypes.c_int64(scratch_size))


def _filters(weight: Tensor, down: Tensor, across: Tensor) -> Filters:
    """The tensors must outlive what is made."""
    assert down.is_contiguous() and across.is_contiguous()
    return Filters(
        *weight.shape, len(down), len(across), *weight.stride(),
        weight.data_ptr(), down.data_ptr(), across.data_ptr(),
    )  # fmt: skip
