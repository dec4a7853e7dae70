"""Tar shards in WebDataset's layout, read in place: KEY.jpg (or .png, …) next to KEY.cls, key after key.

A key is a member's path up to the first dot of its base name; the members of a key are consecutive. KEY.cls contains
an integer or a class name; without it, the label is "label" or "cls" in KEY.json. Other members are ignored.

Limit: a name and three numbers per image are kept in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from inceptionnet.data.class_names import CLASSES_FILE, ClassNames, is_number
from inceptionnet.data.names import EXTENSIONS, by_split, is_hidden, is_image
from inceptionnet.data.splits import Split
from inceptionnet.data.tar import Place, read_member, tar_members
from inceptionnet.errors import DataError
from inceptionnet.system.opening import opened

LABEL_FIELDS = ("cls", "json")
MAX_LABEL_BYTES = 2**20

Member = TypeVar("Member")


def labelled(
    members: Iterable[tuple[str, Member]], read: Callable[[Member], bytes], shard: str
) -> Iterator[tuple[str, str, Member]]:
    """(member's name, label as stored, member) of every image in a shard's `members`, in order.

    `read` returns the bytes of a label. Raises: DataError for an image without label or a label without image.
    """
    key, fields = "", dict[str, tuple[str, Member]]()
    for name, member in members:
        if any(map(is_hidden, name.split("/"))):
            continue
        folder, slash, base = name.rpartition("/")
        stem, _, field = base.partition(".")
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
    elif not label and (dotted := [field for field in fields if is_image(f".{field}")]):
        raise DataError(
            f"{shard}: expected names with one dot, since WebDataset ends the key at the first, got {key}.{dotted[0]}: "
            "rename them"
        )


def _label(data: bytes, kind: str, place: str) -> str:
    try:
        value = data.decode().strip()
        if kind == "json":
            values = json.loads(value)
            stated = values["label"] if "label" in values else values["cls"]
            if isinstance(stated, bool) or not (isinstance(stated, str) or stated == int(stated)):
                raise TypeError
            value = stated if isinstance(stated, str) else str(int(stated))
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
    """Reads images from tar files, by position."""

    files: Sequence[Path]
    names: Sequence[str]
    places: npt.NDArray[np.int64]  # (N, 3): file, offset, size

    def __call__(self, index: int) -> bytes:
        file, offset, size = self.places[index].tolist()
        return read_member(self.files[file], (offset, size), self.names[index])


def _known_classes(folder: Path) -> ClassNames | None:
    places = (folder / CLASSES_FILE, *([folder.parent / CLASSES_FILE] if folder.name == "data" else []))
    file = next(filter(Path.exists, places), None)
    return ClassNames.read(file) if file else None


def _images(path: Path) -> Iterator[tuple[str, str, Place]]:
    try:
        with opened(path) as file:

            def read(place: Place) -> bytes:
                file.seek(place[0])
                return file.read(min(place[1], MAX_LABEL_BYTES))

            yield from labelled(tar_members(path), read, str(path))
    except OSError as error:
        raise DataError(f"{path}: expected a tar file, got {error.strerror}: check the path") from None
