"""Images without labels: from any folder, zip file or data set, or single files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from inceptionnet.data.containers import Tree, list_folder, list_zip
from inceptionnet.data.decode import read_image
from inceptionnet.data.names import is_image
from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, listed

SPLIT = "all"
"""The single split of unlabelled images."""


def open_images(paths: Sequence[str], *, seed: int = 0) -> Source:
    """Open `paths` as a data set (see `open_source`) or as unlabelled images; the note says which, and why.

    Several paths, image files, and a folder or zip file that is not a data set or whose classes cover less than half
    of its images are opened without labels: no classes, labels of -1, and a single split "all".
    Raises: DataError if there is neither a data set nor an image, and for a stream.
    """
    if len(paths) > 1 or (is_image(paths[0]) and Path(paths[0]).is_file()):
        return _unlabelled(listed(paths, ordered=True), *_several(paths), "image files")
    names, read = _inside(paths[0])
    try:
        source = _at_hand(open_source(paths[0], seed=seed, evaluating=True))
        held = sum(map(len, source.splits.values()))
        if held >= len(names) - held:
            return source
        why = f"only {held} of them are in class folders"
    except DataError as error:
        if not names:
            raise
        why = str(error)
    return _unlabelled(paths[0], names, read, why)


def every_image(where: str) -> Split:
    """All images of a folder or zip file, at any depth, or of all splits of a data set.

    Raises: DataError if there are none, and for a stream.
    """
    names, read = _inside(where)
    if names:
        return _split(names, read)
    _, split = _at_hand(open_source(where, evaluating=True)).pick(SPLIT)
    assert isinstance(split, Split)
    return split


def _at_hand(source: Source) -> Source:
    if not all(isinstance(split, Split) for split in source.splits.values()):
        raise DataError(f"{source.title}: expected local images, got a stream: download it and give the folder")
    return source


def _inside(where: str) -> tuple[list[str], Callable[[str], bytes]]:
    """The images of a folder or zip file, and a function that reads one; a folder called digits is ./digits."""
    path = Path(where)
    if where != "digits" and path.is_dir():
        tree = list_folder(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        tree = list_zip(path)
    else:
        tree = Tree([], set(), lambda below: read_image)
    return tree.images, tree.reader("")


def _several(paths: Sequence[str]) -> tuple[list[str], Callable[[str], bytes]]:
    """The given files and the images in the given folders, in the order of `paths`, and a function that reads one."""
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
        elif inside := list_folder(Path(path)).images:
            found += [str(Path(path) / name) for name in inside]
        else:
            raise DataError(f"{path}: expected an image or a folder of images, got a folder without any: give another")
    return found, read_image


def _unlabelled(where: str, names: Sequence[str], read: Callable[[str], bytes], why: str) -> Source:
    note = f"{len(names)} images without labels ({why})"
    return Source(Path(where).name, (), {SPLIT: _split(names, read)}, note)


def _split(names: Sequence[str], read: Callable[[str], bytes]) -> Split:
    return Split(names, np.full(len(names), -1, np.int64), partial(_by_position, read, names))


def _by_position(read: Callable[[str], bytes], names: Sequence[str], position: int) -> bytes:
    return read(names[position])
