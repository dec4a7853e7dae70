"""Target: images of every format that is decoded."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from inceptionnet.data.decode import decode, decode_box, decode_stored

from ..data.made import encoded
from ..data.test_decode import HEIC
from .mutate import RAW, of_bytes, of_png
from .target import Attempt, Target

KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "grey.jpg": ("L", "JPEG", {}), "colour.jpg": ("RGB", "JPEG", {"quality": 95}), "cmyk.jpg": ("CMYK", "JPEG", {}),
    "progressive.jpg": ("RGB", "JPEG", {"progressive": True}), 
    "restart.jpg": ("RGB", "JPEG", {"restart_marker_rows": 1}),
    "two.png": ("1", "PNG", {}), "grey.png": ("L", "PNG", {}), "alpha.png": ("LA", "PNG", {}),
    "colour.png": ("RGB", "PNG", {}), "rgba.png": ("RGBA", "PNG", {}), "deep.png": ("I;16", "PNG", {}),
    "palette.png": ("P", "PNG", {"transparency": 3}), "a.gif": ("P", "GIF", {"transparency": 3}),
    "a.bmp": ("RGB", "BMP", {}), "p.bmp": ("P", "BMP", {}), "two.bmp": ("1", "BMP", {}), "a.dib": ("RGB", "DIB", {}),
    "grey.tif": ("L", "TIFF", {}), "lzw.tif": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "zip.tif": ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}), "deep.tif": ("I;16", "TIFF", {}),
    "jpeg.tif": ("RGB", "TIFF", {"compression": "jpeg"}), "cmyk.tif": ("CMYK", "TIFF", {}),
    "fax.tif": ("1", "TIFF", {"compression": "group4"}), "lossy.webp": ("RGB", "WEBP", {}),
    "lossless.webp": ("RGBA", "WEBP", {"lossless": True}), "a.avif": ("RGB", "AVIF", {}),
    "a.jp2": ("RGB", "JPEG2000", {}), "a.pgm": ("L", "PPM", {}), "a.ppm": ("RGB", "PPM", {}), "a.pbm": ("1", "PPM", {}),
}  # fmt: skip
MARKS = of_bytes((
    b"\xff\xd8", b"\xff\xd9", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff", b"\xff\xc2", b"\xff\xda", b"\xff\xc4", b"\xff\xe1",
    b"Exif\0\0", b"II*\0", b"MM\0*", b"\x12\x01\x03\0\1\0\0\0\6\0\0\0", b"RIFF", b"VP8X", b"ALPH", b"ANIM", b"ftypavif",
    b"ispe", b"\xff\x4f\xff\x51", b"jp2c", b"GIF89a", b"!\xf9\4", b"P6 99999 99999 255\n", b"P3\n", b"P4\n",
))  # fmt: skip


def _made(folder: Path) -> Mapping[str, bytes]:
    values = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    values[4:] = values[4]
    image = Image.fromarray(values)
    found = {}
    for name, (mode, format, how) in KINDS.items():
        one = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        found[name] = encoded(one, format, **how)
    turned = Image.Exif()
    turned[0x0112] = 6
    texts = {f"text{i}.ppm": f"P{i}\n3 2\n255\n{' 1' * 18}\n".encode() for i in (1, 2, 3)}
    animated = encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)])
    return found | texts | {
        "turned.jpg": encoded(image, "JPEG", exif=turned), "moving.gif": animated, "x.heic": base64.b64decode(HEIC),
        "pages.tif": encoded(image, "TIFF", save_all=True, append_images=[image]),
        "moving.png": encoded(image, "PNG", save_all=True, append_images=[image.rotate(90)]),
    }  # fmt: skip


def _mutated(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if content.startswith(b"\x89PNG") and chance.random() < 0.8:
        return of_png(chance, content, others)
    return chance.choice((MARKS, RAW))(chance, content, others)


def _read(path: Path, attempt: Attempt) -> None:
    data = path.read_bytes()
    for channels in (3, 1):
        attempt(decode, data, channels=channels, name=path.name)
        attempt(decode_stored, data, channels=channels, name=path.name)
        box = lambda width, height: (width // 4, height // 4, width - width // 4, height - height // 4)  # noqa: E731
        attempt(decode_box, data, box, at_least_px=4, channels=channels, name=path.name)


TARGETS = [Target("images", _made, lambda _: _mutated, _read, 400)]
