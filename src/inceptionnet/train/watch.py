"""Diagnostics during training: dead features, and batch-norm statistics that do not fit the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inceptionnet.nets.spec import Network, Residual
from inceptionnet.system.distributed import World
from inceptionnet.train.batch_norm import Norm, batch_statistics

if TYPE_CHECKING:
    from inceptionnet.model.network import InceptionNet

DEAD_SHARE = 0.5
"""The run warns from this share of dead features on; in [v4] section 3.3 all of them died."""
GAP, GAP_BATCHES = 0.2, 4
"""The gap between training and held-out accuracy from which batch norm is checked, and on how many batches."""
GAP_IMAGES = 7
"""The least difference in correct images too: as many coin tosses fall alike in less than 1 % of cases."""
DATA_WAIT_SHARE = 0.1
"""The run reports the time spent waiting for data from this share on."""


class Features:
    """Which features before the pool were nonzero for any image since `clear`."""

    def __init__(self, model: InceptionNet) -> None:
        self.alive: Tensor | None = None
        """(C,) bool."""
        model.head.register_forward_pre_hook(self._look)

    def dead_share(self, world: World) -> float:
        """Share of features that were zero for every image of every process. All processes must call it."""
        if self.alive is None:
            return 0.0
        alive = world.total(self.alive.float().tolist())
        return sum(count == 0 for count in alive) / len(alive)

    def clear(self) -> None:
        """Start again, at the start of an epoch."""
        self.alive = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _look(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        if head.training and len(inputs[0]):
            nonzero = inputs[0].detach().abs() > 0  # False for NaN
            alive = nonzero.any(0).flatten(1).any(1)
            self.alive = alive if self.alive is None else self.alive.to(alive.device) | alive


def advice(network: Network, *, head_alone: bool = False) -> str:
    """What to do about dead features; `head_alone`: of a linear probe, whose features are frozen."""
    if head_alone:
        return "the pretrained features do not respond to these images; train more layers, --train-from ENDPOINT"
    if any(isinstance(node, Residual) for node in network.body.values()):
        return "lower the residual scale, --set network.residual_scale=0.1 ([v4] section 3.3), or the learning rate"
    return "lower the learning rate, or lengthen its warm-up, --set schedule.warmup_epochs=5"


def batch_norm_gap(
    model: InceptionNet, inputs: Iterable[tuple[Tensor, Tensor]], norms: Sequence[Norm] | None = None
) -> tuple[int, int, int]:
    """(images, correct with batch statistics, correct with running statistics) of inputs and their labels.

    With several labels an image, it is correct if all of them are.

    The images and the weights are the same, so that only batch norm (`norms`, or all) can make a difference.
    """
    seen, batchwise, running = 0, 0, 0
    was_training = model.training
    with torch.no_grad():
        for x, labels in inputs:
            with batch_statistics(model, norms, remembered=False):
                batchwise += int(model.outputs.hits(model(x), labels).sum())
            model.eval()
            running += int(model.outputs.hits(model(x), labels).sum())
            seen += len(labels)
    model.train(was_training)
    return seen, batchwise, running
