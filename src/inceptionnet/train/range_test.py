"""The learning-rate range test: a few steps at rising learning rates, undone afterwards.

Source: Smith, arXiv:1506.01186, section 3.3, with rates that rise by a constant factor. A pretrained network whose
classifier is fitted begins with a small loss, so the test does not look for the steepest descent: it looks for the rate
at which the loss rises, and the run stays well below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from inceptionnet.data.loading import Batch
from inceptionnet.train.step import Stepper

STEPS = 30
SPAN = 1e3
"""The highest rate of the test by the lowest one."""
ABOVE = 30
"""The highest rate of the test by that of the recipe."""
MEMORY = 0.8
"""Weight of the earlier steps in the smoothed loss."""
RISE = 0.1
"""The loss has risen when it is above its smallest value by this share."""
MARGIN = 5
"""The rate at which the loss has risen by the highest rate that the run may have."""


class Trial(NamedTuple):
    """One step of the test: its learning rate, and its loss before the update."""

    lr: float
    loss: float


def rates(peak: float) -> list[float]:
    """The learning rates of the test for a recipe's peak learning rate."""
    return [ABOVE * peak * math.pow(SPAN, i / (STEPS - 1) - 1) for i in range(STEPS)]


def run(stepper: Stepper, batches: Iterator[Batch], after_step: Callable[[], None]) -> list[Trial]:
    """Train at the rates of `rates` until the loss is far above its smallest value; the network is then as before.

    Args:
        batches: training batches, as many as `STEPS`. All processes call it.
        after_step: may raise to interrupt.
    """
    trials: list[Trial] = []
    with stepper.undone():
        for number, (lr, batch) in enumerate(zip(rates(stepper.peak_lr), batches, strict=False)):
            result = stepper.step(batch, number, lr)
            after_step()
            if result.skipped:
                break
            if result.images:
                trials.append(Trial(lr, result.loss))
            losses = smoothed(trials)
            if losses and losses[-1] > 2 * min(losses):
                break
    return trials


def smoothed(trials: Sequence[Trial]) -> list[float]:
    """The running average of the losses, without its bias towards the first ones."""
    found, total, weight = [], 0.0, 0.0
    for trial in trials:
        total, weight = MEMORY * total + trial.loss, MEMORY * weight + 1
        found.append(total / weight)
    return found


def rise(trials: Sequence[Trial]) -> float | None:
    """The learning rate from which on the smoothed loss is above its smallest value by RISE; None if it never is."""
    losses = smoothed(trials)
    above = len(losses)
    while above and losses[above - 1] > (1 + RISE) * min(losses):
        above -= 1
    return trials[above].lr if above < len(losses) else None


def about(trials: Sequence[Trial], recipe_lr: float) -> dict[str, Any]:
    """The content of range_test.json, with the peak learning rate for a run whose recipe has `recipe_lr`."""
    found = rise(trials)
    return {
        "recipe_lr": recipe_lr,
        "rises_at": found,
        "peak_lr": recipe_lr if found is None else min(recipe_lr, found / MARGIN),
        "trials": [
            {"lr": trial.lr, "loss": trial.loss, "smoothed": loss}
            for trial, loss in zip(trials, smoothed(trials), strict=True)
        ],
    }
