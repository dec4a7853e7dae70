"""Tar shards on disk: layout, labels, splits, reading by offset, and every refusal."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from inceptionnet.data import open_source
from inceptionnet.data.class_names import ClassNames
from inceptionnet.data.names import expand
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, DecodeError

from .made import png, write_tar, write_tree


def labelled(*labels: object, first: int = 0) -> dict[str, bytes]:
    """Image i is grey first + i and called so."""
    files = {}
    for i, label in enumerate(labels, first):
        files |= {f"{i:04}.png": png(i), f"{i:04}.cls": str(label).encode()}
    return files


def read_all(split: Split) -> list[bytes]:
    return [split.read(i) for i in range(len(split))]


@pytest.mark.parametrize("folder", ["", "data"])
def test_splits_by_file_name_and_classes_beside_the_shards(tmp_path: Path, folder: str) -> None:
    write_tar(tmp_path / folder / "train-000.tar", labelled(0, 1, 1))
    write_tar(tmp_path / folder / "train-001.tar", labelled(2, first=3))
    write_tar(tmp_path / folder / "validation-000.tar", labelled(1, "zebra", first=4))
    (tmp_path / "classes.txt").write_text("zebra\nant\n\npolar bear\n")
    source = open_source(tmp_path)
    assert source.title == tmp_path.name and source.classes == ("zebra", "ant", "polar bear")
    assert source.note == "split as found (4 train, 2 val)" and list(source.splits) == ["train", "val"]
    train, val = source.splits.values()
    assert isinstance(train, Split) and isinstance(val, Split)
    assert train.names == [f"train-000.tar/000{i}.png" for i in range(3)] + ["train-001.tar/0003.png"]
    assert train.labels.tolist() == [0, 1, 1, 2] and train.labels.dtype == np.int64 and val.labels.tolist() == [1, 0]
    assert read_all(train) == [png(i) for i in range(4)] and read_all(val) == [png(4), png(5)]
    assert read_all(pickle.loads(pickle.dumps(train))) == read_all(train)


def test_one_shard_is_held_out_of_by_name_like_a_folder(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "pets.tar", labelled(*[10, 2] * 10))
    source = open_source(path, seed=3)
    assert source.title == "pets.tar" and source.classes == ("2", "10")
    assert source.note.startswith("not split: 20 % of the images held out as val, chosen by file name and seed 3 (")
    for split in source.splits.values():
        assert isinstance(split, Split)
        for name, label, data in zip(split.names, split.labels, read_all(split), strict=True):
            number = int(name.removeprefix("pets.tar/").removesuffix(".png"))
            assert data == png(number) and source.classes[label] == ("2" if number % 2 else "10")


def test_patterns(tmp_path: Path) -> None:
    for i in range(3):
        write_tar(tmp_path / f"train-{i:03}.tar", labelled(0, 1, first=2 * i))
    write_tar(tmp_path / "val-0.tar", labelled(0, 1))
    splits = open_source(f"{tmp_path}/{{train-{{000..001}},val-0}}.tar").splits
    assert [len(split) for split in splits.values()] == [4, 2]
    with pytest.raises(DataError, match=r"train-003.tar: expected a tar file, got No such file or directory: check"):
        open_source(f"{tmp_path}/train-{{000..003}}.tar")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x", ["x"]),
        ("a{8..11}", ["a8", "a9", "a10", "a11"]),
        ("{08..10}b", ["08b", "09b", "10b"]),
        ("{a,b{1..2}}{,x}", ["a", "ax", "b1", "b1x", "b2", "b2x"]),
        ("{a", ["{a"]),
        ("{a}", ["{a}"]),
    ],
)
def test_expand_as_bash_does(pattern: str, names: list[str]) -> None:
    assert expand(pattern) == names
    bash = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True)
    assert bash.stdout.splitlines() == names


@pytest.mark.parametrize("pattern", ["{5..1}", "{0..999999999}", "{0..99999}{0..1}"])
def test_patterns_of_none_or_too_many(pattern: str) -> None:
    with pytest.raises(DataError, match=r"expected 1 to 100000 names, got .*: correct the braces"):
        expand(pattern)


def test_class_names() -> None:
    assert ClassNames.parse("b\na b\n", "").names == ("b", "a b")
    assert ClassNames.parse("1 cat\n0 big dog\n", "").names == ("big dog", "cat")
    from_one = ClassNames.parse("1 cat\n2 dog\n", "")
    assert from_one.names == ("cat", "dog") and from_one.number("2", "") == 1 and from_one.number("dog", "") == 1
    for text in ("", " \n", "a\nb\na\n"):
        with pytest.raises(
            DataError, match=r"^x: .*expected unique class names.*got (none|a twice \(line 1 has it too\))"
        ):
            ClassNames.parse(text, "x")


def test_what_is_in_a_key(tmp_path: Path) -> None:
    files = {
        "./a/b/one.PNG": png(1), "./a/b/one.txt": b"a caption", "./a/b/one.cls": b" 1\n",
        "._two.png": b"x", "two.json": b'{"label": "cat", "cls": 3}', "two.seg.png": b"mask", "two.jpg": png(2),
        "three.json": json.dumps({"cls": 1}).encode(), "three.webp": png(3),
        "README": b"x", "about.txt": b"x", "about.json": b"[]",
        "four.cls": b"cat", "four.png": png(4),
    }  # fmt: skip
    write_tar(tmp_path / "train.tar", files)
    write_tar(tmp_path / "test.tar", labelled(0, 1))
    write_tar(tmp_path / "extra.tar", {"broken": b""})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    source = open_source(tmp_path)
    train = source.splits["train"]
    assert isinstance(train, Split) and train.labels.tolist() == [1, 0, 1, 0]
    assert [name.removeprefix("train.tar/") for name in train.names] == [
        "a/b/one.PNG",
        "two.jpg",
        "three.webp",
        "four.png",
    ]
    assert read_all(train) == [png(i) for i in range(1, 5)]
    assert source.note == "split as found (4 train, 2 test); extra.tar ignored: not named after a split"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_form_of_tar(tmp_path: Path, format: int) -> None:
    deep = "d" * 80 + "/" + "é" * 30
    files = {f"{deep}{i}.{kind}": data for i in range(4) for kind, data in (("png", png(i)), ("cls", b"%d" % (i % 2)))}
    splits = open_source(write_tar(tmp_path / "x.tar", files, format=format)).splits
    found = {name: data for split in splits.values() for name, data in zip(split.names, read_all(split), strict=True)}
    assert found == {f"x.tar/{deep}{i}.png": png(i) for i in range(4)}


def test_a_tar_that_the_command_made(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", labelled(0, 1, 0, 1))
    subprocess.run(["tar", "--sort=name", "-cf", tmp_path / "x.tar", "-C", root, "."], check=True)
    assert sum(map(len, open_source(tmp_path / "x.tar").splits.values())) == 4


def test_a_folder_of_images_keeps_its_tar_out(tmp_path: Path) -> None:
    write_tree(tmp_path, ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "pets.tar"])
    assert open_source(tmp_path).note.endswith("1 non-image file ignored (.tar)")


inherited: Split


def read_inherited() -> list[bytes]:
    return [data for _ in range(20) for data in read_all(inherited)][-len(inherited) :]


def test_forked_processes_read_at_once(tmp_path: Path) -> None:
    files = {}
    for i in range(8):
        files |= {f"{i}.jpg": np.random.default_rng(i).bytes(50_000), f"{i}.cls": b"%d" % (i % 2)}
    global inherited  # by fork, not by pickle
    split = open_source(write_tar(tmp_path / "x.tar", files)).splits["train"]
    assert isinstance(split, Split)
    inherited, here = split, read_all(split)
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        there = [pool.submit(read_inherited) for _ in range(2)]
        assert read_inherited() == here and all(future.result() == here for future in there)


def test_a_image_over_the_limit_and_a_shard_that_shrank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", labelled(0, 1, 0, 1))
    split = open_source(path).splits["train"]
    assert isinstance(split, Split)
    size = len(split.read(0))
    with monkeypatch.context() as patch:
        patch.setattr("inceptionnet.data.tar.IMAGE_BYTES", size - 1)
        with pytest.raises(
            DecodeError, match=rf"^x.tar/000\d.png: has {size} bytes, more than the limit of {size - 1}$"
        ):
            split.read(0)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(
        DecodeError, match=r"^x.tar/000\d.png: cannot be read \(the shard was truncated since it was opened\)$"
    ):
        split.read(len(split) - 1)
    path.unlink()
    with pytest.raises(DecodeError, match=r"cannot be read \(No such file or directory\)$"):
        split.read(0)


REFUSED = {
    "no label": (
        {"a/0.png": b"", "a/1.png": b""},
        "expected a/0.cls next to a/0.png, got none: add it right after the image",
    ),
    "no image": ({"0.cls": b"1", "0.mp4": b""}, r"expected one image \(.*.bmp .*\) called 0, got .cls .mp4"),
    "two images": ({"0.cls": b"1", "0.jpg": b"", "0.png": b""}, "called 0, got .cls .jpg .png"),
    "twice": ({"0.jpg": b"", "0.JPG": b"", "0.cls": b"1"}, "expected 0.JPG once, got it twice"),
    "torn apart": (
        {"0.jpg": b"", "1.jpg": b"", "0.cls": b"1", "1.cls": b"1"},
        "expected 0.cls next to 0.jpg, got none",
    ),
    "empty label": (labelled(""), "0000.cls: expected an integer or a class name, got b''"),
    "two lines": (labelled("1\n2"), r"0000.cls: expected an integer or a class name, got b'1\\n2'"),
    "no text": ({"0.png": b"", "0.cls": b"\xff"}, r"0.cls: expected an integer or a class name, got b'\\xff'"),
    "no json": ({"0.png": b"", "0.json": b"{"}, "0.json: expected an integer or a class name, as .* got b'{'"),
    "no label in json": ({"0.png": b"", "0.json": b'{"x": 1}'}, "0.json: expected an integer or a class name, as"),
    "an object in json": ({"0.png": b"", "0.json": b'{"label": {"name": "a"}}'}, "0.json: expected an integer or a"),
    "null in json": ({"0.png": b"", "0.json": b'{"label": null}'}, "0.json: expected an integer or a class name"),
    "two dots": (
        {"0.jpg": b"", "0.cls": b"1", "1.v2.jpg": b"", "1.v2.cls": b"1"},
        "expected names with one dot, since WebDataset ends the key at the first, got 1.v2.jpg: rename",
    ),
    "nothing": ({}, "expected images .* in the tar shards, got none in 1: add them"),
    "out of range": (labelled(0, 1, 2), r"0002.png: expected a label from 0 to 1 or a name in classes.txt, got 2"),
    "unlabelled": (labelled(0, 1, -1), r"0002.png: expected a label from 0 to 1 or a name in classes.txt, got -1"),
    "no such name": (labelled("a", "c"), r"0001.png: expected a label from 0 to 1 or a name in classes.txt, got c"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_contents(tmp_path: Path, case: str) -> None:
    files, reason = REFUSED[case]
    path = write_tar(tmp_path / "x.tar", files)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=reason) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_torn_and_broken_tars(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", labelled(*[0, 1] * 4))
    whole = path.read_bytes()

    def refused(data: bytes, reason: str) -> None:
        path.write_bytes(data)
        with pytest.raises(DataError, match=reason) as caught:
            open_source(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    refused(
        whole[:520],
        "expected a complete tar file, got 0000.png with 68 bytes, of which 8 are present: download it again",
    )
    refused(whole[:2048], "expected a complete tar file, got one that ends at byte 2048 of 2048: download it again")
    refused(whole[:2100], "expected a complete tar file, got one that ends at byte 2048 of 2100")
    refused(whole[:2048] + b"x" * 4096, "expected a complete tar file, got one that ends at byte 2048 of 6144")
    refused(b"", "expected a tar file, got a damaged one")
    refused(b"version https://git-lfs.github.com/spec/v1\n" * 20, "expected a tar file, got a damaged one")
    refused(gzip.compress(whole), r"expected an uncompressed tar file, got a compressed one: unpack it \(gunzip\)")
    header = tarfile.TarInfo("0.png")
    header.size = -(2**40)
    refused(header.tobuf(tarfile.GNU_FORMAT) + whole, "got 0.png with -1099511627776 bytes, of which")
    header.size = 2**60
    refused(header.tobuf(tarfile.GNU_FORMAT) + whole, "got 0.png with 1152921504606846976 bytes, of which")


def test_links_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        label = tarfile.TarInfo("0.cls")
        label.size = 1
        tar.addfile(label, io.BytesIO(b"1"))
    with pytest.raises(DataError, match=r"called 0, got \.cls"):
        open_source(path)


def test_unreadable_class_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", labelled(0, 1))
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"classes.txt: expected unique class names, one per line, got none"):
        open_source(tmp_path)
