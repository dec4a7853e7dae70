"""The position and the totals of a run: the part of its state that is not tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from inceptionnet.data.order import Continued
from inceptionnet.errors import RunError


@dataclass
class Counted:
    """Totals since the last evaluation, over all processes; the times are this process's."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    skipped: int = 0
    lr: float = 0.0
    """Learning rate of the last step."""
    waited_s: float = 0.0
    trained_s: float = 0.0

    @property
    def loss(self) -> float:
        """Mean loss."""
        return self.loss_sum / max(self.seen, 1)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, or subset accuracy, on the augmented training images."""
        return self.correct / max(self.seen, 1)

    @property
    def images_per_s(self) -> float:
        """Training throughput."""
        return self.seen / max(self.trained_s, 1e-9)

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waited_s / max(self.trained_s, 1e-9)


@dataclass
class Position:
    """The next batch to train on, and everything else that a checkpoint holds besides tensors."""

    steps_per_epoch: int
    batch_size: int
    epoch: int = 1
    """From 1; 0 is the fit of the classifier by logistic regression."""
    batch: int = 0
    extra_steps: int = 0
    """Steps so far, less those that the present batch size would have needed."""
    continued: Continued | None = None
    """Where the present batch size began, if it was changed."""
    skipped_in_row: int = 0
    seconds: float = 0.0
    """Wall time so far, over all restarts."""
    began_s: float = 0.0
    """`seconds` before the first step."""
    evaluation_s: float = 0.0
    """Wall time of the newest evaluation, of all weights that it is of."""
    peak_lr: float | None = None
    """The peak learning rate that a range test has lowered."""
    rows: list[dict[str, float]] = field(default_factory=list)
    """The rows of metrics.csv so far."""
    decode_errors: dict[str, str] = field(default_factory=dict)
    """The reason for each corrupt image, by name."""
    counted: Counted = field(default_factory=Counted)

    @property
    def step(self) -> int:
        """Number of the next step of the run, from 0."""
        return self.scheduled_step + self.extra_steps

    @property
    def scheduled_step(self) -> int:
        """Number of the next step if the batch size had always been the present one; the schedule depends on it."""
        return max(self.epoch - 1, 0) * self.steps_per_epoch + self.batch

    def change_batch_size(self, batch_size: int, steps_per_epoch: int, continued: Continued) -> None:
        """Go on with another batch size from here on; the steps done keep their numbers."""
        step = self.step
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.continued, self.batch = continued, continued.batch
        self.extra_steps = step - self.scheduled_step

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Position:
        """The inverse of `to_dict`; other keys are ignored.

        Raises:
            RunError: something is missing, of another type, or impossible.
        """
        try:
            values = {one.name: stored[one.name] for one in fields(cls)}
            found = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except KeyError as error:
            raise RunError(f"its state lacks {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise RunError(f"its state has {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if found.epoch < 0 or not 0 <= found.batch <= found.steps_per_epoch or found.batch_size < 1:
            raise RunError(f"its state is impossible: step {found.batch} of {found.steps_per_epoch}")
        return found
