"""The weights of the best epoch, early stopping, and that only a validation split chooses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inceptionnet import load
from inceptionnet.data.loading import Batch
from inceptionnet.errors import Interrupted
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.train import figures
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import best_row
from inceptionnet.train.loop import resume, train
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper, StepResult

from .conftest import tiny_plan


def scripted(monkeypatch: pytest.MonkeyPatch, correct: Sequence[int], losses: Sequence[float] = ()) -> None:
    """Every evaluation of 10 images has the next of these numbers of correct ones."""
    left = iter(zip(correct, losses or [1.0] * len(correct), strict=True))

    def evaluated(model: torch.nn.Module, loader: object, prep: object, classes: Sequence[str], **_: Any) -> Evaluation:
        right, loss = next(left)
        labels = np.zeros(10, np.int64)
        predicted = np.array([0] * right + [1] * (10 - right))
        return Evaluation(
            tuple(classes), np.arange(10), labels, predicted, np.ones(10, np.float32), labels == predicted,
            np.full(10, loss, np.float32), (),
        )  # fmt: skip

    monkeypatch.setattr(figures, "evaluate", evaluated)


def epochs_of(run: Path) -> list[int]:
    return [int(row["epoch"]) for row in Run(run).read_metrics()]


def test_the_best_epoch_keeps_its_weights(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, [3, 9, 5])
    train(tiny_plan(colours, epochs=3), tmp_path / "run")
    last, best = (load_file(tmp_path / "run" / f"weights{of}.safetensors") for of in ("", "_best"))
    assert not torch.equal(last["head.logits.weight"], best["head.logits.weight"])
    assert load(tmp_path / "run" / "weights_best.safetensors").record.provenance["epochs"] == 2
    said = capsys.readouterr().err
    assert "best epoch 2: val accuracy 90.0%, last epoch 50.0%" in said and "flatters" in said


def test_of_equal_accuracies_the_smaller_loss_is_better(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, [9, 9, 9], [0.5, 0.3, 0.3])
    train(tiny_plan(colours, epochs=3), tmp_path / "run")
    assert load(tmp_path / "run" / "weights_best.safetensors").record.provenance["epochs"] == 2
    assert "best epoch 2" in capsys.readouterr().err


def test_where_the_last_epoch_is_the_best_nothing_is_said(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, [3, 9])
    train(tiny_plan(colours, epochs=2), tmp_path / "run")
    one, other = (tmp_path / "run" / name for name in ("weights.safetensors", "weights_best.safetensors"))
    assert one.read_bytes() == other.read_bytes()
    assert "best epoch" not in capsys.readouterr().err


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 6), (None, 6)])
def test_patience(
    patience: int | None, epochs: int, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    scripted(monkeypatch, [3, 5, 4, 4, 6, 2])
    train(tiny_plan(colours, epochs=6, settings={"schedule.patience": patience}), tmp_path / "run")
    assert epochs_of(tmp_path / "run") == list(range(1, epochs + 1))
    assert ("stopped early, after epoch" in capsys.readouterr().err) == (epochs < 6)


def test_a_run_that_stopped_early_stops_again_when_resumed(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [5, 4, 4, 9])
    train(tiny_plan(colours, epochs=5, settings={"schedule.patience": 1}), tmp_path / "run")
    assert epochs_of(tmp_path / "run") == [1, 2]
    resume(tmp_path / "run")
    assert epochs_of(tmp_path / "run") == [1, 2]
    scripted(monkeypatch, [4, 9, 3, 3])
    resume(tmp_path / "run", changes=Changes(settings={"schedule.patience": None}))
    assert epochs_of(tmp_path / "run") == [1, 2, 3, 4, 5]
    assert load(tmp_path / "run" / "weights_best.safetensors").record.provenance["epochs"] == 3


def test_a_test_split_chooses_nothing(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        shutil.copytree(colours, tmp_path / "data" / split)
    scripted(monkeypatch, [5, 4, 3])
    train(tiny_plan(tmp_path / "data", epochs=3, settings={"schedule.patience": 1}), tmp_path / "run")
    assert epochs_of(tmp_path / "run") == [1, 2, 3] and not (tmp_path / "run" / "weights_best.safetensors").exists()
    said = capsys.readouterr().err
    assert "no early stopping: there is no validation split" in said and "best epoch" not in said


def test_no_rows_have_no_best() -> None:
    assert best_row([]) == {} and best_row([{"epoch": 1, "test_top1": 0.5}]) == {}


def test_evaluations_every_few_epochs(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After every second epoch and the last; a row is of all images since the one before, in a resumed run too."""
    asked = tiny_plan(colours, epochs=5, settings={"schedule.evaluate_every": 2, "checkpoint.every_steps": 1})
    train(asked, tmp_path / "whole")
    expected = Run(tmp_path / "whole").read_metrics()
    assert [(row["epoch"], row["step"]) for row in expected] == [(2, 8), (4, 16), (5, 20)]
    real = Stepper.step

    def stopped(stepper: Stepper, batch: Batch, number: int) -> StepResult:
        if number == 6:
            raise Interrupted("here")
        return real(stepper, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", stopped)
        with pytest.raises(Interrupted):
            train(asked, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.csv").exists()
    resume(tmp_path / "run")
    timed = {"elapsed_s", "images_per_s", "data_wait"}
    found = Run(tmp_path / "run").read_metrics()
    assert [{name: row[name] for name in row.keys() - timed} for row in found] == [
        {name: row[name] for name in row.keys() - timed} for row in expected
    ]
