"""Opening files that people bring: each is a regular file of a sane size, which is decided before it is read.

A named pipe would be waited for, a device such as /dev/zero has no end, a sparse file of terabytes does not fit the
memory, and a file in /proc may never end. What is wrong is an OSError like that of a missing file, so that whoever
opens a file says all of them in its own words.
"""

from __future__ import annotations

import json
import os
import stat
from errno import EFBIG, EINVAL, EISDIR
from io import BufferedReader
from pathlib import Path
from typing import Any

IMAGE_BYTES = 2**28
"""The most bytes in an image file, or a member of an archive: 256 MiB."""
TEXT_BYTES = 2**28
"""The most bytes in a list that people write: labels, class names, names of images."""
SETTINGS_BYTES = 2**26
"""The most bytes in a JSON or TOML file of a few settings or figures: 64 MiB."""
WEIGHTS_BYTES = 2**35
"""The most bytes in a file of weights or arrays, or an exported network: 32 GiB."""
PART_BYTES = 2**28
"""The most bytes of a zip file that are read at once, such as its list of members: 256 MiB, some 2 million members."""

_OTHERS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnfitFile(OSError):
    """Something else than a regular file of a sane size; `strerror` says what came."""


def opened(path: str | Path, most_bytes: int | None = None) -> BufferedReader:
    """Open a regular file for reading, without waiting for anything.

    Args:
        most_bytes: the largest size; default: any, for files of which only parts are read.

    Raises:
        OSError: it cannot be opened; `UnfitFile` if it is not a regular file, or too large.
    """
    check_fit(path, most_bytes)  # before opening, which has effects on some devices
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        _check(os.fstat(descriptor), path, most_bytes)  # it may have been replaced
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def contents(path: str | Path, most_bytes: int) -> bytes:
    """The bytes of a regular file of at most so many. Raises: OSError, as `opened`, or for a file without end."""
    with opened(path, most_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
    if len(data) > size:
        raise UnfitFile(EINVAL, "a file with more bytes than its size, as in /proc", str(path))
    return data


def text_of(path: str | Path, most_bytes: int = SETTINGS_BYTES) -> str:
    """The text of a regular file in UTF-8. Raises: OSError, as `contents`; UnicodeDecodeError."""
    return contents(path, most_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def from_json(text: str | bytes) -> Any:
    """The value of a text in JSON. Raises: ValueError, also for lists in lists that are too deep to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("lists in lists too deep to read") from None


def check_fit(path: str | Path, most_bytes: int | None = None) -> None:
    """Check a file that a library will open by its name. Raises: OSError, as `opened`."""
    try:
        status = os.stat(path)
    except ValueError:
        raise UnfitFile(EINVAL, "a name that no file can have", str(path)) from None
    _check(status, path, most_bytes)


def unreadable(error: Exception) -> str:
    """Why a library cannot read a file: its first line, or what came instead of a fit file."""
    return str(error.strerror) if isinstance(error, UnfitFile) else str(error).partition("\n")[0]


def _check(status: os.stat_result, path: str | Path, most_bytes: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnfitFile(EISDIR, os.strerror(EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        what = next((name for is_one, name in _OTHERS if is_one(status.st_mode)), "something else")
        raise UnfitFile(EINVAL, f"{what}, not a regular file", str(path))
    if most_bytes is not None and status.st_size > most_bytes:
        raise UnfitFile(EFBIG, f"{status.st_size} bytes, more than the limit of {most_bytes}", str(path))
