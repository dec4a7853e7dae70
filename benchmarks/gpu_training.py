"""Parts `train` and `cifar` of benchmarks/gpu.py: `inceptionnet train`, in a process of its own.

`train` runs for about a minute on synthetic photographs, so that decoding is included. `cifar` is a complete training.
Its throughput is measured first, and the number of epochs is chosen so that the cosine schedule ends within the time
limit. If it does not, the run is interrupted with Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from gpu_results import Row, spread
from gpu_workers import environment, kill
from PIL import Image

from inceptionnet.train.run import Run

PHOTOGRAPH_PX = (500, 375)
DISTINCT, LINKED = 1600, 12
"""Number of photographs, and of file names for each, so that the start-up of an epoch does not count."""
STOP_S = 8.0
"""Seconds before the time limit at which a run is interrupted; it finishes a step and writes a checkpoint."""
COMPILES_S = 360.0
"""A compiled step is tried too if more seconds than this are left."""
CIFAR = {"train": 50_000, "test": 10_000}


@dataclass
class Training:
    """A run of `inceptionnet train`."""

    data: Path
    out: Path
    device: str
    log: IO[str]
    options: dict[str, object]
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        options = {"out": self.out, "device": self.device, "workers": len(os.sched_getaffinity(0)), **self.options}
        settings = {"compute.precision": "bf16", "log.report": False, "log.every_steps": 1, **self.settings}
        return [
            *("train", str(self.data)),
            *(text for key, value in options.items() for text in (f"--{key}", str(value))),
            *(text for key, value in settings.items() for text in ("--set", f"{key}={value}")),
        ]

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "inceptionnet", *self.arguments],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True, env=environment(),
        )  # fmt: skip
        try:
            yield process
        finally:
            kill(process)

    def steps(self) -> int:
        file = self.out / "steps.jsonl"
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    def epochs(self) -> list[dict[str, float]]:
        return Run(self.out).read_metrics() if (self.out / "metrics.csv").is_file() else []

    def run(self, until: float) -> Iterator[dict[str, float]]:
        """Rows of metrics.csv as they are written, to the end of the run or the time limit. Raises: RuntimeError."""
        told, asked = 0, False
        with self.started() as process:
            while True:
                code = process.poll()
                yield from self.epochs()[told:]
                told = len(self.epochs())
                if code is not None:
                    break
                if not asked and time.monotonic() > until - STOP_S:
                    process.send_signal(signal.SIGINT)
                    asked = True
                if time.monotonic() > until:
                    return
                time.sleep(0.2)
        if code and not (asked and code == 130):
            raise RuntimeError(f"inceptionnet {' '.join(self.arguments)} ended with code {code}; see the log")


def photographs(folder: Path, distinct: int, linked: int, size_px: tuple[int, int], classes: int = 10) -> None:
    """Write JPEGs of coarse colours with noise, `linked` names each in train; a tenth of them are the val split."""

    def make(number: int) -> None:
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size_px, Image.BICUBIC)
        grain = rng.normal(0, 8, (size_px[1], size_px[0], 1))
        image = Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))
        name = f"{number % classes}/{number:05}"
        split = "val" if number // classes % 10 == 0 else "train"
        first = folder / split / f"{name}.jpg"
        first.parent.mkdir(parents=True, exist_ok=True)
        image.save(first, quality=90)
        for i in range(1, linked if split == "train" else 1):
            os.link(first, folder / split / f"{name}_{i:02}.jpg")

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(make, range(distinct)))


def train(device: str, tiny: bool, until: float, folder: Path, log: IO[str]) -> Generator[Row]:
    """Training throughput and the share of time spent waiting for data, per epoch; the first is a warm-up."""
    data, began = folder / "photographs", time.monotonic()
    photographs(data, *((20, 2, (100, 75)) if tiny else (DISTINCT, LINKED, PHOTOGRAPH_PX)))
    files = sorted(data.rglob("*.jpg"))
    size_kb = sum(file.stat().st_size for file in files[:100]) / len(files[:100]) / 1000
    yield {"note": f"{len(files)} JPEGs made in {time.monotonic() - began:.0f} s, {size_kb:.0f} kB each on average"}
    options: dict[str, object] = {"model": "inception_v3", "batch-size": 256, "epochs": 1000}
    if tiny:
        options |= {"batch-size": 8, "epochs": 2, "size": 75, "width": 0.125}
    training, rows = Training(data, folder / "train", device, log, options), list[dict[str, float]]()
    shape = f"{options['model']}, {options.get('size', 299)} px, batch {options['batch-size']}, bf16"
    for row in training.run(until):
        rows.append(row)
        yield {"name": f"epoch {row['epoch']:.0f}", "what": f"{shape}, epoch {row['epoch']:.0f}", **pace([row])}
    if not rows:
        yield {"name": shape, "left_out": "no epoch finished within the time limit"}
    elif warm := rows[1:]:
        yield {"name": "all epochs except the first", "what": f"{shape}, all epochs except the first", **pace(warm)}


def pace(rows: Sequence[dict[str, float]]) -> Row:
    """Table columns of one or more epochs."""
    one = len(rows) == 1
    images, waits = ([row[key] for row in rows] for key in ("images_per_s", "data_wait"))
    return {
        "images/s": images[0] if one else spread(images),
        "data wait, %": 100 * waits[0] if one else spread([100 * share for share in waits]),
    }


@dataclass(frozen=True)
class Speed:
    """Start-up time and throughput, measured in a short run."""

    start_s: float
    """From the start of the command to the first steady step."""
    images_per_s: float

    def epoch_s(self, counts: dict[str, int]) -> float:
        """Estimated time of an epoch: training, evaluation at twice the throughput, and 1.5 s for files."""
        return counts["train"] / self.images_per_s + counts["test"] / (2 * self.images_per_s) + 1.5

    def epochs(self, seconds: float, counts: dict[str, int]) -> int:
        """Number of epochs that fit into `seconds`, with a margin of 5 %."""
        return int(0.95 * (seconds - self.start_s) / self.epoch_s(counts))


def speed_of(training: Training, first: int, last: int, until: float) -> Speed:
    """Measure the throughput from step `first` to `last`; the run is then killed and deleted."""
    batch, began = int(str(training.options["batch-size"])), time.monotonic()
    marks: list[tuple[float, int]] = []
    with training.started() as process:
        while not marks or marks[-1][1] < last:
            steps = training.steps()
            if steps >= first and (not marks or steps > marks[-1][1]):
                marks.append((time.monotonic(), steps))
            if process.poll() is not None and len(marks) < 2:
                raise RuntimeError(f"inceptionnet {' '.join(training.arguments)} ended too early; see the log")
            if process.poll() is not None or time.monotonic() > until:
                break
            time.sleep(0.02)
    shutil.rmtree(training.out, ignore_errors=True)
    if len(marks) < 2:
        raise TimeoutError(f"too few steps to measure in {time.monotonic() - began:.0f} s; expected {last}")
    (start, one), (end, other) = marks[0], marks[-1]
    return Speed(start - began, batch * (other - one) / (end - start))


def made_cifar(folder: Path) -> Path:
    """Write a few images in the layout of the real data set, for --tiny."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        images = []
        for number in range(count):
            file = io.BytesIO()
            pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8) + np.uint8(100 * (number % 2))
            Image.fromarray(pixels).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": f"{number}.png"})
        pq.write_table(pa.table({"image": images, "label": [n % 2 for n in range(count)]}), folder / f"{split}.parquet")
    return folder


def cifar(
    device: str, tiny: bool, data: Path, until: float, folder: Path, log: IO[str], *, compiling: bool
) -> Generator[Row]:
    """Accuracy by elapsed time, of a training that ends within the time limit.

    Args:
        compiling: also try a compiled step, if there is enough time.
    """
    counts = CIFAR
    if tiny and not data.exists():
        data, counts = made_cifar(folder / "cifar10"), {"train": 40, "test": 10}
    # 500 divides 50 000, so a compiled step has one input shape.
    options: dict[str, object] = {"model": "inception_resnet_v1", "size": 79, "batch-size": 500}
    if tiny:
        options |= {"width": 0.125, "batch-size": 10, "size": 75}
    found: dict[bool, Speed] = {}
    for compiled in (False, True) if compiling and until - time.monotonic() > COMPILES_S else (False,):
        settings: dict[str, object] = {"compute.compile": compiled}
        trial = Training(data, folder / f"trial-{compiled}", device, log, {**options, "epochs": 30}, settings)
        limit = time.monotonic() + (until - time.monotonic()) / 2
        try:
            found[compiled] = speed_of(trial, *((1, 4) if tiny else (10, 60)), limit)
        except (RuntimeError, TimeoutError) as error:
            if not compiled:
                raise
            yield {"note": f"compiled: {error}"}
            continue
        how = "compiled" if compiled else "not compiled"
        speed = found[compiled]
        yield {"note": f"{how}: {speed.images_per_s:.0f} images/s after a start of {speed.start_s:.0f} s"}
    left = until - STOP_S - time.monotonic()
    compiled = max(found, key=lambda how: found[how].epochs(left, counts))
    epochs = found[compiled].epochs(left, counts)
    if epochs < 1:
        epoch_s = found[compiled].epoch_s(counts)
        yield {"name": "the training", "left_out": f"no time left: {left:.0f} s, and an epoch takes {epoch_s:.0f} s"}
        return
    epochs = min(epochs, 2) if tiny else epochs
    training = Training(
        data, folder / "cifar", device, log, {**options, "epochs": epochs}, {"compute.compile": compiled}
    )
    yield {"note": f"inceptionnet {' '.join(training.arguments)}"}
    reached = 0
    for row in training.run(until):
        reached = int(row["epoch"])
        (top1,) = [value for key, value in row.items() if key in ("test_top1", "val_top1")]
        yield {"name": f"epoch {reached} of {epochs}", "epoch": f"{reached} of {epochs}",
               "minutes": f"{row['elapsed_s'] / 60:.2f}", "top-1": f"{top1:.2%}", **pace([row])}  # fmt: skip
    if reached < epochs:
        yield {
            "note": f"stopped in epoch {reached + 1} of {epochs}, before the learning rate had decayed: no time left"
        }
