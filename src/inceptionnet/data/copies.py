"""Copies among the images of a data set: the same bytes, or nearly the same look (see similar.py).

Memory: about 800 bytes an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple, TypeAlias

from inceptionnet.data.similar import as_array, nearest


class Place(NamedTuple):
    """An image: its split, the numbers of its classes, and its name."""

    split: str
    labels: tuple[int, ...]
    name: str


class Pair(NamedTuple):
    """An image and a later one that is a copy of it."""

    first: Place
    later: Place
    turned: bool = False
    """Mirrored or turned by quarters."""

    @property
    def conflicting(self) -> bool:
        """Whether the labels are different. Of a mirrored or turned copy they may say which way it looks."""
        return self.first.labels != self.later.labels and not self.turned


Pairs: TypeAlias = list[Pair]


class Found(NamedTuple):
    """Copies by where they are."""

    within: Mapping[str, Pairs]
    """Split → in this split; each later image counts once."""
    across: Mapping[str, Pairs]
    """`train and val` → in both, a leak; each image of the second split counts once."""
    conflicting: Pairs
    """With different labels, as `Pair.conflicting`."""


class Copies:
    """The images so far, and the copies among them."""

    def __init__(self) -> None:
        self._first: dict[bytes, Place] = {}
        self._again: defaultdict[bytes, list[Place]] = defaultdict(list)
        self._looks: defaultdict[str, list[tuple[Place, bytes, bytes]]] = defaultdict(list)
        self.plain: int = 0
        """Images that are too plain to be compared by their look."""

    def add(self, place: Place, digest: bytes, signature: bytes) -> None:
        """Add an image: a hash of its bytes, and its signature, or none."""
        if self._first.setdefault(digest, place) is not place:
            self._again[digest].append(place)
        self.plain += not signature
        if signature and sum(one.split == place.split for one in self._same(digest)) == 1:
            self._looks[place.split].append((place, digest, signature))

    def _same(self, digest: bytes) -> Iterator[Place]:
        yield self._first[digest]
        yield from self._again.get(digest, ())

    def exact(self) -> Found:
        """Images with the same bytes."""
        within, across = defaultdict[str, Pairs](list), dict[str, Pairs]()
        conflicting: Pairs = []
        for digest in self._again:
            first, *others = self._same(digest)
            conflicting += [pair for pair in (Pair(first, other) for other in others) if pair.conflicting]
            by_split = defaultdict(list)
            for place in (first, *others):
                by_split[place.split].append(place)
            for split, (one, *later) in by_split.items():
                within[split] += [Pair(one, other) for other in later]
            for a, b in combinations(by_split, 2):
                across.setdefault(f"{a} and {b}", []).extend(Pair(by_split[a][0], other) for other in by_split[b])
        return Found(_filled(within), across, conflicting)

    def near(self, *, inside: bool = True) -> Found:
        """Images that look nearly the same, perhaps mirrored or turned, and have other bytes.

        Args:
            inside: compare images of one split too.
        """
        arrays = {split: as_array([one[2] for one in looks]) for split, looks in self._looks.items()}
        within, across = dict[str, Pairs](), dict[str, Pairs]()
        for split, array in arrays.items() if inside else ():
            looks, found = self._looks[split], nearest(array)
            within[split] = [
                Pair(looks[j][0], looks[i][0], bool(found.turned[i])) for i, j in enumerate(found.position) if j >= 0
            ]
        for a, b in combinations(arrays, 2):
            ours, theirs, found = self._looks[a], self._looks[b], nearest(arrays[b], arrays[a])
            across[f"{a} and {b}"] = [
                Pair(ours[j][0], place, bool(found.turned[i]))
                for i, j in enumerate(found.position)
                if j >= 0 and not any(one.split == a for one in self._same(theirs[i][1]))
                for place in self._same(theirs[i][1])
                if place.split == b
            ]
        pairs = [pair for some in (*within.values(), *across.values()) for pair in some]
        conflicting = [pair for pair in pairs if pair.conflicting]
        return Found(_filled(within), _filled(across), conflicting)


def _filled(found: Mapping[str, Pairs]) -> dict[str, Pairs]:
    return {splits: pairs for splits, pairs in found.items() if pairs}
