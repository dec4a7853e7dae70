"""PyTorch files, zip and legacy pickle, and TorchScript archives: nothing that they name is imported or called.

Source: torch.load with weights_only=True. A file with other objects than tensors and plain data (hyper-parameters, a
whole module) is read again with a stand-in for each of them (unpickle.py). Zip files are memory-mapped, which skips
checksums and sizes, so they are checked here first.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, _weights_only_unpickler

from inceptionnet.errors import WeightsError, one_line
from inceptionnet.system.opening import opened
from inceptionnet.system.zips import Zip
from inceptionnet.weights.formats.class_names import class_names_in
from inceptionnet.weights.formats.foreign import of_zip
from inceptionnet.weights.formats.stored import Stored, damaged
from inceptionnet.weights.formats.unpickle import Refused, unpickled, unpickled_script
from inceptionnet.weights.formats.wrapped import STATE_DICT_ONLY, unwrapped

QUANTISED = (
    "a quantised network (int8): its convolutions hold their batch norm, and its activations are rounded, which this "
    "package's networks do not do; give the float weights that it was quantised from"
)


def read_pytorch(path: Path) -> Stored:
    """The state dict of a file written by torch.save or torch.jit.save, without its wrappers.

    Raises:
        WeightsError: a damaged file, one that would run code, or one without a state dict.
    """
    if path.suffix == ".safetensors":  # torch.load depends on the file name
        raise WeightsError(f"{path}: expected safetensors, got a PyTorch file by its first bytes; rename it to .pth")
    with opened(path) as file:
        zipped = file.read(2) == b"PK"
    sizes, script = _check_archive(path) if zipped else (None, False)
    content = _guarded(path, unpickled_script) if script else _load(path, zipped)
    found = unwrapped(content, path)
    dropped = dict(found.dropped)
    tensors = {}
    for name, value in found.state.items():
        if _is_quantised(name, value):
            raise WeightsError(f"{path}: {QUANTISED} (by {one_line(name, 80)})")
        reason = _reason_to_drop(name, value)
        if reason:
            dropped[str(name)] = reason
        else:
            tensors[name] = _checked(value.detach(), name, path, sizes)
    return Stored(
        path,
        "TorchScript" if script else "PyTorch",
        tensors,
        {},
        dropped,
        found.notes,
        class_names=class_names_in(content),
        modules=found.modules,
    )


def _check_archive(path: Path) -> tuple[set[int], bool]:
    """Check the archive, and return the sizes of its records, and whether it is a TorchScript archive.

    Torch maps records by their position in the file, so that compressed ones (which it never writes) would be misread;
    and a small file of compressed records can unpack to any size.
    """
    try:
        with Zip(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            script = any(name.endswith("/constants.pkl") for name in names)
            if not any(name.endswith("/data.pkl") for name in names):
                raise WeightsError(f"{path}: expected a zip file written by torch.save or Keras, got {of_zip(names)}")
            code = ("code", "extra") if script else ()  # these are compressed, and are not read
            members = [m for m in members if not {*m.filename.split("/")[1:2]} & {*code}]
            packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size]
            if packed or sum(member.file_size for member in members) > path.stat().st_size:
                raise WeightsError(
                    f"{path}: expected records stored as torch.save stores them, got compressed ones "
                    f"({sum(m.file_size for m in members)} bytes from {path.stat().st_size}); save it again"
                )
            for member in members:
                with archive.open(member) as record:
                    while record.read(2**20):
                        pass
            return {member.file_size for member in members}, script
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        broken = re.search(r"Bad CRC-32 for file '(.*)'", str(error))
        raise damaged(path, f"the checksum of {broken[1]} does not match" if broken else error) from None


def _load(path: Path, zipped: bool) -> Any:
    """Load the file as torch.load with weights_only=True; also allows argparse.Namespace, which timm's training saves.

    By the same unpickler, without the words that torch.load adds to its errors: it searches them by patterns whose time
    is quadratic, and a name of a megabyte in a hostile file would stop it for hours.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about a damaged file, which raises below
            return unpickled(path, zipped=zipped, module=_weights_only_unpickler)
    except pickle.UnpicklingError:  # something else than plain data, or damaged
        return _guarded(path, lambda path: unpickled(path, zipped=zipped))
    except Exception as error:  # torch raises many types for a damaged pickle
        raise damaged(path, error) from None


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` returns. Raises: WeightsError for a pickle that is damaged or would run code."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path)
    except Refused as error:
        raise WeightsError(
            f"{path}: expected tensors only, got {one_line(error, 80)}, which can execute code when unpickled; "
            f"{STATE_DICT_ONLY}"
        ) from None
    except Exception as error:
        raise damaged(path, error) from None


def _is_quantised(name: Any, value: Any) -> bool:
    return (isinstance(value, Tensor) and value.is_quantized) or str(name).endswith("_packed_params")


def _reason_to_drop(name: Any, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"not a tensor but {type(value).__name__}"
    if not isinstance(name, str):
        return "its name is not a string"
    if name == "n_averaged":
        return "count of averaging steps"
    if value.layout != torch.strided or value.device.type != "cpu":
        return f"a {value.layout if value.device.type == 'cpu' else 'meta'} tensor"
    return ""


def _checked(tensor: Tensor, name: str, path: Path, sizes: set[int] | None) -> Tensor:
    """The tensor, after checking that the file has all of its bytes."""
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held or (sizes is not None and held not in sizes):
        raise damaged(path, f"tensor {name} of shape {tuple(tensor.shape)} does not fit its {held} bytes")
    return tensor
