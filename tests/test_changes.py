"""A run that goes on with other settings: what changes, what stays, what is refused, and what is recorded."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inceptionnet import fit
from inceptionnet.data.loading import TrainLoader
from inceptionnet.data.order import BatchOrder, Continued
from inceptionnet.data.splits import Split
from inceptionnet.errors import ConfigurationError, Interrupted, RunError
from inceptionnet.system.distributed import ALONE
from inceptionnet.train.changes import Changes
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper

from .conftest import steps_of, tiny_plan, write_images

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("changes") / "images", 12)


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of four steps, with a cosine schedule."""
    out = tmp_path_factory.mktemp("changes") / "finished"
    train(tiny_plan(images, epochs=2, settings={"log.every_steps": 1}), out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[int]]]]:
    """(number, images) of every step from here on; an exception in `stop_at` interrupts the training before it."""
    seen: list[tuple[int, list[int]]] = []
    plain = Stepper.step

    def step(self: Stepper, batch: Any, number: int) -> Any:
        seen.append((number, batch.indices.tolist()))
        return plain(self, batch, number)

    monkeypatch.setattr(Stepper, "step", step)
    yield seen


def interrupt_after(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from inceptionnet.train.trainer import Trainer

    plain = Trainer._count

    def counted(self: Any, *arguments: Any) -> None:
        plain(self, *arguments)
        if self.at.step + 1 == number:
            self.stop.requested = True

    monkeypatch.setattr(Trainer, "_count", counted)


def about(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())  # type: ignore[no-any-return]


def lr(run: Path) -> list[float]:
    return [row["lr"] for row in steps_of(run)]


def cosine(step: int, steps: int, warmup: float, peak: float) -> float:
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def test_more_epochs_stretch_the_cosine(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, peak = lr(run), 4e-3 * math.sqrt(8 / 32)
    resume(run, changes=Changes(epochs=5))
    said = capsys.readouterr().err
    assert "changed: schedule.epochs 2 → 5" in said and "the cosine schedule now ends after 5 epochs" in said
    assert (
        f"the learning rate goes on at {cosine(8, 20, 4, peak):.3g}; it was {before[-1]:.3g} in the last step" in said
    )
    assert lr(run)[:8] == before
    assert lr(run)[8:] == pytest.approx([cosine(step, 20, 4, peak) for step in range(8, 20)])
    rows = Run(run).read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1]["lr"] == pytest.approx(before[-1], rel=1e-5), "of the schedule that it was trained with"
    assert about(run)["changes"] == [{"epoch": 3, "step": 8, "setting": "schedule.epochs", "before": 2, "after": 5}]
    assert about(run)["recipe"]["schedule"]["epochs"] == about(run)["plan"]["epochs"] == 5


def test_other_schedules_go_on_at_their_rate(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"schedule.name": "exponential", "schedule.decay_epochs": 1, "schedule.decay": 0.5, "log.every_steps": 1}
    settings |= {"schedule.warmup_epochs": 0, "checkpoint.every_steps": 4}
    for name, epochs in (("whole", 3), ("run", 2)):
        train(tiny_plan(images, epochs=epochs, settings=settings), tmp_path / name)
    resume(tmp_path / "run", changes=Changes(settings={"schedule.epochs": "3"}))
    assert "the exponential schedule does not depend on the number of epochs" in capsys.readouterr().err
    assert lr(tmp_path / "run") == lr(tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one), "as if it had had three epochs from the start"


def test_no_fewer_epochs_than_there_were(run: Path) -> None:
    with pytest.raises(ConfigurationError, match="--epochs is 1, but the run is in epoch 2; give 2 or more"):
        resume(run, changes=Changes(epochs=1))
    assert "changes" not in about(run)


@pytest.mark.parametrize(("size", "rest"), [(4, 4), (16, 1), (3, 6), (32, 1)])
def test_another_batch_size_within_an_epoch(
    size: int, rest: int, images: Path, tmp_path: Path, steps: list[tuple[int, list[int]]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The images of the epoch that are left come in batches of the new size; none is repeated or missed."""
    out = tmp_path / "run"
    settings = {"log.every_steps": 1, "optimizer.lr_scaling": "linear", "average.decay": 0.9}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(6, patch)
        train(tiny_plan(images, epochs=3, settings=settings), out)
    trained = sorted(i for _, indices in steps[:4] for i in indices)
    assert trained == list(range(31)) and [len(indices) for _, indices in steps[4:]] == [7, 8]
    resume(out, changes=Changes(batch_size=size))
    per_epoch = -(-len(trained) // size)
    assert [number for number, _ in steps] == list(range(len(steps))), "the numbers of the steps go on"
    assert len(steps) == 6 + rest + per_epoch
    second, third = steps[4 : 6 + rest], steps[6 + rest :]
    for epoch in (second, third):
        assert sorted(i for _, indices in epoch for i in indices) == trained
    assert max(len(indices) for _, indices in steps[6:]) <= size
    peak = 4e-3 * size / 32
    done = [per_epoch * 2 - rest + i for i in range(rest + per_epoch)]
    warmup = min(per_epoch, 3 * per_epoch / 5)
    expected = [cosine(step, 3 * per_epoch, warmup, peak) for step in done]
    assert lr(out)[6:] == pytest.approx(expected), (
        "by the share of the epochs that is done, and scaled as the recipe says"
    )
    assert f"batch_size 8 → {size}" in capsys.readouterr().err
    assert [row["epoch"] for row in Run(out).read_metrics()] == [1, 2, 3]
    assert about(out)["changes"] == [{"epoch": 2, "step": 6, "setting": "batch_size", "before": 8, "after": size}]


def test_interrupted_again_after_a_change_of_batch_size(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed after the change ends as one that is not; and one that changes twice misses no image."""
    settings = {"average.decay": 0.9, "network.dropout": 0.4}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(5, patch)
        train(tiny_plan(images, epochs=2, settings=settings), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    resume(tmp_path / "whole", changes=Changes(batch_size=4))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(8, patch)
        resume(tmp_path / "run", changes=Changes(batch_size=4))
    twice = shutil.copytree(tmp_path / "run", tmp_path / "twice")
    resume(tmp_path / "run")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    resume(twice, changes=Changes(batch_size=8))
    assert [change["after"] for change in about(twice)["changes"]] == [4, 8]


@pytest.mark.parametrize("count", [7, 13, 27, 64])
def test_every_image_once_whatever_the_two_batch_sizes_are(count: int) -> None:
    split = Split([str(i) for i in range(count)], np.zeros(count, np.int64), lambda i: b"")
    for first in (2, 3, 5, 8, 40):
        for second in (2, 3, 5, 8, 40):
            old = BatchOrder(split, first, 1, 1, ALONE)
            old.epoch = 2
            batches = [[key.position for key in keys] for keys in old]
            for done in range(old.total + 1):
                new = BatchOrder(split, second, 1, 1, ALONE)
                began = new.continue_after(old, 2, done)
                new.epoch, new.first = 2, began.batch
                rest = [[key.position for key in keys] for keys in new]
                assert len(rest) == new.total - began.batch and all(1 < len(batch) <= second for batch in rest)
                seen = [i for batch in batches[:done] + rest for i in batch]
                assert len(seen) == len(set(seen)) >= count - 1
                assert [new.planned(batch) for batch in range(began.batch, new.total)] == list(map(len, rest))
                new.epoch, new.first = 3, 0
                assert sum(len(keys) for keys in new) >= count - 1, "the next epoch is a whole one"


def test_a_moved_folder(
    run: Path, images: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, new = str(images), tmp_path / "elsewhere" / "images"
    shutil.copytree(images, new)
    about_run = about(run)
    del about_run["checksum"]
    about_run["plan"]["data"] = gone = f"{images}-gone"
    (run / "run.json").write_text(json.dumps(about_run))
    for line in (
        ("train", "--resume", "--out", run),
        ("train", "--repeat", run, "--out", tmp_path / "again"),
        ("report", run),
    ):
        code, _, err = command(*line)
        assert code == 2 and err == (
            f"error: {gone}: the images of the run in {run} are not there; give their new place with --data\n"
        )
    code, out, err = command("report", run, "--data", new, "--workers", 0)
    assert code == 0, err
    assert "on 5 images, val of the run's own data" in out
    assert about(run) == about_run, "a report changes no settings"
    code, _, err = command("train", "--repeat", run, "--data", new, "--out", tmp_path / "again", "--workers", 0)
    assert code == 0, err
    code, _, err = command("train", "--resume", run, "--data", new, "--workers", 0)
    assert code == 0, err
    assert f"changed: data {gone} → {new}" in err
    assert about(run)["plan"]["data"] == str(new) and about(run)["changes"][0]["setting"] == "data"
    for name in ("run", "again"):
        one, other = (load_file(folder / "weights.safetensors") for folder in (tmp_path / name, run))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_other_images_are_refused(run: Path, images: Path, tmp_path: Path, command: Command) -> None:
    def spoilt(how: str) -> Path:
        folder = shutil.copytree(images, tmp_path / how)
        file = folder / "red" / "05.png"
        if how == "class":
            (folder / "red").rename(folder / "rot")
        elif how == "fewer":
            file.unlink()
        elif how == "size":
            file.write_bytes(file.read_bytes() + b"1")
        return folder

    for how, message in {
        "class": "the classes are not the same (without red and with rot)",
        "fewer": "instead of 31 train, 5 val images",
        "size": "the files of images do not have the same sizes",
    }.items():
        for line in (("--resume", "--out", run), ("--repeat", run, "--out", tmp_path / "new")):
            code, _, err = command("train", *line, "--data", spoilt(how))
            shutil.rmtree(tmp_path / how)
            assert code == 2 and message in err and err.count("\n") == 1, err
            assert "give the place of the same images with --data" in err
    code, out, err = command("report", run, "--data", spoilt("size"), "--out", tmp_path / "r.html", "--workers", 0)
    assert code == 0 and "own data" not in out, "a report can be of other images"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "inception_v3"], "--model inception_v3: cannot change in a run that is resumed"),
        (["--size", 64], "--size 64: cannot change in a run that is resumed, which has 32: it was trained"),
        (["--width", 0.5], "which has 0.125: the checkpoint holds the weights of this width"),
        (["--seed", 3], "--seed 3: cannot change in a run that is resumed, which has 0: the held-out images"),
        (["--recipe", "paper"], "which has default: its settings are those of the run"),
        (["--weights", "hf:timm/inception_v3.tf_in1k"], "which has none: it has started from them"),
        (["--train-from", "head"], "setting network.train_from cannot change from all to head in a run that has begun"),
        (["--set", "optimizer.name=sgd"], "cannot change from adamw to sgd in a run that has begun: the"),
        (["--set", "optimizer.layer_decay=0.5"], "the state of the optimiser is ordered by it; omit it"),
        (["--set", "preprocess.crop=1"], "setting preprocess.crop cannot change from 0.875 to 1 in a run"),
        (["--set", "average.decay=0.9"], "cannot change from none to 0.9 in a run that has begun: the running average"),
        (["--set", "optimizer.rl=1"], "unknown setting 'optimizer.rl': did you mean optimizer.lr"),
        (["--epochs", 0], "schedule.epochs is 0"),
        (["--batch-size", 1], "--batch-size is 1; expected 2 or more"),
        (["--accumulate", 5], "--accumulate is 5; expected at most half of --batch-size 8"),
        (["--repeat", "x"], "give one of them"),
    ],
)  # fmt: skip
def test_what_cannot_change(options: list[object], message: str, run: Path, command: Command) -> None:
    before = (run / "run.json").read_bytes()
    code, _, err = command("train", "--resume", "--out", run, *options)
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and message in err, err
    assert (run / "run.json").read_bytes() == before


def test_the_same_command_again_is_no_change(run: Path, images: Path, command: Command) -> None:
    before = (run / "run.json").read_bytes()
    code, _, err = command(
        "train", "--resume", "--out", run, "--data", images, "--model", "inception_v1.slim", "--width", 0.125, "--size",
        32, "--epochs", 2, "--batch-size", 8, "--seed", 0, "--set", "log.report=false", "--recipe", "default",
    )  # fmt: skip
    assert code == 0 and "changed" not in err, err
    assert (run / "run.json").read_bytes() == before


@pytest.mark.slow
def test_changes_are_in_the_report_and_a_repetition_says_that_it_has_the_last(
    run: Path, tmp_path: Path, command: Command
) -> None:
    code, _, err = command(
        "train", "--resume", run, "--epochs", 3, "--set", "optimizer.lr=0.001", "--set", "loss.label_smoothing=0",
        "--set", "augment.flip=false", "--bn", "recalibrate", "--accumulate", 2, "--corrupt-images", "skip",
        "--workers", 0, "--set", "log.report=true",
    )  # fmt: skip
    assert code == 0, err
    page = (run / "report.html").read_text()
    for words in (
        "schedule.epochs from epoch 3", "2 → 3", "optimizer.lr from epoch 3", "0.004 → 0.001",
        "batch_norm.mode from epoch 3", "update → recalibrate", "corrupt_images from epoch 3",
    ):  # fmt: skip
        assert words in page
    code, _, err = command(
        "train", "--repeat", run, "--out", tmp_path / "again", "--set", "log.report=false", "--workers", 0
    )
    assert code == 0
    assert (
        f"warning: settings of {run} changed while it trained (" in err and "schedule.epochs from epoch 3: 2 → 3" in err
    )
    assert "changes" not in about(tmp_path / "again")


def test_a_repetition_may_have_other_settings(run: Path, tmp_path: Path) -> None:
    repeat(run, tmp_path / "again", changes=Changes(epochs=1, batch_size=4, settings={"optimizer.name": "sgd"}))
    made = about(tmp_path / "again")
    assert made["recipe"]["optimizer"]["name"] == "sgd" and made["plan"]["batch_size"] == 4
    with pytest.raises(ConfigurationError, match="in a run that is repeated, which has 32"):
        repeat(run, tmp_path / "other", changes=Changes(fixed={"size": 64}))


def test_gradient_checkpointing_can_be_switched_on(
    finished: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(5, patch)
        train(tiny_plan(images, epochs=2, settings={"log.every_steps": 1}), tmp_path / "run")
    resume(tmp_path / "run", changes=Changes(settings={"compute.gradient_checkpointing": "true"}))
    assert "changed: compute.gradient_checkpointing false → true" in capsys.readouterr().err
    one, other = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "run", finished))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_fit_goes_on(run: Path, images: Path, tmp_path: Path) -> None:
    fit(images, run, resume=True, epochs=3, workers=0)
    assert [row["epoch"] for row in Run(run).read_metrics()] == [1, 2, 3]
    with pytest.raises(RunError, match="got other ones"):
        fit(write_images(tmp_path / "others", 12, seed=1), run, resume=True)


def test_a_loader_continues_a_stream(images: Path) -> None:
    """What a stream skips, it has read."""
    from inceptionnet.data.preprocess import Augment, Preprocessing
    from inceptionnet.data.splits import StreamSplit

    file = next(images.rglob("*.png")).read_bytes()
    split = StreamSplit("stream", 13, 1, lambda shard: iter([(str(i), 0, file) for i in range(13)]))
    loader = TrainLoader(split, Preprocessing(32), Augment(), batch_size=5, seed=0, workers=0, corrupt_images="fail")
    began = loader.continue_after(1, 1, 2, None)
    assert began == Continued(1, 0, 2)
    rest = [batch.indices.tolist() for batch in loader.epoch(1, began.batch)]
    assert [i for indices in rest for i in indices] == list(range(2, 13))
