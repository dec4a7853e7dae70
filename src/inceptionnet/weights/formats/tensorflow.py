"""TensorFlow checkpoints of one file (V1) or of index and data files (V2), read without TensorFlow.

They are memory-mapped, so that skipped optimiser slots cost nothing; the checksums of all values used are verified.
If moving averages of a variable were saved, they are used instead of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed, one_line
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import opened
from inceptionnet.weights.formats.foreign import of_folder
from inceptionnet.weights.formats.stored import Stored, damaged
from inceptionnet.weights.formats.table import MAGIC, BrokenTable, Checksum, Snappy, entries
from inceptionnet.weights.formats.variables import BFLOAT16, TYPES, Variable, is_v1, mapped, of_bundle, of_slices

AVERAGE = "/ExponentialMovingAverage"
SLOT = re.compile(
    r"/(RMSProp|Momentum|Adam|AdaMax|Adagrad|AdagradDA|Adadelta|Ftrl|LAMB)(_\d+)?$|^beta[12]_power(_\d+)?$"
)
V1_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})")
V2_SHARD = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
CHUNK_BYTES = 2**20


def find_checkpoint(path: Path) -> Path | None:
    """The table file of the checkpoint at `path`, or None if that is another kind of file or does not exist.

    Raises:
        WeightsError: a folder without a checkpoint or with several, or a data file without its index.
        OSError: the file cannot be read.
    """
    if path.is_dir():
        return _in_folder(path)
    if data := V2_SHARD.fullmatch(path.name):
        index = path.with_name(f"{data[1]}.index")
        if path.exists() and not index.exists():
            raise WeightsError(f"{path}: expected {index.name} next to it, got none; get both files of the checkpoint")
        return index if index.exists() else None
    if path.exists():
        return path if path.suffix == ".index" or _is_table(path) else None
    if (index := path.with_name(f"{path.name}.index")).exists():
        return index
    beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    return next((p for p in beside if (shard := V1_SHARD.fullmatch(p.name)) and shard[1] == path.name), None)


def _in_folder(folder: Path) -> Path:
    """The table file of the checkpoint named in the folder's `checkpoint` file, else of the only one."""
    state = folder / "checkpoint"
    if state.is_file():
        with opened(state) as file:
            text = file.read(2**16).decode("utf-8", "replace")
        named = re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE)
        latest = folder / Path(named[1]).name if named else folder  # the folder may have moved since
        if not latest.is_dir() and (table := find_checkpoint(latest)):
            return table
    tables: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and _is_table(path):
            shard = V1_SHARD.fullmatch(path.name)
            tables.setdefault(shard[1] if shard else path.name.removesuffix(".index"), path)
    if len(tables) != 1:
        if not tables and (what := of_folder(folder)):
            raise WeightsError(f"{folder}: expected a weights file or a TensorFlow checkpoint, {what}")
        got = f"{len(tables)} ({one_line(listed(tables), 80)})" if tables else "none"
        raise WeightsError(
            f"{folder}: expected a file, or a folder with one TensorFlow checkpoint, got {got}; give one"
        )
    return next(iter(tables.values()))


def _is_table(path: Path) -> bool:
    with opened(path) as file:
        file.seek(max(0, path.stat().st_size - len(MAGIC)))
        return file.read(len(MAGIC)) == MAGIC


def read_checkpoint(path: Path, table: Path) -> Stored:
    """The variables of the checkpoint with the table file `table`; errors name `path`, as the user gave it.

    Raises:
        WeightsError: a damaged or incomplete checkpoint, or an unsupported kind.
        MissingExtraError: google-crc32c is not installed.
    """
    checksum = _checksum(path)
    try:
        variables: dict[str, Variable] = {}
        for part in _tables(path, table):
            content = dict(entries(mapped(part), checksum))
            v1 = is_v1(content)
            variables |= of_slices(path, content) if v1 else of_bundle(path, part, content, checksum)
        sources, dropped, notes = _chosen(variables)
        if not sources:
            raise WeightsError(
                f"{path}: expected a network's checkpoint, got one without floating-point variables; give another"
            )
        tensors = {name: _tensor(variables[source], source) for name, source in sources.items()}
        return Stored(path, "TensorFlow checkpoint", tensors, {}, dropped, notes)
    except Snappy:
        raise WeightsError(
            f"{path}: expected an uncompressed table, got one compressed with Snappy; save it again with TensorFlow"
        ) from None
    except (BrokenTable, ValueError, OverflowError, OSError) as error:
        raise damaged(path, error) from None


def _checksum(path: Path) -> Checksum:
    purpose = f"{path}: checking a TensorFlow checkpoint"
    google_crc32c = import_extra("google_crc32c", "weights", purpose, package="google-crc32c")

    def checksum(data: memoryview) -> int:
        crc = 0
        for at in range(0, len(data), CHUNK_BYTES):  # the library takes only bytes: a small copy
            crc = google_crc32c.extend(crc, bytes(data[at : at + CHUNK_BYTES]))
        return crc

    return checksum


def _tables(path: Path, table: Path) -> list[Path]:
    """All table files of the checkpoint: several if a V1 checkpoint was saved in shards."""
    shard = V1_SHARD.fullmatch(table.name)
    if not shard:
        return [table]
    tables = [table.with_name(f"{shard[1]}-{i:05}-of-{shard[2]}") for i in range(int(shard[2]))]
    if missing := [part.name for part in tables if not part.is_file()]:
        raise WeightsError(f"{path}: expected {missing[0]} next to {table.name}, got none; get all files")
    return tables


def _chosen(variables: Mapping[str, Variable]) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """The variables to load, each with the variable that has its values; dropped variables with reasons; notes."""
    sources: dict[str, str] = {}
    dropped: dict[str, str] = {}
    averaged = 0
    for name, variable in variables.items():
        if name.rpartition("/")[2] == "global_step":
            dropped[name] = "count of training steps"
        elif SLOT.search(name):
            dropped[name] = "optimiser state"
        elif variable.kind not in TYPES:
            dropped[name] = "not floating point"
        elif name.endswith(AVERAGE):
            sources[name.removesuffix(AVERAGE)] = name
            averaged += 1
        elif name + AVERAGE in variables:
            dropped[name] = "averaged weights used instead"
        else:
            sources[name] = name
    notes = (f"moving averages (ExponentialMovingAverage) of {averaged} variables used",) if averaged else ()
    return sources, dropped, notes


def _tensor(variable: Variable, name: str) -> Tensor:
    dtype = np.dtype(TYPES[variable.kind])
    data = variable.values()
    if len(data) != math.prod(variable.shape) * dtype.itemsize:
        raise BrokenTable(f"{name} of shape {variable.shape} has {len(data)} bytes")
    if not len(data):
        return torch.from_numpy(np.zeros(variable.shape, dtype))
    values = np.frombuffer(data, dtype).reshape(variable.shape)
    # The map is private, hence writable; torch needs aligned values.
    tensor = torch.from_numpy(values if values.flags.aligned else values.copy())
    return tensor.view(torch.bfloat16) if variable.kind == BFLOAT16 else tensor
