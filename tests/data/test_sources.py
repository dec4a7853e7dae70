"""Folders, zips, digits: layouts, the hold-out rule, and every refusal."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import unicodedata
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from inceptionnet.data import decode, open_source
from inceptionnet.data.assembly import hold_out
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, DecodeError, MissingExtraError

from .made import CLASSES_OF_8, png, write_tar, write_tree, write_zip


def held_by_hand(names: list[str], seed: int) -> set[str]:
    """The rule in its own words: the hash as a fraction below one fifth; 15 to 25 % of a class, rounded outwards, and
    at least one image of it on either side."""

    def lot(name: str) -> int:
        return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), 16)

    held = set()
    for kind in {name.split("/")[0] for name in names}:
        of_kind = sorted((name for name in names if name.startswith(kind + "/")), key=lot)
        count = len(of_kind)
        least, most = max(1, count * 15 // 100), min(count - 1, -(-count // 4))
        held |= set(of_kind[: min(max(least, sum(5 * lot(name) < 2**256 for name in of_kind)), most)])
    return held


def test_a_note_on_all_images_speaks_of_no_held_out_ones(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", ["a/x/0.png", "a/y/1.png", "b/2.png", "b/3.png", "b/notes.txt"])
    source = open_source(folder, evaluating=True)
    assert source.note_on("val") == source.note and "held out" in source.note
    inner = "2 images in folders inside class folders are of that class (a/x, a/y)"
    assert source.note_on("all") == f"not split (4 images); {inner}; 1 non-image file ignored (.txt)"


@pytest.mark.parametrize("seed", [0, 1, 2, 7])
def test_unsplit_folder_is_held_out_by_name_and_seed(tmp_path: Path, seed: int) -> None:
    source = open_source(write_tree(tmp_path / "pets", CLASSES_OF_8), seed=seed)
    expected = held_by_hand(CLASSES_OF_8, seed)
    assert source.classes == ("cat", "dog") and source.title == "pets" and source.suggestions == {}
    assert set(source.splits["val"].names) == expected
    assert set(source.splits["train"].names) == set(CLASSES_OF_8) - expected
    n_val = len(expected)
    assert source.note == (
        f"not split: 20 % of the images held out as val, chosen by file name and seed {seed} "
        f"({16 - n_val} train, {n_val} val)"
    )


def test_labels_and_bytes_belong_to_the_names(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path, CLASSES_OF_8))
    for split in source.splits.values():
        assert split.labels.dtype == np.int64 and len(split) == len(split.labels)
        for i, name in enumerate(split.names):
            assert source.classes[split.labels[i]] == name.split("/")[0]
            assert split.read(i) == (tmp_path / name).read_bytes()


def test_adding_images_moves_no_other_while_the_shares_are_kept(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(40)]
    added = [f"cat/new{i}.png" for i in range(40)]

    for cats in ([name for name in some if name.startswith("cat")] for some in (names, names + added)):
        below = sum(5 * int(hashlib.sha256(f"0/{name}".encode()).hexdigest(), 16) < 2**256 for name in cats)
        assert 0.15 <= below / len(cats) <= 0.25  # so that the hash alone decides
    before = open_source(write_tree(tmp_path, names)).splits
    after = open_source(write_tree(tmp_path, added)).splits
    for name in ("train", "val"):
        assert set(before[name].names) == set(after[name].names) - set(added)
    assert set(after["val"].names) & set(added)


def test_small_classes_get_training_first_then_validation() -> None:
    # Over 200 seeds both images of "a" fall in either side and in both; the only one of "b" is never held out.
    names = ["a/0", "a/1", "b/0"]
    split = Split(names, np.array([0, 0, 1]), lambda index: b"")
    corrected = set()
    for seed in range(200):
        train, val = hold_out(split, seed)
        assert len(train) == 2 and len(val) == 1 and set(val.names) == held_by_hand(names, seed)
        lots = [hashlib.sha256(f"{seed}/{name}".encode()).digest()[0] < 51 for name in names[:2]]
        corrected.add(sum(lots))
    assert corrected == {0, 1, 2}


@pytest.mark.parametrize("alias", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, alias: str) -> None:
    names = ["train/cat/a.jpg", "train/dog/deep/b.PNG", f"{alias}/cat/c.png", f"{alias}/dog/c.png"]
    names += ["test/dog/d.TIFF", "test/cat/d.gif", "notes.txt"]
    source = open_source(write_tree(tmp_path, names))
    assert list(source.splits) == ["train", "val", "test"]
    assert source.splits["train"].names == ["train/cat/a.jpg", "train/dog/deep/b.PNG"]
    assert source.splits["val"].names == [f"{alias}/cat/c.png", f"{alias}/dog/c.png"]
    assert source.splits["val"].labels.tolist() == source.splits["test"].labels.tolist() == [0, 1]
    deep = "1 image in folders inside class folders is of that class (train/dog/deep)"
    said = "" if alias == "val" else f"; split folders: train = train, val = {alias}, test = test"
    assert source.note == f"split as found (2 train, 2 val, 2 test){said}; {deep}; 1 non-image file ignored (.txt)"


def test_train_alone_is_split_and_train_with_test_is_not(tmp_path: Path) -> None:
    names = [f"train/{name}" for name in CLASSES_OF_8]
    source = open_source(write_tree(tmp_path, names))
    held = set(source.splits["val"].names)
    assert source.note.startswith("no val or test split: 20 % of the images held out as val")
    assert held and held | set(source.splits["train"].names) == set(names)
    write_tree(tmp_path, ["test/cat/0.png", "test/dog/0.png"])
    assert {k: len(v) for k, v in open_source(tmp_path).splits.items()} == {"train": 16, "test": 2}


def test_a_class_named_train_is_no_split(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in ("bus", "car", "train") for i in range(3)]
    assert open_source(write_tree(tmp_path, names)).classes == ("bus", "car", "train")


def test_loose_and_other_files_are_counted_in_the_note(tmp_path: Path) -> None:
    names = [*CLASSES_OF_8, "loose.png", "cat/x.mp4", "README", ".hidden.png", "cat/.thumb.png", "__MACOSX/cat/y.png"]
    source = open_source(write_tree(tmp_path, names))
    assert source.classes == ("cat", "dog") and sum(map(len, source.splits.values())) == 16
    assert source.note.endswith(
        "; 1 image outside the class folders ignored; 2 non-image files ignored (.mp4, no extension); "
        "3 hidden entries ignored (.hidden.png, .thumb.png, __MACOSX)"
    )


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    real = write_tree(tmp_path / "real", ["0.png", "1.png"])
    root = write_tree(tmp_path / "set", ["dog/0.png", "dog/1.png"])
    (root / "cat").symlink_to(real)
    (root / "dog" / "again").symlink_to(root)
    (root / "dog" / "gone.png").symlink_to(root / "nowhere")
    splits = open_source(root).splits
    names = {name for split in splits.values() for name in split.names}
    assert names == {"cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "dog/gone.png"}
    split = next(split for split in splits.values() if "dog/gone.png" in split.names)
    with pytest.raises(DecodeError, match=r"^dog/gone.png: cannot be read \(No such file or directory\)$"):
        split.read(list(split.names).index("dog/gone.png"))


@pytest.mark.parametrize("prefix", ["", "pets/", "a/b/"])
def test_zip_and_folder_are_split_alike(tmp_path: Path, prefix: str) -> None:
    folder = open_source(write_tree(tmp_path / "pets", CLASSES_OF_8))
    files = {prefix + name: png(i) for i, name in enumerate(CLASSES_OF_8)}
    files |= {"__MACOSX/pets/cat/._0.png": b"x", f"{prefix}.DS_Store": b"x"}
    packed = open_source(write_zip(tmp_path / "pets.zip", files))
    assert packed.title == "pets.zip"
    assert packed.note == f"{folder.note}; 2 hidden entries ignored (.DS_Store, __MACOSX)"
    for name, split in folder.splits.items():
        assert packed.splits[name].names == split.names
        assert [packed.splits[name].read(i) for i in range(len(split))] == [split.read(i) for i in range(len(split))]


def test_zip_with_splits_below_a_top_folder(tmp_path: Path) -> None:
    names = [f"top/{split}/{kind}/0.png" for split in ("train", "test") for kind in ("cat", "dog")]
    splits = open_source(write_zip(tmp_path / "x.ZIP", names)).splits
    assert splits["test"].names == ["test/cat/0.png", "test/dog/0.png"] and splits["test"].read(1) == png(3)


def read_all(split: Split) -> list[bytes]:
    return [split.read(i) for i in range(len(split))]


inherited: Split


def read_inherited(times: int) -> list[bytes]:
    (found,) = {tuple(read_all(inherited)) for _ in range(times)}
    return list(found)


def python(*arguments: str, stdin: Path = Path(os.devnull)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with stdin.open("rb") as file:
        return subprocess.run([sys.executable, *arguments], env=environment, stdin=file, capture_output=True, text=True)


def test_zip_is_read_by_forked_processes_and_by_this_one_at_once(tmp_path: Path) -> None:
    # Larger than any read buffer, so that a shared file offset shows.
    files = {name: np.random.default_rng(i).bytes(100_000) for i, name in enumerate(CLASSES_OF_8)}
    split = open_source(write_zip(tmp_path / "x.zip", files)).splits["train"]
    here = read_all(split)  # opened here before the fork
    global inherited  # by fork, not by pickle
    inherited = split
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        there = [pool.submit(read_inherited, 20) for _ in range(2)]
        assert all(read_all(split) == here for _ in range(20)) and all(future.result() == here for future in there)


def test_zip_is_read_by_a_fresh_interpreter(tmp_path: Path) -> None:
    split = open_source(write_zip(tmp_path / "x.zip", CLASSES_OF_8)).splits["train"]
    expected = read_all(split)
    (tmp_path / "split.pickle").write_bytes(pickle.dumps(split))
    code = "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(b''.join(map(s.read, range(len(s)))).hex())"
    found = python("-c", code, stdin=tmp_path / "split.pickle").stdout
    assert bytes.fromhex(found) == b"".join(expected)


def test_bad_zip_members_are_decode_errors(tmp_path: Path) -> None:
    files = {name: png(0) for name in CLASSES_OF_8} | {"cat/bomb.png": bytes(2**24 + 1), "cat/torn.png": png(77)}
    path = write_zip(tmp_path / "x.zip", files)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("cat/torn.png").header_offset
    data = bytearray(path.read_bytes())
    data[start + 30 + len("cat/torn.png") + 8] ^= 0xFF
    path.write_bytes(data)
    splits = open_source(path).splits
    reasons = {}
    for split in splits.values():
        for i, name in enumerate(split.names):
            try:
                split.read(i)
            except DecodeError as error:
                reasons[name] = str(error)
    assert sorted(reasons) == ["cat/bomb.png", "cat/torn.png"]
    assert "16777217 bytes, more than allowed" in reasons["cat/bomb.png"]
    assert reasons["cat/torn.png"].startswith("cat/torn.png: cannot be read from x.zip (")


def test_member_over_the_size_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    split = open_source(write_zip(tmp_path / "x.zip", dict.fromkeys(CLASSES_OF_8, noise))).splits["train"]
    assert split.read(0) == noise
    monkeypatch.setattr("inceptionnet.data.archives.IMAGE_BYTES", 2999)
    with pytest.raises(DecodeError, match="to 3000 bytes, more than allowed"):
        split.read(0)


def test_digits() -> None:
    from sklearn.datasets import load_digits

    source, bunch = open_source("digits"), load_digits()
    assert source.classes == tuple("0123456789")
    assert source.suggestions == {"augment.flip": False, "augment.area_min": 0.7, "preprocess.crop": 1.0}
    assert sum(map(len, source.splits.values())) == 1797 and 300 < len(source.splits["val"]) < 420
    split = source.splits["val"]
    number = int(split.names[5][2:6])
    assert split.labels[5] == bunch.target[number] == int(split.names[5][0])
    pixels = np.asarray(decode(split.read(5), channels=1)).astype(float)
    assert np.abs(pixels - bunch.images[number] * 255 / 16).max() <= 0.5 and pixels.max() == 255
    assert pickle.loads(pickle.dumps(split)).read(5) == split.read(5)
    assert open_source("digits", seed=1).splits["val"].names != split.names


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn.*inceptionnet\[digits\]"):
        open_source("digits")


REFUSED = {
    "no images": (["a.txt", "b/c.md"], "expected images .* got 2 other files"),
    "loose images only": (["a.png", "b.png"], "one folder per class, got 2 images in one folder"),
    "one class": (["cat/0.png", "cat/1.png"], r"at least 2 classes, got 1 \(cat\)"),
    "empty classes": (["cat/0.png", "dog/", "emu/x.txt"], "got none in dog, emu"),
    "empty class in a split": (["train/cat/0.png", "train/dog/0.png", "val/dog/"], "got none in val/dog"),
    "class not trained": (
        ["train/cat/0.png", "train/dog/0.png", "val/emu/0.png"],
        "classes of train, got also emu in val",
    ),
    "no train": (["val/cat/0.png", "val/dog/0.png", "test/cat/0.png"], "expected a train split, got only test and val"),
    "val twice": (
        ["train/a/0.png", "train/b/0.png", "val/a/0.png", "valid/a/0.png"],
        "per split, got val and valid for val",
    ),
    "unlabelled splits": (["train/0.png", "val/0.png"], "expected class folders in train, got 1 image"),
    "masks": (["images/0.png", "Masks/0.png"], "folder per class, got images and Masks, as in data for segmentation"),
    "boxes": (
        ["train/img/0.png", "train/labels/0.txt", "val/img/1.png", "val/labels/1.txt"],
        "got img and labels, as in data for segm",
    ),
    "nothing to hold out": (["cat/0.png", "dog/0.png"], "a class with 2 images or more"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("packed", [False, True])
def test_refused_layouts(tmp_path: Path, case: str, packed: bool) -> None:
    names, reason = REFUSED[case]
    path = tmp_path / ("set.zip" if packed else "set")
    (write_zip if packed else write_tree)(path, names)
    with pytest.raises(DataError, match=reason) as caught:
        open_source(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_refused_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"^digit: expected digits, .* got no such file or folder.*did you mean digits\?"
    ):
        open_source("digit")
    with pytest.raises(DataError, match=r"nowhere: expected .*check the path$"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "set.7z").write_bytes(b"x")
    with pytest.raises(DataError, match=r"got a \.7z file"):
        open_source(tmp_path / "set.7z")
    (tmp_path / "set.zip").write_bytes(b"x")
    with pytest.raises(DataError, match="expected a zip file, got one that cannot be opened"):
        open_source(tmp_path / "set.zip")

    def forbidden(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match="got Permission denied: check its permissions"):
        open_source(write_tree(tmp_path / "closed", CLASSES_OF_8))


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", CLASSES_OF_8)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flag "encrypted" of the first entry in the directory
    path.write_bytes(data)
    with pytest.raises(DataError, match="got an encrypted one"):
        open_source(path)


def test_the_package_is_free_of_torch() -> None:
    code = "import sys, inceptionnet.data; sys.exit('torch' in sys.modules)"
    assert python("-c", code).returncode == 0


def test_what_is_evaluated_needs_no_training_split(tmp_path: Path) -> None:
    """Refused for training, in the same words as ever; evaluated as it lies there."""
    cases: dict[str, tuple[list[str], str, dict[str, int], tuple[str, ...]]] = {
        "val alone": (["val/cat/0.png", "val/dog/0.png"], "train split, got only val", {"val": 2}, ("cat", "dog")),
        "val and test": (
            ["val/emu/0.png", "test/cat/0.png", "test/dog/0.png"],
            "train split, got only test and val",
            {"val": 1, "test": 2},
            ("cat", "dog", "emu"),
        ),
        "one class": (["cat/0.png", "cat/1.png"], "at least 2 classes", {"val": 2}, ("cat",)),
        "one class in test": (["test/cat/0.png"], "at least 2 classes", {"test": 1}, ("cat",)),
        "one class in train": (["train/cat/0.png", "train/cat/1.png"], "at least 2", {"train": 2}, ("cat",)),
        "one image each": (["cat/0.png", "dog/0.png"], "2 images or more", {"val": 2}, ("cat", "dog")),
        "a class only in val": (
            ["train/cat/0.png", "train/dog/0.png", "val/emu/0.png"],
            "classes of train, got also emu in val",
            {"train": 2, "val": 1},
            ("cat", "dog", "emu"),
        ),
    }
    for case, (names, refusal, counts, classes) in cases.items():
        for root in (write_tree(tmp_path / case, names), write_zip(tmp_path / f"{case}.zip", names)):
            with pytest.raises(DataError, match=refusal):
                open_source(root)
            source = open_source(root, evaluating=True)
            assert {name: len(split) for name, split in source.splits.items()} == counts, case
            assert source.classes == classes and not source.held_out
            for split in source.splits.values():
                assert isinstance(split, Split)
                assert [source.classes[label] for label in split.labels] == [n.split("/")[-2] for n in split.names]


def test_one_split_of_shards_or_parquet_is_evaluated(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_tar(tmp_path / "tar" / "test-000.tar", {"0.png": png(), "0.cls": b"cat", "1.png": png(), "1.cls": b"dog"})
    (tmp_path / "parquet").mkdir()
    table = pa.table({"image": [png(), png()], "label": ["cat", "dog"]})
    pq.write_table(table, tmp_path / "parquet" / "test-00000.parquet")
    for kind in ("tar", "parquet"):
        with pytest.raises(DataError, match="expected a train split, got only test"):
            open_source(tmp_path / kind)
        source = open_source(tmp_path / kind, evaluating=True)
        assert source.classes == ("cat", "dog") and source.pick("auto")[0] == "test" and list(source.splits) == ["test"]


@pytest.mark.parametrize("splits", [[""], ["train/"], ["train/", "val/"]])
def test_what_can_be_trained_on_is_split_alike_to_evaluate(tmp_path: Path, splits: list[str]) -> None:
    root = write_tree(tmp_path, [split + name for split in splits for name in CLASSES_OF_8])
    trained, evaluated = open_source(root, seed=3), open_source(root, seed=3, evaluating=True)
    assert (trained.note, trained.classes) == (evaluated.note, evaluated.classes)
    assert trained.held_out == evaluated.held_out == (len(splits) == 1)
    assert [split.names for split in trained.splits.values()] == [split.names for split in evaluated.splits.values()]


def test_a_network_from_elsewhere_is_evaluated_on_all_of_what_is_not_split(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path / "pets", CLASSES_OF_8), evaluating=True)
    assert source.held_out and open_source(tmp_path / "pets").held_out
    assert source.pick("auto") == ("val", source.splits["val"]) == source.pick("val", own=False)
    name, split = source.pick("auto", own=False)
    assert name == "all" and isinstance(split, Split) and sorted(split.names) == CLASSES_OF_8
    for position, image in enumerate(split.names):
        assert split.read(position) == (tmp_path / "pets" / image).read_bytes()
    assert sorted(split.names) == sorted(source.pick("all")[1].names)  # type: ignore[union-attr]

    found = open_source(
        write_tree(tmp_path / "split", ["train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/1.png"])
    )
    assert not found.held_out and found.pick("auto", own=False) == ("val", found.splits["val"])
    with pytest.raises(DataError, match=r"split: expected the split test, got train, val: use one of them, or all"):
        found.pick("test", own=False)
    alone = open_source(write_tree(tmp_path / "alone", ["train/cat/0.png"]), evaluating=True)
    assert alone.pick("auto")[0] == "all" and len(alone.pick("auto")[1]) == 1


def test_splits_without_class_folders(tmp_path: Path) -> None:
    """ImageNet's test images have no labels; where val has none either, train does not stand in for it."""
    names = ["train/cat/0.png", "train/dog/0.png", "val/cat/0.png", "test/0.png", "test/1.png"]
    source = open_source(write_tree(tmp_path / "set", names), evaluating=True)
    assert source.pick("auto")[0] == "val" and list(source.splits) == ["train", "val"]
    assert source.note.endswith("; test ignored: 2 images without labels")
    bare = write_tree(tmp_path / "bare", ["train/cat/0.png", "train/dog/0.png", "val/0.png", "val/1.png"])
    for root in (bare, write_tree(tmp_path / "alone", ["val/0.png", "val/1.png"])):
        with pytest.raises(
            DataError, match=r"expected class folders in val, got 2 images .*evaluate the folder val itself with"
        ):
            open_source(root, evaluating=True)


def test_class_names_in_two_forms_of_unicode(tmp_path: Path) -> None:
    """macOS writes the é of a folder's name as two characters."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    names = [f"train/{composed}/{i}.png" for i in range(3)] + [f"train/the/{i}.png" for i in range(3)]
    source = open_source(write_tree(tmp_path / "a", [*names, f"val/{decomposed}/7.png", "val/the/8.png"]))
    assert source.classes == (composed, "the")
    val = source.splits["val"]
    assert isinstance(val, Split) and val.labels.tolist() == [0, 1] and val.read(0) == png(6)
    with pytest.raises(
        DataError, match=f"expected one folder per class, got {composed} in two forms of Unicode: merge"
    ):
        open_source(write_tree(tmp_path / "b", [*names, f"train/{decomposed}/7.png"]))
