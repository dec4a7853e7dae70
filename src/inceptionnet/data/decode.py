"""Decoding: encoded bytes → an upright 8-bit RGB or greyscale image, or a DecodeError with a one-line reason.

The format is detected from the content, not from the file extension. A truncated image is an error, never padded with
grey. Colour profiles are ignored, as in every published preprocessing. Handled here and nowhere else: EXIF rotation,
CMYK, palettes, transparency (over white), 16-bit greyscale (scaled, not clipped) and several frames (the first).
Pillow decides what is a valid image. Crops of ordinary JPEGs are decoded by simplejpeg (the same libjpeg-turbo with
less overhead); whatever it rejects is decoded by Pillow.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from inceptionnet.data.bands import Box, Pixels, bands, pixels_in
from inceptionnet.data.formats import formats_for, unknown_format
from inceptionnet.data.limits import MAX_PIXELS, check_converted, check_header
from inceptionnet.data.preprocess import Preprocessing, centre_crop
from inceptionnet.errors import ConfigurationError, DecodeError
from inceptionnet.system.opening import IMAGE_BYTES, contents

log: logging.Logger = logging.getLogger("inceptionnet")

DARK = 4095
"""A 16-bit image without larger values is nearly black; it may be one of 12 bits."""
_said: set[str] = set()
_UNTOUCHED = 0xA5  # a last row of this value only was probably not decoded: it is decoded again by Pillow
_ORIENTATION_TAG, _PHOTOMETRIC_TAG = 0x0112, 262
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The same for arrays: steps through rows and columns; from 5 on after transposing.
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
        return _whole(image, channels, name)


def decode_stored(data: bytes, *, channels: int = 3, name: str = "image") -> Image.Image:
    """Decode `data` as Pillow's `convert("RGB")` (or "L") does: not turned by EXIF, transparency dropped.

    Source: pytorch-fid and torch-fidelity read images in this way. They clip 16-bit greyscale to white; here it is
    scaled as by `decode`.
    Raises: as `decode`.
    """
    check_channels(channels)
    with _opened(data, name) as image:
        image.load()
        plain = _plain(image, name) if image.mode.startswith(("F", "I")) else image
        return _converted(plain, "L" if channels == 1 else "RGB", name)


def pixels_of(data: bytes, prep: Preprocessing, name: str) -> Pixels:
    """An encoded image as a network sees it. Shapes: → (size_px, size_px, C). Raises: DecodeError, the name first."""
    return centre_crop(decode(data, channels=prep.channels, name=name), prep)


def upright(image: Image.Image, *, channels: int = 3, name: str = "image") -> Image.Image:
    """An image that Pillow opened or somebody made, as `decode` gives one: upright, 8 bits, "RGB" or "L".

    Raises: as `decode`.
    """
    check_channels(channels)
    with _whole_or_error(name):
        return _whole(image, channels, name, keep=True)


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
            whole = _whole(image, channels, name)
            return pixels_in(whole, choose(*whole.size))
        orientation = _orientation(image)
        left, top, right, bottom = box = choose(*(image.size[::-1] if orientation >= 5 else image.size))
        side = min(right - left, bottom - top)
        shrink = next(shrink for shrink in (8, 4, 2, 1) if shrink == 1 or side // shrink >= at_least_px)
        stored = _stored(data, image.size, channels, shrink, bottom if orientation == 1 else image.height)
        if stored is None:
            return pixels_in(_whole(image, channels, name), box)
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


def _whole(image: Image.Image, channels: int, name: str, *, keep: bool = False) -> Image.Image:
    """An opened image, upright; unless it is to be kept, it is closed where a copy was made."""
    _say_pages(image, name)
    image.load()
    turn, plain = _UPRIGHT.get(_orientation(image)), _plain(image, name)
    if plain is not image and not keep:
        image.close()
    if turn is not None:
        check_converted(plain, plain.mode, name)
        plain = plain.transpose(turn)
    return _converted(plain, "L" if channels == 1 else "RGB", name)


def _converted(image: Image.Image, mode: str, name: str) -> Image.Image:
    if image.mode == mode:  # Pillow would copy it
        return image
    check_converted(image, mode, name)
    return image.convert(mode)


def _stored(data: bytes, size: tuple[int, int], channels: int, shrink: int, bottom: int) -> Pixels | None:
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


def check_channels(channels: int) -> None:
    """Raises: ConfigurationError unless an image file can have that number of channels."""
    if channels not in (1, 3):
        raise ConfigurationError(
            f"expected a network with 1 or 3 input channels, got {channels}; pass tensors from Python instead"
        )


def _plain(image: Image.Image, name: str) -> Image.Image:
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


def _orientation(image: Image.Image) -> int:
    try:
        turn = int(image.getexif().get(_ORIENTATION_TAG, 1))
        return turn if turn in _UPRIGHT else 1
    except Exception:  # damaged EXIF data does not make the image corrupt
        return 1
