"""Opening data sets: the built-in digits, a folder, a zip file, parquet files, tar shards, streams.

All of them give encoded image files, read one at a time, so that there is one decoding path (decode.py).
The folder layouts are CLASS/image.jpg, or SPLIT/CLASS/image.jpg with train, val (valid, validation), test.
For evaluation, a flat folder of images with a label file works too (see flat.py).
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.flat import find_labels, read_labels
from inceptionnet.data.names import EXTENSIONS, expand, is_image
from inceptionnet.data.parquet import read_parquet
from inceptionnet.data.shards import read_shards
from inceptionnet.data.splits import SPLIT_NAMES, Source, Split, make_source
from inceptionnet.errors import DataError, listed, nearest
from inceptionnet.extras import import_extra

__all__ = ["EXTENSIONS", "Source", "Split", "open_source"]

KINDS = "digits, a folder of class folders, a .zip of one, .parquet files, or .tar shards (a folder, a file, a pattern)"
STREAMS = ("hf:", "http://", "https://")


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
    `evaluating`: for evaluation only. The train split may be missing, one class is enough, and the images of a folder
    or .zip may lie flat. Their labels are then read from the file `labels`, or from one with a well-known name in or
    next to the folder (see flat.find_labels). `labels` implies `evaluating`.
    Raises: DataError for data that cannot be trained (or evaluated) on; MissingExtraError for a missing reader.
    """
    where, path = str(data), Path(data)
    asked = _Asked(seed, Path(labels) if labels is not None else None, evaluating or labels is not None)
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
    raise DataError(f"{where}: expected {KINDS}, got a {path.suffix or 'plain'} file: unpack it and give the folder")


def _refuse_labels(where: str, asked: _Asked, what: str) -> None:
    if asked.labels is not None:
        raise DataError(
            f"{where}: expected a flat folder or .zip of images for the labels in {asked.labels}, got {what}: omit "
            "--labels"
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
    if file := _labels_file(where, loose, asked):
        return _flat(where, title, tree, images, asked, file)
    root = _start(inside, loose)
    below = f"{root}/" if root else ""
    names = sorted(image.removeprefix(below) for image in images if image.startswith(below))
    tops = inside[root]
    if not tops:
        raise DataError(
            f"{where}: expected one folder per class, got {loose[root]} images in one folder: {_sort_them(asked)}"
        )

    # A folder `train` with images directly in it, next to car and bus, is a class of trains.
    named = {top: SPLIT_NAMES[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_NAMES}
    train = next((top for top, split in named.items() if split == "train"), None)
    if not (len(named) == len(tops) or (train is not None and not loose[below + train])):
        named = {}
    if len(set(named.values())) < len(named):
        raise DataError(f"{where}: expected one folder per split, got {listed(named)}: merge those of one split")
    folders = {top: sorted(inside[below + top]) for top in named} if named else {"": sorted(tops)}
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
            filled.add((top, rest.partition("/")[0]))
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
        labels = np.array([label[path.split("/")[1 if named else 0]] for path in paths], np.int64)
        found[named.get(top, "")] = Split(paths, labels, _ByName(read, paths))
    return _made(where, title, (classes, found, _ignored(tree, images, members)), asked)


def _sort_them(asked: _Asked) -> str:
    return "sort them into class folders" + (", or give a label file (--labels)" if asked.evaluating else "")


def _labels_file(where: str, loose: Counter[str], asked: _Asked) -> Path | None:
    """The label file if the images lie in a single folder, else None; `loose`: number of images by folder."""
    if len(loose) == 1:
        images = Path(where, *loose) if Path(where).is_dir() else Path(where)
        return asked.labels or (find_labels(images) if asked.evaluating else None)
    _refuse_labels(where, asked, f"images in {len(loose)} folders")
    return None


def _flat(where: str, title: str, tree: Tree, images: list[str], asked: _Asked, file: Path) -> Source:
    """A flat folder of images, named by file; for evaluation only, so that all of them are one split."""
    folder = _parent(images[0])
    names = sorted(PurePosixPath(image).name for image in images)
    classes, labels = read_labels(file, names)
    found = {"val": Split(names, labels, _ByName(tree.reader(folder), names))}
    notes = [f"labels from {file}", *_ignored(tree, images, {folder: names})]
    return _made(where, title, (classes, found, notes), asked)


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


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
