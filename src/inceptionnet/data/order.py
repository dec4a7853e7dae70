"""The order of images in batches, and this process's share of each: a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch.utils.data

from inceptionnet.data.balance import Sampler, balanced_order, occurrences
from inceptionnet.data.splits import AnySplit, Encoded, Split
from inceptionnet.errors import ConfigurationError, InceptionNetError
from inceptionnet.system.distributed import World, cut


class Key(NamedTuple):
    """A request to a worker; it contains the image of a stream, which cannot be read by position."""

    epoch: int
    row: int
    position: int
    item: Encoded | None = None
    repetition: int = 0
    """How often the epoch has had this image already."""


class Continued(NamedTuple):
    """Where another batch size begins within an epoch: its first `batch` there, and the `image` that this starts with.

    The images before are those of batches that are done. Both count from 0, in the order of the epoch.
    """

    epoch: int
    batch: int
    image: int


def parts_of(planned: int, parts: int, *, pairs: bool = False) -> list[range]:
    """The rows of each gradient-accumulation step: of nearly equal size, and never a single image.

    Args:
        pairs: rows 2k and 2k + 1 stay together, for images that are mixed.
    """
    count = max(1, min(parts, planned // 2))
    return [cut(range(planned), i, count, pairs=pairs) for i in range(count)]


class BatchOrder(torch.utils.data.Sampler[list[Key]]):
    """Batches of keys, shuffled by (seed, epoch), or in order without a seed; set `epoch` and `first` beforehand.

    Training batches have nearly equal sizes: 50 images in batches of 8 are 7 batches of 7 or 8, not 6 of 8 and one of
    2, whose batch-norm statistics and gradient would be noisy. An image that would be alone in a batch is dropped.

    sampler: "balanced" has every class equally often instead of every image once. pairs: rows 2k and 2k + 1 of a batch
    are in the same process and gradient-accumulation step.

    A stream's error is not raised here but kept in `error`: raised inside DataLoader it would leave the workers in a
    reference cycle (see loading.py).
    """

    def __init__(
        self,
        split: AnySplit,
        batch_size: int,
        seed: int | None,
        parts: int,
        world: World,
        *,
        sampler: Sampler = "shuffled",
        pairs: bool = False,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.parts = parts
        self.world = world
        self.sampler = sampler
        self.pairs = pairs
        if sampler == "balanced" and not (isinstance(split, Split) and split.labels.ndim == 1):
            got = (
                "several labels an image" if isinstance(split, Split) else "a stream, whose labels are not known before"
            )
            raise ConfigurationError(
                f"data.sampler is balanced: expected images with one label each that can be read in any order, got "
                f"{got}; use data.sampler=shuffled"
            )
        self.epoch: int = 0
        self.first = 0
        self.error: InceptionNetError | None = None
        self.continued: Continued | None = None
        self.used: int
        self.total: int
        self.used, self.total = self._batches_of(len(split))

    def __len__(self) -> int:
        return self.total - self.first

    def __iter__(self) -> Iterator[list[Key]]:
        self.error = None
        if not isinstance(self.split, Split):
            try:
                yield from self._streamed()
            except InceptionNetError as error:
                self.error = error
            return
        epoch, order = self.epoch, np.arange(len(self.split))
        if self.seed is not None and self.sampler == "balanced":
            order = balanced_order(self.split.labels.astype(np.int64), self.seed, epoch)
        elif self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.split))
        before = occurrences(order)
        for batch in range(self.first, self.total):
            rows = slice(*self._bounds(batch))
            keys = list(zip(order[rows].tolist(), before[rows].tolist(), strict=True))
            yield [Key(epoch, row, keys[row][0], None, keys[row][1]) for row in self._mine(len(keys))]

    def planned(self, batch: int) -> int:
        """Number of images of a batch over all processes."""
        start, stop = self._bounds(batch)
        return stop - start

    def images_before(self, epoch: int, batch: int) -> int:
        """Number of images in the batches of an epoch before `batch`; all of the split before the end of the epoch."""
        self.epoch = epoch
        return self._bounds(batch)[0] if batch < self.total else len(self.split)

    def continue_after(self, other: BatchOrder, epoch: int, batch: int) -> Continued:
        """Continue an epoch whose batches before `batch` were those of another order of the same images.

        The images that are left become the last batches of this epoch; no image is repeated or missed.
        """
        image = other.images_before(epoch, batch)
        _, total = self._batches_of(len(self.split) - image)
        self.continued = Continued(epoch, self.total - total, image)
        return self.continued

    def _batches_of(self, images: int) -> tuple[int, int]:
        """(used images, batches) of so many images."""
        total = -(-images // self.batch_size)
        if self.seed is not None and self.batch_size > 1 and images < 2 * total:
            images -= 1
            total = -(-images // self.batch_size)
        return images, total

    def _bounds(self, batch: int) -> tuple[int, int]:
        if self.seed is None:
            return batch * self.batch_size, min((batch + 1) * self.batch_size, self.used)
        first, start, used, total = 0, 0, self.used, self.total
        if self.continued and self.continued.epoch == self.epoch:
            _, first, start = self.continued
            if batch < first:
                used, total, first, start = start, first, 0, 0
            else:
                used, total = self._batches_of(len(self.split) - start)
        return start + used * (batch - first) // total, start + used * (batch + 1 - first) // total

    def _mine(self, planned: int) -> list[int]:
        parts = parts_of(planned, self.parts, pairs=self.pairs)
        return [row for part in parts for row in self.world.share(part, pairs=self.pairs)]

    def _streamed(self) -> Iterator[list[Key]]:
        """Every process reads the whole stream and keeps its own rows: the same batches for any number of processes."""
        assert not isinstance(self.split, Split)
        with closing(self.split.iterate(self.epoch, self.seed)) as images:
            for _ in range(self._bounds(0)[0]):
                next(images)
            for batch in range(self.total):
                planned = self.planned(batch)
                mine = set(self._mine(planned))
                items = [(row, next(images)) for row in range(planned)]
                if batch >= self.first:
                    start, _ = self._bounds(batch)
                    yield [Key(self.epoch, row, start + row, item) for row, item in items if row in mine]
            for _ in images:  # the dropped image, if any; a stream with more images than it states raises here
                pass
