"""How fast each engine runs a network on this machine, measured in turn so that what else happens meets all alike."""

from __future__ import annotations

import ctypes
import gc
import mmap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from inceptionnet.analysis import analyse, multiply_adds
from inceptionnet.engines.runtimes import DTYPES, Engine, Target, build_engine
from inceptionnet.engines.timing import finish, noise, take_turns, timed
from inceptionnet.errors import InceptionNetError
from inceptionnet.model import InceptionNet

PEAK_SIDES, PEAK_TRIES = (256, 512, 1024, 2048, 4096, 8192), 8
"""Of the square matrices whose product is taken for the machine's arithmetic peak, and how often each is tried."""
PEAK_LONG_MS = 50
"""No larger product is tried after one that takes so long: a processor without bf16 needs a minute for 2048×2048."""
CALIBRATION = 4
"""Images of noise for int8, whose speed depends on none of them."""


@dataclass(frozen=True)
class Measurement:
    """What one engine does with batches of one size."""

    network: str
    engine: str
    precision: str
    batch_size: int
    ready_s: float
    """From the network in memory to the first logits."""
    memory_mb: float
    """By which the process's resident memory has grown then (Linux); on CUDA, the device's at most until then."""
    latency_ms: float
    """Of a batch, median over the rounds."""
    p95_ms: float
    images_per_s: float
    """By the median."""
    share_of_peak: float
    """Multiplications and additions of the plain network's convolutions and linear layers each second, as a share of
    what a large matrix product reaches here in fp32, or in bf16 for bf16; more than 1 where an engine saves some of
    them, or computes in int8.
    """

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Skipped:
    """An engine that cannot run here, and why."""

    network: str
    engine: str
    precision: str
    batch_size: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def bench(
    name: str,
    model: InceptionNet,
    engines: Sequence[tuple[str, str]],
    *,
    batch_size: int,
    peaks: Mapping[str, float],
    threads: int,
    rounds: int,
) -> list[Measurement | Skipped]:
    """Measure engines in turn on batches of noise of the size that the network is for; int8 is calibrated on noise too.

    Args:
        name: what the figures go by.
        model: on its device, in evaluation mode.
        engines: by name and precision.
        peaks: from `arithmetic_peak`, by precision.
    """
    size = model.network.input_size
    x = noise(batch_size, model.configuration.in_channels, size).to(model.device)
    ready: list[tuple[Engine, float, float]] = []
    skipped: list[Measurement | Skipped] = []
    for engine, precision in engines:
        calibration = noise(CALIBRATION, *x.shape[1:3]) if precision == "int8" else None
        before, start = _memory_mb(x.device), time.perf_counter()
        try:
            built = build_engine(engine, model, Target(x, precision, threads, calibration))
            built(x)
            finish(x.device)
        except InceptionNetError as error:
            skipped.append(Skipped(name, engine, precision, batch_size, str(error)))
            continue
        ready_s = time.perf_counter() - start
        ready.append((built, ready_s, max(0.0, _memory_mb(x.device, most=True) - before)))
    times = take_turns([built for built, _, _ in ready], x, rounds)
    work = 2 * multiply_adds(analyse(model.network)) * batch_size
    found: list[Measurement | Skipped] = []
    for (built, ready_s, memory), taken in zip(ready, times, strict=True):
        middle = median(taken)
        found.append(
            Measurement(
                name, built.name, built.precision, batch_size, ready_s, memory, middle,
                float(np.percentile(taken, 95)), 1000 * batch_size / middle,
                work / (middle / 1000) / peaks[built.precision],
            )
        )  # fmt: skip
    return found + skipped


def arithmetic_peak(device: torch.device, precision: str, threads: int) -> float:
    """Multiplications and additions a second of the fastest product of two large random matrices."""
    before, peak = torch.get_num_threads(), 0.0
    torch.set_num_threads(threads)
    try:
        for side in PEAK_SIDES:
            a = torch.rand(side, side, device=device, dtype=DTYPES[precision])
            fastest_ms = min(timed(lambda x: x @ x, a) for _ in range(PEAK_TRIES))
            peak = max(peak, 2 * side**3 / (fastest_ms / 1000))
            if fastest_ms > PEAK_LONG_MS:
                break
    finally:
        torch.set_num_threads(before)
    return peak


def _memory_mb(device: torch.device, *, most: bool = False) -> float:
    """Of the process, where the system says it in /proc; else nothing, so that no growth is seen.

    Args:
        most: on CUDA, what was taken at most since this was called without.
    """
    gc.collect()
    if device.type == "cuda":
        if most:
            return torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    with suppress(AttributeError, OSError, TypeError):  # of glibc alone: what is free goes back to the system
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE / 2**20
    except OSError:
        return 0.0
