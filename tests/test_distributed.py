"""Several processes under torchrun: the same losses as one, every image counted once, and a restart that goes on.

Rounding makes the difference here, not the number of processes: batch norm over few pixels and ReLU turn an input that
differs by 1e-7 into gradients that differ by 1e-3 (in one process too). So float32 is compared on the one network
without batch norm, and networks with it in float64, where nothing is lost in the rounding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inceptionnet.data.augment import to_input
from inceptionnet.train.loop import train
from inceptionnet.train.plan import Plan
from inceptionnet.train.run import Run

from .conftest import differing, steps_of, tiny_plan, write_images
from .forked import Forked, met

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
from inceptionnet.data.augment import to_input
from inceptionnet.system.distributed import joined_world
from inceptionnet.evaluate import evaluation
from inceptionnet.train import search, step, validation
from inceptionnet.train.plan import Plan

plan, out, how = Plan(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
if how == "double":
    torch.set_default_dtype(torch.float64)
    step.to_input = validation.to_input = evaluation.normalise = lambda *arguments: to_input(*arguments).double()
with joined_world() as world:
    if how == "killed" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and world.rank == 1:
        plain = step.Stepper.step
        def stepped(self, batch, number):
            if number == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(self, batch, number)
        step.Stepper.step = stepped
    search.train(plan, out, world)
"""


EVALUATION = """
import sys
from dataclasses import fields
import numpy as np, torch
from inceptionnet import create_model
from inceptionnet.data import Preprocessing, open_source
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.system.distributed import joined_world
from inceptionnet.evaluate.classes import matched_labels, same_classes
from inceptionnet.evaluate.evaluation import Member, evaluate_together

PER_IMAGE = ("indices", "labels", "predicted", "confidence", "in_top", "losses")
torch.manual_seed(0)
source, classes = open_source(sys.argv[1], evaluating=True), ("red", "blue", "green")
views = [Crops(Preprocessing(32), 10), Crops(Preprocessing(48), 12)]
orders = [None, same_classes(classes, ("green", "red", "blue"), "the second")]
with joined_world() as world:
    models = [
        create_model("inception_v1.slim", num_classes=3, input_size=view.prep.size_px, width=0.125).eval()
        for view in views
    ]
    members = [Member(m, view, torch.device("cpu"), order) for m, view, order in zip(models, views, orders)]
    for weight in (w for model in models for w in model.parameters() if w.ndim > 1):
        torch.nn.init.kaiming_normal_(weight)  # an untrained network's own would say the same of every image
    name, split = source.pick("auto", own=False)
    loader = EvalLoader(
        split, views[0].prep, batch_size=3, workers=1, corrupt_images="skip", crops=views, world=world
    )
    result = evaluate_together(
        members, loader, classes, labels_of=matched_labels(source.classes, classes), at_once=5, world=world
    )
    if world.is_main:
        whole = [one.name for one in fields(result) if one.name not in ("members", "file", "network", "threshold")]
        arrays = {name: np.array(getattr(result, name)) for name in whole}
        arrays |= {f"{i}.{name}": getattr(one, name) for i, one in enumerate(result.members) for name in PER_IMAGE}
        np.savez(sys.argv[2], picked=name, processes=world.size, **arrays)
"""


def two_processes(forked: Forked, plan: Plan, out: Path, how: str = "plain") -> None:
    started(forked, SCRIPT, json.dumps(asdict(plan)), str(out), how)


def started(forked: Forked, code: str, *arguments: str) -> None:
    """Two processes that meet as torchrun's do."""
    with met(2) as each:
        done = forked.together(code, *arguments, each=[one | {"PYTHONWARNINGS": "ignore"} for one in each])
    assert [one.returncode for one in done] == [0, 0], "\n".join(one.stderr for one in done)


def torchrun(plan: Plan, out: Path, how: str, *options: str) -> None:
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options,
         str(script), json.dumps(asdict(plan)), str(out), how],
        capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 images, one of them broken: 2 processes do not divide it."""
    folder = write_images(tmp_path_factory.mktemp("distributed") / "data", 11)
    broken = folder / "red" / "03.png"
    broken.write_bytes(broken.read_bytes()[:200])
    return folder


def plan(data: Path, **changes: Any) -> Plan:
    settings = {"log.every_steps": 1, "optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.lr_scaling": "none",
                "optimizer.clip_norm": 1, "average.decay": 0.9, "augment.color": "full", "network.dropout": 0.4,
                "checkpoint.every_steps": 2}  # fmt: skip
    settings |= changes.pop("settings", {})
    return tiny_plan(data, **{"epochs": 2, "batch_size": 9, "corrupt_images": "skip", "settings": settings} | changes)


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in steps_of(run)]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """With all that is random, averages, clipping, auxiliary heads, accumulation, and a batch that does not divide.

    Images are mixed with one another, and one of them is corrupt. At ten times this learning rate the eighth loss
    differs by 4e-5 on an AMD EPYC; at this one all of them do by less than 5e-7.
    """
    settings = {"network.aux": True, "augment.policy": "rand", "augment.erase": 0.5, "augment.mixup": 0.4,
                "augment.cutmix": 1, "data.sampler": "balanced", "log.trackers": "tensorboard",
                "optimizer.lr": 0.001}  # fmt: skip
    job = plan(data, model="inception_v1", size=72, accumulate=2, settings=settings)
    two_processes(with_training, job, tmp_path / "two")
    train(job, tmp_path / "one")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 8 and max(one) - min(one) > 1e-3, "it moves"
    assert two == pytest.approx(one, abs=1e-5)
    results = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")]
    for result in results:
        assert result["images"] == sum(part["support"] for part in result["classes"].values()) == 5
    assert results[1]["loss"] == pytest.approx(results[0]["loss"], abs=1e-5)
    assert (tmp_path / "two" / "decode_errors.txt").read_text() == (tmp_path / "one" / "decode_errors.txt").read_text()
    assert json.loads((tmp_path / "two" / "run.json").read_text())["environment"]["processes"] == 2
    assert len([*(tmp_path / "two" / "tensorboard").iterdir()]) == 1, "the main process alone writes"


@pytest.mark.slow
def test_batch_norm_is_over_the_images_of_all_processes(
    data: Path, tmp_path: Path, with_training: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float64, where the processes' sums differ from one sum by 1e-16 and nothing else may."""
    job = plan(data, model="inception_v2", size=48, settings={"batch_norm.mode": "recalibrate"})
    two_processes(with_training, job, tmp_path / "two", "double")
    for place in ("train.step.to_input", "train.validation.to_input", "evaluate.evaluation.normalise"):
        monkeypatch.setattr(f"inceptionnet.{place}", lambda *arguments: to_input(*arguments).double())
    torch.set_default_dtype(torch.float64)
    try:
        train(job, tmp_path / "one")
    finally:
        torch.set_default_dtype(torch.float32)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-9)
    one, two = (load_file(tmp_path / name / "weights_raw.safetensors") for name in ("one", "two"))
    assert max(float((one[key] - two[key]).abs().max()) for key in one if one[key].is_floating_point()) < 1e-8


@pytest.mark.slow
def test_restarted_processes_resume(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """One of two processes is killed within the second epoch; torchrun itself starts both again."""
    job = plan(data, model="inception_v1.slim", size=32)
    two_processes(with_training, job, tmp_path / "whole")
    torchrun(job, tmp_path / "killed", "killed", "--max-restarts", "1")
    assert differing(*(tmp_path / name / "weights.safetensors" for name in ("whole", "killed"))) == []
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_bit(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """Batch norm is over both processes, in the second computation too."""
    for name, on in (("plain", False), ("saving", True)):
        job = plan(data, model="inception_v1.slim", size=32, settings={"compute.gradient_checkpointing": on})
        two_processes(with_training, job, tmp_path / name)
    assert differing(*(tmp_path / name / "weights.safetensors" for name in ("plain", "saving"))) == []
    assert losses(tmp_path / "plain") == losses(tmp_path / "saving")


@pytest.mark.slow
def test_a_search_of_restarted_processes(data: Path, tmp_path: Path) -> None:
    """Two trials of an epoch of 4 steps, then the better one with two; one process is killed in the last run."""
    job = plan(data, model="inception_v1.slim", size=32, settings={"optimizer.lr": [0.01, 0.001]})
    torchrun(job, tmp_path / "run", "killed", "--max-restarts", "1")
    about = json.loads((tmp_path / "run" / "search.json").read_text())
    assert about["finished"]
    assert [(one["rung"], one["budget"], one["run"]) for one in about["results"]] == [
        (1, 1, "trials/rung-1/01-lr=0.01"), (1, 1, "trials/rung-1/02-lr=0.001"), (2, 2, "."),
    ]  # fmt: skip
    first, second, last = about["results"]
    best = max(first, second, key=lambda one: (one["metrics"]["val_top1"], -one["metrics"]["val_loss"]))
    assert last["trial"] == best["trial"]
    assert [row["epoch"] for row in Run(tmp_path / "run").read_metrics()] == [1, 2]
    assert Run(tmp_path / "run").about()["recipe"]["optimizer"]["lr"] == float(best["settings"]["optimizer.lr"])


STUDY = """
import json, sys
from pathlib import Path
from inceptionnet.study.running import run_study
from inceptionnet.study.spec import Study
from inceptionnet.study.trainings import Asked
from inceptionnet.system.distributed import joined_world
from inceptionnet.train import loop

study, asked, out = Study(**json.loads(sys.argv[1])), Asked(**json.loads(sys.argv[2])), Path(sys.argv[3])
with joined_world() as world:
    trained, plain = [], loop.train
    def train(plan, path, **options):
        trained.append(path.name)
        return plain(plan, path, **options)
    loop.train = train
    result = run_study(study, asked, out, world=world)
    (out / f"rank-{world.rank}.json").write_text(json.dumps([trained, result.to_dict()["comparisons"]]))
"""


@pytest.mark.slow
def test_two_processes_share_the_trainings_of_a_study(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """Each training is made by one of them, both have some, and both know the result."""
    study = {
        "claim": "x", "base": {"model": "inception_v1.slim", "size": 32, "width": 0.125, "epochs": 1, "batch_size": 8},
        "arms": {"a": {}, "b": {"settings": {"optimizer.lr": 1e-5}}},
        "compare": [{"arm": "a", "against": "b", "expect": "equal", "margin": 0.1}],
    }  # fmt: skip
    asked = {"study": "x", "data": str(data), "seeds": 2, "workers": 0, "device": "cpu", "corrupt_images": "skip"}
    started(with_training, STUDY, json.dumps(study), json.dumps(asked), str(tmp_path / "out"))
    (first, found), (second, same) = (
        json.loads((tmp_path / "out" / f"rank-{rank}.json").read_text()) for rank in range(2)
    )
    assert (
        first and second and sorted(first + second) == sorted(path.name for path in (tmp_path / "out/runs").iterdir())
    )
    assert len(first + second) == 4 and found == same and (tmp_path / "out" / "index.html").is_file()


@pytest.mark.slow
def test_two_processes_evaluate_each_image_once(
    tmp_path: Path, with_training: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two networks, 10 crops and 12, on 7 images: of the last batch of 3 one process has nothing; one is broken."""
    folder = write_images(tmp_path / "data", 3)
    (folder / "red" / "01.png").unlink()
    (folder / "green" / "00.png").unlink()
    (folder / "blue" / "02.png").write_bytes(b"not an image")
    started(with_training, EVALUATION, str(folder), str(tmp_path / "two.npz"))
    monkeypatch.setattr(sys, "argv", ["-c", str(folder), str(tmp_path / "one.npz")])
    exec(EVALUATION, {})
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2) and one["picked"] == "all"
    assert set(one.files) == set(two.files)
    assert {"0.predicted", "1.predicted"} <= set(one.files), "each network's own results"
    close = {name for name in one.files if name.rpartition(".")[2] in ("losses", "confidence")}
    for name in set(one.files) - {"processes"} - close:
        assert one[name].tolist() == two[name].tolist(), name
    assert two["decode_errors"][:, 0].tolist() == ["blue/02.png"]
    assert len(set(two["indices"])) == len(two["indices"]) == 6
    assert sorted(two["labels"]) == [0, 0, 1, 1, 2, 2], "red, blue, green: two of each are whole"
    for name in close:
        assert two[name] == pytest.approx(one[name], rel=1e-5)
    assert not np.array_equal(one["0.losses"], one["1.losses"])
    assert len(set(one["losses"].round(6))) == 6, "each image has its own"


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_PORT"])
def test_variables_of_torchrun_that_are_no_numbers(
    command: Any, run: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path
) -> None:
    for variable, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(variable, "two" if variable == name else value)
    code, _, err = command("predict", run, colours, "--out", tmp_path / "out")
    assert code == 2 and err == f"error: {name}='two': expected a number; start the processes with torchrun\n"
