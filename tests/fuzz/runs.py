"""Targets: what a training has left behind, and what a study says."""

from __future__ import annotations

import atexit
import json
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random

from safetensors.torch import load

from inceptionnet.classifier.evaluating import evaluate_together
from inceptionnet.classifier.loading import load as load_classifier
from inceptionnet.cli.compare import _print as print_comparison
from inceptionnet.report.page import rendered
from inceptionnet.study.comparison import compare
from inceptionnet.study.spec import BUILTIN, read_study
from inceptionnet.system.checksum import CHECKSUM, checksum
from inceptionnet.system.distributed import ALONE
from inceptionnet.train import loop, search
from inceptionnet.train.checkpoint import STATE
from inceptionnet.train.plan import read_job
from inceptionnet.train.reporting import subject
from inceptionnet.train.run import Run
from inceptionnet.train.trainer import Trainer

from ..conftest import tiny_plan, write_images
from .mutate import RAW, Mutation, odd_json, of_json, of_text
from .target import Attempt, Target

JSONS = ("run.json", "evaluation.json", "search.json")


def _studies(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(BUILTIN.glob("*.toml"))}


@cache
def _trained() -> Path:
    """A folder with a run, and its images beside it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    images = write_images(folder / "images", 4)
    settings = {"checkpoint.every_steps": 1, "log.every_steps": 1, "optimizer.name": "rmsprop", "average.decay": 0.9}
    loop.train(tiny_plan(images, epochs=2, batch_size=4, settings=settings), folder / "run")
    about = json.loads((folder / "run" / "run.json").read_text())
    about["plan"]["data"] = "/images"
    del about["checksum"]
    (folder / "run" / "run.json").write_text(json.dumps(about))
    results = [{"trial": 0, "settings": {}}]
    (folder / "run" / "search.json").write_text(json.dumps({"plan": about["plan"], "results": results}))
    return folder


def _beside(folder: Path) -> None:
    shutil.copytree(_trained() / "run", folder, dirs_exist_ok=True)
    shutil.copytree(_trained() / "run", folder / "other")
    shutil.copytree(_trained() / "images", folder / "images")


def _files(folder: Path) -> Mapping[str, bytes]:
    names = ("run.json", "metrics.csv", "evaluation.json", "steps.jsonl", "search.json")
    return {name: (_trained() / "run" / name).read_bytes() for name in names}


def _of_report(folder: Path) -> Mapping[str, bytes]:
    head = {
        "penalty": 0.1,
        "measure": "accuracy",
        "accuracy": 0.9,
        "summary": "3 images, 50% right",
        "trials": [{"penalty": 0.1, "loss": 0.5, "accuracy": 0.9}, {"penalty": 1, "loss": 0.7, "accuracy": 0.8}],
    }
    rates = [{"lr": 10.0**i, "loss": 1.0 + i, "smoothed": 2.0 + i} for i in (-3, -2, -1)]
    test = {"recipe_lr": 0.1, "rises_at": None, "peak_lr": 0.05, "trials": rates}
    found = {"head.json": json.dumps(head).encode(), "range_test.json": json.dumps(test).encode()}
    return found | {"metrics.csv": _files(folder)["metrics.csv"]}


def in_run(name: str) -> Mutation:
    return of_json if name.endswith(".json") else of_text


def _read_run(path: Path, attempt: Attempt) -> None:
    folder = path.parent
    run = Run(folder)
    attempt(run.forget_steps, 10**9)
    attempt(run.evaluated_on)
    attempt(run.changes)
    attempt(run.device)
    attempt(search.ranking, folder)
    if found := attempt(compare, [folder, folder / "other"], data=str(folder / "images")):
        attempt(json.dumps, found.to_dict())
        attempt(print_comparison, found)


@cache
def _evaluated() -> tuple[object, ...]:
    classifier = load_classifier(_trained() / "run")
    found = evaluate_together([classifier], str(_trained() / "images"), split="val")
    return classifier.record, classifier.model, found.metrics, found.source, found.split_name, found.split


def _report(path: Path, attempt: Attempt) -> None:
    if about := attempt(subject, Run(path.parent), *_evaluated()):
        attempt(rendered, about)


def _checkpoint(folder: Path) -> Mapping[str, bytes]:
    newest = sorted((_trained() / "run" / "checkpoints").iterdir())[-1]
    return {newest.name: newest.read_bytes()}


def _beside_checkpoint(folder: Path) -> None:
    shutil.copytree(_trained() / "run", folder / "run", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(_trained() / "images", folder / "images")


def of_checkpoint(chance: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Its state, with a checksum that fits; sometimes any bytes."""
    if chance.random() < 0.2:
        return RAW(chance, content, others)
    (size,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    about = header["__metadata__"]
    about[STATE] = odd_json(chance, json.loads(about[STATE]))
    with suppress(UnicodeEncodeError):  # half a character
        about[CHECKSUM] = checksum(about[STATE], load(content))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def _resume(path: Path, attempt: Attempt) -> None:
    run = Run(path.parent / "run")
    (run.path / "checkpoints").mkdir()
    path.rename(run.path / "checkpoints" / path.name)
    if job := attempt(read_job, run, str(path.parent / "images")):
        attempt(Trainer, job, run, ALONE, resumed=True)
    shutil.rmtree(run.path / "checkpoints")


TARGETS = [
    Target("studies", _studies, lambda _: of_text, lambda path, attempt: attempt(read_study, str(path)), 200),
    Target("runs", _files, in_run, _read_run, 2, _beside),
    Target("report", _of_report, in_run, _report, 1, _beside),
    Target("checkpoints", _checkpoint, lambda _: of_checkpoint, _resume, 10, _beside_checkpoint),
]
