"""Experiment trackers: what they are told, and that they neither stop a run nor lose an epoch.

MLflow and Weights & Biases themselves are tried in tests/peers/test_trackers.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from inceptionnet.errors import ConfigurationError, Interrupted, MissingExtraError, TrainingError
from inceptionnet.train.changes import Changes
from inceptionnet.train.loop import resume, train
from inceptionnet.train.recipe import Recipe, parse_settings
from inceptionnet.train.run import Run
from inceptionnet.train.settings import listing
from inceptionnet.train.trackers import tracker
from inceptionnet.train.trackers.subject import Subject, settings_of, without_secrets
from inceptionnet.train.trainer import Trainer

from .conftest import tiny_plan

USED = {"log.trackers": "mlflow"}


class Fake:
    """A tracker that keeps runs in memory, as a server would, and fails at given calls of `log`."""

    runs: ClassVar[dict[str, dict[str, Any]]] = {}
    failing: ClassVar[set[int]] = set()
    calls: ClassVar[int] = 0

    def __init__(self, subject: Subject, known: Mapping[str, Any], metrics: Sequence[str]) -> None:
        number = known.get("run", f"run {len(self.runs)}")
        self.identity = {"run": number}
        self.last_step = known.get("step", -1)
        self.line = f"run {number}"
        self.run = self.runs.setdefault(number, {"rows": [], "abandoned": 0})
        self.run |= {"settings": subject.settings, "changes": subject.changes, "outcome": "running"}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        type(self).calls += 1
        if self.calls in self.failing:
            raise ConnectionError("the server\nis gone")
        self.run["rows"].append((step, dict(metrics)))

    def finish(self, metrics: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        self.run |= {"final": dict(metrics), "files": [file.name for file in files]}

    def close(self, outcome: str) -> None:
        self.run["outcome"] = outcome

    def abandon(self) -> None:
        self.run["abandoned"] += 1


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    monkeypatch.setitem(tracker.BACKENDS, "mlflow", Fake)
    monkeypatch.setitem(tracker.PACKAGES, "mlflow", lambda: None)
    monkeypatch.setattr(Fake, "runs", {})
    monkeypatch.setattr(Fake, "failing", set())
    monkeypatch.setattr(Fake, "calls", 0)
    return Fake


def steps(run: Mapping[str, Any]) -> list[int]:
    return [step for step, _ in run["rows"]]


def test_the_setting_takes_one_or_several_names() -> None:
    def chosen(text: str) -> object:
        return Recipe().changed(parse_settings([f"log.trackers={text}"])).log.trackers

    assert chosen("mlflow") == ("mlflow",)
    assert chosen("wandb, tensorboard,wandb") == ("wandb", "tensorboard")
    assert chosen("none") == () == Recipe().log.trackers
    assert Recipe().changed({"log.trackers": ["mlflow"]}).log.trackers == ("mlflow",)
    for text in ("mlfow", "tensorboard,mlfow", "", "5"):
        with pytest.raises(ConfigurationError, match=r"setting log\.trackers is .*'tensorboard', 'mlflow' or 'wandb'"):
            chosen(text)
    lines = listing(Recipe(), 100)
    assert "log.trackers=none\n" in lines and "Choices: tensorboard, mlflow, wandb." in " ".join(lines.split())


def test_all_settings_every_epoch_and_the_final_evaluation(colours: Path, tmp_path: Path, fake: type[Fake]) -> None:
    train(tiny_plan(colours, epochs=2, settings=USED), tmp_path / "run")
    (told,) = fake.runs.values()
    run = Run(tmp_path / "run")
    for (step, metrics), row in zip(told["rows"], run.read_metrics(), strict=True):
        assert step == row.pop("step") and row.pop("epoch")
        assert metrics == pytest.approx(row, rel=1e-5, abs=1e-9)
    final = run.read_json("evaluation.json")
    assert told["final"]["final/top1"] == final["top1"] and told["final"]["final/loss"] == final["loss"]
    assert told["files"] == ["evaluation.json"]
    assert told["outcome"] == "finished"
    settings = told["settings"]
    assert {f"recipe.{key}" for key, _ in Recipe().items()} <= settings.keys()
    assert settings["recipe.schedule.epochs"] == 2 and settings["plan.batch_size"] == 8
    assert settings["data.classes"] == 3 and settings["data.images.train"] + settings["data.images.val"] == 36
    assert settings["environment.device"] == "cpu"


def test_addresses_are_told_without_secrets() -> None:
    assert without_secrets("https://me:secret@host:80/a-{0..3}.tar?key=secret") == "https://host:80/a-{0..3}.tar"
    assert without_secrets("sqlite:////home/me/a.db") == "sqlite:////home/me/a.db"
    assert without_secrets("who? me@home") == "who? me@home"
    about = {
        "plan": {"data": "https://me:secret@host/a.tar", "settings": {"a.b": 1}}, "recipe": {}, "preprocessing": {},
        "data": {"title": "t", "note": "n", "classes": ["a", "b"], "images": {"train": 4}}, "environment": {},
    }  # fmt: skip
    assert settings_of(about) == {
        "plan.data": "https://host/a.tar", "data.title": "t", "data.note": "n", "data.classes": 2,
        "data.images.train": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("pause", "opened"), [(0, 2), (1e9, 2)])
def test_a_tracker_that_fails_is_one_warning_and_has_every_epoch_in_the_end(
    pause: float, opened: int, colours: Path, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """With a pause it is tried at the end only."""
    monkeypatch.setattr(tracker, "PAUSE", pause)
    fake.failing = {2}
    train(tiny_plan(colours, epochs=4, settings=USED), tmp_path / "run")
    (told,) = fake.runs.values()
    assert steps(told) == [row["step"] for row in Run(tmp_path / "run").read_metrics()]
    assert told["outcome"] == "finished" and told["abandoned"] == 1 and "final/top1" in told["final"]
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and said.count("mlflow: run run 0") == opened
    assert "warning: mlflow failed (ConnectionError: the server is gone); training continues" in said


def test_a_tracker_that_never_works_is_one_warning(
    colours: Path, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracker, "PAUSE", 0)
    fake.failing = set(range(100))
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "mlflow,tensorboard"}), tmp_path / "run")
    assert Run(tmp_path / "run").weights.is_file()
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "Traceback" not in said
    assert len(scalars(tmp_path / "run", "val_top1")) == 2, "the other tracker has everything"


def test_a_resumed_run_continues_in_the_same_run_of_the_tracker(
    colours: Path, tmp_path: Path, fake: type[Fake]
) -> None:
    train(tiny_plan(colours, epochs=2, settings=USED), tmp_path / "run")
    resume(tmp_path / "run", changes=Changes(epochs=3))
    (told,) = fake.runs.values()
    assert steps(told) == [row["step"] for row in Run(tmp_path / "run").read_metrics()]
    assert list(told["changes"].values()) == ["2 → 3"]
    assert Run(tmp_path / "run").read_json("trackers.json") == {
        "mlflow": {"run": "run 0", "step": steps(told)[-1], "closed": True}
    }


def test_a_tracker_that_comes_later_has_the_earlier_epochs_too(colours: Path, tmp_path: Path, fake: type[Fake]) -> None:
    train(tiny_plan(colours, epochs=2), tmp_path / "run")
    assert not (tmp_path / "run" / "trackers.json").exists()
    resume(tmp_path / "run", changes=Changes(epochs=3, settings=USED))
    (told,) = fake.runs.values()
    assert len(steps(told)) == 3


@pytest.mark.parametrize(("error", "outcome"), [(Interrupted("stop"), "interrupted"), (TrainingError("no"), "failed")])
def test_a_run_that_stops_is_closed_as_such(
    error: Exception, outcome: str, colours: Path, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Trainer._epoch

    def stopping(self: Any, epoch: int) -> Any:
        if epoch == 2:
            raise error
        return plain(self, epoch)

    monkeypatch.setattr(Trainer, "_epoch", stopping)
    with pytest.raises(type(error)):
        train(tiny_plan(colours, epochs=2, settings=USED), tmp_path / "run")
    (told,) = fake.runs.values()
    assert told["outcome"] == outcome and len(steps(told)) == 1 and "final" not in told


def test_a_missing_package_is_said_before_any_work(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(
        MissingExtraError, match=r"log\.trackers=wandb needs wandb; .*pip install 'inceptionnet\[wandb\]'"
    ):
        train(tiny_plan(colours, settings={"log.trackers": "wandb"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run / "tensorboard")).Reload()


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(run).Scalars(name)]


def test_tensorboard(colours: Path, tmp_path: Path) -> None:
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "tensorboard"}), tmp_path / "run")
    resume(tmp_path / "run", changes=Changes(epochs=3))
    run = Run(tmp_path / "run")
    rows = run.read_metrics()
    assert scalars(run.path, "val_top1") == [(row["step"], pytest.approx(row["val_top1"], rel=1e-5)) for row in rows]
    final = scalars(run.path, "final/macro_f1")
    assert final[-1] == (rows[-1]["step"], pytest.approx(run.read_json("evaluation.json")["macro_f1"], rel=1e-5))
    from tensorboard.plugins.hparams import plugin_data_pb2

    stored = events(run.path).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(stored).session_start_info.hparams
    assert settings["recipe.optimizer.name"].string_value == "adamw"
    assert settings["plan.batch_size"].number_value == 8 and settings["data.classes"].number_value == 3


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Event files cannot be written from their third record on."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    plain, written = RecordWriter.write, io.StringIO()

    def write(self: Any, data: bytes) -> None:
        written.write("x")
        if len(written.getvalue()) > 12:
            raise OSError(28, "No space left on device")
        plain(self, data)

    monkeypatch.setattr(RecordWriter, "write", write)
    yield


def test_a_full_disk_under_tensorboard_is_one_warning(
    full_disk: None, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "tensorboard"}), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "No space left on device" in said and "Traceback" not in said
    assert len(Run(tmp_path / "run").read_metrics()) == 2
