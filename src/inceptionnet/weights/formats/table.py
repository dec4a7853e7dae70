"""The sorted table inside TensorFlow checkpoints, and the subset of protocol buffers that it uses.

Source: LevelDB's table format, as adopted by TensorFlow: blocks of entries whose keys share prefixes, an index block
and a footer of 48 bytes. Every declared length is checked against the size of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # type of compression, checksum
SNAPPY = 1
# Far more than any network has; keys with shared prefixes could expand to any size.
MAX_KEY_BYTES, MAX_ENTRIES = 1024, 100_000


class BrokenTable(Exception):
    """Not a table, or a damaged one; the message says what is wrong."""


class Snappy(Exception):
    """A block compressed with Snappy, which is not supported."""


Checksum = Callable[[memoryview], int]


def mask(crc: int) -> int:
    """A CRC in the masked form stored in tables and bundles (rotated, plus a constant)."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def entries(table: memoryview, checksum: Checksum) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a table in order, with checksums verified. Raises: BrokenTable; Snappy."""
    if len(table) < FOOTER_BYTES or table[-8:] != MAGIC:
        raise BrokenTable("no table footer at the end")
    footer = table[-FOOTER_BYTES:]
    at = 0
    handle = []
    for _ in range(4):  # offset and size of the meta index (empty in TensorFlow) and of the index
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
        raise BrokenTable(f"the checksum of the block at {offset} does not match")
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
            raise BrokenTable(f"an entry exceeds the block at {offset}")
        key = key[:shared] + bytes(block[at : at + fresh])
        at += fresh
        yield key, block[at : at + length]
        at += length


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The variable-length integer at `at`, and the position after it. Raises: BrokenTable."""
    number = 0
    for i in range(10):
        if at + i >= len(data):
            break
        byte = data[at + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise BrokenTable("an unterminated integer")


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a protocol buffer: integers, or bytes for any other type. Raises: BrokenTable."""
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
            raise BrokenTable(f"a field of wire type {kind}")
        if at + size > len(message):
            raise BrokenTable("a field exceeds its message")
        yield tag >> 3, message[at : at + size]
        at += size
