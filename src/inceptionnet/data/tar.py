"""Members of uncompressed tar files, read in place.

Limit: opening reads the header of every member once, some 20,000 to 50,000 per second.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from inceptionnet.data.decode import MAX_BYTES
from inceptionnet.data.names import member_path
from inceptionnet.errors import DataError, DecodeError

Place: TypeAlias = tuple[int, int]
"""Offset and size in bytes."""
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard


def tar_members(path: Path) -> Iterator[tuple[str, Place]]:
    """Name and position of every regular file in a tar. Raises: DataError if it is compressed, truncated or damaged."""
    with path.open("rb") as file:
        if file.read(6).startswith(_COMPRESSED):
            raise DataError(f"{path}: expected an uncompressed tar file, got a compressed one: unpack it (gunzip)")
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    # Checked first: a negative size would make the next step go backwards in an endless loop.
                    if not 0 <= member.size <= end - member.offset_data:
                        reason = (
                            f"{member.name} with {member.size} bytes, of which {end - member.offset_data} are present"
                        )
                        raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")
                    if member.isreg() and not member.issparse():
                        yield member_path(member.name), (member.offset_data, member.size)
                last = file.seek(tar.offset)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise DataError(f"{path}: expected a tar file, got a damaged one ({error}): download it again") from None
        # tarfile treats anything unreadable as the end; a real end is a block of zeros.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            reason = f"one that ends at byte {last} of {end}"
            raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")


def read_member(path: Path, place: Place, name: str) -> bytes:
    """The bytes at a place of a tar, called `name` in errors; opens the file each time. Raises: DecodeError.

    Processes would share the offset of a file that stays open.
    """
    offset, size = place
    if size > MAX_BYTES:
        raise DecodeError(f"{name}: has {size} bytes, more than the limit of {MAX_BYTES}")
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise DecodeError(f"{name}: cannot be read ({error.strerror})") from None
    if len(data) < size:
        raise DecodeError(f"{name}: cannot be read (the shard was truncated since it was opened)")
    return data
