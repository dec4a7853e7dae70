"""Confidence intervals: Wilson's for proportions, Student's t on a log scale for means, the bootstrap for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Confidence level of every interval."""
RESAMPLES = 1000
"""Bootstrap samples."""


class Interval(NamedTuple):
    """Confidence interval at `LEVEL`."""

    low: float
    high: float


def share_interval(part: int, whole: int) -> Interval:
    """Wilson's interval of a proportion, which holds for few images and for proportions near 0 and 1."""
    from scipy.stats import binomtest

    found = binomtest(part, whole).proportion_ci(LEVEL, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(values: npt.NDArray[np.float32], most: float = np.inf) -> Interval | None:
    """Log-scale t interval of the mean of values that are not negative; None for a single value, or if all are equal.

    By the delta method the standard error of log(mean) is that of the mean divided by it: mean · exp(± t · sem / mean),
    which is never below 0. If the relative error is large, as with a few very wrong images among many, it is wider
    above the mean than below it, as the skewed distribution of cross-entropies asks for.

    Args:
        most: the largest possible value, at which the interval ends.
    """
    from scipy.stats import sem, t

    if len(values) < 2 or not np.ptp(values):
        return None
    exact = values.astype(np.float64)
    mean = exact.mean()
    reach = t.ppf((1 + LEVEL) / 2, len(exact) - 1) * sem(exact) / mean
    return Interval(float(mean * np.exp(-reach)), float(min(mean * np.exp(reach), most)))


def bootstrap_interval(images: int, statistic: Callable[[npt.NDArray[np.int64]], float]) -> Interval:
    """Percentile bootstrap over images of a statistic between 0 and 1.

    Args:
        images: their number.
        statistic: of images by their positions, which may occur several times.
    """
    from scipy.stats import bootstrap

    if images < 2:
        return Interval(0.0, 1.0)
    drawn = bootstrap(
        (np.arange(images),),
        statistic,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(drawn.low), float(drawn.high))


def percentile_interval(values: npt.NDArray[np.float64]) -> Interval | None:
    """From bootstrap samples of a statistic, without those that are NaN; None if there are no others."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(float(low), float(high))
