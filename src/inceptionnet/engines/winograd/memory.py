"""The memory of a plan: buffers that share an arena, views of their channels, and the weights in the kernels' order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from weakref import WeakValueDictionary

from torch import Tensor, nn

from inceptionnet.engines.winograd.convolution import ALIGNMENT, Convolution, Pair
from inceptionnet.engines.winograd.library import Library


@dataclass(eq=False)
class Buffer:
    """Memory for an image of each of a batch, (N, H, W, channels); a concatenation's grows with its branches."""

    height: int
    width: int
    channels: int
    first: int
    """The first step that uses it."""
    last: int
    """The last step that uses it."""
    start: int = 0
    """Where it begins in the arena, in floats."""

    @property
    def distance(self) -> int:
        """Floats from one pixel to the next. Multiples of 1024 bytes would map rows to the same places in the cache."""
        if self.channels < ALIGNMENT:
            return self.channels
        padded = ceil(self.channels / ALIGNMENT) * ALIGNMENT
        return padded + ALIGNMENT * (padded % 256 == 0)

    def size(self, images: int) -> int:
        """Floats, with some more for the vectors that read past the last channel."""
        return ceil((images * self.height * self.width * self.distance + ALIGNMENT) / ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class View:
    """Some channels of a buffer."""

    buffer: Buffer
    offset: int
    channels: int

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width."""
        return self.buffer.height, self.buffer.width

    def tensor(self, arena: Tensor, images: int) -> Tensor:
        """The values. Shapes: → (N, channels, H, W)."""
        buffer, step = self.buffer, self.buffer.distance
        size = (images, self.channels, buffer.height, buffer.width)
        strides = (buffer.height * buffer.width * step, 1, buffer.width * step, step)
        return arena.as_strided(size, strides, buffer.start + self.offset)


class Weights:
    """The weights of a network's convolutions in the kernels' order, made once and kept as long as some plan has them.

    By panels of output channels, in each by point or tap, then input channel, then the channels of the panel.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._made: WeakValueDictionary[tuple[nn.Conv2d, Pair | None], Tensor] = WeakValueDictionary()

    def packed(self, conv: nn.Conv2d, sizes: Convolution, tile: Pair | None) -> Tensor:
        """Shapes: → 1-D."""
        made = self._made.get((conv, tile))
        if made is None:
            made = self.library.pack(conv.weight.detach().float(), *sizes.filters(tile), 1)
            self._made[conv, tile] = made
        return made


def arrange(buffers: Sequence[Buffer], images: int) -> int:
    """Give each buffer its place, the largest first, in the first gap free while it is used; returns the end."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda one: one.size(images), reverse=True):
        beside = (other for other in placed if other.first <= buffer.last and buffer.first <= other.last)
        for other in sorted(beside, key=lambda one: one.start):
            if buffer.start + buffer.size(images) <= other.start:
                break
            buffer.start = max(buffer.start, other.start + other.size(images))
        placed.append(buffer)
    return max(buffer.start + buffer.size(images) for buffer in buffers)
