"""Mixed images and soft targets: by hand, with torch's own losses, and the same however a step is divided."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inceptionnet.data import Augment
from inceptionnet.data.splits import Source, StreamSplit
from inceptionnet.errors import ConfigurationError
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.resolve import resolve
from inceptionnet.train.step import Stepper
from inceptionnet.train.targets import class_weights, imbalance_of, mix, one_hot, partners, soft

from .conftest import tiny_plan, write_images
from .test_step import SGD, V1, batch, gradients, no_dropout, stepper

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_are_those_of_torch(smoothing: float) -> None:
    found = F.cross_entropy(LOGITS, soft(one_hot(LABELS, 4), smoothing, None))
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_weights_are_those_of_torch_and_multiply_the_smoothed_loss() -> None:
    plain = F.cross_entropy(LOGITS, soft(one_hot(LABELS, 4), 0, WEIGHTS), reduction="sum")
    torch.testing.assert_close(plain, F.cross_entropy(LOGITS, LABELS, weight=WEIGHTS, reduction="sum"))
    smoothed = F.cross_entropy(LOGITS, soft(one_hot(LABELS, 4), 0.1, WEIGHTS), reduction="none")
    each = F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(smoothed, WEIGHTS[LABELS] * each)


def test_partners_by_hand() -> None:
    """Rows 2 and 5 are corrupt, so that 3 and 4 have no partner; 6 is the last one of seven."""
    assert partners(torch.tensor([0, 1, 3, 4, 6]), 7).tolist() == [1, 0, 2, 3, 4]
    assert partners(torch.arange(4), 4).tolist() == [1, 0, 3, 2]
    assert partners(torch.tensor([], dtype=torch.int64), 3).tolist() == []


def mixed(key: int, size: int = 12, **how: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of constant value 0, 1, 2, 3, 4 with labels 0 to 4, mixed."""
    x = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, size, size + 4).contiguous(memory_format=torch.channels_last)
    return mix(x, torch.eye(5), torch.arange(5), 5, Augment(**how), (0, key))


def test_mixup_by_hand() -> None:
    """The values are lam · own + (1 - lam) · partner's, as the targets say; the fifth image has no partner."""
    shares = []
    for key in range(60):
        x, targets = mixed(key, mixup=0.4)
        lam = float(targets[0, 0])
        expected = [1 - lam, lam, 2 * lam + 3 * (1 - lam), 3 * lam + 2 * (1 - lam), 4]
        torch.testing.assert_close(x, torch.tensor(expected).view(5, 1, 1, 1).expand_as(x))
        torch.testing.assert_close(targets[2], torch.tensor([0, 0, lam, 1 - lam, 0]))
        assert targets[4].tolist() == [0, 0, 0, 0, 1] and x.is_contiguous(memory_format=torch.channels_last)
        shares.append(lam)
    assert min(shares) < 0.1 and max(shares) > 0.9, "a beta distribution, symmetrical"


def test_cutmix_by_hand() -> None:
    """A box of the partner's pixels; the targets are the shares of the area."""
    areas = []
    for key in range(60):
        x, targets = mixed(key, cutmix=1.0)
        foreign = x[0, 0] == 1
        rows, columns = foreign.any(1).nonzero()[:, 0], foreign.any(0).nonzero()[:, 0]
        if len(rows):
            assert foreign[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert torch.equal(x[3, 1] == 2, foreign), "the same box in every image"
        assert float(targets[0, 1]) == pytest.approx(float(foreign.float().mean()), abs=1e-6)
        assert torch.equal(x[4], torch.full_like(x[4], 4)) and set(x.unique().tolist()) <= {0, 1, 2, 3, 4}
        assert x.is_contiguous(memory_format=torch.channels_last)
        areas.append(float(foreign.float().mean()))
    assert min(areas) < 0.05 and max(areas) > 0.7


def test_with_both_each_step_has_either() -> None:
    cut = [set(mixed(key, mixup=0.4, cutmix=1.0)[0][0].unique().tolist()) <= {0.0, 1.0} for key in range(200)]
    assert 70 < sum(cut) < 130  # 100, standard deviation 7; the key alone decides
    assert torch.equal(mixed(3, mixup=0.4, cutmix=1.0)[0], mixed(3, mixup=0.4, cutmix=1.0)[0])


@pytest.mark.parametrize("settings", [{"augment.mixup": 1.0}, {"augment.cutmix": 1.0}])
@pytest.mark.parametrize("rows", [None, [0, 1, 2, 4, 6, 7, 8]])
def test_parts_of_a_step_mix_the_same_images(colours: Path, rows: list[int] | None, settings: dict[str, Any]) -> None:
    """[v1] has no batch norm; nine images, of which in the second case two are corrupt."""
    results, found = [], []
    for parts in (1, 2, 3):
        one = stepper(colours, SGD | {"network.aux": True} | settings, accumulate=parts, **V1)
        results.append(one.step(batch(65, planned=9, rows=rows), 2))
        found.append(gradients(one))
    for result, some in zip(results[1:], found[1:], strict=True):
        assert result.loss == pytest.approx(results[0].loss, abs=1e-6)
        assert (result.correct, result.images) == (results[0].correct, results[0].images)
        for a, b in zip(some, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def uneven(folder: Path) -> Path:
    """12 blue, 12 green and 3 red images."""
    write_images(folder, 12)
    for image in sorted((folder / "red").iterdir())[3:]:
        image.unlink()
    return folder


def test_the_loss_of_a_step_is_that_of_both_labels(colours: Path) -> None:
    """lam · loss of the label + (1 - lam) · loss of the partner's label, of auxiliary heads too."""
    settings = {"network.aux": True, "loss.label_smoothing": 0.2, "loss.aux_weight": 0.3, "augment.mixup": 1.0}
    one = stepper(colours, SGD | settings, **V1)
    no_dropout(one.model)
    plain, data = copy.deepcopy(one.model).train(), batch(65)
    key = (0, 5, 0, 0, 1)
    lam = float(np.random.default_rng(key).beta(1, 1))
    x, other = data.images.float() / 127.5 - 1, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    logits = plain.all_logits(lam * x + (1 - lam) * x[other])
    losses = {
        head: lam * F.cross_entropy(values, data.labels, label_smoothing=0.2)
        + (1 - lam) * F.cross_entropy(values, data.labels[other], label_smoothing=0.2)
        for head, values in logits.items()
    }
    (losses["logits"] + 0.3 * losses["inception_4a"] + 0.3 * losses["inception_4d"]).backward()
    result = one.step(data, 5)
    assert 0.05 < lam < 0.95 and result.loss == pytest.approx(losses["logits"].item(), abs=1e-5)
    larger = data.labels if lam > 0.5 else data.labels[other]
    assert result.correct == int((logits["logits"].argmax(1) == larger).sum())
    for a, b in zip(gradients(one), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_of_a_step_is_weighted(tmp_path: Path) -> None:
    """The mean over the images of the step, not over their weights, so that parts and processes change nothing."""
    data = uneven(tmp_path / "data")
    job = resolve(tiny_plan(data, settings=SGD | {"loss.class_weights": "balanced", "loss.label_smoothing": 0.2}, **V1))
    counts = np.bincount(job.source.splits["train"].labels)  # type: ignore[union-attr]
    weights = torch.tensor(counts.sum() / (3 * counts)).float()
    one = Stepper(job.model(), job, steps_per_epoch=4)
    no_dropout(one.model)
    some = batch(65)
    with torch.no_grad():
        logits = copy.deepcopy(one.model).train()(some.images.float() / 127.5 - 1)
    each = F.cross_entropy(logits, some.labels, label_smoothing=0.2, reduction="none")
    assert weights.max() / weights.min() > 2
    assert one.step(some, 0).loss == pytest.approx(float((weights[some.labels] * each).mean()), abs=1e-5)


def test_refusals_of_class_weights() -> None:
    both = Recipe().changed({"loss.class_weights": "balanced", "data.sampler": "balanced"})
    stream = StreamSplit("x", 10, 1, lambda shard: iter(()))
    source = Source("x", ("a", "b"), {"train": stream, "val": stream}, "")
    with pytest.raises(ConfigurationError, match=r"^loss.class_weights and data.sampler are both balanced.*; use one$"):
        class_weights(source, both)
    with pytest.raises(ConfigurationError, match=r"^loss.class_weights is balanced: .* got a stream; use .*=none$"):
        class_weights(source, Recipe().changed({"loss.class_weights": "balanced"}))
    assert class_weights(source, Recipe()) is None and imbalance_of(source, Recipe().model_dump()) == ""


def test_a_training_says_that_its_classes_are_unequal(tmp_path: Path, command: Any) -> None:
    data, options = uneven(tmp_path / "data"), ["--model", "inception_v1.slim", "--size", 32, "--width", 0.125]
    options += ["--epochs", 1, "--workers", 0, "--batch-size", 8]
    said = "classes of unequal size: blue has"
    code, out, err = command("train", data, "--out", tmp_path / "a", *options, "--set", "log.report=false")
    assert code == 0 and said in out + err and "--set loss.class_weights=balanced" in out + err
    every = ["augment.policy=trivial", "augment.mixup=0.2", "augment.cutmix=1", "augment.erase=0.25"]
    chosen = [part for setting in (*every, "data.sampler=balanced") for part in ("--set", setting)]
    code, out, err = command("train", data, "--out", tmp_path / "b", *options, *chosen)
    assert code == 0 and said in out + err and "; balanced by data.sampler" in out + err
    assert "balanced by data.sampler" in (tmp_path / "b" / "report.html").read_text()
    code, out, err = command("check", data, "--workers", 0)
    assert code == 0 and said in out and "data.sampler=balanced, and compare macro averages" in out
    code, out, err = command(
        "train", "--resume", "--out", tmp_path / "b", "--epochs", 2, "--set", "data.sampler=shuffled"
    )
    assert code == 2 and "setting data.sampler cannot change from balanced to shuffled" in err
