"""MLflow and Weights & Biases in their local modes: what is read back is what the run folder says."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from inceptionnet.train.changes import Changes
from inceptionnet.train.loop import resume, train
from inceptionnet.train.run import Run
from inceptionnet.train.trackers.wandb import WandB

from ..conftest import tiny_plan, write_images
from .conftest import Peer

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # within the libraries
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BLOCK, HEADER, FIRST = 32768, 7, 7  # of a .wandb file: LevelDB's log, after seven bytes of its own


@pytest.fixture(autouse=True)
def _nothing_configured(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user without settings and credentials."""
    peer("torchmetrics")  # it imports torch-fidelity, and that torchvision
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("no_proxy", "*")
    with torch.enable_grad():  # the other tests of this folder need none
        yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return write_images(tmp_path / "colours", 8)


def wandb_records(run: Path, *, newest: bool = False) -> Iterator[Any]:
    """The records of all .wandb files of a run folder, or the newest, in the order of writing."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(run.glob("wandb/offline-run-*/*.wandb"))[-1 if newest else 0 :]:
        data, at, whole = file.read_bytes(), FIRST, b""
        while at + HEADER <= len(data):
            length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole += data[at + HEADER : at + HEADER + length]
            at += HEADER + length
            if BLOCK - at % BLOCK < HEADER:
                at += BLOCK - at % BLOCK
            if kind in (1, 4):  # whole, or its last part
                yield Record.FromString(whole)
                whole = b""


def wandb_history(run: Path, *, newest: bool = False) -> list[dict[str, str]]:
    return [
        {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        for record in wandb_records(run, newest=newest)
        if record.HasField("history")
    ]


def mlflow_run(run: Path) -> tuple[Any, Any]:
    """The only run in the store of a run folder, and its client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{run.resolve() / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return found, client


def test_mlflow(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a run"
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "mlflow"}), out)
    resume(out, changes=Changes(epochs=3))
    said = capsys.readouterr().err
    assert "warning" not in said and "INFO" not in said and said.count("mlflow: run a run in sqlite:////") == 2
    found, client = mlflow_run(out)
    run = Run(out)
    rows = run.read_metrics()
    for name in rows[0].keys() - {"epoch", "step", "elapsed_s"}:  # the evaluation before the second start is repeated
        history = [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, name)]
        assert history == [(row["step"], pytest.approx(row[name], rel=1e-5, abs=1e-9)) for row in rows]
    final = run.read_json("evaluation.json")
    assert found.data.metrics["final/top1"] == pytest.approx(final["top1"])
    assert found.data.metrics["final/macro_f1"] == pytest.approx(final["macro_f1"])
    recipe = run.read_json("run.json")["recipe"]
    assert found.data.params["recipe.optimizer.lr"] == f"{recipe['optimizer']['lr']:g}"
    assert found.data.params["recipe.schedule.epochs"] == "2", "a parameter cannot change"
    assert [value for key, value in found.data.tags.items() if key.startswith("changed: schedule.epochs")] == ["2 → 3"]
    assert found.data.params["data.classes"] == "3" and found.data.params["plan.data"] == str(colours)
    assert found.info.status == "FINISHED" and found.info.run_name == "a run"
    assert {one.path for one in client.list_artifacts(found.info.run_id)} == {"evaluation.json"}


def test_mlflow_where_the_user_says(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store changes when the run is resumed: the new one has all epochs."""
    from mlflow import MlflowClient

    plan = tiny_plan(colours, epochs=1, settings={"log.trackers": "mlflow"})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "colours")
    for i, epochs in enumerate((1, 2)):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path / f'{i}.db'}")
        if i == 0:
            client = MlflowClient(uri)
            client.create_experiment("colours", artifact_location=(tmp_path / "artifacts").as_uri())
            train(plan, tmp_path / "run")
        else:
            MlflowClient(uri).create_experiment("colours", artifact_location=(tmp_path / "artifacts").as_uri())
            resume(tmp_path / "run", changes=Changes(epochs=2))
        client = MlflowClient(uri)
        (found,) = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
        assert len(client.get_metric_history(found.info.run_id, "val_top1")) == epochs
    assert not (tmp_path / "run" / "mlflow").exists()


def test_an_mlflow_server_that_is_gone_is_one_warning(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "mlflow"}), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1 and "warning: mlflow failed (" in said
    assert "Traceback" not in said and "secret" not in said
    assert len(Run(tmp_path / "run").read_metrics()) == 2


def test_wandb_offline(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is logged in, and nobody is asked to."""
    out = tmp_path / "a run"
    train(tiny_plan(colours, epochs=2, settings={"log.trackers": "wandb"}), out)
    resume(out, changes=Changes(epochs=3))
    said = capsys.readouterr()
    assert said.out == "" and "warning" not in said.err.lower()
    assert said.err.count("wandb: nobody is logged in (wandb login), so the run is offline, in ") == 2
    assert said.err.count("send it with: wandb sync '") == 2
    run = Run(out)
    rows, history = run.read_metrics(), wandb_history(out)
    assert [int(one["_step"]) for one in history] == [row["step"] for row in rows]
    for name in rows[0].keys() - {"epoch", "step", "elapsed_s"}:  # the evaluation before the second start is repeated
        said_of = [float(one[name]) for one in history]
        assert said_of == [pytest.approx(row[name], rel=1e-5, abs=1e-9) for row in rows]
    records = [*wandb_records(out)]
    started = [record.run for record in records if record.HasField("run")]
    number = run.read_json("trackers.json")["wandb"]["run"]
    assert {one.run_id for one in started} == {number}
    assert {(one.project, one.display_name) for one in started} == {("inceptionnet", "a run")}
    config = {item.key: item.value_json for item in started[0].config.update}
    assert config["recipe.optimizer.name"] == '"adamw"' and config["data.classes"] == "3"
    summary = {
        ".".join(item.nested_key) or item.key: item.value_json
        for record in records
        for item in (*record.summary.update, *record.history.item)
    }
    assert float(summary["final/top1"]) == run.read_json("evaluation.json")["top1"]
    kept = sorted(out.glob("wandb/offline-run-*/files/evaluation.json"))[-1]
    assert kept.read_bytes() == (out / "evaluation.json").read_bytes() and not kept.is_symlink()


def test_wandb_as_the_user_configures_it(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"MODE": "offline", "PROJECT": "p", "NAME": "n", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    train(tiny_plan(colours, epochs=1, settings={"log.trackers": "wandb"}), tmp_path / "run")
    assert "wandb: offline, in " in capsys.readouterr().err
    started = next(record.run for record in wandb_records(tmp_path) if record.HasField("run"))
    assert (started.project, started.display_name) == ("p", "n")


def test_a_wandb_service_that_dies_is_one_warning_and_no_epoch_is_lost(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, calls = WandB.log, []

    def killed(self: WandB, metrics: Any, step: int) -> None:
        calls.append(step)
        if len(calls) == 2:
            cores = [
                one for one in gc.get_objects() if isinstance(one, subprocess.Popen) and "wandb-core" in str(one.args)
            ]
            assert cores
            for one in cores:
                one.kill()
                one.wait()
        plain(self, metrics, step)

    monkeypatch.setattr(WandB, "log", killed)
    train(tiny_plan(colours, epochs=3, settings={"log.trackers": "wandb"}), tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("warning: wandb failed (") == 1 and "Traceback" not in said
    rows = Run(tmp_path / "run").read_metrics()
    assert {int(one["_step"]) for one in wandb_history(tmp_path / "run")} == {row["step"] for row in rows}


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[3])
from tests.peers.conftest import if_there
torch.library.register_fake = if_there(torch.library.register_fake)
from inceptionnet.train import keeper, loop
from inceptionnet.train.plan import Plan

plain = keeper.Keeper.epoch
def epoch(self, row, evaluation):
    plain(self, row, evaluation)
    if row["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
keeper.Keeper.epoch = epoch
loop.train(Plan(**json.loads(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_run_goes_on_in_the_same_runs(colours: Path, tmp_path: Path) -> None:
    plan = tiny_plan(colours, epochs=3, settings={"log.trackers": "mlflow,wandb"})
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(asdict(plan)), str(tmp_path / "run"), str(Path(__file__).parents[2])],
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resume(tmp_path / "run")
    steps = [row["step"] for row in Run(tmp_path / "run").read_metrics()]
    assert len(steps) == 3
    found, client = mlflow_run(tmp_path / "run")
    assert [one.step for one in client.get_metric_history(found.info.run_id, "val_top1")] == steps
    assert found.info.status == "FINISHED"
    # wandb's own process might have been killed too, before it wrote: all that is not certain to be there is repeated.
    assert [int(one["_step"]) for one in wandb_history(tmp_path / "run", newest=True)] == steps
    assert len({file.name for file in (tmp_path / "run").glob("wandb/offline-run-*/*.wandb")}) == 1, "one id"
