"""Splits of labelled images, in files or streamed, and the data sets that have them; assembly.py makes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import DataError, listed, number_of

# The shuffle buffer of a stream; images move no further than about its size.
BUFFER_IMAGES, BUFFER_BYTES = 1000, 2**29

Encoded: TypeAlias = tuple[str, int, bytes]  # name, label, encoded file


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order: names, labels and `read(index)`, which returns the encoded file.

    Labels are (N,) int64; of several labels an image (N, classes) bool, true for each of its classes.
    `groups` is the group of each image, such as its patient; empty for an image without, or if there are none.
    `read` can be pickled and called in any process. Raises: DecodeError from `read`.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64 | np.bool_]
    read: Callable[[int], bytes]
    groups: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def units(self) -> Sequence[str]:
        """What a split must not divide: the group of each image, or the image by its name."""
        if not self.groups:
            return self.names
        return [group or name for group, name in zip(self.groups, self.names, strict=True)]

    def classes_of(self, positions: Sequence[int]) -> list[tuple[int, ...]]:
        """The numbers of the classes of each of the images at `positions`."""
        labels = self.labels[list(positions)]
        return [tuple(np.flatnonzero(row).tolist()) if labels.ndim == 2 else (int(row),) for row in labels]

    def take(self, positions: npt.NDArray[np.intp]) -> Split:
        """The subset of the images at `positions`, in that order."""
        groups = [self.groups[i] for i in positions] if self.groups else ()
        return Split([self.names[i] for i in positions], self.labels[positions], _Taken(self.read, positions), groups)


def evenly_spaced(number: int, most: int) -> npt.NDArray[np.intp]:
    """At most `most` of `number` positions, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(np.intp))


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images that are read one after another, without random access.

    They are stored in `shards` shards; `read(shard)` yields those of one shard in order; `length` is the total number.
    For the main process only: connections and threads do not survive a fork.
    """

    title: str
    length: int
    shards: int
    read: Callable[[int], Iterator[Encoded]]

    def __len__(self) -> int:
        return self.length

    def iterate(self, epoch: int, seed: int | None) -> Generator[Encoded, None, None]:
        """One epoch: in order without a seed, else in an order that depends only on (seed, epoch).

        The shards are shuffled, then the images in a buffer of BUFFER_IMAGES or BUFFER_BYTES.
        Raises: DataError if the stream breaks off, or has fewer or more images than `length`.
        """
        if seed is None:
            images = self._read(range(self.shards))
        else:
            rng = np.random.default_rng((seed, epoch))
            images = _shuffled(self._read(rng.permutation(self.shards).tolist()), rng)
        count = 0
        for image in images:
            count += 1
            if count > self.length:
                break
            yield image
        if count != self.length:
            got = "more" if count > self.length else str(count)
            raise DataError(f"{self.title}: expected {self.length} images, got {got}: correct the stated number")

    def _read(self, order: Iterable[int]) -> Iterator[Encoded]:
        for shard in order:
            yield from self.read(shard)


def _shuffled(images: Iterable[Encoded], rng: np.random.Generator) -> Iterator[Encoded]:
    """Every image once, each picked at random from the buffer."""
    held: list[Encoded] = []
    held_bytes = 0

    def picked() -> Encoded:
        nonlocal held_bytes
        i = int(rng.integers(len(held)))
        held[i], held[-1] = held[-1], held[i]
        held_bytes -= len(held[-1][2])
        return held.pop()

    for image in images:
        held.append(image)
        held_bytes += len(image[2])
        while len(held) > BUFFER_IMAGES or held_bytes > BUFFER_BYTES:
            yield picked()
    while held:
        yield picked()


AnySplit: TypeAlias = Split | StreamSplit


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: class names in label order, splits ("train", "val", "test") and where the splits are from (`note`).

    A data set for training has "train" and at least one of "val" and "test"; one for evaluation has at least one split.
    `suggestions`: settings that suit these images better than the defaults, by dotted name ("augment.flip").
    `held_out`: "val" was held out by `hold_out`, since the data set has no splits.
    `grouped_by`: the column or the expression that the groups of the images are from, if they have some.
    """

    title: str
    classes: tuple[str, ...]
    splits: Mapping[str, AnySplit]
    note: str
    suggestions: Mapping[str, object] = field(default_factory=dict)
    held_out: bool = False
    grouped_by: str = ""

    def note_on(self, split: str) -> str:
        """The note for results on a split: nothing is held out of `all`."""
        if not self.held_out or split != "all":
            return self.note
        _, *others = self.note.split("; ")
        return "; ".join([f"not split ({number_of('image', sum(map(len, self.splits.values())))})", *others])

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none: labels are then (N, classes) bool, not (N,) int64."""
        return any(isinstance(split, Split) and split.labels.ndim == 2 for split in self.splits.values())

    def pick(self, split: str, *, own: bool = True) -> tuple[str, AnySplit]:
        """The name and the images of a split: `auto` is test, else val, else all; `all` is every image.

        `own`: the network was trained by this package, so that it may have seen the images that are not held out.
        Other networks have not: if val is only held out by `hold_out`, `auto` is then all images, not a fifth of them.
        Raises: DataError for a split that does not exist, and for `all` of a stream.
        """
        if split == "auto":
            there = [] if self.held_out and not own else [name for name in ("test", "val") if name in self.splits]
            split = there[0] if there else "all"
        if split == "all":
            whole = [one for one in self.splits.values() if isinstance(one, Split)]
            if len(whole) < len(self.splits):
                raise DataError(
                    f"{self.title}: expected one split of a stream, got all: use {listed(self.splits, last='or')}"
                )
            return split, _joined(whole)
        if split not in self.splits:
            raise DataError(
                f"{self.title}: expected the split {split}, got {listed(self.splits)}: use one of them, or all"
            )
        return split, self.splits[split]


def _joined(splits: Sequence[Split]) -> Split:
    """The splits concatenated."""
    reads = [(split.read, index) for split in splits for index in range(len(split))]
    names = [name for split in splits for name in split.names]
    groups = [group for split in splits for group in split.groups or [""] * len(split)]
    return Split(names, np.concatenate([split.labels for split in splits]), _Joined(reads), groups)


@dataclass(frozen=True)
class _Joined:
    reads: Sequence[tuple[Callable[[int], bytes], int]]

    def __call__(self, position: int) -> bytes:
        read, index = self.reads[position]
        return read(index)


@dataclass(frozen=True)
class _Taken:
    read: Callable[[int], bytes]
    positions: npt.NDArray[np.intp]

    def __call__(self, index: int) -> bytes:
        return self.read(int(self.positions[index]))
