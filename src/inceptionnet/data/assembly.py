"""Making a data set of the splits that were found: groups, held-out images, and the checks before a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from inceptionnet.data.groups import NO_GROUPS, GroupBy, divided_groups, with_groups
from inceptionnet.data.splits import AnySplit, Source, Split, StreamSplit
from inceptionnet.data.splitting import VAL_SHARE, held_out
from inceptionnet.errors import DataError, listed, number_of


def hold_out(split: Split, seed: int) -> tuple[Split, Split]:
    """(train, val): the split divided by `held_out`, and never within a group."""
    held = held_out(split.units, split.labels, seed)
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
    group_by: GroupBy | None = None,
) -> Source:
    """A validated Source from the splits `found`, by name, or from all images under "" if there are no splits.

    `evaluating`: any split is enough, and nothing is held out if that is not possible.
    `group_by`: no group is divided if images are held out; stated splits that divide one have a note.
    Raises: DataError for no training split, a single class, nothing to hold out, or a class that is evaluated but not
    trained on; as `with_groups`.
    """
    splits, by, notes = dict(found), group_by or GroupBy(), list(ignored)
    whole = splits.keys() in ({""}, {"train"})
    if whole or not evaluating:
        splits, by, bare = with_groups(where, splits, by)
        notes += bare
    if not evaluating:
        _check_classes(where, classes)
        if not splits.keys() & {"", "train"}:
            raise DataError(f"{where}: expected a train split, got only {listed(splits, last='and')}: add train")
    note, is_held_out = "split as found", False
    if whole:
        note = "not split" if "" in splits else "no val or test split"
        (all_images,) = splits.values()
        train, val = hold_out(all_images, seed)
        is_held_out = len(classes) > 1 and len(val) > 0
        if is_held_out:
            splits = {"train": train, "val": val}
            note += f": {_how_held_out(train, val, by)} and seed {seed}"
            notes = [*_not_held_out(classes, train, val, by), *notes]
        elif evaluating:
            splits = {name or "val": split for name, split in splits.items()}
        if not evaluating:
            _check_held_out(where, val, by)
    for names, shared in divided_groups(splits).items():
        some = number_of("group", len(shared))
        notes.insert(0, f"{some} ({by.name}) in both {names}: {listed(shared, 3)}")
    if not evaluating:
        _check_trained(where, classes, splits)
        for name, split in found.items():
            _check_evaluated(where, classes, name, split)
    return _source(title, classes, splits, [note, *_alike(classes), *notes], suggestions or {}, is_held_out, by.name)


def _alike(classes: Sequence[str]) -> list[str]:
    """A note on classes that may be one: names that differ in case or spaces only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault("".join(name.split()).casefold(), []).append(name)
    pairs = [listed(map(repr, names), last="and") for names in groups.values() if len(names) > 1]
    return [f"classes that differ in case or spaces only: {listed(pairs, 3)}"] if pairs else []


def _how_held_out(train: Split, val: Split, by: GroupBy) -> str:
    if not by.name:
        return f"{100 * VAL_SHARE:.0f} % of the images held out as val, chosen by file name"
    count, of_val = len(set(train.units)) + len(set(val.units)), len(set(val.units))
    return (
        f"about {100 * VAL_SHARE:.0f} % of the images held out as val in whole groups ({by.name}: "
        f"{number_of('group', count)}, "
        f"{of_val} of them in val), chosen by name of group"
    )


def _not_held_out(classes: Sequence[str], train: Split, val: Split, by: GroupBy) -> list[str]:
    """A note on the classes without validation images."""
    missing = [classes[label] for label in np.setdiff1d(_used(train.labels), _used(val.labels))]
    return [f"no val images of {listed(missing)}: too few {'groups' if by.name else 'images'}"] * bool(missing)


def _check_held_out(where: str, val: Split, by: GroupBy) -> None:
    if not len(val):
        some, do = (f"in 2 groups ({by.name})", f"add groups, or give --group-by {NO_GROUPS}") if by.name else (
            "with 2 images", "add images")  # fmt: skip
        raise DataError(f"{where}: expected a class {some} or more to hold some out, got 1 each: {do}")
    if by.name and len(_used(val.labels)) < 2:
        raise DataError(
            f"{where}: expected at least 2 classes with 2 groups ({by.name}) or more to hold some out, got 1: add "
            f"groups, or give --group-by {NO_GROUPS}"
        )


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
    where: str,
    title: str,
    classes: Sequence[str],
    found: Mapping[str, StreamSplit],
    ignored: Sequence[str] = (),
    *,
    evaluating: bool = False,
) -> Source:
    """A validated Source of streams.

    Raises: DataError for no split; unless `evaluating`, also for a single class, no train, or neither val nor test.
    """
    if evaluating and not found:
        raise DataError(f"{where}: expected train, val or test, got no split: name one so")
    if not evaluating:
        _check_classes(where, classes)
    if not evaluating and ("train" not in found or len(found) < 2):
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
    grouped_by: str = "",
) -> Source:
    splits = {name: found[name] for name in ("train", "val", "test") if name in found}
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    note = "; ".join([f"{notes[0]} ({counts})", *notes[1:]])
    return Source(title, tuple(classes), splits, note, suggestions, held_out, grouped_by)
