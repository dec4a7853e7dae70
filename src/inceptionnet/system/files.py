"""Atomic writing of files, and names of files as text."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, EBADF, EINVAL, ENOTDIR, ENOTSUP
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART = ".part-"
"""Marks the names of temporary files."""
SAFETENSORS_PART = ".tmp??????"
LOCK = ".lock"
"""In a folder that a process has for itself; it holds its number."""


class Locked(Exception):
    """Another process has the folder; its number is the argument."""


def make_folder_of(path: Path) -> None:
    """Create the folder of a file that is going to be written, and those above it, unless they exist.

    Raises:
        OSError: it cannot be created.
    """
    if path.parent.is_dir():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # says the same of a file in the folder's place
        raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(path.parent)) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder that replaces `path` atomically if the block succeeds, else is removed.

    A folder that is missing is made.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; `path` is then unchanged. Or the disk fails
            to keep the folder's new entry: then it may be the new file or the old one, and either is whole.
    """
    make_folder_of(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{shortened(path.name, 60)}{PART}")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


class FolderLock:
    """A folder that exists, for this process alone until `release`, or until the process ends.

    Processes that this one forks do not have it. Without locks (Windows, some network disks) it does nothing.

    Raises:
        Locked: another process has it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOCK
        while True:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if fcntl is not None:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (EACCES, EAGAIN):
                    holder = os.read(self._descriptor, 20).decode("ascii", "replace")
                    os.close(self._descriptor)
                    raise Locked(holder) from None
            with suppress(OSError):  # else the last holder has removed the file since it was opened
                if os.path.samestat(os.stat(self._file), os.fstat(self._descriptor)):
                    break
            os.close(self._descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Remove the lock, if it is there."""
        with suppress(OSError):
            self._file.unlink()
        os.close(self._descriptor)


def as_text(name: str) -> str:
    r"""A name that can be written as UTF-8: bytes that are none, which Linux allows, become escapes such as \udce9."""
    return name.encode("utf-8", "backslashreplace").decode()


def shortened(name: str, most_bytes: int) -> str:
    """The start of a file name in at most so many bytes, without half a character; the limit of Linux is 255."""
    data = os.fsencode(name)
    while len(data) > most_bytes:
        name = name[:-1]
        data = os.fsencode(name)
    return name


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entry to disk, if the system can (Windows and some network disks cannot). Raises: OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (EINVAL, ENOTSUP, EBADF):
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files left in a folder by a process that was killed within `replacing`.

    Within it the library of .safetensors files has a temporary file of its own.
    """
    for file in (*folder.glob(f".*{PART}*"), *folder.glob(SAFETENSORS_PART)):
        with suppress(OSError):
            file.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
