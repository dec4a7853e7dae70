"""Where a run is and what it has come to: the part of its state that is no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Counted:
    """What has been counted since an epoch began, over all processes; the times are this process's."""

    loss_sum: float = 0.0
    right: int = 0
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
        """Share of images whose most probable class was the label, as they were trained on."""
        return self.right / max(self.seen, 1)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for images."""
        return self.waited_s / max(self.trained_s, 1e-9)


@dataclass
class Position:
    """The next batch to train on, and all that a checkpoint holds besides tensors."""

    steps_per_epoch: int
    epoch: int = 1
    batch: int = 0
    skipped_in_row: int = 0
    seconds: float = 0.0
    """Spent so far, in all processes that the run has had one after the other."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """metrics.csv so far."""
    bad: dict[str, str] = field(default_factory=dict)
    """Why each image that cannot be decoded cannot."""
    counted: Counted = field(default_factory=Counted)

    @property
    def step(self) -> int:
        """The number of the next step of the run, from 0."""
        return (self.epoch - 1) * self.steps_per_epoch + self.batch

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Position:
        """The inverse of `to_dict`; keys of other things are passed over."""
        values = {name: stored[name] for name in (one.name for one in fields(cls))}
        return cls(**(values | {"counted": Counted(**values["counted"])}))
