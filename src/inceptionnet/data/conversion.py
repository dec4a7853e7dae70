"""An image that Pillow opened → an upright 8-bit RGB or greyscale image.

Handled here and nowhere else: EXIF rotation, CMYK, palettes, transparency (over white), 16-bit greyscale (scaled, not
clipped) and several frames (the first). Colour profiles are ignored, as in every published preprocessing.
"""

from __future__ import annotations

import logging

import numpy as np
from PIL import Image

from inceptionnet.data.bands import bands
from inceptionnet.data.limits import check_converted
from inceptionnet.errors import DecodeError

log: logging.Logger = logging.getLogger("inceptionnet")

DARK = 4095
"""A 16-bit image without larger values is nearly black; it may be one of 12 bits."""
_said: set[str] = set()
_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG = 262
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def made_upright(image: Image.Image, channels: int, name: str, *, keep: bool = False) -> Image.Image:
    """An opened image, upright; unless it is to be kept, it is closed where a copy was made."""
    _say_pages(image, name)
    image.load()
    turn, plain = _UPRIGHT.get(orientation_of(image)), in_8_bits(image, name)
    if plain is not image and not keep:
        image.close()
    if turn is not None:
        check_converted(plain, plain.mode, name)
        plain = plain.transpose(turn)
    return in_mode(plain, "L" if channels == 1 else "RGB", name)


def in_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    """Converted to a mode, within the limits of memory."""
    if image.mode == mode:  # Pillow would copy it
        return image
    check_converted(image, mode, name)
    return image.convert(mode)


def in_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Converted to 8-bit L or RGB: without palette, alpha, CMYK or 16 bits."""
    if image.mode == "F":
        raise DecodeError(f"{name}: has floating-point pixels of unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # I;16, I;16B, or I, which holds 32 bits and mostly carries 16
        return _from_16_bits(image, name)
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    over_white = Image.new("RGB", image.size)
    for band in bands((0, 0, *image.size)):
        coloured = image.crop(band).convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        over_white.paste(Image.alpha_composite(white, coloured).convert("RGB"), band)
    return over_white


def _from_16_bits(image: Image.Image, name: str) -> Image.Image:
    made, highest = Image.new("L", image.size), 0
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0  # in a TIFF; Pillow overlooks it
    for band in bands((0, 0, *image.size)):
        values = np.asarray(image.crop(band)).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise DecodeError(f"{name}: has 32-bit pixels of unknown range: save it with 8 or 16 bits")
        highest = max(highest, int(values.max()))
        values = 65535 - values if white_is_zero else values
        made.paste(Image.fromarray(((values + 128) // 257).astype(np.uint8)), band)
    if highest <= DARK:
        _say_dark(name, highest)
    return made


def _say_dark(name: str, highest: int) -> None:
    _say_once(
        "dark",
        f"{name}: has 16-bit values up to {highest} only, nearly black of 65535; if its full range is {DARK}, as "
        "of 12-bit cameras, scale the images",
    )


def _say_pages(image: Image.Image, name: str) -> None:
    if image.format != "TIFF":
        return
    page = image.tell()  # somebody may have chosen one
    try:
        image.seek(1)  # only that: a list of a million empty pages is short
        _say_once("pages", f"{name}: has several pages, of which the first is used; save others as files of their own")
    except Exception:  # there is no second; or it is damaged, which does not make the first corrupt
        pass
    image.seek(page)


def _say_once(kind: str, what: str) -> None:
    """Once in a process for each kind, since every image of such a data set is so."""
    if kind not in _said:
        _said.add(kind)
        log.warning(what)


def orientation_of(image: Image.Image) -> int:
    """By EXIF, 2 to 8; else 1, which is upright."""
    try:
        turn = int(image.getexif().get(_ORIENTATION_TAG, 1))
        return turn if turn in _UPRIGHT else 1
    except Exception:  # damaged EXIF data does not make the image corrupt
        return 1
