"""What a run looks at while it trains: features that have died, and batch norm that does not fit the weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inceptionnet.distributed import World
from inceptionnet.spec import Network, Residual
from inceptionnet.train.batch_norm import Norm, batch_statistics

if TYPE_CHECKING:
    from inceptionnet.model import InceptionNet

DEAD_SHARE = 0.5
"""From this share of dead features on the run warns; [v4] section 3.3 saw all of them die."""
GAP, GAP_BATCHES = 0.2, 4
"""By which the accuracy of evaluation must lie below that of training for batch norm to be suspected, and on how many
batches it is then tried.
"""
GAP_IMAGES = 7
"""By which its counts must differ too: so many tosses of a coin fall alike in less than 1 % of cases."""
WAITING_SHARE = 0.1
"""From this share of the time spent waiting for images on the run says so."""


class Features:
    """Which of the features before the pool were other than zero for any image since `clear`."""

    def __init__(self, model: InceptionNet) -> None:
        self.alive: Tensor | None = None
        """(C,) bool."""
        model.head.register_forward_pre_hook(self._look)

    def dead_share(self, world: World) -> float:
        """Share of the features that were zero for every image of every process. All processes must call it."""
        if self.alive is None:
            return 0.0
        alive = world.total(self.alive.float().tolist())
        return sum(count == 0 for count in alive) / len(alive)

    def clear(self) -> None:
        """Begin anew, at the start of an epoch."""
        self.alive = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _look(self, head: nn.Module, inputs: tuple[Tensor]) -> None:
        if head.training and len(inputs[0]):
            nonzero = inputs[0].detach().abs() > 0  # which is not so of what is not a number
            alive = nonzero.any(0).flatten(1).any(1)
            self.alive = alive if self.alive is None else self.alive.to(alive.device) | alive


def remedy(network: Network, *, head_alone: bool = False) -> str:
    """What helps a network whose features die; `head_alone`: nothing that makes them is trained."""
    if head_alone:
        return "the loaded weights see little in these images; train more than the head, --train-from ENDPOINT"
    if any(isinstance(node, Residual) for node in network.body.values()):
        return "lower the residual scale, --set network.residual_scale=0.1 ([v4] section 3.3), or the learning rate"
    return "lower the learning rate, or lengthen its warm-up, --set schedule.warmup_epochs=5"


def batch_norm_gap(
    model: InceptionNet, inputs: Iterable[tuple[Tensor, Tensor]], norms: Sequence[Norm] | None = None
) -> tuple[int, int, int]:
    """(images, right with each batch's own statistics, right with the running ones) of inputs and their labels.

    The same images in the same state of the network: a difference comes from batch norm (`norms`, or all of them) and
    nothing else.
    """
    seen, batchwise, running = 0, 0, 0
    was_training = model.training
    with torch.no_grad():
        for x, labels in inputs:
            with batch_statistics(model, norms, remembered=False):
                batchwise += int((model(x).argmax(1) == labels).sum())
            model.eval()
            running += int((model(x).argmax(1) == labels).sum())
            seen += len(labels)
    model.train(was_training)
    return seen, batchwise, running
