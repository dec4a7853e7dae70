"""Images without labels: from any folder, archive or data set, or single files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inceptionnet.data.archives import is_archive, list_tree
from inceptionnet.data.containers import Tree
from inceptionnet.data.decode import read_image
from inceptionnet.data.inputs import STDIN, NamedImage, find_images
from inceptionnet.data.names import is_image
from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, listed, number_of

T = TypeVar("T")
SPLIT = "all"
"""The single split of unlabelled images."""


def open_images(
    paths: Sequence[str], *, seed: int = 0, group_by: str | None = None, allow_urls: bool | None = None
) -> Source:
    """Open `paths` as a data set (see `open_source`) or as unlabelled images; the note says which, and why.

    Several paths, whatever else `find_images` takes than a folder or archive, and a folder or archive that is not a
    data set or whose classes cover less than half of its images are opened without labels: no classes, labels of -1,
    and a single split "all".
    Raises: DataError if there is neither a data set nor an image, and for a stream.
    """
    if len(paths) > 1 or _is_for_images(paths[0]):
        found = find_images(paths, allow_urls=allow_urls)
        read = partial(_by_position, _read_named, found)
        split = Split([image.name for image in found], _no_labels(len(found)), read)
        return _unlabelled(listed(paths, ordered=True), split, "image files", found.notes)
    tree = _inside(paths[0])
    names = tree.images
    try:
        source = _at_hand(open_source(paths[0], seed=seed, evaluating=True, group_by=group_by))
        held = sum(map(len, source.splits.values()))
        if held >= len(names) - held:
            return source
        why = f"only {held} of them {'is' if held == 1 else 'are'} in class folders"
    except DataError as error:
        if not names:
            raise
        why = error.reason.removeprefix(f"{paths[0]}: ")
    return _unlabelled(paths[0], _split(tree), why, tree.ignored(len(names)))


def _is_for_images(place: str) -> bool:
    """Whether images alone can be meant: an image, a .parquet file, a pattern, standard input or an address of one."""
    path = Path(place)
    if path.is_file():
        return is_image(place) or path.suffix.lower() == ".parquet"
    named = place == STDIN or (place.startswith(("http://", "https://")) and is_image(place.partition("?")[0]))
    return named or (glob.has_magic(place) and not path.exists() and not {"{", ":"} & set(place))


def every_image(where: str) -> tuple[Source, list[str]]:
    """All images of a folder or archive, at any depth, or a data set or stream; and notes on what is ignored.

    Raises: DataError if there are none.
    """
    tree = _inside(where)
    if names := tree.images:
        return Source(Path(where).name, (), {SPLIT: _split(tree)}, ""), tree.ignored(len(names))
    source = open_source(where, evaluating=True)
    return source, source.note.split("; ")[1:]  # the first is on the splits


def _at_hand(source: Source) -> Source:
    if not all(isinstance(split, Split) for split in source.splits.values()):
        raise DataError(f"{source.title}: expected local images, got a stream: download it and give the folder")
    return source


def _inside(where: str) -> Tree:
    """The files of a folder or archive, else none; a folder called digits is ./digits."""
    path = Path(where)
    if (where != "digits" and path.is_dir()) or is_archive(path):
        return list_tree(path)
    return Tree([], set(), lambda below: read_image)


def _unlabelled(where: str, split: Split, why: str, notes: Sequence[str]) -> Source:
    note = "; ".join([f"{number_of('image', len(split))} without labels ({why})", *notes])
    return Source(Path(where).name, (), {SPLIT: split}, note)


def _split(tree: Tree) -> Split:
    return Split(tree.images, _no_labels(len(tree.images)), partial(_by_position, tree.reader(""), tree.images))


def _no_labels(count: int) -> npt.NDArray[np.int64]:
    return np.full(count, -1, np.int64)


def _by_position(read: Callable[[T], bytes], images: Sequence[T], position: int) -> bytes:
    return read(images[position])


def _read_named(image: NamedImage) -> bytes:
    return image.read()
