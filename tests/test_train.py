"""The training loop and its run folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.data import Preprocessing
from inceptionnet.data.augment import to_input
from inceptionnet.errors import ConfigurationError, DecodeError, Interrupted, RunError, TrainingError
from inceptionnet.train.batch_norm import blend
from inceptionnet.train.changes import Changes
from inceptionnet.train.checkpoint import Checkpoints
from inceptionnet.train.loop import resume, train
from inceptionnet.train.recipe import Recipe, parse_settings
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper
from inceptionnet.weights.folder import weights_of

from .conftest import COLOURS, DESCENT, EPOCHS_OF_RUN, tiny_plan, write_images


def test_run_folder_is_whole(run: Path) -> None:
    assert {file.name for file in run.iterdir()} == {
        "run.json", "weights.safetensors", "weights_best.safetensors", "metrics.csv", "steps.jsonl", "evaluation.json",
        "curves.png", "predictions.png", "report.html", "checkpoints",
    }  # fmt: skip
    assert len(list((run / "checkpoints").iterdir())) == 2, "the newest ones"
    metrics = Run(run).read_metrics()
    assert [row["epoch"] for row in metrics] == list(range(1, EPOCHS_OF_RUN + 1))
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    about = json.loads((run / "run.json").read_text())
    assert about["data"]["classes"] == sorted(COLOURS)
    assert sum(about["data"]["images"].values()) == 36
    own = {"schedule.epochs": EPOCHS_OF_RUN, "network.activation": "softmax"}
    assert Recipe.model_validate(about["recipe"]) == Recipe().changed(own)
    record = read_record(run / "weights.safetensors")
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert record.classes == tuple(sorted(COLOURS)) and record.provenance["epochs"] == EPOCHS_OF_RUN
    assert record.provenance["val_top1"] == evaluation["top1"] == pytest.approx(metrics[-1]["val_top1"], rel=1e-5)
    for figure in ("curves.png", "predictions.png"):
        with Image.open(run / figure) as image:
            assert image.size[0] > 500
            image.verify()


def test_it_learns(tmp_path: Path) -> None:
    """Three colours that differ by far more than their noise, held-out images too.

    60 steps are too few for running statistics that begin at 0 and 1: 2 of 5 were correct. From 12 random weights all
    images are; at the recipe's learning rate, which is high for such batches, from 9.
    """
    data = write_images(tmp_path / "data", 20)
    assert train(tiny_plan(data, epochs=8, settings={"optimizer.lr": 1e-3}), tmp_path / "run").top1 >= 0.9


def test_running_statistics_of_a_fresh_network_remember_a_ninth_of_the_steps(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    momenta: list[float] = []

    def watched(before: Any, momentum: float) -> None:
        momenta.append(momentum)
        blend(before, momentum)

    monkeypatch.setattr("inceptionnet.train.step.blend", watched)
    train(tiny_plan(colours), tmp_path / "fresh")
    assert momenta == [9 / (10 + n) for n in range(len(momenta))] and len(momenta) > 10
    momenta.clear()
    start = {"weights": str(weights_of(tmp_path / "fresh")), "settings": {"batch_norm.mode": "update"}}
    train(tiny_plan(colours, epochs=1, **start), tmp_path / "tuned")
    assert momenta and all(m == 0.1 for m in momenta)


def test_the_number_of_workers_changes_nothing(colours: Path, run: Path, tmp_path: Path) -> None:
    train(tiny_plan(colours, epochs=EPOCHS_OF_RUN, workers=2), tmp_path / "run")
    one, other = (load_model(folder / "weights.safetensors").state_dict() for folder in (run, tmp_path / "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_seed_is_another_run(colours: Path, run: Path, tmp_path: Path) -> None:
    train(tiny_plan(colours, seed=1, epochs=1), tmp_path / "run")
    note = json.loads((tmp_path / "run" / "run.json").read_text())["data"]["note"]
    assert "seed 1" in note and "seed 0" in json.loads((run / "run.json").read_text())["data"]["note"]


def test_training_starts_from_pretrained_weights(colours: Path, run: Path, tmp_path: Path) -> None:
    plan = tiny_plan(colours, model=None, width=None, size=None, weights=str(weights_of(run)), epochs=1)
    train(plan, tmp_path / "run")
    first = Run(tmp_path / "run").read_metrics()[0]["train_loss"]
    assert first < Run(run).read_metrics()[0]["train_loss"]
    assert read_record(tmp_path / "run" / "weights.safetensors").configuration.width == 0.125


def test_preprocessing_comes_with_the_weights_unless_set(run: Path, colours: Path, tmp_path: Path) -> None:
    prep = Preprocessing(32, crop=0.6, resize="keep-aspect", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    file = tmp_path / "weights.safetensors"
    save_weights(load_model(weights_of(run)), file, classes=tuple(sorted(COLOURS)), preprocessing=prep)
    plan = tiny_plan(colours, model=None, width=None, weights=str(file), epochs=1, settings=DESCENT)
    train(plan, tmp_path / "same")
    assert read_record(weights_of(tmp_path / "same")).preprocessing == prep
    other = resolve(replace(plan, size=40, settings={"preprocess.crop": "0.9"}))
    assert other.prep == replace(prep, size_px=40, crop=0.9)


def test_other_classes_can_be_learnt_from_weights(run: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", 4)
    (tmp_path / "data" / "green").rename(tmp_path / "data" / "grass")
    (tmp_path / "data" / "sky").mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20), (120, 160, 250)).save(tmp_path / "data" / "sky" / f"{i}.png")
    plan = tiny_plan(tmp_path / "data", model=None, width=None, weights=str(weights_of(run)), epochs=1)
    train(plan, tmp_path / "run")
    assert read_record(tmp_path / "run" / "weights.safetensors").classes == ("blue", "grass", "red", "sky")


def test_the_papers_optimiser_trains(tmp_path: Path) -> None:
    """RMSProp with epsilon 1, exponential decay and clipping as in [v3], at a rate for small batches."""
    settings = {
        "optimizer.name": "rmsprop", "optimizer.lr": "0.01", "optimizer.clip_norm": "2",
        "optimizer.weight_decay": "4e-5", "schedule.name": "exponential",
    }  # fmt: skip
    data = write_images(tmp_path / "data", 20)
    train(tiny_plan(data, epochs=6, settings=settings), tmp_path / "run")
    losses = [row["train_loss"] for row in Run(tmp_path / "run").read_metrics()]
    assert min(losses) < 0.8 * losses[0], "from 12 random weights: 0.35 to 0.65 times"


def test_gradients_are_clipped(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, norms = torch.optim.SGD.step, []

    def watched(self: Any, closure: Any = None) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    settings = {"optimizer.name": "sgd", "optimizer.clip_norm": "0.01"}
    train(tiny_plan(colours, epochs=1, settings=settings), tmp_path / "run")
    assert norms and max(norms) <= 0.0100001 and max(norms) > 0.009


def test_auxiliary_heads_are_trained(colours: Path, tmp_path: Path) -> None:
    plan = tiny_plan(colours, model="inception_v1", size=72, epochs=1, settings={"network.aux": "true"})
    train(plan, tmp_path / "run")
    model = load_model(tmp_path / "run" / "weights.safetensors")
    torch.manual_seed(0)
    start = create_model("inception_v1", num_classes=3, input_size=72, width=0.125, aux=True).state_dict()
    for key in ("aux.inception_4a.hidden.linear.weight", "aux.inception_4d.logits.weight", "head.logits.weight"):
        assert not torch.equal(model.state_dict()[key], start[key]), key


def broken(folder: Path) -> Path:
    """Colours of which one image is cut off in the middle."""
    file = write_images(folder, 6) / "red" / "03.png"
    file.write_bytes(file.read_bytes()[:300])
    return folder


def test_decode_errors_stop_the_run_by_name_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = broken(tmp_path / "data")
    with pytest.raises(DecodeError, match=r"red/03\.png: .*--corrupt-images skip") as caught:
        train(tiny_plan(data), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert f"resume with: inceptionnet train --resume --out {tmp_path / 'run'}" in capsys.readouterr().err
    resume(tmp_path / "run", changes=Changes(machine={"corrupt_images": "skip"}))
    train(tiny_plan(data, corrupt_images="skip"), tmp_path / "skipped")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "skipped"))
    assert all(torch.equal(one[key], other[key]) for key in one), "as if it had been skipped from the beginning"


def test_decode_errors_are_skipped_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = broken(tmp_path / "data")
    train(tiny_plan(data, corrupt_images="skip", epochs=2), tmp_path / "run")
    (line,) = (tmp_path / "run" / "decode_errors.txt").read_text().splitlines()
    assert line.startswith("red/03.png\t")
    assert capsys.readouterr().err.count("warning: corrupt image skipped: red/03.png") == 1, (
        "named once, not every epoch"
    )


def test_a_run_folder_that_exists_is_left_alone(colours: Path, run: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(
        RunError, match=r"exists and is not empty; choose another --out, or resume the run in it with --resume"
    ):
        train(tiny_plan(colours), run)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot create the run folder"):
        train(tiny_plan(colours), tmp_path / "file")


def test_what_cannot_be_trained_makes_no_run_folder(colours: Path, tmp_path: Path) -> None:
    for changes in (
        {"model": "inception_v9"},
        {"settings": {"optimizer.rl": "1"}},
        {"epochs": 0},
        {"device": "abacus"},
    ):
        with pytest.raises(ConfigurationError):
            train(tiny_plan(colours, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_weights_for_what_no_image_has_make_no_run_folder(colours: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(create_model("inception_v1.slim", in_channels=4, width=0.125, num_classes=3), file)
    with pytest.raises(ConfigurationError, match="expected a network with 1 or 3 input channels, got 4"):
        train(tiny_plan(colours, model=None, width=None, weights=str(file)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_with_advice(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the fifth step on every input is nothing: three steps are skipped, then the run stops, weights unharmed."""
    calls = []

    def spoilt(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return to_input(*arguments) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr("inceptionnet.train.step.to_input", spoilt)
    plan = tiny_plan(colours, settings={"watch.skipped_steps": 3})
    with pytest.raises(
        TrainingError, match=r"^3 steps in a row .* lower learning rate, --set optimizer\.lr="
    ) as caught:
        train(plan, tmp_path / "run")
    assert "\n" not in str(caught.value)
    newest = Checkpoints(tmp_path / "run" / "checkpoints", 2).newest()
    assert newest is not None
    assert newest[1]["step"] == 7 and all(tensor.isfinite().all() for tensor in newest[0].values())


def test_a_single_step_without_a_finite_loss_is_skipped_and_counted(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def spoilt(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return to_input(*arguments) * (float("inf") if len(calls) == 6 else 1)

    monkeypatch.setattr("inceptionnet.train.step.to_input", spoilt)
    train(tiny_plan(colours), tmp_path / "run")
    assert [row["skipped_steps"] for row in Run(tmp_path / "run").read_metrics()] == [0, 1, 0]
    assert capsys.readouterr().err.count("warning: step 5 skipped without an update") == 1


@pytest.fixture
def not_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("not_under_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_step_saves_and_says_how_to_resume(
    number: int, colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = Stepper.step, []

    def interrupted(self: Any, *arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    monkeypatch.setattr(Stepper, "step", interrupted)
    with pytest.raises(Interrupted, match=r"interrupted in epoch 2 after step 2; resume with: .*--resume --out .*run$"):
        train(tiny_plan(colours, epochs=EPOCHS_OF_RUN), tmp_path / "run")
    assert signal.getsignal(number) not in (signal.SIG_IGN, None), "handlers are as before"
    assert len(steps) == 6 and len(Run(tmp_path / "run").read_metrics()) == 1
    resume(tmp_path / "run")
    assert len(steps) == 24, "no step is taken twice"
    one, other = (load_file(folder / "weights.safetensors") for folder in (run, tmp_path / "run"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_second_ctrl_c_stops_at_once(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Any, *arguments: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Stepper, "step", interrupted)
    with pytest.raises(Interrupted, match=r"interrupted in epoch 1/3; .*from the start, since there is no checkpoint"):
        train(tiny_plan(colours), tmp_path / "run")


def test_settings_reach_training(colours: Path, tmp_path: Path) -> None:
    settings = {"network.dropout": "0.6", "preprocess.resize": "keep-aspect"}
    train(tiny_plan(colours, epochs=1, settings=settings), tmp_path / "run")
    record = read_record(weights_of(tmp_path / "run"))
    assert record.preprocessing.resize == "keep-aspect" and record.configuration.dropout == 0.6


def test_recipe_by_dotted_key() -> None:
    recipe = Recipe().changed({"optimizer.lr": "0.5", "augment.flip": "false", "network.residual_scale": "0.1,0.2,0.3"})
    assert recipe.optimizer.lr == 0.5 and recipe.augment.flip is False
    assert recipe.network.residual_scale == (0.1, 0.2, 0.3)
    assert recipe.changed({"network.residual_scale": "none"}).network.residual_scale is None
    assert Recipe().optimizer.lr != 0.5, "a recipe is frozen"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.rl=1", r"unknown setting 'optimizer\.rl': did you mean optimizer\.lr"),
        ("lr=1", r"unknown setting 'lr'"),
        ("optimizer.lr=fast", r"setting optimizer\.lr is 'fast': .*valid number"),
        ("optimizer.lr=-1", r"setting optimizer\.lr is '-1': .*greater than 0"),
        ("optimizer.lr=nan", r"setting optimizer\.lr is 'nan': "),
        ("optimizer.name=adam", r"setting optimizer\.name is 'adam': .*'adamw', 'sgd' or 'rmsprop'"),
        ("augment.flip=maybe", r"setting augment\.flip is 'maybe': .*boolean"),
        ("network.residual_scale=a,b", r"setting network\.residual_scale is 'a,b': "),
        ("optimizer.lr", r"--set 'optimizer\.lr': expected key=value"),
    ],
)
def test_bad_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Recipe().changed(parse_settings([setting]))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="given twice"):
        parse_settings(["optimizer.lr=1", "optimizer.lr=2"])
