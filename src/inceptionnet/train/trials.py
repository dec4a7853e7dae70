"""The trials of a search: every combination of the values of settings, and how successive halving divides the budget.

Source: Jamieson & Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, arXiv:1502.07943.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.files import shortened
from inceptionnet.train.plan import Job, Plan
from inceptionnet.train.recipe import values_of
from inceptionnet.train.resolve import resolve
from inceptionnet.train.settings import value_text

MOST_TRIALS = 64
MINUTES = "schedule.minutes"
UNSEARCHED = {
    "schedule.epochs": "the search gives each trial its epochs",
    MINUTES: "the search gives each trial its time",
    "checkpoint": "it does not change the result",
    "log": "it does not change the result",
    "watch": "it does not change the result",
}
"""Settings, or groups of them, that cannot differ between trials."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One combination of the values."""

    number: int
    """From 1, in the order of the values."""
    job: Job
    settings: Mapping[str, str]
    """The settings that are searched, as text."""

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items())

    @property
    def folder(self) -> str:
        """The name of its run folders."""
        parts = [f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items()]
        return shortened("-".join([f"{self.number:02}", *parts]).replace("/", "_"), 200)


def searched(settings: Mapping[str, object]) -> dict[str, list[object]]:
    """The settings with several values."""
    found = {key: values_of(key, value) for key, value in settings.items()}
    return {key: values for key, values in found.items() if len(values) > 1}


def rungs_of(trials: int, epochs: int) -> list[tuple[int, int]]:
    """(trials, epochs) of each rung: the last one has all epochs, those before it a half, a quarter … of them.

    Rungs of one epoch each would train the same again, so there is one of them at most before the last.

    Example:
        >>> rungs_of(6, 10), rungs_of(8, 3)
        ([(6, 2), (3, 5), (1, 10)], [(8, 1), (1, 3)])
    """
    counts = halved(trials)
    before: dict[int, int] = {}
    for i, count in enumerate(counts[:-1]):
        before.setdefault(max(1, epochs >> (len(counts) - 1 - i)), count)
    return [*((count, budget) for budget, count in before.items()), (1, epochs)]


def share_of_time(total: float, spent: float, rungs_left: int, trials: int) -> float:
    """The minutes of each of `trials` trials of a rung: the rungs that are left get equal parts of the time left.

    A tenth of the total is left at least, where earlier rungs took longer than planned.

    Example:
        >>> share_of_time(30, 0, 3, 6), share_of_time(30, 11, 2, 3)
        (1.6666666666666667, 3.1666666666666665)
    """
    return max(total - spent, total / 10) / rungs_left / trials


def halved(trials: int) -> list[int]:
    """The number of trials of each rung."""
    return [trials] if trials == 1 else [trials, *halved(trials // 2)]


def trials_of(plan: Plan) -> list[Trial]:
    """Every combination of the values of a plan. Raises: InceptionNetError: one of them is not possible."""
    values = searched(plan.settings)
    for key in values:
        if why := UNSEARCHED.get(key) or UNSEARCHED.get(key.partition(".")[0]):
            raise ConfigurationError(f"--set {key} has several values: {why}; give it one value")
    if (count := prod(map(len, values.values()))) > MOST_TRIALS:
        sizes = " × ".join(str(len(some)) for some in values.values())
        raise ConfigurationError(
            f"the values of --set give {count} trials ({sizes}); expected {MOST_TRIALS} at most; give fewer values"
        )
    trials: list[Trial] = []
    source: Source | None = None
    for chosen in product(*values.values()):
        one = dict(zip(values, chosen, strict=True))
        job = resolve(replace(plan, settings={**plan.settings, **one}), source)
        source, recipe = job.source, dict(job.recipe.items())
        trial = Trial(len(trials) + 1, job, {key: value_text(recipe[key]) for key in one})
        if any(other.settings == trial.settings for other in trials):
            raise ConfigurationError(f"--set gives the trial {trial} twice; give every value once")
        if not job.recipe.schedule.epochs:
            raise ConfigurationError(
                "--train-from head has no epochs, which a search divides among its rungs; omit it, or compare "
                "separate runs"
            )
        if job.held_out != "val":
            raise ConfigurationError(
                f"{source.title} has no validation split to choose by, and a test split is not for choices; give it "
                "a validation split, or every setting one value"
            )
        trials.append(trial)
    return trials
