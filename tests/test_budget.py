"""`--time`: what fits into a budget, and that a run ends by the clock."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from inceptionnet.errors import ConfigurationError
from inceptionnet.system.distributed import ALONE
from inceptionnet.train import budget
from inceptionnet.train.budget import PROBE, REPORT_IMAGES, REPORT_S, Clock, Speed, measure, minutes_of, plans, together
from inceptionnet.train.changes import Changes
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import Job
from inceptionnet.train.position import Counted, Position
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.weights.folder import weights_of

from .conftest import steps_of, tiny_plan


def timed(data: Path, minutes: float, settings: dict[str, Any] | None = None, **changes: Any) -> Any:
    return tiny_plan(data, settings={"schedule.minutes": minutes, **(settings or {})}, epochs=None, **changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step takes a second, and nothing else does."""
    monkeypatch.setattr(Keeper, "elapsed", lambda keeper: float(keeper.at.step))
    monkeypatch.setattr(budget, "measure", lambda model, job, world: Speed(job.prep.size_px, 1 / 8, 0.0001))
    monkeypatch.setattr(budget, "seconds_since", lambda began, world: 0.0)
    monkeypatch.setattr(budget, "REPORT_S", 0.0)


@pytest.mark.parametrize(
    ("text", "minutes"), [("90s", 1.5), ("10m", 10), ("1.5h", 90), ("1h30m", 90), ("0.5m", 0.5), (None, None)]
)
def test_durations(text: str | None, minutes: float | None) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["10", "", "m", "ten minutes", "10 m", "-5m", "5d", "10m!"])
def test_what_is_no_duration_is_said(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a duration such as 90s, 10m, 1\.5h or 1h30m"):
        minutes_of(text)
    with pytest.raises(ConfigurationError, match="expected more than 0"):
        minutes_of("0s")


@pytest.fixture
def job(colours: Path, run: Path) -> Job:
    """Of 31 + 5 images, with an average, so that an evaluation is of two weights."""
    start = {"model": None, "width": None, "size": None, "weights": str(weights_of(run))}
    settings = {"log.report": True, "optimizer.range_test": True}
    return resolve(replace(timed(colours, 10, settings), **start))


def test_what_fits_by_hand(job: Job) -> None:
    assert (len(job.source.splits["train"]), len(job.source.splits["val"])) == (31, 5)
    first, *smaller = plans(job, Speed(100, 1.0, 0.25), elapsed_s=20, smallest=60)
    assert first.evaluation_s == 5 * 0.25 * 2
    # before: the start and the pass over all images; after: the last evaluation and the report
    left = 600 - 20 - 36 * 0.25 - 2.5 - (REPORT_S + REPORT_IMAGES)
    assert not first.range_test  # 30 steps of 8 images are more than a tenth of it
    assert first.left_s == left and first.evaluate_every == round(left / 31 / 10)
    assert first.epoch_s == 31 + 2.5 / first.evaluate_every and first.epochs == int(left / first.epoch_s)
    assert [one.speed.size_px for one in smaller] == [80, 65]  # 50 px is less than the network takes
    assert smaller[0].speed.train_s == pytest.approx(0.64) and smaller[0].epochs > first.epochs


def test_a_range_test_that_fits_takes_its_time(job: Job) -> None:
    fast, slow = (next(iter(plans(job, Speed(100, 0.1, 0.01), 0, smallest=60))) for job in (job, without_test(job)))
    assert fast.range_test and not slow.range_test
    assert slow.left_s - fast.left_s == pytest.approx(30 * 8 * 0.1)


def test_the_speed_is_measured_with_batches_that_fit(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the run are 8 images: more might not fit into memory."""
    sizes, batches = list[int](), Job.batches
    monkeypatch.setattr(Job, "batches", lambda job, size, *rest: sizes.append(size) or batches(job, size, *rest))
    for accumulate in (1, 4):
        plan = replace(job.plan, accumulate=accumulate)
        speed = measure(job.empty_model(), replace(job, plan=plan), ALONE)
        assert speed.train_s > speed.forward_s > 0
    assert sizes == [8, 8]


def test_a_fast_step_is_measured_with_whole_batches(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, batches = list[int](), Job.batches
    monkeypatch.setattr(Job, "batches", lambda job, size, *rest: sizes.append(size) or batches(job, size, *rest))
    for limit in (0.0, math.inf):
        monkeypatch.setattr(budget, "CHEAP_S", limit)
        measure(job.empty_model(), replace(job, plan=replace(job.plan, batch_size=32)), ALONE)
    assert sizes == [PROBE, PROBE, 32]


def test_loading_and_computing_at_the_same_time_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, workers, threads, seconds in (
        (1, 0, 1, 5),
        (1, 2, 1, 5),  # a core does one thing at a time
        (2, 1, 2, 4),  # 2 + 2 * 3 seconds of two cores
        (16, 1, 1, 3),  # the device computes for longer than a worker loads
        (16, 1, 16, 3.125),
    ):
        monkeypatch.setattr(budget, "cores_allowed", lambda cores=cores: cores)
        assert together(2, 3, workers=workers, threads=threads) == seconds
    assert together(9, 1, workers=2, threads=1) == 4.5


def without_test(job: Job) -> Job:
    return replace(job, recipe=job.recipe.changed({"optimizer.range_test": False}))


def test_progress_by_hand() -> None:
    at = Position(4, 8, began_s=10, evaluation_s=5, counted=Counted(seen=10, trained_s=5))
    clock = Clock(2, report=False)
    assert [clock.progress(at, seconds) for seconds in (0, 10, 62.5)] == [0, 0, 0.5]
    # half a step of 8 images more is nearer to the end than this one
    assert clock.progress(at, 112.9) < 1 == clock.progress(at, 113)
    assert Clock(2, report=True).progress(at, 112.9 - REPORT_S - REPORT_IMAGES / 2) < 1
    assert Clock(2, report=True).progress(at, 113 - REPORT_S - REPORT_IMAGES / 2) == 1


def test_the_schedule_ends_with_the_time(
    colours: Path, tmp_path: Path, clock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train(timed(colours, 0.5, {"log.every_steps": 1}), tmp_path / "run")
    rows, steps = Run(tmp_path / "run").read_metrics(), steps_of(tmp_path / "run")
    assert len(steps) in (28, 29, 30) and rows[-1]["step"] == len(steps)  # the evaluations take some of the 30 s
    assert steps[0]["lr"] < max(row["lr"] for row in steps) and steps[-1]["lr"] < 0.02 * max(row["lr"] for row in steps)
    assert rows[-1]["epoch"] == 8 and "epoch 8  train loss" in capsys.readouterr().err


def test_what_was_chosen_is_said(
    colours: Path, tmp_path: Path, clock: None, capsys: pytest.CaptureFixture[str]
) -> None:
    train(timed(colours, 0.25, size=None, width=0.125), tmp_path / "run")
    said = capsys.readouterr().err
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    size, epochs = about["preprocessing"]["size_px"], about["recipe"]["schedule"]["epochs"]
    assert "time budget 0.25 min: measured 8 images/s in training and 1e+04 in evaluation at 224 px" in said
    assert f"chosen: {size} px, about {epochs} epochs, an evaluation every 1 epoch\n" in said
    assert about["configuration"]["input_size"] == size, "a run that starts from it has its size"
    assert (size, epochs) == (179, 6)  # at 224 px 3 would fit
    assert "images are 179 px instead of 224 px, at which fewer than 5 epochs fit; --size 224 keeps it" in said


def test_a_size_of_ones_own_stays(colours: Path, tmp_path: Path, clock: None) -> None:
    train(timed(colours, 0.25, size=48), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["preprocessing"]["size_px"] == 48


def test_too_little_time_is_said_before_anything_is_written(colours: Path, tmp_path: Path, clock: None) -> None:
    with pytest.raises(
        ConfigurationError, match=r"--time is 0\.05 min, but .* take about .* min at 32 px here; give more"
    ):
        train(timed(colours, 0.05), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_more_time(colours: Path, tmp_path: Path, clock: None) -> None:
    train(timed(colours, 0.25), tmp_path / "run")
    before = Run(tmp_path / "run").read_metrics()
    resume(tmp_path / "run", changes=Changes(settings={"schedule.minutes": 0.5}))
    after = Run(tmp_path / "run").read_metrics()
    assert before[-1]["step"] in (13, 14, 15) and after[-1]["step"] in (28, 29, 30)
    assert Run(tmp_path / "run").changes() == {"schedule.minutes from epoch 4": "0.25 → 0.5"}


def test_repeated_with_its_size_and_time(colours: Path, tmp_path: Path, clock: None) -> None:
    train(timed(colours, 0.25), tmp_path / "run")
    repeat(tmp_path / "run", tmp_path / "again")
    one, other = (Run(tmp_path / name).read_metrics()[-1] for name in ("run", "again"))
    assert abs(one["step"] - other["step"]) <= 1


@pytest.mark.parametrize(("epochs", "train_from", "message"), [
    (3, "all", "--epochs is 3, but the time budget of 1 min says how many epochs there are; give one of"),
    (None, "head", "fits the classifier by logistic regression, which has no --time; omit it"),
])  # fmt: skip
def test_what_a_budget_does_not_go_with(
    epochs: int | None, train_from: str, message: str, colours: Path, run: Path, tmp_path: Path
) -> None:
    start = {"model": None, "width": None, "size": None, "weights": str(weights_of(run)), "epochs": epochs}
    asked = replace(timed(colours, 1, {"network.train_from": train_from}), **start)
    with pytest.raises(ConfigurationError, match=message):
        train(asked, tmp_path / "run")


def test_from_the_command_line(
    colours: Path, tmp_path: Path, clock: None, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["inceptionnet.cli.train"], "BEGAN", monotonic())  # this process has begun long ago
    line = ["train", colours, "--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--batch-size", 8]
    options = ["--workers", 0, "--set", "log.report=false", "--out"]
    code, _, err = command(*line, "--time", "15s", *options, tmp_path / "run")
    assert not code, err
    assert "time budget 0.25 min" in err
    code, _, err = command(*line, "--time", "soon", *options, tmp_path / "none")
    assert code == 2 and err.startswith("error: --time is 'soon'; expected a duration") and err.count("\n") == 1
