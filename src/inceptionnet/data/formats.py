"""Formats of image files: those that are decoded, by Pillow or an extra, and names for what is not."""

from __future__ import annotations

from functools import cache

from inceptionnet.errors import MissingExtraError
from inceptionnet.system.extras import import_extra

# Only these: Pillow would run an interpreter on a PostScript file, even if it is named .jpg.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_OTHERS = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"\0\x05\x16\x07", "a companion file of macOS"),
    (b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
    (b"<svg", "SVG or another text in XML"),
    (b"<?xml", "SVG or another text in XML"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"II*\0", "TIFF with channels or bits that Pillow does not read: save it with 8 bits"),
    (b"MM\0*", "TIFF with channels or bits that Pillow does not read: save it with 8 bits"),
)


def formats_for(data: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats to try for an encoded image; HEIC is registered when the first one comes."""
    return (*FORMATS, "HEIF") if _is_heic(data) and not _why_no_heic() else FORMATS


def unknown_format(data: bytes) -> str:
    """Why an encoded image is in none of the formats, as the end of a message."""
    if _is_heic(data) and (why := _why_no_heic()):
        return why
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n") if data[:1] != b"\0" else data[:64]
    what = next((what for magic, what in _OTHERS if start.startswith(magic) or start.lower().startswith(magic)), "")
    return f"is not an image in a known format ({', '.join(FORMATS)})" + (f", but {what}" if what else "")


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC


@cache
def _why_no_heic() -> str:
    """Why HEIC is not read, as the end of a message; empty if it is, from now on."""
    try:
        import_extra("pi_heif", "heic", "is HEIC, which", "pi-heif").register_heif_opener()
    except MissingExtraError as error:
        return str(error)
    return ""
