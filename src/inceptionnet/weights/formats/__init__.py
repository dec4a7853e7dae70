"""Readers of all weights formats: detected by their first bytes, read as named tensors without executing code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, one_line
from inceptionnet.system.opening import WEIGHTS_BYTES, UnfitFile, opened
from inceptionnet.system.zips import Zip
from inceptionnet.weights.formats.foreign import of_file, refuse
from inceptionnet.weights.formats.keras import read_keras_archive, read_keras_h5
from inceptionnet.weights.formats.numpy_arrays import is_npz, read_npz
from inceptionnet.weights.formats.pytorch import read_pytorch
from inceptionnet.weights.formats.safe_tensors import read_safetensors
from inceptionnet.weights.formats.stored import Stored, damaged
from inceptionnet.weights.formats.tensorflow import find_checkpoint, read_checkpoint

__all__ = ["Stored", "open_weights"]

READABLE = "safetensors, PyTorch (.pt, .pth), Keras (.h5, .weights.h5, .keras), TensorFlow checkpoints, NumPy (.npz)"
PLAIN = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
ZIP, HDF5, PICKLE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80"


def open_weights(path: Path) -> Stored:
    """Read the tensors of a weights file, under the file's own names.

    The format is detected from the first bytes, not from the file name. A TensorFlow checkpoint is given by its prefix,
    one of its files, or the folder that contains it. Loading never executes code and never opens another file.
    It is a regular file of at most `WEIGHTS_BYTES`.

    Raises:
        WeightsError: no such file, an unknown format, a damaged file, or one that would execute code.
        MissingExtraError: the format needs a package that is not installed.
    """
    try:
        if checkpoint := find_checkpoint(path):
            return read_checkpoint(path, checkpoint)
        with opened(path, WEIGHTS_BYTES) as file:
            head = file.read(512)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; expected a weights file: {READABLE}") from None
    except UnfitFile as error:
        raise WeightsError(f"{path}: expected a weights file, got {error.strerror}; give the file itself") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    stored = _read(path, head)
    if odd := next((name for name, tensor in stored.tensors.items() if _is_odd(tensor)), ""):
        kind = str(stored.tensors[odd].dtype).removeprefix("torch.")
        raise WeightsError(
            f"{path}: expected values of float16, bfloat16, float32 or float64, got {kind} ({one_line(odd, 80)}); "
            "save the weights in one of those"
        )
    return stored


def _is_odd(tensor: Tensor) -> bool:
    """Whether the values are of a type that no network here can be loaded from: float8, float4, complex."""
    kind = tensor.dtype
    return kind.is_complex or (kind.is_floating_point and kind not in PLAIN)


def _read(path: Path, head: bytes) -> Stored:
    """The tensors of a file that starts with these bytes."""
    if head.startswith(ZIP):
        names = _members(path)
        if is_npz(names):
            return read_npz(path)
        return read_keras_archive(path) if "model.weights.h5" in names else read_pytorch(path)
    if head.startswith(HDF5):
        return read_keras_h5(path)
    if head[8:9] == b"{" and not head.lstrip().startswith(b"{"):  # the length before it can have any first byte
        return read_safetensors(path)
    if head.startswith(PICKLE):
        return read_pytorch(path)
    if what := of_file(path, head):
        raise refuse(path, what)
    got = "one of an unknown format, or truncated" if head else "an empty file"
    raise WeightsError(f"{path}: expected a weights file, got {got}; known formats: {READABLE}")


def _members(path: Path) -> list[str]:
    try:
        with Zip(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from None
