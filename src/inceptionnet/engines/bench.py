"""Benchmarking engines: latency, throughput and memory, interleaved so that other load affects all engines alike."""

from __future__ import annotations

import ctypes
import gc
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from inceptionnet.engines.builders import build_engine
from inceptionnet.engines.runtimes import DTYPES, Engine, Target
from inceptionnet.engines.timing import finish, noise, take_turns, timed
from inceptionnet.errors import InceptionNetError
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.analysis import analyse, multiply_adds
from inceptionnet.system import settings

PEAK_SIDES, PEAK_TRIES = (256, 512, 1024, 2048, 4096, 8192), 8
"""Sizes of the square matrices whose product measures the arithmetic peak, and the number of tries each."""
PEAK_LONG_MS = 50
"""Larger sizes are skipped after a product slower than this: a CPU without bf16 needs a minute for 2048×2048."""
CALIBRATION = 4
"""Images of noise to calibrate int8 on; its speed does not depend on them."""


@dataclass(frozen=True)
class Measurement:
    """The figures of one engine at one batch size."""

    network: str
    engine: str
    precision: str
    batch_size: int
    load_time_s: float
    """Time from the network in memory to the first logits."""
    memory_mb: float
    """Growth of the process's resident memory during that time (Linux); on CUDA, peak device memory."""
    latency_ms: float
    """Median over the rounds, per batch."""
    p95_ms: float
    """95th percentile over the rounds, per batch."""
    images_per_s: float
    """Throughput, from the median latency."""
    share_of_peak: float
    """FLOP/s of the unfused network's convolutions and linear layers, relative to a large matrix product in the same
    precision on this machine; above 1 if an engine saves operations.
    """

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Skipped:
    """An engine that cannot run on this machine, with the reason."""

    network: str
    engine: str
    precision: str
    batch_size: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
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
    """Benchmark engines, interleaved, on batches of noise of the network's image size; int8 is calibrated on noise.

    Args:
        name: the name in the results.
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
        load_time_s = time.perf_counter() - start
        ready.append((built, load_time_s, max(0.0, _memory_mb(x.device, most=True) - before)))
    times = take_turns([built for built, _, _ in ready], x, rounds)
    work = 2 * multiply_adds(analyse(model.network)) * batch_size
    found: list[Measurement | Skipped] = []
    for (built, load_time_s, memory), taken in zip(ready, times, strict=True):
        middle = median(taken)
        found.append(
            Measurement(
                name, built.name, built.precision, batch_size, load_time_s, memory, middle,
                float(np.percentile(taken, 95)), 1000 * batch_size / middle,
                work / (middle / 1000) / peaks[built.precision],
            )
        )  # fmt: skip
    return found + skipped


def arithmetic_peak(device: torch.device, precision: str, threads: int) -> float:
    """FLOP/s of the fastest product of two large random matrices; for int8, operations/s with sums of 32 bits."""
    peak = 0.0
    with settings.threads(threads):
        for side in PEAK_SIDES:
            product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.matmul
            if precision == "int8":
                a = torch.randint(-127, 128, (side, side), device=device, dtype=torch.int8)
                product = torch._int_mm
            else:
                a = torch.rand(side, side, device=device, dtype=DTYPES[precision])
            fastest_ms = min(timed(partial(product, a), a) for _ in range(PEAK_TRIES))
            peak = max(peak, 2 * side**3 / (fastest_ms / 1000))
            if fastest_ms > PEAK_LONG_MS:
                break
    return peak


def _memory_mb(device: torch.device, *, most: bool = False) -> float:
    """Resident memory of the process from /proc, 0 if there is none; on CUDA, allocated device memory.

    Args:
        most: on CUDA, the peak since the last call without it.
    """
    gc.collect()
    if device.type == "cuda":
        if most:
            return torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    with suppress(AttributeError, OSError, TypeError):  # glibc only: return free memory to the system
        ctypes.CDLL(None).malloc_trim(0)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE / 2**20
    except OSError:
        return 0.0
