"""Opening data sets: the built-in digits, a folder, a zip file, parquet files, tar shards, streams.

All of them give encoded image files, read one at a time, so that there is one decoding path (decode.py). The layouts of
folders are in folders.py.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from inceptionnet.data.archives import list_zip
from inceptionnet.data.assembly import make_source
from inceptionnet.data.containers import Tree, list_folder
from inceptionnet.data.flat import METADATA_FILES
from inceptionnet.data.folders import read_tree
from inceptionnet.data.groups import GroupBy
from inceptionnet.data.layout import parse_splits
from inceptionnet.data.names import expand, is_hidden
from inceptionnet.data.parquet import read_parquet
from inceptionnet.data.shards import read_shards
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, nearest
from inceptionnet.system.extras import import_extra

KINDS = "digits, a folder of class folders, a .zip of one, .parquet files, or .tar shards (a folder, a file, a pattern)"
STREAMS = ("hf:", "http://", "https://")
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class _Asked:
    """The options of `open_source`."""

    seed: int
    labels: Path | None
    evaluating: bool
    splits: Mapping[str, str] | None
    group_by: GroupBy


def open_source(
    data: str | Path,
    *,
    seed: int = 0,
    labels: str | Path | None = None,
    evaluating: bool = False,
    splits: str | None = None,
    group_by: str | None = None,
) -> Source:
    """Open the data set at `data`: `digits`, a folder, a .zip, .parquet files or .tar shards (./digits is a folder).

    Shards: a folder of them, a single file, or a brace pattern (shards/train-{000..009}.tar). `hf:NAME` and URLs of
    shards are streamed (see streams.py). `seed` decides which images are held out if the data set has neither val nor
    test (see splitting.py).
    `evaluating`: for evaluation only. The train split may be missing, and one class is enough.
    `labels`: a file with the labels, and perhaps splits, of the images of a folder or .zip (see flat.py). Of a flat
    folder, one with a well-known name in or next to it is used without being named (see flat.find_labels).
    `splits`: which folders of a folder or .zip are its splits, as train=A,val=B; or none, if they are classes.
    Default: by their names (see layout.py).
    `group_by`: what no split may divide: a column of the labels, such as patient_id, or a regular expression for the
    names of images, such as "(P[0-9]+)_"; or none. Default: a column with a well-known name (see groups.py).
    Raises: DataError for data that cannot be trained (or evaluated) on; MissingExtraError for a missing reader.
    """
    where, path = str(data), Path(data)
    asked = _Asked(seed, Path(labels) if labels is not None else None, evaluating, parse_splits(splits),
                   GroupBy(group_by))  # fmt: skip
    if not where.strip():
        raise DataError(f"expected {KINDS}, got an empty name: give the data")
    if where == "digits":
        _refuse_options(where, asked, "digits")
        return _digits(asked)
    if where.startswith(STREAMS):
        from inceptionnet.data.streams import open_stream

        _refuse_options(where, asked, "a stream")
        if asked.group_by.name:
            raise DataError(f"{where}: expected images that can be split for --group-by, got a stream, which has its "
                            "own splits: omit it")  # fmt: skip
        return open_stream(where, evaluating=asked.evaluating)
    try:
        is_folder = path.stat() and path.is_dir()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if "{" in where:
            return _from_shards([Path(name) for name in expand(where)], where, path.name, asked)
        hint = nearest(where, ["digits"])
        guess = f" ({hint})" if hint.startswith("did you mean") else ""
        raise DataError(f"{where}: expected {KINDS}, got no such file or folder: check the path{guess}") from None
    except OSError as error:
        raise DataError(f"{where}: expected {KINDS}, got {error.strerror}: check its permissions") from None
    title = path.resolve().name
    if is_folder:
        if files := _files(path, "*.parquet"):
            _refuse_options(where, asked, ".parquet files")
            return _made(where, title, read_parquet(files, where), asked)
        tree = list_folder(path)
        # A .tar next to images is the archive that they were unpacked from.
        if (shards := _files(path, "*.tar")) and not tree.images:
            return _from_shards(shards, where, title, asked)
        return _from_tree(where, title, tree, asked)
    if path.suffix.lower() == ".zip":
        return _from_tree(where, title, list_zip(path), asked)
    if path.suffix.lower() == ".tar":
        return _from_shards([path], where, title, asked)
    advice = (
        "give the folder of its images, with this file as their labels"
        if path.suffix.lower() in TABLES
        else "unpack it and give the folder"
    )
    raise DataError(f"{where}: expected {KINDS}, got a {path.suffix or 'plain'} file: {advice}")


def _refuse_options(where: str, asked: _Asked, what: str) -> None:
    if asked.splits is not None:
        raise DataError(f"{where}: expected a folder or .zip for --splits, got {what}: rename the files instead")
    if asked.labels is not None:
        raise DataError(
            f"{where}: expected a folder or .zip of images for the labels in {asked.labels}, got {what}: omit --labels"
        )


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(f"data/{pattern}"))
    return [file for file in found if not is_hidden(file.name) and file.name not in METADATA_FILES]


def _from_shards(shards: list[Path], where: str, title: str, asked: _Asked) -> Source:
    _refuse_options(where, asked, ".tar shards, which contain their labels (unpack one that has images only)")
    return _made(where, title, read_shards(shards, where), asked)


def _from_tree(where: str, title: str, tree: Tree, asked: _Asked) -> Source:
    classes, found, notes, group_by = read_tree(
        where, tree, labels=asked.labels, splits=asked.splits, evaluating=asked.evaluating, group_by=asked.group_by
    )
    return _made(where, title, (classes, found, notes), replace(asked, group_by=group_by))


def _made(where: str, title: str, read: tuple[list[str], dict[str, Split], list[str]], asked: _Asked) -> Source:
    classes, found, ignored = read
    return make_source(where, title, classes, found, seed=asked.seed, evaluating=asked.evaluating, ignored=ignored,
                       group_by=asked.group_by)  # fmt: skip


def _digits(asked: _Asked) -> Source:
    """scikit-learn's 1797 handwritten digits of 8×8 px, their 17 grey values scaled to 0–255."""
    sklearn = import_extra("sklearn.datasets", "digits", "the digits data set", package="scikit-learn")
    bunch = sklearn.load_digits()
    encoded = []
    for digit in np.rint(bunch.images * (255 / 16)).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(digit).save(file, "PNG")
        encoded.append(file.getvalue())
    names = [f"{label}/{i:04}.png" for i, label in enumerate(bunch.target)]
    split = Split(names, bunch.target.astype(np.int64), encoded.__getitem__)
    # A mirrored digit is no digit, and digits fill their images to the border, so that crops must be large.
    suggestions = {"augment.flip": False, "augment.area_min": 0.7, "preprocess.crop": 1.0}
    return make_source("digits", "digits", list("0123456789"), {"": split}, seed=asked.seed, suggestions=suggestions,
                       group_by=asked.group_by)  # fmt: skip
