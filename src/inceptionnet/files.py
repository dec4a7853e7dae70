"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part-"
"""In the names of temporary files."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, which becomes `path` in one step if the block ends well, else vanishes.

    A folder that is missing is made.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{PART}")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        _settle(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _settle(folder: Path) -> None:
    """Bring the new name to the disk too, where the system can (Windows cannot)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a process killed within `replacing` left in a folder."""
    for file in folder.glob(f".*{PART}*"):
        with suppress(OSError):
            file.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
