"""Encoded bytes → an upright 8-bit RGB or grey picture, or a PictureError that says in one line why not.

A picture is known by its content, not its file's extension; it is whole or an error, never padded with grey. Colour
profiles are ignored, as by every published preprocessing. What is odd is made plain in one place: EXIF rotation,
CMYK, palettes, transparency (over white), 16-bit grey (scaled, not clipped), animation (first frame).
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from inceptionnet.errors import ConfigurationError, PictureError

MAX_BYTES = 2**28  # 256 MiB in a file …
MAX_PIXELS = MAX_BYTES // 3  # … and as RGB in memory; from just there on Pillow itself warns of decompression bombs
# Only these are tried: Pillow would hand a PostScript file that calls itself .jpg to an interpreter.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str | Path, *, name: str | None = None) -> bytes:
    """The bytes of the file at `path`, called `name` in errors. Raises: PictureError."""
    name = str(path) if name is None else name
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise PictureError(f"{name}: file has {size} bytes, more than the limit of {MAX_BYTES}")
            return file.read()
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def decode(data: bytes, *, channels: int = 3, name: str = "picture", at_least_px: int = 0) -> Image.Image:
    """The upright picture in `data`, of mode "RGB", or "L" for one channel.

    at_least_px: where positive, a JPEG may come at 1/2, 1/4 or 1/8 of its size as long as both sides keep so many
    pixels: several times faster for photographs far larger than a network's input, and not the same to the last bit.
    Raises: PictureError `NAME: reason`; ConfigurationError for other than 1 or 3 channels.
    """
    check_channels(channels)
    if not data:
        raise PictureError(f"{name}: is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PictureError(f"{name}: has {width}×{height} pixels, more than the limit of {MAX_PIXELS}")
            if at_least_px > 0:
                image.draft(None, (at_least_px, at_least_px))
            image.load()
            plain = _plain(image, name)
            turn = _UPRIGHT.get(_orientation(image))
            plain = plain.transpose(turn) if turn is not None else plain
            return plain.convert("L" if channels == 1 else "RGB")
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{name}: is not a picture in a known format ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureError(f"{name}: has more than the limit of {MAX_PIXELS} pixels") from None
    except (
        Exception
    ) as error:  # what Pillow raises for damaged files is an open list: OSError, SyntaxError, struct.error …
        raise PictureError(f"{name}: is truncated or damaged ({' '.join(str(error).split())})") from None


def check_channels(channels: int) -> None:
    """Raises: ConfigurationError where a network wants more or fewer channels than a picture can have."""
    if channels not in (1, 3):
        raise ConfigurationError(
            f"the network takes {channels} channels, a picture file has 1 or 3; give it tensors from Python"
        )


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Without palette, alpha, ink colours or more than 8 bits."""
    if image.mode == "F":
        raise PictureError(f"{name}: has floating-point pixels, whose range is not known: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # I;16, I;16B, or I, which holds 32 bits and mostly carries 16
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(f"{name}: has 32-bit pixels, whose range is not known: save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block does not make the picture a bad one
        return 1
