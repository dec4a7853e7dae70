"""`inceptionnet check`: every kind of corrupt image is listed, unusual images and duplicates are counted."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inceptionnet.cli import main
from inceptionnet.data import open_source
from inceptionnet.data.check import check
from inceptionnet.data.splits import Source, Split, StreamSplit
from inceptionnet.errors import DataError

from .data.made import encoded, png, write_tree


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def photo(width: int = 300, height: int = 200, *, mode: str = "RGB", seed: int = 0, **how: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return encoded(Image.fromarray(noise).resize((width, height)).convert(mode), "JPEG", **how)


TURNED = Image.Exif()
TURNED[0x0112] = 6
BAD = {
    "train/cat/bomb.png": (bomb(50_000, 50_000), "has more than the limit of 89478485 pixels"),
    "train/cat/cut.jpg": (photo()[:2000], "is truncated or damaged ("),
    "train/cat/empty.jpg": (b"", "is empty (0 bytes)"),
    "train/dog/float.tif": (encoded(Image.new("F", (9, 9)), "TIFF"), "has floating-point pixels"),
    "train/dog/large.png": (bomb(10_000, 9_500), "has 10000×9500 pixels, more than the limit of 89478485"),
    "train/dog/page.jpg": (b"<html>404</html>", "is not an image in a known format ("),
    "val/cat/also_empty.png": (b"", "is empty (0 bytes)"),
}
GOOD = {
    "train/cat/0.jpg": photo(),
    "train/cat/1.jpg": photo(seed=1),
    "train/cat/2.jpg": photo(seed=1),  # a copy
    "train/cat/ink.jpg": photo(mode="CMYK"),
    "train/dog/0.jpg": photo(seed=2),
    "train/dog/turned.jpg": photo(60, 20, exif=TURNED),
    "train/dog/palette.gif": encoded(Image.new("P", (40, 40)), "GIF"),
    "train/dog/deep.png": encoded(Image.new("I;16", (40, 40)), "PNG"),
    "val/cat/0.jpg": photo(seed=2),  # a dog in train
    "val/dog/0.jpg": photo(1300, 1100),
    "val/dog/clear.png": encoded(Image.new("RGBA", (31, 33)), "PNG"),
}


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tree(tmp_path_factory.mktemp("check"), GOOD | {name: data for name, (data, _) in BAD.items()})
    (root / "train/cat/gone.png").symlink_to(root / "nowhere")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_found(nasty: Path, workers: int) -> None:
    told = []
    report = check(open_source(nasty), workers=workers, advance=lambda *counts: told.append(counts))
    expected = [(name, why) for name, (_, why) in BAD.items()]
    expected.insert(3, ("train/cat/gone.png", "cannot be read (No such file or directory)"))
    for bad, (name, why) in zip(report.decode_errors, expected, strict=True):
        assert bad.name == name and bad.split == name.partition("/")[0] and bad.reason.startswith(why)
    assert [sum(count) for count in zip(*told, strict=True)] == [len(GOOD) + 8, 8]
    assert report.classes == ("cat", "dog") and report.counts == {"train": (8, 7), "val": (2, 2)} and len(report) == 19
    assert report.bytes == sum(map(len, GOOD.values())) and report.formats == {"JPEG": 8, "PNG": 2, "GIF": 1}
    assert report.modes == {"RGB": 7, "CMYK": 1, "P": 1, "I;16": 1, "RGBA": 1}
    assert report.unusual == {
        "CMYK": 1, "palette": 1, "16-bit": 1, "16-bit without values above 4095 (nearly black)": 1, "transparency": 1,
        "EXIF rotation": 1
    }  # fmt: skip
    counted = {(found.from_px, found.below_px): found.images for found in report.short_sides if found.images}
    assert counted == {(1, 32): 2, (32, 64): 2, (160, 224): 6, (1024, 2048): 1}
    assert {key: (one.split, one.name, one.width_px, one.height_px) for key, one in report.extremes.items()} == {
        "smallest": ("train", "train/dog/turned.jpg", 20, 60),
        "largest": ("val", "val/dog/0.jpg", 1300, 1100),
        "tallest": ("train", "train/dog/turned.jpg", 20, 60),
        "widest": ("train", "train/cat/0.jpg", 300, 200),
    }
    assert report.duplicates.keys() == {"train"} and report.duplicates_across_splits.keys() == {"train and val"}
    assert report.duplicates["train"].examples == (("train/cat/1.jpg", "train/cat/2.jpg"),)
    leak = (("train/dog/0.jpg", "val/cat/0.jpg"),)
    assert report.duplicates_across_splits["train and val"].examples == report.conflicting_labels.examples == leak


def test_near_duplicates_and_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = [encoded(Image.open(io.BytesIO(photo(seed=seed))).resize((150, 100)), "PNG") for seed in range(4)]
    files = {f"train/{'ab'[i % 2]}/P{i}.jpg": photo(seed=i) for i in range(4)}
    files |= {"train/b/P9.png": again[1], "val/a/P0.png": again[0], "val/b/P7.png": again[2], "val/b/P8.png": again[2]}
    root = write_tree(tmp_path, files)
    report = check(open_source(root, group_by="P."), workers=0)
    assert report.near_duplicates["train"].examples == (("train/b/P1.jpg", "train/b/P9.png"),)
    assert report.near_duplicates_across_splits["train and val"].examples == (
        ("train/a/P0.jpg", "val/a/P0.png"), ("train/a/P2.jpg", "val/b/P7.png"), ("train/a/P2.jpg", "val/b/P8.png"),
    )  # fmt: skip
    assert report.near_conflicting_labels.images == 2 and report.duplicates["val"].images == 1 and not report.plain
    assert report.groups == {"train": 5, "val": 3} and report.grouped_by == "P."
    assert report.groups_across_splits["train and val"].examples == ("P0",)
    code, out, _ = command(capsys, monkeypatch, root, "--workers", 0, "--group-by", "P.", "--limit-listed", 1)
    assert code == 0 and "groups    5 in train, 3 in val (P.)\n\n1 group in both train and val\n  P0\n" in out
    assert "3 near-duplicates in both train and val\n  val/a/P0.png ≈ train/a/P0.jpg\n  … and 2 more\n" in out
    assert "1 near-duplicate within train\n" in out and "2 near-duplicates with conflicting labels\n" in out
    code, out, _ = command(capsys, monkeypatch, root, "--workers", 0, "--group-by", "P.", "--json")
    found = json.loads(out)
    assert found["groups_across_splits"] == {"train and val": {"groups": 1, "examples": ["P0"]}}
    assert found["near_duplicates"] == {"train": {"images": 1, "examples": [["train/b/P1.jpg", "train/b/P9.png"]]}}


def test_a_mirrored_copy_with_another_label_is_no_conflict(tmp_path: Path) -> None:
    """An arrow to the left is one to the right, mirrored."""
    image = Image.open(io.BytesIO(photo(seed=0)))
    mirrored = encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
    files = {"train/left/0.jpg": photo(seed=0), "train/right/0.png": mirrored, "train/left/1.jpg": photo(seed=1)}
    files |= {f"val/{kind}/2.jpg": photo(seed=2 + i) for i, kind in enumerate(("left", "right"))}
    report = check(open_source(write_tree(tmp_path, files)), workers=0)
    assert report.near_duplicates["train"].examples == (("train/left/0.jpg", "train/right/0.png"),)
    assert not report.near_conflicting_labels.images


def test_how_many_duplicates_are_named(tmp_path: Path) -> None:
    same = {f"{split}/{kind}/{i}.png": png(7) for split in ("train", "test") for kind in "ab" for i in range(5)}
    report = check(open_source(write_tree(tmp_path, same)), workers=0, listed=3)
    found = [
        report.duplicates["train"],
        report.duplicates["test"],
        report.duplicates_across_splits["train and test"],
        report.conflicting_labels,
    ]
    assert [(one.images, len(one.examples)) for one in found] == [(9, 3), (9, 3), (10, 3), (10, 3)]


@pytest.mark.parametrize("workers", [0, 2])
def test_streams(workers: int) -> None:
    images = [("a", 0, png(1)), ("b", 1, b""), ("c", 1, png(1)), ("d", 0, photo())]

    def source(length: int) -> Source:
        splits = {name: StreamSplit(name, length, 10, lambda shard: iter(images)) for name in ("train", "val")}
        return Source("x", ("cat", "dog"), splits, "")

    report = check(source(40), workers=workers)
    assert report.counts == {"train": (20, 20), "val": (20, 20)} and report.formats == {"PNG": 40, "JPEG": 20}
    assert [(bad.name, bad.reason) for bad in report.decode_errors] == [("b", "is empty (0 bytes)")] * 20
    assert report.duplicates_across_splits["train and val"].images == 30
    with pytest.raises(DataError, match="train: expected 41 images, got 40"):
        check(source(41), workers=workers)


def dies(index: int) -> bytes:
    if index == 20:
        os._exit(1)
    return png(index)


def test_a_process_that_dies_is_an_error() -> None:
    split = Split([f"{i}.png" for i in range(99)], np.arange(99) % 2, dies)
    with pytest.raises(DataError, match=r"^x: .* a worker process died .* between \d+.png and \d+.png: try fewer"):
        check(Source("x", ("a", "b"), {"train": split, "val": split}, ""), workers=2)


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object):
    monkeypatch.setattr(sys, "argv", ["inceptionnet", "check", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), *capsys.readouterr()


def test_command(nasty: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = command(capsys, monkeypatch, nasty, "--workers", 0)
    assert code == 1 and not err and out.rstrip().endswith("8 of 19 images are corrupt")
    assert (
        "corrupt image, train: train/cat/cut.jpg: is truncated or damaged (" in out
        and "split as found (15 train, 4 val)" in out
    )
    assert "1 duplicate in both train and val\n  val/cat/0.jpg = train/dog/0.jpg\n" in out
    assert "unusual   1 CMYK" in out and "largest   1300×1100 px, val: val/dog/0.jpg" in out
    code, out, err = command(capsys, monkeypatch, nasty, "--workers", 0, "--json", "--limit-listed", 0)
    found = json.loads(out)
    assert code == 1 and not err and found["data"] == str(nasty) and found["images"] == 19
    assert found["splits"]["train"] == {"images": 15, "classes": {"cat": 8, "dog": 7}}
    assert len(found["decode_errors"]) == 8 and set(found["decode_errors"][0]) == {"split", "name", "reason"}
    assert found["duplicates_across_splits"] == {"train and val": {"images": 1, "examples": []}}
    assert found["short_sides"][0] == {"from_px": 1, "below_px": 32, "images": 2}


def test_command_on_good_and_on_no_data(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = command(capsys, monkeypatch, colours, "--workers", 0)
    assert code == 0 and out.endswith("\nall 36 images can be decoded\n") and "\nsmallest " not in out
    code, out, err = command(capsys, monkeypatch, tmp_path / "nowhere")
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1


def test_no_image_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {f"{kind}/{i}.png": b"" for kind in "ab" for i in range(2)})
    code, out, _ = command(capsys, monkeypatch, tmp_path, "--workers", 0)
    assert code == 1 and out.endswith("\n4 of 4 images are corrupt\n")


TELLING = """
from concurrent.futures import ProcessPoolExecutor
from inceptionnet.cli import main
submit = ProcessPoolExecutor.submit
def telling(*arguments):
    future = submit(*arguments)
    ProcessPoolExecutor.submit = submit
    print("at work", flush=True)
    return future
ProcessPoolExecutor.submit = telling
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a group of processes")
def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{kind}/{i}.jpg": photo(3000, 3000, seed=i) for kind in "ab" for i in range(2)})
    for i in range(2, 500):
        for kind in "ab":
            (tmp_path / kind / f"{i}.jpg").symlink_to(tmp_path / kind / "0.jpg")
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, "check", tmp_path, "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "at work\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=5)
    assert process.returncode == 130 and not out and "Traceback" not in err
