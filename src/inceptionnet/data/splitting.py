"""The rule for the held-out set of a data set without splits: which images, or whole groups of images, are in val.

A group (by itself: an image) is in val if a hash of its name and the seed is below VAL_SHARE. So adding or removing
images moves no other image, and a folder, its copy and its zip are split identically. Chance alone leaves small classes
far from that share, so a class is kept within LEAST_SHARE and MOST_SHARE: groups whose hash is nearest to VAL_SHARE
move, as few as possible, and only then may an added image move another. Source: docs/decisions/0013.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

VAL_SHARE = 0.2
LEAST_SHARE, MOST_SHARE = 0.15, 0.25


def hash_fraction(seed: int, name: str) -> float:
    """A hash of a name in [0, 1): the first 8 bytes of sha256("SEED/NAME") as a binary fraction."""
    digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out(groups: Sequence[str], labels: npt.NDArray[np.int64 | np.bool_], seed: int) -> npt.NDArray[np.bool_]:
    """Whether each image is held out.

    A class in two groups or more is in both splits if that is possible; a class of one group is trained on.
    Args:
        groups: the group of each image; of images without groups, their own names.
        labels: as of a `Split`.

    Shapes: (N,).
    """
    return _Division(groups, labels, seed).held_images()


class _Division:
    """Groups on two sides, with the counts of each class."""

    def __init__(self, groups: Sequence[str], labels: npt.NDArray[np.int64 | np.bool_], seed: int) -> None:
        code = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        self.group_of = np.array([code[group] for group in groups], np.int64)
        self.fractions = np.array([hash_fraction(seed, group) for group in code])
        images, classes = np.nonzero(labels) if labels.ndim == 2 else (np.arange(len(labels)), labels)
        wide = int(classes.max(initial=-1)) + 1
        # Each class of each group once, sorted by group, with its number of images.
        pairs, self.sizes = np.unique(self.group_of[images] * max(wide, 1) + classes, return_counts=True)
        self.of_group, self.of_class = np.divmod(pairs, max(wide, 1))
        self.by_class = np.split(np.argsort(self.of_class, kind="stable"), np.cumsum(np.bincount(self.of_class)))
        self.totals = np.bincount(classes, minlength=wide)
        alone = np.bincount(self.of_class, minlength=wide) == 1
        self.fixed = np.zeros(len(code), np.bool_)
        self.fixed[self.of_group[alone[self.of_class]]] = True
        self.held = (self.fractions < VAL_SHARE) & ~self.fixed
        self.counts = np.zeros(wide, np.int64)
        np.add.at(self.counts, self.of_class, self.sizes * self.held[self.of_group])
        self.least = np.where(alone, 0, np.maximum(np.floor(LEAST_SHARE * self.totals), 1)).astype(np.int64)
        self.most = np.maximum(np.minimum(np.ceil(MOST_SHARE * self.totals), self.totals - 1), 0).astype(np.int64)

    def held_images(self) -> npt.NDArray[np.bool_]:
        moved = True
        while moved:
            moved = False
            for label in self._bad_classes():
                moved |= self._repair(label)
        return self.held[self.group_of]

    def _bad_classes(self) -> list[int]:
        """The classes outside their bounds, those of few images first."""
        bad = np.flatnonzero((self.counts < self.least) | (self.counts > self.most))
        return [int(label) for label in bad[np.argsort(self.totals[bad], kind="stable")]]

    def _repair(self, label: int) -> bool:
        """Move groups of a class to the other side for as long as that helps; whether one was moved."""
        moved = False
        for group in self._candidates(label):
            if self.least[label] <= self.counts[label] <= self.most[label]:
                break
            first, last = np.searchsorted(self.of_group, [group, group + 1])
            classes, sizes = self.of_class[first:last], self.sizes[first:last]
            after = self.counts[classes] + (-sizes if self.held[group] else sizes)
            if self._cost(classes, after) < self._cost(classes, self.counts[classes]):
                self.held[group] = not self.held[group]
                self.counts[classes] = after
                moved = True
        return moved

    def _candidates(self, label: int) -> Iterator[int]:
        """The groups of a class on the side that has too many, the nearest to VAL_SHARE first."""
        groups = self.of_group[self.by_class[label]]
        groups = groups[~self.fixed[groups] & (self.held[groups] == (self.counts[label] > self.most[label]))]
        yield from map(int, groups[np.argsort(np.abs(self.fractions[groups] - VAL_SHARE), kind="stable")])

    def _cost(self, classes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> tuple[int, int, int]:
        """How bad it is to hold out `counts` images of `classes`: classes without training images, without validation
        images, and images outside the bounds."""
        totals, least, most = self.totals[classes], self.least[classes], self.most[classes]
        outside = np.maximum(np.maximum(least - counts, counts - most), 0).sum()
        return int((counts == totals).sum()), int(((counts == 0) & (least > 0)).sum()), int(outside)
