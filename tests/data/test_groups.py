"""Groups of images that no split divides, and the shares of the classes in a held-out set."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from inceptionnet.data import open_source
from inceptionnet.data.groups import divided_groups
from inceptionnet.data.splits import Source, Split
from inceptionnet.data.splitting import held_out
from inceptionnet.data.versions import versions
from inceptionnet.errors import ConfigurationError, DataError

from .made import write_tar, write_tree, write_zip

# 12 patients in two classes, of 1 to 4 images each.
NAMES = [f"{'well' if p % 2 else 'ill'}/P{p:02}_{i}.png" for p in range(12) for i in range(1 + p % 4)]


def groups_of(source: Source) -> dict[str, set[str]]:
    splits = {name: split for name, split in source.splits.items() if isinstance(split, Split)}
    return {name: set(split.groups) for name, split in splits.items()}


def lot(name: str, seed: int = 0) -> float:
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), 16) / 2**256


@pytest.mark.parametrize("pattern", ["(P[0-9]+)_", "P[0-9]+", "(X[0-9]+)|(P[0-9]+)", "(?:well|ill)/(P..)"])
@pytest.mark.parametrize("seed", range(4))
def test_a_pattern_in_the_name_keeps_groups_together(tmp_path: Path, pattern: str, seed: int) -> None:
    source = open_source(write_tree(tmp_path / "a", NAMES), group_by=pattern, seed=seed)
    found = groups_of(source)
    assert not found["train"] & found["val"] and found["train"] | found["val"] == {f"P{p:02}" for p in range(12)}
    assert f"in whole groups ({pattern}: 12 groups, {len(found['val'])} of them in val)" in source.note
    assert set(source.splits["val"].labels) == {0, 1} == set(source.splits["train"].labels)
    packed = open_source(write_zip(tmp_path / "a.zip", NAMES), group_by=pattern, seed=seed)
    assert packed.splits["val"].names == source.splits["val"].names
    assert source.grouped_by == pattern


def test_the_group_is_what_is_hashed() -> None:
    """Groups of one image each, of names that the hash alone divides well; the names of the images do not matter."""
    groups = [f"g{i}" for i in range(200)]
    expected = [lot(group) < 0.2 for group in groups]
    labels = np.arange(200) % 2
    assert all(0.15 <= np.mean(expected[c::2]) <= 0.25 for c in (0, 1))
    assert held_out(groups, labels, 0).tolist() == expected
    # More images of the same groups move none.
    more = held_out([*groups, *groups[:50]], np.array([*labels, *labels[:50]]), 0)
    assert more.tolist() == [*expected, *expected[:50]]


@pytest.mark.parametrize("images, classes, most_groups", [(120, 6, 40), (300, 3, 30), (80, 8, 80)])
def test_no_group_is_divided_and_no_class_lost(images: int, classes: int, most_groups: int) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        groups = [f"g{g}" for g in rng.integers(0, most_groups, images)]
        labels = rng.integers(0, classes, images)
        held = held_out(groups, labels, seed)
        of_group = {group: held[i] for i, group in enumerate(groups)}
        assert all(held[i] == of_group[group] for i, group in enumerate(groups))
        for c in range(classes):
            if len({group for group, label in zip(groups, labels, strict=True) if label == c}) > 1:
                assert 0 < held[labels == c].sum() < (labels == c).sum()


def test_a_class_of_one_group_is_trained_on() -> None:
    for seed in range(20):
        held = held_out(["a", "a", "b", "c", "d", "d"], np.array([0, 0, 1, 1, 1, 2]), seed)
        assert not held[:2].any() and not held[4:].any() and held[2] != held[3]


@pytest.mark.parametrize("images", [10, 20, 33, 100])
def test_shares_of_classes_are_kept(images: int) -> None:
    """Chance alone leaves 10 % of the classes of 10 images and 39 % of those of 20 outside of 15 to 25 %."""
    outside = 0
    for seed in range(20):
        names = [f"{c}/{i}" for c in range(6) for i in range(images)]
        labels = np.repeat(np.arange(6), images)
        alone = np.array([lot(name, seed) < 0.2 for name in names])
        held = held_out(names, labels, seed)
        for c in range(6):
            least, most = max(1, images * 15 // 100), -(-images // 4)
            own = alone[labels == c].sum()
            outside += not least <= own <= most
            assert held[labels == c].sum() == min(max(own, least), most)
    assert outside > 5


def table(tmp_path: Path, header: str, row: str) -> Path:
    """A file of labels: `row` with the number of the patient, its class and the image."""
    lines = [header]
    for name in NAMES:
        label, image = name.split("/")
        lines.append(row.format(image=image, label=label, patient=int(image[1:3])))
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "flat", [name.split("/")[1] for name in NAMES])


@pytest.mark.parametrize("header", ["patient_id", "Patient ID", "patient", "subject", "group", "video", "product-id"])
def test_a_column_with_a_known_header(flat: Path, tmp_path: Path, header: str) -> None:
    file = table(tmp_path, f"image,label,{header}", "{image},{label},{patient}")
    source = open_source(flat, labels=file)
    found = groups_of(source)
    assert not found["train"] & found["val"] and found["train"] | found["val"] == {str(p) for p in range(12)}
    assert f"({header}: 12 groups, " in source.note and "columns not used" not in source.note
    by_image = open_source(flat, labels=file, group_by="none")
    assert "whole groups" not in by_image.note and not by_image.grouped_by
    assert by_image.note.endswith(f"columns not used: {header}")


@pytest.mark.parametrize("missing", ["", "nan", "#N/A"])
def test_images_without_a_group_are_not_one(tmp_path: Path, missing: str) -> None:
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{'p1' if i < 4 else missing}\n" for i in range(20))
    (tmp_path / "labels.csv").write_text(f"image,label,patient_id\n{rows}")
    flat = write_tree(tmp_path / "flat", [f"{i}.png" for i in range(20)])
    source = open_source(flat, labels=tmp_path / "labels.csv")
    assert groups_of(source)["train"] | groups_of(source)["val"] == {"p1", ""}
    assert "16 images without group (patient_id), each a group of its own" in source.note


def test_a_column_that_is_asked_for(flat: Path, tmp_path: Path) -> None:
    file = table(tmp_path, "image,label,site(s),patient", "{image},{label},s{patient},{patient}")
    source = open_source(flat, labels=file, group_by="Site(s)")
    found = groups_of(source)
    assert not found["train"] & found["val"] and "s3" in found["train"] | found["val"]
    assert open_source(flat, labels=file).grouped_by == "patient"
    assert open_source(flat, labels=file, group_by="P..").grouped_by == "P.."
    with pytest.raises(DataError, match=r"--group-by sites: .* got the columns image, label, site\(s\), patient: corr"):
        open_source(flat, labels=file, group_by="sites")
    with pytest.raises(DataError, match=r"--group-by patient: .* got no file of labels with columns: correct it, give"):
        open_source(write_tree(tmp_path / "tree", NAMES), group_by="patient")


def test_what_is_called_group_and_is_none(flat: Path, tmp_path: Path) -> None:
    label = open_source(flat, labels=table(tmp_path, "image,group", "{image},{label}"))
    assert label.classes == ("ill", "well") and not label.grouped_by
    arms = open_source(flat, labels=table(tmp_path, "image,label,group", "{image},{label},{label}"))
    assert not arms.grouped_by and arms.note.endswith("columns not used: group")
    with pytest.raises(DataError, match=r"expected a class in 2 groups \(group\) or more .*, or give --group-by none"):
        open_source(flat, labels=table(tmp_path, "image,label,group", "{image},{label},{label}"), group_by="group")


def test_two_columns_of_groups(flat: Path, tmp_path: Path) -> None:
    file = table(tmp_path, "image,label,patient,video", "{image},{label},{patient},{image}")
    with pytest.raises(DataError, match=r"expected one column of groups, .* got patient and video: choose one with"):
        open_source(flat, labels=file)
    assert open_source(flat, labels=file, group_by="patient").grouped_by == "patient"
    file = table(tmp_path, "image,label,patient,video,split", "{image},{label},{patient},{image},train")
    file.write_text(file.read_text().replace("train", "val", 8))
    assert open_source(flat, labels=file).note.endswith("columns not used: patient, video")


def test_images_without_group(flat: Path, tmp_path: Path) -> None:
    file = table(tmp_path, "image,label,patient", "{image},{label},{patient}.0")
    file.write_text(file.read_text().replace(",3.0", ",").replace(",7.0", ", "))
    source = open_source(flat, labels=file)
    assert "8 images without group (patient), each a group of its own: P03_0.png, P03_1.png, P03_2.png … and 5" in (
        source.note
    )
    found = groups_of(source)
    assert found["train"] | found["val"] == {"", *(str(p) for p in range(12) if p not in (3, 7))}
    assert not (found["train"] & found["val"]) - {""} and ": 18 groups, " in source.note


def test_a_stated_split_that_divides_groups(tmp_path: Path) -> None:
    names = [f"{'val' if i == 0 and p < 2 else 'train'}/{'ab'[p % 2]}/P{p}_{i}.png" for p in range(4) for i in range(3)]
    root = write_tree(tmp_path / "split", names)
    source = open_source(root, group_by="(P.)_")
    assert source.note == "split as found (10 train, 2 val); 2 groups ((P.)_) in both train and val: P0, P1"
    assert divided_groups(source.splits) == {"train and val": ["P0", "P1"]}
    assert open_source(root).note == "split as found (10 train, 2 val)"
    for split in ("train", "val"):
        rows = [name.split("/")[2] for name in names if name.startswith(split)]
        folder = write_tree(tmp_path / "hub" / split, rows)
        lines = [json.dumps({"file_name": row, "label": row[1], "patient_id": int(row[1])}) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    assert "2 groups (patient_id) in both train and val: 0, 1" in open_source(tmp_path / "hub").note


def test_shards_and_digits_are_grouped_by_name(tmp_path: Path) -> None:
    files = {f"{n.split('/')[1][:-4]}.{end}": data for i, n in enumerate(NAMES)
             for end, data in (("png", write_tree(tmp_path / "x", NAMES).joinpath(n).read_bytes()),
                               ("cls", str(int("well" in n)).encode()))}  # fmt: skip
    files["classes.txt"] = b"ill\nwell\n"
    write_tar(tmp_path / "shards" / "0.tar", {k: v for k, v in files.items() if k != "classes.txt"})
    (tmp_path / "shards" / "classes.txt").write_bytes(files["classes.txt"])
    found = groups_of(open_source(tmp_path / "shards", group_by="(P[0-9]+)_"))
    assert not found["train"] & found["val"] and len(found["train"] | found["val"]) == 12
    found = groups_of(open_source("digits", group_by="/(...)"))
    assert not found["train"] & found["val"] and len(found["train"] | found["val"]) == 180


def test_refusals(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", NAMES)
    with pytest.raises(DataError, match=r"that --group-by \(Q\+\)_ matches, got none of 30, such as ill/P00_0.png: co"):
        open_source(root, group_by="(Q+)_")
    with pytest.raises(ConfigurationError, match="--group-by: expected a column or a regular expression, got an empty"):
        open_source(root, group_by=" ")
    with pytest.raises(ConfigurationError, match=r"--group-by \(P_: expected a regular expression, got a mistake"):
        open_source(root, group_by="(P_")
    with pytest.raises(DataError, match=r"expected a class in 2 groups \(\^\[a-z\]\+\) or more to hold some out"):
        open_source(root, group_by="^[a-z]+")
    with pytest.raises(DataError, match=r"expected at least 2 classes with 2 groups \(.*\) or more to hold some out"):
        open_source(root, group_by="^(ill)|(P[0-9]+)")
    with pytest.raises(DataError, match="expected images that can be split for --group-by, got a stream"):
        open_source("hf:some/thing", group_by="x+")


def test_a_class_in_too_few_groups_is_named(tmp_path: Path) -> None:
    names = [*NAMES, "rare/P50_0.png", "rare/P50_1.png"]
    source = open_source(write_tree(tmp_path / "tree", names), group_by="(P[0-9]+)_")
    assert "; no val images of rare: too few groups" in source.note
    source = open_source(write_tree(tmp_path / "tree2", [*NAMES, "rare/0.png"]))
    assert "; no val images of rare: too few images" in source.note


HASHES = [hashlib.md5(bytes([i])).hexdigest() for i in range(100)]
AUGMENTED = {
    "Roboflow": [f"{c}/{c}{i}_jpg.rf.{HASHES[3 * i + k]}.jpg" for c in "ab" for i in range(12) for k in range(3)],
    "PlantVillage": [
        f"{c}/{c} ({i}){end}.JPG" for c in "ab" for i in range(12) for end in ("", "_flipLR", "_new30degFlipLR")
    ],
    "written by scripts": [
        f"{c}/{i}{end}.png" for c in "ab" for i in range(12) for end in ("", "-aug_1", "-aug_2_rot90")
    ],
}


@pytest.mark.parametrize("case", AUGMENTED)
def test_augmented_versions_stay_together(tmp_path: Path, case: str) -> None:
    names = AUGMENTED[case]
    source = open_source(write_tree(tmp_path / "a", names))
    found = groups_of(source)
    assert not found["train"] & found["val"] and len(found["train"] | found["val"]) == 24
    assert f"in whole groups (augmented versions by name: 24 groups, {len(found['val'])} of them in val)" in source.note
    assert source.grouped_by == "augmented versions by name"
    apart = open_source(tmp_path / "a", group_by="none")
    assert "whole groups" not in apart.note and groups_of(apart) == {"train": set(), "val": set()}
    moved = [
        f"{'valid' if 'flip' in name or HASHES[1] in name or 'aug_1' in name else 'train'}/{name}" for name in names
    ]
    divided = open_source(write_tree(tmp_path / "b", moved))
    assert " (augmented versions by name) in both train and val: " in divided.note


@pytest.mark.parametrize(
    "names",
    [
        ["carrot/carrot_1.jpg", "carrot/carrot_2.jpg", "carrot/carrot.jpg"],  # no change is named
        ["a/1_rot.jpg", "a/2_rot.jpg", "b/1.jpg", "b/2.jpg"],  # the original is of another class
        ["a/1_night.jpg", "a/1.jpg"],
        [f"a/x_jpg.rf.{HASHES[0]}.jpg", f"a/y_jpg.rf.{HASHES[1]}.jpg"],  # one version of each
        ["train/1_flip.jpg", "a/1.jpg", "rot.jpg", "_rot.jpg", ".rf.jpg"],
    ],
)
def test_other_names_say_nothing_of_versions(names: list[str]) -> None:
    assert versions(names) == [""] * len(names)


def test_versions_of_versions_and_long_names() -> None:
    assert versions(["x.jpg", "x_aug_2.jpg", "x_aug_2_flip.jpg", "y_aug.jpg"]) == ["/x", "/x", "/x", ""]
    assert versions(["train/x.jpg", "val/x_flip.jpg"]) == ["/x", "/x"]
    assert len(versions(["x" + "_rot" * k + ".jpg" for k in range(1000)])) == 1000  # in no time, and without recursion
