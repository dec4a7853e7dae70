"""Opening data sets: the built-in digits, a folder, a zip file, parquet files, tar shards, streams.

All of them give encoded image files, read one at a time, so that there is one decoding path (decode.py).
The folder layouts are CLASS/image.jpg, or SPLIT/CLASS/image.jpg (see layout.py).
Images in any folders with a label file work too (see flat.py).
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from inceptionnet.data.assembly import make_source
from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.flat import find_labels, metadata_of, read_labels, read_metadata_labels
from inceptionnet.data.groups import GroupBy
from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.layout import NO_SPLITS, Layout, class_folder, find_layout, parse_splits
from inceptionnet.data.names import EXTENSIONS, expand, is_hidden, split_named
from inceptionnet.data.parquet import read_parquet
from inceptionnet.data.shards import read_shards
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, listed, nearest
from inceptionnet.system.extras import import_extra

__all__ = ["EXTENSIONS", "Source", "Split", "open_source"]

KINDS = "digits, a folder of class folders, a .zip of one, .parquet files, or .tar shards (a folder, a file, a pattern)"
STREAMS = ("hf:", "http://", "https://")
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class _Asked:
    """The options of `open_source`."""

    seed: int
    labels: Path | None
    evaluating: bool
    splits: Mapping[str, str] | None = None
    group_by: GroupBy = field(default_factory=GroupBy)


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
        "give the folder of its images, with --labels"
        if path.suffix.lower() in TABLES
        else "unpack it and give the folder"
    )
    raise DataError(f"{where}: expected {KINDS}, got a {path.suffix or 'plain'} file: {advice}")


def _refuse_options(where: str, asked: _Asked, what: str) -> None:
    if asked.splits is not None:
        raise DataError(f"{where}: expected a folder or .zip for --splits, got {what}: rename the files instead")
    _refuse_labels(where, asked, what)


def _refuse_labels(where: str, asked: _Asked, what: str) -> None:
    if asked.labels is not None:
        raise DataError(
            f"{where}: expected a folder or .zip of images for the labels in {asked.labels}, got {what}: omit --labels"
        )


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern)) or sorted(folder.glob(f"data/{pattern}"))
    return [file for file in found if not is_hidden(file.name)]


def _from_shards(shards: list[Path], where: str, title: str, asked: _Asked) -> Source:
    _refuse_options(where, asked, ".tar shards, which contain their labels (unpack one that has images only)")
    return _made(where, title, read_shards(shards, where), asked)


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


@dataclass(frozen=True)
class _ByName:
    """Reads from a container, by position in a split."""

    read: Callable[[str], bytes]
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        return self.read(self.names[index])


def _from_tree(where: str, title: str, tree: Tree, asked: _Asked) -> Source:
    """The layout of folders and zips; image names are relative to the folder that contains the splits or classes."""
    images = tree.images
    if not images:
        raise DataError(
            f"{where}: expected images ({' '.join(sorted(EXTENSIONS))}), got {len(tree.files)} other files"
            f"{_endings(tree.files)}"
        )
    loose = Counter(map(_parent, images))  # folder → images directly in it
    if files := _labels_files(where, loose, asked):
        return _labelled(where, title, tree, images, asked, files)
    layout = find_layout(where, tree, asked.splits)
    named = "" not in layout.splits
    if not named and not layout.classes[""]:
        raise DataError(
            f"{where}: expected one folder per class, got {layout.bare['']} images in one folder: {_sort_them()}"
        )
    folders, notes = _labelled_splits(where, layout, asked)
    as_trained = "train" in folders and not asked.evaluating
    classes = sorted(
        set(folders["train"].values() if as_trained else (c for cs in folders.values() for c in cs.values()))
    )
    _check_names(where, folders)

    filled = {class_folder(image, folders[split]) for split in folders for image in layout.images[split]}
    empty = [path for paths in folders.values() for path in paths if path not in filled]
    if empty:
        raise DataError(
            f"{where}: expected images in every class folder, got none in {listed(empty)}: add images or remove them"
        )
    for split, paths in folders.items():
        extra = set(paths.values()).difference(classes)
        if extra:
            top = layout.splits[split]
            raise DataError(
                f"{where}: expected the classes of train, got also {listed(extra)} in {top}: add them to train"
            )

    label = {c: i for i, c in enumerate(classes)}
    read, found = tree.reader(layout.root), {}
    for split, paths in folders.items():
        images_of = layout.images[split]
        labels = np.array([label[paths[class_folder(image, paths)]] for image in images_of], np.int64)
        found[split] = Split(images_of, labels, _ByName(read, images_of))
    deeper = [image for split in folders for image in layout.images[split]
              if _parent(image) != class_folder(image, folders[split])]  # fmt: skip
    if deeper:
        inner = listed({_parent(image) for image in deeper}, 3)
        notes.append(f"{len(deeper)} images in folders inside class folders are of that class ({inner})")
    used = sum(map(len, found.values())) + sum(layout.bare[split] for split in layout.bare if split not in found)
    return _made(where, title, (classes, found, [*layout.notes, *notes, *tree.ignored(used)]), asked)


def _endings(files: Sequence[str]) -> str:
    endings = sorted({Path(file).suffix.lower() for file in files} - {""})
    return f" ({' '.join(endings[:5])})" if endings else ""


def _sort_them() -> str:
    return "sort them into class folders, or give a label file (--labels)"


def _check_names(where: str, folders: Mapping[str, Mapping[str, str]]) -> None:
    """Raises: DataError if two class folders of a split are the same name in two forms of Unicode."""
    for paths in folders.values():
        if twice := [name for name, count in Counter(paths.values()).items() if count > 1]:
            raise DataError(
                f"{where}: expected one folder per class, got {listed(twice)} in two forms of Unicode: merge them"
            )


def _labels_files(where: str, loose: Counter[str], asked: _Asked) -> dict[str, Path]:
    """The label file that is asked for, or that all folders of images have; `loose`: number of images by folder."""
    if asked.labels:
        return {"": asked.labels}
    if len(loose) != 1:
        return metadata_of(loose, Path(where))
    images = Path(where, *loose) if Path(where).is_dir() else Path(where)
    file = find_labels(images, evaluating=asked.evaluating)
    return {"": file} if file else {}


def _labelled(
    where: str, title: str, tree: Tree, images: list[str], asked: _Asked, files: Mapping[str, Path]
) -> Source:
    """Images in any folders, with their labels in a file; splits are the file's, else folders with names of splits."""
    folder = os.path.commonpath(list(map(_parent, images)))
    below = f"{folder}/" if folder else ""
    names = sorted(image.removeprefix(below) for image in images)
    if len(files) == 1:
        read = read_labels(next(iter(files.values())), names, asked.group_by.asked)
    else:
        at = {folder.removeprefix(below): file for folder, file in files.items()}
        read = read_metadata_labels(at, names, asked.group_by.asked)
    used = [names[i] for i in read.positions]
    splits = read.splits or _split_by_folder(where, used, asked)
    if not all(splits):
        # ImageNet's validation set is one split, whatever else is evaluated on its images.
        whole = "val" if asked.evaluating and set(read.classes) <= set(imagenet_wnids()) else ""
        splits = (whole,) * len(used)
    found = {}
    for split in sorted(set(splits)):
        places = np.flatnonzero(np.array(splits) == split)
        part = [used[i] for i in places]
        groups = [read.groups[i] for i in places] if read.groups else ()
        found[split] = Split(part, read.labels[places], _ByName(tree.reader(folder), part), groups)
    paths = {file.resolve() for file in files.values()}
    called = {file.name for file in files.values()}
    own = {name for name in tree.files if _name(name) in called and Path(where, name).resolve() in paths}
    inside = replace(tree, files=[name for name in tree.files if name not in own])
    others = inside.ignored(len(images))
    asked = replace(asked, group_by=replace(asked.group_by, column=read.group_column, columns=read.columns))
    return _made(
        where,
        title,
        (list(read.classes), found, [f"labels from {listed(map(str, files.values()))}", *read.notes, *others]),
        asked,
    )


def _split_by_folder(where: str, images: Sequence[str], asked: _Asked) -> tuple[str, ...]:
    """The split of each image of a list by its first folder, "" if none is one. Raises: DataError for some alone."""
    tops = [name.partition("/")[0] if "/" in name else "" for name in images]
    if asked.splits is None:
        named = {top: split_named(top) for top in tops}
    else:
        named = {folder: split for split, folder in asked.splits.items()}
        if unknown := named.keys() - set(tops):
            raise DataError(f"{where}: expected the folders of --splits to hold images of the list, got none in "
                            f"{listed(unknown)}: known: {listed(set(tops) - {''}) or 'none'}")  # fmt: skip
    found = tuple(named.get(top, "") for top in tops)
    if any(found) and not all(found):
        some, others = ({top or "no folder" for top, split in zip(tops, found, strict=True) if bool(split) is known}
                        for known in (True, False))  # fmt: skip
        raise DataError(
            f"{where}: expected every image of the list in a folder of a split, got images in {listed(others)} beside "
            f"{listed(some)}: add a column split to the list, remove those rows, or give --splits {NO_SPLITS}"
        )
    return found


def _labelled_splits(where: str, layout: Layout, asked: _Asked) -> tuple[dict[str, dict[str, str]], list[str]]:
    """(class folders of the splits that have some, notes on the others).

    ImageNet's and competitions' test images have no labels; val can be evaluated without them. But train does not
    replace an unlabelled or empty val.
    """
    folders = {split: paths for split, paths in layout.classes.items() if split not in layout.bare}
    notes = []
    for split, count in layout.bare.items():
        top = layout.splits[split]
        got = f"{count} images in one folder" if count else "an empty folder"
        if split == "train" and not asked.evaluating:
            raise DataError(f"{where}: expected class folders in {top}, got {got}: sort the images into classes")
        if split == "val" and not asked.evaluating:
            raise DataError(
                f"{where}: expected class folders in {top}, got {got}: sort the images into classes, or remove {top} "
                "to hold out a fifth of train"
            )
        if not folders or (split == "val" and "test" not in folders):
            advice = f"evaluate the folder {top} itself with a label file (--labels)"
            raise DataError(f"{where}: expected class folders in {top}, got {got}: sort them, or {advice}")
        notes.append(f"{top} ignored: {f'{count} images without labels' if count else 'no images'}")
    return folders, notes


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
