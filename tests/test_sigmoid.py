"""Training with sigmoid, several labels an image or one logit for two classes; losses and steps against torch's own."""

from __future__ import annotations

import copy
import csv
import json
import logging
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from inceptionnet import create_model, fit, load, save_weights
from inceptionnet.data import Augment
from inceptionnet.data.loading import Batch
from inceptionnet.errors import ConfigurationError
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.model.outputs import Outputs
from inceptionnet.train import figures, logistic, regression
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import best_row
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper
from inceptionnet.train.targets import balanced, cross_entropy, mix, soft, targets_of

from .conftest import COLOURS, tiny_plan, write_images
from .forked import Forked
from .test_distributed import two_processes
from .test_step import SGD, V1, batch, gradients, no_dropout

Command = Callable[..., tuple[int, str, str]]
NAMES = tuple(COLOURS)


def tagged(folder: Path, count: int = 40) -> Path:
    """Images with a patch of each colour that labels.csv names for them: of none to three; a quarter has red."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows: list[tuple[object, ...]] = [("image", *NAMES)]
    for i in range(count):
        has = [i % 2 == 1, i % 4 > 1, i % 8 > 5]
        pixels = rng.normal(128, 10, (32, 39, 3))
        for place, (present, colour) in enumerate(zip(has, COLOURS.values(), strict=True)):
            if present:
                pixels[:, 13 * place : 13 * place + 13] = colour + rng.normal(0, 10, (32, 13, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
        rows.append((f"{i:02}.png", *map(int, has)))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tagged(tmp_path_factory.mktemp("tagged") / "images")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two colours in folders."""
    folder = write_images(tmp_path_factory.mktemp("two") / "colours", 12)
    (folder / "green").rename(folder.parent / "unused")
    return folder


def plan(data: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Plan:
    file = data / "labels.csv"
    labels = {"labels": str(file)} if file.exists() else {}
    return tiny_plan(data, settings=settings, **(labels | changes))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the labels."""
    out = tmp_path_factory.mktemp("runs") / "tagged"
    train(plan(data, {"log.report": True, "augment.flip": False, "augment.area_min": 0.9}, epochs=12), out)
    return out


LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
SEVERAL, ONE = Outputs("sigmoid", 3), Outputs("sigmoid", 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_torchs_binary_cross_entropy(smoothing: float) -> None:
    """Labels are smoothed towards a half."""
    smoothed = LABELS.float() * (1 - smoothing) + smoothing / 2
    found = cross_entropy(LOGITS, soft(targets_of(LABELS, SEVERAL), smoothing, None), SEVERAL)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(LOGITS, smoothed, reduction="sum"))
    one, labels = LOGITS[:, :1], LABELS[:, 0].long()
    found = cross_entropy(one, soft(targets_of(labels, ONE), smoothing, None), ONE)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(one, smoothed[:, :1], reduction="sum"))


def test_balanced_labels_are_weighted_each_by_itself() -> None:
    """torch's pos_weight is the ratio of the two weights; a label that no image has keeps its loss."""
    weights = balanced(LABELS.numpy(), 3)
    torch.testing.assert_close(weights, torch.tensor([[6 / 4, 6 / 8], [6 / 6, 6 / 6], [1, 1]]))
    found = cross_entropy(LOGITS, soft(targets_of(LABELS, SEVERAL), 0, weights), SEVERAL)
    positive = weights[:, 1] / weights[:, 0]
    by_torch = F.binary_cross_entropy_with_logits(LOGITS, LABELS.float(), pos_weight=positive, reduction="none")
    torch.testing.assert_close(found, (by_torch * weights[:, 0]).sum())
    one = balanced(LABELS[:, 0].long().numpy(), 2)
    torch.testing.assert_close(one, weights[0])


def test_smoothed_and_weighted_the_weight_is_that_of_the_label() -> None:
    weights = torch.tensor([[0.5, 2.0], [1.0, 3.0], [0.2, 0.7]])
    found = cross_entropy(LOGITS, soft(targets_of(LABELS, SEVERAL), 0.2, weights), SEVERAL)
    each = F.binary_cross_entropy_with_logits(LOGITS, LABELS.float() * 0.8 + 0.1, reduction="none")
    torch.testing.assert_close(found, (each * torch.where(LABELS, weights[:, 1], weights[:, 0])).sum())


def test_mixed_labels_are_those_of_both_images() -> None:
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    mixed, targets = mix(x, targets_of(LABELS, SEVERAL), torch.arange(6), 6, Augment(mixup=1.0), (0, 1))
    own = 1 - float(mixed[0, 0, 0, 0])
    partner = LABELS[[1, 0, 3, 2, 5, 4]].float()
    torch.testing.assert_close(targets[..., 1], own * LABELS.float() + (1 - own) * partner)
    torch.testing.assert_close(targets.sum(-1), torch.ones(6, 3))
    larger = LABELS if own > 0.5 else partner.bool()
    assert torch.equal(targets.argmax(-1).bool(), larger), "what counts as correct"


def labelled(one: Stepper, size: int, **how: Any) -> Batch:
    """Noise with 3 labels an image, or one of two classes."""
    made = batch(size, **how)
    several = torch.stack([made.rows % 2 == 0, made.rows > 4, made.rows % 3 == 1], 1)
    return replace(made, labels=several if one.outputs.multi_label else made.rows % 2)


def stepper(data: Path, settings: dict[str, Any], **changes: Any) -> Stepper:
    job = resolve(plan(data, SGD | settings, **changes))
    one = Stepper(job.model(), job, steps_per_epoch=4)
    no_dropout(one.model)
    return one


def float_labels(data: Batch) -> torch.Tensor:
    return data.labels.double().reshape(len(data), -1)


@pytest.mark.parametrize("which", ["several", "one"])
def test_loss_and_gradients_are_torchs(which: str, data: Path, two: Path, in_double: None) -> None:
    """The gradient is that of the sum over labels, the stated loss their mean; auxiliary heads too."""
    folder, activation = {"several": (data, "auto"), "one": (two, "sigmoid")}[which]
    settings = {"network.aux": True, "loss.label_smoothing": 0.2, "loss.aux_weight": 0.3}
    one = stepper(folder, settings | {"network.activation": activation}, **V1)
    plain, data_ = copy.deepcopy(one.model.double()).train(), labelled(one, 65)
    truth = float_labels(data_)
    logits = plain.all_logits(data_.images.double() / 127.5 - 1)
    assert {tuple(values.shape) for values in logits.values()} == {(8, 3 if which == "several" else 1)}
    smooth = truth * 0.8 + 0.1
    losses = {head: F.binary_cross_entropy_with_logits(v, smooth, reduction="sum") / 8 for head, v in logits.items()}
    (losses["logits"] + 0.3 * losses["inception_4a"] + 0.3 * losses["inception_4d"]).backward()
    result = one.step(data_, 0)
    assert result.loss == pytest.approx(losses["logits"].item() / truth.shape[1], abs=1e-6)
    assert result.correct == int(((logits["logits"] >= 0) == (truth > 0)).all(1).sum())
    for a, b in zip(gradients(one), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rows", [None, [0, 1, 2, 4, 6, 7, 8]])
def test_parts_give_the_gradients_of_the_whole(data: Path, rows: list[int] | None) -> None:
    found, results = [], []
    for parts in (1, 3):
        one = stepper(data, {"augment.cutmix": 1.0, "loss.class_weights": "balanced"}, accumulate=parts, **V1)
        results.append(one.step(labelled(one, 65, planned=9, rows=rows), 0))
        found.append(gradients(one))
    assert results[0].loss == pytest.approx(results[1].loss, abs=1e-6) and results[0].correct == results[1].correct
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_some_steps_are_those_of_a_loop_in_bare_torch(data: Path, in_double: None) -> None:
    """Weights after three steps of SGD with momentum; [v1] has no batch norm."""
    momentum = {"optimizer.momentum": 0.9, "optimizer.nesterov": False, "optimizer.lr": 0.05}
    one = stepper(data, momentum | {"loss.label_smoothing": 0.1}, **V1)
    plain = copy.deepcopy(one.model.double()).train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
    for number in range(3):
        some = labelled(one, 65, seed=number)
        logits = plain(some.images.double() / 127.5 - 1)
        loss = F.binary_cross_entropy_with_logits(logits, float_labels(some) * 0.9 + 0.05, reduction="sum") / 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert one.step(some, number).loss == pytest.approx(loss.item() / 3, abs=1e-5)
    for a, b in zip(one.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_with_several_labels(command: Command, trained: Path, data: Path, tmp_path: Path) -> None:
    rows = Run(trained).read_metrics()
    assert [key for key in rows[0] if key.startswith(("train_", "val_"))] == [
        "train_loss", "train_subset_accuracy", "val_loss", "val_map", "val_subset_accuracy",
    ]  # fmt: skip
    assert rows[-1]["val_map"] > 0.9 and rows[-1]["train_loss"] < 0.5, "it learns"
    there = {file.name for file in trained.iterdir()}
    assert there >= {"curves.png", "predictions.png", "report.html", "weights_best.safetensors"}
    classifier = load(trained, device="cpu")
    assert classifier.outputs == Outputs("sigmoid", 3) and classifier.classes == NAMES
    metrics = classifier.evaluate(data, labels=data / "labels.csv", split="val")
    about = json.loads((trained / "evaluation.json").read_text())
    assert isinstance(metrics.evaluation, MultiLabelEvaluation)
    for name in ("mean_average_precision", "subset_accuracy", "hamming_loss", "loss"):
        assert about[name] == pytest.approx(metrics.to_dict()[name], abs=1e-5), name
    assert about["mean_average_precision"] == pytest.approx(rows[-1]["val_map"], abs=1e-5)
    assert about["subset_accuracy"] == pytest.approx(rows[-1]["val_subset_accuracy"], abs=1e-5)
    assert about["loss"] == pytest.approx(rows[-1]["val_loss"], abs=1e-5)
    assert about["images"] == len(metrics.evaluation.labels) and 0 < about["images"] < 40
    assert classifier.record.provenance["val_map"] == about["mean_average_precision"]
    page = (trained / "report.html").read_text()
    assert "Best mean average precision on val" in page and "mean average precision by epoch" in page
    code, text, err = command("report", trained, "--out", tmp_path / "page.html", "--workers", 0)
    assert code == 0 and f"subset accuracy {about['subset_accuracy']:.2%} on" in text, err


def test_the_command_its_last_line_and_what_it_says_next(command: Command, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ("--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--epochs", 2, "--workers", 0)
    code, text, err = command("train", data, "--labels", data / "labels.csv", "--out", out, *asked,
                              "--set", "log.report=false")  # fmt: skip
    about = json.loads((out / "evaluation.json").read_text())
    mean, subset = about["mean_average_precision"], about["subset_accuracy"]
    assert code == 0
    assert text.startswith(f"{out}: mean average precision {mean:.3f}, subset accuracy {subset:.2%} on ")
    assert f"mAP {mean:.3f} subset accuracy {subset:.1%}" in err and "train loss" in err
    lines = [line.strip() for line in text.splitlines()[2:]]
    evaluate, predict = (command(*shlex.split(line)[1:]) for line in lines[:2])
    assert evaluate[0] == 0 and f"{subset:.2%}" in evaluate[1], evaluate
    assert predict[0] == 0 and predict[1].count(".png") == 40, predict
    assert json.loads((out / "run.json").read_text())["recipe"]["network"]["activation"] == "sigmoid"


@pytest.mark.slow
def test_resumed_and_repeated_runs_end_the_same(data: Path, tmp_path: Path) -> None:
    asked = {"average.decay": 0.9, "augment.mixup": 0.4, "loss.class_weights": "balanced", "schedule.name": "constant",
             "schedule.warmup_epochs": 0}  # fmt: skip
    train(plan(data, asked, epochs=2), tmp_path / "whole")
    train(plan(data, asked, epochs=1), tmp_path / "parts")
    resume(tmp_path / "parts", changes=Changes(epochs=2))
    repeat(tmp_path / "whole", tmp_path / "again")
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "again")]
    assert files[0] == files[1]
    states = [load(tmp_path / name, device="cpu").model.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    rows = [Run(tmp_path / name).read_metrics() for name in ("whole", "parts")]
    assert "val_raw_map" in rows[0][0]
    assert [row["val_map"] for row in rows[0]] == [row["val_map"] for row in rows[1]]
    with pytest.raises(ConfigurationError, match=r"network\.activation cannot change from sigmoid to softmax"):
        resume(tmp_path / "parts", changes=Changes(settings={"network.activation": "softmax"}))


def test_the_classifier_alone(trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One regression for each label, balanced ones as scikit-learn's."""
    monkeypatch.setattr(logistic, "PENALTIES", (1.0, 1e-1))
    monkeypatch.setattr(regression, "TOLERANCE", 1e-9)
    start = {"model": None, "width": None, "size": None, "epochs": None, "weights": str(trained)}
    settings = {"network.train_from": "head", "loss.class_weights": "balanced", "log.report": True}
    found = train(plan(data, settings, **start), tmp_path / "run")
    (row,) = Run(tmp_path / "run").read_metrics()
    head = Run(tmp_path / "run").read_json("head.json")
    assert head["measure"] == "subset accuracy" and row["train_subset_accuracy"] == pytest.approx(head["accuracy"])
    assert isinstance(found, MultiLabelEvaluation) and row["val_map"] > 0.9
    part = load_file(tmp_path / "run" / "features" / "00000.safetensors")
    x, labels = part["features"], part["labels"]
    assert labels.shape == (len(x), 3)
    logits = load(tmp_path / "run", device="cpu").model.head.get_submodule("logits")(x).detach().numpy()
    mean_square = float(x.square().mean())
    for column in range(3):
        peer = LogisticRegression(
            C=1 / (head["penalty"] * mean_square * len(x)), max_iter=3000, tol=1e-9, class_weight="balanced"
        )
        expected = peer.fit(x, labels[:, column]).decision_function(x)
        assert np.abs(logits[:, column] - expected).max() < 0.01 * np.abs(expected).max()
    loss = F.binary_cross_entropy_with_logits(torch.from_numpy(logits), labels.float(), reduction="none")
    weights = torch.where(labels, *(balanced(labels.numpy(), 3)[:, i] for i in (1, 0)))
    assert row["train_loss"] == pytest.approx(float((loss * weights).mean()), rel=1e-3)


def test_one_logit_for_two_classes(two: Path, tmp_path: Path) -> None:
    """Like softmax with two; fine-tuning from it goes on with one logit, where the classes are the same."""
    out = tmp_path / "run"
    evaluation = train(plan(two, {"network.activation": "sigmoid"}, epochs=6), out)
    classifier = load(out, device="cpu")
    assert classifier.outputs == ONE and classifier.classes == ("blue", "red")
    rows = Run(out).read_metrics()
    assert rows[-1]["val_top1"] == 1 and {"train_top1", "val_loss"} < rows[0].keys()
    metrics = classifier.evaluate(two, split="val")
    about = json.loads((out / "evaluation.json").read_text())
    assert about["threshold"] == 0.5 and about["top1"] == metrics.to_dict()["top1"]
    assert about["loss"] == pytest.approx(metrics.to_dict()["loss"], abs=1e-5)
    assert evaluation.loss == about["loss"]
    again = {"model": None, "width": None, "size": None, "weights": str(out)}
    tuned = resolve(plan(two, **again))
    assert tuned.recipe.network.activation == "sigmoid"
    weight = tuned.model().head.get_submodule("logits").weight
    assert torch.equal(weight, classifier.model.head.get_submodule("logits").weight.cpu())
    alone = fit(two, tmp_path / "head", weights=out, train_from="head", workers=0, device="cpu",
                settings={"log.report": False})  # fmt: skip
    assert alone.outputs == ONE and Run(tmp_path / "head").read_metrics()[0]["val_top1"] == 1
    softmax = resolve(plan(two, {"network.activation": "softmax"}, **again))
    assert softmax.model().outputs == Outputs("softmax", 2)


def started(data: Path, names: tuple[str, ...], tmp_path: Path, logits: int) -> tuple[Any, Any]:
    """The classifier of weights with these classes, and the one that training on the data starts with."""
    torch.manual_seed(1)
    model = create_model("inception_v1.slim", width=0.125, num_classes=logits, input_size=32, activation="sigmoid")
    torch.nn.init.normal_(model.head.get_submodule("logits").bias)
    save_weights(model, tmp_path / "w.safetensors", classes=names)
    changes = {"model": None, "width": None, "size": None, "weights": str(tmp_path / "w.safetensors")}
    begun = resolve(plan(data, {"network.activation": "sigmoid"}, **changes)).model()
    assert begun.outputs == Outputs("sigmoid", logits)
    return (one.head.get_submodule("logits") for one in (model, begun))


@pytest.mark.parametrize(
    ("names", "said", "order"),
    [
        (NAMES, "classifier is kept, since", [0, 1, 2]),
        (("red", "blue", "green"), "in the order of the data's classes", [1, 2, 0]),
        (("red", "blue", "pink"), "its classes are not those of the data", None),
        ((), "its classes are not those of the data", None),
    ],
)
def test_a_classifier_with_the_same_labels_is_kept(
    names: tuple[str, ...], said: str, order: list[int] | None, data: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with caplog.at_level(logging.INFO, "inceptionnet"):
        held, begun = started(data, names, tmp_path, 3)
    assert said in caplog.text
    same = order is not None
    assert torch.equal(begun.weight, held.weight[order or [0, 1, 2]]) == same
    assert torch.equal(begun.bias, held.bias[order or [0, 1, 2]]) == same


def test_one_logit_for_the_classes_in_the_other_order_is_the_negative(two: Path, tmp_path: Path) -> None:
    held, begun = started(two, ("red", "blue"), tmp_path, 1)
    assert torch.equal(begun.weight, -held.weight) and torch.equal(begun.bias, -held.bias)


@pytest.mark.parametrize(
    ("which", "settings", "message"),
    [
        (
            "several",
            {"network.activation": "softmax"},
            "softmax, which is for one label an image; the data has several",
        ),
        ("several", {"data.sampler": "balanced"}, "data.sampler is balanced: .* got several labels an image"),
        ("colours", {"network.activation": "sigmoid"}, "expected several labels an image, or two classes .* 3 classes"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    which: str, settings: dict[str, Any], message: str, data: Path, colours: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train(plan(data if which == "several" else colours, settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_is_that_of_the_best_mean_average_precision() -> None:
    pairs = ((0.5, 1.0), (0.7, 2.0), (float("nan"), 0.0), (0.7, 1.0))
    rows = [{"val_map": value, "val_loss": loss} for value, loss in pairs]
    assert best_row(rows) is rows[3] and best_row(rows[:3]) is rows[1] and best_row(rows[2:3]) is rows[2]
    assert best_row([{"test_map": 1.0, "test_loss": 0.0}]) == {}


def test_early_stopping_says_what_did_not_improve(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left, plain = iter([0.5, 0.4, 0.3, 0.2]), figures.evaluate_labels

    def evaluated(*arguments: Any, **options: Any) -> MultiLabelEvaluation:
        found = plain(*arguments, **options)
        found.__dict__["mean_average_precision"] = next(left)
        return found

    monkeypatch.setattr(figures, "evaluate_labels", evaluated)
    train(plan(data, {"schedule.patience": 1}, epochs=4), tmp_path / "run")
    said = capsys.readouterr().err
    assert "stopped early, after epoch 2 of 4: no better mean average precision on val in the last epoch" in said
    assert "best epoch 1: val mean average precision 0.500, last epoch 0.400" in said


@pytest.mark.slow
def test_two_processes_train_as_one(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """[v1] has no batch norm, so that only sums in another order differ."""
    settings = {"augment.mixup": 0.4, "loss.class_weights": "balanced", "network.dropout": 0.0}
    asked = plan(data, settings, epochs=1, **V1)
    train(asked, tmp_path / "one")
    two_processes(with_training, asked, tmp_path / "two")
    one, other = (Run(tmp_path / name).read_metrics()[0] for name in ("one", "two"))
    for name in ("train_loss", "train_subset_accuracy", "val_loss", "val_map", "val_subset_accuracy"):
        assert one[name] == pytest.approx(other[name], abs=1e-3), name
