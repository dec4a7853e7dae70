"""PyTorch files, zip and legacy pickle: only tensors and plain containers are unpickled, and no code is executed.

Source: torch.load with weights_only=True. Zip files are memory-mapped, which skips checksums and sizes, so they are
checked here first.
"""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.weights.formats.stored import Stored, damaged, one_line

# Keys under which training scripts save the state dict, averaged weights first.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
WRAPPERS = (*AVERAGED, "state_dict", "model_state_dict", "model", "module", "net", "weights")
# Name prefixes added by DataParallel, torch.compile and modules that contain the network.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
MAX_DEPTH = 4
STATE_DICT_ONLY = "load it where it was saved, and save model.state_dict() with torch.save"


def read_pytorch(path: Path) -> Stored:
    """The state dict of a file written by torch.save, without its wrappers.

    Raises:
        WeightsError: a damaged file, one with more than tensors and plain containers, or one without a state dict.
    """
    if path.suffix == ".safetensors":  # torch.load depends on the file name
        raise WeightsError(f"{path}: expected safetensors, got a PyTorch file by its first bytes; rename it to .pth")
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    sizes = _check_archive(path) if zipped else None
    content = _load(path, zipped)
    notes: list[str] = []
    dropped: dict[str, str] = {}
    state = _unwrapped(content, path, notes, dropped)
    tensors = {}
    for name, value in state.items():
        reason = _reason_to_drop(name, value)
        if reason:
            dropped[str(name)] = reason
        else:
            tensors[name] = _checked(value.detach(), name, path, sizes)
    return Stored(path, "PyTorch", _without_prefixes(tensors, notes), {}, dropped, tuple(notes))


def _check_archive(path: Path) -> set[int]:
    """Check the archive, and return the sizes of its records.

    Torch maps records by their position in the file, so that compressed ones (which it never writes) would be misread;
    and a small file of compressed records can unpack to any size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
                raise WeightsError(
                    f"{path}: expected weights, got a TorchScript archive, which is code; {STATE_DICT_ONLY}"
                )
            if not any(name.endswith("/data.pkl") for name in names):
                raise WeightsError(
                    f"{path}: expected a zip file written by torch.save or Keras, got one of other content "
                    f"({one_line(listed(names, 3), 80) if names else 'empty'}); give the weights file itself"
                )
            packed = [m for m in members if m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size]
            if packed or sum(member.file_size for member in members) > path.stat().st_size:
                raise WeightsError(
                    f"{path}: expected records stored as torch.save stores them, got compressed ones "
                    f"({sum(m.file_size for m in members)} bytes from {path.stat().st_size}); save it again"
                )
            if (broken := archive.testzip()) is not None:
                raise damaged(path, f"the checksum of {broken} does not match")
            return {member.file_size for member in members}
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from None


def _load(path: Path, zipped: bool) -> Any:
    """Load the file with torch.load; also allows argparse.Namespace, plain data that timm's training saves."""
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # about a damaged file, which raises below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch raises many types for a damaged pickle
        text = str(error)
        if found := re.search(r"GLOBAL (\S+)", text):
            raise WeightsError(
                f"{path}: expected tensors only, got {one_line(found[1], 80)}, which can execute code when unpickled; "
                f"{STATE_DICT_ONLY}"
            ) from None
        raise damaged(path, text.partition("WeightsUnpickler error:")[2] or error) from None


def _unwrapped(content: Any, path: Path, notes: list[str], dropped: dict[str, str]) -> Mapping[Any, Any]:
    """The innermost state dict under the usual keys; the other entries are dropped with a reason."""
    for _ in range(MAX_DEPTH):
        if not isinstance(content, Mapping):
            break
        name = next((w for w in WRAPPERS if _holds_tensors(content.get(w), MAX_DEPTH)), None)
        if name is None:
            if any(isinstance(value, Tensor) for value in content.values()):
                return content
            break
        reason = "averaged weights used instead"
        for other in content.keys() - {name}:
            replaced = name in AVERAGED and other in WRAPPERS
            dropped[str(other)] = reason if replaced else "not part of the weights"
        notes.append(f"unwrapped from {name}" + (", the averaged weights" if name in AVERAGED else ""))
        content = content[name]
    held = listed(map(str, content), ordered=True) if isinstance(content, Mapping) else type(content).__name__
    got = one_line(held or "nothing")
    raise WeightsError(
        f"{path}: expected a state dict, alone or under a key such as state_dict or model, got {got}; {STATE_DICT_ONLY}"
    )


def _holds_tensors(value: Any, depth: int) -> bool:
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return True
    return any(_holds_tensors(value.get(w), depth - 1) for w in WRAPPERS)


def _reason_to_drop(name: Any, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"not a tensor but {type(value).__name__}"
    if not isinstance(name, str):
        return "its name is not a string"
    if name == "n_averaged":
        return "count of averaging steps"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return (
            f"a {'quantised' if value.is_quantized else value.layout if value.device.type == 'cpu' else 'meta'} tensor"
        )
    return ""


def _checked(tensor: Tensor, name: str, path: Path, sizes: set[int] | None) -> Tensor:
    """The tensor, after checking that the file has all of its bytes."""
    held = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > held or (sizes is not None and held not in sizes):
        raise damaged(path, f"tensor {name} of shape {tuple(tensor.shape)} does not fit its {held} bytes")
    return tensor


def _without_prefixes(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    while tensors:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        notes.append(f"prefix {prefix} removed")
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors
