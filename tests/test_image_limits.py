"""What decoding an image may take, against what it takes; and how it is refused."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inceptionnet import create_model, save_weights
from inceptionnet.data import limits
from inceptionnet.data.bands import bands, pixels_at, pixels_in
from inceptionnet.data.decode import decode, decode_box, decode_stored
from inceptionnet.data.limits import DECODE_BYTES, MAX_PIXELS, MOST_SCANS
from inceptionnet.errors import DecodeError

from .forked import Forked

SIDE = 2000
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "RGB": ("RGB", "JPEG", {}),
    "grey": ("L", "JPEG", {}),
    "CMYK": ("CMYK", "JPEG", {}),
    "progressive": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "progressive CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "transparency": ("RGBA", "PNG", {"compress_level": 1}),
    "palette": ("P", "PNG", {}),
    "16 bits": ("I;16", "PNG", {}),
    "TIFF": ("RGB", "TIFF", {}),
    "one strip": ("RGB", "TIFF", {"compression": "tiff_deflate", "tiffinfo": {278: SIDE}}),
    "WebP": ("RGB", "WEBP", {"method": 0}),
    "lossless WebP with transparency": ("RGBA", "WEBP", {"method": 0, "lossless": True, "quality": 0}),
    "AVIF": ("RGB", "AVIF", {"speed": 10}),
    "JPEG 2000": ("RGB", "JPEG2000", {}),
    "GIF": ("P", "GIF", {}),
    "BMP": ("RGB", "BMP", {}),
}
PEAK = """
import json, sys
from pathlib import Path
from inceptionnet.data import limits
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.preprocess import Preprocessing

def kib(what):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1])

def run(data):
    for how in ("squash", "keep-aspect"):
        pixels_of(data, Preprocessing(299, resize=how), "image")

estimated = []
real = limits._check_memory
limits._check_memory = lambda image, per_pixel, name: (estimated.append(per_pixel), real(image, per_pixel, name))
data, small = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes()
run(small)  # what the first image takes is no part of it
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = kib("VmRSS")
run(data)
print(json.dumps([(kib("VmHWM") - before) * 1024, max(estimated)]))
"""

COMMAND = """
from pathlib import Path
from inceptionnet.cli import main
try:
    main()
finally:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(line)
"""


def made(mode: str, format: str, how: dict[str, Any], side: int = SIDE) -> bytes:
    """A noisy image, whose decoder has something to do."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    image: Image.Image = Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR)
    if mode == "RGBA":
        image.putalpha(image.convert("L"))
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_no_decoder_takes_more_memory_than_is_said(kind: str, tmp_path: Path) -> None:
    """Measured in a process of its own; what it takes in any case counts too."""
    file, small = tmp_path / "image", tmp_path / "small"
    file.write_bytes(made(*KINDS[kind]))
    small.write_bytes(made(*KINDS[kind], side=64))
    run = Forked("inceptionnet.data.decode")
    try:
        done = run(PEAK, file, small)
    finally:
        run.close()
    assert done.returncode == 0, done.stderr
    taken, estimated = json.loads(done.stdout)
    assert taken < estimated * SIDE**2 + 24e6  # for what is made of bands


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("mode", "format", "side", "how"),
    [
        ("RGB", "JPEG", 9459, {}),
        ("RGBA", "PNG", 7660, {"compress_level": 1}),
        ("RGB", "JPEG", 6850, {"progressive": True, "subsampling": 0}),
        ("RGB", "JPEG2000", 4845, {}),
    ],
)
def test_a_command_stays_below_a_gigabyte(
    mode: str, format: str, side: int, how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the largest images that are not refused."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    weights, file = tmp_path / "v3.safetensors", tmp_path / "image"
    save_weights(create_model("inception_v3"), weights)
    Image.new(mode, (side, side)).save(file, format, **how)
    done = subprocess.run([sys.executable, "-c", COMMAND, "predict", weights, file], stdout=subprocess.PIPE, check=True)
    assert int(done.stdout.split()[-2]) * 1024 < 1e9


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, bits: int = 8, colour: int = 2) -> bytes:
    """The header of a PNG without pixels: what is refused is refused before they are read."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "per_pixel"),
    [
        (png(7700, 7700, colour=6), 8),  # 59 megapixels with transparency
        (png(7700, 7700, bits=16, colour=6), 8),
    ],
)
def test_an_image_that_would_take_too_much_memory(data: bytes, per_pixel: int) -> None:
    for read in (decode, decode_stored, lambda data, name: decode_box(data, lambda *s: (0, 0, 1, 1), at_least_px=1,
                                                                     name=name)):  # fmt: skip
        with pytest.raises(DecodeError, match=r"^a: has \d+×\d+ pixels, which take \d+ MiB to decode in this format, "
                                              r"more than the limit of 448 MiB: save it smaller"):  # fmt: skip
            read(data, name="a")
    assert 7700 * 7700 * per_pixel > DECODE_BYTES > 7600 * 7600 * per_pixel


def test_a_ppm_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"P3 2 1 255\n1 2 3 4 5 6\n"
    monkeypatch.setattr(limits, "PLAIN_BYTES", len(data))
    assert np.asarray(decode(data)).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    with pytest.raises(DecodeError, match=f"^a: has {len(data) + 1} bytes of text, more than the limit of"):
        decode(data + b"\n", name="a")
    monkeypatch.setattr(limits, "PLAIN_BYTES", 1)
    assert decode(made("RGB", "PPM", {}, 16)).size == (16, 16)


def test_the_same_size_without_transparency_is_no_reason() -> None:
    with pytest.raises(DecodeError, match="is truncated or damaged"):
        decode(png(9000, 9000), name="a")


def test_turning_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = made("RGB", "JPEG", {}, 64), made("RGB", "JPEG", {"exif": exif}, 64)
    monkeypatch.setattr(limits, "DECODE_BYTES", 64 * 64 * 8 - 1)
    decode(plain)
    with pytest.raises(DecodeError, match="more than the limit"):
        decode(turned)
    monkeypatch.setattr(limits, "DECODE_BYTES", 64 * 64 * 8)
    assert decode(turned).size == (64, 64)


def progressive(scans: int) -> bytes:
    """A JPEG whose last scan is there again and again: every one goes through all pixels."""
    data = made("L", "JPEG", {"progressive": True}, 64)
    at = data.rindex(b"\xff\xda")
    others = data.count(b"\xff\xda") - 1
    return data[:at] + data[at:-2] * (scans - others) + data[-2:]


def separate(scans: int) -> bytes:
    """A baseline JPEG whose three channels have scans of their own, the first of them again and again."""
    data = made("L", "JPEG", {}, 64)
    at, frame = data.index(b"\xff\xda"), data.index(b"\xff\xc0")
    channels = b"".join(bytes([channel, 0x11, 0]) for channel in (1, 2, 3))
    header = data[frame : frame + 2] + b"\0\x11" + data[frame + 4 : frame + 9] + b"\3" + channels
    first, *others = (data[at : at + 4] + bytes([1, channel, 0]) + data[at + 7 : -2] for channel in (1, 2, 3))
    between = data[frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big") : at]
    return data[:frame] + header + between + first * (scans - 2) + b"".join(others) + data[-2:]


@pytest.mark.parametrize("attack", [progressive, separate])
def test_many_scans(attack: Callable[[int], bytes]) -> None:
    assert attack(MOST_SCANS).count(b"\xff\xda") == MOST_SCANS
    assert decode(attack(MOST_SCANS)).size == (64, 64)
    with pytest.raises(DecodeError, match=f"^a: has more scans than the limit of {MOST_SCANS}: save it as a baseline"):
        decode(attack(MOST_SCANS + 1), name="a")


def test_scans_elsewhere_do_not_count() -> None:
    """In a comment before the image, and in whatever a phone puts behind it, such as a film."""
    data = made("RGB", "JPEG", {"comment": b"\xff\xda" * 200}, 64)
    assert decode(data + b"\xff\xda\0\x04ab" * 1000).size == (64, 64)


def test_a_tile_larger_than_the_image() -> None:
    """A TIFF of 16×16 px in a tile of 30 000×30 000."""
    pixels = zlib.compress(bytes(1000))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 284: 1, 322: 30_000, 323: 30_000, 325: len(pixels)}
    tags[324] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + pixels
    with pytest.raises(DecodeError, match="more than the limit of 448 MiB"):
        decode(data)


def test_a_long_list_of_pages() -> None:
    """Only the second is looked at."""
    first = made("L", "TIFF", {}, 16)
    (at,) = struct.unpack("<I", first[4:8])
    (count,) = struct.unpack("<H", first[at : at + 2])
    after = at + 2 + 12 * count
    pages = b"".join(struct.pack("<HI", 0, len(first) + 6 * (i + 1)) for i in range(100_000))
    assert decode(first[:after] + struct.pack("<I", len(first)) + first[after + 4 :] + pages).size == (16, 16)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (37, 23), (2000, 1100)])
def test_bands(size: tuple[int, int]) -> None:
    width, height = size
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(values)
    parts = list(bands((0, 0, width, height)))
    assert [part[1] for part in parts[1:]] == [part[3] for part in parts[:-1]] and parts[-1][3] == height
    assert (pixels_in(image, (0, 0, width, height)) == values).all()
    rows, columns = np.array(sorted({0, height // 2, height - 1})), np.array(sorted({width // 3, width - 1}))
    assert (pixels_at(image, rows, columns) == values[rows][:, columns]).all()
    assert pixels_in(image.convert("L"), (0, 0, width, 1)).shape == (1, width, 1)


def test_the_limits_agree() -> None:
    """RGB of the most pixels fits; and the most scans are more than any encoder makes."""
    assert MAX_PIXELS * 4 < DECODE_BYTES and MOST_SCANS > 64
