"""Checkpoints: the whole state of a training in one file, from which a killed run resumes as if never interrupted.

checkpoints/step-00001200.safetensors: the network's tensors (`model.`), their running averages (`average.`), the
optimiser's (`optimizer.NUMBER.`), and the position and totals of the run in the metadata. No random generator is saved:
order, crops, colours and dropout follow from the seed and the position. Files are written atomically, with a checksum
of all of their content.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet.errors import RunError, message_of, one_line
from inceptionnet.system.checksum import CHECKSUM, DAMAGED, check, checksum
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import check_fit, from_json
from inceptionnet.train.average import Average

FORMAT = 3
STATE = "inceptionnet.training"
"""The key of the state in the metadata."""


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's newest checkpoints."""

    path: Path
    keep: int

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> list[str]:
        """Write the checkpoint of a step, then delete all but the `keep` newest; what cannot be deleted is returned.

        Raises:
            RunError: it cannot be written; existing checkpoints are unchanged.
        """
        file = self.path / f"step-{step:08}.safetensors"
        about = json.dumps({"format": FORMAT, "step": step, **state})
        stored = {name: tensor.cpu() for name, tensor in tensors.items()}
        metadata = {STATE: about, CHECKSUM: checksum(about, stored)}
        try:
            with replacing(file) as temporary:
                save_file(stored, temporary, metadata=metadata)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be written: {message_of(error)}") from None
        left: list[str] = []
        # Of later steps are those that could not be read: they must not push out good ones.
        for old in [one for one in self.files() if one <= file][: -self.keep]:
            try:
                old.unlink()
            except OSError as error:
                left.append(f"{old}: cannot be deleted: {error.strerror}")
        return left

    def files(self) -> list[Path]:
        """The existing checkpoints, oldest first."""
        return sorted(self.path.glob("step-*.safetensors"))

    def newest(
        self, take: Callable[[Mapping[str, Tensor], Mapping[str, Any]], None] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """Tensors and state of the newest readable checkpoint, and why newer ones cannot be read.

        None if there is no checkpoint.

        Args:
            take: loads tensors and state, and raises RunError if they do not fit the training; then the checkpoint
                before is tried, which has to replace all that was loaded.

        Raises:
            RunError: none of the checkpoints can be read.
        """
        unreadable: list[str] = []
        for file in reversed(self.files()):
            try:
                tensors, state = _read(file)
                if take:
                    take(tensors, state)
                return tensors, state, unreadable
            except (*DAMAGED, RunError) as error:
                unreadable.append(f"{file.name} cannot be read ({one_line(error)})")
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
        one of DAMAGED: it is damaged, or of another format.
    """
    check_fit(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata() or {}
        state: dict[str, Any] = from_json(metadata[STATE])
        if state["format"] != FORMAT:
            raise ValueError(f"it is of format {state['format']}, this version reads {FORMAT}")
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    check(metadata[CHECKSUM], metadata[STATE], tensors)
    return tensors, state


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
    """Load a checkpoint's tensors, each in its original memory layout; what was loaded before is replaced.

    Raises:
        RunError: they belong to another training.
    """
    state = model.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    try:
        for name, tensor in state.items():
            tensor.copy_(_like(tensor, tensors, f"model.{name}"))
        if average:
            average.load({name: _like(own, tensors, f"average.{name}") for name, own in average.tensors.items()})
        saved: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".")
                parameter = parameters[int(number)]
                if value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{key}: expected shape {tuple(parameter.shape)}, got {tuple(value.shape)}")
                # The order of summation follows the memory layout: another one would change the last bits.
                like = torch.empty_like(parameter).copy_(value) if value.dim() else value
                saved.setdefault(int(number), {})[name] = like
        optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise RunError(f"it belongs to another training: {one_line(error)}") from None


def _like(own: Tensor, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The tensor of that name. Raises: KeyError, ValueError: it is missing, or of another type or shape."""
    found = tensors[name]
    if found.shape != own.shape or found.dtype != own.dtype:
        expected = f"{own.dtype} of shape {tuple(own.shape)}"
        raise ValueError(f"{name}: expected {expected}, got {found.dtype} of shape {tuple(found.shape)}")
    return found
