"""Folders and archives behind one interface: a list of relative paths and a function that reads one of them.

Every command finds images in this way; the trees of archives are in archives.py. Hidden files are listed apart, linked
folders are followed, each real folder once. What is no regular file is listed like one, and refused when it is read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from inceptionnet.data.decode import read_image
from inceptionnet.data.names import is_hidden, is_image
from inceptionnet.errors import DataError, listed, number_of


@dataclass(frozen=True)
class Tree:
    """A container: posix paths of its files and folders; `reader(below)` reads paths relative to `below`.

    `hidden`, `loops` and `again` are paths that were not entered: hidden files and folders, links to a folder above
    them, and folders that were entered by another path.
    `guessed` are paths in an archive whose names are not UTF-8 and do not say what they are, `repeated` those that it
    has several times, of which the last counts.
    """

    files: list[str]
    folders: set[str]
    reader: Callable[[str], Callable[[str], bytes]]
    hidden: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()

    @cached_property
    def images(self) -> list[str]:
        """The files that end like an image, at any depth, sorted."""
        return sorted(filter(is_image, self.files))

    def ignored(self, images_used: int, where: str = "outside the class folders") -> list[str]:
        """Notes on everything in it that is not used, such as hidden files and videos.

        Args:
            images_used: number of images that are used; the others are `where`.
        """
        others = [file for file in self.files if not is_image(file)]
        kinds = sorted({PurePosixPath(file).suffix.lower() or "no extension" for file in others})
        counts = (
            (len(self.files) - len(others) - images_used, "image", f" {where} ignored"),
            (len(others), "non-image file", f" ignored ({', '.join(kinds[:5])})"),
            (len(self.hidden), "hidden entry", f" ignored ({_names(self.hidden)})"),
            (len(self.loops), "link", f" to a folder above ignored ({_names(self.loops)})"),
            (len(self.again), "folder", f" in the data by another path ignored ({_names(self.again)})"),
            (len(self.repeated), "file", f" twice in the archive, of which the last is used ({_names(self.repeated)})"),
            (
                len(self.guessed),
                "name",
                f" not in UTF-8 read as code page 437 ({listed(self.guessed, 3)}): if they are in another "
                "encoding, unpack the archive and give the folder",
            ),
        )
        return [f"{number_of(what, count)}{how}" for count, what, how in counts if count]


def _names(paths: Iterable[str]) -> str:
    return listed({PurePosixPath(path).name for path in paths}, 3)


@dataclass(frozen=True)
class _FolderReader:
    """Reads files under a folder, by relative path."""

    root: Path

    def __call__(self, name: str) -> bytes:
        return read_image(self.root / name, name=name)


def list_folder(root: Path) -> Tree:
    """The tree of a folder, following links. Raises: DataError if a folder in it cannot be read."""
    found = _Walk()
    try:
        found.enter(str(root))
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: expected a readable folder, got {error.strerror}: check its permissions"
        ) from None
    return Tree(
        found.files,
        found.folders,
        lambda below: _FolderReader(root / below),
        tuple(sorted(found.hidden)),
        tuple(sorted(found.loops)),
        tuple(sorted(found.again)),
    )


class _Walk:
    """What is in a folder, at any depth: first by its own folders, then by links, each real folder once."""

    def __init__(self) -> None:
        self.files, self.hidden, self.loops, self.again = list[str](), list[str](), list[str](), list[str]()
        self.folders = set[str]()

    def enter(self, root: str) -> None:
        """Add the contents of a folder. Raises: OSError."""
        folders: list[tuple[str, str, _Above]] = [(root, "", ())]
        links: deque[tuple[str, str, _Above]] = deque()
        entered = set[tuple[int, int]]()
        while folders or links:
            folder, prefix, above = folders.pop() if folders else links.popleft()
            status = os.stat(folder)
            here = status.st_dev, status.st_ino
            if here in entered:
                (self.loops if _is_in(here, above) else self.again).append(prefix.rstrip("/"))
                continue
            entered.add(here)
            if prefix:
                self.folders.add(prefix.rstrip("/"))
            inside: list[tuple[str, str, _Above]] = []
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    name = prefix + entry.name
                    if is_hidden(entry.name):
                        self.hidden.append(name)
                    elif _leads_to_folder(entry):
                        waiting = links if entry.is_symlink() else inside
                        waiting.append((entry.path, f"{name}/", (here, above)))
                    else:  # pipes, devices and broken links too, which cannot be read, and that is said then
                        self.files.append(name)
            folders += reversed(inside)


_Above: TypeAlias = tuple[()] | tuple[tuple[int, int], "_Above"]
"""The folders that a path leads through, the nearest first."""


def _is_in(folder: tuple[int, int], above: _Above) -> bool:
    while above:
        nearest, above = above
        if nearest == folder:
            return True
    return False


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
