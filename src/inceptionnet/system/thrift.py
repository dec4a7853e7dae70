"""Reading values of Thrift's compact protocol, as parquet files have in their footers and before their pages.

Nothing is made that the bytes do not hold, and only as many values as the reader may: a few bytes can state a list of
millions, and a structure of 3 bytes takes 700 where a library builds it.
"""

from __future__ import annotations

from typing import TypeAlias

Value: TypeAlias = "int | bytes | list[Value] | Struct"
"""A number (a bool is 0 or 1), bytes, a list or set, or a structure; of a double or a map there is only a 0."""
Struct: TypeAlias = dict[int, Value]
"""The fields of a structure by their numbers."""
Shape: TypeAlias = "dict[int, Shape | list[Shape | int]]"
"""Of the fields with lists: a structure's shape, or in a list the kind of a list's elements (a structure's: its shape).

Libraries read a list as what they expect, whatever kind of elements it states: other lists are refused.
"""
I32, I64, TEXT = 5, 6, 8

MOST_DEPTH = 32
STRUCT_COST = 8
"""What a structure takes of the values that may be read."""

_TRUE, _FALSE, _BYTE, _DOUBLE, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 9, 10, 11, 12
_INTEGERS = (4, I32, I64)


class TooShort(ValueError):
    """The bytes end within a value."""


class Reader:
    """Reads values from bytes, at most `budget` of them. Raises: ValueError; TooShort where the bytes end."""

    def __init__(self, data: bytes, budget: int) -> None:
        self.position: int = 0
        self.budget: int = budget
        self._data = data

    def struct(self, shape: Shape, depth: int = 0) -> Struct:
        """The structure at the position, of a shape where it has lists."""
        self._spend(STRUCT_COST, depth)
        found: Struct = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if field in found:
                raise ValueError(f"field {field} twice in a structure")
            of = shape.get(field, {})
            if kind in (_TRUE, _FALSE) and not isinstance(of, list):
                found[field] = int(kind == _TRUE)
            else:
                found[field] = self._value(kind, of, depth + 1)
        return found

    def _value(self, kind: int, shape: Shape | list[Shape | int], depth: int) -> Value:
        self._spend(1, depth)
        if isinstance(shape, list) and kind != _LIST:
            raise ValueError(f"a value of kind {kind} instead of a list")
        if kind in _INTEGERS:
            return self._integer()
        if kind == TEXT:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(shape if isinstance(shape, dict) else {}, depth)
        if kind in (_LIST, _SET):
            return self._list(shape, depth)
        if kind == _MAP:
            if size := self._varint():
                kinds = self._byte()
                for _ in range(size):
                    self._value(kinds >> 4, {}, depth + 1)
                    self._value(kinds & 15, {}, depth + 1)
            return 0
        if kind == _DOUBLE:
            self._bytes(8)
            return 0
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        raise ValueError(f"a value of the unknown kind {kind}")

    def _list(self, shape: Shape | list[Shape | int], depth: int) -> list[Value]:
        head = self._byte()
        size, kind = head >> 4 if head >> 4 < 15 else self._varint(), head & 15
        if size > self.budget:
            raise ValueError(f"a list of {size} values, too many to read")
        of = shape[0] if isinstance(shape, list) else {}
        if isinstance(shape, list) and size and kind != (of if isinstance(of, int) else _STRUCT):
            raise ValueError(f"a list of values of kind {kind}, which is another than it has")
        inner = {} if isinstance(of, int) else of
        return [self._value(kind, inner, depth + 1) for _ in range(size)]

    def _spend(self, cost: int, depth: int) -> None:
        self.budget -= cost
        if self.budget < 0:
            raise ValueError("more values than can be read")
        if depth > MOST_DEPTH:
            raise ValueError("structures in structures too deep to read")

    def _byte(self) -> int:
        try:
            value = self._data[self.position]
        except IndexError:
            raise TooShort("it ends within a value") from None
        self.position += 1
        return value

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _bytes(self, size: int) -> bytes:
        if size > len(self._data) - self.position:
            raise TooShort("it ends within a text")
        self.position += size
        return self._data[self.position - size : self.position]
