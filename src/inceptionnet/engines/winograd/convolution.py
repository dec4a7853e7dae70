"""How a convolution is computed: its tile, chosen by a count of multiplications, and its tasks for the threads."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, nn

from inceptionnet.engines.winograd.library import TILES, Library
from inceptionnet.engines.winograd.transforms import filters, points

ALIGNMENT = 16
"""Buffers begin at multiples of this many floats, a line of cache."""
LEAST_CHANNELS = 16
"""Convolutions of fewer channels are not transformed: the transforms would cost more than they save."""
CHUNK = 96 * 1024
"""Floats of inputs that the tasks of a product keep in the second level of cache."""
TASKS = 4
"""Tasks for each thread, where there are several, so that they end at about the same time."""
WINOGRAD_CHUNK = 160 * 1024
"""Floats of transformed inputs and products that a task keeps there."""
TRANSFORMING = 1.5
"""The cost of a multiplication in a transform, beside one in a product, for its loads and stores."""
LOADING = 20
"""The cost of loading a weight from memory, in multiplications."""

Pair = tuple[int, int]
"""Height, width."""


@dataclass(frozen=True)
class Convolution:
    """The sizes of a convolution of a batch; `grid` is that of its output."""

    images: int
    channels: int
    out_channels: int
    kernel: Pair
    stride: Pair
    grid: Pair

    @property
    def multiplications(self) -> int:
        """Of a direct convolution."""
        return prod(self.kernel) * self.channels * self.out_channels * self.images * prod(self.grid)

    def costs(self, loading: float = LOADING) -> dict[Pair | None, float]:
        """For each tile, and for None, which is without a transform, a count of multiplications of vectors; a weight of
        a point costs `loading` more."""
        pairs, stride = self.channels * self.out_channels, self.stride[0]
        costs: dict[Pair | None, float] = {None: self.multiplications + prod(self.kernel) * pairs * loading}
        if self.stride[0] != self.stride[1] or self.channels < LEAST_CHANNELS:
            return costs
        for tile in TILES.get((*self.kernel, stride), ()):
            sides = [points(m, k, stride) for m, k in zip(tile, self.kernel, strict=True)]
            number, tiles = prod(sides), self.tiles(tile)
            # Each point of each side takes about half as many multiplications as the side has points.
            through = number * sum(side / 2 + 2 for side in sides if side > 1) * (self.channels + self.out_channels)
            loads = prod(len(side) for side in self.filters(tile)) * pairs
            costs[tile] = number * pairs * tiles + loading * loads + TRANSFORMING * tiles * through
        return costs

    def tile(self) -> Pair | None:
        """The cheapest tile; None: no transform."""
        costs = self.costs()
        return min(costs, key=costs.__getitem__)

    def filters(self, tile: Pair | None) -> tuple[Tensor, Tensor]:
        """G along height and width; without a tile, what leaves the taps as they are. Shapes: float64 (rows, taps)."""
        if tile is None:
            down, across = (torch.eye(taps, dtype=torch.float64) for taps in self.kernel)
        else:
            down, across = (filters(m, k, self.stride[0]) for m, k in zip(tile, self.kernel, strict=True))
        return down.contiguous(), across.contiguous()

    def tasks(self, tile: Pair | None, threads: int, library: Library) -> tuple[dict[str, int], int]:
        """The fields of a step that divide it: chunks of its rows, and groups of its panels if there are too few; and
        the floats that each thread needs."""
        panels = ceil(self.out_channels / library.panel)
        number = depth = 0
        if tile is None:
            dense = self.kernel == (1, 1) == self.stride
            length = self.images * prod(self.grid) if dense else self.grid[1]
            rows = ceil(length / library.rows) * (1 if dense else self.images * self.grid[0])  # blocks
            floats = library.rows * self.channels * prod(self.stride)
            most = max(1, CHUNK // floats)
        else:
            number = prod(points(m, k, self.stride[0]) for m, k in zip(tile, self.kernel, strict=True))
            rows = self.tiles(tile)
            depth = ceil(self.channels / library.lanes) * library.lanes
            floats = number * (depth + library.panel) + 2 * ALIGNMENT
            most = max(library.rows, WINOGRAD_CHUNK // floats)
        chunks, groups = ceil(rows / most), 1
        if threads > 1:
            least = library.rows if tile else 1
            chunks = min(max(1, rows // least), ceil(max(chunks, TASKS * threads) / threads) * threads)
            groups = min(panels, ceil(TASKS * threads / chunks))
        fields = {"chunks": chunks, "groups": groups}
        if tile is None:
            return fields, 0
        scratch = ceil(rows / chunks) * floats + number * max(depth, library.lanes)
        return fields | {"tile_height": tile[0], "tile_width": tile[1]}, scratch

    def tiles(self, tile: Pair) -> int:
        """The number of tiles of all images."""
        return self.images * ceil(self.grid[0] / tile[0]) * ceil(self.grid[1] / tile[1])


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether it has no groups, no dilation, and zeros around, of stated widths."""
    usual = (conv.groups, conv.dilation, conv.padding_mode) == (1, (1, 1), "zeros")
    return usual and not isinstance(conv.padding, str)
