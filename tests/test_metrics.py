"""The figures of an evaluation, against scikit-learn, scipy and hand calculations."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from inceptionnet.errors import DataError
from inceptionnet.evaluate.evaluation import Evaluation, top_k
from inceptionnet.evaluate.intervals import mean_interval
from inceptionnet.evaluate.metrics import BINS, Metrics, measure
from inceptionnet.evaluate.paired import paired, paired_rows


def made(
    labels: list[int], predicted: list[int], confidence: list[float] | None = None, classes: int = 4
) -> Evaluation:
    """An evaluation with these answers."""
    n = len(labels)
    sure = np.array(confidence or [0.5] * n, np.float32)
    truth, said = np.array(labels, np.int64), np.array(predicted, np.int64)
    return Evaluation(
        classes=tuple("abcdefghijkl"[:classes]),
        indices=np.arange(n),
        labels=truth,
        predicted=said,
        confidence=sure,
        in_top=truth == said,
        losses=-np.log(sure),
        decode_errors=(("broken.jpg", "it is cut off"),),
    )


def drawn(n: int, classes: int, seed: int = 0) -> Evaluation:
    """Half of the predictions are correct; the last class has images, and is never predicted."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    predicted = np.where(rng.random(n) < 0.5, labels, rng.integers(classes, size=n)) % (classes - 1)
    confidence = np.where(rng.random(n) < 0.1, 1.0, rng.random(n))
    return made(labels.tolist(), predicted.tolist(), confidence.tolist(), classes)


@pytest.mark.parametrize("classes", [3, 12])
def test_per_class_metrics_agree_with_scikit_learn(classes: int) -> None:
    evaluation = drawn(300, classes)
    metrics = measure(evaluation)
    expected = precision_recall_fscore_support(evaluation.labels, evaluation.predicted, zero_division=0.0)
    for i, one in enumerate(metrics.classes):
        found = (one.precision or 0.0, one.recall, one.f1, one.support)
        assert found == pytest.approx([column[i] for column in expected], abs=1e-6)
    macro = precision_recall_fscore_support(evaluation.labels, evaluation.predicted, average="macro", zero_division=0.0)
    assert (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1) == pytest.approx(macro[:3], abs=1e-6)
    assert (metrics.confusion_matrix == confusion_matrix(evaluation.labels, evaluation.predicted)).all()
    assert metrics.classes[-1].precision is None and metrics.classes[-1].precision_interval is None


def test_calibration_as_scikit_learn_bins_it() -> None:
    evaluation = drawn(500, 4)
    metrics = measure(evaluation)
    accuracy, confidence = calibration_curve(evaluation.correct, evaluation.confidence, n_bins=BINS)
    assert [one.accuracy for one in metrics.bins] == pytest.approx(accuracy)
    assert [one.confidence for one in metrics.bins] == pytest.approx(confidence)
    assert sum(one.images for one in metrics.bins) == 500
    weights = np.array([one.images for one in metrics.bins]) / 500
    assert metrics.ece == pytest.approx((weights * np.abs(accuracy - confidence)).sum(), abs=1e-6)


def test_calibration_by_hand() -> None:
    """Two bins: at 0.95 one of two is correct, at 0.35 two of two."""
    metrics = measure(made([0, 1, 2, 3], [0, 0, 2, 3], [0.95, 0.95, 0.35, 0.35]))
    assert metrics.ece == pytest.approx((abs(0.5 - 0.95) + abs(1 - 0.35)) / 2, abs=1e-6)
    assert [(one.images, one.accuracy) for one in metrics.bins] == [(2, 1.0), (2, 0.5)]


def test_intervals_by_hand() -> None:
    """Wilson's interval for 3 of 4; that of the mean loss on a log scale, by Student's t with 3 degrees of freedom."""
    metrics = measure(made([0, 1, 2, 3], [0, 1, 2, 0], [0.5, 0.25, 0.5, 0.25]))
    z = norm.ppf(0.975)
    middle, half = 0.75 + z**2 / 8, z * math.sqrt(0.75 * 0.25 / 4 + z**2 / 64)
    assert metrics.top1_interval == pytest.approx(((middle - half) / (1 + z**2 / 4), (middle + half) / (1 + z**2 / 4)))
    spread = math.log(2) / 2 * math.sqrt(4 / 3) / 2  # the losses are log 2 and 2 log 2, twice each
    assert metrics.loss_interval is not None
    mean = 1.5 * math.log(2)
    factor = math.exp(3.182446 * spread / mean)
    assert metrics.loss_interval == pytest.approx((mean / factor, mean * factor), rel=1e-5)


def test_the_interval_of_the_loss_is_not_below_zero() -> None:
    """One very wrong image among many: the symmetric interval would begin below 0, where no cross-entropy is."""
    metrics = measure(made([0] * 30, [0] * 29 + [1], [0.999] * 29 + [1e-6]))
    losses = metrics.evaluation.losses
    assert losses.mean() - 2.045 * losses.std(ddof=1) / math.sqrt(30) < 0
    assert metrics.loss_interval is not None
    assert 0 < metrics.loss_interval.low < losses.mean() < metrics.loss_interval.high
    # It holds the mean of skewed losses about as often as it says: 95 % of samples of 100, here of 400 samples.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = mean_interval(rng.exponential(1, 100).astype(np.float32)) or (0, 0)
        held += low <= 1 <= high
    assert 0.91 * 400 < held < 0.99 * 400


def test_the_interval_of_a_share_ends_at_its_largest_value() -> None:
    """Two images of which one has a third and one two thirds of its labels wrong: on the log scale it goes up to 35."""
    low, high = mean_interval(np.float32([1 / 3, 2 / 3]), most=1.0) or (0, 0)
    assert 0 < low < 0.5 and high == 1


def test_the_interval_of_f1_holds_it_and_narrows() -> None:
    widths = []
    for n in (100, 1600):
        metrics = measure(drawn(n, 4))
        low, high = metrics.macro_f1_interval
        assert low < metrics.macro_f1 < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)  # as the root of 16


def test_confused_pairs_are_sorted_by_count() -> None:
    metrics = measure(made([0, 0, 0, 1, 1, 2, 3], [1, 1, 0, 2, 1, 1, 3]))
    assert metrics.confused_pairs == [(0, 1, 2), (1, 2, 1), (2, 1, 1)]
    told = metrics.to_dict()
    assert told["confused_pairs"][0] == {"label": "a", "predicted": "b", "images": 2}
    assert told["decode_errors"] == [{"name": "broken.jpg", "reason": "it is cut off"}]


@pytest.mark.parametrize(("classes", "k"), [(1, 1), (2, 1), (3, 2), (5, 2), (6, 5), (1000, 5)])
def test_top_k_of_few_classes(classes: int, k: int) -> None:
    assert top_k(classes) == k
    told = measure(made([0], [0], classes=min(classes, 12))).to_dict()
    assert [key for key in told if key.startswith("top")] == ["top1"] + ([f"top{k}"] if k > 1 else [])


@pytest.mark.parametrize("metrics", [measure(made([1], [1])), measure(made([0, 1], [1, 0], [1.0, 1.0]))])
def test_hardly_any_images(metrics: Metrics) -> None:
    assert json.loads(json.dumps(metrics.to_dict(), allow_nan=False))["images"] <= 2


def ensemble(correct: list[list[int]]) -> Evaluation:
    """Networks that are correct (1) or not on the images; the whole is the first of them."""
    labels = [0] * len(correct[0])
    own = [made(labels, [1 - one for one in row]) for row in correct]
    named = [replace(one, file=f"{i}.safetensors", network="inception_v1") for i, one in enumerate(own)]
    return replace(own[0], members=tuple(named))


def test_mcnemar_by_hand() -> None:
    """8 images only the first has correct, 1 only the second: 2 · (C(9, 0) + C(9, 1)) / 2⁹ = 20 / 512."""
    two = ensemble([[1] * 8 + [0] + [1] * 6 + [0] * 5, [0] * 8 + [1] + [1] * 6 + [0] * 5])
    found = paired(*two.members)
    assert (found.images, found.only_first_correct, found.only_second_correct) == (20, 8, 1)
    assert found.p_value == pytest.approx(20 / 512) and found.accuracy_difference == pytest.approx(7 / 20)
    assert found.p_value == pytest.approx(binomtest(8, 9, 0.5).pvalue)
    # Wald's interval of the difference of two shares, with half an image more in each of the four cells.
    middle, spread = 7 / 22, math.sqrt((10 / 22 - (7 / 22) ** 2) / 22)
    assert (found.low, found.high) == pytest.approx((middle - 1.959964 * spread, middle + 1.959964 * spread))
    other = paired(*two.members[::-1])
    assert (other.low, other.high, other.p_value) == pytest.approx((-found.high, -found.low, found.p_value))


def test_networks_that_differ_nowhere_have_an_interval_around_zero() -> None:
    found = paired(*ensemble([[1, 0, 1], [1, 0, 1]]).members)
    assert found.p_value == 1 and found.accuracy_difference == 0
    assert found.low == pytest.approx(-found.high) and 0 < found.high < 1


def test_only_the_same_images_are_compared() -> None:
    one = made([0, 1], [0, 1])
    for other in (made([0, 1, 2], [0, 1, 2]), made([0, 2], [0, 1]), replace(one, indices=np.array([0, 2]))):
        with pytest.raises(DataError, match="expected two evaluations on the same images"):
            paired(one, other)


def test_members_of_an_ensemble_are_measured_and_compared() -> None:
    metrics = measure(ensemble([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]))
    told = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert [(one["file"], one["network"], one["top1"]) for one in told["members"]] == [
        ("0.safetensors", "inception_v1", 0.75), ("1.safetensors", "inception_v1", 0.25),
        ("2.safetensors", "inception_v1", 1.0),
    ]  # fmt: skip
    assert told["members"][0]["classes"]["a"]["support"] == 4 and "decode_errors" not in told["members"][0]
    counts = [(one["members"], one["only_first_correct"], one["only_second_correct"]) for one in told["paired"]]
    assert counts == [([0, 1], 2, 0), ([0, 2], 0, 1), ([1, 2], 0, 3)]
    assert told["paired"][2]["first"] == "1.safetensors" and told["paired"][2]["p_value"] == pytest.approx(0.25)
    assert paired_rows(dict(metrics.paired))[0][:3] == ["1 vs 2", "2", "0"]
    assert "members" not in measure(made([0], [0])).to_dict()
