"""The position and the totals of a run: the part of its state that is not tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Counted:
    """Totals since the start of the epoch, over all processes; the times are this process's."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    skipped: int = 0
    waited_s: float = 0.0
    trained_s: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / max(self.seen, 1)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the augmented training images."""
        return self.correct / max(self.seen, 1)

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited_s / max(self.trained_s, 1e-9)


@dataclass
class Position:
    """The next batch to train on, and everything else that a checkpoint holds besides tensors."""

    steps_per_epoch: int
    epoch: int = 1
    batch: int = 0
    skipped_in_row: int = 0
    seconds: float = 0.0
    """Wall time so far, over all restarts."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of metrics.csv so far."""
    decode_errors: dict[str, str] = field(default_factory=dict)
    """The reason for each corrupt image, by name."""
    counted: Counted = field(default_factory=Counted)

    @property
    def step(self) -> int:
        """Number of the next step of the run, from 0."""
        return (self.epoch - 1) * self.steps_per_epoch + self.batch

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Position:
        """The inverse of `to_dict`; other keys are ignored."""
        values = {name: stored[name] for name in (one.name for one in fields(cls))}
        return cls(**(values | {"counted": Counted(**values["counted"])}))
