"""The sorted table that TensorFlow checkpoints are made of, and the few bits of protocol buffers inside it.

Source: LevelDB's table format, which TensorFlow took over: blocks of entries whose keys share prefixes, an index block,
and a footer of 48 bytes. Every length that a file declares is checked against what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # the kind of compression, the checksum
SNAPPY = 1
# Far above any network; keys that share prefixes could unpack to any size.
MAX_KEY_BYTES, MAX_ENTRIES = 1024, 100_000


class BrokenTable(Exception):
    """Bytes that are no table, or a damaged one; the message says what is wrong."""


class Snappy(Exception):
    """A block that is compressed."""


Checksum = Callable[[memoryview], int]


def mask(crc: int) -> int:
    """A checksum as tables and bundles keep it: rotated and shifted, so that it is none of its own file."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def entries(table: memoryview, checksum: Checksum) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a table in order, its blocks checked. Raises: BrokenTable; Snappy."""
    if len(table) < FOOTER_BYTES or table[-8:] != MAGIC:
        raise BrokenTable("no table's footer at its end")
    footer = table[-FOOTER_BYTES:]
    at = 0
    handle = []
    for _ in range(4):  # of the meta index, which TensorFlow leaves empty, and of the index: offset, size
        number, at = varint(footer, at)
        handle.append(number)
    last, count = b"", 0
    for _, place in _block(table, handle[2], handle[3], checksum):
        offset, at = varint(place, 0)
        size, _ = varint(place, at)
        for key, value in _block(table, offset, size, checksum):
            count += 1
            if (count > 1 and key <= last) or count > MAX_ENTRIES:
                raise BrokenTable("keys out of order" if key <= last else f"more than {MAX_ENTRIES} entries")
            last = key
            yield key, value


def _block(table: memoryview, offset: int, size: int, checksum: Checksum) -> Iterator[tuple[bytes, memoryview]]:
    end = offset + size
    if end + TRAILER_BYTES > len(table) - FOOTER_BYTES or size < 4:
        raise BrokenTable(f"a block at {offset} of {size} bytes in {len(table)}")
    if mask(checksum(table[offset : end + 1])) != int.from_bytes(table[end + 1 : end + TRAILER_BYTES], "little"):
        raise BrokenTable(f"the checksum of the block at {offset} is not that of its bytes")
    if table[end] == SNAPPY:
        raise Snappy
    block = table[offset:end]
    restarts = int.from_bytes(block[-4:], "little")
    if 4 * (restarts + 1) > size:
        raise BrokenTable(f"{restarts} restarts in a block of {size} bytes")
    block = block[: size - 4 * (restarts + 1)]
    at, key = 0, b""
    while at < len(block):
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or shared + fresh > MAX_KEY_BYTES or at + fresh + length > len(block):
            raise BrokenTable(f"an entry reaches out of the block at {offset}")
        key = key[:shared] + bytes(block[at : at + fresh])
        at += fresh
        yield key, block[at : at + length]
        at += length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number of variable length at `at`, and where the next thing starts. Raises: BrokenTable."""
    number = 0
    for i in range(10):
        if at + i >= len(data):
            break
        byte = data[at + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise BrokenTable("a number without an end")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a protocol buffer: whole numbers, or the bytes of all else. Raises: BrokenTable."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            number, at = varint(message, at)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, at = varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise BrokenTable(f"a field of kind {kind}")
        if at + size > len(message):
            raise BrokenTable("a field reaches out of its message")
        yield tag >> 3, message[at : at + size]
        at += size
