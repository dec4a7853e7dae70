"""Dropout with masks that depend on seed, step and row only: resuming or more processes do not change them.

torch's dropout draws from one generator in the order of calls, so splitting a batch differently would change the masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """nn.Dropout with reproducible masks; call `set_rows` before each forward pass."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self._seed, self._planned, self._rows = 0, 0, torch.empty(0, dtype=torch.int64)

    def set_rows(self, key: Sequence[int], planned: int, rows: Tensor) -> None:
        """Set the images of the next pass: `rows` (N,) of the `planned` images of the step identified by `key`."""
        self._seed = int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0]) >> 1
        self._planned, self._rows = planned, rows

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        """(N, …) → the same shape: in training a share `p` is zeroed and the rest scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return x
        generator = torch.Generator().manual_seed(self._seed)
        drawn = torch.rand(self._planned, *x.shape[1:], generator=generator)
        kept = (drawn[self._rows] >= self.p).to(x.device, x.dtype)
        return x * kept / (1 - self.p)

    def extra_repr(self) -> str:
        """The dropout rate."""
        return f"p={self.p}"


def seeded(model: nn.Module) -> list[SeededDropout]:
    """Replace every nn.Dropout of the model by SeededDropout; returns them in order."""
    found = []
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.Dropout):
                found.append(SeededDropout(module.p).train(module.training))
                parent.register_module(name, found[-1])
    return found
