"""Fine-tuning of parts of a network: freezing (all but the head, or from an endpoint on) and layer-wise learning rates.

Frozen endpoints keep their loaded weights and statistics. Layer-wise learning-rate decay is that of Clark et al.,
ELECTRA, arXiv:2003.10555, and Bao et al., BEiT, arXiv:2106.08254, counted as in BEiT: the layer next to the head has
the decay once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from torch import nn

from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.model.network import InceptionNet

ALL, HEAD = "all", "head"


def freeze(model: InceptionNet, train_from: str) -> dict[str, nn.Module]:
    """Freeze the endpoints before `train_from`; returns them by name, in order.

    A frozen endpoint gets no gradients, so the backward pass stops behind it, and is in evaluation mode: batch norm
    uses its running statistics and does not update them, dropout is off. Call this after `model.train()`,
    which undoes it.

    All heads are trained, an auxiliary head on a frozen endpoint too: its logits are randomly initialised for new
    classes, and the weights file should hold no untrained head.

    Args:
        train_from: an endpoint of the body; `head`: the classifier alone; `all`: the whole network.

    Raises:
        ConfigurationError: the network has no such endpoint.

    Example:
        >>> from inceptionnet import create_model
        >>> model = create_model("inception_v3", num_classes=5, width=0.125)
        >>> list(freeze(model, "mixed_7a"))[-1]
        'mixed_6e'
        >>> sorted({name.split(".")[1] for name, weight in model.named_parameters() if weight.requires_grad})
        ['logits', 'mixed_7a', 'mixed_7b', 'mixed_7c']
    """
    endpoints = dict(model.body.named_children())
    starts = {name: i for i, name in enumerate(endpoints)} | {ALL: 0, HEAD: len(endpoints)}
    if train_from not in starts:
        raise ConfigurationError(
            f"network.train_from is {train_from!r}; expected all, head or an endpoint of {model.network.name}: "
            f"{nearest(train_from, starts)}"
        )
    frozen = dict(islice(endpoints.items(), starts[train_from]))
    model.requires_grad_()
    for module in frozen.values():
        module.requires_grad_(False).eval()
    return frozen


def lr_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """The learning-rate factor of every parameter, by name.

    1 in all heads, whose weights are new; `decay` in the last endpoint of the body, decay² in the one before it, and so
    on. Endpoints without parameters do not count; frozen ones do.
    """
    place = {name: ".".join(name.split(".")[:2]) for name, _ in model.named_parameters()}
    endpoints = list(dict.fromkeys(where for where in place.values() if where.startswith("body.")))
    distance = {where: len(endpoints) - i for i, where in enumerate(endpoints)}
    return {name: decay ** distance.get(where, 0) for name, where in place.items()}


def training_summary(model: InceptionNet, frozen: Mapping[str, nn.Module], peak: float, decay: float) -> Iterator[str]:
    """Log lines: the parts that are trained and those that are frozen, and the range of their learning rates.

    Args:
        frozen: the result of `freeze`.
        peak: the peak learning rate of the head.
        decay: as in `lr_factors`.
    """
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    total = f"{sum(sizes.values()):,} parameters"
    if frozen:
        after = [name for name, _ in model.body.named_children() if name not in frozen]
        heads = "head and auxiliary heads" if model.aux else "head"
        parts = f"{heads}, {_span(after)}" if after else heads
        yield f"training {parts}: {sum(sizes[name] for name in trained):,} of {total}; frozen: {_span([*frozen])}"
    else:
        yield f"training the whole network: {total}"
    factors = lr_factors(model, decay)
    lowest = min(trained, key=lambda name: factors[name])
    if factors[lowest] < 1:
        end = f"{peak * factors[lowest]:.3g} at {lowest.split('.')[1]}"
        yield f"layer-wise learning rates: from {peak:.3g} at the head down to {end}"


def _span(names: Sequence[str]) -> str:
    """The first and last of some names."""
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
