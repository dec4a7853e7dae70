"""A run that is killed anywhere and resumed ends with the weights of the run that never was, bit for bit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from inceptionnet.errors import Interrupted, RunError, WeightsError
from inceptionnet.system.files import replacing
from inceptionnet.train import checkpoint
from inceptionnet.train.changes import Changes
from inceptionnet.train.checkpoint import Checkpoints
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper

from .conftest import COLOURS, differing, steps_of, tiny_plan, write_images
from .data.made import write_tar
from .data.server import Site
from .forked import Forked

# All that has a state or is random: momentum and mean squares, averages, masks, augmentation, order, parts of a step.
SETTINGS = {
    "optimizer.name": "rmsprop", "optimizer.lr": 0.02, "optimizer.clip_norm": 2, "average.decay": 0.99,
    "network.dropout": 0.4, "augment.color": "full", "augment.interpolation": "random", "checkpoint.every_steps": 2,
    "log.every_steps": 1, "augment.policy": "trivial", "augment.erase": 0.5, "augment.mixup": 0.4, "augment.cutmix": 1,
    "data.sampler": "balanced",
}  # fmt: skip

# Runs in a process of its own; what comes first in it kills that process at some point.
KILLED = """
import json, os, signal, sys
import torch
from pathlib import Path
from inceptionnet.train import checkpoint, keeper, loop, step, validation
from inceptionnet.train.plan import Plan

calls = {}
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def nth(name, n):
    calls[name] = calls.get(name, 0) + 1
    return calls[name] == n
%s
loop.train(Plan(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""

BEFORE_STEP = """
plain = step.Stepper.step
def stepped(self, *arguments):
    if nth("step", %d): kill()
    return plain(self, *arguments)
step.Stepper.step = stepped
"""
WITHIN_CHECKPOINT = """
plain = checkpoint.save_file
def half(tensors, file, metadata):
    plain(tensors, file, metadata)
    if nth("save", 3):
        whole = Path(file).read_bytes()
        Path(file).write_bytes(whole[:len(whole) // 2])
        kill()
checkpoint.save_file = half
"""
BEFORE_RENAME = """
import inceptionnet.system.files
plain = os.replace
def renamed(source, target):
    if "step-" in str(target) and nth("rename", 3): kill()
    plain(source, target)
inceptionnet.system.files.os.replace = renamed
"""
AFTER_CHECKPOINT = """
plain = checkpoint.Checkpoints.save
def saved(self, *arguments):
    left = plain(self, *arguments)
    if nth("saved", 3): kill()
    return left
checkpoint.Checkpoints.save = saved
"""
WITHIN_EVALUATION = """
plain = validation.evaluate_model
def evaluated(*arguments, **options):
    if nth("evaluate", 3): kill()
    return plain(*arguments, **options)
validation.evaluate_model = evaluated
"""
BEFORE_WEIGHTS = """
plain = keeper.save_weights
def saved(*arguments, **options):
    if nth("weights", 4): kill()
    plain(*arguments, **options)
keeper.save_weights = saved
"""
BEFORE_BEST = """
plain = keeper.Run.keep_best
def kept(self):
    if nth("best", 1): kill()
    plain(self)
keeper.Run.keep_best = kept
"""
POINTS = {
    "before the first step": BEFORE_STEP % 1,
    "within an epoch": BEFORE_STEP % 6,
    "between the halves of a checkpoint": WITHIN_CHECKPOINT,
    "before a checkpoint gets its name": BEFORE_RENAME,
    "after a checkpoint": AFTER_CHECKPOINT,
    "within an evaluation": WITHIN_EVALUATION,
    "before the averaged weights are written": BEFORE_WEIGHTS,
    "before the best weights are copied": BEFORE_BEST,
}


def plan(data: Path) -> Plan:
    return tiny_plan(data, epochs=3, accumulate=2, settings=SETTINGS)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    out = tmp_path_factory.mktemp("resume") / "whole"
    train(plan(colours), out)
    return out


def killed(forked: Forked, data: Path, out: Path, how: str) -> None:
    done = forked(KILLED % how, json.dumps(asdict(plan(data))), out, strict=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def assert_same(run: Path, whole: Path) -> None:
    """Weights, averages, optimiser and figures; the times alone may differ."""
    weights = [f"weights{of}.safetensors" for of in ("", "_raw", "_best")]
    for file in (*weights, "checkpoints/step-00000012.safetensors"):
        assert differing(run / file, whole / file) == [], file
    times = {"images_per_s", "data_wait", "elapsed_s", "data_wait_s"}
    for read in (lambda out: Run(out).read_metrics(), steps_of):
        rows = [[{k: v for k, v in row.items() if k not in times} for row in read(out)] for out in (run, whole)]
        assert rows[0] == rows[1]
    assert not list(run.glob(".*")) and not list((run / "checkpoints").glob(".*"))


QUICK = ("within an epoch",)


@pytest.mark.parametrize(
    "point", [point if point in QUICK else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]
)
def test_killed_and_resumed_is_never_killed(
    point: str, colours: Path, whole: Path, tmp_path: Path, with_training: Forked
) -> None:
    killed(with_training, colours, tmp_path / "run", POINTS[point])
    resume(tmp_path / "run", changes=Changes(machine={"workers": 2}))
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_killed_twice(colours: Path, whole: Path, tmp_path: Path, with_training: Forked) -> None:
    killed(with_training, colours, tmp_path / "run", BEFORE_STEP % 4)
    again = (BEFORE_STEP % 4).join(("", "\nloop.resume(Path(sys.argv[2]))\n"))
    killed(with_training, colours, tmp_path / "run", again)
    resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_finished_run_stays_as_it_is(whole: Path, colours: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_repeated_from_its_run_folder_alone(whole: Path, tmp_path: Path) -> None:
    repeat(whole, tmp_path / "run", changes=Changes(machine={"workers": 1}))
    assert_same(tmp_path / "run", whole)
    one, other = (json.loads((folder / "run.json").read_text()) for folder in (whole, tmp_path / "run"))
    assert one["recipe"] == other["recipe"] and one["data"] == other["data"]


def test_a_restart_by_torchrun_resumes(
    colours: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command line a second time; without a run folder yet, from the start."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(plan(colours), tmp_path / "run")
    train(plan(colours), tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_a_broken_checkpoint_gives_way_to_the_one_before(
    colours: Path, whole: Path, tmp_path: Path, with_training: Forked, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(with_training, colours, tmp_path / "run", BEFORE_STEP % 8)
    _, newest = sorted((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    resume(tmp_path / "run")
    assert "warning: step-00000006.safetensors cannot be read" in capsys.readouterr().err
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: b"", "Error while deserializing header"),
        (lambda data: data[: len(data) // 2], "Error while deserializing header"),
        (lambda data: bytes(len(data)), "Error while deserializing header"),
        (lambda data: data[:-16] + bytes(16), "its content does not match its checksum"),
        (lambda data: data.replace(b"model.weight", b"model.height"), "its content does not match its checksum"),
        (lambda data: data.replace(b"epoch", b"epoxy"), "its content does not match its checksum"),
        (lambda data: data.replace(b'"format\\": 3', b'"format\\": 1'), "it is of format 1, this version reads 3"),
        (lambda data: data.replace(b'{\\"format', b' \\"format'), "Extra data"),
        (lambda data: data.replace(b"inceptionnet.training", b"inceptionnet.nonsense"), "inceptionnet.training"),
    ],
    ids=["empty", "half", "zeros", "zero-tail", "tensor", "state", "format", "json", "metadata"],
)
def test_every_kind_of_damage_gives_way_to_the_checkpoint_before(
    damage: Callable[[bytes], bytes], why: str, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (1, 2):
        checkpoints.save(step, {"model.weight": torch.arange(8.0), "model.steps": torch.tensor(step)}, {"epoch": step})
    older, newer = checkpoints.files()
    damaged = damage(newer.read_bytes())
    assert damaged != newer.read_bytes()
    newer.write_bytes(damaged)
    found = checkpoints.newest()
    assert found is not None
    tensors, state, unreadable = found
    assert state["step"] == 1 and tensors["model.steps"] == 1 and tensors["model.weight"].tolist() == list(range(8))
    assert len(unreadable) == 1 and unreadable[0].startswith(f"{newer.name} cannot be read (") and why in unreadable[0]
    older.unlink()
    with pytest.raises(RunError, match="no checkpoint can be read"):
        checkpoints.newest()


def test_no_checkpoint_that_can_be_read_is_said(colours: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint can be read: step-00000012\.safetensors cannot .*another --out"):
        resume(tmp_path / "run")


@pytest.mark.parametrize("kind", ["checkpoints", "weights", "tables"])
def test_a_full_disk_stops_nothing_and_breaks_nothing(
    kind: str, colours: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """From some write on until nearly the end nothing can be written; half of what was begun had been."""
    place = {"checkpoints": "train.checkpoint.save_file", "weights": "weights.native.save_file",
             "tables": "train.out_folder.replacing"}[kind]  # fmt: skip
    owner = replacing if kind == "tables" else checkpoint.save_file
    first = 2 if kind == "tables" else 3  # not the copy of the best weights, which may be the last of its kind
    calls = []

    def full(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if first <= len(calls) <= first + 1:
            if kind != "tables":
                Path(arguments[1]).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return owner(*arguments, **options)

    monkeypatch.setattr(f"inceptionnet.{place}", full)
    train(plan(colours), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 2 and "training continues" in said
    monkeypatch.undo()
    assert_same(tmp_path / "run", whole)


def test_last_weights_that_cannot_be_written_are_an_error(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no next time for them; the checkpoint holds what is needed to write them later."""

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("inceptionnet.weights.native.save_file", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        train(plan(colours), tmp_path / "run")
    monkeypatch.undo()
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").is_file()


def test_too_little_room_is_said_before_training(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"the disk has 1 MiB free, .* need \d+; make room") as caught:
        train(plan(colours), tmp_path / "run")
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    train(tiny_plan(colours, epochs=1), tmp_path / "run")


def test_the_newest_checkpoints_stay(colours: Path, tmp_path: Path) -> None:
    settings = {"checkpoint.every_minutes": 1e-9, "checkpoint.keep": 3}
    train(tiny_plan(colours, epochs=2, settings=settings), tmp_path / "run")
    files = sorted(file.name for file in (tmp_path / "run" / "checkpoints").iterdir())
    assert files == [f"step-0000000{step}.safetensors" for step in (6, 7, 8)]


def test_what_cannot_be_resumed_is_said(colours: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected a run folder, got none with run\.json in it"):
        resume(tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"run\.json: not written by this version"):
        resume(tmp_path / "run")


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("plan", "batch_size", "four"), ("plan", "new", 1), ("plan", "data", None), ("recipe", "loss", 3),
        ("data", "classes", 3), ("data", "images", ["train"]), ("data", "sizes", None), ("environment", None, 3),
        ("changes", None, [3]), ("plan", None, []), ("configuration", "new", 1), ("preprocessing", "size_px", "large"),
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_one_line(whole: Path, tmp_path: Path, group: str, key: str | None, value: Any) -> None:
    shutil.copytree(whole, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    about = json.loads(file.read_text())
    del about["checksum"]
    file.write_text(json.dumps(about | {group: value if key is None else about[group] | {key: value}}))
    for go_on in (lambda: resume(tmp_path / "run"), lambda: repeat(tmp_path / "run", tmp_path / "again")):
        with pytest.raises(RunError, match=r"run\.json: not written by this version") as caught:
            go_on()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_weights_without_their_checkpoints_are_not_overwritten(whole: Path, tmp_path: Path) -> None:
    """Someone made room; to resume would be to train from the start again."""
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    before = Run(tmp_path / "run").weights.read_bytes()
    with pytest.raises(RunError, match=r"has weights, but no checkpoint to resume from; start from the weights with "):
        resume(tmp_path / "run")
    assert Run(tmp_path / "run").weights.read_bytes() == before


def test_a_run_whose_data_has_changed_is_not_resumed(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", 6)
    train(tiny_plan(data, epochs=1), tmp_path / "run")
    (data / "red" / "05.png").rename(data / "red" / "06.png")
    with pytest.raises(
        RunError,
        match=r"expected the images of the run in .*, got other ones: names or labels .*; restore them",
    ) as caught:
        resume(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_streamed_run_stopped_within_an_epoch_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tar shards from a web server: nothing is on the disk, and no image is trained on twice or missed."""
    monkeypatch.setenv("no_proxy", "*")
    files = {}
    for split, count in (("train", 9), ("val", 2)):
        images = sorted(write_images(tmp_path / split, count).rglob("*.png"))
        members = {}
        for i, file in enumerate(images):
            label = sorted(COLOURS).index(file.parent.name)
            members |= {f"{i}.png": file.read_bytes(), f"{i}.cls": b"%d" % label}
        files[f"{split}-0.tar"] = write_tar(tmp_path / f"{split}.tar", members).read_bytes()
    files["classes.txt"] = "\n".join(sorted(COLOURS)).encode()
    files["sizes.json"] = b'{"train-0.tar": 27, "val-0.tar": 6}'
    seen: list[Any] = []
    step = Stepper.step

    def watched(self: Any, batch: Any, number: int) -> Any:
        seen.append((number, batch.indices.tolist(), float(batch.images.double().sum())))
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, number)

    with Site(files).served() as site:
        job = tiny_plan(f"{site.url}/", epochs=2, workers=1, settings={"log.report": True})
        train(job, tmp_path / "whole")
        monkeypatch.setattr(Stepper, "step", watched)
        with pytest.raises(Interrupted):
            train(job, tmp_path / "run")
        resume(tmp_path / "run")
    assert [number for number, _, _ in seen] == list(range(8))
    assert sorted(i for _, indices, _ in seen[4:] for i in indices) == list(range(27))
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "run" / "curves.png").exists()
    assert not (tmp_path / "run" / "predictions.png").exists(), "a stream's images cannot be asked for by number"
