"""What a parquet file says of itself, looked at before a library believes it: its footer, and the headers of pages.

Written from https://github.com/apache/parquet-format (parquet.thrift), whose numbers of fields these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from inceptionnet.system.thrift import I32, I64, TEXT, Reader, Shape, TooShort

FOOTER_BYTES = 2**25
"""The most bytes in a footer: 32 MiB."""
FOOTER_VALUES = 2**21
"""The most values in a footer (some 15,000 columns of row groups), or one for 64 bytes of the file if that is more."""
COLUMNS = 10_000
"""The most columns, also within others."""
DEPTH = 100
"""The most columns in each other."""
PAGES = 100_000
"""The most pages that are read, or one for each kilobyte of the file if that is more."""

_COLUMN: Shape = {2: [I32], 3: [TEXT], 8: [{}], 13: [{}], 16: {2: [I64], 3: [I64]}, 17: {2: [I32]}}
_CHUNK: Shape = {3: _COLUMN, 8: {2: {1: [TEXT]}}}
_FOOTER: Shape = {2: [{}], 4: [{1: [_CHUNK], 4: [{}]}], 5: [{}], 7: [{}]}
_HEADER_BYTES = (2**10, 2**16, 2**24)
"""How many bytes of a page's header are read at first, and then."""
_DICTIONARY_PAGE = 2
_ABOUT = {0: (5, 2), 3: (8, 4)}
"""For the kinds of data pages, the field of their header, and in it that of the encoding."""
_IN_DICTIONARY, _PREFIXED = (2, 8), (7,)
"""Encodings in which a value may take more bytes than a page has for it."""


@dataclass(frozen=True)
class Pages:
    """The pages of a column in a row group."""

    values: int
    unpacked: int
    """Bytes of all pages."""
    in_dictionary: int
    """The most bytes that values in a dictionary can have, each of which may be all of it."""
    prefixed: int
    """The most bytes of values that share bytes with the one before."""
    longest: int
    """The most bytes of one of these values."""


@dataclass(frozen=True)
class Chunk:
    """Where the pages of a column in a row group are."""

    values: int
    start: int
    """In bytes from the begin of the file."""
    end: int


@dataclass(frozen=True)
class RowGroup:
    """A row group, as the footer states it."""

    rows: int
    chunks: tuple[Chunk, ...]
    """One for each column with values."""


def read_footer(file: BufferedReader, size: int) -> list[RowGroup]:
    """The row groups of a file of `size` bytes, whose footer is not too large for a library to open.

    pyarrow is asked for none of this: it ends the process for some footers (seen: a histogram of another size than the
    column's levels), where its reading of the columns raises an error.

    Raises: ValueError, OSError.
    """
    file.seek(0)
    first = file.read(4)
    file.seek(max(size - 8, 0))
    length, last = int.from_bytes(file.read(4), "little"), file.read(4)
    if b"PARE" in (first, last):
        raise ValueError("it is encrypted")
    if (first, last) != (b"PAR1", b"PAR1"):
        raise ValueError("it does not begin and end with PAR1")
    if length > size - 12:
        raise ValueError("it ends within its footer")
    if length > FOOTER_BYTES:
        raise ValueError(f"a footer of {length} bytes, more than the limit of {FOOTER_BYTES}")
    file.seek(size - 8 - length)
    stored: Any = Reader(file.read(length), max(FOOTER_VALUES, size >> 6)).struct(_FOOTER)
    leaves = _leaves(stored.get(2))
    groups = [RowGroup(_number(one, 3), tuple(map(_chunk, one.get(1, [])))) for one in stored.get(4, [])]
    if other := [len(group.chunks) for group in groups if len(group.chunks) != leaves]:
        raise ValueError(f"a row group of {other[0]} columns, where the schema has {leaves}")
    return groups


def _chunk(stored: Any) -> Chunk:
    about = stored.get(3)
    if not isinstance(about, dict):
        raise ValueError("a column without what it says of itself; it may be encrypted")
    start = _number(about, 9)
    if dictionary := _number(about, 11, 0):
        start = min(start, dictionary)
    return Chunk(_number(about, 5), start, start + _number(about, 7))


def _number(stored: Any, field: int, default: int | None = None) -> int:
    value = stored.get(field, default)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"field {field} is no number, or below 0")
    return value


def _leaves(elements: Any) -> int:
    """The number of columns with values of a schema: a tree, depth first, whose elements say how many children they
    have."""
    if not elements or len(elements) > COLUMNS:
        raise ValueError(f"a schema of {len(elements or [])} columns, where 1 to {COLUMNS} can be read")
    left, leaves = list[int](), 0
    for number, element in enumerate(elements):
        while left and left[-1] <= 0:
            left.pop()
        if left:
            left[-1] -= 1
        children = _number(element, 5, 0)
        leaves += number > 0 and not children  # the first one is the schema itself
        if children:
            left.append(children)
        if len(left) > DEPTH:
            raise ValueError(f"more than {DEPTH} columns in each other")
    return leaves


class PageWalk:
    """Looks at the headers of pages in a file of `size` bytes."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self._file = file
        self._left = max(PAGES, size >> 10)

    def pages(self, chunk: Chunk, width: int | None) -> Pages:
        """Sum up what the headers say. Raises: ValueError, OSError.

        Args:
            width: bytes of a value; None if they vary.
        """
        values = unpacked = indices = prefixed = longest = largest = 0
        for kind, size, count, encoding in self._headers(chunk):
            values += count
            unpacked += size
            if kind == _DICTIONARY_PAGE:
                largest = max(largest, size)
            if encoding in _IN_DICTIONARY:
                indices += count
            elif encoding in _PREFIXED:
                prefixed, longest = prefixed + count * size, max(longest, size)
        values = max(values, chunk.values)
        if width is not None:
            return Pages(values, unpacked + values * width, 0, 0, 0)
        return Pages(values, unpacked, indices * largest, prefixed, max(longest, largest))

    def _headers(self, chunk: Chunk) -> Iterator[tuple[int, int, int, int]]:
        """(kind, bytes when unpacked, values, encoding) of each page, as far as a library reads."""
        position, seen = chunk.start, 0
        while seen < chunk.values and position < chunk.end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("more pages than can be read")
            header, length = self._header(position)
            kind, unpacked, packed = (_number(header, field) for field in (1, 2, 3))
            field, of_encoding = _ABOUT.get(kind, (0, 0))
            about = header.get(field, {})
            if not isinstance(about, dict):
                raise ValueError("a page without what every page says")
            count = _number(about, 1, 0)
            yield kind, unpacked, count, _number(about, of_encoding, 0)
            seen += count
            position += length + packed

    def _header(self, position: int) -> tuple[Any, int]:
        for most in _HEADER_BYTES:
            self._file.seek(position)
            reader = Reader(self._file.read(most), PAGES)
            try:
                header: Any = reader.struct({})
            except TooShort:
                continue
            return header, reader.position
        raise ValueError(f"a page at byte {position} without an end")
