"""The result of a study: the values of its arms seed by seed, their differences, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from inceptionnet.study.spec import Comparison, Study
from inceptionnet.study.statistics import Decision, Difference, Verdict, decide, difference, level_of, overall

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Outcome:
    """A finished training."""

    arm: str
    value: str
    """Of the arm's grid; empty without one."""
    seed: int
    run: str
    """The run folder, from that of the study; empty for an ensemble."""
    network: str
    width: float
    size_px: int
    parameters: int
    multiply_adds: int
    epochs: int
    classes: int
    rows: Rows
    """Of metrics.csv; fewer than `epochs` if it stopped."""
    error: str = ""
    """Why it stopped: no finite loss."""
    crops: int = 1
    final: Mapping[str, float] = field(default_factory=dict)
    """Its last accuracies on so many crops; empty for one crop, where they are in the last row."""
    members: Sequence[str] = ()
    """Of an ensemble, its arms; it has no rows, width and size of its own."""

    @property
    def minutes(self) -> float:
        """How long it trained, with its evaluations."""
        return self.rows[-1]["elapsed_s"] / 60 if self.rows else 0.0

    def curve(self, what: str) -> list[float]:
        """A column of the validation split after each epoch of gradient descent.

        A training that stopped has from then on the accuracy of chance, and dead features only.
        """
        chance = {"top1": 1 / self.classes, "top5": min(1.0, 5 / self.classes), "dead_features": 1.0}
        column = what if what == "dead_features" else f"val_{what}"
        if what == "top1" and "val_map" in (self.rows[0] if self.rows else self.final):
            column = "val_map"
        found = [row[column] for row in self.rows if row["epoch"]]
        found += [chance[what]] * (len(self._evaluated) - len(found))
        return [*found[:-1], self.final.get(column, found[-1])]

    @property
    def _evaluated(self) -> range:
        """Evaluations of a whole training; there is one every `evaluate_every` epochs, and one after the last."""
        done = [int(row["epoch"]) for row in self.rows if row["epoch"]]
        every = done[0] if done else 1
        return range(-(-self.epochs // every))


@dataclass(frozen=True)
class Judged:
    """A comparison with its result."""

    comparison: Comparison
    first: tuple[float, ...]
    """Of `comparison.arm`, by seed."""
    second: tuple[float, ...]
    difference: Difference
    decision: Decision


@dataclass(frozen=True)
class Result:
    """A study with its result."""

    outcomes: Sequence[Outcome]
    """Of all trainings."""
    chosen: Mapping[str, str]
    """The value of the grid that each arm with a grid is compared at."""
    judged: Sequence[Judged]
    verdict: Verdict

    @property
    def runs(self) -> dict[str, float]:
        """Minutes of each run folder; arms may have one in common, and an ensemble has none."""
        return {one.run: one.minutes for one in self.outcomes if one.run}

    def of(self, arm: str) -> list[Outcome]:
        """The trainings that an arm is compared by, by seed."""
        return _of(self.outcomes, arm, self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; null for what is not finite, such as the loss of a training that diverged."""
        about = {
            "verdict": self.verdict,
            "chosen": dict(self.chosen),
            "comparisons": [
                {**one.comparison.model_dump(), "first": one.first, "second": one.second,
                 **asdict(one.difference), **asdict(one.decision)}
                for one in self.judged
            ],
            "trainings": [asdict(one) | {"minutes": one.minutes} for one in self.outcomes],
        }  # fmt: skip
        plain: dict[str, Any] = finite(about)
        return plain


def judge(study: Study, outcomes: Sequence[Outcome]) -> Result:
    """The result of a study from its trainings, by the study's own rule."""
    chosen = {name: best_value(outcomes, name) for name, arm in study.arms.items() if arm.grid}
    judged, level = [], level_of(len(study.compare))
    for one in study.compare:
        pairs = list(zip(_of(outcomes, one.arm, chosen), _of(outcomes, one.against, chosen), strict=True))
        values = [_values(one.quantity, *pair) for pair in pairs]
        first, second = (tuple(column) for column in zip(*values, strict=True))
        found = difference(first, second, level)
        judged.append(Judged(one, first, second, found, decide(found, one.expect, one.margin)))
    return Result(outcomes, chosen, judged, overall([one.decision.verdict for one in judged]))


def best_value(outcomes: Sequence[Outcome], arm: str) -> str:
    """The value of an arm's grid with the best mean accuracy over the seeds; of equal ones the first."""
    values = dict.fromkeys(one.value for one in outcomes if one.arm == arm)
    means = {
        value: float(np.mean([one.curve("top1")[-1] for one in outcomes if one.arm == arm and one.value == value]))
        for value in values
    }
    return max(means, key=lambda value: means[value])


def _of(outcomes: Sequence[Outcome], arm: str, chosen: Mapping[str, str]) -> list[Outcome]:
    found = [one for one in outcomes if one.arm == arm and one.value == chosen.get(arm, "")]
    return sorted(found, key=lambda one: one.seed)


def _values(quantity: str, first: Outcome, second: Outcome) -> tuple[float, float]:
    """The quantity of two trainings with the same seed."""
    if quantity == "accuracy_in_equal_time":
        until = min(one.rows[-1]["elapsed_s"] if one.rows else 0.0 for one in (first, second))
        return _accuracy_at(first, until), _accuracy_at(second, until)
    return _value(quantity, first), _value(quantity, second)


def _value(quantity: str, one: Outcome) -> float:
    if quantity == "early_accuracy":
        curve = one.curve("top1")
        return float(np.mean(curve[: max(1, len(curve) // 2)]))
    columns = {"accuracy": "top1", "top5_accuracy": "top5", "dead_features": "dead_features"}
    return one.curve(columns[quantity])[-1]


def _accuracy_at(one: Outcome, seconds: float) -> float:
    """The accuracy at a time, between two evaluations in proportion; chance at the start."""
    rows = [row for row in one.rows if row["epoch"]]
    times = [0.0, *(row["elapsed_s"] for row in rows)]
    return float(np.interp(seconds, times, [1 / one.classes, *one.curve("top1")[: len(rows)]]))


def finite(value: Any) -> Any:
    """Plain JSON values, with null for numbers that are not finite."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value
