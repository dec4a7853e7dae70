"""Unequal classes: weights against scikit-learn's, orders with every class equally often, and what is said of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from inceptionnet.data import Augment, Preprocessing
from inceptionnet.data.balance import (
    balanced_order,
    balanced_weights,
    class_counts,
    imbalance,
    imbalance_note,
    occurrences,
)
from inceptionnet.data.loading import TrainLoader
from inceptionnet.data.order import parts_of
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.distributed import World

from .test_loading import assert_same, joined, made_split, made_stream

LABELS = np.random.default_rng(1).permutation(np.repeat([0, 1, 3], [30, 7, 2]))


def test_weights_are_scikit_learns() -> None:
    weights = balanced_weights(class_counts(LABELS, 4))
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=LABELS)
    assert weights[[0, 1, 3]].tolist() == pytest.approx(expected.tolist()) and weights[2] == 1
    assert weights[LABELS].mean() == pytest.approx(1), "the learning rate keeps its meaning"
    assert balanced_weights([5, 5]).tolist() == [1, 1]


def test_counts_of_one_and_of_several_labels_an_image() -> None:
    assert class_counts(LABELS, 5).tolist() == [30, 7, 0, 2, 0]
    assert class_counts(np.array([[True, False], [True, True], [False, False]]), 2).tolist() == [2, 1]


def test_an_order_has_every_class_equally_often() -> None:
    """39 images of 3 classes: 13 of each. In 10 epochs an image of the large class is due 130 / 30 times."""
    seen: Counter[int] = Counter()
    for epoch in range(10):
        order = balanced_order(LABELS, 5, epoch)
        assert Counter(LABELS[order].tolist()) == {0: 13, 1: 13, 3: 13}
        assert np.array_equal(order, balanced_order(LABELS, 5, epoch))
        assert max(Counter(order.tolist()).values()) <= 7, "of the two images of the smallest class"
        seen.update(order.tolist())
    for label, times in ((0, {4, 5}), (1, {18, 19}), (3, {65})):
        assert {seen[i] for i in np.flatnonzero(label == LABELS)} == times
    assert LABELS[balanced_order(LABELS, 5, 1)].tolist() != LABELS[balanced_order(LABELS, 6, 1)].tolist()


def test_an_order_of_a_number_that_the_classes_do_not_divide() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [2])
    totals: Counter[int] = Counter()
    for epoch in range(3):
        counts = Counter(labels[balanced_order(labels, 0, epoch)].tolist())
        assert sum(counts.values()) == 8 and sorted(counts.values()) == [2, 3, 3]
        totals += counts
    assert set(totals.values()) == {8}, "the class that is short changes"


def test_occurrences_by_hand() -> None:
    assert occurrences(np.array([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert occurrences(np.array([], np.int64)).tolist() == []


def uneven() -> Any:
    return replace(made_split(20), labels=np.array([0] * 15 + [1] * 4 + [2]))


def balanced(split: Any, **how: Any) -> TrainLoader:
    options: dict[str, Any] = {"seed": 0, "workers": 0, "corrupt_images": "skip", "sampler": "balanced"} | how
    return TrainLoader(split, Preprocessing(8), options.pop("augment", Augment()), batch_size=6, **options)


def test_balanced_batches_for_any_number_of_workers_and_processes_and_from_the_middle() -> None:
    split = uneven()
    whole = list(balanced(split).epoch(1))
    labels = torch.cat([batch.labels for batch in whole]).tolist()
    assert sorted(Counter(labels).values()) == [6, 7, 7] and [len(batch) for batch in whole] == [5, 5, 5, 5]
    assert_same(balanced(split, workers=2).epoch(1), whole)
    assert_same(balanced(split).epoch(1, first_batch=2), whole[2:])
    for pairs in (Augment(), Augment(mixup=0.2)):
        shares = [list(balanced(split, augment=pairs, world=World(rank, 3)).epoch(1)) for rank in range(3)]
        assert_same([joined(list(batches)) for batches in zip(*shares, strict=True)], whole)


def test_an_image_that_comes_again_is_augmented_again() -> None:
    batches = list(balanced(uneven()).epoch(1))
    indices, images = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("indices", "images"))
    (again,) = (images[indices == 19],)
    assert len(again) >= 6 and all(not torch.equal(a, b) for i, a in enumerate(again) for b in again[:i])
    draws = torch.cat([batch.draws for batch in batches])[indices == 19]
    expected = [np.random.default_rng((0, 1, 19, number)).random(6, np.float32) for number in range(len(draws))]
    assert (draws.numpy() == expected).all()


def test_a_balanced_epoch_goes_on_with_another_batch_size() -> None:
    split, before = uneven(), balanced(uneven())
    first = [index for batch in list(before.epoch(3))[:2] for index in batch.indices.tolist()]
    after = balanced(split)
    after._plan.batch_size = 4
    after._plan.used, after._plan.total = after._plan._batches_of(20)
    began = after.continue_after(3, 2, 6, None)
    rest = [index for batch in after.epoch(3, began.batch) for index in batch.indices.tolist()]
    assert first + rest == balanced_order(split.labels, 0, 3).tolist()


def test_pairs_of_rows_stay_together() -> None:
    """For every number of rows, parts and processes, and every row is somebody's."""
    for planned in range(1, 30):
        for parts in range(1, 6):
            steps = parts_of(planned, parts, pairs=True)
            assert [row for step in steps for row in step] == list(range(planned))
            assert all(step.start % 2 == 0 and len(step) >= min(2, planned) for step in steps)
            for size in range(1, 5):
                shares = [[World(rank, size).share(step, pairs=True) for rank in range(size)] for step in steps]
                assert [row for step in shares for share in step for row in share] == list(range(planned))
                assert all(share.start % 2 == 0 for step in shares for share in step if len(share))
                assert all(max(map(len, step)) - min(map(len, step)) <= 2 for step in shares)


def test_a_stream_cannot_be_balanced() -> None:
    with pytest.raises(ConfigurationError, match=r"^data.sampler is balanced: .* got a stream, .*; use .*=shuffled$"):
        balanced(made_stream(10))


@pytest.mark.parametrize(
    ("counts", "ratio", "said"),
    [
        ([30, 11], 30 / 11, ""),
        ([30, 10], 3, "a has 3 times as many training images as b (30 and 10)"),
        ([4, 0, 2000], 500, "c has 500 times as many training images as a (2,000 and 4)"),
        ([0, 0], 1, ""),
    ],
)
def test_imbalance_is_said_from_a_ratio_of_three_on(counts: list[int], ratio: float, said: str) -> None:
    assert imbalance(counts) == pytest.approx(ratio)
    note = imbalance_note(counts, "abc"[: len(counts)])
    assert note.startswith(f"classes of unequal size: {said}" if said else "") and bool(note) == bool(said)
    if said:
        assert "--set loss.class_weights=balanced or --set data.sampler=balanced" in note and "\n" not in note
        assert imbalance_note(counts, "abc"[: len(counts)], ["data.sampler"]).endswith("; balanced by data.sampler")
