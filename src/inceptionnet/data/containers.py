"""Folders and zip files behind one interface: a list of relative paths and a function that reads one of them.

Hidden files and macOS's `__MACOSX` are skipped. Zip members are read in place, nothing is unpacked to disk.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inceptionnet.data.decode import MAX_BYTES, read_image
from inceptionnet.data.names import is_image
from inceptionnet.errors import DataError, DecodeError

# Guards against zip bombs: deflate reaches 1030:1 at most, photographs never come close; small flat drawings may.
MAX_RATIO, RATIO_FROM_BYTES = 500, 2**24


@dataclass(frozen=True)
class Tree:
    """A container: posix paths of its files and folders; `reader(below)` reads paths relative to `below`."""

    files: list[str]
    folders: set[str]
    reader: Callable[[str], Callable[[str], bytes]]

    @property
    def images(self) -> list[str]:
        """The files that end like an image, at any depth, sorted."""
        return sorted(filter(is_image, self.files))


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
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "prefix": self.prefix, "_opened": None}

    def __call__(self, name: str) -> bytes:
        try:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), zipfile.ZipFile(self.path)
            archive = self._opened[1]
            info = archive.getinfo(self.prefix + name)
            if info.file_size > max(RATIO_FROM_BYTES, info.compress_size * MAX_RATIO) or info.file_size > MAX_BYTES:
                raise DecodeError(
                    f"{name}: unpacks from {info.compress_size} to {info.file_size} bytes, more than allowed"
                )
            return archive.read(info)
        except (OSError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
            raise DecodeError(f"{name}: cannot be read from {self.path.name} ({error})") from None


def list_folder(root: Path) -> Tree:
    """The tree of a folder, following links. Raises: DataError if a folder in it cannot be read."""
    files: list[str] = []
    folders: set[str] = set()
    try:
        for entry, name, is_folder in _walk(str(root), "", frozenset()):
            if is_folder:
                folders.add(name)
            elif (
                entry.is_file() or entry.is_symlink()
            ):  # a broken link is reported later, as an image that cannot be read
                files.append(name)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: expected a readable folder, got {error.strerror}: check its permissions"
        ) from None
    return Tree(files, folders, lambda below: _FolderReader(root / below))


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[tuple[os.DirEntry[str], str, bool]]:
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in above:  # a link back to a parent folder
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _hidden(entry.name):
                is_folder = entry.is_dir()
                yield entry, prefix + entry.name, is_folder
                if is_folder:
                    inside = above | {(status.st_dev, status.st_ino)}
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", inside)


def list_zip(path: Path) -> Tree:
    """The tree of a zip file. Raises: DataError if it is damaged or encrypted."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path}: expected a zip file, got one that cannot be opened ({error}): create it again"
        ) from None
    members = [member for member in members if not any(map(_hidden, member.filename.strip("/").split("/")))]
    if any(member.flag_bits & 1 for member in members):
        raise DataError(
            f"{path}: expected a zip file without a password, got an encrypted one: unpack it and give the folder"
        )
    files = sorted({member.filename for member in members if not member.is_dir()})
    listed = (member.filename.rstrip("/") + "/x" for member in members if member.is_dir())
    return Tree(
        files, set(_parents([*files, *listed])), lambda below: _ZipReader(path.resolve(), below + "/" if below else "")
    )


def _parents(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            yield path


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
