"""The interval and the verdict, by hand, by scipy, and by how often they err on simulated studies."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats

from inceptionnet.errors import ConfigurationError
from inceptionnet.study.statistics import (
    FEWEST_SEEDS,
    MOST_SEEDS,
    Difference,
    Expectation,
    decide,
    difference,
    level_of,
    overall,
)


def test_the_interval_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, std 1; t of two degrees of freedom at 97.5 % is 4.3027."""
    found = difference([2, 4, 6], [1, 2, 3], 0.95)
    assert (found.differences, found.mean, found.std) == ((1, 2, 3), 2, 1)
    half = 4.3027 / sqrt(3)
    assert (found.low, found.high) == (pytest.approx(2 - half, abs=1e-4), pytest.approx(2 + half, abs=1e-4))


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_interval_by_scipy(level: float) -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    found = difference(first, second, level)
    want = stats.ttest_rel(first, second).confidence_interval(level)
    assert (found.low, found.high) == (pytest.approx(want.low), pytest.approx(want.high))


def test_one_seed_has_no_interval() -> None:
    found = difference([0.5], [0.4], 0.95)
    assert (found.low, found.high) == (-inf, inf)
    assert decide(found, "higher", 0.02).seeds_needed == FEWEST_SEEDS


@pytest.mark.parametrize(
    ("low", "high", "expect", "verdict"),
    [
        (0.001, 0.1, "higher", "holds"),
        (0.001, 0.01, "higher", "holds"),  # a small difference is one
        (-0.1, 0.019, "higher", "does not hold"),
        (-0.1, 0.021, "higher", "undecided"),
        (-0.1, -0.001, "lower", "holds"),
        (-0.019, 0.1, "lower", "does not hold"),
        (-0.021, 0.1, "lower", "undecided"),
        (-0.019, 0.019, "equal", "holds"),
        (0.001, 0.019, "equal", "holds"),
        (0.021, 0.1, "equal", "does not hold"),
        (-0.1, -0.021, "equal", "does not hold"),
        (-0.019, 0.021, "equal", "undecided"),
    ],
)
def test_verdicts_by_hand(low: float, high: float, expect: Expectation, verdict: str) -> None:
    found = Difference((0.0,) * 5, (low + high) / 2, 0.05, low, high, 0.95)
    assert decide(found, expect, 0.02).verdict == verdict


def test_two_seeds_never_decide() -> None:
    assert decide(difference([0.9, 0.9], [0.1, 0.1], 0.95), "higher", 0.02).verdict == "undecided"
    assert decide(difference([0.9] * 3, [0.1] * 3, 0.95), "higher", 0.02).verdict == "holds"


@pytest.mark.parametrize(
    ("values", "expect", "way"),
    [
        ((0.05, -0.02, 0.04), "higher", 0.07 / 3),  # to stay above 0
        ((0.03, -0.05, 0.01), "higher", 0.02 + 0.01 / 3),  # to stay below the margin
        ((0.03, -0.05, 0.01), "equal", 0.02 - 0.01 / 3),
    ],
)
def test_the_seeds_that_would_decide(values: tuple[float, ...], expect: Expectation, way: float) -> None:
    found = difference(values, [0.0] * 3, 0.95)
    needed = decide(found, expect, 0.02).seeds_needed
    assert needed is not None and needed > 3

    def half(n: int) -> float:
        return float(stats.t.ppf(0.975, n - 1)) * found.std / sqrt(n)

    assert half(needed) < way <= half(needed - 1)


def test_more_seeds_than_anybody_has() -> None:
    found = difference([0.1, -0.1, 0.3, -0.3], [0.0] * 4, 0.95)
    decision = decide(found, "equal", 0.001)
    assert (decision.verdict, decision.seeds_needed) == ("undecided", None)
    assert stats.t.ppf(0.975, MOST_SEEDS - 1) * found.std / sqrt(MOST_SEEDS) > 0.001


def test_false_verdicts_are_rare() -> None:
    """Of 2000 simulated studies of three comparisons, at most 5 % may say of any what is not so.

    The differences are normal, with the spread of accuracies on about 500 images. 6 % is 5 % and two standard errors.
    """
    rng, studies, margin = np.random.default_rng(1), 2000, 0.02
    cases: list[tuple[Expectation, float, str]] = [
        ("higher", 0.0, "holds"), ("higher", margin, "does not hold"), ("equal", margin, "holds"),
    ]  # fmt: skip
    level, wrong = level_of(len(cases)), 0
    for _ in range(studies):
        verdicts = [
            decide(difference(rng.normal(truth, 0.02, 5), [0.0] * 5, level), expect, margin).verdict == false
            for expect, truth, false in cases
        ]
        wrong += any(verdicts)
    assert wrong / studies < 0.06


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [decide(difference(rng.normal(0.1, 0.02, 5), [0.0] * 5, 0.95), "higher", 0.02) for _ in range(200)]
    assert sum(one.verdict == "holds" for one in found) > 190


def test_a_study_holds_if_everything_does() -> None:
    assert overall(["holds", "holds"]) == "holds"
    assert overall(["holds", "undecided"]) == "undecided"
    assert overall(["undecided", "does not hold"]) == "does not hold"


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigurationError, match="a value of both arms for each seed, got 2 and 1"):
        difference([1, 2], [1], 0.95)
    with pytest.raises(ConfigurationError, match="margin is 0; expected the smallest difference of interest"):
        decide(difference([1, 2, 3], [1, 1, 1], 0.95), "equal", 0)
