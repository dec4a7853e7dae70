"""Members of tar files, read in place or from a stream.

Source: POSIX.1-2008 (pax), and GNU tar's manual for its long names and sizes in base 256. The standard library's reader
calls itself for every header that describes the next one, and searches them by patterns whose time is quadratic: a
hostile file of a few megabytes stops it for minutes. Here every header is read once, in linear time.

Limit: opening reads the header of every member once, some 100,000 per second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from inceptionnet.data.names import MAX_NAME, member_path
from inceptionnet.errors import DataError, DecodeError
from inceptionnet.system.opening import IMAGE_BYTES, opened

Place: TypeAlias = tuple[int, int]
"""Offset and size in bytes."""
BLOCK = 512
HEADER_BYTES = 2**20
"""The most bytes in a header that describes the next one: 1 MiB."""
MOST_HEADERS = 16
"""The most of them before a member."""
SKIP_BYTES = 2**20
"""Read at once from a stream, to skip what is not used."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_FILES, _WITHOUT_DATA = (b"0", b"\0", b"7"), (b"1", b"2", b"3", b"4", b"5", b"6")
_GNU_NAME, _GNU_LINK, _GNU_SPARSE, _PAX, _PAX_COMMON = b"L", b"K", b"S", (b"x", b"X"), b"g"
_NUMBER = re.compile(rb"\d{1,19}")


class BrokenTar(ValueError):
    """Not a tar file, or a damaged one; the message says why."""


class NoHeader(BrokenTar):
    """There is no header where the next one should be."""


class Member(NamedTuple):
    """A member of a tar file."""

    name: str
    is_file: bool
    """A regular file that is not sparse."""
    at: int
    """Where its data starts, in bytes."""
    size: int
    """Bytes of data in the file; may be wrong in a damaged one."""


class Readable(Protocol):
    """What can be read one byte after another."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        ...


class TarReader:
    """Members of a tar, one after another; between two of them, `read` gives the data of the first.

    `seekable`: what is skipped need not be read.
    """

    def __init__(self, file: Readable, *, seekable: bool) -> None:
        self._file, self._seekable = file, seekable
        self.at: int = 0
        """Bytes read so far."""
        self.is_whole: bool = False
        """Whether the end of the archive, a block of zeros, was reached."""

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or fewer at the end of the file."""
        parts, left = [], size
        while left and (part := self._file.read(left)):
            parts.append(part)
            left -= len(part)
        self.at += size - left
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _go_to(self, at: int) -> None:
        if self._seekable:
            self._file.seek(at)  # type: ignore[attr-defined]  # what is seekable has it
            self.at = at
        while self.at < at and self.read(min(SKIP_BYTES, at - self.at)):
            pass

    def members(self) -> Iterator[Member]:
        """Every member in order. Raises: BrokenTar."""
        common, own = dict[str, str](), dict[str, str]()
        at = count = 0
        while True:
            self._go_to(at)
            block = self.read(BLOCK)
            if not block.strip(b"\0"):
                self.is_whole = len(block) == BLOCK
                if not at and not self.is_whole:
                    raise NoHeader("empty file")
                return
            _check(block)
            kind, size = block[156:157], _number(block[124:136])
            if kind in (_GNU_NAME, _GNU_LINK, *_PAX, _PAX_COMMON):
                count += 1
                if not 0 <= size <= HEADER_BYTES or count > MOST_HEADERS:
                    got = f"{size} bytes" if count <= MOST_HEADERS else f"more than {MOST_HEADERS}"
                    raise BrokenTar(f"headers before a member: {got}")
                content = self.read(_padded(size))[:size]
                if kind == _GNU_NAME:
                    own["path"] = _text(content.partition(b"\0")[0])
                elif kind != _GNU_LINK:
                    (common if kind == _PAX_COMMON else own).update(_records(content))
                at += BLOCK + _padded(size)
                continue
            told = common | own
            own, count = {}, 0
            if "size" in told:
                size = int(told["size"])
            name = told.get("path") or _name(block)
            if len(name) > MAX_NAME:
                raise BrokenTar(f"a name of {len(name)} characters")
            more = kind == _GNU_SPARSE and block[482]  # blocks that list where the data belongs
            while more:
                block = self.read(BLOCK)
                more = len(block) == BLOCK and block[504]
            start, held = self.at, 0 if kind in _WITHOUT_DATA else size
            is_file = kind in _FILES and "sparse" not in told and not (kind == b"\0" and name.endswith("/"))
            yield Member(name, is_file, start, held)
            at = start + _padded(held)


def is_tar(head: bytes) -> bool:
    """Whether a file that starts with these bytes (512 or more) is a tar."""
    try:
        _check(head[:BLOCK])
    except BrokenTar:
        return False
    return True


def _check(block: bytes) -> None:
    """Raises: NoHeader unless the block is a header, by its checksum."""
    if len(block) < BLOCK:
        raise NoHeader("truncated header")
    if _number(block[148:156]) != sum(block[:148]) + sum(block[156:]) + 256:
        raise NoHeader("invalid header")


def _number(field: bytes) -> int:
    """Octal digits, or base 256 after a byte that says so (with a sign)."""
    if field[0] in (0o200, 0o377):
        value = int.from_bytes(field[1:], "big")
        return value if field[0] == 0o200 else value - 256 ** (len(field) - 1)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise NoHeader("invalid header") from None


def _name(block: bytes) -> str:
    name, prefix = (block[a:b].partition(b"\0")[0] for a, b in ((0, 100), (345, 500)))
    return _text(name if not prefix or block[156:157] == _GNU_SPARSE else prefix + b"/" + name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _records(content: bytes) -> Mapping[str, str]:
    """What is needed of a pax header: path, size, and whether the member is sparse."""
    found: dict[str, str] = {}
    start = 0
    while start < len(content) and content[start]:
        number, space, _ = content[start : start + 20].partition(b" ")
        end = start + int(number) if space and _NUMBER.fullmatch(number) else start
        if not start + len(number) + 3 <= end <= len(content):
            raise BrokenTar("invalid pax header")
        key, _, value = content[start + len(number) + 1 : end - 1].partition(b"=")
        if key == b"path":
            found["path"] = _text(value)
        elif key == b"size" and _NUMBER.fullmatch(value):
            found["size"] = value.decode()
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
        start = end
    return found


def tar_members(path: Path) -> Iterator[tuple[str, Place]]:
    """Name and position of every regular file in a tar.

    Raises:
        DataError: it is compressed, truncated or damaged.
        OSError: it cannot be opened, or is not a regular file.
    """
    with opened(path) as file:
        if file.read(6).startswith(_COMPRESSED):
            raise DataError(f"{path}: expected an uncompressed tar file, got a compressed one: unpack it (gunzip)")
        end = file.seek(0, os.SEEK_END)
        reader = TarReader(file, seekable=True)
        last = 0
        try:
            for member in reader.members():
                # Checked first: a negative size would make the next step go backwards in an endless loop.
                if not 0 <= member.size <= end - member.at:
                    reason = f"{member.name} with {member.size} bytes, of which {end - member.at} are present"
                    raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")
                last = member.at + _padded(member.size)
                if member.is_file:
                    yield member_path(member.name), (member.at, member.size)
        except BrokenTar as error:
            if not (last and isinstance(error, NoHeader)):
                raise DataError(
                    f"{path}: expected a tar file, got a damaged one ({error}): download it again"
                ) from None
        if not reader.is_whole:
            reason = f"one that ends at byte {min(last, end)} of {end}"
            raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")


def read_member(path: Path, place: Place, name: str) -> bytes:
    """The bytes at a place of a tar, called `name` in errors; opens the file each time. Raises: DecodeError.

    Processes would share the offset of a file that stays open.
    """
    offset, size = place
    if size > IMAGE_BYTES:
        raise DecodeError(f"{name}: has {size} bytes, more than the limit of {IMAGE_BYTES}")
    try:
        with opened(path) as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise DecodeError(f"{name}: cannot be read ({error.strerror})") from None
    if len(data) < size:
        raise DecodeError(f"{name}: cannot be read (the shard was truncated since it was opened)")
    return data
