"""Opening zip files that people bring: regular files, of whose parts none is read that does not fit the memory."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

from inceptionnet.system.opening import PART_BYTES, opened


class _Limited(io.BufferedReader):
    """A file of which at most `PART_BYTES` are read at once, whatever sizes it states of its own parts."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file. Raises: BadZipFile for more than that."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > PART_BYTES:
            raise zipfile.BadZipFile(f"a part of {size} bytes, more than the limit of {PART_BYTES}")
        return super().read(size)


class Zip(zipfile.ZipFile):
    """A zip file to read, which closes it too.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
        BadZipFile: it is damaged, or a part of it is too large.
    """

    def __init__(self, path: Path, most_bytes: int | None = None) -> None:
        self._source = _Limited(opened(path, most_bytes).detach())
        try:
            super().__init__(self._source)
        except BaseException:
            self._source.close()
            raise

    def close(self) -> None:
        """Close the file."""
        super().close()
        if source := self.__dict__.get("_source"):  # none if it could not be opened
            source.close()
