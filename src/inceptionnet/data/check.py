"""Every image of a data set read and decoded once, as training would, and what is found put down in figures.

Limit: 16 bytes of hash, the label and the name of each image are held in memory, about 250 bytes in all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, TypeAlias

from inceptionnet.data.looking import Look, looked_at
from inceptionnet.data.splits import Source

# Powers of two, and the input sizes of the family between them.
SHORT_SIDES_PX = (32, 64, 128, 160, 224, 299, 512, 1024, 2048)


@dataclass(frozen=True)
class CorruptImage:
    """An image that cannot be read."""

    split: str
    name: str
    reason: str


@dataclass(frozen=True)
class SizedImage:
    """An image at one end of a range; its size is that of the upright image."""

    split: str
    name: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Bin:
    """Images whose short side has at least `from_px` pixels and, where there is a limit, less than `below_px`."""

    from_px: int
    below_px: int | None
    images: int


@dataclass(frozen=True)
class Twins:
    """Images with the bytes of an earlier one: how many, and the first few as (earlier, later)."""

    images: int
    such_as: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What is in a data set. The counts from `bytes` on are of the images that can be read."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]  # split → images by class, the bad ones too
    decode_errors: tuple[CorruptImage, ...]
    bytes: int
    formats: Mapping[str, int]
    modes: Mapping[str, int]  # Pillow's names: RGB, L, CMYK …
    odd: Mapping[str, int]  # what few images have and decoding makes plain
    short_sides: tuple[Bin, ...]
    extremes: Mapping[str, SizedImage]  # smallest and largest (short side), tallest and widest (width / height)
    repeated: Mapping[str, Twins]  # split → the same bytes again in it
    shared: Mapping[str, Twins]  # "train and val" → the same bytes in both
    contradictory: Twins  # the same bytes under another label

    def __len__(self) -> int:
        return sum(map(sum, self.counts.values()))

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        found = asdict(self)
        del found["classes"], found["counts"]
        splits = {
            split: {"images": sum(counts), "classes": dict(zip(self.classes, counts, strict=True))}
            for split, counts in self.counts.items()
        }
        return {"images": len(self), "splits": splits, **found}


def check(
    source: Source, *, workers: int, listed: int = 10, advance: Callable[[int, int], None] = lambda images, bad: None
) -> Report:
    """Read and decode every image of `source` in `workers` processes, or in this one where that is 0.

    `listed`: how many duplicates to name of each kind. `advance(images, bad)` is told what was looked at since.
    Raises: DataError where a stream breaks off or a process dies.
    """
    tally = _Tally(source, listed)
    with closing(looked_at(source, workers)) as chunks:
        for chunk, looks in chunks:
            before = len(tally.bad)
            for name, label, look in zip(chunk.names, chunk.labels, looks, strict=True):
                tally.add(chunk.split, name, label, look)
            advance(len(looks), len(tally.bad) - before)
    return tally.report()


_Place: TypeAlias = tuple[str, int, str]  # split, label, name


class _Tally:
    def __init__(self, source: Source, listed: int) -> None:
        self.source, self.listed = source, listed
        self.counts = {split: [0] * len(source.classes) for split in source.splits}
        self.bad: list[CorruptImage] = []
        self.bytes = 0
        self.formats, self.modes, self.odd, self.bins = (Counter[Any]() for _ in range(4))
        self.extremes: dict[str, tuple[float, SizedImage]] = {}
        self.first: dict[bytes, _Place] = {}
        self.again: defaultdict[bytes, list[_Place]] = defaultdict(list)

    def add(self, split: str, name: str, label: int, look: Look) -> None:
        self.counts[split][label] += 1
        if look.reason:
            self.bad.append(CorruptImage(split, name, look.reason))
            return
        self.bytes += look.bytes
        self.formats[look.format] += 1
        self.modes[look.mode] += 1
        self.odd.update(look.odd)
        width, height = look.size_px
        short = min(width, height)
        self.bins[sum(limit <= short for limit in SHORT_SIDES_PX)] += 1
        ranks = {"smallest": -short, "largest": short, "tallest": -width / height, "widest": width / height}
        for extreme, rank in ranks.items():
            if extreme not in self.extremes or rank > self.extremes[extreme][0]:
                self.extremes[extreme] = rank, SizedImage(split, name, width, height)
        place = split, label, name
        if self.first.setdefault(look.digest, place) is not place:
            self.again[look.digest].append(place)

    def report(self) -> Report:
        lows, highs = [1, *SHORT_SIDES_PX], [*SHORT_SIDES_PX, None]
        used = range(min(self.bins, default=0), max(self.bins, default=-1) + 1)
        groups = [[self.first[digest], *others] for digest, others in self.again.items()]
        repeated, shared = defaultdict[str, list[tuple[_Place, _Place]]](list), dict[str, list[tuple[_Place, _Place]]]()
        for group in groups:
            by_split = defaultdict(list)
            for place in group:
                by_split[place[0]].append(place)
            for split, (one, *others) in by_split.items():
                repeated[split] += [(one, other) for other in others]
            for a, b in combinations(by_split, 2):
                shared.setdefault(f"{a} and {b}", []).extend((by_split[a][0], other) for other in by_split[b])
        contradictory = [(group[0], other) for group in groups for other in group[1:] if other[1] != group[0][1]]
        return Report(
            classes=self.source.classes,
            counts={split: tuple(counts) for split, counts in self.counts.items()},
            decode_errors=tuple(self.bad),
            bytes=self.bytes,
            formats=dict(self.formats.most_common()),
            modes=dict(self.modes.most_common()),
            odd=dict(self.odd.most_common()),
            short_sides=tuple(Bin(lows[i], highs[i], self.bins[i]) for i in used),
            extremes={extreme: image for extreme, (_, image) in self.extremes.items()},
            repeated={split: self._twins(pairs) for split, pairs in repeated.items() if pairs},
            shared={splits: self._twins(pairs) for splits, pairs in shared.items()},
            contradictory=self._twins(contradictory),
        )

    def _twins(self, pairs: Sequence[tuple[_Place, _Place]]) -> Twins:
        return Twins(len(pairs), tuple((a[2], b[2]) for a, b in pairs[: self.listed]))
