"""A check of a data set: every image is read and decoded once, as in training, and the findings are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from inceptionnet.data.balance import imbalance, imbalance_note
from inceptionnet.data.copies import Copies, Pairs, Place
from inceptionnet.data.groups import divided_groups
from inceptionnet.data.inspection import Inspection, inspect_images
from inceptionnet.data.shortcuts import Shortcut, Shortcuts
from inceptionnet.data.splits import Source, Split

# Powers of two, and the input sizes of the family between them.
SHORT_SIDES_PX = (32, 64, 128, 160, 224, 299, 512, 1024, 2048)


@dataclass(frozen=True)
class CorruptImage:
    """An image that cannot be decoded, and why."""

    split: str
    name: str
    reason: str


@dataclass(frozen=True)
class SizedImage:
    """An extreme image; its size is after EXIF rotation."""

    split: str
    name: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Bin:
    """Number of images with a shorter side of at least `from_px` and, if not None, less than `below_px` pixels."""

    from_px: int
    below_px: int | None
    images: int


@dataclass(frozen=True)
class Duplicates:
    """Copies of earlier images: their number, and the first few as (earlier, later)."""

    images: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DividedGroups:
    """Groups of images that are in two splits: their number, and the names of the first few."""

    groups: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The findings on a data set. The counts from `bytes` on are of the images that can be decoded."""

    classes: tuple[str, ...]
    images: Mapping[str, int]  # split → images, corrupt ones included
    counts: Mapping[str, tuple[int, ...]]  # split → images by class, corrupt ones included
    decode_errors: tuple[CorruptImage, ...]
    bytes: int
    formats: Mapping[str, int]
    modes: Mapping[str, int]  # Pillow's names: RGB, L, CMYK …
    unusual: Mapping[str, int]  # palettes, 16 bit, transparency, EXIF rotation …, which decoding converts
    short_sides: tuple[Bin, ...]
    extremes: Mapping[str, SizedImage]  # smallest and largest (short side), tallest and widest (width / height)
    duplicates: Mapping[str, Duplicates]  # split → within the split
    duplicates_across_splits: Mapping[str, Duplicates]  # "train and val" → in both, a leak
    conflicting_labels: Duplicates  # the same bytes with different labels
    near_duplicates: Mapping[str, Duplicates]  # as above, for other bytes that look nearly the same (similar.py)
    near_duplicates_across_splits: Mapping[str, Duplicates]
    near_conflicting_labels: Duplicates
    plain: int  # images that are too plain to be compared by their look
    grouped_by: str  # the column or expression that says which images belong together
    groups: Mapping[str, int]  # split → groups
    groups_across_splits: Mapping[str, DividedGroups]  # "train and val" → in both, a leak
    shortcuts: tuple[Shortcut, ...]  # classes of train (without it of all) that format, mode or size tells apart
    imbalance: float | None  # training images of the largest class to the smallest; None: several labels an image
    imbalance_note: str  # what to do about it; empty: nothing, or nothing that a stream supports

    def __len__(self) -> int:
        return sum(self.images.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = asdict(self)
        del found["classes"], found["counts"], found["images"]
        splits = {
            split: {"images": self.images[split], "classes": dict(zip(self.classes, counts, strict=True))}
            for split, counts in self.counts.items()
        }
        return {"images": len(self), "splits": splits, **found}


def check(
    source: Source, *, workers: int, listed: int = 10, advance: Callable[[int, int], None] = lambda images, errors: None
) -> Report:
    """Read and decode every image of `source` in `workers` processes; 0: in this process.

    Args:
        listed: number of duplicates of each kind to name.
        advance: called with the number of images and of decode errors since the last call.

    Raises:
        DataError: a stream ends early, or a process dies.
    """
    tally = _Tally(source, listed)
    with closing(inspect_images(source, workers)) as chunks:
        for chunk, looks in chunks:
            before = len(tally.errors)
            for name, labels, look in zip(chunk.names, chunk.labels, looks, strict=True):
                tally.add(chunk.split, name, labels, look)
            advance(len(looks), len(tally.errors) - before)
    return tally.report()


class _Tally:
    def __init__(self, source: Source, listed: int) -> None:
        self.source, self.listed = source, listed
        self.images = dict.fromkeys(source.splits, 0)
        self.counts = {split: [0] * len(source.classes) for split in source.splits}
        self.errors: list[CorruptImage] = []
        self.bytes = 0
        self.formats, self.modes, self.unusual, self.bins = (Counter[Any]() for _ in range(4))
        self.extremes: dict[str, tuple[float, SizedImage]] = {}
        self.copies, self.shortcuts = Copies(), Shortcuts(source.classes)

    def add(self, split: str, name: str, labels: tuple[int, ...], look: Inspection) -> None:
        self.images[split] += 1
        for label in labels:
            self.counts[split][label] += 1
        if look.reason:
            self.errors.append(CorruptImage(split, name, look.reason))
            return
        self.bytes += look.bytes
        self.formats[look.format] += 1
        self.modes[look.mode] += 1
        self.unusual.update(look.unusual)
        width, height = look.size_px
        short = min(width, height)
        self.bins[sum(limit <= short for limit in SHORT_SIDES_PX)] += 1
        ranks = {"smallest": -short, "largest": short, "tallest": -width / height, "widest": width / height}
        for extreme, rank in ranks.items():
            if extreme not in self.extremes or rank > self.extremes[extreme][0]:
                self.extremes[extreme] = rank, SizedImage(split, name, width, height)
        self.copies.add(Place(split, labels, name), look.digest, look.signature)
        if split == "train" or "train" not in self.source.splits:
            self.shortcuts.add(labels, look)

    def report(self) -> Report:
        lows, highs = [1, *SHORT_SIDES_PX], [*SHORT_SIDES_PX, None]
        used = range(min(self.bins, default=0), max(self.bins, default=-1) + 1)
        same, near = self.copies.exact(), self.copies.near()
        grouped = {
            name: split for name, split in self.source.splits.items() if isinstance(split, Split) and split.groups
        }
        train, classes = self.source.splits.get("train"), self.source.classes
        counts = [] if train is None or self.source.multi_label else self.counts["train"]
        return Report(
            classes=classes,
            images=self.images,
            counts={split: tuple(counts) for split, counts in self.counts.items()},
            decode_errors=tuple(self.errors),
            bytes=self.bytes,
            formats=dict(self.formats.most_common()),
            modes=dict(self.modes.most_common()),
            unusual=dict(self.unusual.most_common()),
            short_sides=tuple(Bin(lows[i], highs[i], self.bins[i]) for i in used),
            extremes={extreme: image for extreme, (_, image) in self.extremes.items()},
            duplicates=self._by_split(same.within),
            duplicates_across_splits=self._by_split(same.across),
            conflicting_labels=self._duplicates(same.conflicting),
            near_duplicates=self._by_split(near.within),
            near_duplicates_across_splits=self._by_split(near.across),
            near_conflicting_labels=self._duplicates(near.conflicting),
            plain=self.copies.plain,
            grouped_by=self.source.grouped_by,
            groups={split: len(set(images.groups) - {""}) for split, images in grouped.items()},
            groups_across_splits={
                splits: DividedGroups(len(shared), tuple(shared[: self.listed]))
                for splits, shared in divided_groups(grouped).items()
            },
            shortcuts=tuple(self.shortcuts.found()),
            imbalance=imbalance(counts) if counts else None,
            imbalance_note=imbalance_note(counts, classes) if counts and isinstance(train, Split) else "",
        )

    def _by_split(self, found: Mapping[str, Pairs]) -> dict[str, Duplicates]:
        return {splits: self._duplicates(pairs) for splits, pairs in found.items()}

    def _duplicates(self, pairs: Pairs) -> Duplicates:
        return Duplicates(len(pairs), tuple((one.first.name, one.later.name) for one in pairs[: self.listed]))
