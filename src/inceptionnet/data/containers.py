"""Folders, zip and tar files behind one interface: a list of relative paths and a function that reads one of them.

Every command finds images in this way. Hidden files are listed apart, linked folders are followed, each real folder
once, and nothing is unpacked to disk. What is no regular file is listed like one, and refused when it is read.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from inceptionnet.data.decode import read_image
from inceptionnet.data.names import MAX_DEPTH, MAX_NAME, is_hidden, is_image, member_path, with_those_above
from inceptionnet.data.tar import read_member, tar_members
from inceptionnet.errors import DataError, DecodeError, listed, message_of
from inceptionnet.system.opening import IMAGE_BYTES
from inceptionnet.system.zips import Zip

# Guards against zip bombs: deflate reaches 1030:1 at most, photographs never come close; small flat drawings may.
MAX_RATIO, RATIO_FROM_BYTES = 500, 2**24
UNICODE_PATH = 0x7075  # the extra field of a zip member with its name in UTF-8
UTF8_FLAG = 0x800
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
ARCHIVES = (".zip", ".tar")


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
            (len(self.files) - len(others) - images_used, f"images {where} ignored"),
            (len(others), f"files that are not images ignored ({', '.join(kinds[:5])})"),
            (len(self.hidden), f"hidden files and folders ignored ({_names(self.hidden)})"),
            (len(self.loops), f"links to a folder above them ignored ({_names(self.loops)})"),
            (len(self.again), f"folders ignored that are in the data by another path ({_names(self.again)})"),
            (len(self.repeated), f"files twice in the archive, of which the last is used ({_names(self.repeated)})"),
            (
                len(self.guessed),
                f"names that are not UTF-8 read as code page 437 ({listed(self.guessed, 3)}): if they are in another "
                "encoding, unpack the archive and give the folder",
            ),
        )
        return [f"{count} {what}" for count, what in counts if count]


def _names(paths: Iterable[str]) -> str:
    return listed({PurePosixPath(path).name for path in paths}, 3)


def list_tree(path: Path) -> Tree:
    """The tree of a folder, a .zip or a .tar. Raises: DataError if it cannot be read."""
    if path.is_dir():
        return list_folder(path)
    return list_zip(path) if path.suffix.lower() == ".zip" else list_tar(path)


def is_archive(path: Path) -> bool:
    """Whether `list_tree` reads the file at a path."""
    return path.suffix.lower() in ARCHIVES and path.is_file()


@dataclass(frozen=True)
class _FolderReader:
    """Reads files under a folder, by relative path."""

    root: Path

    def __call__(self, name: str) -> bytes:
        return read_image(self.root / name, name=name)


class _ZipReader:
    """Reads members of a zip file, by path relative to `prefix`; every process opens the file itself.

    A file handle inherited through fork shares its offset with the parent process.
    """

    def __init__(self, path: Path, prefix: str) -> None:
        self.path, self.prefix = path, prefix
        self._opened: tuple[int, Zip, dict[str, zipfile.ZipInfo]] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "prefix": self.prefix, "_opened": None}

    def __call__(self, name: str) -> bytes:
        try:
            if self._opened is None or self._opened[0] != os.getpid():
                archive = Zip(self.path)
                self._opened = os.getpid(), archive, _by_path(archive.infolist())
            _, archive, members = self._opened
            info = members[self.prefix + name]
            if info.file_size > max(RATIO_FROM_BYTES, info.compress_size * MAX_RATIO) or info.file_size > IMAGE_BYTES:
                raise DecodeError(
                    f"{name}: unpacks from {info.compress_size} to {info.file_size} bytes, more than allowed"
                )
            return archive.read(info)
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, *_DAMAGED) as error:
            raise DecodeError(f"{name}: cannot be read from {self.path.name} ({message_of(error)})") from None


@dataclass(frozen=True)
class _TarReader:
    """Reads members of a tar file, by path relative to `prefix`."""

    path: Path
    prefix: str
    places: Mapping[str, tuple[int, int]]

    def __call__(self, name: str) -> bytes:
        return read_member(self.path, self.places[self.prefix + name], name)


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


def list_zip(path: Path) -> Tree:
    """The tree of a zip file. Raises: DataError if it is damaged or encrypted."""
    try:
        with Zip(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: expected a zip file, got one that cannot be opened ({message_of(error)}): create it again"
        ) from None
    named = _by_path(members)
    files, folders, hidden = _sorted_out({name: _is_folder(member) for name, member in named.items()}, path)
    if any(named[file].flag_bits & 1 for file in files):
        raise DataError(
            f"{path}: expected a zip file without a password, got an encrypted one: unpack it and give the folder"
        )
    guessed = tuple(sorted(file for file in files if _name(named[file])[1]))
    times = Counter(member_path(_name(member)[0]) for member in members) if len(named) < len(members) else {}
    repeated = tuple(file for file in files if times.get(file, 1) > 1)
    return Tree(
        files,
        folders,
        lambda below: _ZipReader(path.resolve(), below + "/" if below else ""),
        hidden,
        guessed=guessed,
        repeated=repeated,
    )


def _by_path(members: Iterable[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    return {path: member for member in members if (path := member_path(_name(member)[0]))}


def _is_folder(member: zipfile.ZipInfo) -> bool:
    return member.filename.endswith(("/", "\\"))


def _name(member: zipfile.ZipInfo) -> tuple[str, bool]:
    """A member's name, and whether its encoding is a guess.

    Many writers store UTF-8 without saying so, which zipfile reads as code page 437.
    """
    extra = member.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == UNICODE_PATH and (name := _utf8(extra[9 : 4 + size])):
            return name, False
        extra = extra[4 + size :]
    if member.flag_bits & UTF8_FLAG:
        return member.filename, False
    name = _utf8(member.orig_filename.encode("cp437").partition(b"\0")[0])
    return name or member.filename, not name


def _utf8(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return ""


def list_tar(path: Path) -> Tree:
    """The tree of an uncompressed tar file. Raises: DataError if it is compressed or damaged."""
    try:
        places = dict(tar_members(path))
    except OSError as error:
        raise DataError(f"{path}: expected a tar file, got {error.strerror}: check its permissions") from None
    files, folders, hidden = _sorted_out(dict.fromkeys(places, False), path)
    return Tree(files, folders, lambda below: _TarReader(path, below + "/" if below else "", places), hidden)


def _sorted_out(members: Mapping[str, bool], archive: Path) -> tuple[list[str], set[str], tuple[str, ...]]:
    """(files, folders, hidden files and folders) of an archive's members; values: whether it is a folder.

    Raises: DataError for a member that is in more folders than any system has.
    """
    files, folders, hidden = [], set[str](), set[str]()
    for path, is_folder in members.items():
        parts = path.split("/")
        if len(path) > MAX_NAME or len(parts) > MAX_DEPTH:
            raise DataError(
                f"{archive}: expected names of at most {MAX_NAME} characters in at most {MAX_DEPTH} folders, got "
                f"{len(path)} in {len(parts)} ({path[:40]}…): create it again"
            )
        first = next((i for i, part in enumerate(parts) if is_hidden(part)), None)
        if first is not None:
            hidden.add("/".join(parts[: first + 1]))
        elif not is_folder:
            files.append(path)
        folder = "/".join(parts if is_folder and first is None else parts[: -1 if first is None else first])
        with_those_above(folder, folders)
    return sorted(files), folders, tuple(sorted(hidden))
