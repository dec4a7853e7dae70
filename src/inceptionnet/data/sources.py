"""Opening data sets: the built-in digits, a folder, a zip file, parquet files, tar shards, streams.

All of them give encoded image files, read one at a time, so that there is one decoding path (decode.py).
The folder layouts are CLASS/image.jpg, or SPLIT/CLASS/image.jpg with train, val (valid, validation), test.
Images in any folders with a label file work too (see flat.py).
"""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.flat import find_labels, metadata_of, read_labels, read_metadata_labels
from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.names import EXTENSIONS, expand, is_image
from inceptionnet.data.parquet import read_parquet
from inceptionnet.data.shards import read_shards
from inceptionnet.data.splits import SPLIT_NAMES, Source, Split, make_source
from inceptionnet.data.text import nfc
from inceptionnet.errors import DataError, listed, missing_extra, nearest

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


def open_source(
    data: str | Path, *, seed: int = 0, labels: str | Path | None = None, evaluating: bool = False
) -> Source:
    """Open the data set at `data`: `digits`, a folder, a .zip, .parquet files or .tar shards (./digits is a folder).

    Shards: a folder of them, a single file, or a brace pattern (shards/train-{000..009}.tar). `hf:NAME` and URLs of
    shards are streamed (see streams.py). `seed` decides which images are held out if the data set has neither val nor
    test (see splits.hold_out).
    `evaluating`: for evaluation only. The train split may be missing, and one class is enough.
    `labels`: a file with the labels, and perhaps splits, of the images of a folder or .zip (see flat.py). Of a flat
    folder, one with a well-known name in or next to it is used without being named (see flat.find_labels).
    Raises: DataError for data that cannot be trained (or evaluated) on; MissingExtraError for a missing reader.
    """
    where, path = str(data), Path(data)
    asked = _Asked(seed, Path(labels) if labels is not None else None, evaluating)
    if where == "digits":
        _refuse_labels(where, asked, "digits")
        return _digits(seed)
    if where.startswith(STREAMS):
        from inceptionnet.data.streams import open_stream

        _refuse_labels(where, asked, "a stream")
        return open_stream(where)
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
            _refuse_labels(where, asked, ".parquet files")
            return _made(where, title, read_parquet(files, where), asked)
        tree = list_folder(path)
        # A .tar next to images is the archive that they were unpacked from.
        if (shards := _files(path, "*.tar")) and not any(map(is_image, tree.files)):
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


def _refuse_labels(where: str, asked: _Asked, what: str) -> None:
    if asked.labels is not None:
        raise DataError(
            f"{where}: expected a folder or .zip of images for the labels in {asked.labels}, got {what}: omit --labels"
        )


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) or sorted(folder.glob(f"data/{pattern}"))


def _from_shards(shards: list[Path], where: str, title: str, asked: _Asked) -> Source:
    _refuse_labels(where, asked, ".tar shards, which contain their labels (unpack one that has images only)")
    return _made(where, title, read_shards(shards, where), asked)


def _made(where: str, title: str, read: tuple[list[str], dict[str, Split], list[str]], asked: _Asked) -> Source:
    classes, found, ignored = read
    return make_source(where, title, classes, found, seed=asked.seed, evaluating=asked.evaluating, ignored=ignored)


def _digits(seed: int) -> Source:
    """scikit-learn's 1797 handwritten digits of 8×8 px, their 17 grey values scaled to 0–255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing_extra("scikit-learn", "digits", "the digits data set") from None
    bunch = load_digits()
    encoded = []
    for digit in np.rint(bunch.images * (255 / 16)).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(digit).save(file, "PNG")
        encoded.append(file.getvalue())
    names = [f"{label}/{i:04}.png" for i, label in enumerate(bunch.target)]
    split = Split(names, bunch.target.astype(np.int64), encoded.__getitem__)
    # A mirrored digit is no digit, and digits fill their images to the border, so that crops must be large.
    suggestions = {"augment.flip": False, "augment.area_min": 0.7, "preprocess.crop": 1.0}
    return make_source("digits", "digits", list("0123456789"), {"": split}, seed=seed, suggestions=suggestions)


@dataclass(frozen=True)
class _ByName:
    """Reads from a container, by position in a split."""

    read: Callable[[str], bytes]
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        return self.read(self.names[index])


def _from_tree(where: str, title: str, tree: Tree, asked: _Asked) -> Source:
    """The layout of folders and zips; image names are relative to the folder that contains the splits or classes."""
    images = list(filter(is_image, tree.files))
    if not images:
        raise DataError(f"{where}: expected images ({' '.join(sorted(EXTENSIONS))}), got {len(tree.files)} other files")
    inside: dict[str, set[str]] = defaultdict(set)  # folder → names of the folders in it
    for folder in tree.folders:
        inside[_parent(folder)].add(PurePosixPath(folder).name)
    loose = Counter(map(_parent, images))  # folder → images directly in it
    if files := _labels_files(where, loose, asked):
        return _labelled(where, title, tree, images, asked, files)
    root = _start(inside, loose)
    below = f"{root}/" if root else ""
    names = sorted(image.removeprefix(below) for image in images if image.startswith(below))
    tops = inside[root]
    if not tops:
        raise DataError(
            f"{where}: expected one folder per class, got {loose[root]} images in one folder: {_sort_them()}"
        )

    # A folder `train` with images directly in it, next to car and bus, is a class of trains.
    named = {top: SPLIT_NAMES[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_NAMES}
    train = next((top for top, split in named.items() if split == "train"), None)
    if not (len(named) == len(tops) or (train is not None and not loose[below + train])):
        named = {}
    if len(set(named.values())) < len(named):
        raise DataError(f"{where}: expected one folder per split, got {listed(named)}: merge those of one split")
    folders = {top: _class_folders(where, inside[below + top] if named else tops) for top in named or [""]}
    if named and train is not None and not folders[train]:
        raise DataError(
            f"{where}: expected class folders in {train}, got {loose[below + train]} images: sort them into classes"
        )
    if named and asked.evaluating:
        bare = {top: loose[below + top] for top, inner in folders.items() if not inner}
        folders = _labelled_splits(where, folders, bare)
    as_trained = train is not None and train in folders and not asked.evaluating
    classes = folders[train or ""] if as_trained else sorted({c for cs in folders.values() for c in cs})

    members: dict[str, list[str]] = {top: [] for top in folders}
    filled = set()
    for name in names:
        top, _, rest = name.partition("/") if named else ("", "", name)
        if top in members and "/" in rest:
            members[top].append(name)
            filled.add((top, nfc(rest.partition("/")[0])))
    empty = [f"{top}/{c}".lstrip("/") for top, cs in folders.items() for c in cs if (top, c) not in filled]
    if empty:
        raise DataError(
            f"{where}: expected images in every class folder, got none in {listed(empty)}: add images or remove them"
        )
    for top, cs in folders.items():
        extra = sorted(set(cs) - set(classes))
        if extra:
            raise DataError(
                f"{where}: expected the classes of train, got also {listed(extra)} in {top}: add them to train"
            )

    label = {c: i for i, c in enumerate(classes)}
    read, found = tree.reader(root), {}
    for top, paths in members.items():
        labels = np.array([label[nfc(path.split("/")[1 if named else 0])] for path in paths], np.int64)
        found[named.get(top, "")] = Split(paths, labels, _ByName(read, paths))
    return _made(where, title, (classes, found, _ignored(tree, images, members)), asked)


def _sort_them() -> str:
    return "sort them into class folders, or give a label file (--labels)"


def _class_folders(where: str, folders: set[str]) -> list[str]:
    """The class names of folders, sorted. Raises: DataError if two are the same name in two forms of Unicode."""
    if len(names := sorted(set(map(nfc, folders)))) < len(folders):
        twice = [name for name in names if sum(nfc(folder) == name for folder in folders) > 1]
        raise DataError(
            f"{where}: expected one folder per class, got {listed(twice)} in two forms of Unicode: merge the folders"
        )
    return names


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
        read = read_labels(next(iter(files.values())), names)
    else:
        read = read_metadata_labels({at.removeprefix(below): file for at, file in files.items()}, names)
    used = [names[i] for i in read.positions]
    tops = [name.partition("/")[0].lower() if "/" in name else "" for name in used]
    splits = read.splits or tuple(SPLIT_NAMES.get(top, "") for top in tops)
    if not all(splits):
        # ImageNet's validation set is one split, whatever else is evaluated on its images.
        whole = "val" if asked.evaluating and set(read.classes) <= set(imagenet_wnids()) else ""
        splits = (whole,) * len(used)
    found = {}
    for split in sorted(set(splits)):
        places = np.flatnonzero(np.array(splits) == split)
        part = [used[i] for i in places]
        found[split] = Split(part, read.labels[places], _ByName(tree.reader(folder), part))
    paths = {file.resolve() for file in files.values()}
    called = {file.name for file in files.values()}
    own = {name for name in tree.files if _name(name) in called and Path(where, name).resolve() in paths}
    inside = replace(tree, files=[name for name in tree.files if name not in own])
    others = _ignored(inside, images, {folder: images})
    return _made(
        where,
        title,
        (list(read.classes), found, [f"labels from {listed(map(str, files.values()))}", *read.notes, *others]),
        asked,
    )


def _labelled_splits(where: str, folders: dict[str, list[str]], bare: Mapping[str, int]) -> dict[str, list[str]]:
    """The splits of `folders` that have class folders; `bare`: number of images in each of the others.

    ImageNet's test images have no labels; val can be evaluated without them. But train does not replace an unlabelled
    val.
    """
    labelled = {top: inner for top, inner in folders.items() if top not in bare}
    if bare and all(SPLIT_NAMES[top.lower()] == "train" for top in labelled):
        (top, count), *_ = bare.items()
        raise DataError(f"{where}: expected class folders in {top}, got {count} images in one folder: sort "
                        f"them, or evaluate the folder {top} itself with a label file (--labels)")  # fmt: skip
    return labelled


def _start(inside: dict[str, set[str]], loose: Counter[str]) -> str:
    """The folder that contains the classes or splits, below any chain of single folders."""
    root = ""
    while len(inside[root]) == 1 and not loose[root]:
        (only,) = inside[root]
        deeper = f"{root}/{only}".lstrip("/")
        if only.lower() in SPLIT_NAMES or loose[deeper] or not inside[deeper]:
            break
        root = deeper
    return root


def _ignored(tree: Tree, images: list[str], members: dict[str, list[str]]) -> list[str]:
    """Notes on files that are not used, such as 500 .heic photographs."""
    outside = len(images) - sum(map(len, members.values()))
    others = set(tree.files).difference(images)
    kinds = ", ".join(sorted({PurePosixPath(file).suffix.lower() or "no extension" for file in others})[:5])
    notes = [f"{outside} images outside the class folders ignored"] if outside else []
    return notes + ([f"{len(others)} files that are not images ignored ({kinds})"] if others else [])


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
