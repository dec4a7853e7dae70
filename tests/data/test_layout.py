"""Which folders are splits and which are classes: names, folders that hold the same classes, --splits."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from inceptionnet.data import open_source
from inceptionnet.data.names import split_named
from inceptionnet.data.unlabelled import open_images
from inceptionnet.errors import ConfigurationError, DataError

from .made import write_tree, write_zip

CLASSES = ("ant", "bee", "cow")

NAMES = {
    "train": ("train", "TRAIN", "Training", "train_set", "training_set", "seg_train", "train2017", "cifar_train",
              "trainset", "TrainSet", "images-train", "ILSVRC2012_img_train", "train-00000-of-00002.parquet"),
    "val": ("val", "valid", "Validation", "dev", "eval", "dev-set", "val2017", "seg_val", "my.valid"),
    "test": ("test", "tests", "Testing", "test_set", "holdout", "hold_out", "hold-out", "seg_test", "testA.tar",
             "my_hold_out"),
    "": ("constrain", "trains", "valley", "contest", "latest", "device", "cat", "A", "0", "train_val", "2017",
         "evaluate"),
}  # fmt: skip


@pytest.mark.parametrize("split", NAMES)
def test_names_of_splits(split: str) -> None:
    assert {name: split_named(name) for name in NAMES[split]} == dict.fromkeys(NAMES[split], split)


def of(*tops: str, classes: tuple[str, ...] = CLASSES) -> list[str]:
    return [f"{top}/{kind}/{i}.png" for top in tops for kind in classes for i in range(2)]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("Training", "Testing"), {"train": "Training", "test": "Testing"}),
        (("seg_train/seg_train", "seg_test/seg_test"), {"train": "seg_train", "test": "seg_test"}),
        (("train", "dev", "holdout"), {"train": "train", "val": "dev", "test": "holdout"}),
        (("train2017", "val2017"), {"train": "train2017", "val": "val2017"}),
    ],
)
def test_folders_become_splits_and_it_is_said(tmp_path: Path, folders: tuple[str, ...], splits: dict[str, str]) -> None:
    names = of(*folders)
    for path in (write_tree(tmp_path / "set", names), write_zip(tmp_path / "set.zip", names)):
        source = open_source(path)
        assert source.classes == CLASSES and list(source.splits) == list(splits)
        for split, top in splits.items():
            found = source.splits[split]
            assert found.names == sorted(name for name in names if name.startswith(f"{top}/"))  # type: ignore[union-attr]
            assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]  # type: ignore[union-attr]
        assert "; split folders: " + ", ".join(f"{a} = {b}" for a, b in splits.items()) in source.note


@pytest.mark.parametrize(
    "names",
    [
        ["bullet_train/0.png", "bullet_train/1.png", "steam_train/0.png", "steam_train/1.png"],
        ["test_tube/0.png", "test_tube/1.png", "beaker/0.png", "beaker/1.png"],
        of("cat", "dog", classes=("images",)),
        [*of("cat", classes=("a", "b")), *of("dog", classes=("c", "d"))],
    ],
)
def test_classes_stay_classes(tmp_path: Path, names: list[str]) -> None:
    tops = tuple(sorted({name.split("/")[0] for name in names}))
    assert open_source(write_tree(tmp_path, names)).classes == tops


def test_unknown_folders_with_the_same_classes_are_asked_about(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", of("A", "B"))
    for evaluating in (False, True):
        with pytest.raises(DataError, match=r"got A and B with the same folders in each \(ant, bee, cow\): say which"):
            open_source(root, evaluating=evaluating)
    source = open_source(root, splits="train=A,val=B")
    assert source.classes == CLASSES and {name: len(split) for name, split in source.splits.items()} == {
        "train": 6,
        "val": 6,
    }
    assert source.note.endswith("split folders: train = A, val = B")
    assert open_source(root, splits="none").classes == ("A", "B")
    alone = open_source(root, splits="train=A")
    assert alone.held_out and "; folder B ignored: not used as a split; 6 images outside" in alone.note
    # Beside a known split, and where only some classes are in both.
    write_tree(tmp_path / "more", of("train") + of("extra", classes=("bee", "cow")))
    with pytest.raises(DataError, match=r"got extra beside train with the same folders in each \(bee, cow\)"):
        open_source(tmp_path / "more")
    single = write_tree(tmp_path / "single", of("train"))
    assert open_source(single, splits="train=train").classes == CLASSES


def test_splits_that_cannot_be(tmp_path: Path) -> None:
    root = write_tree(tmp_path, of("A", "B"))
    for text in ("train", "train=A,dev=B", "train=A,train=B", "train=A,val=A", "train=", ""):
        with pytest.raises(ConfigurationError, match=f"^--splits {text}: expected train=FOLDER"):
            open_source(root, splits=text)
    with pytest.raises(DataError, match=r"expected the folder a of --splits, got none: .*A"):
        open_source(root, splits="train=a,val=B")
    with pytest.raises(DataError, match=r"expected a folder or .zip for --splits, got digits"):
        open_source("digits", splits="none")


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    names = of("train", "val", "dev")
    with pytest.raises(
        DataError, match=r"expected one folder per split, got dev and val for val: .*--splits val=FOLDER"
    ):
        open_source(write_tree(tmp_path / "two", names))
    chosen = open_source(tmp_path / "two", splits="train=train,val=dev")
    assert chosen.splits["val"].names[0] == "dev/ant/0.png"  # type: ignore[union-attr]
    # Without class folders it is no split of its own: plots beside the data, a second folder of unlabelled images.
    beside = write_tree(tmp_path / "logs", [*of("train", "test"), "training_logs/loss.png"])
    assert "folder training_logs ignored: not used as a split" in open_source(beside).note


def test_a_split_that_cannot_be_evaluated_is_seen_at_once(tmp_path: Path) -> None:
    flat = write_tree(tmp_path / "flat", [*of("train"), "test/0.png", "test/1.png"])
    for evaluating in (False, True):
        source = open_source(flat, evaluating=evaluating)
        assert list(source.splits) == ["train", "val"] and source.held_out
        assert source.note.endswith("; test ignored: 2 images without labels")
    empty = write_tree(tmp_path / "empty", [*of("train", "val"), "test/"])
    assert open_source(empty).note.endswith("; test ignored: no images")
    for case, more, got in (
        ("no val", ["val/"], "class folders in val, got an empty folder: .* or remove val"),
        ("flat val", ["val/0.png"], "class folders in val, got 1 image in one folder"),
        ("one class", ["val/ant/0.png"], "at least 2 classes in val, got 1 of ant: add"),
        ("one class to test", ["test/bee/0.png"], "at least 2 classes in test, got 1 of bee: add"),
    ):
        with pytest.raises(DataError, match=got):
            open_source(write_tree(tmp_path / case, [*of("train"), *more]))


def test_a_class_is_the_same_in_either_form_of_unicode(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    files = [f"{split}/{kind}/{i}.png" for split, cafe in zip(("train", "val"), names, strict=True)
             for kind in (cafe, "thé") for i in range(2)]  # fmt: skip
    for path in (write_tree(tmp_path / "set", files), write_zip(tmp_path / "set.zip", files)):
        source = open_source(path)
        assert source.classes == (names[0], "thé")
        assert [split.labels.tolist() for split in source.splits.values()] == [[0, 0, 1, 1]] * 2  # type: ignore[union-attr]


def test_features_of_what_is_asked_about_have_no_labels(tmp_path: Path) -> None:
    source = open_images([str(write_tree(tmp_path, of("A", "B")))])
    assert source.classes == () and "12 images without labels (expected splits called" in source.note
    assert "--" not in source.note, "no advice on labels where none are asked for"
