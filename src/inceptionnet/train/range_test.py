"""The learning-rate range test: a few steps at rising learning rates, undone afterwards.

Source: Smith, arXiv:1506.01186, section 3.3, with rates that rise by a constant factor. A pretrained network whose
classifier is fitted begins with a small loss, so the test does not look for the steepest descent: it looks for the rate
at which the loss rises, and the run stays well below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import median
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
MEDIAN_TO_DEVIATION = 1.4826
"""The standard deviation of a normal distribution by the median of its absolute values."""
DOUBT = 3.0
"""The smallest value counts as so many of its standard errors higher: that of a few small batches is low by chance."""
MARGIN = 5
"""The rate at which the loss has risen by the highest rate that the run may have."""


class Trial(NamedTuple):
    """One step of the test: its learning rate, and its loss before the update."""

    lr: float
    loss: float


def rates(peak: float) -> list[float]:
    """The learning rates of the test for a recipe's peak learning rate."""
    return [ABOVE * peak * math.pow(SPAN, i / (STEPS - 1) - 1) for i in range(STEPS)]


def run(stepper: Stepper, batches: Iterator[Batch], after_step: Callable[[int], None]) -> list[Trial]:
    """Train at the rates of `rates` until the loss is far above its smallest value; the network is then as before.

    Args:
        batches: training batches, as many as `STEPS`. All processes call it.
        after_step: called with the number of images; may raise to interrupt.
    """
    trials: list[Trial] = []
    with stepper.undone():
        for number, (lr, batch) in enumerate(zip(rates(stepper.peak_lr), batches, strict=False)):
            result = stepper.step(batch, number, lr)
            after_step(batch.planned)
            if result.skipped:
                break
            if result.images:
                trials.append(Trial(lr, result.loss))
            if trials and smoothed(trials)[-1] > 2 * smallest(trials):
                break
    return trials


def smoothed(trials: Sequence[Trial]) -> list[float]:
    """The running average of the losses, without its bias towards the first ones."""
    found, total, weight = [], 0.0, 0.0
    for trial in trials:
        total, weight = MEMORY * total + trial.loss, MEMORY * weight + 1
        found.append(total / weight)
    return found


def errors(trials: Sequence[Trial]) -> list[float]:
    """The standard errors of the smoothed losses, by the median difference between two steps in a row."""
    steps = [abs(after.loss - before.loss) for before, after in pairwise(trials)]
    noise = median(steps) * MEDIAN_TO_DEVIATION / math.sqrt(2) if steps else 0.0
    found, squares, weight = [], 0.0, 0.0
    for _ in trials:
        squares, weight = MEMORY**2 * squares + 1, MEMORY * weight + 1
        found.append(noise * math.sqrt(squares) / weight)
    return found


def smallest(trials: Sequence[Trial]) -> float:
    """The smallest value of the smoothed loss that can be relied on."""
    return min(loss + DOUBT * error for loss, error in zip(smoothed(trials), errors(trials), strict=True))


def rise(trials: Sequence[Trial]) -> float | None:
    """The learning rate from which on the smoothed loss is above its smallest value by RISE; None if it never is."""
    losses, above = smoothed(trials), len(trials)
    while above and losses[above - 1] > (1 + RISE) * smallest(trials):
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
