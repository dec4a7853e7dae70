"""Every odd kind of image, with the pixels it must give, and every kind that must be refused."""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inceptionnet.data import conversion, decode, formats, read_image
from inceptionnet.data.decode import decode_box, decode_stored, upright
from inceptionnet.data.limits import MAX_PIXELS
from inceptionnet.errors import DecodeError

from .made import encoded, png

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(data: bytes, channels: int = 3) -> np.ndarray:
    image = decode(data, channels=channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    values = np.asarray(image)
    box = decode_box(data, lambda width, height: (0, 0, width, height), at_least_px=MAX_PIXELS, channels=channels)
    assert np.abs(box.reshape(values.shape).astype(int) - values).max() <= 2
    return values


def quarters() -> Image.Image:
    """Red, green over blue, white: no turn or mirror image of it is itself. 32×16 px."""
    corners = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
    return Image.fromarray(corners.repeat(8, 0).repeat(16, 1))


@pytest.mark.parametrize("format", ["BMP", "GIF", "PNG", "PPM", "TIFF", "WEBP"])
def test_plain_images_come_back_exactly(format: str) -> None:
    data = encoded(quarters(), format, **({"lossless": True} if format == "WEBP" else {}))
    assert (pixels(data) == np.asarray(quarters())).all()


def test_jpeg_and_grey() -> None:
    assert (
        np.abs(
            pixels(encoded(quarters(), "JPEG", quality=95, subsampling=0)).astype(int) - np.asarray(quarters())
        ).max()
        < 12
    )
    assert (pixels(png(77)) == 77).all() and pixels(png(77)).shape == (4, 4, 3)
    assert (pixels(png(77), channels=1) == 77).all() and pixels(png(77), channels=1).shape == (4, 4)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert pixels(encoded(quarters()), channels=1)[::8, ::16].tolist() == [[76, 150], [29, 255]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format: str) -> None:
    # Cyan ink alone at 200/255 leaves 55 of red.
    data = encoded(
        Image.new("CMYK", (16, 16), (200, 0, 0, 0)), format, **({"quality": 100} if format == "JPEG" else {})
    )
    assert np.abs(pixels(data).reshape(-1, 3).astype(int) - (55, 255, 255)).max() <= 2


def test_palette() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels(encoded(image)).tolist() == [[list(RED), list(BLUE)]]
    assert pixels(encoded(image, transparency=0)).tolist() == [[list(WHITE), list(BLUE)]]
    assert pixels(encoded(image, transparency=bytes([255, 0]))).tolist() == [[list(RED), list(WHITE)]]
    assert pixels(encoded(image, "GIF", transparency=1)).tolist() == [[list(RED), list(WHITE)]]


def test_alpha_is_laid_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (100, 0, 200, 51))  # a fifth: 100/5 + 255·4/5 = 224, 204, 200/5 + 204 = 244
    assert pixels(encoded(image)).tolist() == [[list(RED), list(WHITE), [224, 204, 244]]]
    grey = Image.new("LA", (1, 1), (0, 51))
    assert pixels(encoded(grey), channels=1).tolist() == [[204]]
    assert pixels(encoded(Image.new("L", (1, 1), 9), transparency=9)).tolist() == [[list(WHITE)]]
    assert pixels(encoded(Image.new("RGB", (1, 1), RED), transparency=RED)).tolist() == [[list(WHITE)]]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]  # value / 257, rounded
    for format in ("PNG", "TIFF"):
        assert pixels(encoded(Image.fromarray(values), format), channels=1).tolist() == [expected]
    big_endian = b"P5 6 1 65535\n" + values.astype(">u2").tobytes()
    assert pixels(big_endian, channels=1).tolist() == [expected]
    assert pixels(encoded(Image.fromarray(values))).tolist() == [[[value] * 3 for value in expected]]


def test_one_bit() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    for format in ("PNG", "TIFF", "BMP"):
        assert pixels(encoded(image, format)).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation(format: str, orientation: int) -> None:
    upright = np.asarray(quarters())
    # What a camera stores so that this orientation puts it upright (Exif 2.3, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    how = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    found = pixels(encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **how))
    assert found.shape == upright.shape and np.abs(found.astype(int) - upright).max() < 12


def photograph(width: int = 120, height: int = 96) -> Image.Image:
    """Ramps of colour, some noise."""
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([x * 200 // width, y * 200 // height, (x + y) % 200], -1)
    return Image.fromarray((ramps + np.random.default_rng(0).integers(0, 30, ramps.shape)).astype(np.uint8))


BOXES = [(0, 0, 120, 96), (3, 50, 99, 96), (119, 95, 120, 96)] + [(10, 5, 81, bottom) for bottom in range(14, 51)]
JPEGS = {
    "whole colours": {"subsampling": 0},
    "half": {"subsampling": 1},
    "quarter": {"subsampling": 2},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "comment": {"comment": b"\xff\xc0 is the mark of a frame, \xff\xd9 the last"},
}


@pytest.mark.parametrize("how", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpegs_box_is_that_of_the_whole_image(how: dict[str, Any], mode: str, channels: int) -> None:
    data = encoded(photograph().convert(mode), "JPEG", **how)
    whole = pixels(data, channels).reshape(96, 120, channels).astype(int)
    for box in BOXES:
        left, top, right, bottom = box
        found = decode_box(data, lambda *size, box=box: box, at_least_px=200, channels=channels)
        assert found.dtype == np.uint8 and found.shape == (bottom - top, right - left, channels)
        assert np.abs(found - whole[top:bottom, left:right]).max() <= 2  # two builds of libjpeg-turbo; Y or RGB → grey


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are none
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("at_least_px", [100, 10])  # the first leaves no room for fractions
def test_boxes_are_chosen_upright(format: str, orientation: int, at_least_px: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(photograph().resize((240, 192)), format, exif=exif)
    whole = decode(data)
    told = []

    def choose(width: int, height: int) -> tuple[int, int, int, int]:
        told.append((width, height))
        return (20, 40, 102, 124)

    found = decode_box(data, choose, at_least_px=at_least_px)
    assert told == [whole.size] == [(192, 240) if 5 <= orientation <= 8 else (240, 192)]
    if format == "JPEG" and at_least_px == 10:  # eighths of 20, 40, 102, 124: 2.5, 5, 12.75, 15.5, halves up
        expected = whole.crop((24, 40, 104, 128)).reduce(8)
        assert found.shape == (11, 10, 3) and np.abs(found - np.asarray(expected).astype(int)).mean() < 4
    else:
        assert np.abs(found - np.asarray(whole.crop((20, 40, 102, 124))).astype(int)).max() <= 2
    assert min(found.strides) > 0  # torch takes no views that run backwards


def test_a_fraction_is_taken_only_where_the_box_keeps_enough_pixels() -> None:
    data = encoded(photograph(640, 480), "JPEG")
    for side, at_least_px, expected in [
        (400, 401, 400), (400, 201, 400), (400, 200, 200), (399, 200, 399), (400, 100, 100), (400, 50, 50),
        (400, 10, 50), (3, 1, 1), (1, 1, 1),
    ]:  # fmt: skip
        found = decode_box(data, lambda *size, side=side: (1, 1, 1 + side, 1 + side), at_least_px=at_least_px)
        assert found.shape == (expected, expected, 3) and expected >= min(side, at_least_px)
        scale = side // expected
        start = (1 + scale // 2) // scale * scale
        near = photograph(640, 480).crop((start, start, start + expected * scale, start + expected * scale))
        assert np.abs(found - np.asarray(near.reduce(scale)).astype(int)).mean() < 10
    # The longer side does not count.
    assert decode_box(data, lambda *size: (0, 0, 400, 100), at_least_px=100).shape == (100, 400, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse() -> None:
    worded = b"Exif\0\0MM\0*" + struct.pack(">LHHHL4sL", 8, 1, 274, 2, 4, b"six\0", 0)  # an orientation in words
    assert pixels(encoded(quarters(), "JPEG", exif=worded)).shape == (16, 32, 3)
    assert pixels(encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff")).shape == (16, 32, 3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_animations(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    how = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **how)
    assert (pixels(data) == RED).all()


def test_content_counts_not_the_name() -> None:
    assert decode(encoded(quarters(), "PNG"), name="lies.jpg").size == (32, 16)


WHOLE = {
    "jpeg": encoded(quarters(), "JPEG"),
    "progressive": encoded(quarters(), "JPEG", progressive=True),
    "png": encoded(quarters()),
    "gif": encoded(quarters(), "GIF"),
    "bmp": encoded(quarters(), "BMP"),
    "webp": encoded(quarters(), "WEBP"),
    "tiff": encoded(quarters(), "TIFF", compression="tiff_lzw"),
    "ppm": encoded(quarters(), "PPM"),
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", WHOLE)
def test_truncated_anywhere_is_refused_or_unharmed(kind: str) -> None:
    whole = pixels(WHOLE[kind])
    for cut in range(1, len(WHOLE[kind]), 7):
        try:
            found = pixels(WHOLE[kind][:-cut])
        except DecodeError as error:
            assert str(error).startswith("image: ") and "\n" not in str(error)
        else:
            assert cut < 24 and (found == whole).all()  # only an end mark was missing


def verdict(decoding: Callable[[], object]) -> str:
    try:
        decoding()
    except DecodeError as error:
        return str(error)
    return "decoded"


def damaged() -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for how in JPEGS.values():
        data = encoded(photograph(), "JPEG", **how)
        yield from (data[: rng.integers(1, len(data))] for _ in range(30))
        for _ in range(30):
            flipped = bytearray(data)
            flipped[rng.integers(len(data))] = rng.integers(256)
            yield bytes(flipped)
            start = rng.integers(2, len(data))
            yield data[:start] + data[start + rng.integers(1, 30) :]
        for mark in (b"\xff\xd9", b"\xff\xe1\x70\x00", b"\xff\xda"):
            yield data[:-500] + mark + data[-500:]  # below the box
        yield data + b"behind the end"


@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:Corrupt EXIF data")
def test_a_box_is_refused_for_the_same_reasons_as_the_whole() -> None:
    files = [data[:-cut] for data in WHOLE.values() for cut in range(1, len(data), 25)] + list(damaged())
    seen = set()
    for data in files:
        whole = verdict(lambda data=data: decode(data))
        seen.add(whole)
        box = verdict(lambda data=data: decode_box(data, lambda *size: (0, 0, min(size), 1), at_least_px=200))
        assert box == whole
    assert len(seen) > 5


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"GIF89", "is not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image in a known format"),
        (b"<html>404</html>", "is not an image in a known format"),
        (encoded(quarters(), "JPEG")[:-10], r"is truncated or damaged \(image file is truncated"),
        (huge_png(131072, 682), "is truncated or damaged"),  # at the limits the size is no reason
        (huge_png(131072, 683), "more than the limit of 89478485"),
        (huge_png(131073, 1), "has 131073×1 pixels, along one side more than the limit of 131072"),
        (huge_png(60000, 60000), "more than the limit of"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "floating-point pixels"),
        (encoded(Image.fromarray(np.array([[70000]], np.int32)), "TIFF"), "32-bit pixels"),
        (encoded(Image.fromarray(np.array([[-1]], np.int32)), "TIFF"), "32-bit pixels"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=rf"^cat/1\.jpg: .*{reason}") as caught:
        decode(data, name="cat/1.jpg")
    assert "\n" not in str(caught.value)
    with pytest.raises(DecodeError) as caught_again:
        decode_box(data, lambda *size: (0, 0, *size), at_least_px=1, name="cat/1.jpg")
    assert str(caught_again.value) == str(caught.value)


def test_read_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    assert read_image(path) == png()
    with pytest.raises(DecodeError, match=r"none\.png: cannot be read \(No such file or directory\)$"):
        read_image(tmp_path / "none.png")
    with pytest.raises(DecodeError, match=r"^short: cannot be read \(Is a directory\)$"):
        read_image(tmp_path, name="short")
    monkeypatch.setattr(sys.modules["inceptionnet.data.decode"], "IMAGE_BYTES", 10)
    with pytest.raises(DecodeError, match="more than the limit of 10"):
        read_image(path)


def tiff(array: np.ndarray, photometric: int) -> bytes:
    """A plain TIFF of one strip (TIFF 6.0), little-endian, without compression."""
    channels = array.shape[2] if array.ndim == 3 else 1
    kind, bits = {"u": 1, "f": 3}[array.dtype.kind], array.dtype.itemsize * 8
    tags = [
        (256, 4, [array.shape[1]]), (257, 4, [array.shape[0]]), (258, 3, [bits] * channels), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [0]), (277, 3, [channels]), (278, 4, [array.shape[0]]),
        (279, 4, [array.nbytes]), (284, 3, [1]), (338, 3, [0] * max(0, channels - 3)), (339, 3, [kind] * channels),
    ]  # fmt: skip
    tags = [tag for tag in tags if tag[2]]
    entries, after = [], b""
    end = 8 + 2 + 12 * len(tags) + 4
    for number, type_, values in tags:
        raw = b"".join(struct.pack({3: "<H", 4: "<I"}[type_], value) for value in values)
        if len(raw) > 4:
            after, raw = after + raw, struct.pack("<I", end + len(after))
        entries.append([number, type_, len(values), raw])
    for entry in entries:
        if entry[0] == 273:
            entry[3] = struct.pack("<I", end + len(after))
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4) + after + array.tobytes()


def test_tiffs_of_science() -> None:
    colours = np.asarray(quarters())
    grey = colours[..., 0]
    assert (pixels(tiff(colours, 2)) == colours).all()
    assert (pixels(tiff(colours.astype("<u2") * 257, 2)) == colours).all()
    assert (pixels(tiff(np.concatenate([colours, colours[..., :2] // 2], 2), 2)) == colours).all(), "five channels"
    assert (pixels(tiff(grey.astype("<u2") * 257, 1), 1) == grey).all()
    assert (pixels(tiff(grey.astype("<u2") * 257, 0), 1) == 255 - grey).all(), "0 is white"
    with pytest.raises(DecodeError, match="floating-point pixels of unknown range"):
        decode(tiff((grey / 255).astype("<f4"), 1))
    with pytest.raises(DecodeError, match="TIFF with channels or bits that Pillow does not read"):
        decode(tiff((grey / 255).astype("<f8"), 1))


def test_sixteen_bits_that_use_twelve_are_scaled_as_they_are_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversion, "_said", set())
    values = np.array([[0, 2000, 4080]], np.uint16)
    for name in ("a.png", "b.png"):
        found = np.asarray(decode(encoded(Image.fromarray(values)), channels=1, name=name))
        assert found.tolist() == np.rint(values / 257).astype(int).tolist()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a.png: has 16-bit values up to 4080 only, nearly black of 65535")
    decode(encoded(Image.fromarray(values * 16)))
    assert len(caplog.records) == 1


def test_the_first_of_several_pages_is_used_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversion, "_said", set())
    pages = [Image.new("RGB", (3, 2), colour) for colour in ("red", "lime", "blue")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for _ in range(2):
        assert (np.asarray(decode(data, name="a.tif")) == (255, 0, 0)).all()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "a.tif: has several pages, of which the first is used; save others as files of their own"


def test_the_page_that_somebody_chose_is_used(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (3, 2), colour) for colour in ("red", "lime", "blue")]
    file = tmp_path / "a.tif"
    file.write_bytes(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    with Image.open(file) as image:
        for page, colour in ((2, (0, 0, 255)), (1, (0, 255, 0)), (0, (255, 0, 0))):
            image.seek(page)
            assert (np.asarray(upright(image)) == colour).all() and image.tell() == page
        image.seek(2)
        image.load()
    assert (np.asarray(upright(image)) == (0, 0, 255)).all()  # the file is closed


@pytest.mark.parametrize(("format", "how"), [("AVIF", {"quality": 100, "subsampling": "4:4:4"}), ("JPEG2000", {})])
def test_newer_formats_under_any_name(format: str, how: dict[str, Any]) -> None:
    image = quarters()
    found = pixels(encoded(image, format, **how))
    assert np.abs(found.astype(int) - np.asarray(image)).max() <= 4


# 64×64 px: above (200, 60, 30), below (20, 60, 200); written by libheif.
HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABegABAAAAAAAAAHIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAA"
    "AAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkA"
    "AAAwAAAwAeoCCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAA"
    "QAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAHptZGF0AAAAbigBrwng4wucuq///bdP//55S5D9PS06gm3/+ugeO/"
    "w2JP/9wiwmgXLMvUEMe2BN1AoBKm5EdCXDRcOhYwrkUM6zTuG6LfpcRoRKfgVUy7dmIGjmAgYBd1ryxYcwWxjsqRW313Cvxvh/hvk0Cu/g"
)


def test_heic_by_the_extra() -> None:
    pytest.importorskip("pi_heif")
    found = pixels(base64.b64decode(HEIC)).astype(int)
    assert found.shape == (64, 64, 3)
    assert np.abs(found[:30] - (200, 60, 30)).max() <= 4 and np.abs(found[34:] - (20, 60, 200)).max() <= 4


def test_heic_without_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_why_no_heic", formats._why_no_heic.__wrapped__)  # what was found is kept
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(DecodeError, match=r"^IMG_1.jpg: is HEIC, .*pip install 'inceptionnet\[heic\]'$"):
        decode(base64.b64decode(HEIC), name="IMG_1.jpg")


def test_a_broken_package_for_heic_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pi_heif.py").write_text('raise RuntimeError("libheif of another version")')
    monkeypatch.setattr(formats, "_why_no_heic", formats._why_no_heic.__wrapped__)
    monkeypatch.delitem(sys.modules, "pi_heif", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DecodeError, match=r"^IMG_1.jpg: is HEIC, which needs pi-heif, .*libheif of another version"):
        decode(base64.b64decode(HEIC), name="IMG_1.jpg")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "a companion file of macOS"),
        (b"\n<!DOCTYPE HTML><title>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS: run git lfs pull"),
        (b"8BPS\0\1", "a Photoshop file"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, what: str) -> None:
    with pytest.raises(DecodeError, match=rf"is not an image in a known format \(.*\), but {what}$"):
        decode(data)


def test_as_stored_is_pillows_conversion() -> None:
    """What pytorch-fid and torch-fidelity read: no EXIF rotation, alpha dropped."""
    exif = Image.Exif()
    exif[274] = 6
    turned = encoded(photograph(), "PNG", exif=exif)
    assert (np.asarray(decode_stored(turned)) == np.asarray(photograph())).all()
    clear = photograph().convert("RGBA")
    clear.putalpha(7)
    assert (np.asarray(decode_stored(encoded(clear))) == np.asarray(photograph())).all()
    assert decode_stored(encoded(clear), channels=1).mode == "L"
    grey = encoded(Image.fromarray(np.array([[257 * 200]], np.uint16)))
    assert np.asarray(decode_stored(grey)).tolist() == [[[200] * 3]]
