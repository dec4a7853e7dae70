"""The variables of a TensorFlow checkpoint, for both versions of the format.

Source: TensorFlow's tensor_bundle.proto (V2: a table that points into data files) and saved_tensor_slice.proto (V1: a
table that contains the values). Only names, types and shapes are read until a variable's values are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from inceptionnet.errors import WeightsError
from inceptionnet.system.opening import WEIGHTS_BYTES, check_fit
from inceptionnet.weights.formats.table import BrokenTable, Checksum, fields, mask, varint

# TensorFlow's type numbers; numpy has no bfloat16, so its bits are read as integers.
FLOAT, DOUBLE, BFLOAT16, HALF = 1, 2, 14, 19
TYPES = {FLOAT: "<f4", DOUBLE: "<f8", BFLOAT16: "<i2", HALF: "<f2"}
V1_VALUES = {FLOAT: 5, DOUBLE: 6, HALF: 13}  # fields of TensorProto
MAX_SHARDS = 99_999  # five digits in the names of data files

Content = Mapping[bytes, memoryview]


@dataclass(frozen=True)
class Variable:
    """One variable of a checkpoint; `values()` returns its bytes."""

    kind: int
    shape: tuple[int, ...]
    values: Callable[[], memoryview]


def mapped(path: Path) -> memoryview:
    """A file's bytes, memory-mapped copy-on-write. Raises: OSError."""
    check_fit(path, WEIGHTS_BYTES)
    if not path.stat().st_size:
        return memoryview(b"")
    return np.memmap(path, np.uint8, mode="c").data


def is_v1(content: Content) -> bool:
    """Whether the table is of a V1 checkpoint: its first entry starts with a message, that of V2 with an integer."""
    return bytes(content.get(b"", b"")[:1]) == b"\x0a"


def of_bundle(path: Path, table: Path, content: Content, checksum: Checksum) -> dict[str, Variable]:
    """The variables of a V2 checkpoint.

    Raises:
        WeightsError: an unsupported kind of checkpoint or, from `values`, a missing data file.
        BrokenTable: damaged entries or, from `values`, damaged values.
    """
    header = dict(fields(content.get(b"", memoryview(b""))))
    count = header.get(1, 0)
    if not isinstance(count, int) or not 0 < count <= MAX_SHARDS:
        raise BrokenTable("no header with the number of data files")
    if header.get(2, 0):
        raise WeightsError(f"{path}: expected little-endian values, got big-endian; save it on a little-endian machine")
    if any(key.endswith(b".ATTRIBUTES/VARIABLE_VALUE") for key in content):
        raise WeightsError(
            f"{path}: expected a checkpoint with layer names, got one of Keras objects; save it in Keras as .keras or "
            ".h5"
        )
    shards = _Shards(path, table, count)
    # Keys that start with a zero byte are slices of partitioned variables, reported by their own entry.
    names = {key: key.decode() for key in content if key[:1] not in (b"", b"\0")}
    return {name: _entry(path, name, content[key], shards, checksum) for key, name in names.items()}


class _Shards:
    """The data files of a V2 checkpoint, each mapped on first access."""

    def __init__(self, path: Path, table: Path, count: int) -> None:
        self._path, self._table, self._count = path, table, count
        self._maps: dict[int, memoryview] = {}

    def __getitem__(self, number: int) -> memoryview:
        if number not in self._maps:
            prefix = self._table.name.removesuffix(".index")
            file = self._table.with_name(f"{prefix}.data-{number:05}-of-{self._count:05}")
            if not file.is_file():
                raise WeightsError(f"{self._path}: expected {file.name} next to the index, got none; get all files")
            self._maps[number] = mapped(file)
        return self._maps[number]


def _entry(path: Path, name: str, message: memoryview, shards: _Shards, checksum: Checksum) -> Variable:
    found = dict(fields(message))
    if 7 in found:
        raise _partitioned(path, name)
    kind, number, offset, size = (_number(found.get(field, 0)) for field in (1, 3, 4, 5))

    def values() -> memoryview:
        data = shards[number][offset : offset + size]
        if len(data) != size:
            raise BrokenTable(f"{name} exceeds its data file")
        if mask(checksum(data)) != int.from_bytes(_message(found.get(6)), "little"):
            raise BrokenTable(f"the checksum of {name} does not match")
        return data

    return Variable(kind, _shape(_message(found.get(2))), values)


def of_slices(path: Path, content: Content) -> dict[str, Variable]:
    """The variables of a V1 checkpoint, or of one of its files.

    Raises:
        WeightsError: a partitioned variable.
        BrokenTable: damaged entries, or entries that differ from the header.
    """
    listed = [_message(value) for field, value in fields(_inner(content[b""], 1)) if field == 1]
    held = dict(_value(_inner(value, 2)) for key, value in content.items() if key)
    variables = {}
    for about in listed:
        found = dict(fields(about))
        name = bytes(_message(found.get(1))).decode()
        slices = [_message(value) for field, value in fields(about) if field == 4]
        if len(slices) != 1 or any(
            extent for _, extent in fields(slices[0])
        ):  # the extent of a whole dimension is empty
            raise _partitioned(path, name)
        if name not in held:
            raise BrokenTable(f"{name} is listed but missing")
        kind = _number(found.get(3, 0))
        variables[name] = Variable(kind, _shape(_message(found.get(2))), partial(_v1_values, held[name], kind))
    if len(variables) != len(held):
        raise BrokenTable(f"{len(held)} variables, {len(variables)} of them listed")
    return variables


def _inner(message: memoryview, field: int) -> memoryview:
    return _message(dict(fields(message)).get(field))


def _value(message: memoryview) -> tuple[str, memoryview]:
    """The name and the TensorProto of a SavedSlice."""
    found = dict(fields(message))
    return bytes(_message(found.get(1))).decode(), _message(found.get(3))


def _v1_values(proto: memoryview, kind: int) -> memoryview:
    """The values of a TensorProto, not copied except for half floats, which are stored as variable-length integers."""
    values = _message(dict(fields(proto)).get(V1_VALUES.get(kind, 0)))
    if kind != HALF:
        return values
    halves, at = [], 0
    while at < len(values):
        bits, at = varint(values, at)
        halves.append(bits)
    return np.array(halves, "<u2").data.cast("B")


def _shape(message: memoryview) -> tuple[int, ...]:
    """The sizes of a TensorShapeProto."""
    dims = [_message(value) for field, value in fields(message) if field == 2]
    return tuple(_number(dict(fields(dim)).get(1, 0)) for dim in dims)


def _message(value: int | memoryview | None) -> memoryview:
    """A field's bytes; protocol buffers omit empty fields."""
    if isinstance(value, int):
        raise BrokenTable("a number where a message is expected")
    return memoryview(b"") if value is None else value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise BrokenTable("a message where a number is expected")
    return value


def _partitioned(path: Path, name: str) -> WeightsError:
    return WeightsError(f"{path}: expected whole variables, got the partitioned variable {name}; save it unpartitioned")
