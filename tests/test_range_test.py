"""The learning-rate range test: where the loss rises, and that it leaves no trace but its result."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inceptionnet.data.loading import TrainLoader
from inceptionnet.errors import Interrupted
from inceptionnet.system.distributed import ALONE
from inceptionnet.train import range_test
from inceptionnet.train.loop import resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.range_test import MEMORY, STEPS, Trial, errors, rates, rise, smoothed
from inceptionnet.train.resolve import resolve
from inceptionnet.train.step import Stepper
from inceptionnet.weights.folder import weights_of

from .conftest import steps_of, tiny_plan


def plan(data: Path, run: Path, settings: dict[str, Any] | None = None) -> Plan:
    tested = {"optimizer.range_test": True, **(settings or {})}
    start = {"model": None, "width": None, "size": None, "weights": str(weights_of(run))}
    return tiny_plan(data, settings=tested, epochs=2, **start)


def trials(*losses: float) -> list[Trial]:
    return [Trial(float(i), loss) for i, loss in enumerate(losses)]


def test_smoothing_has_no_bias_towards_the_first_step() -> None:
    assert smoothed(trials(3, 3, 3)) == pytest.approx([3, 3, 3])
    assert smoothed(trials(1, 2))[-1] == pytest.approx((MEMORY * 1 + 2) / (MEMORY + 1))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((), None),
        ((2, 2, 2), None),
        ((2, 1, 0.5), None),
        ((1, 1, 9, 9, 9), 2),
        ((1, 1, 1, 1.05), None),  # less than a tenth above the smallest
        ((9, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9), 9),  # the fall at the start is no rise
        ((1, 9, *[1] * 30, 9, 9), 32),  # one poor batch is none either
    ],
)
def test_where_the_loss_rises(losses: tuple[float, ...], expected: float | None) -> None:
    assert rise(trials(*losses)) == expected


def test_the_standard_error_of_a_smoothed_loss() -> None:
    """Differences of 1 have a standard deviation of 1.4826 in the median's measure, each loss that by the root of 2.

    Weights 0.8 and 1: (0.64 + 1) / 1.8² of the variance is left after two steps, (1 - 0.8) / (1 + 0.8) after many.
    """
    noise = 1.4826 / 2**0.5
    found = errors(trials(*[1, 2] * 40))
    assert found[:2] == pytest.approx([noise, noise * 1.64**0.5 / 1.8]) and found[-1] == pytest.approx(noise / 3)
    assert errors(trials(3)) == [0]


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.2])
def test_noise_is_no_rise(noise: float) -> None:
    """Of 200 curves that rise at 10 times the peak rate none lowers it, and few find the rise early."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        rises_at = rise([Trial(lr, 1.4 * max(1, lr / 10) + rng.normal(0, noise)) for lr in rates(1.0)])
        assert rises_at is not None
        found.append(rises_at)
    assert min(found) > 5 and np.median(found) < 20


def test_rates_rise_by_a_constant_factor_to_30_times_the_peak() -> None:
    found = rates(0.01)
    assert len(found) == STEPS and found[-1] == pytest.approx(0.3) and found[0] == pytest.approx(0.3e-3)
    assert {round(b / a, 6) for a, b in pairwise(found)} == {round(1e3 ** (1 / (STEPS - 1)), 6)}


def test_it_leaves_no_trace(colours: Path, run: Path) -> None:
    job = resolve(plan(colours, run, {"average.decay": 0.9, "batch_norm.mode": "update"}))
    model = job.model()
    batches = TrainLoader(
        job.source.splits["train"], job.prep, job.augment, batch_size=8, seed=0, workers=0, corrupt_images="fail"
    )
    stepper = Stepper(model, job, steps_per_epoch=len(batches), world=ALONE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert stepper.average
    average = {name: tensor.clone() for name, tensor in stepper.average.tensors.items()}
    moved, seen = [], []

    def look(images: int) -> None:
        seen.append(images)
        moved.append(any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()))

    found = range_test.run(stepper, iter([*batches.epoch(1), *batches.epoch(2)]), look)
    assert len(found) == 8 == len(moved) and all(moved)
    assert sorted(seen) == [7, 7, *[8] * 6]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in stepper.average.tensors.items())
    assert not stepper.optimizer.state


def test_a_rate_that_is_too_high_is_lowered(
    colours: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(plan(colours, run, {"optimizer.lr": 0.5, "optimizer.lr_scaling": "none"}), tmp_path / "run")
    about = json.loads((tmp_path / "run" / "range_test.json").read_text())
    assert about["recipe_lr"] == 0.5 and about["peak_lr"] == about["rises_at"] / 5 < 0.1
    assert max(row["lr"] for row in steps_of(tmp_path / "run")) <= about["peak_lr"]
    assert f"the peak learning rate is {about['peak_lr']:.3g}, a fifth of that" in capsys.readouterr().err


def test_a_rate_that_is_not_lowered_gives_the_same_weights(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_test, "STEPS", 6)
    settings = {"optimizer.lr": 1e-5}
    train(plan(colours, run, settings), tmp_path / "tested")
    train(plan(colours, run, settings | {"optimizer.range_test": False}), tmp_path / "plain")
    assert (tmp_path / "tested" / "range_test.json").is_file() and not (tmp_path / "plain" / "range_test.json").exists()
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("tested", "plain"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_rate_of_ones_own_is_not_tested(colours: Path, run: Path) -> None:
    start = tiny_plan(colours, model=None, width=None, size=None, weights=str(weights_of(run)), epochs=None)
    assert resolve(start).recipe.optimizer.range_test
    for settings in ({"optimizer.lr": "0.01"}, {"network.train_from": "head"}):
        assert not resolve(Plan(**vars(start) | {"settings": settings})).recipe.optimizer.range_test


def test_a_resumed_run_keeps_its_rate(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = plan(colours, run, {"optimizer.lr": 5.0, "checkpoint.every_steps": 1})
    train(asked, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", stopping(Stepper.step, after=2))
        with pytest.raises(Interrupted):
            train(asked, tmp_path / "run")
    monkeypatch.setattr(range_test, "run", None)  # it is not done again
    resume(tmp_path / "run")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def stopping(real: Any, after: int) -> Any:
    """`Stepper.step` that is interrupted at a step of the run, not of the range test."""

    def step(self: Stepper, batch: Any, number: int, rate: float | None = None) -> Any:
        if rate is None and number == after:
            raise Interrupted("here")
        return real(self, batch, number, rate)

    return step
