"""A search: several values of a setting, by successive halving, in a run folder that is the best one's."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inceptionnet import fit, load
from inceptionnet.errors import ConfigurationError, InceptionNetError, Interrupted, RunError, TrainingError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.train import loop, search
from inceptionnet.train.changes import Changes
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.run import Run
from inceptionnet.train.search import ranking
from inceptionnet.train.trainer import Trainer
from inceptionnet.train.trials import rungs_of, searched, share_of_time

from .conftest import tiny_plan
from .test_best_epoch import scripted

Command = Callable[..., tuple[int, str, str]]
TINY = ("--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--batch-size", 8, "--workers", 0,
        "--set", "log.report=false")  # fmt: skip
VALUES = {"optimizer.lr": "1e-3,4e-3", "loss.label_smoothing": "0,0.1"}


def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """How and in which folder each run is trained from here on."""
    found: list[tuple[str, str]] = []
    plain_train, plain_resume = loop.train, loop.resume

    def train(plan: Any, out: Path, *arguments: Any, **options: Any) -> Any:
        found.append(("train", out.name))
        return plain_train(plan, out, *arguments, **options)

    def resume(out: Path, *arguments: Any, **options: Any) -> Any:
        found.append(("resume", out.name))
        return plain_resume(out, *arguments, **options)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(loop, "resume", resume)
    return found


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(run / "weights.safetensors") for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "search.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("trials", "epochs", "rungs"),
    [
        (2, 10, [(2, 5), (1, 10)]),
        (3, 10, [(3, 5), (1, 10)]),
        (6, 12, [(6, 3), (3, 6), (1, 12)]),
        (8, 10, [(8, 1), (4, 2), (2, 5), (1, 10)]),
        (8, 3, [(8, 1), (1, 3)]),
        (5, 1, [(5, 1), (1, 1)]),
    ],
)  # fmt: skip
def test_the_better_half_goes_on_with_twice_the_epochs(trials: int, epochs: int, rungs: list[tuple[int, int]]) -> None:
    assert rungs_of(trials, epochs) == rungs


def test_minutes_are_divided_among_rungs_and_their_trials() -> None:
    spent, shares = 0.0, []
    for rung, trials in enumerate((6, 3, 1)):
        shares.append(share_of_time(30, spent, 3 - rung, trials))
        spent += trials * shares[-1]
    assert shares == pytest.approx([30 / 3 / 6, 30 / 3 / 3, 30 / 3]) and spent == pytest.approx(30)
    assert share_of_time(30, 12, 2, 3) == pytest.approx((30 - 12) / 2 / 3), "a first rung that took longer"
    assert share_of_time(30, 45, 1, 1) == pytest.approx(3), "never nothing"


def test_a_search_in_a_time_budget(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run takes 10 % longer than its budget, by a clock that is set; the last one gets what is left."""
    now_s, ran = 100.0, []

    def train(plan: Any, out: Path, *_: Any, **options: Any) -> Evaluation:
        nonlocal now_s
        minutes = plan.settings["schedule.minutes"]
        ran.append((out.name, minutes, plan.epochs, options["leaks"]))
        now_s += 1.1 * 60 * minutes
        correct = np.arange(10) < len(ran)
        zeros = np.zeros(10, np.int64)
        return Evaluation(("a", "b"), np.arange(10), zeros, 1 - correct, np.ones(10), correct, np.ones(10), ())

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(search.time, "monotonic", lambda: now_s)
    settings = {"optimizer.lr": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3], "schedule.minutes": 30.0}
    search.train(tiny_plan(colours, epochs=None, settings=settings), tmp_path / "out", began=40.0)
    first, second = 30 / 3 / 5, (30 - (1 + 11)) / 2 / 2
    third = 30 - (1 + 11) - 2 * 1.1 * second
    assert [minutes for _, minutes, _, _ in ran] == pytest.approx([first] * 5 + [second] * 2 + [third])
    assert [name for name, _, _, _ in ran[5:]] == ["05-lr=0.005", "04-lr=0.004", "out"]
    assert {epochs for _, _, epochs, _ in ran} == {None}
    assert [leaks for _, _, _, leaks in ran] == [True, *[False] * 6, True], "copies are looked for once, and at the end"
    rows = table(tmp_path / "out")
    assert [float(row["minutes"]) for row in rows] == pytest.approx([run[1] for run in ran], rel=1e-4)
    assert float(rows[0]["wall_s"]) == pytest.approx(60 + 1.1 * 120), "from the start of the command on"


def test_which_settings_have_several_values() -> None:
    assert searched({"optimizer.lr": "1e-4,3e-4", "optimizer.name": "sgd"}) == {"optimizer.lr": ["1e-4", "3e-4"]}
    assert searched({"augment.flip": [True, False], "optimizer.lr": 1e-3}) == {"augment.flip": [True, False]}
    assert not searched({"network.residual_scale": "0.1,0.2,0.3", "log.trackers": ["mlflow", "wandb"]})
    for value in ("1e-4,3e-4", [1e-4, 3e-4], [1e-4], []):
        with pytest.raises(ConfigurationError, match=r"setting optimizer\.lr"):
            Recipe().changed({"optimizer.lr": value})
    assert Recipe().changed({"network.residual_scale": "0.1,0.2"}).network.residual_scale == (0.1, 0.2)


def test_a_search(colours: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 trials of one epoch, then the third with two; its folder is an ordinary run folder, and the same run."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        scripted(patch, [5, 6, 8, 8, 4, 7], [1, 1, 0.5, 0.7, 1, 1])
        values = [argument for key, value in VALUES.items() for argument in ("--set", f"{key}={value}")]
        code, printed, said = command("train", colours, "--out", out, *TINY, "--epochs", 2, *values)
    assert code == 0, said
    rows = table(out)
    assert list(rows[0]) == [
        "trial", "optimizer.lr", "loss.label_smoothing", "rung", "epochs", "val_loss", "val_top1", "wall_s", "run",
        "error",
    ]  # fmt: skip
    tried = [(row["optimizer.lr"], row["loss.label_smoothing"]) for row in rows]
    assert tried == [("0.001", "0"), ("0.001", "0.1"), ("0.004", "0"), ("0.004", "0.1"), ("0.004", "0")]
    assert [(row["trial"], row["rung"], row["epochs"]) for row in rows[3:]] == [("4", "1", "1"), ("3", "2", "2")]
    assert [row["val_top1"] for row in rows] == ["0.5", "0.6", "0.8", "0.8", "0.7"]
    assert rows[2]["run"] == "trials/rung-1/03-lr=0.004-label_smoothing=0" and rows[4]["run"] == "."
    for row in rows:
        run = Run(out / row["run"])
        recipe = run.about()["recipe"]
        assert recipe["optimizer"]["lr"] == float(row["optimizer.lr"])
        assert recipe["loss"]["label_smoothing"] == float(row["loss.label_smoothing"])
        assert recipe["schedule"]["epochs"] == len(run.read_metrics()) == int(row["epochs"])
        assert run.weights.is_file() and (run.path / "checkpoints").is_dir() == (row["run"] == ".")
    assert "4 trials in 2 rungs: 4 → 1" in said
    assert "rung 1 of 2, trial 2 of 4: optimizer.lr=0.001 loss.label_smoothing=0.1, 1 epoch\n" in said
    lines = [line.split() for line in printed.splitlines()]
    places = [line[1:7] for line in lines if line[:1] in (["1"], ["2"], ["3"], ["4"])]
    assert places == [
        ["0.004", "0", "2", "2", "70.0%", "1.0000"],
        ["0.004", "0.1", "1", "1", "80.0%", "0.7000"],
        ["0.001", "0.1", "1", "1", "60.0%", "1.0000"],
        ["0.001", "0", "1", "1", "50.0%", "1.0000"],
    ]
    assert "flatter" in printed and f"inceptionnet predict {out}" in printed

    best = {"optimizer.lr": 4e-3, "loss.label_smoothing": 0}
    loop.train(tiny_plan(colours, epochs=2, settings=best), tmp_path / "alone")
    assert same_weights(out, tmp_path / "alone")
    image = next(colours.rglob("*.png"))
    code, printed, _ = command("predict", out, image, "--device", "cpu")
    assert code == 0 and image.name in printed
    code, _, said = command("train", "--resume", out, "--epochs", 3, "--workers", 0)
    assert code == 0 and "changed: schedule.epochs 2 → 3" in said, "the best one goes on like any run"
    with pytest.raises(RunError, match="holds a search; choose another --out"):
        search.train(tiny_plan(colours), out)


@pytest.mark.parametrize("killed_in", [2, pytest.param(4, marks=pytest.mark.slow), 5])
def test_a_killed_search_goes_on(
    killed_in: int, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted in the second trial, in the last one of the first rung, and in the last run."""
    out, plan = tmp_path / "out", tiny_plan(colours, epochs=2, settings=VALUES)
    runs = started(monkeypatch)
    plain = Trainer._count

    def counted(self: Any, *arguments: Any) -> None:
        plain(self, *arguments)
        self.stop.requested = len(runs) == killed_in and self.at.batch == 1

    scripted(monkeypatch, [5, 6, 8, 7, 4, 7, 1, 1])
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_count", counted)
        with pytest.raises(Interrupted, match=f"resume with: inceptionnet train --resume --out {out}$"):
            search.train(plan, out)
    assert search.unfinished(out) and len(runs) == killed_in
    if killed_in < 5:
        with pytest.raises(ConfigurationError, match="--epochs cannot change in a search that is resumed"):
            search.resume(out, changes=Changes(epochs=5))
        with pytest.raises(ConfigurationError, match="--set cannot change in a search"):
            search.resume(out, changes=Changes(settings={"optimizer.lr": 1.0}))
    done = runs[:-1]
    del runs[:]
    search.resume(out, changes=Changes(str(colours), machine={"workers": 0}))
    assert [how for how, _ in runs] == ["resume", *["train"] * (5 - killed_in)]
    assert [name for _, name in (*done, *runs)] == [
        "01-lr=0.001-label_smoothing=0", "02-lr=0.001-label_smoothing=0.1", "03-lr=0.004-label_smoothing=0",
        "04-lr=0.004-label_smoothing=0.1", "out",
    ]  # fmt: skip
    assert [row["val_top1"] for row in table(out)] == ["0.5", "0.6", "0.8", "0.7", "0.7"]
    assert not search.unfinished(out)
    loop.train(tiny_plan(colours, epochs=2, settings={"optimizer.lr": 4e-3, "loss.label_smoothing": 0}), tmp_path / "x")
    assert same_weights(out, tmp_path / "x")


def test_a_trial_that_diverges_is_the_worst(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"optimizer.lr": "1e30,1e-3", "watch.skipped_steps": 1, "optimizer.name": "sgd"}
    search.train(tiny_plan(colours, epochs=1, settings=settings), tmp_path / "out")
    failed, other, best = table(tmp_path / "out")
    assert failed["optimizer.lr"] == "1e+30" and "no finite loss" in failed["error"] and not failed["val_top1"]
    assert other["val_top1"] and best["optimizer.lr"] == "0.001" and not best["error"]
    assert [result.trial for result in ranking(tmp_path / "out")] == [2, 1]
    settings["optimizer.lr"] = "1e30,1e31"
    with pytest.raises(TrainingError, match=r"every trial of rung 1 failed; see search\.csv"):
        search.train(tiny_plan(colours, epochs=1, settings=settings), tmp_path / "all")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer.lr": "1e-3,fast"}, "setting optimizer.lr is 'fast': Input should be a valid number"),
        ({"optimizer.lr": "1e-3,"}, "setting optimizer.lr is '': Input should be a valid number"),
        ({"optimizer.lr": "1e-3,2e-3", "loss.label_smoothing": "0,2"}, "setting loss.label_smoothing is '2'"),
        ({"optimizer.name": ["sgd", "adam"]}, "setting optimizer.name is 'adam'"),
        ({"optimizer.rl": "1,2"}, "unknown setting 'optimizer.rl': did you mean optimizer.lr"),
        ({"optimizer.lr": [0.1 / n for n in range(1, 66)]}, "the values of --set give 65 trials (65); expected 64"),
        ({"schedule.epochs": "1,2"}, "--set schedule.epochs has several values: the search gives each trial its"),
        ({"log.every_steps": "1,2"}, "--set log.every_steps has several values: it does not change the result"),
        ({"optimizer.lr": "1e-3,0.001"}, "--set gives the trial optimizer.lr=0.001 twice"),
        ({"network.train_from": "all,mixed_9"}, "--train-from mixed_9 freezes the pretrained weights before it"),
        ({"batch_norm.mode": "update,freeze"}, "--bn freeze keeps the statistics of pretrained weights"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched(settings: dict[str, Any], message: str, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(InceptionNetError) as error:
        search.train(tiny_plan(colours, settings=settings), tmp_path / "out")
    assert message in str(error.value)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_layers_are_checked_before_the_first_trial(colours: Path, run: Path, tmp_path: Path) -> None:
    plan = {"weights": str(run), "model": None, "width": None, "size": None}
    for settings, message in (
        ({"network.train_from": "inception_5b,inception_9"}, "network.train_from is 'inception_9'"),
        ({"network.train_from": "head", "loss.class_weights": "none,balanced"}, "--train-from head has no epochs"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            search.train(tiny_plan(colours, epochs=None, settings=settings, **plan), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_test_split_does_not_choose(colours: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(colours, tmp_path / "data" / split)
    with pytest.raises(ConfigurationError, match="has no validation split to choose by, and a test split is not for"):
        search.train(tiny_plan(tmp_path / "data", settings=VALUES), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        search.train(tiny_plan(colours, settings=VALUES), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_other_commands_take_one_value(colours: Path, run: Path, tmp_path: Path, command: Command) -> None:
    several = ("--set", "optimizer.lr=1e-3,2e-3")
    for line, message in (
        (
            ("--resume", run),
            "--set optimizer.lr has several values; expected one, since a search starts in a new --out",
        ),
        (("--repeat", run, "--out", tmp_path / "out"), "setting optimizer.lr is '1e-3,2e-3'; expected one value"),
        (("--settings",), "setting optimizer.lr is '1e-3,2e-3'; expected one value"),
    ):
        code, _, said = command("train", *line, *several)
        assert code == 2 and message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_search_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps({"plan": {}, "finished": False, "results": []}))
    with pytest.raises(RunError, match=r"search\.json: is damaged"):
        search.resume(tmp_path)


def test_fit_searches(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [5, 6, 8])
    settings = {"optimizer.lr": [1e-3, 2e-3], "log.report": False}
    found = fit(colours, tmp_path / "out", model="inception_v1.slim", width=0.125, size=32, batch_size=8, epochs=1,
                workers=0, device="cpu", settings=settings)  # fmt: skip
    assert Run(tmp_path / "out").about()["recipe"]["optimizer"]["lr"] == 2e-3
    assert found.classes == load(tmp_path / "out").classes == ("blue", "green", "red")
