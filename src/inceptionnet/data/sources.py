"""Where labelled pictures come from: the built-in digits, a folder, a zip file, parquet files, tar shards, streams.

Every kind ends as encoded picture files that are read one at a time, so decoding is one path (decode.py).
The layouts are the usual ones: CLASS/picture.jpg, or SPLIT/CLASS/picture.jpg with train, val (valid, validation), test.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.names import EXTENSIONS, expand
from inceptionnet.data.parquet import read_parquet
from inceptionnet.data.shards import read_shards
from inceptionnet.data.splits import SPLIT_NAMES, Source, Split, make_source
from inceptionnet.errors import DataError, missing_extra, nearest

__all__ = ["EXTENSIONS", "Source", "Split", "open_source"]

KINDS = "digits, a folder of class folders, a .zip of one, .parquet files, or .tar shards (a folder, a file, a pattern)"
STREAMS = ("hf:", "http://", "https://")


def open_source(data: str | Path, *, seed: int = 0) -> Source:
    """The data set at `data`: `digits`, a folder, a .zip, .parquet files, .tar shards (a folder `digits`: ./digits).

    Shards are a folder of them, one, or a brace pattern (shards/train-{000..009}.tar). `hf:NAME` and the URLs of
    shards are streamed (see streams.py). `seed` decides which pictures are held out where the data set has neither val
    nor test (see splits.hold_out).
    Raises: DataError, one line, for everything that cannot be trained on; MissingExtraError for a missing reader.
    """
    where, path = str(data), Path(data)
    if where == "digits":
        return _digits(seed)
    if where.startswith(STREAMS):
        from inceptionnet.data.streams import open_stream

        return open_stream(where)
    try:
        is_folder = path.stat() and path.is_dir()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if "{" in where:
            return _from_shards([Path(name) for name in expand(where)], where, path.name, seed)
        hint = nearest(where, ["digits"])
        guess = f" ({hint})" if hint.startswith("did you mean") else ""
        raise DataError(f"{where}: expected {KINDS}, got nothing by that name: check the path{guess}") from None
    except OSError as error:
        raise DataError(f"{where}: expected {KINDS}, got {error.strerror}: check its permissions") from None
    title = path.resolve().name
    if is_folder:
        if files := _files(path, "*.parquet"):
            classes, found, ignored = read_parquet(files, where)
            return make_source(where, title, classes, found, seed=seed, ignored=ignored)
        tree = list_folder(path)
        # Beside pictures, a .tar is what they were unpacked from.
        if (shards := _files(path, "*.tar")) and not any(map(_is_picture, tree.files)):
            return _from_shards(shards, where, title, seed)
        return _from_tree(where, title, tree, seed)
    if path.suffix.lower() == ".zip":
        return _from_tree(where, title, list_zip(path), seed)
    if path.suffix.lower() == ".tar":
        return _from_shards([path], where, title, seed)
    raise DataError(f"{where}: expected {KINDS}, got a {path.suffix or 'plain'} file: unpack it or give its folder")


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) or sorted(folder.glob(f"data/{pattern}"))


def _from_shards(shards: list[Path], where: str, title: str, seed: int) -> Source:
    classes, found, ignored = read_shards(shards, where)
    return make_source(where, title, classes, found, seed=seed, ignored=ignored)


def _digits(seed: int) -> Source:
    """scikit-learn's 1797 handwritten digits of 8×8 px, 17 grey values spread over 0–255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing_extra("scikit-learn", "digits", "the digits data set") from None
    bunch = load_digits()
    encoded = []
    for picture in np.rint(bunch.images * (255 / 16)).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        encoded.append(file.getvalue())
    names = [f"{label}/{i:04}.png" for i, label in enumerate(bunch.target)]
    split = Split(names, bunch.target.astype(np.int64), encoded.__getitem__)
    # A mirrored digit is another sign, and a digit fills its picture to the border, so little of it may be cut off.
    suggestions = {"augment.flip": False, "augment.area_min": 0.7, "preprocess.crop": 1.0}
    return make_source("digits", "digits", list("0123456789"), {"": split}, seed=seed, suggestions=suggestions)


@dataclass(frozen=True)
class _ByName:
    """A container's reader by position in a split."""

    read: Callable[[str], bytes]
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        return self.read(self.names[index])


def _from_tree(where: str, title: str, tree: Tree, seed: int) -> Source:
    """The one layout rule for folders and zips; a picture's name is its path below the folder the layout starts in."""
    pictures = list(filter(_is_picture, tree.files))
    if not pictures:
        raise DataError(
            f"{where}: expected pictures ({' '.join(sorted(EXTENSIONS))}), got {len(tree.files)} other files"
        )
    inside: dict[str, set[str]] = defaultdict(set)  # folder → names of the folders in it
    for folder in tree.folders:
        inside[_parent(folder)].add(PurePosixPath(folder).name)
    loose = Counter(map(_parent, pictures))  # folder → pictures directly in it
    root = _start(inside, loose)
    below = f"{root}/" if root else ""
    names = sorted(picture.removeprefix(below) for picture in pictures if picture.startswith(below))
    tops = inside[root]
    if not tops:
        raise DataError(f"{where}: expected one folder per class, got {loose[root]} pictures side by side: sort them")

    # A folder called train that holds pictures itself, beside car and bus, is a class of trains.
    named = {top: SPLIT_NAMES[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_NAMES}
    train = next((top for top, split in named.items() if split == "train"), None)
    if not (len(named) == len(tops) or (train is not None and not loose[below + train])):
        named = {}
    if len(set(named.values())) < len(named):
        raise DataError(
            f"{where}: expected one folder per split, got {', '.join(named)}: join those that mean the same"
        )
    folders = {top: sorted(inside[below + top]) for top in named} if named else {"": sorted(tops)}
    if named and train is not None and not folders[train]:
        raise DataError(f"{where}: expected class folders in {train}, got {loose[below + train]} pictures: sort them")
    classes = folders[train] if named and train is not None else sorted({c for cs in folders.values() for c in cs})

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
            f"{where}: expected pictures in every class folder, got none in {', '.join(empty)}: add or remove"
        )
    for top, cs in folders.items():
        extra = sorted(set(cs) - set(classes))
        if extra:
            raise DataError(
                f"{where}: expected the classes of train, got also {', '.join(extra)} in {top}: add to train"
            )

    label = {c: i for i, c in enumerate(classes)}
    read, found = tree.reader(root), {}
    for top, paths in members.items():
        labels = np.array([label[path.split("/")[1 if named else 0]] for path in paths], np.int64)
        found[named.get(top, "")] = Split(paths, labels, _ByName(read, paths))
    return make_source(where, title, classes, found, seed=seed, ignored=_ignored(tree, pictures, members))


def _start(inside: dict[str, set[str]], loose: Counter[str]) -> str:
    """The folder in which classes or splits lie: down through single folders that hold nothing but folders."""
    root = ""
    while len(inside[root]) == 1 and not loose[root]:
        (only,) = inside[root]
        deeper = f"{root}/{only}".lstrip("/")
        if only.lower() in SPLIT_NAMES or loose[deeper] or not inside[deeper]:
            break
        root = deeper
    return root


def _ignored(tree: Tree, pictures: list[str], members: dict[str, list[str]]) -> list[str]:
    """What was found and is not used, for the note: silence would hide 500 .heic photographs."""
    outside = len(pictures) - sum(map(len, members.values()))
    others = set(tree.files).difference(pictures)
    kinds = ", ".join(sorted({PurePosixPath(file).suffix.lower() or "no extension" for file in others})[:5])
    notes = [f"{outside} pictures outside the class folders ignored"] if outside else []
    return notes + ([f"{len(others)} files that are not pictures ignored ({kinds})"] if others else [])


def _is_picture(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in EXTENSIONS


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
