"""Parquet files in the Hugging Face layout: encoded images, labels, class names in the schema.

Limit: all encoded images are kept in memory (as arrow buffers, about the size of the files), and a worker process that
is spawned instead of forked gets its own copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inceptionnet.data.names import by_split
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, DecodeError, listed
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import check_fit, from_json, unreadable

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class _File:
    name: str
    images: Any  # pyarrow.ChunkedArray of large_binary
    paths: list[str | None]
    labels: list[int] | list[str]
    classes: list[str] | None  # from the schema


@dataclass(frozen=True)
class _ArrowReader:
    """Reads encoded images from a pyarrow.ChunkedArray, by position."""

    images: Any
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        data = self.images[index].as_py()
        if data is None:
            raise DecodeError(f"{self.names[index]}: has no image bytes, only a path")
        return bytes(data)


def read_parquet(files: Sequence[Path], where: str) -> tuple[list[str], dict[str, Split], list[str]]:
    """Read parquet files: (classes, splits by name or all under "", notes on ignored files).

    A file belongs to the split that its name starts with (train-00000-of-00002.parquet). Raises: DataError.
    """
    pa = import_extra("pyarrow", "parquet", "reading .parquet files")
    groups, ignored = by_split(files)
    contents = {split: [_read(path) for path in paths] for split, paths in groups.items()}
    for split in [split for split, parts in contents.items() if split and _unlabelled(parts)]:
        ignored.append(f"{split} ignored: all labels are -1 (unlabelled)")
        del contents[split]

    classes, codes = _classes([part for parts in contents.values() for part in parts], where)
    found = {}
    for split, parts in contents.items():
        names = _names(parts)
        labels = np.array([codes[label] for part in parts for label in part.labels], np.int64)
        images = pa.chunked_array([c for part in parts for c in part.images.chunks], type=pa.large_binary())
        found[split] = Split(names, labels, _ArrowReader(images, names))
    return classes, found, ignored


def _read(path: Path) -> _File:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        check_fit(path)
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
            label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
            if image is None or label is None:
                expected = f"{'/'.join(IMAGE_COLUMNS)} and {'/'.join(LABEL_COLUMNS)}"
                raise DataError(
                    f"{path}: expected columns {expected}, got {listed(schema.names, ordered=True)}: rename them"
                )
            table = file.read(columns=[image, label])
        (images, paths), labels = _encoded(path, image, table[image]), table[label]
        if pa.types.is_dictionary(labels.type):
            labels = labels.cast(labels.type.value_type)
        if not (pa.types.is_integer(labels.type) or pa.types.is_string(labels.type)) or labels.null_count:
            got = f"{labels.type} with {labels.null_count} missing"
            raise DataError(
                f"{path}: expected one integer or string per row in column {label}, got {got}: correct the column"
            )
        return _File(path.name, images, paths, labels.to_pylist(), _class_names(schema, label))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None


def _class_names(schema: Any, column: str) -> list[str] | None:
    try:
        names = from_json(schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):  # not written by Hugging Face datasets, or the labels are no ClassLabel
        return None
    return [str(name) for name in names]


def _unlabelled(parts: list[_File]) -> bool:
    return all(label == -1 for part in parts for label in part.labels)


def _classes(parts: list[_File], where: str) -> tuple[list[str], dict[int | str, int]]:
    """Class names in label order, and stored label → label number. Raises: DataError if the files disagree."""
    used: list[Any] = []
    try:
        used = sorted({label for part in parts for label in part.labels})
    except TypeError:
        raise DataError(f"{where}: expected labels of one type, got integers and strings: convert them") from None
    if not used:
        raise DataError(f"{where}: expected labelled images, got .parquet files without any: add some")
    known = {tuple(part.classes) if part.classes is not None else None for part in parts}
    if len(known) > 1:
        raise DataError(
            f"{where}: expected the same class names in every .parquet file, got {len(known)} different lists: write "
            "the files again with one list"
        )
    (names,) = known
    if names is None:
        return [str(label) for label in used], {label: i for i, label in enumerate(used)}
    codes: dict[int | str, int] = {i: i for i in range(len(names))}
    if isinstance(used[0], str):
        codes = {name: i for i, name in enumerate(names)}
    if unknown := [str(label) for label in used if label not in codes]:
        raise DataError(
            f"{where}: expected labels of the {len(names)} named classes, got also {listed(unknown)}: correct them"
        )
    return list(names), codes


def _names(parts: list[_File]) -> list[str]:
    """The stored path if there is one and it is unique, else FILE:ROW."""
    names: list[str] = []
    seen: set[str] = set()
    for part in parts:
        for row, path in enumerate(part.paths):
            names.append(path if path and path not in seen else f"{part.name}:{row}")
            seen.add(names[-1])
    return names


def read_images(path: Path) -> tuple[list[str], Callable[[int], bytes]]:
    """The names of a parquet file's images, labelled or not, and what reads one by position. Raises: DataError."""
    pa = import_extra("pyarrow", "parquet", "reading .parquet files")
    pq = import_extra("pyarrow.parquet", "parquet", "reading .parquet files")
    try:
        check_fit(path)
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            column = next((name for name in IMAGE_COLUMNS if name in names), None)
            if column is None:
                raise DataError(
                    f"{path}: expected a column {' or '.join(IMAGE_COLUMNS)}, got {listed(names)}: rename it"
                )
            table = file.read(columns=[column])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    images, paths = _encoded(path, column, table[column])
    called = _names([_File(path.name, images, paths, [], None)])
    return called, _ArrowReader(images, called)


def _encoded(path: Path, column: str, images: Any) -> tuple[Any, list[str | None]]:
    """A column's encoded images as large_binary, and the paths beside them. Raises: DataError."""
    import pyarrow as pa
    import pyarrow.compute as pc

    paths: list[str | None] = [None] * len(images)
    if pa.types.is_struct(images.type):
        fields = {field.name for field in images.type}
        paths = pc.struct_field(images, "path").to_pylist() if "path" in fields else paths
        images = pc.struct_field(images, "bytes") if "bytes" in fields else images
    if not (pa.types.is_binary(images.type) or pa.types.is_large_binary(images.type)):
        raise DataError(f"{path}: expected encoded images in column {column}, got {images.type}: encode them")
    return images.cast(pa.large_binary()), paths


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: expected a parquet file, got one that cannot be read ({unreadable(error)}): download it again"
    )
