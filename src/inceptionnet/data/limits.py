"""What decoding an image may take, decided from its header: pixels, memory, scans of a JPEG.

The memory is that of the decoder, of the decoded image (Pillow has 4 bytes a pixel for every mode of colours) and of a
copy where one is made; it was measured for every format. Time has no limit of its own here: what passes takes some
seconds at most, but for files made to be slow, which end with their data worker (see time_limit.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from PIL import Image

from inceptionnet.errors import DecodeError
from inceptionnet.system.opening import IMAGE_BYTES

MAX_PIXELS = IMAGE_BYTES // 3
"""As many bytes as RGB in memory; Pillow's own limit for decompression bombs is the same."""
MAX_SIDE = 2**17
"""Pixels along one side, so that no row is too long for what is made of it; twice the most of a JPEG."""
DECODE_BYTES = 7 * 2**26
"""The most memory that decoding one image may take: 448 MiB, so that a whole command takes less than 1 GB."""
PLAIN_BYTES = 2**24
"""Of a PPM in text, which Pillow reads slowly: 16 MiB."""
MOST_SCANS = 100
"""Of one JPEG. A usual progressive one has 10; every scan may go through all of its pixels."""

_COEFFICIENT = 2  # bytes of a pixel and channel in a JPEG of several scans
_DECODERS = {"AVIF": 12, "HEIF": 12, "JPEG2000": 16, "TIFF": 4, "WEBP": 14}  # bytes a pixel beside the image
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # not an escaped 255 nor a restart
_SCAN, _END, _ALONE = b"\xff\xda", 0xD9, (0x01, 0xD8)  # the last two have no length
_TILE_TAGS = 322, 323


def check_header(image: Image.Image, data: bytes, name: str) -> None:
    """Check an image before its pixels are decoded. Raises: DecodeError."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{name}: has {width}×{height} pixels, more than the limit of {MAX_PIXELS}")
    if max(width, height) > MAX_SIDE:
        raise DecodeError(f"{name}: has {width}×{height} pixels, along one side more than the limit of {MAX_SIDE}")
    if image.format == "PPM" and data[1:2] in b"123" and len(data) > PLAIN_BYTES:
        raise DecodeError(
            f"{name}: has {len(data)} bytes of text, more than the limit of {PLAIN_BYTES}: save it as PNG"
        )
    stored = _bytes(image.mode)
    converted = 0 if image.mode in ("L", "RGB") else _bytes("L" if image.mode.startswith("I") else "RGB")
    beside = _DECODERS.get(image.format or "", 0)
    if image.format in ("JPEG", "MPO") and _in_several_scans(image, data):
        beside = _COEFFICIENT * len(image.getbands())
        if data.count(_SCAN) > MOST_SCANS and len(list(islice(_scans(data), MOST_SCANS + 1))) > MOST_SCANS:
            raise DecodeError(f"{name}: has more scans than the limit of {MOST_SCANS}: save it as a baseline JPEG")
    _check_memory(image, stored + max(beside, converted), name)


def check_converted(image: Image.Image, mode: str, name: str) -> None:
    """Check that there is memory for a decoded image and a copy of a mode beside it. Raises: DecodeError."""
    _check_memory(image, _bytes(image.mode) + _bytes(mode), name)


def _check_memory(image: Image.Image, per_pixel: int, name: str) -> None:
    width, height = image.size
    if (needed := max(width * height, _tile(image)) * per_pixel) > DECODE_BYTES:
        raise DecodeError(
            f"{name}: has {width}×{height} pixels, which take {needed // 2**20} MiB to decode in this format, more "
            f"than the limit of {DECODE_BYTES // 2**20} MiB: save it smaller, or as an RGB image in a baseline JPEG"
        )


def _tile(image: Image.Image) -> int:
    """The pixels of a tile of a TIFF, which may be larger than the image."""
    across, down = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE_TAGS)
    return across * down if isinstance(across, int) and isinstance(down, int) else 0


def _bytes(mode: str) -> int:
    """Bytes a pixel of a decoded image."""
    return 1 if mode in ("1", "L", "P") else 2 if mode.startswith("I;16") else 4


def _in_several_scans(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG is progressive, or its first scan has not all channels."""
    first = next(_scans(data), len(data))
    return "progressive" in image.info or data[first + 2 : first + 3] < bytes([len(image.getbands())])


def _scans(data: bytes) -> Iterator[int]:
    """Where the header of each scan of a JPEG begins; not those of a thumbnail within, or of what is behind its end."""
    at = 0
    while (found := _MARKER.search(data, at)) and found[1][0] != _END:
        marker, at = found[1][0], found.end()
        if marker == _SCAN[1]:
            yield at
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
