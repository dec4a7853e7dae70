"""Splits of labelled images, and the rule for the held-out set of a data set without splits.

The rule depends only on an image's name and the seed: adding or removing images never moves another image between
training and validation, and a folder, its copy and its zip are split identically.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import DataError, listed

VAL_SHARE = 0.2
# The shuffle buffer of a stream; images move no further than about its size.
BUFFER_IMAGES, BUFFER_BYTES = 1000, 2**29

Encoded: TypeAlias = tuple[str, int, bytes]  # name, label, encoded file


@dataclass(frozen=True, eq=False)
class Split:
    """Images in a fixed order: names, labels and `read(index)`, which returns the encoded file.

    Labels are (N,) int64; of several labels an image (N, classes) bool, true for each of its classes.
    `read` can be pickled and called in any process. Raises: DecodeError from `read`.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64 | np.bool_]
    read: Callable[[int], bytes]

    def __len__(self) -> int:
        return len(self.names)

    def classes_of(self, positions: Sequence[int]) -> list[tuple[int, ...]]:
        """The numbers of the classes of each of the images at `positions`."""
        labels = self.labels[list(positions)]
        return [tuple(np.flatnonzero(row).tolist()) if labels.ndim == 2 else (int(row),) for row in labels]

    def take(self, positions: npt.NDArray[np.intp]) -> Split:
        """The subset of the images at `positions`, in that order."""
        return Split([self.names[i] for i in positions], self.labels[positions], _Taken(self.read, positions))


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
    """

    title: str
    classes: tuple[str, ...]
    splits: Mapping[str, AnySplit]
    note: str
    suggestions: Mapping[str, object] = field(default_factory=dict)
    held_out: bool = False

    def note_on(self, split: str) -> str:
        """The note for results on a split: nothing is held out of `all`."""
        if not self.held_out or split != "all":
            return self.note
        _, *others = self.note.split("; ")
        return "; ".join([f"not split ({sum(map(len, self.splits.values()))} images)", *others])

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


def hash_fraction(seed: int, name: str) -> float:
    """A hash of an image's name in [0, 1): the first 8 bytes of sha256("SEED/NAME") as a binary fraction."""
    digest = hashlib.sha256(f"{seed}/{name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """(train, val): images with a `hash_fraction` below VAL_SHARE are held out.

    A class of two or more images gets both: if one side would be empty, the image with the highest (lowest) fraction
    moves to train (val). A class of one image is trained on. Of several labels an image, the classes are looked at one
    after another, and no image moves twice.
    """
    fractions = np.array([hash_fraction(seed, name) for name in split.names])
    held = fractions < VAL_SHARE
    moved = np.zeros(len(held), np.bool_)
    for members in _by_class(split.labels):
        free = members[~moved[members]]
        if held[members].all() and len(free):
            chosen = free[fractions[free].argmax()]
        elif not held[members].any() and len(members) > 1 and len(free):
            chosen = free[fractions[free].argmin()]
        else:
            continue
        held[chosen], moved[chosen] = not held[chosen], True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def _by_class(labels: npt.NDArray[np.int64 | np.bool_]) -> list[npt.NDArray[np.intp]]:
    """The positions of the images of each class that has some."""
    if labels.ndim == 2:
        return [members for column in labels.T if len(members := np.flatnonzero(column))]
    by_class = np.argsort(labels, kind="stable")
    return np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)


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
    """A validated Source from the splits `found`, by name, or from all images under "" if there are no splits.

    `evaluating`: any split is enough, and nothing is held out if that is not possible.
    Raises: DataError for no training split, a single class, nothing to hold out, or a class that is evaluated but not
    trained on.
    """
    splits = dict(found)
    if not evaluating:
        _check_classes(where, classes)
        if not splits.keys() & {"", "train"}:
            raise DataError(f"{where}: expected a train split, got only {listed(splits, last='and')}: add train")
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
            raise DataError(f"{where}: expected a class with 2 images or more to hold some out, got 1 each: add images")
    if not evaluating:
        _check_trained(where, classes, splits)
        for name, split in found.items():
            _check_evaluated(where, classes, name, split)
    return _source(title, classes, splits, [note, *_alike(classes), *ignored], suggestions or {}, held_out)


def _alike(classes: Sequence[str]) -> list[str]:
    """A note on classes that may be one: names that differ in case or spaces only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault("".join(name.split()).casefold(), []).append(name)
    pairs = [listed(map(repr, names), last="and") for names in groups.values() if len(names) > 1]
    return [f"classes that differ in case or spaces only: {listed(pairs, 3)}"] if pairs else []


def _check_evaluated(where: str, classes: Sequence[str], name: str, split: Split) -> None:
    there = _used(split.labels)
    if name in ("val", "test") and len(there) < 2:
        got = f"{len(split)} of {classes[there[0]]}" if len(there) else "none"
        raise DataError(
            f"{where}: expected images of at least 2 classes in {name}, got {got}: add images of the others, or remove "
            f"{name}"
        )


def _check_trained(where: str, classes: Sequence[str], splits: Mapping[str, Split]) -> None:
    for name, split in splits.items():
        unknown = np.setdiff1d(_used(split.labels), _used(splits["train"].labels))
        if len(unknown):
            missing = listed(classes[label] for label in unknown)
            raise DataError(f"{where}: expected the classes of train, got also {missing} in {name}: add them to train")


def _used(labels: npt.NDArray[np.int64 | np.bool_]) -> npt.NDArray[np.int64]:
    """The numbers of the classes that some image has."""
    return np.flatnonzero(labels.any(0)) if labels.ndim == 2 else np.unique(labels).astype(np.int64)


def make_stream_source(
    where: str, title: str, classes: Sequence[str], found: Mapping[str, StreamSplit], ignored: Sequence[str] = ()
) -> Source:
    """A validated Source of streams. Raises: DataError for a single class, no train, or neither val nor test."""
    _check_classes(where, classes)
    if "train" not in found or len(found) < 2:
        raise DataError(
            f"{where}: expected train and val or test, since nothing can be held out of a stream, "
            f"got {listed(found, last='and') or 'no split'}: add the missing split"
        )
    return _source(title, classes, found, ["streamed", *ignored], {})


def _check_classes(where: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(f"{where}: expected at least 2 classes, got {len(classes)} ({listed(classes)}): add another")


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
