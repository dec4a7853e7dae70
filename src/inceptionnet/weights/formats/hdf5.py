"""HDF5 files without their reach: nothing outside the file is opened, and no more is read than it can hold."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, missing_extra
from inceptionnet.weights.formats.stored import damaged

HEAP = b"GCOL\x01\0\0\0"  # begins a heap of texts, its size after it


@contextmanager
def opened(file: Path, path: Path) -> Iterator[Hdf5]:
    """The HDF5 file `file`, which the errors call `path`.

    Raises:
        WeightsError: whatever goes wrong inside the `with`, as it stands or, from h5py, as a damaged file.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise missing_extra("h5py", "weights", f"{path}: reading Keras weights") from None
    try:
        _check_heaps(file)
        with h5py.File(file, "r") as content:
            yield Hdf5(h5py, content, path, file.stat().st_size)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise damaged(path, error) from None


def _check_heaps(file: Path) -> None:
    """Heaps of texts, whose sizes HDF5 takes as they are: it sets aside any amount, and follows objects for ever."""
    with file.open("rb") as opened_file, mmap.mmap(opened_file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(HEAP)
        while at >= 0:
            end = at + int.from_bytes(data[at + 8 : at + 16], "little")
            inside = at + 16
            while inside + 16 <= end <= len(data):  # an object: number, references, four bytes; size; its bytes, padded
                number, size = int.from_bytes(data[inside : inside + 2], "little"), data[inside + 8 : inside + 16]
                inside += -(-int.from_bytes(size, "little") // 8) * 8 + 16 * bool(number)  # 0: the rest, with this head
                if not number:
                    break
            if not end - 16 < inside <= end <= len(data):
                raise ValueError(f"the heap at {at} is not as long as it says")
            at = data.find(HEAP, at + len(HEAP))


class Hdf5:
    """An open HDF5 file, of which only groups and numeric datasets that lie in it can be had."""

    def __init__(self, h5py: Any, root: Any, path: Path, most_bytes: int) -> None:
        self._h5py, self.root, self.path = h5py, root, path
        self._left_bytes = most_bytes

    def member(self, group: Any, name: str) -> Any:
        """What `group` holds under `name`, which may be a path, or None."""
        for part in name.split("/"):
            if not isinstance(group, self._h5py.Group) or not part or part == ".":
                return None
            link = group.get(part, getlink=True) if part in group.keys() else None  # noqa: SIM118  the names it lists
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                raise WeightsError(
                    f"{self.path}: {group.name}/{part} is a link ({type(link).__name__}), which may lead out of it; "
                    "save the weights without links"
                )
            group = group[part]
        return group

    def text(self, group: Any, name: str) -> str:
        """The text of an attribute; nothing where it has none. Raises: WeightsError where it is no single text."""
        if name not in group.attrs:
            return ""
        value = group.attrs[name] if group.attrs.get_id(name).shape == () else None
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str):
            raise damaged(self.path, f"attribute {name} of {group.name} is not one text")
        return text

    def groups(self, top: Any) -> Iterator[Any]:
        """Every group from `top` on once, in the order of names."""
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
        """The datasets right in a group, by name."""
        members = {name: self.member(group, name) for name in group}
        return {name: member for name, member in members.items() if isinstance(member, self._h5py.Dataset)}

    def tensor(self, dataset: Any) -> Tensor:
        """A dataset's values.

        Raises:
            WeightsError: they lie outside the file, are no numbers, or are more than the file can hold.
        """
        where = f"{self.path}: {dataset.name}"
        if dataset.is_virtual or dataset.external:
            raise WeightsError(f"{where} takes its values from other files; save the weights in one file")
        kind = dataset.dtype
        halves = kind.str == "|V2" and self.text(dataset, "dtype") == "bfloat16"
        if not (kind.kind in "iu" or (kind.kind == "f" and kind.itemsize <= 8) or halves):
            raise WeightsError(f"{where}: expected numbers, got values of type {kind}; save the weights as float32")
        if dataset.shape is None:
            raise damaged(self.path, f"{dataset.name} has no values")
        self._check_size(dataset, where)
        values = np.asarray(dataset[()])
        if halves:
            return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(values.astype(kind.newbyteorder("="), copy=False))

    def _check_size(self, dataset: Any, where: str) -> None:
        """That the values lie in the file as they are, all of them, before memory is set aside for them.

        Keras does not compress. HDF5 unpacks a piece to whatever size comes out, and reads zeros where none is stored.
        """
        if dataset.id.get_create_plist().get_nfilters():
            raise WeightsError(f"{where} is compressed, which Keras does not do; unpack the file with h5repack -f NONE")
        declared = stored = math.prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.chunks is not None:
            pieces = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
            stored = pieces * math.prod(dataset.chunks) * dataset.dtype.itemsize
        if max(declared, stored) > self._left_bytes:
            raise WeightsError(f"{where} of shape {dataset.shape} is more than the file can hold; get the file anew")
        self._left_bytes -= stored
        if dataset.id.get_storage_size() != stored:
            raise damaged(self.path, f"{dataset.name} is not there in full")
