"""Classes of unequal size: how unequal they are, weights for the loss, and an order with every class equally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Sampler = Literal["shuffled", "balanced"]

UNEQUAL = 3
"""From this ratio of the largest to the smallest class on, imbalance is pointed out."""


def class_counts(labels: npt.NDArray[np.int64 | np.bool_], classes: int) -> npt.NDArray[np.int64]:
    """Images of each class. Shapes: (N,) numbers, or (N, classes) bool of several labels an image → (classes,)."""
    counts = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return np.asarray(counts, np.int64)


def imbalance(counts: Sequence[int] | npt.NDArray[np.int64]) -> float:
    """Ratio of the largest class to the smallest one that has images; 1 without images."""
    filled = [int(count) for count in counts if count]
    return max(filled) / min(filled) if filled else 1.0


def imbalance_note(
    counts: Sequence[int] | npt.NDArray[np.int64], classes: Sequence[str], balanced_by: Sequence[str] = ()
) -> str:
    """One line on a training split whose classes differ in size by UNEQUAL or more, and what to do; else empty.

    Args:
        balanced_by: the settings that balance the classes already.
    """
    ratio = imbalance(counts)
    if ratio < UNEQUAL:
        return ""
    named = {int(count): name for count, name in zip(counts, classes, strict=True) if count}
    most, fewest = max(named), min(named)
    found = f"classes of unequal size: {named[most]} has {ratio:.3g} times as many training images as {named[fewest]}"
    found = f"{found} ({most:,} and {fewest:,})"
    if balanced_by:
        return f"{found}; balanced by {' and '.join(balanced_by)}"
    return (
        f"{found}; small classes are predicted too rarely: train with --set loss.class_weights=balanced or --set "
        "data.sampler=balanced, and compare macro averages, not top-1 accuracy alone"
    )


def balanced_weights(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A weight for each class, inverse to its number of images; the mean over all images is 1.

    As scikit-learn's class_weight="balanced": images / (classes × images of the class). Classes without images do not
    count, and get 1.
    """
    counts = np.asarray(counts, np.float64)
    filled = counts > 0
    weights = np.ones(len(counts))
    weights[filled] = counts.sum() / (filled.sum() * counts[filled])
    return weights


def balanced_order(labels: npt.NDArray[np.int64], seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """As many positions as there are images, with every class equally often (to one image), in random order.

    Each class passes through its images in an endless sequence of permutations, in which an epoch continues where the
    epoch before it ended: a large class shows all of its images before it repeats one, in several epochs. It is a
    function of (seed, epoch) alone.
    Shapes: labels (N,) → (N,).
    """
    images, present = len(labels), np.unique(labels)
    chosen = []
    for place, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        # Of an endless row of slots, which go to the classes in rotation, an epoch has `images`.
        first, last = (-((place - epochs * images) // len(present)) for epochs in (epoch, epoch + 1))
        passes = [
            # Five numbers, since the images of an epoch have generators of up to four (loading.py).
            np.random.default_rng((seed, number, int(label), 0, 1)).permutation(members)
            for number in range(first // len(members), -(-last // len(members)))
        ]
        start = first % len(members)
        chosen.append(np.concatenate(passes)[start : start + last - first])
    order: npt.NDArray[np.int64] = np.random.default_rng((seed, epoch)).permutation(np.concatenate(chosen))
    return order


def occurrences(order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each element occurred before it. Shapes: (N,) → (N,)."""
    by_value = np.argsort(order, kind="stable")
    ranked = order[by_value]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else by_value
    lengths = np.diff(np.r_[starts, len(order)])
    found = np.empty(len(order), np.int64)
    found[by_value] = np.arange(len(order)) - np.repeat(starts, lengths)
    return found
