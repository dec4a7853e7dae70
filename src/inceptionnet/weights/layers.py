"""Layers of a PyTorch file by the names and shapes of their tensors, and what is no layer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.nets.spec import Activation, BatchNorm, Linear
from inceptionnet.weights.heads import Part

TORCH_EPS = 1e-5
"""torch's default for batch norm, which a state dict does not have."""
ROLES = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
OF_LOSS = re.compile(
    r"(^|[._])(criterion|criteria|crit|loss\w*|\w+_loss|losses|metrics?|\w*(acc|accuracy|auroc|auc|f1|f1score|precision|"
    r"recall|confmat|confusion_matrix|kappa|iou|jaccard|specificity)(_\w+)?)(?=\.|$)",
    re.IGNORECASE,
)
"""Names of losses and metrics, which Lightning keeps beside the network."""
OF_LOGITS = re.compile(r"(^|[._])(temperature|temp|tau|(logits?_)?scale)$", re.IGNORECASE)
"""Names of numbers that logits are divided or multiplied by."""
LAYER_PARTS = {"weight", "bias", "running_mean", "running_var"}
OF_TRAINING = re.compile(
    r"(^|[._])(dummy\w*|device\w*|\w*(step|epoch|iter|iteration|update)s?|n_averaged|\w*decay|momentum|lr|best\w*|"
    r"\w*threshold|\w*queue|(class|cls|pos|loss|ce|label|category|sample)_?(weight|count|freq)\w*)$",
    re.IGNORECASE,
)
"""Names of numbers that a training needs and the logits do not."""


@dataclass(frozen=True)
class Layers:
    """Layers of a file outside the body, by name in the file."""

    path: Path
    tensors: Mapping[str, Mapping[str, Tensor]]
    """By layer, its tensors by the last part of their names."""
    width: int
    """Channels of the last grid."""
    usual: tuple[str, ...]
    """The names of the publisher's own classifier, in the file."""
    fastai: bool = False
    """Whether the file is a Sequential of body and head, as fastai builds it."""

    def part(self, name: str) -> Part:
        """A layer as a part of the head. Raises: WeightsError for a kind that is not known."""
        held = self.tensors[name]
        weight = held.get("weight")
        if "running_mean" in held and held["running_mean"].dim() == 1:
            return Part(name, BatchNorm(TORCH_EPS), {ROLES[part]: t for part, t in held.items() if part in ROLES})
        if weight is not None and not held.keys() - {"weight", "bias"}:
            if weight.dim() == 2 or (weight.dim() == 4 and weight.shape[2:] == (1, 1)):
                matrix = {part: t.flatten(1) if part == "weight" else t for part, t in held.items()}
                return Part(name, Linear(len(weight), bias="bias" in held), matrix)
            if weight.numel() == 1 and weight.dim() == 1 and "bias" not in held:
                return Part(name, Activation("leaky_relu", float(weight)))  # a PReLU of one slope
        kind = (
            " (a normalisation other than batch norm, or an activation with weights)"
            if weight is not None and weight.dim() == 1
            else ""
        )
        shapes = listed(f"{part} {tuple(t.shape)}" for part, t in held.items())
        raise WeightsError(
            f"{self.path}: {name}, {shapes}: a layer of a kind that is not known{kind}, behind the published network; "
            f"if it takes no part in the logits, state the head without it: {self.how([])}"
        )

    def how(self, words: Iterable[str]) -> str:
        """The command that states a head."""
        example = " ".join(words) or next(iter(self.usual), "fc")
        return f"inceptionnet convert {shlex.quote(str(self.path))} OUT.safetensors --head '{example}'"

    @property
    def linear(self) -> list[str]:
        """The layers with a matrix, in natural order."""
        return [name for name, held in self.tensors.items() if "weight" in held and held["weight"].dim() in (2, 4)]


def owners_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors by layer, in natural order of the layers' names, then by the last part of their names."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, part = name.rpartition(".")
        found.setdefault(owner, {})[part] = tensor
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def not_layers(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Of tensors outside the body, those that are no layers, each with the reason that it is not used."""
    found = {}
    for name, tensor in tensors.items():
        if OF_LOSS.search(name):
            found[name] = "of a loss or a metric, not a layer"
        elif not tensor.is_floating_point():
            found[name] = "a count, not a layer"
        elif OF_TRAINING.search(name) or not tensor.numel():
            found[name] = "of the training, not a layer"
    return found


def no_part(tensors: Mapping[str, Tensor]) -> list[str]:
    """Of tensors behind the body, those that are no part of a known layer, such as the exponent of a GeM pool."""
    return [name for name in tensors if not re.search(r"weight|bias", last := name.rpartition(".")[2])
            and last not in LAYER_PARTS]  # fmt: skip


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts `fc.10` behind `fc.9`."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split("."))
