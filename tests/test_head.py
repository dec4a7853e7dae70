"""`--train-from head`: the classifier by logistic regression on features that the run folder keeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inceptionnet import load
from inceptionnet.cli import main
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.splits import Split
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, Interrupted
from inceptionnet.evaluate.features import features
from inceptionnet.model.network import InceptionNet
from inceptionnet.train import head as head_module
from inceptionnet.train.changes import Changes
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.weights.folder import weights_of

from .conftest import tiny_plan
from .forked import Forked
from .test_distributed import two_processes


def plan(data: Path, run: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Plan:
    start = {"model": None, "width": None, "size": None, "epochs": None, "weights": str(weights_of(run))}
    return tiny_plan(data, settings={"network.train_from": "head", **(settings or {})}, **(start | changes))


@pytest.fixture(scope="module")
def fitted(colours: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("head") / "run"
    train(plan(colours, run), out)
    return out


def parts(run: Path) -> list[Path]:
    return sorted((run / "features").glob("*.safetensors"))


def test_it_is_an_ordinary_run(fitted: Path, colours: Path) -> None:
    there = {file.name for file in fitted.iterdir()}
    assert there >= {"run.json", "weights.safetensors", "metrics.csv", "evaluation.json", "head.json"}
    (row,) = Run(fitted).read_metrics()
    assert (row["epoch"], row["step"], row["lr"]) == (0, 0, 0) and row["val_top1"] == 1
    evaluation = load(fitted, device="cpu").evaluate(colours, split="val").evaluation
    assert evaluation.top1 == row["val_top1"] and evaluation.loss == pytest.approx(row["val_loss"], abs=1e-4)


def test_its_report_shows_how_the_penalty_was_chosen(fitted: Path, tmp_path: Path) -> None:
    again = shutil.copytree(fitted, tmp_path / "run")
    resume(again, changes=Changes(settings={"log.report": True}))
    page = (again / "report.html").read_text()
    assert "fitted by logistic regression" in page and "cross-entropy loss by penalty" in page
    assert not (again / "curves.png").exists()  # there are no epochs


def test_all_but_the_logits_is_as_it_was(fitted: Path, run: Path) -> None:
    before, after = load_file(weights_of(run)), load_file(weights_of(fitted))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.logits.weight", "head.logits.bias"}


def test_the_features_are_those_of_the_network(fitted: Path, colours: Path, run: Path) -> None:
    job = resolve(plan(colours, run))
    split = job.source.splits["train"]
    loader = EvalLoader(split, job.prep, batch_size=7, workers=0, corrupt_images="fail")
    (part,) = map(load_file, parts(fitted))
    assert part["indices"].tolist() == list(range(len(split)))
    for batch, values in features(job.model(), loader, job.prep):
        kept = part["features"][batch.indices]
        assert torch.allclose(kept, torch.from_numpy(values), atol=1e-5)
        assert torch.equal(part["labels"][batch.indices], batch.labels)


def test_the_penalty_has_the_smallest_loss_on_held_out_images(fitted: Path) -> None:
    about = json.loads((fitted / "head.json").read_text())
    assert about["penalty"] == min(about["trials"], key=lambda trial: trial["loss"])["penalty"]
    assert about["folds"] == 5


def test_every_image_runs_through_the_network_once(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], InceptionNet.forward_features

    def counting(model: InceptionNet, x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return real(model, x)

    monkeypatch.setattr(InceptionNet, "forward_features", counting)
    train(plan(colours, run), tmp_path / "run")
    assert sum(seen) == sum(map(len, resolve(plan(colours, run)).source.splits.values()))


def test_an_interrupted_run_goes_on_after_the_parts_that_are_there(
    colours: Path, run: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "PART", 8)
    saved = head_module.Part.save

    def stopping(part: head_module.Part, file: Path) -> None:
        saved(part, file)
        if file.name.startswith("00001"):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(head_module.Part, "save", stopping)
    with pytest.raises(Interrupted, match="the features computed so far are kept"):
        train(plan(colours, run), tmp_path / "run")
    assert len(parts(tmp_path / "run")) == 2
    before = [file.stat().st_mtime_ns for file in parts(tmp_path / "run")]
    monkeypatch.setattr(head_module.Part, "save", saved)
    resume(tmp_path / "run")
    assert [file.stat().st_mtime_ns for file in parts(tmp_path / "run")][:2] == before
    one, other = load_file(weights_of(fitted)), load_file(weights_of(tmp_path / "run"))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)


def test_a_damaged_part_is_computed_again(fitted: Path, tmp_path: Path) -> None:
    again = shutil.copytree(fitted, tmp_path / "run")
    (file,) = parts(again)
    good = file.read_bytes()
    for damaged in (b"", good[: len(good) // 2], b"x" * 100):
        file.write_bytes(damaged)
        resume(again)
        assert load_file(file).keys() == {"features", "indices", "labels"}
    tensors = load_file(file)
    for other in (
        {"other": torch.zeros(1)},
        tensors | {"features": tensors["features"][:, :5].contiguous()},
        tensors | {"features": tensors["features"][:5]},
        tensors | {"indices": tensors["indices"] + 1},
        tensors | {"indices": tensors["indices"].flip(0)},
        tensors | {"labels": 1 - tensors["labels"]},
        {name: tensor[:5].contiguous() for name, tensor in tensors.items()},
    ):
        save_file(other, file, metadata={"errors": "[]"})
        resume(again)
        found = load_file(file)
        assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_a_finished_run_is_resumed_with_the_same_result(fitted: Path, tmp_path: Path) -> None:
    again = shutil.copytree(fitted, tmp_path / "run")
    resume(again)
    assert (again / "weights.safetensors").read_bytes() == (fitted / "weights.safetensors").read_bytes()
    assert [row["epoch"] for row in Run(again).read_metrics()] == [0]


def test_it_is_repeated(fitted: Path, tmp_path: Path) -> None:
    repeat(fitted, tmp_path / "run")
    one, other = load_file(weights_of(fitted)), load_file(weights_of(tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_corrupt_images(colours: Path, run: Path, tmp_path: Path) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    split = resolve(plan(data, run)).source.splits["train"]
    assert isinstance(split, Split)
    (data / split.names[3]).write_bytes(b"no image")
    with pytest.raises(DecodeError, match="remove the file, or skip corrupt images"):
        train(plan(data, run), tmp_path / "failed")
    train(plan(data, run, corrupt_images="skip"), tmp_path / "run")
    (part,) = map(load_file, parts(tmp_path / "run"))
    assert 3 not in part["indices"].tolist() and len(part["indices"]) == len(split) - 1
    assert split.names[3] in (tmp_path / "run" / "decode_errors.txt").read_text()


def test_a_part_of_corrupt_images_only(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    split = resolve(plan(data, run)).source.splits["train"]
    assert isinstance(split, Split)
    monkeypatch.setattr(head_module, "PART", len(split) - 1)
    (data / split.names[-1]).write_bytes(b"no image")
    train(plan(data, run, corrupt_images="skip"), tmp_path / "run")
    resume(tmp_path / "run")
    assert [len(load_file(file)["labels"]) for file in parts(tmp_path / "run")] == [len(split) - 1, 0]
    for name in split.names:
        (data / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=f"got {len(split)} of which none can be decoded, such as {split.names[0]}"):
        train(plan(data, run, corrupt_images="skip"), tmp_path / "none")


def test_more_classes_than_the_network_had(run: Path, colours: Path, tmp_path: Path) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    shutil.copytree(data / "red", data / "rouge")
    train(plan(data, run), tmp_path / "run")
    assert load(tmp_path / "run", device="cpu").classes == ("blue", "green", "red", "rouge")


def test_balanced_classes_have_the_same_weight(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    for file in sorted((data / "red").iterdir())[6:]:
        file.unlink()
    given: list[Any] = []
    real = head_module.fit
    monkeypatch.setattr(head_module, "fit", lambda *a, **b: given.append((a[1], b["image_weights"])) or real(*a, **b))
    train(plan(data, run), tmp_path / "plain")
    train(plan(data, run, {"loss.class_weights": "balanced"}), tmp_path / "balanced")
    (_, none), (labels, weights) = given
    assert none is None
    sums = [float(weights[labels == label].sum()) for label in range(3)]
    assert sums == pytest.approx([len(labels) / 3] * 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 3}, "--epochs"),
        ({"settings": {"optimizer.lr": 0.1}}, "optimizer.lr"),
        ({"settings": {"loss.label_smoothing": 0.0}}, "loss.label_smoothing"),
        ({"settings": {"network.aux": True}}, "network.aux"),
        ({"settings": {"batch_norm.mode": "freeze"}, "epochs": 2}, "--epochs and batch_norm.mode"),
    ],
)
def test_settings_without_effect_are_refused(
    changes: dict[str, Any], named: str, colours: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        train(plan(colours, run, **changes), tmp_path / "run")
    assert str(caught.value).startswith("--train-from head fits the classifier by logistic regression, which has no")
    assert all(name in str(caught.value) for name in named.split(" and "))
    assert not (tmp_path / "run").exists()


def command(monkeypatch: pytest.MonkeyPatch, *line: object) -> int:
    monkeypatch.setattr("sys.argv", ["inceptionnet", "train", *map(str, line)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_a_fitted_run_cannot_go_on_for_epochs(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--resume", fitted, "--epochs", 3) == 2
    said = capsys.readouterr().err
    assert "--train-from head fits the classifier by logistic regression, which has no --epochs" in said


def test_other_layers_are_trained_after_it(
    colours: Path, run: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"network.train_from": "inception_5b", "network.fit_head": True, "average.decay": 0.5,
                "batch_norm.mode": "recalibrate", "log.report": True}  # fmt: skip
    train(plan(colours, run, settings, epochs=2), tmp_path / "run")
    first, *others = Run(tmp_path / "run").read_metrics()
    assert [first["epoch"], *(row["epoch"] for row in others)] == [0, 1, 2]
    (alone,) = Run(fitted).read_metrics()
    assert first["val_loss"] == first["val_raw_loss"] == pytest.approx(alone["val_loss"], abs=1e-4)
    assert all(row["lr"] > 0 and row["step"] == 4 * row["epoch"] for row in others)
    assert (tmp_path / "run" / "curves.png").exists() and len(parts(tmp_path / "run")) == 1
    page = (tmp_path / "run" / "report.html").read_text()
    assert "before other layers were trained" in page and "2 epochs in" in page
    said = capsys.readouterr().err
    assert "the classifier is fitted first" in said and "training head, inception_5b" in said


def test_the_step_after_it_starts_from_the_fitted_classifier(
    colours: Path, run: Path, fitted: Path, tmp_path: Path
) -> None:
    settings = {"network.train_from": "inception_5b", "network.fit_head": True, "optimizer.lr": 1e-12}
    train(plan(colours, run, settings, epochs=1), tmp_path / "run")
    one, other = (load_file(weights_of(folder))["head.logits.weight"] for folder in (fitted, tmp_path / "run"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_weights_are_needed(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"network\.fit_head=true fits .* give --weights$"):
        train(tiny_plan(colours, settings={"network.fit_head": True}), tmp_path / "run")


def test_the_command_says_what_it_does(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [colours, "--weights", run, "--train-from", "head", "--workers", 0, "--device", "cpu", "--out"]
    assert command(monkeypatch, *line, tmp_path / "run", "--set", "log.report=false") == 0
    said = capsys.readouterr()
    assert "fitting the classifier alone" in said.err and "by 5-fold cross-validation" in said.err
    assert "accuracy 100.00% on" in said.out and "adamw" not in said.err


@pytest.mark.slow
def test_two_processes_fit_the_same(
    colours: Path, run: Path, fitted: Path, tmp_path: Path, with_training: Forked
) -> None:
    two_processes(with_training, plan(colours, run, device="cpu"), tmp_path / "run")
    one, other = load_file(weights_of(fitted)), load_file(weights_of(tmp_path / "run"))
    assert all(torch.allclose(one[name], other[name], atol=1e-3) for name in one)
