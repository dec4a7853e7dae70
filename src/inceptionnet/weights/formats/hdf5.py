"""Safe reading of HDF5 files: no other file is opened, and no more memory is allocated than the file can fill."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENXIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inceptionnet.errors import WeightsError
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import opened as open_file
from inceptionnet.weights.formats.stored import damaged

HEAP = b"GCOL\x01\0\0\0"  # start of a global heap, followed by its size


@contextmanager
def opened(file: Path, path: Path) -> Iterator[Hdf5]:
    """Open the HDF5 file `file`; errors name it `path`.

    Raises:
        WeightsError: any error inside the `with`; errors of h5py are reported as a damaged file.
    """
    h5py = import_extra("h5py", "weights", f"{path}: reading Keras weights")
    try:
        _check_heaps(file)
        with h5py.File(file, "r") as content:
            yield Hdf5(h5py, content, path, file.stat().st_size)
    except WeightsError:
        raise
    except Exception as error:  # h5py raises many types for damaged files
        raise damaged(path, error) from None


def _check_heaps(file: Path) -> None:
    """Check the global heaps: HDF5 trusts their sizes, allocates any amount and may follow objects in a loop."""
    with open_file(file) as held, mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for at in _heaps(data, held.fileno()):
            end = at + int.from_bytes(data[at + 8 : at + 16], "little")
            inside = at + 16
            while inside + 16 <= end <= len(data):  # an object: number, reference count, four bytes; size; padded bytes
                number, size = int.from_bytes(data[inside : inside + 2], "little"), data[inside + 8 : inside + 16]
                inside += -(-int.from_bytes(size, "little") // 8) * 8 + 16 * bool(
                    number
                )  # 0: free space up to the end, this header included
                if not number:
                    break
            if not end - 16 < inside <= end <= len(data):
                raise ValueError(f"the heap at {at} does not have the size that it states")


def _heaps(data: mmap.mmap, file: int) -> Iterator[int]:
    """Where a heap may start; the holes of a sparse file, which has a heap nowhere in them, are skipped."""
    for start, end in _extents(file, len(data)):
        at = data.find(HEAP, start, end + len(HEAP))  # the end of the mark is zeros
        while at >= 0:
            yield at
            at = data.find(HEAP, at + len(HEAP), end + len(HEAP))


def _extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of the parts of a file that are not holes, as far as the system tells."""
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except AttributeError:  # Windows
            start, end = at, size
        except OSError as error:
            if error.errno == ENXIO:  # no data up to the end
                return
            start, end = at, size
        yield start, end
        at = end


class Hdf5:
    """An open HDF5 file that gives access only to groups and numeric datasets stored in it."""

    def __init__(self, h5py: Any, root: Any, path: Path, most_bytes: int) -> None:
        self._h5py = h5py
        self.root = root
        self.path = path
        self._left_bytes = most_bytes

    def member(self, group: Any, name: str) -> Any:
        """The member `name` of `group`, or None; `name` may be a path."""
        for part in name.split("/"):
            if not isinstance(group, self._h5py.Group) or not part or part == ".":
                return None
            link = group.get(part, getlink=True) if part in group.keys() else None  # noqa: SIM118  the names that it lists
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                raise WeightsError(
                    f"{self.path}: expected data in the file itself, got a link ({type(link).__name__}) at "
                    f"{group.name}/{part}; save the weights without links"
                )
            group = group[part]
        return group

    def text(self, group: Any, name: str) -> str:
        """An attribute's text; "" if there is none. Raises: WeightsError if it is not a single string."""
        if name not in group.attrs:
            return ""
        value = group.attrs[name] if group.attrs.get_id(name).shape == () else None
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise damaged(self.path, f"attribute {name} of {group.name} is not a single string")
        return text

    def groups(self, top: Any) -> Iterator[Any]:
        """Every group below and including `top`, once, in the order of names."""
        seen, waiting = set(), [top]
        while waiting:
            group = waiting.pop()
            address = self._h5py.h5o.get_info(group.id).addr
            if address in seen:
                continue
            seen.add(address)
            yield group
            members = (self.member(group, name) for name in sorted(group.keys(), reverse=True))
            waiting.extend(member for member in members if isinstance(member, self._h5py.Group))

    def datasets(self, group: Any) -> dict[str, Any]:
        """The datasets directly in a group, by name."""
        members = {name: self.member(group, name) for name in group}
        return {name: member for name, member in members.items() if isinstance(member, self._h5py.Dataset)}

    def tensor(self, dataset: Any) -> Tensor:
        """A dataset's values.

        Raises:
            WeightsError: they are stored outside the file, are not numeric, or exceed the size of the file.
        """
        where = f"{self.path}: {dataset.name}"
        if dataset.is_virtual or dataset.external:
            raise WeightsError(
                f"{where}: expected values in the file itself, got a reference to other files; save one file"
            )
        kind = dataset.dtype
        halves = kind.str == "|V2" and self.text(dataset, "dtype") == "bfloat16"
        if not (kind.kind in "iu" or (kind.kind == "f" and kind.itemsize <= 8) or halves):
            raise WeightsError(f"{where}: expected numbers, got type {kind}; save the weights as float32")
        if dataset.shape is None:
            raise damaged(self.path, f"{dataset.name} has no values")
        self._check_size(dataset, where)
        values = np.asarray(dataset[()])
        if halves:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(values.astype(kind.newbyteorder("="), copy=False))

    def _check_size(self, dataset: Any, where: str) -> None:
        """Check that all values are stored uncompressed in the file, before memory is allocated for them.

        Keras does not compress. HDF5 would decompress a chunk to any size, and read zeros for chunks not stored.
        """
        if dataset.id.get_create_plist().get_nfilters():
            raise WeightsError(
                f"{where}: expected uncompressed values, got compressed ones; run h5repack -f NONE on the file"
            )
        declared = stored = math.prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.chunks is not None:
            pieces = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
            stored = pieces * math.prod(dataset.chunks) * dataset.dtype.itemsize
        if max(declared, stored) > self._left_bytes:
            raise WeightsError(f"{where}: shape {dataset.shape} exceeds the size of the file; get the file again")
        self._left_bytes -= stored
        if dataset.id.get_storage_size() != stored:
            raise damaged(self.path, f"{dataset.name} is incomplete")
