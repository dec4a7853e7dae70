"""Optimisers and learning-rate schedules of the recipes, TensorFlow's RMSProp among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.train.recipe import Optimizer, Schedule


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp as TensorFlow computes it, which [v3] and [v4] were trained with.

    It differs from torch.optim.RMSprop in three places: the mean square starts at 1, not 0; epsilon is added inside
    the root; and the learning rate goes into the momentum buffer, so that a lower rate acts on new gradients only.
    At the papers' epsilon of 1 the first two decide the size of every step. Weight decay is an L2 penalty, added to
    the gradient, as in the released code.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        decay: float = 0.9,
        momentum: float = 0.9,
        eps: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on every parameter that has a gradient; `closure`, if given, computes loss and gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["mean_square"] = torch.ones_like(parameter)
            state["momentum"] = torch.zeros_like(parameter)
        mean_square, buffer = state["mean_square"], state["momentum"]
        mean_square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
        root = mean_square.add(group["eps"]).sqrt_()
        buffer.mul_(group["momentum"]).addcdiv_(gradient, root, value=group["lr"])
        parameter.sub_(buffer)


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser, with weight decay on kernels and matrices and none on biases and batch norm."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    match settings.name:
        case "sgd":
            nesterov = settings.momentum > 0
            return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)
        case "rmsprop":
            return TensorFlowRMSprop(
                groups, settings.lr, decay=settings.decay, momentum=settings.momentum, eps=settings.eps
            )
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def rate_at(step: int, steps_per_epoch: int, epochs: int, settings: Schedule) -> float:
    """The learning rate at a step (from 0) as a share of its height.

    A linear rise over the warm-up; then half a cosine to zero at the end of the run, or a factor `decay` every
    `decay_epochs` epochs, in steps as [v3] has it.
    """
    steps = epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, steps / 5)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.name == "exponential":
        return math.pow(settings.decay, step // (settings.decay_epochs * steps_per_epoch))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(steps - warmup, 1))))
