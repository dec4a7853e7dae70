"""Checkpoints: the whole state of a training in one file, from which a killed run resumes as if never interrupted.

checkpoints/step-00001200.safetensors: the network's tensors (`model.`), their running averages (`average.`), the
optimiser's (`optimizer.NUMBER.`), and the position and totals of the run in the metadata. No random generator is saved:
order, crops, colours and dropout follow from the seed and the position. Files are written atomically, with a checksum
of all of their content.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet.errors import RunError
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import check_fit, from_json
from inceptionnet.train.average import Average

FORMAT = 3


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's newest checkpoints."""

    path: Path
    keep: int

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, then delete all but the `keep` newest.

        Raises:
            RunError: it cannot be written; existing checkpoints are unchanged.
        """
        file = self.path / f"step-{step:08}.safetensors"
        about = json.dumps({"format": FORMAT, "step": step, **state})
        stored = {name: tensor.cpu() for name, tensor in tensors.items()}
        metadata = {"inceptionnet.training": about, "inceptionnet.checksum": _checksum(about, stored)}
        try:
            self.path.mkdir(exist_ok=True)
            with replacing(file) as temporary:
                save_file(stored, temporary, metadata=metadata)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
        for old in self.files()[: -self.keep]:
            with suppress(OSError):
                old.unlink()

    def files(self) -> list[Path]:
        """The existing checkpoints, oldest first."""
        return sorted(self.path.glob("step-*.safetensors"))

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """Tensors and state of the newest readable checkpoint, and why newer ones cannot be read.

        None if there is no checkpoint.

        Raises:
            RunError: none of the checkpoints can be read.
        """
        unreadable: list[str] = []
        for file in reversed(self.files()):
            try:
                return *_read(file), unreadable
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                unreadable.append(f"{file.name} cannot be read ({error})")
        if unreadable:
            raise RunError(
                f"{self.path}: no checkpoint can be read: {'; '.join(unreadable)}; start again with another --out"
            )
        return None

    def check_space(self, size_bytes: int) -> None:
        """Check that the disk has room for the run's checkpoints and weights, given the size of one checkpoint.

        Raises:
            RunError: it has too little.
        """
        needed = (self.keep + 2) * size_bytes  # one more while it is being written, and the weights files
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise RunError(
                f"{self.path.parent}: the disk has {free / 2**20:.0f} MiB free, the run's checkpoints and weights need "
                f"{needed / 2**20:.0f}; make room, name another --out, or lower --set checkpoint.keep={self.keep}"
            )


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it is damaged, or of another format.
    """
    check_fit(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
        state: dict[str, Any] = from_json(metadata["inceptionnet.training"])
        if state["format"] != FORMAT:
            raise ValueError(f"it is of format {state['format']}, this version reads {FORMAT}")
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    if _checksum(metadata["inceptionnet.training"], tensors) != metadata["inceptionnet.checksum"]:
        raise ValueError("its content does not match its checksum")
    return tensors, state


def _checksum(about: str, tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of the state, and of the names, types, shapes and bytes of the tensors, which are on the CPU."""
    found = zlib.crc32(about.encode())
    for name, tensor in sorted(tensors.items()):
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> dict[str, Tensor]:
    """All tensors of a training by their names in a checkpoint; the optimiser has none before the first step."""
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average:
        found |= {f"average.{name}": tensor for name, tensor in average.tensors.items()}
    for number, values in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in values.items() if value is not None}
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


@torch.no_grad()
def restore(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None
) -> None:
    """Load a checkpoint's tensors, each in its original memory layout.

    Raises:
        RunError: they belong to another training.
    """
    state = model.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        for name, tensor in state.items():
            tensor.copy_(tensors[f"model.{name}"])
        if average:
            average.load({name: tensors[f"average.{name}"] for name in average.tensors})
        saved: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".")
                parameter = parameters[int(number)]
                # The order of summation follows the memory layout: another one would change the last bits.
                like = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                saved.setdefault(int(number), {})[name] = like
        optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, IndexError, RuntimeError) as error:
        raise RunError(
            f"the checkpoint belongs to another training ({error}); start again with another --out"
        ) from None
