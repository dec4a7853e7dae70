"""Files as other libraries publish them, made from a model of this package through the name maps turned round.

They show how files are handled. That the maps are right is shown with the libraries themselves, in tests/peers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from inceptionnet.model.build import tensors_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.analysis import analyse
from inceptionnet.weights.layouts import Layout


def as_published(model: InceptionNet, layout: Layout) -> dict[str, Tensor]:
    """The model's tensors under the layout's names, in torch's order of axes."""
    entries = {
        **layout.body,
        "logits": layout.classifier[:1],
        **{f"aux.{on}": names for on, names in layout.aux.items()},
    }
    left = {endpoint: list(names) for endpoint, names in entries.items()}
    state, found = model.state_dict(), {}
    for row in analyse(model.network):
        if names := tensors_of(row, model.network.conventions):
            where, endpoint = row.path.split(".")[:2]
            entry = left[f"aux.{endpoint}" if where == "aux" else endpoint].pop(0)
            for part, ours in names.items():
                found[layout.style.tensor(entry, part, normed="gamma" in names)] = state[ours].clone()
    return found


def write(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """As a state dict, of the kind that the file's name says."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    else:
        torch.save(dict(tensors), path)
    return path
