"""Parquet files made by hand, which no library would write: values of Thrift's compact protocol, and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@dataclass(frozen=True)
class Many:
    """A list of `count` equal structures or texts, perhaps of another kind than it states, or with others first."""

    one: bytes
    count: int
    kind: int = 12
    first: bytes = b""

    def encoded(self) -> bytes:
        return bytes([0xF0 | self.kind]) + varint(self.count) + self.first + self.one * self.count


def thrift(value: Any) -> bytes:
    """Numbers as i32, numbers in a tuple as i64."""
    if isinstance(value, int | tuple):
        number = value if isinstance(value, int) else value[0]
        return varint(number << 1 if number >= 0 else -number * 2 - 1)
    if isinstance(value, bytes):
        return varint(len(value)) + value
    if isinstance(value, Many):
        return value.encoded()
    if isinstance(value, list):
        return bytes([0xF0 | (_kind(value[0]) if value else 12)]) + varint(len(value)) + b"".join(map(thrift, value))
    out, last = b"", 0
    for field, one in sorted(value.items()):
        step = field - last
        out += (bytes([step << 4 | _kind(one)]) if step < 16 else bytes([_kind(one)]) + varint(2 * field)) + thrift(one)
        last = field
    return out + b"\0"


def _kind(value: Any) -> int:
    kinds = {int: 5, tuple: 6, bytes: 8, list: 9, Many: 9}
    return kinds.get(type(value), 12)


LEAF: Mapping[int, Any] = {1: 6, 3: 0, 4: b"image"}
"""A column of bytes that no row lacks."""


def page(kind: int, unpacked: int, data: bytes, values: int, encoding: int = 0) -> bytes:
    about = {2: {7: {1: values, 2: 0}}, 0: {5: {1: values, 2: encoding, 3: 3, 4: 3}}}[kind]
    return thrift({1: kind, 2: unpacked, 3: len(data), **about}) + data


def write_raw(path: Path, footer: Mapping[int, Any], body: bytes = b"") -> Path:
    end = thrift(footer)
    path.write_bytes(b"PAR1" + body + end + len(end).to_bytes(4, "little") + b"PAR1")
    return path


def write_pages(
    path: Path,
    pages: list[bytes],
    rows: int,
    codec: int = 0,
    leaf: Mapping[int, Any] = LEAF,
    more: Mapping[int, Any] | None = None,
) -> Path:
    """A file of one column in one row group; what the footer says of its size is a lie.

    Args:
        more: other fields of what the column says of itself.
    """
    size = sum(map(len, pages))
    about = {1: leaf[1], 2: [0], 3: [b"image"], 4: codec, 5: (rows,), 6: (1,), 7: (size,), 9: (4,)} | dict(more or {})
    group = {1: [{2: (4,), 3: about}], 2: (1,), 3: (rows,)}
    root = {4: b"schema", 5: 1}
    return write_raw(path, {1: 2, 2: [root, leaf], 3: (rows,), 4: [group]}, b"".join(pages))


def zeros(size: int) -> bytes:
    """So many zero bytes, by zstd."""
    part = pa.compress(bytes(2**20), "zstd", asbytes=True)
    return bytes(part) * (size >> 20)
