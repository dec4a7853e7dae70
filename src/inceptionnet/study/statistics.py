"""Paired differences between two arms over random seeds, and the verdict on a claim about them.

Source: Student's paired t interval; for equality two one-sided tests by an interval (Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987). With several comparisons the level is Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, sqrt
from typing import Literal

from inceptionnet.errors import ConfigurationError

Expectation = Literal["higher", "lower", "equal"]
Verdict = Literal["holds", "does not hold", "undecided"]

ERROR_RATE = 0.05
"""Of a whole study: how often it may say of a claim what is not so."""
FEWEST_SEEDS = 3
"""Fewer seeds never decide: the spread of two differences says next to nothing."""
MOST_SEEDS = 1000
"""More seeds than this are not worth a number."""


@dataclass(frozen=True)
class Difference:
    """The differences of one arm to another, seed by seed, and the interval of their mean."""

    differences: tuple[float, ...]
    mean: float
    std: float
    """Standard deviation of the differences."""
    low: float
    high: float
    level: float
    """Confidence level of (low, high)."""


@dataclass(frozen=True)
class Decision:
    """The verdict on a comparison."""

    verdict: Verdict
    seeds_needed: int | None
    """Where it is undecided: the seeds in all that would decide it, if mean and spread stay; None: over MOST_SEEDS."""


def level_of(comparisons: int) -> float:
    """The confidence level of each of so many comparisons, so that all together err in at most ERROR_RATE."""
    return 1 - ERROR_RATE / max(comparisons, 1)


def difference(first: Sequence[float], second: Sequence[float], level: float) -> Difference:
    """The paired difference, first minus second; both have one value for each seed, in the same order.

    Raises:
        ConfigurationError: not as many of the one as of the other, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ConfigurationError(f"expected a value of both arms for each seed, got {len(first)} and {len(second)}")
    found = tuple(a - b for a, b in zip(first, second, strict=True))
    n = len(found)
    mean = sum(found) / n
    if n == 1:
        return Difference(found, mean, 0.0, -inf, inf, level)
    std = sqrt(sum((one - mean) ** 2 for one in found) / (n - 1))
    half = _half_width(std, n, level)
    return Difference(found, mean, std, mean - half, mean + half, level)


def decide(found: Difference, expect: Expectation, margin: float) -> Decision:
    """The verdict, by a rule that is stated before any run.

    - higher: holds if the whole interval is above 0; does not hold if all of it is below `margin`, the smallest
      difference of interest. An interval between the two holds: there is a difference, if a small one.
    - lower: the same with the sign changed.
    - equal: holds if the whole interval is within ± `margin`; does not hold if all of it is outside.

    Raises:
        ConfigurationError: the margin is not above 0.
    """
    if not margin > 0:
        raise ConfigurationError(f"margin is {margin!r}; expected the smallest difference of interest, above 0")
    sign = -1 if expect == "lower" else 1
    mean, low, high = sign * found.mean, *sorted((sign * found.low, sign * found.high))
    n = len(found.differences)
    if n >= FEWEST_SEEDS:
        if expect == "equal":
            if -margin < low and high < margin:
                return Decision("holds", None)
            if low > margin or high < -margin:
                return Decision("does not hold", None)
        elif low > 0:
            return Decision("holds", None)
        elif high < margin:
            return Decision("does not hold", None)
    # The interval must become shorter than the way from the mean to the bound that it has to stay clear of.
    way = abs(margin - abs(mean)) if expect == "equal" else max(mean, margin - mean)
    return Decision("undecided", _seeds_for(found.std, way, found.level, n))


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of a study: its claim holds if every comparison does."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "undecided" if "undecided" in verdicts else "holds"


def _half_width(std: float, n: int, level: float) -> float:
    return _quantile(level, n) * std / sqrt(n)


@cache
def _quantile(level: float, n: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, n - 1))


def _seeds_for(std: float, way: float, level: float, n: int) -> int | None:
    if n < FEWEST_SEEDS:
        return FEWEST_SEEDS
    low, high = n + 1, MOST_SEEDS
    if way <= 0 or _half_width(std, high, level) >= way:
        return None
    while low < high:  # the half-width falls with n
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(std, middle, level) < way else (middle + 1, high)
    return low
