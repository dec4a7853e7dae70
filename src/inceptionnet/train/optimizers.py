"""Optimisers and learning-rate schedules of the recipes, including TensorFlow's RMSProp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.train.layers import lr_factors
from inceptionnet.train.setting_groups import Optimizer, Schedule


class TensorFlowRMSprop(torch.optim.Optimizer):
    """RMSProp as TensorFlow computes it, which [v3] and [v4] were trained with.

    It differs from torch.optim.RMSprop in three ways: the mean square starts at 1, not 0; epsilon is inside the square
    root; and the momentum buffer includes the learning rate, so that a lower rate affects new gradients only. With the
    papers' epsilon of 1 the first two determine the size of every step. Weight decay is an L2 penalty on the gradient,
    as in the released code.
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
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "mean_square": torch.ones_like(parameter),
                    "momentum": torch.zeros_like(parameter),
                }
        gradients: Any = [parameter.grad for parameter in parameters]
        mean_squares = [self.state[parameter]["mean_square"] for parameter in parameters]
        buffers = [self.state[parameter]["momentum"] for parameter in parameters]
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(mean_squares, group["decay"])
        torch._foreach_addcmul_(mean_squares, gradients, gradients, 1 - group["decay"])
        roots = torch._foreach_add(mean_squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, gradients, roots, group["lr"])
        torch._foreach_sub_(parameters, buffers)


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimiser of all trainable parameters; biases and batch norm get no weight decay.

    Each group has a `factor` on the learning rate of the step, see `layers.lr_factors`.
    """
    factors = lr_factors(model, settings.layer_decay)
    groups_of: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups_of.setdefault((factors[name], parameter.dim() > 1), []).append(parameter)
    groups = [
        {"params": parameters, "factor": factor, "weight_decay": settings.weight_decay if decayed else 0.0}
        for (factor, decayed), parameters in groups_of.items()
    ]
    match settings.name:
        case "sgd":
            nesterov = settings.nesterov and settings.momentum > 0
            return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)
        case "rmsprop":
            return TensorFlowRMSprop(
                groups, settings.lr, decay=settings.decay, momentum=settings.momentum, eps=settings.eps
            )
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def peak_lr(settings: Optimizer, batch_size: int) -> float:
    """The peak learning rate for an effective batch size: `lr`, scaled by a power of batch_size / lr_batch.

    linear suits SGD (Goyal et al., arXiv:1706.02677), sqrt adaptive methods (Malladi et al., arXiv:2205.10287).
    """
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[settings.lr_scaling]
    return settings.lr * math.pow(batch_size / settings.lr_batch, power)


def lr_factor(step: int, steps_per_epoch: int, settings: Schedule) -> float:
    """The learning rate at a step (from 0) relative to its peak.

    First a warm-up: a linear rise, or a phase at a tenth (He et al., arXiv:1512.03385, section 4.2). Then half a cosine
    to zero at the end of the run; or a factor `decay` every `decay_epochs` epochs, staircase as in [v3]; or constant.
    """
    steps = settings.epochs * steps_per_epoch
    warmup = min(settings.warmup_epochs * steps_per_epoch, steps / 5)
    if step < warmup:
        return (step + 1) / (warmup + 1) if settings.warmup == "linear" else 0.1
    match settings.name:
        case "exponential":
            return math.pow(settings.decay, step // (settings.decay_epochs * steps_per_epoch))
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(steps - warmup, 1))))
        case "constant":
            return 1.0
