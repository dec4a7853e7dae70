"""Dropout whose masks follow from seed, step and row: neither resuming nor the number of processes changes them.

torch's own draws from one generator in order of calls: another split of a batch would draw other masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """nn.Dropout with masks of its own; `set_rows` says before each pass which images come."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._seed, self._planned, self._rows = 0, 0, torch.empty(0, dtype=torch.int64)

    def set_rows(self, key: Sequence[int], planned: int, rows: Tensor) -> None:
        """The images of the next pass are `rows` (N,) of the `planned` ones of the step that `key` stands for."""
        self._seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]) >> 1
        self._planned, self._rows = planned, rows

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → the same shape: in training a share `p` is zero and the rest is larger by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return x
        generator = torch.Generator().manual_seed(self._seed)
        drawn = torch.rand(self._planned, *x.shape[1:], generator=generator)
        kept = (drawn[self._rows] >= self.p).to(x.device, x.dtype)
        return x * kept / (1 - self.p)

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"


def seeded(model: nn.Module) -> list[SeededDropout]:
    """Put SeededDropout in place of every nn.Dropout of the model; returns them in order."""
    found = []
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.Dropout):
                found.append(SeededDropout(module.p).train(module.training))
                parent.register_module(name, found[-1])
    return found
