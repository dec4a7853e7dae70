"""The recipes by name: `default`, `finetune`, and `paper`, which is that of the paper a network comes from.

Source: [v1] section 6, [v2] section 4.2, [v3] sections 6 to 8, [v4] section 4, and the code released with them where a
paper is silent. What neither says is marked here.
"""

from __future__ import annotations

import re
from typing import Literal

from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.nets import NETWORKS, PAPERS
from inceptionnet.train.recipe import (
    Augmentation,
    Averaging,
    BatchNorm,
    Loss,
    Network,
    Optimizer,
    Recipe,
    Schedule,
)

RecipeName = Literal["default", "finetune", "paper"]

DEFAULT = Recipe()
"""Good on small and middling data without thinking."""

FINETUNE = Recipe(
    optimizer=Optimizer(lr=1e-3),
    schedule=Schedule(epochs=10),
)
"""From loaded weights: a quarter of the rate, a third of the time."""

_DISTORTED = Augmentation(area_min=0.08, color="full", interpolation="random")
_AVERAGED = Averaging(decay=0.9999)

_V1 = Recipe(
    # Momentum and the fall of 4 % every 8 epochs are [v1]'s, the rate and batches of 32 are what [v2] says of [v1].
    # 775 epochs are [v2]'s 31 million steps. Weight decay is 5 times that of [v2]. The rule for other batches is ours.
    optimizer=Optimizer(name="sgd", lr=0.0015, lr_batch=32, lr_scaling="linear", nesterov=False, weight_decay=2e-4),
    schedule=Schedule(epochs=775, name="exponential", decay=0.96, decay_epochs=8, warmup_epochs=0),
    loss=Loss(label_smoothing=0, aux_weight=0.3),
    network=Network(aux=True),
    average=_AVERAGED,
    augment=_DISTORTED,
)
_V2 = Recipe(
    # The ×30 rate with the fall 6 times as fast as [v1]'s; 150 epochs are its 6 million steps. Weight decay is what the
    # released code has; momentum's amount, batch norm's memory and the smallest box are not stated.
    optimizer=Optimizer(name="sgd", lr=0.045, lr_batch=32, lr_scaling="linear", nesterov=False, weight_decay=4e-5),
    schedule=Schedule(epochs=150, name="exponential", decay=0.96, decay_epochs=8 / 6, warmup_epochs=0),
    loss=Loss(label_smoothing=0),
    network=Network(dropout=0),
    average=_AVERAGED,
    augment=_DISTORTED.model_copy(update={"color": "fast"}),  # "reduce the photometric distortions"
)
_V3 = Recipe(
    # 50 replicas of 32 images; the released code reached the paper's figure with an effective batch of 1600 only.
    optimizer=Optimizer(
        name="rmsprop", lr=0.045, lr_batch=1600, lr_scaling="sqrt", eps=1.0, weight_decay=4e-5, clip_norm=2.0
    ),
    schedule=Schedule(epochs=100, name="exponential", decay=0.94, decay_epochs=2, warmup_epochs=0),
    loss=Loss(label_smoothing=0.1, aux_weight=0.4),
    network=Network(aux=True),
    batch_norm=BatchNorm(momentum=3e-4),
    average=_AVERAGED,
    augment=_DISTORTED.model_copy(update={"area_min": 0.05}),
)
# [v4] has 20 replicas and states neither their batch, taken for [v3]'s 32, nor epochs, which are [v3]'s here, nor
# clipping, which is left out.
_V4 = _V3.model_copy(update={"optimizer": _V3.optimizer.model_copy(update={"clip_norm": None, "lr_batch": 20 * 32})})

PAPER = {"v1": _V1, "v2": _V2, "v3": _V3, "v4": _V4}
"""The recipe of each paper."""


def recipe_named(name: str, network: str) -> Recipe:
    """The recipe of that name for a network; `paper` has auxiliary heads where the network has any.

    Raises:
        ConfigurationError: an unknown recipe or network.
    """
    paper = paper_of(network)
    if name == "default":
        return DEFAULT
    if name == "finetune":
        return FINETUNE
    if name == "paper":
        return PAPER[paper].changed({"network.aux": bool(NETWORKS[network].aux)})
    raise ConfigurationError(f"--recipe is {name!r}: {nearest(name, ['default', 'finetune', 'paper'])}")


def paper_of(network: str) -> str:
    """The key in `PAPERS` of the paper that a network comes from.

    Raises:
        ConfigurationError: an unknown network.
    """
    if network not in NETWORKS:
        raise ConfigurationError(f"unknown network {network!r}: {nearest(network, NETWORKS)}")
    found = re.search(r"\[(v\d)\]", NETWORKS[network].paper)
    assert found and found[1] in PAPERS, network
    return found[1]
