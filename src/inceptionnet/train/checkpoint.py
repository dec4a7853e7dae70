"""The state of a training in one file: all that a run that was killed needs to go on as if it had not been.

checkpoints/step-00001200.safetensors: the network's tensors (`model.`), their running averages (`average.`), the
optimiser's (`optimizer.NUMBER.`), and in the metadata where the run is and what it has counted. There is no generator
to save: order, crops, colours and dropout follow from the seed and the position. A file appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
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
from inceptionnet.files import replacing
from inceptionnet.train.average import Average

FORMAT = 1


@dataclass(frozen=True)
class Checkpoints:
    """The folder with the newest checkpoints of a run."""

    path: Path
    keep: int

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, then remove those that are older than the `keep` newest.

        Raises:
            RunError: it cannot be written; those that were there still are.
        """
        file = self.path / f"step-{step:08}.safetensors"
        about = json.dumps({"format": FORMAT, "step": step, **state})
        try:
            self.path.mkdir(exist_ok=True)
            with replacing(file) as temporary:
                save_file(dict(tensors), temporary, metadata={"inceptionnet.training": about})
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
        for old in self.files()[: -self.keep]:
            with suppress(OSError):
                old.unlink()

    def files(self) -> list[Path]:
        """The checkpoints that are there, oldest first."""
        return sorted(self.path.glob("step-*.safetensors"))

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """Tensors and state of the newest checkpoint that can be read, and what was wrong with newer ones.

        None: there is no checkpoint.

        Raises:
            RunError: there are some, and none can be read.
        """
        wrong: list[str] = []
        for file in reversed(self.files()):
            try:
                with safe_open(file, framework="pt") as opened:
                    state = json.loads((opened.metadata() or {})["inceptionnet.training"])
                    if state["format"] != FORMAT:
                        raise RunError(
                            f"{file}: format {state['format']}, this version reads {FORMAT}; use its version"
                        )
                    return {key: opened.get_tensor(key) for key in opened.keys()}, state, wrong  # noqa: SIM118
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                wrong.append(f"{file.name} cannot be read ({error})")
        if wrong:
            raise RunError(f"{self.path}: no checkpoint can be read: {'; '.join(wrong)}; start anew with another --out")
        return None

    def check_space(self, size_bytes: int) -> None:
        """Whether the disk has room for all that the run will keep there at once, a checkpoint having that size.

        Raises:
            RunError: it has not.
        """
        needed = (self.keep + 2) * size_bytes  # one more while it is written, and the weights files
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise RunError(
                f"{self.path.parent}: the disk has {free / 2**20:.0f} MiB free, the run's checkpoints and weights need "
                f"{needed / 2**20:.0f}; make room, name another --out, or lower --set checkpoint.keep={self.keep}"
            )


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> dict[str, Tensor]:
    """Everything of a training that is tensors, by the names that a checkpoint has; before the first step without the
    optimiser's.
    """
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
    """Put a checkpoint's tensors back, each into the memory layout that it had.

    Raises:
        RunError: they are not those of this training.
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
                # As long sums are in the order of memory, a layout of its own would change the last bits.
                like = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
                saved.setdefault(int(number), {})[name] = like
        optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, IndexError, RuntimeError) as error:
        raise RunError(f"the checkpoint is of another training ({error}); start anew with another --out") from None
