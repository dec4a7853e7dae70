"""Memory, descriptors and processes after many calls are those after a few: nothing is kept of an image or a batch.

What is measured after N calls is measured again after 4N. A leak of one image or one batch per call is far above what
is allowed; `test_a_leak_is_seen` plants some. With LONG=all the runs are as long as they were when SECURITY.md was
written, which takes half an hour; else a fifth of that.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import inceptionnet
from inceptionnet.classifier import Classifier
from inceptionnet.cli import main
from inceptionnet.train.loop import train
from inceptionnet.train.step import Stepper

from .conftest import tiny_plan

ALL = os.environ.get("LONG") == "all"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
IMAGE = (320, 240, 3)
IMAGE_BYTES = 320 * 240 * 3
CROP_BYTES = 75 * 75 * 3
"""Of what the network sees of it."""


@dataclass(frozen=True)
class Usage:
    """What this process has."""

    memory_bytes: int
    """Resident."""
    descriptors: int
    threads: int
    processes: int
    """Children."""
    tensors: int
    objects: int
    """That the garbage collector knows."""

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        with suppress(AttributeError):  # of another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)  # else what others have freed hides what is kept now
        known = gc.get_objects()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return cls(
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            len(children),
            sum(issubclass(type(one), torch.Tensor) for one in known),
            len(known),
        )


@dataclass(frozen=True)
class Allowed:
    """What may be more after some calls than before."""

    bytes_each: int
    """What a leak would keep of each call."""
    bytes_once: int = 0
    objects_once: int = 20
    """Of caches that fill: of regular expressions, of imports, of fonts."""


COMMAND = Allowed(IMAGE_BYTES, bytes_once=2**25, objects_once=300)
"""An image for each call; few calls, so that what is kept once shows."""


def assert_flat(call: Callable[[], object], count: int, allowed: Allowed) -> None:
    """Nothing has grown between the first quarter of the calls and the last."""
    for _ in range(count // 4):
        call()
    before = Usage.now()
    for _ in range(count - count // 4):
        call()
    assert_same(before, Usage.now(), count - count // 4, allowed)


def assert_same(before: Usage, after: Usage, calls: int, allowed: Allowed) -> None:
    said = f"{before} became {after} in {calls} calls"
    assert after.descriptors <= before.descriptors, said
    assert after.threads <= before.threads and after.processes <= before.processes, said
    assert after.tensors - before.tensors < calls / 4, said
    assert after.objects - before.objects < calls / 4 + allowed.objects_once, said
    assert after.memory_bytes - before.memory_bytes < calls * allowed.bytes_each / 2 + allowed.bytes_once, said


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    model = inceptionnet.create_model("inception_v1.slim", width=0.125, input_size=75, num_classes=3)
    return inceptionnet.load(model, device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Several, so that what is kept for one image is not mistaken for a cache."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, IMAGE, np.uint8)) for _ in range(8)]


@pytest.fixture
def one_by_one(images: list[Image.Image]) -> Iterator[Image.Image]:
    return itertools.cycle(images)


LEAKS: dict[str, Callable[[list[Any], Any], object]] = {
    "an image": lambda kept, seen: kept.append(np.array(seen)),
    "an input": lambda kept, seen: kept.append(torch.empty(3, 75, 75)),
    "a descriptor": lambda kept, seen: kept.append(open(os.devnull, "rb")),  # noqa: SIM115
    "objects": lambda kept, seen: kept.append([{}, {}]),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_seen(leak: str, one_by_one: Iterator[Image.Image]) -> None:
    kept: list[Any] = []
    with pytest.raises(AssertionError, match="in 150 calls"):
        assert_flat(lambda: LEAKS[leak](kept, next(one_by_one)), 200, Allowed(IMAGE_BYTES))
    for one in kept:
        if hasattr(one, "close"):
            one.close()


CALLS: dict[str, Callable[[Classifier, Image.Image], object]] = {
    "predict": lambda classifier, image: classifier.predict(image),
    "logits": lambda classifier, image: classifier.logits(classifier.preprocess(image)),
    "embed": lambda classifier, image: classifier.embed(image),
    "features": lambda classifier, image: classifier.features(image),
    "explain": lambda classifier, image: classifier.explain(image, "1"),
    "an error": lambda classifier, image: classifier.predict(b"not an image", skip_errors=True),
}


@pytest.mark.parametrize("name", ["predict"])
def test_predictions_keep_nothing(name: str, classifier: Classifier, one_by_one: Iterator[Image.Image]) -> None:
    assert_flat(lambda: CALLS[name](classifier, next(one_by_one)), 200, Allowed(CROP_BYTES))


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_long_runs_of_predictions_keep_nothing(
    name: str, classifier: Classifier, one_by_one: Iterator[Image.Image]
) -> None:
    count = 2000 if name == "predict" else 200
    assert_flat(lambda: CALLS[name](classifier, next(one_by_one)), count if ALL else count // 5, Allowed(CROP_BYTES))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_long_training_keeps_nothing(
    workers: int, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of 4 images of 75 px, with a checkpoint and an evaluation in each epoch of 8."""
    size_px, batch, usage, plain, calls = 75, 4, dict[int, Usage](), Stepper.step, itertools.count(1)
    steps = 300 if ALL else 100

    def step(self: Stepper, *given: Any) -> Any:
        result = plain(self, *given)
        if (number := next(calls)) in (steps // 4, steps):
            usage[number] = Usage.now()
        return result

    monkeypatch.setattr(Stepper, "step", step)
    train(tiny_plan(colours, size=size_px, batch_size=batch, epochs=-(-steps // 8), workers=workers), tmp_path / "run")
    # A batch as floats; the figures of each epoch are kept, in some ten objects.
    allowed = Allowed(batch * 3 * size_px**2 * 4, objects_once=15 * steps // 8)
    assert_same(usage[steps // 4], usage[steps], steps - steps // 4, allowed)


LONG = ("report", "train", "explain", "check --weights", "features", "compare", "export")
"""They take a second a call, and are called less often."""


def commands(run: Path, data: Path, tmp: Path) -> dict[str, list[object]]:
    image, alone = data / "red" / "00.png", ["--workers", 0]
    return {
        "models": [], "recipes": [], "weights": [], "show": ["inception_v1.slim"], "study": [],
        "predict": [run, image], "evaluate": [run, data, *alone], "check": [data, *alone],
        "check --weights": [data, "--weights", run, *alone], "explain": [run, image, "--out", tmp / "maps"],
        "features": [run, data, "--out", tmp / "features.parquet", *alone],
        "fid": [data, data, "--weights", run, *alone], "report": [run, "--out", tmp / "report.html", *alone],
        "compare": [run, tmp / "copy", *alone], "convert": [run, tmp / "new.safetensors"],
        "export": [run, tmp / "new.safetensors"],
        "train": [data, "--out", tmp / "new", "--model", "inception_v1.slim", "--size", 32, "--width", 0.125,
                  "--epochs", 1, "--batch-size", 8, "--set", "log.report=false", *alone],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", commands(Path(), Path(), Path()))
def test_commands_keep_nothing(
    name: str,
    run: Path,
    colours: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Calls in one process, as a notebook or a server makes them."""
    count, words = itertools.count(), [*name.split()[:1], *map(str, commands(run, colours, tmp_path)[name])]
    monkeypatch.setattr(sys, "argv", ["inceptionnet", *words])  # once, since the fixture keeps what was there before

    def call() -> None:
        for made in tmp_path.glob("new*"):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        with suppress(SystemExit):
            main()
        assert "error: " not in capsys.readouterr().err
        next(count)

    if name == "compare":
        shutil.copytree(run, tmp_path / "copy")
    calls = 100 if ALL else 8 if name in LONG else 20
    assert_flat(call, calls, COMMAND)
    hidden = [file for file in tmp_path.rglob("*") if file.name.startswith(".") or ".part-" in file.name]
    assert not hidden and next(count) == calls
