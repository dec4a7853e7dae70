"""A part of an ordinary JPEG, at a fraction of its size, by simplejpeg.

It is the same libjpeg-turbo as Pillow's, with less overhead. Whatever it rejects is decoded by Pillow.
"""

from __future__ import annotations

import numpy as np
import simplejpeg

from inceptionnet.data.bands import Pixels

_UNTOUCHED = 0xA5  # a last row of this value only was probably not decoded: it is decoded again by Pillow


def part_of_jpeg(data: bytes, size: tuple[int, int], channels: int, shrink: int, bottom: int) -> Pixels | None:
    """A JPEG of `size` before EXIF rotation, at least down to row `bottom`, at 1/shrink; None: leave it to Pillow."""
    width, height = size
    needed = (bottom // 16 + 1) * 16  # whole blocks, including the row below the box: chroma is interpolated from it
    shorter = _with_height(data, needed) if needed < height else None
    rows, columns = (-(-side // shrink) for side in (height if shorter is None else needed, width))
    found: Pixels = np.empty((rows, columns, channels), np.uint8)
    found[-1] = _UNTOUCHED
    # "strict" raises for truncated and unusual files; otherwise even a failure is silent.
    try:
        shape = simplejpeg.decode_jpeg(
            data if shorter is None else shorter,
            "GRAY" if channels == 1 else "RGB",
            min_height=rows,
            min_width=columns,
            min_factor=shrink,
            buffer=found,
            strict=shorter is None,
        ).shape
    except ValueError:
        return None
    return found if shape == found.shape and (found[-1] != _UNTOUCHED).any() else None


def _with_height(data: bytes, height: int) -> bytes | None:
    """A baseline JPEG with a smaller height in its header, so that decoding ends there; None if that is not safe.

    libjpeg skips the remaining data without an error, so that data is checked here: no markers but restarts, and the
    end marker as the last two bytes.
    """
    at, frame, scan = 2, 0, 0
    while not scan and at + 4 <= len(data) and data[at] == 0xFF:
        frame = at if data[at + 1] in (0xC0, 0xC1) else frame  # of a sequential, not a progressive JPEG
        scan = at if data[at + 1] == 0xDA else 0
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not (frame and scan and data.endswith(b"\xff\xd9")):
        return None
    values = np.frombuffer(data, np.uint8)
    marks = values[np.flatnonzero(values[at:-2] == 0xFF) + at + 1]  # 0 after an escaped 255
    if not ((marks == 0) | (marks & 0xF8 == 0xD0)).all():
        return None
    return data[: frame + 5] + height.to_bytes(2, "big") + data[frame + 7 :]  # after marker, length and bits
