"""The fields of a file in Protocol Buffers' wire format, of which only those that are asked for are read into memory.

For the metadata of a network of gigabytes; https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


def fields_of(file: BinaryIO, size: int, wanted: int, most_bytes: int) -> Iterator[bytes]:
    """The values of one field of bytes, a text or a message, in their order; all others are skipped.

    Args:
        size: bytes of the message, which starts where the file is at.
        wanted: the number of the field.
        most_bytes: the most that its values may have together.

    Raises:
        ValueError: it is not such a message, is truncated, or its values are larger.
    """
    end, left = file.tell() + size, most_bytes
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
            continue
        length = _varint(file) if kind == _BYTES else _FIXED.get(kind)
        if length is None or not number:
            raise ValueError(f"expected a field of Protocol Buffers, got number {number} of kind {kind}")
        if file.tell() + length > end:
            raise ValueError("it is truncated")
        if number != wanted or kind != _BYTES:
            file.seek(length, 1)
            continue
        if (left := left - length) < 0:
            raise ValueError(f"field {wanted} has more than {most_bytes} bytes")
        yield file.read(length)
    if file.tell() != end:
        raise ValueError("it is truncated")


def _varint(file: BinaryIO) -> int:
    """A whole number in 7 bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is truncated")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("a number of more than 10 bytes")
