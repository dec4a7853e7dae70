"""Decoding: encoded bytes → an upright 8-bit RGB or greyscale image, or a DecodeError with a one-line reason.

The format is detected from the content, not from the file extension. A truncated image is an error, never padded with
grey. Pillow decides what is a valid image; conversion.py makes it upright and 8 bits. Crops of ordinary JPEGs are
decoded by jpeg.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from inceptionnet.data.bands import Box, Pixels, pixels_in
from inceptionnet.data.conversion import in_8_bits, in_mode, made_upright, orientation_of
from inceptionnet.data.formats import formats_for, unknown_format
from inceptionnet.data.jpeg import part_of_jpeg
from inceptionnet.data.limits import MAX_PIXELS, check_header
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.resizing import centre_crop
from inceptionnet.errors import ConfigurationError, DecodeError
from inceptionnet.system.opening import IMAGE_BYTES, contents

# An orientation of EXIF for arrays: steps through rows and columns; from 5 on after transposing.
_STEPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def read_image(path: str | Path, *, name: str | None = None) -> bytes:
    """The bytes of the file at `path`, called `name` in errors. Raises: DecodeError."""
    name = str(path) if name is None else name
    try:
        return contents(path, IMAGE_BYTES)
    except OSError as error:
        raise DecodeError(f"{name}: cannot be read ({error.strerror})") from None


def decode(data: bytes, *, channels: int = 3, name: str = "image") -> Image.Image:
    """Decode `data` to an upright image of mode "RGB", or "L" for one channel.

    Raises: DecodeError `NAME: reason`; ConfigurationError unless channels is 1 or 3.
    """
    check_channels(channels)
    with _opened(data, name) as image:
        return made_upright(image, channels, name)


def decode_stored(data: bytes, *, channels: int = 3, name: str = "image") -> Image.Image:
    """Decode `data` as Pillow's `convert("RGB")` (or "L") does: not turned by EXIF, transparency dropped.

    Source: pytorch-fid and torch-fidelity read images in this way. They clip 16-bit greyscale to white; here it is
    scaled as by `decode`.
    Raises: as `decode`.
    """
    check_channels(channels)
    with _opened(data, name) as image:
        image.load()
        plain = in_8_bits(image, name) if image.mode.startswith(("F", "I")) else image
        return in_mode(plain, "L" if channels == 1 else "RGB", name)


def pixels_of(data: bytes, prep: Preprocessing, name: str) -> Pixels:
    """An encoded image as a network sees it. Shapes: → (size_px, size_px, C). Raises: DecodeError, the name first."""
    return centre_crop(decode(data, channels=prep.channels, name=name), prep)


def upright(image: Image.Image, *, channels: int = 3, name: str = "image") -> Image.Image:
    """An image that Pillow opened or somebody made, as `decode` gives one: upright, 8 bits, "RGB" or "L".

    Raises: as `decode`.
    """
    check_channels(channels)
    with _whole_or_error(name):
        return made_upright(image, channels, name, keep=True)


def decode_box(
    data: bytes, choose: Callable[[int, int], Box], *, at_least_px: int, channels: int = 3, name: str = "image"
) -> Pixels:
    """Decode the box that `choose(width, height)` returns for the upright image.

    An ordinary JPEG is decoded only down to the end of the box, and at 1/2, 1/4 or 1/8 of its size as long as the box
    keeps `at_least_px` pixels on each side (other fractions are slower than full size); the edges of the box are then
    rounded to these larger pixels.
    Shapes: → (height, width, C) of the box, or a fraction of that.
    Raises: as `decode`, for the same images.
    """
    check_channels(channels)
    with _opened(data, name) as image:
        if image.format != "JPEG" or image.mode not in ("L", "RGB"):
            whole = made_upright(image, channels, name)
            return pixels_in(whole, choose(*whole.size))
        orientation = orientation_of(image)
        left, top, right, bottom = box = choose(*(image.size[::-1] if orientation >= 5 else image.size))
        side = min(right - left, bottom - top)
        shrink = next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or side // shrink >= at_least_px)
        stored = part_of_jpeg(data, image.size, channels, shrink, bottom if orientation == 1 else image.height)
        if stored is None:
            return pixels_in(made_upright(image, channels, name), box)
        down, across = _STEPS.get(orientation, (1, 1))
        upright = (stored.transpose(1, 0, 2) if orientation >= 5 else stored)[::down, ::across]
        left, top, right, bottom = ((edge + shrink // 2) // shrink for edge in box)
        found = upright[top:bottom, left:right]
        return found if orientation == 1 else np.ascontiguousarray(found)  # torch takes no negative steps


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image in `data` before its pixels are read; every failure inside the block becomes a DecodeError."""
    if not data:
        raise DecodeError(f"{name}: is empty (0 bytes)")
    with _whole_or_error(name):
        try:
            image = Image.open(io.BytesIO(data), formats=formats_for(data))
        except UnidentifiedImageError:
            raise DecodeError(f"{name}: {unknown_format(data)}") from None
        with image:
            check_header(image, data, name)
            yield image


@contextmanager
def _whole_or_error(name: str) -> Iterator[None]:
    """What fails in here is a DecodeError."""
    try:
        yield
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DecodeError(f"{name}: has more than the limit of {MAX_PIXELS} pixels") from None
    except Exception as error:  # Pillow raises many types for damaged files: OSError, SyntaxError, struct.error …
        raise DecodeError(f"{name}: is truncated or damaged ({' '.join(str(error).split())})") from None


def check_channels(channels: int) -> None:
    """Raises: ConfigurationError unless an image file can have that number of channels."""
    if channels not in (1, 3):
        raise ConfigurationError(
            f"expected a network with 1 or 3 input channels, got {channels}; pass tensors from Python instead"
        )
