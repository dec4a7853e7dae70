"""Images whose labels nobody needs: those of any folder, zip file or data set, and single files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.decode import read_image
from inceptionnet.data.names import EXTENSIONS
from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError

SPLIT = "all"
"""The one split of images without labels."""


def open_images(paths: Sequence[str], *, seed: int = 0) -> Source:
    """A data set as `open_source` opens it, else the images at `paths` without labels; the note says which, and why.

    Without labels are several paths, image files, and a folder or zip file that is no data set or would leave out
    most of its images. Such a source has no classes, its labels are -1, and its one split is "all".
    Raises: DataError where there is neither a data set nor an image, and for a stream.
    """
    if len(paths) > 1 or _is_image(Path(paths[0])):
        return _unlabelled(", ".join(paths), *_several(paths), "image files")
    names, read = _inside(paths[0])
    try:
        source = _at_hand(open_source(paths[0], seed=seed, evaluating=True))
        held = sum(map(len, source.splits.values()))
        if held >= len(names) - held:
            return source
        why = f"only {held} of them lie in class folders"
    except DataError as error:
        if not names:
            raise
        why = str(error)
    return _unlabelled(paths[0], names, read, why)


def every_image(where: str) -> Split:
    """All images of a folder or zip file, at any depth and whatever else is in it, or of all splits of a data set.

    Raises: DataError where there is none, and for a stream.
    """
    names, read = _inside(where)
    if names:
        return _split(names, read)
    _, split = _at_hand(open_source(where, evaluating=True)).pick(SPLIT)
    assert isinstance(split, Split)
    return split


def _at_hand(source: Source) -> Source:
    if not all(isinstance(split, Split) for split in source.splits.values()):
        raise DataError(f"{source.title}: expected images on this machine, got a stream: fetch it, give its folder")
    return source


def _inside(where: str) -> tuple[list[str], Callable[[str], bytes]]:
    """The images of a folder or zip file, and what reads one; a folder called digits is ./digits."""
    path = Path(where)
    if where != "digits" and path.is_dir():
        tree = list_folder(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        tree = list_zip(path)
    else:
        tree = Tree([], set(), lambda below: read_image)
    return _images(tree), tree.reader("")


def _images(tree: Tree) -> list[str]:
    return sorted(file for file in tree.files if PurePosixPath(file).suffix.lower() in EXTENSIONS)


def _several(paths: Sequence[str]) -> tuple[list[str], Callable[[str], bytes]]:
    """The files named and the images below the folders named, in the order of `paths`, and what reads one."""
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
        elif inside := _images(list_folder(Path(path))):
            found += [str(Path(path) / name) for name in inside]
        else:
            raise DataError(f"{path}: expected an image or a folder with images, got a folder without any")
    return found, read_image


def _unlabelled(where: str, names: Sequence[str], read: Callable[[str], bytes], why: str) -> Source:
    note = f"{len(names)} images without labels ({why})"
    return Source(Path(where).name, (), {SPLIT: _split(names, read)}, note)


def _split(names: Sequence[str], read: Callable[[str], bytes]) -> Split:
    return Split(names, np.full(len(names), -1, np.int64), partial(_by_position, read, names))


def _by_position(read: Callable[[str], bytes], names: Sequence[str], position: int) -> bytes:
    return read(names[position])


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()
