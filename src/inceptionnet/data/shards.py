"""Tar shards in WebDataset's layout, read in place: KEY.jpg (or .png, …) next to KEY.cls, key after key.

A key is a member's path up to the first dot of its base name; the members of a key are consecutive. KEY.cls contains
an integer or a class name; without it, the label is "label" or "cls" in KEY.json. Other members are ignored.

Limit: opening reads the header of every member once, some 20,000 to 50,000 per second, and keeps a name and three
numbers per image in memory.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from inceptionnet.data.class_names import CLASSES_FILE, ClassNames, is_number
from inceptionnet.data.decode import MAX_BYTES
from inceptionnet.data.names import EXTENSIONS, by_split
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, DecodeError

LABEL_FIELDS = ("cls", "json")
MAX_LABEL_BYTES = 2**20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard

Member = TypeVar("Member")
_Place: TypeAlias = tuple[int, int]  # offset and size in bytes


def labelled(
    members: Iterable[tuple[str, Member]], read: Callable[[Member], bytes], shard: str
) -> Iterator[tuple[str, str, Member]]:
    """(member's name, label as stored, member) of every image in a shard's `members`, in order.

    `read` returns the bytes of a label. Raises: DataError for an image without label or a label without image.
    """
    key, fields = "", dict[str, tuple[str, Member]]()
    for name, member in members:
        folder, slash, base = name.rpartition("/")
        stem, _, field = base.partition(".")
        if not stem:  # hidden
            continue
        if folder + slash + stem != key:
            yield from _labelled(key, fields, read, shard)
            key, fields = folder + slash + stem, {}
        if field.lower() in fields:
            raise DataError(f"{shard}: expected {name} once, got it twice: create the shard again")
        fields[field.lower()] = name, member
    yield from _labelled(key, fields, read, shard)


def _labelled(
    key: str, fields: dict[str, tuple[str, Member]], read: Callable[[Member], bytes], shard: str
) -> Iterator[tuple[str, str, Member]]:
    images = [field for field in fields if f".{field}" in EXTENSIONS]
    label = next((field for field in LABEL_FIELDS if field in fields), "")
    got = " ".join(f".{field}" for field in fields)
    if len(images) == 1 and label:
        name, member = fields[images[0]]
        yield name, _label(read(fields[label][1]), label, f"{shard}: {key}"), member
    elif images and not label:
        raise DataError(
            f"{shard}: expected {key}.cls next to {key}{got}, got none: "
            "add it right after the image, or unpack the shard if its folders are the classes"
        )
    elif images or label == "cls":
        raise DataError(f"{shard}: expected one image ({' '.join(sorted(EXTENSIONS))}) called {key}, got {got}")


def _label(data: bytes, kind: str, place: str) -> str:
    try:
        value = data.decode().strip()
        if kind == "json":
            values = json.loads(value)
            value = str(values["label"] if "label" in values else values["cls"])
        if is_number(value):
            return str(int(value))
        if value and value.isprintable() and len(value) < 1000:
            return value
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    expected = 'an integer or a class name, as "label" or "cls"' if kind == "json" else "an integer or a class name"
    raise DataError(f"{place}.{kind}: expected {expected}, got {data[:40]!r}: correct it")


def read_shards(files: Sequence[Path], where: str) -> tuple[list[str], dict[str, Split], list[str]]:
    """Read uncompressed tar files: (classes, splits by name or all under "", notes on ignored files).

    A file belongs to the split that its name starts with (train-000.tar). Class names are those of a classes.txt next
    to the shards or in the folder above, else the labels as stored. Raises: DataError.
    """
    groups, ignored = by_split(files)
    known = _known_classes(files[0].parent)
    codes: dict[str, int] = {}
    contents = []
    for split, shards in groups.items():
        names, labels, places = [], [], []
        for number, file in enumerate(shards):
            for name, label, (offset, size) in _images(file):
                if label not in codes:
                    codes[label] = known.number(label, f"{file}: {name}") if known else -1
                names.append(f"{file.name}/{name}")
                labels.append(label)
                places.append((number, offset, size))
        if not labels:
            expected = f"images ({' '.join(sorted(EXTENSIONS))}) in the {split or 'tar'} shards"
            raise DataError(f"{where}: expected {expected}, got none in {len(shards)}: add them or remove the shards")
        contents.append((split, labels, _ShardReader(shards, names, np.array(places, np.int64).reshape(-1, 3))))
    classes = list(known.names) if known else sorted(codes, key=int if all(map(is_number, codes)) else None)
    if not known:
        codes = {label: i for i, label in enumerate(classes)}
    found = {
        split: Split(reader.names, np.array([codes[label] for label in labels], np.int64), reader)
        for split, labels, reader in contents
    }
    return classes, found, ignored


@dataclass(frozen=True)
class _ShardReader:
    """Reads images from tar files, by position; opens the file each time, so that processes share no file offset."""

    files: Sequence[Path]
    names: Sequence[str]
    places: npt.NDArray[np.int64]  # (N, 3): file, offset, size

    def __call__(self, index: int) -> bytes:
        name, (file, offset, size) = self.names[index], self.places[index].tolist()
        if size > MAX_BYTES:
            raise DecodeError(f"{name}: has {size} bytes, more than the limit of {MAX_BYTES}")
        try:
            with open(self.files[file], "rb") as shard:
                shard.seek(offset)
                data = shard.read(size)
        except OSError as error:
            raise DecodeError(f"{name}: cannot be read ({error.strerror})") from None
        if len(data) < size:
            raise DecodeError(f"{name}: cannot be read (the shard was truncated since it was opened)")
        return data


def _known_classes(folder: Path) -> ClassNames | None:
    places = (folder / CLASSES_FILE, *([folder.parent / CLASSES_FILE] if folder.name == "data" else []))
    file = next(filter(Path.exists, places), None)
    return ClassNames.read(file) if file else None


def _images(path: Path) -> Iterator[tuple[str, str, _Place]]:
    try:
        with path.open("rb") as file:

            def read(place: _Place) -> bytes:
                file.seek(place[0])
                return file.read(min(place[1], MAX_LABEL_BYTES))

            yield from labelled(_members(path), read, str(path))
    except OSError as error:
        raise DataError(f"{path}: expected a tar file, got {error.strerror}: check the path") from None


def _members(path: Path) -> Iterator[tuple[str, _Place]]:
    """Name and position of every regular file in a tar. Raises: DataError if it is compressed, truncated or damaged."""
    with path.open("rb") as file:
        if file.read(6).startswith(_COMPRESSED):
            raise DataError(f"{path}: expected an uncompressed tar file, got a compressed one: unpack it (gunzip)")
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    # Checked first: a negative size would make the next step go backwards in an endless loop.
                    if not 0 <= member.size <= end - member.offset_data:
                        reason = (
                            f"{member.name} with {member.size} bytes, of which {end - member.offset_data} are present"
                        )
                        raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")
                    if member.isreg() and not member.issparse():
                        yield member.name.removeprefix("./"), (member.offset_data, member.size)
                last = file.seek(tar.offset)
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise DataError(f"{path}: expected a tar file, got a damaged one ({error}): download it again") from None
        # tarfile treats anything unreadable as the end; a real end is a block of zeros.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            reason = f"one that ends at byte {last} of {end}"
            raise DataError(f"{path}: expected a complete tar file, got {reason}: download it again")
