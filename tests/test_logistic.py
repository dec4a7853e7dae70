"""The logistic regression on features, against scikit-learn's, and its folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedShuffleSplit
from torch import Tensor

from inceptionnet.model.outputs import Outputs
from inceptionnet.train import logistic, regression
from inceptionnet.train.logistic import fit, stratified_folds

DIGITS = load_digits()
X, Y = torch.from_numpy((DIGITS.data / 16).astype(np.float32)), torch.from_numpy(DIGITS.target)
TEN = Outputs("softmax", 10)


def mean_square(x: Tensor) -> float:
    return float(x.square().mean())


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_solution_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, penalty: float) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (penalty,))
    monkeypatch.setattr(regression, "TOLERANCE", 1e-9)
    x, y = X[:400], Y[:400]
    found = fit(x, y, TEN)
    peer = LogisticRegression(C=1 / (penalty * mean_square(x) * len(x)), max_iter=3000, tol=1e-8).fit(x, y)
    logits, expected = (x @ found.weight.T + found.bias) / found.scale, peer.decision_function(x)
    off = np.abs(logits.log_softmax(1).numpy() - torch.from_numpy(expected).log_softmax(1).numpy()).max()
    assert off < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("images", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_as_accurate_as_scikit_learns_cross_validation(images: int) -> None:
    own, peers = [], []
    for seed in range(5):
        split = StratifiedShuffleSplit(1, train_size=images, test_size=600, random_state=seed)
        train, test = next(split.split(X, Y))
        found = fit(X[train], Y[train], TEN, seed=seed)
        own.append(float(((X[test] @ found.weight.T + found.bias).argmax(1) == Y[test]).float().mean()))
        peer = LogisticRegressionCV(
            Cs=6, cv=5, max_iter=2000, scoring="accuracy", use_legacy_attributes=False, l1_ratios=(0,)
        )
        peers.append(float(peer.fit(X[train], Y[train]).score(X[test], Y[test])))
    assert np.mean(own) >= np.mean(peers) - np.std(peers, ddof=1), (own, peers)


def test_several_labels_are_a_regression_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (1e-2,))
    monkeypatch.setattr(regression, "TOLERANCE", 1e-9)
    x = X[:300]
    labels = torch.stack([Y[:300] % 2 == 0, Y[:300] > 4, Y[:300] == 3], 1)
    found = fit(x, labels, Outputs("sigmoid", 3))
    for column in range(3):
        peer = LogisticRegression(C=1 / (1e-2 * mean_square(x) * len(x)), max_iter=3000, tol=1e-8)
        expected = peer.fit(x, labels[:, column]).decision_function(x)
        logits = ((x @ found.weight[column] + found.bias[column]) / found.scale).numpy()
        assert np.abs(logits - expected).max() < 0.01 * np.abs(expected).max()
    assert found.held_out.shape == (300, 3)


def test_one_logit_is_the_second_class_against_the_first() -> None:
    found = fit(X[:200], (Y[:200] > 4).long(), Outputs("sigmoid", 1))
    assert found.weight.shape == (1, 64)
    right = ((X[200:500] @ found.weight[0] + found.bias) >= 0) == (Y[200:500] > 4)
    assert float(right.float().mean()) > 0.75


def test_the_scale_of_the_features_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (1e-2,))
    monkeypatch.setattr(regression, "TOLERANCE", 1e-9)
    one, other = fit(X[:200], Y[:200], TEN), fit(1000 * X[:200], Y[:200], TEN)
    assert one.scale == pytest.approx(other.scale, abs=1e-3)
    assert torch.allclose(one.weight, 1000 * other.weight, atol=0.02 * float(one.weight.abs().max()))


def test_a_weight_of_two_is_an_image_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (1e-2,))
    monkeypatch.setattr(regression, "TOLERANCE", 1e-9)
    weights = torch.ones(100)
    weights[:30] = 2
    weighted = fit(X[:100], Y[:100], TEN, image_weights=weights)
    twice = torch.cat([torch.arange(100), torch.arange(30)])
    repeated = fit(X[twice], Y[twice], TEN)
    one, other = weighted.weight / weighted.scale, repeated.weight / repeated.scale
    assert torch.allclose(one, other, atol=0.01 * float(one.abs().max()))


def test_over_confident_logits_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A penalty that is far too weak fits noise; scaled, its held-out loss is not worse than that of no knowledge."""
    monkeypatch.setattr(logistic, "PENALTIES", (1e-6,))
    x = torch.randn(60, 100, generator=torch.Generator().manual_seed(0))
    found = fit(x, torch.arange(60) % 3, Outputs("softmax", 3))
    (trial,) = found.trials
    assert found.scale == trial.scale < 0.2 and trial.loss < np.log(3) + 0.05
    assert found.accuracy == 1 and found.loss > 0.2  # and it says so of the images that it knows, too
    own = torch.nn.functional.cross_entropy(found.held_out, torch.arange(60) % 3)
    assert float(own) == pytest.approx(trial.loss, abs=1e-5)


def test_without_biases_there_are_none() -> None:
    assert not fit(X[:100], Y[:100], TEN, bias=False).bias.any()


def test_no_image_is_judged_by_a_fit_that_saw_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "PENALTIES", (1e-2,))
    features = torch.eye(60)  # every image has a feature of its own, so that a fit knows just the labels it saw
    labels = torch.arange(60) % 3
    held_out = fit(features, labels, Outputs("softmax", 3)).held_out
    assert float(held_out.gather(1, labels[:, None]).mean()) <= float(held_out.mean()) + 1e-3


def test_of_equally_good_penalties_the_strongest_is_chosen() -> None:
    """Two classes far apart: from some penalty on, the loss is so flat that the solver finds nothing better."""
    features = torch.tensor([[-1.0], [1.0]]).repeat(30, 1)
    found = fit(features, torch.tensor([0, 1]).repeat(30), Outputs("softmax", 2))
    best = min(trial.loss for trial in found.trials)
    assert [trial.loss for trial in found.trials].count(best) > 1
    assert found.penalty == max(trial.penalty for trial in found.trials if trial.loss == best)
    assert found.accuracy == 1 and all(trial.accuracy <= 1 for trial in found.trials)


def test_accuracy_is_at_most_one() -> None:
    """Sums of float32 shares, such as thirty times 1/30, may be more than 1."""
    for images in (30, 50, 70):
        found = fit(torch.eye(2).repeat(images, 1), torch.tensor([0, 1]).repeat(images), Outputs("softmax", 2))
        assert found.accuracy == pytest.approx(1, abs=1e-12)


def test_one_image_a_class_has_nothing_to_hold_out() -> None:
    found = fit(X[:1], Y[:1], TEN)
    assert not found.trials and not len(found.held_out) and "too few images" in found.summary
    one = fit(X[:50], Y[:50], TEN, groups=["a"] * 50)
    assert not one.trials and "without cross-validation: too few images or groups" in one.summary
    assert "5-fold" in fit(X[:50], Y[:50], TEN).summary
    assert "a held-out fifth" in fit(X[:50], Y[:50], TEN, one_fold=True).summary


def test_folds_are_stratified() -> None:
    labels = np.repeat([0, 1, 2], [50, 11, 2])
    fold = stratified_folds(labels, 5, seed=0)
    assert np.array_equal(np.bincount(fold[labels == 0]), [10] * 5)
    assert set(np.bincount(fold[labels == 1])) == {2, 3}
    assert len(set(fold[labels == 2])) == 2
    assert np.array_equal(fold, stratified_folds(labels, 5, seed=0))
    assert not np.array_equal(fold, stratified_folds(labels, 5, seed=1))


def test_groups_stay_together_and_are_spread() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    labels = (groups % 4 == 0).astype(np.int64)  # a class that whole groups have
    fold = stratified_folds(labels, 5, 0, [f"patient {group}" for group in groups])
    assert all(len(set(fold[groups == group])) == 1 for group in range(40))
    shares = [labels[fold == number].mean() for number in range(5)]
    assert max(shares) - min(shares) < 0.15
    assert min(np.bincount(fold)) > 50
