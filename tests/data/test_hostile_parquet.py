"""Parquet files that nobody should have made: each is refused in one line, fast, and before it fills the memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inceptionnet.data import open_source
from inceptionnet.data.matching import Images
from inceptionnet.data.parquet import read_images
from inceptionnet.data.tables import read_table
from inceptionnet.errors import DataError
from inceptionnet.system import parquet_files
from inceptionnet.system.thrift import Reader

from .made import png, write_tree
from .made_parquet import LEAF, Many, page, thrift, varint, write_pages, write_raw, zeros

MEGA = 2**20


def repeated(path: Path, value: bytes, rows: int, kind: str = "flat", **how: Any) -> None:
    """One value that every row has, stored once."""
    array: Any = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
    if kind == "struct":
        array = pa.StructArray.from_arrays([array, pa.nulls(rows, pa.string())], ["bytes", "path"])
    if kind == "list":
        array = pa.ListArray.from_arrays(pa.array([0, rows], pa.int32()), array)
    how = {"dictionary_pagesize_limit": 2**30, "store_schema": False} | how
    pq.write_table(pa.table({"image": array, "label": np.zeros(len(array), np.int8)}), path, **how)


def shared(path: Path) -> None:
    """Values of a megabyte that share all of it with the one before."""
    table = pa.table({"image": pa.array([bytes(MEGA)] * 40)})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"})


SMALL = thrift({2: (0,)})
"""A chunk of a column in 3 bytes."""
ROOT = {4: b"schema", 5: 1}


def nested(depth: int) -> Many:
    return Many(thrift({4: b"a", 5: 1}), depth)


BOMBS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rows": (lambda path: pq.write_table(pa.table({"image": pa.nulls(10_000_000, pa.binary())}), path), "10000000"),
    "dictionary": (lambda path: repeated(path, bytes(MEGA), 100_000), "bytes when it is unpacked"),
    "dictionary in a structure": (lambda path: repeated(path, bytes(MEGA), 100_000, "struct"), "when it is unpacked"),
    "dictionary in one list": (lambda path: repeated(path, bytes(MEGA), 100_000, "list"), "when it is unpacked"),
    "dictionary in pages of version 2": (
        lambda path: repeated(path, bytes(MEGA), 100_000, data_page_version="2.0", compression="zstd"), "unpacked",
    ),
    "shared prefixes": (shared, "when it is unpacked"),
    "a packed page": (
        lambda path: write_pages(path, [page(0, 2**30, zeros(2**30), 1)], 1, codec=6), "bytes when it is unpacked",
    ),
    "a packed dictionary": (
        lambda path: write_pages(path, [page(2, 2**30, zeros(2**30), 1)], 1, codec=6), "bytes when it is unpacked",
    ),
    "many packed pages": (
        lambda path: write_pages(path, [page(0, 2**26, zeros(2**26), 1)] * 5, 5, codec=6), "bytes when it is unpacked",
    ),
    "a page of many values": (lambda path: write_pages(path, [page(0, 8, bytes(8), 2**30)], 1), "16777216 values"),
    "wide values": (
        lambda path: write_pages(path, [page(0, 8, bytes(8), 9)], 9, leaf={1: 7, 2: 2**30, 3: 0, 4: b"image"}),
        "when it is unpacked",
    ),
    "a page of a negative size": (lambda path: write_pages(path, [page(0, -8, bytes(8), 9)], 9), "field 2 is no num"),
    "a page whose size is a structure": (
        lambda path: write_pages(path, [thrift({1: 0, 2: {1: 1}, 3: 8, 5: {1: 9}}) + bytes(8)], 9), "field 2 is no num",
    ),
    "a histogram of too many levels": (  # pyarrow would end the process where it is asked for the column
        lambda path: write_pages(path, [page(0, 8, bytes(8), 1)], 1, more={16: {3: [(1,), (1,), (1,)]}}), "histogram",
    ),
    "a row group without columns": (
        lambda path: write_raw(path, {2: [ROOT, LEAF], 4: [{1: [], 2: (0,), 3: (9,)}]}), "a row group of 0 columns",
    ),
    "a column that says nothing": (
        lambda path: write_raw(path, {2: [ROOT, LEAF], 4: [{1: [{2: (4,)}], 2: (0,), 3: (9,)}]}), "may be encrypted",
    ),
    "many empty pages": (lambda path: write_pages(path, [page(0, 0, b"", 0)] * 110_000, 9), "more pages than can be"),
    "a page without end": (lambda path: write_pages(path, [b"\x18" + varint(2**40)], 9), "a page at byte 4 without"),
    "small chunks": (
        lambda path: write_raw(path, {2: [ROOT, LEAF], 4: [{1: Many(SMALL, 900_000), 2: (0,), 3: (0,)}]}),
        "more values than can be read",
    ),
    "many columns": (
        lambda path: write_raw(path, {2: Many(thrift(LEAF), 100_000), 4: []}), "a schema of 100000 columns",
    ),
    "deep columns": (lambda path: write_raw(path, {2: nested(9000), 4: []}), "more than 100 columns in each other"),
    "very deep columns": (lambda path: write_raw(path, {2: nested(600_000), 4: []}), "more values than can be read"),
    "no columns": (lambda path: write_raw(path, {2: [], 4: []}), "a schema of 0 columns"),
    "structures in each other": (lambda path: write_raw(path, {2: [ROOT], 99: Many(b"\x1c" * 999, 1)}), "too deep"),
    "lists in each other": (lambda path: write_raw(path, {2: [ROOT], 90: Many(b"\x19" * 9999, 1, 9)}), "too deep"),
    "a list that is not there": (lambda path: write_raw(path, {2: Many(b"", 2**62)}), "too many to read"),
    "a list of another kind": (
        lambda path: write_raw(path, {2: [ROOT, LEAF], 4: [], 5: Many(b"\x03abc", 9, 8)}), "of kind 8, which is",
    ),
    "a number without end": (lambda path: write_raw(path, {2: Many(b"", 1, 5, b"\xff" * 99)}), "kind 5|64 bits"),
}  # fmt: skip


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write, reason = BOMBS[name]
    path = tmp_path / "train.parquet"
    if name == "shared prefixes":
        monkeypatch.setattr(parquet_files, "UNPACKED_BYTES", 2**24)
    write(path)
    assert path.stat().st_size < 4_000_000
    before, start = memory(), time.process_time()
    with pytest.raises(DataError, match=reason) as caught:
        read_images(path)
    assert str(caught.value).startswith(f"{path}: expected ") and "\n" not in str(caught.value)
    with pytest.raises(DataError, match=f"{reason}|got encoded images in image"):
        read_table(path, Images(["a.png"]))
    assert time.process_time() - start < 20 and memory() - before < 500  # without the limits: minutes, gigabytes


def test_a_truth_where_a_list_should_be() -> None:
    with pytest.raises(ValueError, match="a value of kind 1 instead of a list"):
        Reader(b"\x21\0", 10).struct({2: [{}]})
    assert Reader(b"\x21\0", 10).struct({}) == {2: 1}


def test_bombs_of_texts_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = 2**20
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["a" * 10_000]))
    pq.write_table(pa.table({"image": texts, "label": np.zeros(rows, np.int8)}), path)
    with pytest.raises(DataError, match="at most 268435456 bytes when it is unpacked"):
        read_table(path, Images(["a.png"]))
    many = {f"c{i}": np.zeros(rows, np.int8) for i in range(17)}
    pq.write_table(pa.table(many), path)
    with pytest.raises(DataError, match="at most 16777216 values, got 17825792"):
        read_table(path, Images(["a.png"]))


@pytest.mark.parametrize("rows", [1, 50, 400])
@pytest.mark.parametrize("how", [{}, {"use_dictionary": False}, {"data_page_version": "2.0", "compression": "gzip"}])
@pytest.mark.parametrize("kind", ["flat", "struct", "delta"])
def test_what_unpacks_is_counted_exactly(
    tmp_path: Path, rows: int, how: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that repeat, beside as many that do not; up to the limit all is read."""
    path = tmp_path / "train.parquet"
    values = [bytes([i % 7]) * (1000 * (i % 7)) for i in range(rows)]
    image: Any = pa.array(values)
    leaf = "image"
    if kind == "struct":
        leaf, image = "image.bytes", pa.StructArray.from_arrays([image, pa.nulls(rows, pa.string())], ["bytes", "path"])
    if kind == "delta":
        how = how | {"use_dictionary": False, "column_encoding": {leaf: "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"image": image}), path, row_group_size=60, **how)
    monkeypatch.setattr(parquet_files, "UNPACKED_TIMES", 0)
    size = sum(map(len, values))
    monkeypatch.setattr(parquet_files, "UNPACKED_BYTES", size // 3)
    if size:
        with pytest.raises(DataError, match="bytes when it is unpacked"):
            read_images(path)
    monkeypatch.setattr(parquet_files, "UNPACKED_BYTES", 2 * size + 100_000)
    names, read = read_images(path)
    assert [read(i) for i in range(len(names))] == values


NAMES = ["ant", "bee"]


def written(path: Path, image: Any, label: Any = (0, 1), names: Any = NAMES, **more: Any) -> None:
    """A table of two rows, in whose schema `names` is what datasets writes, or the text of the entry."""
    columns = {"image": image, "label": label if isinstance(label, pa.Array) else pa.array(list(label)), **more}
    text = names
    if not isinstance(names, bytes):
        text = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), path)


def images(kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([png(1), png(2)], kind or pa.binary())


def rows(paths: Any) -> pa.Array:
    return pa.StructArray.from_arrays([images(), paths], ["bytes", "path"])


def text_of(*values: bytes) -> pa.Array:
    """An array of texts that are none."""
    data = pa.array(values)
    return pa.StringArray.from_buffers(len(data), data.buffers()[1], data.buffers()[2])


class Extension(pa.ExtensionType):
    def __init__(self, storage: pa.DataType) -> None:
        super().__init__(storage, "inceptionnet.test")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, _: bytes) -> Extension:
        return cls(storage)


def extension(array: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(Extension(array.type), array)


LABELS: dict[str, Any] = {
    "int8": pa.array([0, 1], pa.int8()),
    "uint64": pa.array([0, 1], pa.uint64()),
    "large": pa.array(NAMES, pa.large_string()),
    "view": pa.array(NAMES).cast(pa.string_view()),
    "dictionary": pa.array(NAMES).dictionary_encode(),
    "dictionary of large": pa.array(NAMES, pa.large_string()).dictionary_encode(),
    "dictionary of numbers": pa.array([0, 1]).dictionary_encode(),
    "extension": extension(pa.array([0, 1])),
    "extension of texts": extension(pa.array(NAMES)),
}
IMAGES: dict[str, Any] = {
    "large": images(pa.large_binary()),
    "view": images(pa.binary_view()),
    "fixed size": images(pa.binary(len(png(1)))),
    "extension": extension(images()),
    "dictionary": images().dictionary_encode(),
    "structure": rows(pa.array(["a.png", "b.png"])),
    "large in a structure": pa.StructArray.from_arrays(
        [images(pa.large_binary()), pa.array(["a.png", "b.png"], pa.large_string())], ["bytes", "path"]
    ),
    "views in a structure": pa.StructArray.from_arrays(
        [images(pa.binary_view()), pa.array(["a.png", "b.png"], pa.string_view())], ["bytes", "path"]
    ),
    "paths of no type": rows(pa.nulls(2)),
    "no paths": pa.StructArray.from_arrays([images()], ["bytes"]),
}


@pytest.mark.parametrize(
    ("image", "label"),
    [(one, LABELS["int8"]) for one in IMAGES.values()] + [(images(), one) for one in LABELS.values()],
    ids=[f"image {name}" for name in IMAGES] + [f"label {name}" for name in LABELS],
)  # fmt: skip
@pytest.mark.parametrize("registered", [False, True])
def test_every_way_to_store_the_same_is_read(tmp_path: Path, image: Any, label: Any, registered: bool) -> None:
    written(tmp_path / "train.parquet", image, label)
    written(tmp_path / "val.parquet", images(), label)
    if registered:
        pa.register_extension_type(Extension(pa.null()))
    try:
        source = open_source(tmp_path)
    finally:
        if registered:
            pa.unregister_extension_type("inceptionnet.test")
    train = source.splits["train"]
    assert source.classes == ("ant", "bee") and train.labels.tolist() == [0, 1]
    assert [train.read(i) for i in range(2)] == [png(1), png(2)]
    assert set(train.names) in ({"a.png", "b.png"}, {"train.parquet:0", "train.parquet:1"})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "paths that are numbers": ({"image": rows(pa.array([1, 2]))}, "expected texts in column image.path, got int64"),
    "paths that are bytes": ({"image": rows(pa.array([b"a", b"b"]))}, "texts in column image.path, got binary"),
    "paths that are structures": ({"image": rows(pa.array([{"a": 1}] * 2))}, "texts in column image.path, got struct"),
    "paths in another code": ({"image": rows(text_of(b"\xff.png", b"b"))}, "Invalid UTF8"),
    "a structure without bytes": ({"image": pa.array([{"path": "a"}] * 2)}, "in column image, got struct<path"),
    "bytes that are texts": ({"image": pa.array([{"bytes": "a"}] * 2)}, "in column image, got string"),
    "images of no type": ({"image": pa.nulls(2)}, "in column image, got null"),
    "lists of images": ({"image": pa.array([[b"a"]] * 2)}, "in column image, got list"),
    "no images": ({"image": None}, "got label: rename"),
    "labels in another code": ({"label": text_of(b"ant", b"\xff")}, "Invalid UTF8"),
    "labels of no type": ({"label": pa.nulls(2)}, "column label, got null with 2 missing"),
    "labels that are true": ({"label": [True, False]}, "column label, got bool"),
    "labels with a point": ({"label": [0.0, 1.0]}, "column label, got double"),
    "decimal labels": ({"label": pa.array([0, 1]).cast(pa.decimal128(30, 2))}, "column label, got decimal"),
    "dates": ({"label": pa.array([0, 1], pa.date32())}, "column label, got date32"),
    "lists of labels": ({"label": [[0], [1]]}, "column label, got list"),
    "structures of labels": ({"label": [{"a": 0}] * 2}, "column label, got struct"),
    "a dictionary with nulls": ({"label": pa.array(["ant", None]).dictionary_encode()}, "string with 1 missing"),
    "labels beyond int64": ({"label": pa.array([0, 2**64 - 1], pa.uint64())}, "got also 18446744073709551615"),
    "negative labels": ({"label": [0, -2]}, "got also -2"),
    "names that are null": ({"names": None}, r"info\.features\.label\.names, got None"),
    "names that are numbers": ({"names": [0, 1]}, r"label\.names\.0, got 0 \("),
    "a name that is null": ({"names": ["a", None]}, r"label\.names\.1, got None"),
    "names by number": ({"names": {"0": "a"}}, r"label\.names, got \{'0': 'a'\}"),
    "names in lists": ({"names": ["a", ["b"]]}, r"label\.names\.1, got \['b'\]"),
    "a text of names": ({"names": "ant"}, r"label\.names, got 'ant'"),
    "no names": ({"names": []}, r"label\.names, got \[\]"),
    "an empty name": ({"names": ["a", ""]}, r"label\.names\.1, got ''"),
    "a long name": ({"names": ["a", "b" * 10**6]}, r"label\.names\.1, got 'bbb"),
    "a name twice": ({"names": ["a", "b", "a"]}, "every name once .*got a more than once"),
    "half a character": ({"names": ["a", "\ud800"]}, r"label\.names\.1, got '\\ud800'"),
    "a million names": ({"names": [str(i) for i in range(10**6)]}, "at most 8388608 bytes"),
    "deep lists": ({"names": b"[" * 100_000}, "expected JSON in the entry huggingface, got .* too deep to read"),
    "no JSON": ({"names": b"{"}, "expected JSON in the entry huggingface"),
    "JSON in another code": ({"names": b'{"info": "\xff"}'}, "expected JSON in the entry huggingface"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str, split: str) -> None:
    change, reason = WRONG[name]
    for other in ("train", "val", "test"):
        written(tmp_path / f"{other}.parquet", **({"image": images()} | (change if other == split else {})))
    with pytest.raises(DataError, match=reason) as caught:
        open_source(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path)) and len(message) < 600 + len(str(tmp_path)) and message.isprintable()


@pytest.mark.parametrize("text", [b"{}", b"[]", b"null", b"1", b'{"info": null}', b'{"info": {"features": [1]}}',
                                  b'{"info": {"features": {"label": "x"}}}', b'{"info": {"features": {"label": {}}}}',
                                  b'{"info": {"features": {"image": {"names": 1}}}}'])  # fmt: skip
def test_entries_without_class_names(tmp_path: Path, text: bytes) -> None:
    for split in ("train", "val"):
        written(tmp_path / f"{split}.parquet", images(), names=text)
    assert open_source(tmp_path).classes == ("0", "1")


def test_columns_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"

    def refused(reason: str, table: pa.Table) -> None:
        pq.write_table(table, path)
        for read in (lambda: open_source(tmp_path), lambda: read_table(path, Images(["a.png"]))):
            with pytest.raises(DataError, match=reason):
                read()

    refused("more than one column label", pa.table([["a"], [0], [1]], names=["image", "label", "label"]))
    one = pa.StructArray.from_arrays([images(), images()], ["bytes", "bytes"])
    refused("more than one column image.bytes", pa.table({"image": one, "label": [0, 1]}))
    refused("expected columns image/img and .*, got none|got an empty one", pa.table({}))
    refused("labelled images, got .parquet files without any|got encoded images", pa.table(
        {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}))  # fmt: skip
    pq.write_table(pa.table({"image": images(), "name": [0, 1]}), path)
    path.write_bytes(path.read_bytes().replace(b"name", b"na\xffe"))
    with pytest.raises(DataError, match=r"cannot be read .*codec can't decode"):
        open_source(tmp_path)


def test_tables_with_odd_columns(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "d", ["a.png", "b.png", "c.png", "d.png"])
    path, names = tmp_path / "x.parquet", ["a.png", "b.png", "c.png", "d.png"]
    same = ["ant", "bee", "ant", "bee"]
    for label in (
        pa.array(same, pa.large_string()), pa.array(same).cast(pa.string_view()), pa.array(same).dictionary_encode(),
        extension(pa.array(same)), pa.array([[one] for one in same], pa.large_list(pa.large_string())),
    ):  # fmt: skip
        pq.write_table(pa.table({"image": names, "label": label, "more": [{"a": [1]}] * 4, "none": pa.nulls(4)}), path)
        assert open_source(folder, labels=path).classes == ("ant", "bee")
    pq.write_table(pa.table({"image": names, "label": text_of(b"ant", b"bee", b"\xff", b"ant")}), path)
    with pytest.raises(DataError, match="Invalid UTF8"):
        open_source(folder, labels=path)
    written(path, pa.array(names[:2]), names=[1, 2])
    with pytest.raises(DataError, match=r"info\.features\.label\.names\.0, got 1 "):
        open_source(folder, labels=path)
    pq.write_table(pa.table({"image": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), path)
    with pytest.raises(DataError, match="got an empty one"):
        open_source(folder, labels=path)
