"""Finished runs, opened with their data, and whether they have the same data, however it is split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from inceptionnet.data.fingerprint import sizes
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import ConfigurationError, DataError, RunError, listed
from inceptionnet.system.files import as_text
from inceptionnet.train.plan import Job, read_job
from inceptionnet.train.run import Run


@dataclass(frozen=True)
class OpenRun:
    """A finished run with its data at hand."""

    name: str
    run: Run
    about: Mapping[str, Any]
    """The content of run.json."""
    job: Job


def opened_runs(paths: Sequence[Path], data: str | None, labels: str | None) -> list[OpenRun]:
    """The runs with their data, under names that tell them apart.

    Args:
        data, labels: where the images and the file of their labels are now, if they have moved.

    Raises:
        ConfigurationError: fewer than two runs, or the same one twice.
        RunError: a folder is no run, has no finished epoch, or its data has moved or changed.
    """
    if len(paths) < 2:
        raise ConfigurationError(f"expected two or more run folders to compare, got {len(paths)}; name another one")
    for one, other in combinations(paths, 2):
        if one.resolve() == other.resolve():
            raise ConfigurationError(f"{other}: the same run twice; name each run once")
    for path in paths:
        run = Run(path)
        if not run.exists:
            what = "a folder without run.json" if path.is_dir() else "a file" if path.exists() else "no such folder"
            raise RunError(f"{path}: expected a run folder, got {what}; name folders that inceptionnet train has made")
        if not all((path / name).is_file() for name in ("metrics.csv", "evaluation.json")):
            raise RunError(
                f"{path}: expected a finished run, no epoch of it is finished yet; go on with: inceptionnet train "
                f"--resume --out {path}"
            )
    return [
        OpenRun(name, Run(path), Run(path).about(), read_job(Run(path), data, labels))
        for name, path in zip(_names(paths), paths, strict=True)
    ]


def check_same_data(first: OpenRun, other: OpenRun) -> None:
    """Check that two runs have the same images with the same labels, however they are split.

    Raises:
        DataError: other classes, images, labels or files, and which.
    """
    one, two = first.about["data"], other.about["data"]
    said = f"{other.run.path}: expected the data of {first.run.path}, got"
    if list(one["classes"]) != list(two["classes"]):
        missing, more = set(one["classes"]) - set(two["classes"]), set(two["classes"]) - set(one["classes"])
        words = [f"without {listed(missing)}"] * bool(missing) + [f"with {listed(more)}"] * bool(more)
        raise DataError(
            f"{said} other classes ({' and '.join(words) or 'another order'}); compare runs on one data set"
        )
    files = f"{said} other files under the same names; compare runs on one data set"
    whole = all(isinstance(images, Split) for run in (first, other) for images in run.job.source.splits.values())
    if whole and one["fingerprint"] == two["fingerprint"]:
        if one["sizes"] != two["sizes"]:
            raise DataError(files)
        return
    ours, theirs = _contents(first.job.source), _contents(other.job.source)
    if ours != theirs:
        raise DataError(
            f"{said} other images ({_difference(ours, theirs)}); compare the networks on one data set with: "
            f"inceptionnet evaluate {first.run.path} {other.run.path} DATA"
        )
    if whole and first.job.plan.data != other.job.plan.data and _files(first.job.source) != _files(other.job.source):
        raise DataError(files)


def _contents(source: Source) -> Counter[tuple[str, str]]:
    """The names and labels of all images; of a stream its name and length."""
    found: Counter[tuple[str, str]] = Counter()
    for split in source.splits.values():
        if isinstance(split, Split):
            labels = split.labels.tolist()
            found.update((name, str(label)) for name, label in zip(split.names, labels, strict=True))
        else:
            found[split.title, str(len(split))] += 1
    return found


def _difference(ours: Counter[tuple[str, str]], theirs: Counter[tuple[str, str]]) -> str:
    missing, more = ({as_text(name) for name, _ in (one - two)} for one, two in ((ours, theirs), (theirs, ours)))
    if missing == more:
        return f"other labels of {listed(missing, 3)}"
    words = [f"without {listed(missing - more, 3)}"] * bool(missing - more)
    return " and ".join(words + [f"with {listed(more - missing, 3)}"] * bool(more - missing))


def _files(source: Source) -> str:
    """A hash of the sizes of some images, in the order of their names, however they are split."""
    _, images = source.pick("all")
    assert isinstance(images, Split)
    order = np.array(sorted(range(len(images)), key=images.names.__getitem__))
    return sizes(Source(source.title, source.classes, {"all": images.take(order)}, source.note))


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that differ."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*one[-depth:])) for one in parts]
        if len(set(names)) == len(names):
            break
    return names
