"""The named recipes: `default`, `finetune`, and `paper`, the recipe of the paper that a network comes from.

Source: [v1] section 6, [v2] section 4.2, [v3] sections 7 and 8, [v4] section 4, and the code released with them where a
paper says nothing. Values that neither states are marked here.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.nets import NETWORKS, PAPERS
from inceptionnet.nets.analysis import analyse, endpoints
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.setting_groups import (
    Augmentation,
    Averaging,
    BatchNorm,
    Loss,
    Network,
    Optimizer,
    Schedule,
)

RecipeName = Literal["default", "finetune", "paper"]

DEFAULT = Recipe()
"""For small and medium data sets, without tuning."""

STEM_RATE = 0.5
"""What the layer-wise decay of `finetune` leaves of the learning rate in the first layer of every network."""


def layer_decay(network: str) -> float:
    """The layer-wise decay of the learning rate that leaves STEM_RATE of it in the network's first layer.

    One factor for all networks would train less of a deeper one: after the 49 endpoints of inception_resnet_v2.slim,
    0.8 leaves 2e-5.
    """
    rows = endpoints(analyse(NETWORKS[network]))
    depth = sum(row.path.startswith("body.") and row.parameters > 0 for row in rows)
    return round(math.pow(STEM_RATE, 1 / depth), 3)


FINETUNE = Recipe(
    optimizer=Optimizer(lr=3e-4, layer_decay=layer_decay("inception_v3"), range_test=True),
    schedule=Schedule(epochs=10),
    network=Network(fit_head=True),
    batch_norm=BatchNorm(mode="freeze"),
    average=Averaging(decay=0.998),
)
"""From pretrained weights, of Inception-v3; see `finetune` for what depends on the network and the number of images."""
FINETUNE_NOTE = (
    "finetune: 5 to 30 epochs, 20 000 / training images, evaluated about 10 times; fit_head up to 50 000 images; "
    f"layer_decay leaves the first layer {STEM_RATE:g} of the learning rate "
    f"({FINETUNE.optimizer.layer_decay:g} in Inception-v3)"
)

IMAGES, FEWEST_EPOCHS, MOST_EPOCHS = 20_000, 5, 30
EVALUATIONS, MOST_FITTED = 10, 50_000

_DISTORTED = Augmentation(area_min=0.08, color="full", interpolation="random")
_AVERAGED = Averaging(decay=0.9999)

_V1 = Recipe(
    # Momentum and the decay of 4 % every 8 epochs are [v1]'s; [v2] states [v1]'s learning rate and batch size of 32.
    # 775 epochs are [v2]'s 31 million steps. Weight decay is 5 times that of [v2]. Scaling with the batch size is ours.
    optimizer=Optimizer(name="sgd", lr=0.0015, lr_batch=32, lr_scaling="linear", nesterov=False, weight_decay=2e-4),
    schedule=Schedule(epochs=775, name="exponential", decay=0.96, decay_epochs=8, warmup_epochs=0),
    loss=Loss(label_smoothing=0, aux_weight=0.3),
    network=Network(aux=True),
    average=_AVERAGED,
    augment=_DISTORTED,
)
_V2 = Recipe(
    # The ×30 learning rate with a decay 6 times as fast as [v1]'s; 150 epochs are its 6 million steps. Weight decay is
    # the released code's; momentum, batch norm's momentum and the smallest crop are not stated.
    optimizer=Optimizer(name="sgd", lr=0.045, lr_batch=32, lr_scaling="linear", nesterov=False, weight_decay=4e-5),
    schedule=Schedule(epochs=150, name="exponential", decay=0.96, decay_epochs=8 / 6, warmup_epochs=0),
    loss=Loss(label_smoothing=0),
    network=Network(dropout=0),
    average=_AVERAGED,
    augment=_DISTORTED.model_copy(update={"color": "fast"}),  # "reduce the photometric distortions"
)
_V3 = Recipe(
    # 50 replicas of 32 images; the released code reached the paper's accuracy with an effective batch of 1600 only.
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
# [v4] has 20 replicas. It states neither their batch size nor epochs, which are [v3]'s here, nor gradient clipping,
# which is off.
_V4 = _V3.model_copy(update={"optimizer": _V3.optimizer.model_copy(update={"clip_norm": None, "lr_batch": 20 * 32})})

PAPER = {"v1": _V1, "v2": _V2, "v3": _V3, "v4": _V4}
"""The recipe of each paper."""


def recipe_named(name: str, network: str | None = None) -> Recipe:
    """The named recipe for a network; `paper` has auxiliary heads if the network has any.

    Raises:
        ConfigurationError: an unknown recipe or network, or `paper` without a network.
    """
    paper = None if network is None else paper_of(network)
    if name == "default":
        return DEFAULT
    if name == "finetune":
        return FINETUNE if network is None else FINETUNE.changed({"optimizer.layer_decay": layer_decay(network)})
    if name == "paper":
        if network is None or paper is None:
            raise ConfigurationError("--recipe paper depends on the network, got none; give --model")
        return PAPER[paper].changed({"network.aux": bool(NETWORKS[network].aux)})
    raise ConfigurationError(f"--recipe is {name!r}: {nearest(name, ['default', 'finetune', 'paper'])}")


def finetune(network: str, images: int) -> Recipe:
    """The recipe `finetune` for a network and so many training images.

    The fewer they are, the more epochs. Of very many the features are not kept, and the classifier starts as it is.
    """
    epochs = min(max(round(IMAGES / max(images, 1)), FEWEST_EPOCHS), MOST_EPOCHS)
    changes = {"schedule.epochs": epochs, "network.fit_head": images <= MOST_FITTED}
    return recipe_named("finetune", network).changed(changes)


def evaluation_interval(epochs: int) -> int:
    """Epochs between two evaluations, so that a run of so many epochs has about EVALUATIONS."""
    return max(1, round(epochs / EVALUATIONS))


def paper_of(network: str) -> str:
    """The key in `PAPERS` of a network's paper.

    Raises:
        ConfigurationError: an unknown network.
    """
    if network not in NETWORKS:
        raise ConfigurationError(f"unknown network {network!r}: {nearest(network, NETWORKS)}")
    found = re.search(r"\[(v\d)\]", NETWORKS[network].paper)
    assert found and found[1] in PAPERS, network
    return found[1]
