"""Opening parquet files that people bring: nothing is unpacked before it is known to fit the memory.

A file of some kilobytes can state millions of rows, have pages that unpack to gigabytes, or hold a value of a megabyte
once for a hundred thousand rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from inceptionnet.errors import DataError
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import opened, unreadable
from inceptionnet.system.parquet_footer import Pages, PageWalk, RowGroup, read_footer

ROWS = 2**20
"""The most rows, or one for each byte of the file if that is more."""
VALUES = 2**24
"""The most values of all columns that are read, or four for each byte; one in a list or a structure is several."""
UNPACKED_BYTES = 2**28
"""The most bytes of the columns that are read, or `UNPACKED_TIMES` the size of the file if that is more: 256 MiB."""
UNPACKED_TIMES = 20
_BATCH_BYTES = 2**26
_BATCHES = 50_000


@dataclass(frozen=True)
class _Doubtful:
    """A column of a row group whose values may take more bytes than its pages."""

    group: int
    column: Any
    pages: Pages


class ParquetTable:
    """An open parquet file.

    Attributes:
        schema: a pyarrow.Schema, in which every column has a name of its own.
    """

    def __init__(self, path: Path, size: int, groups: Sequence[RowGroup]) -> None:
        from pyarrow.parquet import ParquetFile

        self._path, self._size, self._groups = path, size, groups
        self._file = ParquetFile(path)
        try:
            self.schema: Any = self._file.schema_arrow
            stored = self._file.schema
            self._columns: list[Any] = [stored.column(i) for i in range(len(stored))]
            names = Counter(self.schema.names) | Counter(column.path for column in self._columns)
            if twice := [name for name, times in names.items() if times > 1]:
                raise ValueError(f"more than one column {twice[0][:100]}")
            self._refuse(sum(group.rows for group in groups), max(ROWS, size), "rows")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, columns: Sequence[str] | None = None) -> Any:
        """Read columns (default: all) as a pyarrow.Table. Raises: as `open_parquet`, within whose context it is."""
        self._check(columns)
        table = self._file.read(columns=columns)
        table.validate(full=True)  # texts are UTF-8
        return table

    def _check(self, columns: Sequence[str] | None) -> None:
        """What is read fits the memory. Raises: DataError."""
        stored = self._columns
        chosen = [i for i, one in enumerate(stored) if columns is None or any(map(partial(_within, one.path), columns))]
        values = unpacked = 0
        doubtful: list[_Doubtful] = []
        most_values, most = max(VALUES, 4 * self._size), max(UNPACKED_BYTES, UNPACKED_TIMES * self._size)
        with opened(self._path) as file:
            walk = PageWalk(file, self._size)
            for number, group in enumerate(self._groups):
                for i in chosen:
                    pages = walk.pages(group.chunks[i], _width(stored[i]))
                    values += pages.values * (stored[i].path.count(".") + 1)
                    unpacked += pages.unpacked
                    self._refuse(values, most_values, "values")
                    self._refuse(unpacked, most, "bytes when it is unpacked")
                    if pages.in_dictionary or pages.prefixed:
                        doubtful.append(_Doubtful(number, stored[i], pages))
        if unpacked + sum(one.pages.in_dictionary + one.pages.prefixed for one in doubtful) <= most:
            return
        # How much it is cannot be known from the headers.
        for size in chain(self._in_batches(doubtful), self._held_once(doubtful)):
            unpacked += size
            self._refuse(unpacked, most, "bytes when it is unpacked")

    def _held_once(self, doubtful: Sequence[_Doubtful]) -> Iterator[int]:
        """Bytes of the values in dictionaries, which stay there."""
        import pyarrow.compute as pc
        from pyarrow.parquet import ParquetFile

        paths = sorted({one.column.path for one in doubtful if not one.pages.prefixed})
        with ParquetFile(self._path, metadata=self._file.metadata, read_dictionary=paths) as file:
            for one in doubtful:
                if not one.pages.prefixed:
                    for chunk in file.read_row_group(one.group, columns=[one.column.path]).column(0).chunks:
                        values = _values(chunk)
                        yield pc.sum(pc.binary_length(values.dictionary).take(values.indices)).as_py() or 0

    def _in_batches(self, doubtful: Sequence[_Doubtful]) -> Iterator[int]:
        """Bytes of the values that share bytes with others, of which few are held at once."""
        for one in doubtful:
            if one.pages.prefixed:
                rows = max(1, _BATCH_BYTES // one.pages.longest)
                if one.column.max_repetition_level or one.pages.values // rows > _BATCHES:
                    raise ValueError(f"column {one.column.path} may unpack to {one.pages.prefixed} bytes")
                for batch in self._file.iter_batches(rows, [one.group], [one.column.path]):
                    yield batch.nbytes

    def _refuse(self, got: int, most: int, what: str) -> None:
        if got > most:
            raise DataError(
                f"{self._path}: expected a parquet file of at most {most} {what}, got {got}: split it into several"
            )


@contextmanager
def open_parquet(path: Path) -> Iterator[ParquetTable]:
    """Open a parquet file; what pyarrow raises within the context is an error about the file.

    Raises:
        DataError: it cannot be read, or has more than fits the memory.
        MissingExtraError: without pyarrow.
    """
    pa, _ = (import_extra(name, "parquet", f"reading {path}") for name in ("pyarrow", "pyarrow.parquet"))
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            groups = read_footer(file, size)
        table = ParquetTable(path, size, groups)
        try:
            yield table
        finally:
            table.close()
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(
            f"{path}: expected a parquet file, got one that cannot be read ({unreadable(error)}): write or download it "
            "again"
        ) from None


def flat(column: Any) -> Any:
    """A pyarrow.ChunkedArray in a type of its values alone.

    That is without extension types, dictionaries and views, which are ways of storing the same.
    """
    import pyarrow as pa

    while True:
        kind = column.type
        if isinstance(kind, pa.BaseExtensionType):
            column = column.cast(kind.storage_type)
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            column = column.cast(kind.value_type)
        elif kind == pa.string_view():
            column = column.cast(pa.large_string())
        elif kind == pa.binary_view():
            column = column.cast(pa.large_binary())
        else:
            return column


def _values(array: Any) -> Any:
    """The only leaf of lists and structures."""
    import pyarrow as pa

    while not pa.types.is_dictionary(array.type):
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_struct(array.type):
            array = array.field(0)
        elif pa.types.is_map(array.type):
            array = array.keys if pa.types.is_dictionary(array.type.key_type) else array.items
        elif hasattr(array, "values"):
            array = array.values
        else:
            raise ValueError(f"a column of {array.type}, whose bytes cannot be counted")
    return array


def _within(path: str, column: str) -> bool:
    """Whether pyarrow reads a stored column where it is asked for another."""
    return f"{path}.".startswith(f"{column}.")


def _width(column: Any) -> int | None:
    """Bytes of a value of a pyarrow.parquet.ColumnSchema; None if they vary."""
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY":
        return int(column.length)
    return None if column.physical_type == "BYTE_ARRAY" else 12
