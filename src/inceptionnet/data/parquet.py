"""Parquet files in the Hugging Face layout: encoded images, labels, class names in the schema.

Limit: all encoded images are kept in memory (as arrow buffers, about the size of the files), and a worker process that
is spawned instead of forked gets its own copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inceptionnet.data.features import class_names
from inceptionnet.data.names import by_split
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, DecodeError, listed
from inceptionnet.system.extras import import_extra
from inceptionnet.system.parquet_files import ParquetTable, flat, open_parquet

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")


@dataclass(frozen=True)
class _File:
    name: str
    images: Any  # pyarrow.ChunkedArray of large_binary
    paths: list[str | None]
    labels: list[int] | list[str]
    classes: list[str] | None  # from the schema
    unused: frozenset[str] = frozenset()  # other columns


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
    """Read parquet files: (classes, splits by name or all under "", notes on ignored files and columns).

    A file belongs to the split that its name starts with (train-00000-of-00002.parquet). Raises: DataError.
    """
    pa = import_extra("pyarrow", "parquet", "reading .parquet files")
    groups, ignored = by_split(files)
    contents = {split: [_read(path) for path in paths] for split, paths in groups.items()}
    for split in [split for split, parts in contents.items() if split and _unlabelled(parts)]:
        ignored.append(f"{split} ignored: all labels are -1 (unlabelled)")
        del contents[split]
    ignored += columns_not_used(name for parts in contents.values() for part in parts for name in part.unused)

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

    with open_parquet(path) as file:
        image, label = _column(file, IMAGE_COLUMNS), _column(file, LABEL_COLUMNS)
        if image is None or label is None:
            expected = f"{'/'.join(IMAGE_COLUMNS)} and {'/'.join(LABEL_COLUMNS)}"
            names = listed(file.schema.names, ordered=True) or "none"
            raise DataError(f"{path}: expected columns {expected}, got {names}: rename them")
        classes = class_names(path, file.schema, label)
        table = file.read([image, label])
        (images, paths), labels = _encoded(path, image, table[image]), flat(table[label])
        if not (pa.types.is_integer(labels.type) or _is_text(labels.type)) or labels.null_count:
            got = f"{labels.type} with {labels.null_count} missing"
            raise DataError(
                f"{path}: expected one integer or string per row in column {label}, got {got}: correct the column"
            )
        unused = frozenset(file.schema.names) - {image, label}
        return _File(path.name, images, paths, labels.to_pylist(), classes, unused)


def columns_not_used(names: Iterable[str]) -> list[str]:
    """A note on the columns of a table that are neither the images nor their labels."""
    unused = sorted(set(names))
    return [f"columns not used: {listed(unused)}"] if unused else []


def _column(file: ParquetTable, known: Sequence[str]) -> str | None:
    return next((name for name in known if name in file.schema.names), None)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


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
    """The names of a parquet file's images, labelled or not, and what reads one by position.

    Raises: DataError, MissingExtraError.
    """
    with open_parquet(path) as file:
        column = _column(file, IMAGE_COLUMNS)
        if column is None:
            names = listed(file.schema.names) or "none"
            raise DataError(f"{path}: expected a column {' or '.join(IMAGE_COLUMNS)}, got {names}: rename it")
        images, paths = _encoded(path, column, file.read([column])[column])
    called = _names([_File(path.name, images, paths, [], None)])
    return called, _ArrowReader(images, called)


def _encoded(path: Path, column: str, images: Any) -> tuple[Any, list[str | None]]:
    """A column's encoded images as large_binary, and the paths beside them. Raises: DataError."""
    import pyarrow as pa
    import pyarrow.compute as pc

    images = flat(images)
    paths: list[str | None] = [None] * len(images)
    if pa.types.is_struct(images.type):
        fields = {field.name for field in images.type}
        if "path" in fields:
            named = flat(pc.struct_field(images, "path"))
            if not (_is_text(named.type) or pa.types.is_null(named.type)):
                raise DataError(f"{path}: expected texts in column {column}.path, got {named.type}: correct the column")
            paths = named.to_pylist()
        images = flat(pc.struct_field(images, "bytes")) if "bytes" in fields else images
    is_binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    if not any(is_one(images.type) for is_one in is_binary):
        raise DataError(f"{path}: expected encoded images in column {column}, got {images.type}: encode them")
    return images.cast(pa.large_binary()), paths
