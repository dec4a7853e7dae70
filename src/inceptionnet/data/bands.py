"""Large images in bands of whole rows, so that what is made of them takes little memory beside the image itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[int, int, int, int]
"""left, top, right, bottom in px, as Pillow counts: the last two are exclusive."""
Pixels = npt.NDArray[np.uint8]

BAND_PX = 2**20
"""Pixels of a band, or one row."""


def bands(box: Box) -> Iterator[Box]:
    """A box from its top to its bottom, in parts."""
    left, top, right, bottom = box
    rows = max(1, BAND_PX // max(1, right - left))
    for above in range(top, bottom, rows):
        yield left, above, right, min(above + rows, bottom)


def pixels_in(image: Image.Image, box: Box) -> Pixels:
    """The pixels of an 8-bit image in a box. Shapes: → (height, width, C)."""
    left, top, right, bottom = box
    values: Pixels = np.empty((bottom - top, right - left, len(image.getbands())), np.uint8)
    for band in bands(box):
        part = np.asarray(image.crop(band))
        values[band[1] - top : band[3] - top] = part if part.ndim == 3 else part[:, :, None]
    return values


def pixels_at(image: Image.Image, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Pixels:
    """The pixels of an 8-bit image at sorted rows and columns. Shapes: (M,), (N,) → (M, N, C)."""
    left, right = int(columns[0]), int(columns[-1]) + 1
    parts = []
    for band in bands((left, int(rows[0]), right, int(rows[-1]) + 1)):
        chosen = rows[np.searchsorted(rows, band[1]) : np.searchsorted(rows, band[3])]
        if len(chosen):
            parts.append(pixels_in(image, band)[chosen - band[1]][:, columns - left])
    return np.concatenate(parts)
