"""Loading tensors into a model that may differ in classes, input channels, classifier or auxiliary heads.

Layers that cannot be kept are randomly initialised and reported. Every other tensor must fit and be finite.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.initialisation import initialise
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.edits import Configuration

log: logging.Logger = logging.getLogger("inceptionnet")

COUNTER = "num_batches_tracked"
"""Batch norm's count of batches, which affects no output; most published files lack it."""


def fitted(
    configuration: Configuration, tensors: Mapping[str, Tensor], held: Configuration, path: Path
) -> tuple[InceptionNet, tuple[str, ...]]:
    """A model of `configuration` with the tensors of a file of the configuration `held`, and what it had to initialise.

    The names are those of the tensors that are randomly initialised, since the file has none that fit.

    Raises:
        WeightsError: tensors missing, unexpected, of another shape or type, or not finite.
    """
    model = InceptionNet(configuration)
    wanted = model.state_dict()
    state = {name: tensor for name, tensor in tensors.items() if name in wanted or not _unwanted(name, model)}
    state |= {name: torch.tensor(0) for name in wanted if name.endswith(COUNTER) and name not in state}
    fresh = {name for name in wanted if _needs_initialising(name, wanted[name], state.get(name), held, model)}
    for name in fresh:
        state.pop(name, None)
    first = next(iter(wanted))
    if held.in_channels != model.network.in_channels and first in state:
        state |= _first_layer(first, state, model, held.in_channels)
        log.info("%s: first layer %s", path, describe_channels(held.in_channels, model.network.in_channels))
    _check(state, wanted, fresh, model, path)
    if configuration.edits != held.edits:  # where only activations differ, the tensors fit
        log.info("%s: the weights of %s, loaded into %s", path, held.title, configuration.title)
    home = torch.get_default_device()
    # Copies, so that the model shares no memory with another model or with the file, which may be memory-mapped.
    own = {name: torch.empty_like(wanted[name], device=home).copy_(tensor) for name, tensor in state.items()}
    model.load_state_dict(own, strict=False, assign=True)
    initialise(model, model.network)
    if fresh:
        log.info("%s: randomly initialised: %s", path, listed({name.rpartition(".")[0] for name in fresh}))
    return model, tuple(sorted(fresh))


def describe_channels(held: int, asked: int) -> str:
    """How the first layer's kernels are adapted to another number of input channels, in words."""
    if asked == 1:
        return f"summed over its {held} channels: a grey image gives the logits that it gave as {held} equal channels"
    return f"repeated from {held} to {asked} channels, times {held / asked:.3g}"


def _unwanted(name: str, model: InceptionNet) -> bool:
    """Whether a tensor of the file is skipped on purpose: of an auxiliary head or classifier that the model lacks."""
    return (name.startswith("aux.") and not model.aux) or (name.startswith("head.logits.") and not model.num_classes)


def _needs_initialising(
    name: str, wanted: Tensor, got: Tensor | None, held: Configuration, model: InceptionNet
) -> bool:
    """Whether a tensor is randomly initialised although a file was given."""
    if name.startswith("aux.") and (got is None or got.shape != wanted.shape):
        return True  # a head that the file lacks, or whose convolution is for another image size
    return ".logits." in name and held.num_classes != model.num_classes


def _first_layer(first: str, state: Mapping[str, Tensor], model: InceptionNet, held: int) -> dict[str, Tensor]:
    """The first layer's tensors for another number of input channels.

    For one channel the kernels are summed, so that a grey image gives the logits that it gave as three equal channels.
    For more, channel i gets the kernels of channel i modulo `held`, times held / asked, which preserves the scale.
    """
    asked = model.network.in_channels
    kernels = state[first]
    if kernels.dim() != 4:
        return {}  # not a kernel: the shape check reports it
    if first.endswith("depthwise.weight"):
        return _first_separable(first, first.replace("depthwise", "pointwise"), state, held, asked)
    if asked == 1:
        return {first: kernels.sum(1, keepdim=True)}
    return {first: kernels[:, torch.arange(asked) % held] * (held / asked)}


def _first_separable(deep: str, across: str, state: Mapping[str, Tensor], held: int, asked: int) -> dict[str, Tensor]:
    """The same for a separable convolution: depthwise (held · multiplier, 1, h, w), pointwise (out, held · multiplier).

    One channel has room for `multiplier` kernels only: the best approximation of the sums of that rank, by a truncated
    singular value decomposition.
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
    """Raises: WeightsError, in one line with all faults."""
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
        raise WeightsError(f"{path}: does not fit {model.network.name} as configured; {told}")
    floats = [name for name in both if wanted[name].is_floating_point()]
    # Numbers of 8 bits need scales to be weights, and torch does not compute with them.
    bad = [name for name in floats if not state[name].is_floating_point() or state[name].element_size() == 1]
    if kinds := [f"{name} ({state[name].dtype})" for name in bad]:
        raise WeightsError(
            f"{path}: expected floating-point weights, got {listed(kinds)}; give a file that is not quantised"
        )
    suspect = [
        name for name in floats if not state[name].sum().isfinite()
    ]  # three times as fast as checking each value
    broken = [name for name in suspect if not state[name].isfinite().all()]
    broken += [name for name in floats if name.endswith("running_var") and state[name].min() < 0]
    if broken:
        raise WeightsError(
            f"{path}: expected finite weights and variances of at least 0, got NaN, infinite or negative values in "
            f"{listed(broken)}; get the file again"
        )
