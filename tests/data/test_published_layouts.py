"""Data sets as their publishers lay them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from inceptionnet.data import Source, Split, open_source
from inceptionnet.errors import DataError

from .made import png, write_tree, write_zip

WNIDS = ("n01443537", "n01629819")


def labels(source: Source) -> dict[str, dict[str, str]]:
    """Split → image → class."""
    return {
        name: dict(zip(split.names, (source.classes[i] for i in split.labels), strict=True))
        for name, split in source.splits.items()
        if isinstance(split, Split)
    }


def images(*folders: str, count: int = 4) -> dict[str, bytes]:
    return {f"{folder}/{i}.jpg": png(i) for folder in folders for i in range(count)}


BESIDE_IMAGES = {
    "Stanford Dogs": ("Images", {f"Annotation/{breed}/{i}": b"<x/>" for breed in "ab" for i in range(4)}),
    "Food-101": ("images", {"meta/train.txt": b"a/0", "meta/classes.txt": b"a\nb"}),
    "DTD": ("images", {"labels/train1.txt": b"a/0.jpg", "imdb/imdb.mat": b"MATLAB"}),
    "CUB-200-2011": (
        "CUB/images",
        {"CUB/attributes/a.txt": b"1", "CUB/parts/parts.txt": b"1", "CUB/classes.txt": b"1"},
    ),
    "Caltech-101": ("101_ObjectCategories", {"Annotations/a/1.mat": b"MATLAB", "show_annotation.m": b"%"}),
}


@pytest.mark.parametrize("case", BESIDE_IMAGES)
def test_class_folders_beside_folders_without_images(tmp_path: Path, case: str) -> None:
    folder, others = BESIDE_IMAGES[case]
    files = {**images(f"{folder}/a", f"{folder}/b"), **others}
    for path in (write_tree(tmp_path / "set", files), write_zip(tmp_path / "set.zip", files)):
        source = open_source(path)
        assert source.classes == ("a", "b") and sum(map(len, source.splits.values())) == 8
        assert f"; the images are in {folder}: " in source.note
        assert " beside it ignored; " in source.note


def test_a_class_without_images_is_not_passed_over(tmp_path: Path) -> None:
    files = {**images("cats/siamese", "cats/persian"), "dogs/0.tga": b"x"}
    with pytest.raises(DataError, match="expected images in every class folder, got none in dogs: add"):
        open_source(write_tree(tmp_path / "set", files))


TINY = {
    **images(*(f"train/{wnid}/images" for wnid in WNIDS)),
    **{f"train/{wnid}/{wnid}_boxes.txt": b"0.jpg\t0\t0\t1\t1\n" for wnid in WNIDS},
    **images("val/images", "test/images"),
    "val/val_annotations.txt": "".join(f"{i}.jpg\t{WNIDS[i % 2]}\t0\t{i}\t62\t63\n" for i in range(4)).encode(),
    "wnids.txt": b"n01443537\nn01629819\n",
}


@pytest.mark.parametrize("evaluating", [False, True])
def test_tiny_imagenet(tmp_path: Path, evaluating: bool) -> None:
    source = open_source(write_tree(tmp_path / "tiny", TINY), evaluating=evaluating)
    assert source.classes == WNIDS and [*source.splits] == ["train", "val"] and not source.held_out
    assert labels(source)["val"] == {f"val/images/{i}.jpg": WNIDS[i % 2] for i in range(4)}
    val = source.splits["val"]
    assert isinstance(val, Split) and [val.read(i) for i in range(4)] == [png(i) for i in range(4)]
    assert f"; labels of val from {tmp_path / 'tiny' / 'val' / 'val_annotations.txt'}; " in source.note
    assert "test ignored: 4 images without labels" in source.note and "columns not used: 3, 4, 5, 6" in source.note
    assert source.note.endswith("; 3 non-image files ignored (.txt)")


def test_flat_validation_images_that_cannot_be_used(tmp_path: Path) -> None:
    train, val = images("train/a", "train/b"), images("val")
    other = write_tree(tmp_path / "other", {**train, **val, "val.txt": b"0.jpg a\n1.jpg b\n2.jpg c\n3.jpg a\n"})
    with pytest.raises(DataError, match="expected the classes of train, got also c in val: add them to train"):
        open_source(other)
    several = b"file_name,label\n0.jpg,a;b\n1.jpg,a\n2.jpg,b\n3.jpg,a\n"
    with pytest.raises(
        DataError, match=r"metadata.csv: expected one label an image, as class folders give, got several"
    ):
        open_source(write_tree(tmp_path / "several", {**train, **val, "val/metadata.csv": several}))
    part = write_tree(tmp_path / "part", {**train, **val, "val/metadata.csv": b"file_name,label\n0.jpg,b\n3.jpg,a\n"})
    source = open_source(part)
    assert labels(source)["val"] == {"val/0.jpg": "b", "val/3.jpg": "a"}
    assert source.note.endswith("; 2 images without label not used: val/1.jpg, val/2.jpg")
    with pytest.raises(
        DataError, match="class folders in val, got 4 images in one folder"
    ):  # a .zip is not looked into
        open_source(
            write_zip(tmp_path / "part.zip", {**train, **val, "val/metadata.csv": b"file_name,label\n0.jpg,b\n"})
        )


def test_roboflow(tmp_path: Path) -> None:
    """Its export for several labels an image has a table in each split."""
    rows = {"train": 4, "valid": 2, "test": 2}
    files = images("train") | images("valid", "test", count=2)
    tables = {
        f"{split}/_classes.csv": ("filename, cat, dog\n" + "".join(f"{i}.jpg, 1, {i % 2}\n" for i in range(n))).encode()
        for split, n in rows.items()
    }
    source = open_source(write_tree(tmp_path, files | tables))
    assert source.classes == ("cat", "dog") and source.multi_label
    assert {name: split.labels.tolist() for name, split in source.splits.items() if isinstance(split, Split)} == {
        "train": [[True, False], [True, True]] * 2,
        "val": [[True, False], [True, True]],
        "test": [[True, False], [True, True]],
    }
    assert source.note.endswith("; a class for each 0/1 column: cat, dog")


@pytest.mark.parametrize("packed", [False, True])
def test_a_second_copy_of_the_data_is_no_class(tmp_path: Path, packed: bool) -> None:
    """As in archives of cell and brain images in circulation."""
    files = images("yes", "no", "brain/yes", "brain/no")
    path = (write_zip if packed else write_tree)(tmp_path / "set.zip", files)
    with pytest.raises(
        DataError, match=r"got brain with the folders of all other classes in it \(no, yes\): remove it"
    ):
        open_source(path)
    if not packed:
        assert open_source(path / "brain").classes == ("no", "yes")
    nested = images("cat", "dog", "bird/cat", "bird/tit")  # not all of them
    assert open_source(write_tree(tmp_path / "nested", nested)).classes == ("bird", "cat", "dog")


PARTS = {
    "HAM10000": ("HAM10000_images_part_1", "HAM10000_images_part_2"),
    "ChestX-ray14": ("images_001/images", "images_002/images", "images_003/images"),
    "CheXpert": ("patient00001/study1", "patient00002/study1"),
    "batches": ("data_batch_1", "data_batch_2"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_of_a_collection_are_no_classes(tmp_path: Path, case: str) -> None:
    table = tmp_path / "set" / "table.csv"
    rows = "".join(f"{folder}/{i}.jpg,{'ab'[i % 2]}\n" for folder in PARTS[case] for i in range(4))
    write_tree(tmp_path / "set", {**images(*PARTS[case]), "table.csv": f"image,label\n{rows}".encode()})
    first = PARTS[case][0].split("/")[0]
    with pytest.raises(DataError, match=rf"got parts of one collection \({first}, .* such as {table}\)"):
        open_source(tmp_path / "set")
    assert open_source(tmp_path / "set", labels=table).classes == ("a", "b")


@pytest.mark.parametrize(
    "classes",
    [
        ("0", "1"),
        ("class_1", "class_2"),
        ("level 1", "level 2"),
        ("partridge", "part_1"),
        ("invoice", "label", "photo"),
    ],
)
def test_classes_with_names_that_mean_something_else_in_others(tmp_path: Path, classes: tuple[str, ...]) -> None:
    assert open_source(write_tree(tmp_path, images(*classes))).classes == tuple(sorted(classes))


@pytest.mark.parametrize(
    ("train", "others"),
    [
        ("train_images", ["test_images"]),
        ("train2017", ["val2017"]),
        ("train_data", []),
        ("Train", ["Test", "Val_imgs"]),
    ],
)
def test_flat_splits_are_no_classes(tmp_path: Path, train: str, others: list[str]) -> None:
    """As competitions have them."""
    tables = dict.fromkeys(("sample.csv", "train.csv"), b"id,label\n0,a\n1,b\n2,a\n3,b\n")
    data = write_tree(tmp_path / "set", images(train, *others) | tables)
    advice = rf"or give {data / train} with a label file \(--labels FILE, such as {data}/train.csv, {data}/sample.csv\)"
    with pytest.raises(
        DataError, match=rf"expected class folders in {train}, got 4 images in one folder: .*, {advice}"
    ):
        open_source(data)
    assert open_source(data / train, labels=data / "train.csv").classes == ("a", "b")


@pytest.mark.parametrize(
    "folders",
    [
        ["cars_train/cars_train", "cars_test/cars_test"],
        ["ISIC_2019_Training_Input", "ISIC_2019_Test_Input"],
        ["healthy_train", "healthy_test", "sick_train", "sick_test"],
    ],
)
def test_folders_of_two_splits_are_no_classes(tmp_path: Path, folders: list[str]) -> None:
    with pytest.raises(DataError, match="expected "):
        open_source(write_tree(tmp_path, images(*folders)))
    assert len(open_source(tmp_path, splits="none").classes) == len(folders)


MASKS = {
    "BUSI": ["benign/a (1).png", "benign/a (1)_mask.png", "benign/a (1)_mask_1.png", "normal/b.png"],
    "COVID-19 Radiography": [f"{kind}/{what}/{i}.png" for kind in "ab" for what in ("images", "masks") for i in "01"],
    "masks of one class": ["OK/1.png", "OK/2.png", "NG/3.png", "NG/4.png", "NG/mask/4.png"],
    "ground truth": ["OK/1.png", "NG/images/3.png", "NG/ground_truth/3.png"],
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_are_not_trained_on(tmp_path: Path, case: str) -> None:
    data = write_tree(tmp_path, MASKS[case])
    with pytest.raises(DataError, match=r"mask|ground_truth"):
        open_source(data, splits="none")


def test_names_that_end_like_those_of_masks(tmp_path: Path) -> None:
    """Without the image that it would be the mask of; and people with masks."""
    names = ["a/face_mask.png", "a/with mask 1.png", "b/without mask 1.png", "b/unmask.png", "b/un.png"]
    assert open_source(write_tree(tmp_path, names), evaluating=True).classes == ("a", "b")


def test_a_single_folder_of_images_is_no_class(tmp_path: Path) -> None:
    data = write_tree(tmp_path / "set", images("images") | {"labels.csv": b"image,label\n0,a\n1,b\n2,a\n3,b\n"})
    with pytest.raises(DataError, match=r"got 4 images in one folder: .* \(--labels FILE, such as .*labels.csv\)"):
        open_source(data)
    assert open_source(data, labels=data / "labels.csv").classes == ("a", "b")


def test_a_class_that_is_called_like_a_split_is_said(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path, images("bus", "car", "train", "test_tube")))
    assert source.classes == ("bus", "car", "test_tube", "train")
    assert source.note.endswith("; train taken as a class, not as a split")
