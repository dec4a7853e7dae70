"""Gradient checkpointing: a module's activations are computed again in the backward pass instead of being kept.

Source: Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174, by torch.utils.checkpoint. Batch
norm's running statistics are updated by the first computation only, so a training with it is the training without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)`, of which only `x` is kept for the backward pass; `module` draws no random numbers."""
    trained = x.requires_grad or any(weight.requires_grad for weight in module.parameters())
    if not (trained and torch.is_grad_enabled()):
        y: Tensor = module(x)
    elif torch.compiler.is_compiling():
        # The compiler computes again what it needs for the gradients, and no more: statistics are updated once.
        y = checkpoint(module, x, use_reentrant=False, preserve_rng_state=False)
    else:

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _statistics_kept(module)

        y = checkpoint(module, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return y


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norm uses the batch's statistics in training as before, but does not add them to the running ones.

    It keeps its running statistics and takes them with momentum 0: without them, torch would save other tensors in the
    second computation than in the first. It counts the batch in a copy of its counter, which is dropped; synchronised
    batch norm needs one.
    """
    parts = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [(part.momentum, part.num_batches_tracked) for part in parts]
    for part, (_, counter) in zip(parts, before, strict=True):
        part.momentum, part.num_batches_tracked = 0.0, None if counter is None else counter.clone()
    try:
        yield
    finally:
        for part, (momentum, counter) in zip(parts, before, strict=True):
            part.momentum, part.num_batches_tracked = momentum, counter
