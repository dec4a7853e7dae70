"""Crops and resizing: image → square uint8 array, by the centre crop for evaluation or the Inception training crop.

Pillow's filters antialias when downscaling; TensorFlow 1's bilinear did not ("tf1-bilinear"), which changes accuracy by
a few tenths of a percentage point.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from inceptionnet.data.bands import Box, Pixels, bands, pixels_at
from inceptionnet.data.preprocess import AnyInterpolation, Preprocessing

TRIES = 100
ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3  # width / height
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
}


def centre_crop(image: Image.Image, prep: Preprocessing) -> Pixels:
    """The centre crop for evaluation. Shapes: image of any size → (size_px, size_px, C)."""
    width, height = image.size
    size = prep.size_px
    if prep.resize == "squash":
        left, top = (
            int((side - side * prep.crop) / 2) for side in (width, height)
        )  # rounded as in tf.image.central_crop
        return resize_crop(image, (left, top, width - left, height - top), size, prep.interpolation)
    # Only the square is resized: all of a 1×2000 px image would become a strip of 684 000 px. The result is that of
    # resizing everything, except where bicubic overshoots pure black or white, which Pillow clips between two passes.
    short = round(size / prep.crop)
    resized = [int(short * side / min(width, height)) for side in (width, height)]
    starts = [round((side - size) / 2) for side in resized]
    (x0, x1), (y0, y1) = (
        (start * side / whole, (start + size) * side / whole)
        for start, side, whole in zip(starts, (width, height), resized, strict=True)
    )
    return resize(image, size, prep.interpolation, (x0, y0, min(x1, width), min(y1, height)))


def random_crop(
    image: Image.Image,
    size_px: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float = 1.0,
    aspect: tuple[float, float] = (ASPECT_MIN, ASPECT_MAX),
    interpolation: AnyInterpolation = "bilinear",
) -> Pixels:
    """The Inception training crop of a decoded image: a `random_box`, resized to a square.

    Shapes: image of any size → (size_px, size_px, C).
    """
    box = random_box(*image.size, rng, area_min=area_min, area_max=area_max, aspect=aspect)
    return resize(image.crop(box), size_px, interpolation)


def random_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float = 1.0,
    aspect: tuple[float, float] = (ASPECT_MIN, ASPECT_MAX),
) -> Box:
    """The box of a random training crop in an image of `width` × `height` px.

    Paper: [v1] section 6. The area is uniform in [area_min, area_max] times the image's, the aspect ratio (width /
    height) uniform in `aspect`. The first of 100 boxes that fits is used, else the whole image, as in TensorFlow's
    sample_distorted_bounding_box (where the height is uniform, not the area). Every call draws the same number of
    values from `rng`.
    """
    areas = width * height * (area_min + (area_max - area_min) * rng.random(TRIES))
    aspects = aspect[0] + (aspect[1] - aspect[0]) * rng.random(TRIES)
    right, down = rng.random(2)
    for area, ratio in zip(areas.tolist(), aspects.tolist(), strict=True):  # usually the first or second fits
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= box_width <= width and 1 <= box_height <= height:
            break
    else:
        box_width, box_height = width, height
    left, top = int(right * (width - box_width + 1)), int(down * (height - box_height + 1))
    return left, top, left + box_width, top + box_height


def resize(
    image: Image.Image,
    size_px: int,
    interpolation: AnyInterpolation,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Resize `box` (left, top, right, bottom in px; default: all) to a square. Shapes: → (size_px, size_px, C)."""
    if interpolation == "tf1-bilinear":
        whole = (0, 0, *image.size)
        return _tf1_bilinear(image, size_px, box or whole, whole)
    return _pixels(image.resize((size_px, size_px), _FILTERS[interpolation], box=box))


def resize_crop(image: Image.Image, crop: Box, size_px: int, interpolation: AnyInterpolation) -> Pixels:
    """As `resize` of the image that is cropped before, so that nothing outside counts, but without a copy of it.

    Shapes: → (size_px, size_px, C).
    """
    if interpolation == "tf1-bilinear":
        return _tf1_bilinear(image, size_px, crop, crop)
    narrow = Image.new(image.mode, (size_px, crop[3] - crop[1]))  # Pillow resizes rows first, each by itself
    for band in bands(crop):
        rows = image.crop(band).resize((size_px, band[3] - band[1]), _FILTERS[interpolation])
        narrow.paste(rows, (0, band[1] - crop[1]))
    return _pixels(narrow.resize((size_px, size_px), _FILTERS[interpolation]))


def _tf1_bilinear(image: Image.Image, size_px: int, box: tuple[float, float, float, float], crop: Box) -> Pixels:
    """Without an array of the whole image, which may be a strip of 100 000 pixels."""
    left, top, right, bottom = box
    (upper, lower, down), (near, far, across) = (
        _neighbours(start - first, end - first, size_px, last - 1 - first, first)
        for start, end, first, last in ((top, bottom, crop[1], crop[3]), (left, right, crop[0], crop[2]))
    )
    rows, columns = np.unique([upper, lower]), np.unique([near, far])
    values = pixels_at(image, rows, columns).astype(np.float32)
    above, below = (values[np.searchsorted(rows, at)] for at in (upper, lower))
    values = above + (below - above) * down[:, None, None]
    before, after = (values[:, np.searchsorted(columns, at)] for at in (near, far))
    values = before + (after - before) * across[:, None]
    rounded: Pixels = np.rint(values).astype(np.uint8)
    return rounded


def _neighbours(
    start: float, end: float, count: int, last: int, first: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each of `count` places from start to end, counted from `first`: the positions on both sides, and how far it
    is between them."""
    at = np.minimum(start + np.arange(count) * ((end - start) / count), last)
    low = at.astype(np.intp)
    return first + low, first + np.minimum(low + 1, last), (at - low).astype(np.float32)


def _pixels(image: Image.Image) -> Pixels:
    values = np.array(image)
    return values if values.ndim == 3 else values[:, :, None]
