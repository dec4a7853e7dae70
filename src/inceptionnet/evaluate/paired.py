"""Paired comparison of two evaluations on the same images: McNemar's test and the difference in accuracy.

Source: McNemar, Psychometrika 12 (1947), in its exact form, a binomial test of the discordant images; the interval is
that of Agresti and Min, Statistics in Medicine 24 (2005), which holds for few images and for none discordant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from inceptionnet.errors import DataError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.evaluate.intervals import LEVEL
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation


@dataclass(frozen=True)
class Paired:
    """The accuracies of two networks, compared image by image: top-1, or of several labels an image subset accuracy."""

    images: int
    only_first_correct: int
    """McNemar's b."""
    only_second_correct: int
    """McNemar's c."""
    accuracy_difference: float
    """Accuracy of the first minus that of the second."""
    low: float
    high: float
    """Bounds of the difference at `LEVEL`."""
    p_value: float
    """Exact, two-sided: how likely so unequal counts are if both networks have the same error rate."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "images": self.images,
            "only_first_correct": self.only_first_correct,
            "only_second_correct": self.only_second_correct,
            "accuracy_difference": self.accuracy_difference,
            "accuracy_difference_interval": [self.low, self.high],
            "p_value": self.p_value,
        }


def paired(first: Evaluation | MultiLabelEvaluation, second: Evaluation | MultiLabelEvaluation) -> Paired:
    """Compare two evaluations on the same images.

    Raises:
        DataError: they are not on the same images with the same true classes.
    """
    from scipy.stats import binomtest, norm

    for name in ("indices", "labels"):
        if not np.array_equal(getattr(first, name), getattr(second, name)):
            raise DataError(
                f"expected two evaluations on the same images, got other {name}; evaluate both networks on the same "
                "split, with the same random seed"
            )
    n = len(first.labels)
    b = int((first.correct & ~second.correct).sum())
    c = int((second.correct & ~first.correct).sum())
    # Agresti and Min add half an image to each of the four cells.
    centre = (b - c) / (n + 2)
    half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt((b + c + 1) / (n + 2) - centre**2) / math.sqrt(n + 2)
    return Paired(
        images=n,
        only_first_correct=b,
        only_second_correct=c,
        accuracy_difference=(b - c) / n,
        low=max(-1.0, centre - half),
        high=min(1.0, centre + half),
        p_value=float(binomtest(min(b, c), b + c).pvalue) if b + c else 1.0,
    )


def pairs(evaluation: Evaluation | MultiLabelEvaluation) -> dict[tuple[int, int], Paired]:
    """Every two networks of an ensemble by their position in `members`; empty for one network."""
    return {
        (i, j): paired(evaluation.members[i], evaluation.members[j])
        for i, j in combinations(range(len(evaluation.members)), 2)
    }


def paired_rows(compared: Mapping[tuple[int, int], Paired]) -> list[list[str]]:
    """`pairs` for a table: the two networks' numbers from 1, b, c, the difference with its interval, and p."""
    return [
        [
            f"{i + 1} vs {j + 1}",
            str(one.only_first_correct),
            str(one.only_second_correct),
            f"{one.accuracy_difference:+.2%} ({one.low:+.2%} to {one.high:+.2%})",
            f"{one.p_value:.3g}",
        ]
        for (i, j), one in compared.items()
    ]
