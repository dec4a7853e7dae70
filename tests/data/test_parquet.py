"""Parquet files in the Hugging Face layout, and what is refused."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inceptionnet.data import open_source
from inceptionnet.errors import DataError, DecodeError, MissingExtraError

from .made import png


def write(
    path: Path,
    labels: list[Any],
    *,
    names: list[str] | None = None,
    paths: list[str | None] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    plain: bool = False,
    first: int = 0,
) -> None:
    """Image i is grey first + i."""
    images: list[Any] = [png(first + i) for i in range(len(labels))]
    kind: pa.DataType = pa.binary()
    if not plain:
        given = paths or [None] * len(labels)
        images = [{"bytes": data, "path": p} for data, p in zip(images, given, strict=True)]
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({columns[0]: pa.array(images, kind), columns[1]: pa.array(labels), "extra": labels})
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


@pytest.mark.parametrize("folder", ["", "data"])
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_splits_shards_and_class_names(tmp_path: Path, folder: str, val: str) -> None:
    root = tmp_path / folder
    names = ["zebra", "ant"]
    write(root / "train-00000-of-00002.parquet", [0, 1, 1], names=names, paths=["z/0.png", None, "z/0.png"])
    write(root / "train-00001-of-00002.parquet", [0], names=names, first=3)
    write(root / f"{val}-00000-of-00001.parquet", [1, 0], names=names, first=4)
    write(root / "test.parquet", [0, 1], names=names, first=6)
    source = open_source(tmp_path)
    assert source.classes == ("zebra", "ant")
    assert source.note == "split as found (4 train, 2 val, 2 test); columns not used: extra"
    train = source.splits["train"]
    first, second = "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    assert train.names == ["z/0.png", f"{first}:1", f"{first}:2", f"{second}:0"]
    assert train.labels.tolist() == [0, 1, 1, 0] and [train.read(i) for i in range(4)] == [png(i) for i in range(4)]
    assert source.splits["val"].read(0) == png(4) and source.splits["test"].read(1) == png(7)
    assert pickle.loads(pickle.dumps(train)).read(2) == png(2)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([10, 2, 10, 2, 2], ("2", "10"), [1, 0, 1, 0, 0]),
        (["b", "a", "b", "a", "a"], ("a", "b"), [1, 0, 1, 0, 0]),
        (pa.array(["b", "a", "b", "a", "a"]).dictionary_encode(), ("a", "b"), [1, 0, 1, 0, 0]),
    ],
)
def test_without_class_names_labels_are_sorted(tmp_path: Path, labels: Any, classes: Any, numbers: list[int]) -> None:
    write(tmp_path / "0000.parquet", labels, plain=True, columns=("img", "fine_label"))
    source = open_source(tmp_path)
    assert source.classes == classes and source.note.startswith("not split: 20 %")
    found = {}
    for split in source.splits.values():
        found |= {split.read(i): int(split.labels[i]) for i in range(len(split))}
    assert found == {png(i): number for i, number in enumerate(numbers)}


def test_string_labels_follow_the_schemas_class_order(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["a", "b", "a"], names=["b", "a"])
    write(tmp_path / "test.parquet", ["b", "a"], names=["b", "a"])
    source = open_source(tmp_path)
    assert source.classes == ("b", "a") and source.splits["train"].labels.tolist() == [1, 0, 1]


def test_unlabelled_split_and_unnamed_file_are_left_out_and_said(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write(tmp_path / f"{name}.parquet", [0, 1], names=["a", "b"])
    write(tmp_path / "test.parquet", [-1, -1], names=["a", "b"])
    write(tmp_path / "values.parquet", [0], names=["a", "b"])
    source = open_source(tmp_path)
    assert list(source.splits) == ["train", "val"]
    assert source.note == (
        "split as found (2 train, 2 val); values.parquet ignored: not named after a split; "
        "test ignored: all labels are -1 (unlabelled); columns not used: extra"
    )


def test_a_row_without_bytes_is_a_corrupt_image(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "far/away.png"}, {"bytes": png(), "path": "b"}]
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": rows, "label": [0, 1]}), tmp_path / "val.parquet")
    with pytest.raises(DecodeError, match=r"^far/away.png: has no image bytes"):
        open_source(tmp_path).splits["train"].read(0)


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"

    def refused(reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            open_source(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)

    write(path, [0, 1], columns=("photo", "label"))
    refused("expected columns image/img and label/labels/fine_label, got photo, label, extra")
    write(path, [0, None])
    refused("column label, got int64 with 1 missing")
    write(path, [[0], [1]])
    refused("one integer or string per row in column label, got list<")
    write(path, [0, 2, -1], names=["a", "b"])
    refused("labels of the 2 named classes, got also -1, 2")
    write(path, [])
    refused("without labelled rows|got null with 0 missing")
    write(path, [0, 0, 0])
    refused(r"at least 2 classes, got 1 \(0\)")
    pq.write_table(pa.table({"image": ["a.png", "b.png"], "label": [0, 1]}), path)
    refused("expected encoded images in column image, got string")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused("expected a parquet file, got one that cannot be read")
    path.unlink()
    write(tmp_path / "test.parquet", [0, 1])
    refused("expected a train split, got only test")
    write(path, [0, 1])
    write(tmp_path / "test.parquet", [2])
    refused("expected the classes of train, got also 2 in test")
    write(tmp_path / "test.parquet", [0], names=["a", "b"])
    refused("the same class names in every .parquet file, got 2 different lists")
    write(tmp_path / "test.parquet", ["a"])
    refused("labels of one type, got integers and strings")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pyarrow.*inceptionnet\[parquet\]"):
        open_source(tmp_path)


def test_a_folder_of_several_data_sets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.parquet", [0, 1])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"got 3 other files .*: give the folder of one data set, such as .*/a, .*/b$"):
        open_source(tmp_path)
