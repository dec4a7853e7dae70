"""Zip and tar files as trees: their files are listed and read like those of a folder, and nothing is unpacked to disk.

Names of members are brought into one form, whichever encoding and separators their writer used.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inceptionnet.data.containers import Tree, list_folder
from inceptionnet.data.names import MAX_DEPTH, MAX_NAME, is_hidden, member_path, with_those_above
from inceptionnet.data.tar import read_member, tar_members
from inceptionnet.errors import DataError, DecodeError, message_of
from inceptionnet.system.opening import IMAGE_BYTES
from inceptionnet.system.zips import Zip

ARCHIVES = (".zip", ".tar")
# Guards against zip bombs: deflate reaches 1030:1 at most, photographs never come close; small flat drawings may.
MAX_RATIO, RATIO_FROM_BYTES = 500, 2**24
UNICODE_PATH = 0x7075  # the extra field of a zip member with its name in UTF-8
UTF8_FLAG = 0x800
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def is_archive(path: Path) -> bool:
    """Whether `list_tree` reads the file at a path."""
    return path.suffix.lower() in ARCHIVES and path.is_file()


def list_tree(path: Path) -> Tree:
    """The tree of a folder, a .zip or a .tar. Raises: DataError if it cannot be read."""
    if path.is_dir():
        return list_folder(path)
    return list_zip(path) if path.suffix.lower() == ".zip" else list_tar(path)


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


def list_tar(path: Path) -> Tree:
    """The tree of an uncompressed tar file. Raises: DataError if it is compressed or damaged."""
    try:
        places = dict(tar_members(path))
    except OSError as error:
        raise DataError(f"{path}: expected a tar file, got {error.strerror}: check its permissions") from None
    files, folders, hidden = _sorted_out(dict.fromkeys(places, False), path)
    return Tree(files, folders, lambda below: _TarReader(path, below + "/" if below else "", places), hidden)


@dataclass(frozen=True)
class _TarReader:
    """Reads members of a tar file, by path relative to `prefix`."""

    path: Path
    prefix: str
    places: Mapping[str, tuple[int, int]]

    def __call__(self, name: str) -> bytes:
        return read_member(self.path, self.places[self.prefix + name], name)


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
