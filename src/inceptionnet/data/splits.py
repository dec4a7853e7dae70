"""Labelled images in named splits, and the one rule that holds images out where a data set is not split.

The rule looks at nothing but the image's name and the seed, so adding or removing images never moves another
one between training and validation, and a folder, its copy and its zip are split alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import DataError

VAL_SHARE = 0.2
# What folders and files call a split → what this package calls it.
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# A stream is shuffled by holding this much of it back and handing out any of it, so nothing moves much farther.
BUFFER_IMAGES, BUFFER_BYTES = 1000, 2**29

Encoded: TypeAlias = tuple[str, int, bytes]  # name, label, encoded file


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order: names, labels (N,) int64 and `read(index)`, which gives one encoded file's bytes.

    `read` can be pickled and called in any process. Raises: DecodeError from `read`.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, positions: npt.NDArray[np.intp]) -> Split:
        """The split that holds only the images at `positions`, in that order."""
        return Split([self.names[i] for i in positions], self.labels[positions], _Taken(self.read, positions))


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images that come one after the other and cannot be asked for by number.

    They lie in `shards` parts; `read(shard)` gives those of one part in their order, `length` is how many there are
    in all. Both belong in the main process: it may hold connections and threads, which no fork survives.
    """

    title: str
    length: int
    shards: int
    read: Callable[[int], Iterator[Encoded]]

    def __len__(self) -> int:
        return self.length

    def iterate(self, epoch: int, seed: int | None) -> Generator[Encoded, None, None]:
        """One pass: in order where there is no seed, else in an order that is a function of (seed, epoch) only.

        Shuffled are the shards, then the images as far as a buffer of BUFFER_IMAGES or BUFFER_BYTES reaches.
        Raises: DataError where the stream breaks off, or holds fewer or more images than `length`.
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
            raise DataError(f"{self.title}: expected {self.length} images, got {got}: correct the number it states")

    def _read(self, order: Iterable[int]) -> Iterator[Encoded]:
        for shard in order:
            yield from self.read(shard)


def _shuffled(images: Iterable[Encoded], rng: np.random.Generator) -> Iterator[Encoded]:
    """Every image once, each drawn at random from those that are held back."""
    held: list[Encoded] = []
    held_bytes = 0

    def drawn() -> Encoded:
        nonlocal held_bytes
        i = int(rng.integers(len(held)))
        held[i], held[-1] = held[-1], held[i]
        held_bytes -= len(held[-1][2])
        return held.pop()

    for image in images:
        held.append(image)
        held_bytes += len(image[2])
        while len(held) > BUFFER_IMAGES or held_bytes > BUFFER_BYTES:
            yield drawn()
    while held:
        yield drawn()


AnySplit: TypeAlias = Split | StreamSplit


@dataclass(frozen=True, eq=False)
class Source:
    """A data set: class names in label order, its splits ("train", "val", "test"), how they came about (`note`).

    "train" is always there, and "val" or "test" or both; one that was opened only to evaluate has at least one of the
    three. `suggestions` are settings that suit these images better than the general defaults, by dotted name
    ("augment.flip"). `held_out`: "val" was held out by rule of images that were not split.
    """

    title: str
    classes: tuple[str, ...]
    splits: Mapping[str, AnySplit]
    note: str
    suggestions: Mapping[str, object] = field(default_factory=dict)
    held_out: bool = False

    def pick(self, split: str, *, own: bool = True) -> tuple[str, AnySplit]:
        """The name and the images of a split: `auto` is test, else val, else all; `all` is every image.

        `own`: the network was trained by this package, so that images which the rule did not hold out may be those
        it was trained on. Another network's training knew nothing of the rule: where val is only what the rule held
        out, `auto` is then all images, not a fifth of them.
        Raises: DataError for a split that is not there, and for `all` of a stream.
        """
        if split == "auto":
            there = [] if self.held_out and not own else [name for name in ("test", "val") if name in self.splits]
            split = there[0] if there else "all"
        if split == "all":
            whole = [one for one in self.splits.values() if isinstance(one, Split)]
            if len(whole) < len(self.splits):
                raise DataError(
                    f"{self.title}: expected one split of a stream, got all: use {' or '.join(self.splits)}"
                )
            return split, _joined(whole)
        if split not in self.splits:
            raise DataError(f"{self.title}: expected a split {split}, got {', '.join(self.splits)}: use one, or all")
        return split, self.splits[split]


def _joined(splits: Sequence[Split]) -> Split:
    """One split after the other."""
    reads = [(split.read, index) for split in splits for index in range(len(split))]
    names = [name for split in splits for name in split.names]
    return Split(names, np.concatenate([split.labels for split in splits]), _Joined(reads))


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


def draw(seed: int, name: str) -> float:
    """An image's lot in [0, 1): the first 8 bytes of sha256("SEED/NAME") as a binary fraction."""
    digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """(train, val): an image whose lot is below VAL_SHARE is held out.

    A class of two or more images gets both: where the lots leave one side empty, the image with the highest
    (lowest) lot moves to train (val). A class of one image is trained on.
    """
    lots = np.array([draw(seed, name) for name in split.names])
    held = lots < VAL_SHARE
    by_class = np.argsort(split.labels, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(split.labels[by_class])) + 1):
        if held[members].all():
            held[members[lots[members].argmax()]] = False
        elif not held[members].any() and len(members) > 1:
            held[members[lots[members].argmin()]] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def make_source(
    where: str,
    title: str,
    classes: Sequence[str],
    found: Mapping[str, Split],
    *,
    seed: int,
    evaluating: bool = False,
    ignored: Sequence[str] = (),
    suggestions: Mapping[str, object] | None = None,
) -> Source:
    """A checked Source from what was `found`: splits by name, or all images under "" where they are not split.

    `evaluating` asks for less: any split will do, and what cannot be trained on has nothing held out.
    Raises: DataError where there is no training split, one class only, nothing to hold out, or a class that is
    evaluated and not trained on.
    """
    splits = dict(found)
    if not evaluating:
        _check_classes(where, classes)
        if not splits.keys() & {"", "train"}:
            raise DataError(f"{where}: expected a train split, got only {' and '.join(sorted(splits))}: add train")
    note, held_out = "split as found", False
    if splits.keys() in ({""}, {"train"}):
        note = "not split" if "" in splits else "no val or test split"
        (all_images,) = splits.values()
        train, val = hold_out(all_images, seed)
        held_out = len(classes) > 1 and len(val) > 0
        if held_out:
            splits = {"train": train, "val": val}
            note += f": {100 * VAL_SHARE:.0f} % of the images held out as val, chosen by file name and seed {seed}"
        elif evaluating:
            splits = {name or "val": split for name, split in splits.items()}
        else:
            raise DataError(f"{where}: expected a class with 2 images or more to hold some out, got 1 each: add some")
    if not evaluating:
        _check_trained(where, classes, splits)
    return _source(title, classes, splits, [note, *ignored], suggestions or {}, held_out)


def _check_trained(where: str, classes: Sequence[str], splits: Mapping[str, Split]) -> None:
    for name, split in splits.items():
        unknown = np.setdiff1d(split.labels, splits["train"].labels)
        if len(unknown):
            missing = ", ".join(classes[label] for label in unknown)
            raise DataError(f"{where}: expected the classes of train, got also {missing} in {name}: add them to train")


def make_stream_source(
    where: str, title: str, classes: Sequence[str], found: Mapping[str, StreamSplit], ignored: Sequence[str] = ()
) -> Source:
    """A checked Source of streams. Raises: DataError for fewer than two classes, no train, or neither val nor test."""
    _check_classes(where, classes)
    if "train" not in found or len(found) < 2:
        raise DataError(
            f"{where}: expected train and also val or test, as nothing can be held out of a stream, "
            f"got {' and '.join(sorted(found)) or 'no split'}: add what is missing"
        )
    return _source(title, classes, found, ["streamed", *ignored], {})


def _check_classes(where: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(f"{where}: expected at least 2 classes, got {len(classes)} ({', '.join(classes)}): add another")


def _source(
    title: str,
    classes: Sequence[str],
    found: Mapping[str, AnySplit],
    notes: Sequence[str],
    suggestions: Mapping[str, object],
    held_out: bool = False,
) -> Source:
    splits = {name: found[name] for name in ("train", "val", "test") if name in found}
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    note = "; ".join([f"{notes[0]} ({counts})", *notes[1:]])
    return Source(title, tuple(classes), splits, note, suggestions, held_out)
