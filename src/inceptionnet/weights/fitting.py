"""Tensors into a model that may differ from the one they come from: other classes, channels, no top, heads or not.

Whatever can be kept is kept, what cannot starts anew as in a fresh network and is named; the rest must fit to the last
tensor, and be finite.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.build import initialise
from inceptionnet.edits import Configuration
from inceptionnet.errors import WeightsError, listed
from inceptionnet.model import InceptionNet

log = logging.getLogger("inceptionnet")

COUNTER = "num_batches_tracked"
"""Batch norm's count of batches, on which no number depends; published files mostly lack it."""


def fitted(
    configuration: Configuration, tensors: Mapping[str, Tensor], held: Configuration, path: Path
) -> InceptionNet:
    """A model of `configuration` with the tensors of a file, which is of the configuration `held`.

    Raises:
        WeightsError: tensors missing, superfluous, of another shape or type, or not finite.
    """
    model = InceptionNet(configuration)
    wanted = model.state_dict()
    state = {name: tensor for name, tensor in tensors.items() if name in wanted or not _given_up(name, model)}
    state |= {name: torch.tensor(0) for name in wanted if name.endswith(COUNTER) and name not in state}
    fresh = {name for name in wanted if _starts_anew(name, wanted[name], state.get(name), held, model)}
    for name in fresh:
        state.pop(name, None)
    first = next(iter(wanted))
    if held.in_channels != model.network.in_channels and first in state:
        state |= _first_layer(first, state, model, held.in_channels)
        log.info("%s: first layer %s", path, told_of_channels(held.in_channels, model.network.in_channels))
    _check(state, wanted, fresh, model, path)
    home = torch.get_default_device()
    # Copies, so that neither another model nor the file, which may be mapped into memory, has a part in this one.
    own = {name: torch.empty_like(wanted[name], device=home).copy_(tensor) for name, tensor in state.items()}
    model.load_state_dict(own, strict=False, assign=True)
    initialise(model, model.network)
    if fresh:
        log.info("%s: started anew: %s", path, ", ".join(sorted({name.rpartition(".")[0] for name in fresh})))
    return model


def told_of_channels(held: int, asked: int) -> str:
    """How the first layer's kernels become those for another number of channels, for people."""
    if asked == 1:
        return f"summed over its {held} channels: a grey image gives what it gave with equal channels"
    return f"repeated from {held} to {asked} channels, times {held / asked:.3g}"


def _given_up(name: str, model: InceptionNet) -> bool:
    """Whether a tensor of the file is left out on purpose: an auxiliary head, or a classifier, that is not wanted."""
    return (name.startswith("aux.") and not model.aux) or (name.startswith("head.logits.") and not model.num_classes)


def _starts_anew(name: str, wanted: Tensor, got: Tensor | None, held: Configuration, model: InceptionNet) -> bool:
    """Whether a tensor is initialised although a file was given."""
    if name.startswith("aux.") and (got is None or got.shape != wanted.shape):
        return True  # a head that the file lacks, or whose convolution was made for another size of input
    return ".logits." in name and held.num_classes != model.num_classes


def _first_layer(first: str, state: Mapping[str, Tensor], model: InceptionNet, held: int) -> dict[str, Tensor]:
    """The first layer's tensors for another number of channels.

    For one channel the kernels are summed, which gives a grey image what it gave as three equal channels. For more,
    channel i has the kernels of channel i modulo those held, times held / asked, which keeps the sums' size.
    """
    asked = model.network.in_channels
    kernels = state[first]
    if kernels.dim() != 4:
        return {}  # no kernels at all, as will be said
    if first.endswith("depthwise.weight"):
        return _first_separable(first, first.replace("depthwise", "pointwise"), state, held, asked)
    if asked == 1:
        return {first: kernels.sum(1, keepdim=True)}
    return {first: kernels[:, torch.arange(asked) % held] * (held / asked)}


def _first_separable(deep: str, across: str, state: Mapping[str, Tensor], held: int, asked: int) -> dict[str, Tensor]:
    """The same for a separable convolution: depthwise (held · multiplier, 1, h, w), pointwise (out, held · multiplier).

    One channel leaves room for `multiplier` kernels only; they are those that come closest to the sums (a singular
    value decomposition cut there).
    """
    depthwise, pointwise = state[deep], state[across]
    multiplier = len(depthwise) // held
    if pointwise.shape[1:] != (len(depthwise), 1, 1):
        return {}
    if asked == 1:
        sums = pointwise.flatten(1) @ depthwise.flatten(1)
        u, s, v = torch.linalg.svd(sums, full_matrices=False)
        root = s[:multiplier].sqrt()
        return {
            deep: (root[:, None] * v[:multiplier]).reshape(multiplier, 1, *depthwise.shape[2:]),
            across: (u[:, :multiplier] * root)[:, :, None, None],
        }
    chosen = (torch.arange(asked) % held)[:, None] * multiplier + torch.arange(multiplier)
    return {deep: depthwise[chosen.flatten()], across: pointwise[:, chosen.flatten()] * (held / asked)}


def _check(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fresh: set[str], model: InceptionNet, path: Path
) -> None:
    """Raises: WeightsError, with everything of one kind of fault in one line."""
    both = [name for name in state if name in wanted]
    faults = {
        "missing": list(wanted.keys() - state.keys() - fresh),
        "unexpected": list(state.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}"
            for name in both
            if state[name].shape != wanted[name].shape
        ],
    }
    if any(faults.values()):
        told = "; ".join(f"{what}: {listed(names)}" for what, names in faults.items() if names)
        raise WeightsError(f"{path}: does not fit {model.network.name} as asked for; {told}")
    floats = [name for name in both if wanted[name].is_floating_point()]
    if kinds := [f"{name} ({state[name].dtype})" for name in floats if not state[name].is_floating_point()]:
        raise WeightsError(f"{path}: expected floating-point weights, got {listed(kinds)}; a quantised file is no use")
    suspect = [name for name in floats if not state[name].sum().isfinite()]  # at a third of the cost of looking at each
    broken = [name for name in suspect if not state[name].isfinite().all()]
    broken += [name for name in floats if name.endswith("running_var") and state[name].min() < 0]
    if broken:
        raise WeightsError(f"{path}: NaN, infinite or negative where it cannot be in {listed(broken)}; get it anew")
