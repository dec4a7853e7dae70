"""Batch norm's running statistics in training: their momentum, synchronisation, and recalibration.

Evaluation uses the running statistics. On small data they are a common failure: with the published decay of 0.9997 they
lag behind the weights, and a network that fits its training images is evaluated at chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

Norm = nn.modules.batchnorm._BatchNorm

RECALIBRATION_BATCHES = 100


def norms_of(model: nn.Module) -> list[Norm]:
    """Every batch norm of a model."""
    return [module for module in model.modules() if isinstance(module, Norm)]


def momentum_at(step: int, momentum: float, *, fresh: bool) -> float:
    """The share of the newest batch in the running statistics at a step (from 0).

    In a randomly initialised network it is at least 9 / (10 + step), the ramp of the weight average: the statistics
    cover about the last ninth of the steps, until `momentum` limits it. So the initial 0 and 1 are soon forgotten, and
    the published 0.0003 works in a run of any length. Loaded statistics need no ramp.
    """
    return max(momentum, 9 / (10 + step)) if fresh else momentum


def snapshot(norms: Iterable[Norm]) -> list[tuple[Tensor, Tensor]]:
    """(buffer, copy) of all running statistics, for `restore`."""
    return [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]


def restore(kept: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Restore the running statistics of a snapshot."""
    for buffer, copy in kept:
        buffer.copy_(copy)


@torch.no_grad()
def blend(before: Iterable[tuple[Tensor, Tensor]], momentum: float) -> None:
    """Update the running statistics: `before` a pass, and as the pass left them, blended by the momentum.

    The pass itself runs with a momentum of 1, since one that changes at every step would make torch.compile recompile
    every time.
    """
    floats = [(buffer, copy) for buffer, copy in before if buffer.is_floating_point()]
    if floats:
        buffers, copies = zip(*floats, strict=True)
        torch._foreach_copy_(buffers, torch._foreach_lerp(copies, buffers, momentum))


@contextmanager
def batch_statistics(model: nn.Module, norms: Sequence[Norm] | None = None, *, remembered: bool) -> Iterator[None]:
    """The model in evaluation mode, except that batch norm uses the statistics of each batch.

    Args:
        norms: the batch norms that do so; None: all of the model's.
        remembered: their running statistics become the mean over the batches of the block; else they are unchanged.
    """
    norms, was_training = norms_of(model) if norms is None else norms, model.training
    momenta = [norm.momentum for norm in norms]
    kept = snapshot(norms)
    model.eval()
    for norm in norms:
        norm.train()
        if remembered:
            norm.reset_running_stats()
        norm.momentum = None if remembered else 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        if not remembered:
            restore(kept)
        model.train(was_training)


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Synchronise batch norm over all processes, so that their number does not change the result."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, Norm):
                parent.register_module(name, _SyncBatchNorm(module))


class _SyncBatchNorm(Norm):
    """SyncBatchNorm for any device, with the same results; torch's is for accelerators only.

    Shapes: (N, C, …) → the same; N may be 0 in some processes.
    """

    def __init__(self, norm: Norm) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, "meta")
        for name, parameter in norm.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            evaluated: Tensor = super().forward(input)
            return evaluated
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        x = input.to(self.running_mean.dtype)  # under autocast it has lower precision
        over = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = _total(torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64, device=x.device))
        mean = (_total(x.sum(over, dtype=torch.float64)) / count).to(x.dtype)
        centred = x - mean.view(shape)
        variance = (_total(centred.square().sum(over, dtype=torch.float64)) / count).to(x.dtype)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)).to(x.dtype), momentum)
        y: Tensor = centred * (torch.rsqrt(variance + self.eps) * self.weight).view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def _total(x: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return summed


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
