"""Images side by side: the published labels of ImageNet's validation set, other lists, and lists to leave out."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from inceptionnet.data import Source, Split, open_source
from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.matching import read_exclude_list
from inceptionnet.errors import DataError

from .made import png, write_tar, write_tree, write_zip

IMAGES = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 6)]
# How the published files begin: TF-slim's, Caffe's and the development kit's say the same of the same five images.
SLIM = ["n01751748", "n09193705", "n02105855", "n04263257", "n03125729"]
CAFFE = [65, 970, 230, 809, 516]
DEVKIT = [490, 361, 171, 822, 297]
# The development kit's map_clsloc.txt begins with the first three of these and ends with the last.
NUMBERS = {1: "n02119789", 2: "n02100735", 3: "n02110185", 1000: "n03255030", **dict(zip(DEVKIT, SLIM, strict=True))}
SLIM_FILE, GROUND_TRUTH = "imagenet_2012_validation_synset_labels.txt", "ILSVRC2012_validation_ground_truth.txt"


def text(lines: list[Any]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


LABELS = {
    SLIM_FILE: text(SLIM),
    "val.txt": text([f"{name} {number}" for name, number in zip(IMAGES, CAFFE, strict=True)]),
    "LOC_val_solution.csv": text([
        "ImageId,PredictionString",
        "ILSVRC2012_val_00000004,n04263257 85 1 499 272 ",
        "ILSVRC2012_val_00000001,n01751748 111 108 441 193 n01751748 0 3 50 80 ",
        *(f"{name[:-5]},{wnid} 131 0 499 254 " for name, wnid in zip(IMAGES, SLIM, strict=True) if name[-6] in "235"),
    ]),
    GROUND_TRUTH: text(DEVKIT),
}  # fmt: skip


def write_meta(
    file: Path, *, field: str = "ILSVRC2012_ID", inner: int = 860, wnids: dict[int, str] | None = None
) -> None:
    """As in the development kit: the 1000 classes in an order of its own, then the inner nodes of their tree."""
    rest = iter(sorted(set(imagenet_wnids()) - set(NUMBERS.values()), reverse=True))
    numbered = {n: NUMBERS.get(n) or next(rest) for n in range(1, 1001)}
    numbered |= {1001 + i: f"n0000{i:04}" for i in range(inner)} | (wnids or {})
    fields = [field, "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    synsets = np.zeros((len(numbered), 1), [(name, object) for name in fields])
    for row, (number, wnid) in enumerate(numbered.items()):
        children = np.arange(2.0 * (number > 1000))
        synsets[row, 0] = (
            float(number),
            wnid,
            "kit fox, Vulpes macrotis",
            "a fox",
            float(len(children)),
            children,
            0.0,
            1300.0,
        )
    savemat(file, {"synsets": synsets}, do_compression=True)


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A development kit's meta.mat."""
    file = tmp_path_factory.mktemp("devkit") / "meta.mat"
    write_meta(file)
    return file.read_bytes()


def wnids(source: Source, of: str = "all") -> dict[str, str]:
    _, split = source.pick(of)
    assert isinstance(split, Split)
    return {name: source.classes[label] for name, label in zip(split.names, split.labels, strict=True)}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("called", ["own name", "labels.dat"])
def test_published_labels_of_imagenet(tmp_path: Path, meta: bytes, kind: str, called: str) -> None:
    """By any name a file is known by what it holds; under its own it is found."""
    folder = write_tree(tmp_path / "val", IMAGES)
    given = kind if called == "own name" else called
    write_tree(tmp_path, {given: LABELS[kind], "meta.mat": meta})
    source = open_source(folder, labels=None if called == "own name" else tmp_path / called, evaluating=True)
    assert wnids(source) == dict(zip(IMAGES, SLIM, strict=True))
    assert source.classes == tuple(sorted(SLIM)) and source.title == "val" and not source.held_out
    assert source.note == f"split as found (5 val); labels from {tmp_path / given}"
    name, split = source.pick("auto", own=False)
    assert name == "val" and [split.read(i) for i in range(5)] == [png(i) for i in range(5)]


def test_the_synsets_of_later_kits(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta_clsloc.mat", field="ILSVRC2015_CLSLOC_ID", inner=0)
    write_tree(tmp_path, {"labels.txt": LABELS[GROUND_TRUTH]})
    source = open_source(write_tree(tmp_path / "val", IMAGES), labels=tmp_path / "labels.txt", evaluating=True)
    assert list(wnids(source).values()) == SLIM


KIT = "ILSVRC2012_devkit_t12/data/"
PLACES = {
    "in it": ("val", f"val/{SLIM_FILE}", "val/val.txt"),
    "beside it": ("val", "val.txt", f"{KIT}{SLIM_FILE}"),
    "the kit beside it": ("val", f"{KIT}{GROUND_TRUTH}", f"{KIT}readme.txt"),
    "above it": (".", SLIM_FILE, "other.txt"),
    "where Kaggle has it": ("ILSVRC/Data/CLS-LOC/val", "LOC_val_solution.csv", "ILSVRC/ImageSets/CLS-LOC/val.txt"),
}


@pytest.mark.parametrize("case", PLACES)
def test_labels_are_found(tmp_path: Path, meta: bytes, case: str) -> None:
    """The first file labels the images; the second is not looked at."""
    data, first, second = PLACES[case]
    images = "val" if data == "." else data
    write_tree(tmp_path, {f"{images}/{name}": png() for name in IMAGES})
    write_tree(tmp_path, {second: b"nonsense\n", first: LABELS[Path(first).name], f"{KIT}meta.mat": meta})
    source = open_source(tmp_path / data, evaluating=True)
    assert list(wnids(source).values()) == SLIM and f"labels from {tmp_path / first}" in source.note


def test_the_list_of_val_is_none_of_test(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"test/{i}.png": png(i) for i in range(4)} | {"val.txt": b"0.png 0\n1.png 1\n2.png 0\n"})
    with pytest.raises(DataError, match="expected "):
        open_source(tmp_path / "test", evaluating=True)
    (tmp_path / "test").rename(tmp_path / "photos")
    assert open_source(tmp_path / "photos", evaluating=True).classes == ("0", "1")


@pytest.mark.parametrize("case", sorted(set(PLACES) - {"above it"}))
def test_the_published_layout_is_trained_on(tmp_path: Path, meta: bytes, case: str) -> None:
    """Training images in folders of synsets, beside the flat validation images."""
    val, file, _ = PLACES[case]
    data = (tmp_path / val).parent
    train = {f"train/{wnid}/{i}.JPEG": png(i) for wnid in SLIM for i in range(2)}
    write_tree(data, {**train, **{f"val/{name}": png() for name in IMAGES}, "test/x.JPEG": png()})
    write_tree(tmp_path, {file: LABELS[Path(file).name], f"{KIT}meta.mat": meta})
    source = open_source(data)
    assert source.classes == tuple(sorted(SLIM)) and {name: len(one) for name, one in source.splits.items()} == {
        "train": 10,
        "val": 5,
    }
    assert wnids(source, "val") == {f"val/{name}": wnid for name, wnid in zip(IMAGES, SLIM, strict=True)}
    assert f"; labels of val from {tmp_path / file}; test ignored: 1 image without labels" in source.note


@pytest.mark.parametrize("top", ["", "val/", "ILSVRC2012_img_val/"])
def test_a_zip_of_images(tmp_path: Path, top: str) -> None:
    write_tree(tmp_path, {SLIM_FILE: LABELS[SLIM_FILE]})
    files = {f"{top}{name}": png(i) for i, name in enumerate(IMAGES)} | {"__MACOSX/._a.JPEG": b"x", "readme.md": b"x"}
    source = open_source(write_zip(tmp_path / "val.zip", files), evaluating=True)
    (split,) = source.splits.values()
    assert isinstance(split, Split) and split.read(3) == png(3)
    assert wnids(source) == dict(zip(IMAGES, SLIM, strict=True))
    assert source.note.endswith("; 1 non-image file ignored (.md); 1 hidden entry ignored (__MACOSX)")


LISTS = {
    "spaces": ["a b.jpg tabby cat", "c.png  dog", "d.e.png tabby cat"],
    "tabs": ["a b.jpg\ttabby cat", "c.png\tdog", "d.e.png\ttabby cat"],
    "commas": ["a b.jpg,tabby cat", "c.png, dog", "d.e.png,tabby cat"],
    "a header": ["filename,label", "a b.jpg,tabby cat", "c.png,dog", "d.e.png,tabby cat"],
    "quotes": ['"name","class"', '"c.png","dog"', '"a b.jpg","tabby cat"', '"d.e.png","tabby cat"'],
    "no endings": ["c\tdog", "a b\ttabby cat", "d.e\ttabby cat"],
    "other endings and folders": ["raw/c.tiff\tdog", "raw/a b.PNG\ttabby cat", "x/y/d.e.png\ttabby cat"],
    "Windows": ["\ufeffc.png,dog\r", "a b.jpg,tabby cat\r", "d.e.png,tabby cat\r", "\r"],
}


@pytest.mark.parametrize("case", LISTS)
def test_any_list_of_names_and_classes(tmp_path: Path, case: str) -> None:
    lines = LISTS[case]
    if case == "spaces":  # a name with a space in it needs another mark
        lines = [line.replace("a b.jpg", "ab.jpg") for line in lines]
    first = "ab.jpg" if case == "spaces" else "a b.jpg"
    folder = write_tree(tmp_path / "pets", [first, "c.png", "d.e.png"])
    write_tree(tmp_path, {"list": text(lines)})
    source = open_source(folder, labels=tmp_path / "list")
    assert source.classes == ("dog", "tabby cat")
    assert wnids(source) == {first: "tabby cat", "c.png": "dog", "d.e.png": "tabby cat"}
    assert source.held_out and "; labels from " in source.note


def test_numbers_are_imagenets_only_for_its_images(tmp_path: Path) -> None:
    write_tree(tmp_path, {"list": text(["a.png 10", "b.png 9", "c.png 65"])})
    folder = write_tree(tmp_path / "x", ["a.png", "b.png", "c.png"])
    assert open_source(folder, labels=tmp_path / "list", evaluating=True).classes == ("9", "10", "65")


REFUSED: dict[str, tuple[list[Any], str]] = {
    "too few synsets": (SLIM[:4], "expected one line for each of the 5 images, .*, got 4"),
    "too many numbers": ([*DEVKIT, 1], "expected one line for each of the 5 images, .*, got 6"),
    "an unknown synset": ([*SLIM[:4], "n00000001"], "expected wnids of ImageNet's 1000 classes, got n00000001"),
    "an unknown synset with boxes": (
        [f"{name},n00000002 1 2 3 4" for name in IMAGES],
        "expected wnids of ImageNet's 1000 classes, got n00000002",
    ),
    "number 0 of the kit": ([0, *DEVKIT[1:]], "expected numbers of classes from 1 to 1000, got 0"),
    "number 1001 of the kit": ([1001, *DEVKIT[1:]], "from 1 to 1000, got 1001"),
    "number 1000 of Caffe": ([f"{name} 1000" for name in IMAGES], "from 0 to 999, got 1000"),
    "an image twice": (
        [f"{name} cat" for name in [*IMAGES, "ILSVRC2012_val_00000003"]],
        r"line 6: expected every image once, got .*00003.JPEG more than once \(line 3\)",
    ),
    "names alone": (["cat", "dog"], "line 1: expected 2 cells, as in NAME LABEL or NAME,LABEL, got 1 in 'cat'"),
    "a label missing": (
        [f"{IMAGES[0]} cat", IMAGES[1]],
        "line 2: expected 2 cells, .*, got 1 in 'ILSVRC2012_val_00000002.JPEG'",
    ),
    "a header alone": (["name,label"], "line 1: expected rows of images and labels below the header, got none"),
    "nothing": (["", " "], "expected a file with labels, got an empty one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_do_not_fit(tmp_path: Path, meta: bytes, case: str) -> None:
    lines, reason = REFUSED[case]
    file = write_tree(tmp_path, {"labels": text(lines), "meta.mat": meta}) / "labels"
    folder = write_tree(tmp_path / "val", IMAGES)
    with pytest.raises(DataError, match=reason) as caught:
        open_source(folder, labels=file, evaluating=True)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "val", IMAGES)
    with pytest.raises(DataError, match=r"missing: expected a file with labels, got No such file or directory"):
        open_source(folder, labels=tmp_path / "missing")
    write_tree(tmp_path, {"binary": png()})
    with pytest.raises(DataError, match=r"binary: expected a file with labels, got binary data"):
        open_source(folder, labels=tmp_path / "binary")


def test_the_kits_numbers_need_its_synsets(tmp_path: Path) -> None:
    file = write_tree(tmp_path, {"truth": text(DEVKIT)}) / "truth"
    folder = write_tree(tmp_path / "val", IMAGES)

    def refused() -> str:
        with pytest.raises(DataError) as caught:
            open_source(folder, labels=file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert (
        refused().startswith(f"{file}: expected the development kit's meta.mat next to it") and SLIM_FILE in refused()
    )
    meta = tmp_path / "meta.mat"
    start = f"{meta}: expected the development kit's synsets, got "
    meta.write_bytes(b"not a file of Matlab's " * 20)
    assert refused().startswith(start)
    savemat(meta, {"other": np.zeros(3)})
    assert refused().startswith(start)
    savemat(meta, {"synsets": np.zeros(3)})
    assert refused().startswith(start)
    write_meta(meta, inner=0, wnids={7: "n00000007"})
    assert "expected ImageNet's 1000 classes under the numbers 1 to 1000, got none for n" in refused()
    whole = meta.read_bytes()
    meta.write_bytes(whole[: len(whole) // 2])
    assert refused().startswith(start)


def test_labels_are_for_images(tmp_path: Path) -> None:
    labels = write_tree(tmp_path, {"list": b"0.png cat\n"}) / "list"
    tar = write_tar(tmp_path / "set.tar", {"0.png": png(), "0.cls": b"cat"})
    for data, got in ((tar, ".tar shards"), ("digits", "digits"), ("hf:x", "a str")):
        with pytest.raises(DataError, match=f"^{data}: expected a folder or .zip of images .* {labels}, got {got}"):
            open_source(data, labels=labels)
    with pytest.raises(
        DataError, match=r"got a .csv file: give the folder of its images, with this file as their labels"
    ):
        open_source(write_tree(tmp_path, {"x.csv": b""}) / "x.csv")


def test_images_side_by_side_without_labels(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "val", IMAGES)
    start = f"{folder}: expected one folder per class, got 5 images in one folder: sort them into class folders"
    write_tree(tmp_path, {SLIM_FILE: LABELS[SLIM_FILE]})
    with pytest.raises(DataError) as caught:
        open_source(folder)
    assert str(caught.value) == start + ", or give a label file (--labels FILE)"


def test_the_label_file_of_a_flat_training_set_is_named(tmp_path: Path) -> None:
    """As competitions have it: train.csv, train/ and test/."""
    rows = b"id,label\n0,a\n1,b\n2,a\n3,b\n"
    images = {f"{split}/{i}.png": png() for split in ("train", "test") for i in range(4)}
    data = write_tree(tmp_path / "data", {**images, "train.csv": rows})
    train, labels = data / "train", data / "train.csv"
    with pytest.raises(DataError) as caught:
        open_source(data)
    advice = f"sort the images into class folders, or give {train} with a label file (--labels FILE, such as {labels})"
    assert str(caught.value) == f"{data}: expected class folders in train, got 4 images in one folder: {advice}"
    assert open_source(train, labels=labels).classes == ("a", "b")


NAMES = ["val/a/ILSVRC2012_val_00000007.JPEG", "val/b/ILSVRC2012_val_00000042.JPEG", "val/b/42.png", "val/c/x.png"]


def test_images_to_exclude(tmp_path: Path) -> None:
    file = tmp_path / "list"

    def out(*lines: str, called: str = "list") -> tuple[list[int], int]:
        (tmp_path / called).write_text("\n".join(lines), encoding="utf-8")
        mask, unmatched = read_exclude_list(tmp_path / called, NAMES)
        assert mask.dtype == np.bool_ and len(mask) == len(NAMES)
        return np.flatnonzero(mask).tolist(), unmatched

    assert out("val/c/x.png") == ([3], 0)
    assert out("x.png\n", "ILSVRC2012_val_00000007.JPEG\r\n") == ([0, 3], 0)
    assert out("x", "ILSVRC2012_val_00000042", "nothing") == ([1, 3], 1)
    assert out("7\n", "36\n", "50\n", "") == ([0], 2)
    assert out("42") == ([2], 0), "a name goes before a number"
    assert out("00000042") == ([1], 0)
    assert out() == ([], 0) == out("", " ") == out("# x.png", "#")
    assert out("C:\\data\\val\\c\\x.png") == ([3], 0) == out("./c/x.png")
    assert out("d/x.png", "42.png") == ([2], 1), "folders that disagree"
    assert out("x.png\tcannot be read: truncated", '"42.png",2') == ([2, 3], 0), "the first column"
    assert out('["x.png", "42.png"]') == ([2, 3], 0) == out('["x.png",', '"42.png"]', called="list.json")
    file.write_text("x.png\n", encoding="utf-16")
    assert read_exclude_list(file, NAMES)[0].tolist() == [False, False, False, True]
    assert read_exclude_list(file, ["a/x.png", "b/x.png", "c.png"])[0].tolist() == [True, True, False]
    file.write_text(unicodedata.normalize("NFD", "café.png"), encoding="utf-8")
    assert read_exclude_list(file, [unicodedata.normalize("NFC", "café.jpg")])[0].tolist() == [True]
    file.write_bytes(b"")
    assert read_exclude_list(file, [])[0].shape == (0,)


def test_lists_to_exclude_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "list"
    twice = ["n01440764/n01440764_36.JPEG", "n01443537/n01443537_36.JPEG"]
    for names, content, reason in (
        (NAMES, b"\ny\n8\n", r"expected names or numbers of images such as val/a/.*, got none in 2 lines, such as y on "
                             "line 2: correct"),
        (twice, b"n01440764_36\n36", r"line 2: expected one image with the number 36, got n01440764/.*, n01443537/"),
        (NAMES, b"x.png\ncaf\xe9.png", "line 2: is not in UTF-8: save the file as UTF-8"),
        (NAMES, b"\x89PNG\0\0", "expected a text file with names of images, got binary data"),
        (NAMES, b'{"a": 1}', "expected a list of images, got a JSON object"),
    ):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"^--exclude {file}: {reason}"):
            read_exclude_list(file, names)
    with pytest.raises(
        DataError, match=r"^--exclude .*gone: expected a text file .*, got No such file or directory: give"
    ):
        read_exclude_list(tmp_path / "gone", NAMES)
