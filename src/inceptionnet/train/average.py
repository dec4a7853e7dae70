"""Exponential moving average (EMA) of a network's weights, which the papers evaluate with.

Source: [v3] section 8 and the released code, which averages batch norm's statistics too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """average ← d · average + (1 - d) · weights, with d = min(decay, (1 + t) / (10 + t)) at step t (from 0).

    The ramp lets a short run forget its random initialisation: the average covers about the last ninth of the steps,
    until `decay` limits it.
    """

    def __init__(self, model: nn.Module, decay: float, without: tuple[str, ...] = ()) -> None:
        """`without`: name prefixes of frozen tensors, which need no average."""
        self.decay = decay
        self._live = {
            name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if not name.startswith(without)
        }
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        """The averaged parameters and buffers by name; integers (counters) have the newest value."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after a step."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in floats], [self._live[name] for name in floats], share)
        for name, tensor in self.tensors.items():
            if not tensor.is_floating_point():
                tensor.copy_(self._live[name])

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load averages from a checkpoint."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model has the averaged weights; changes to them there stay in the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self.tensors.items():
            kept = self._live[name].detach().clone()
            self._live[name].copy_(tensor)
            tensor.copy_(kept)
