"""Timing of engines, interleaved, so that other load on the machine affects all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from inceptionnet.engines.runtimes import Engine

AnyRun = Callable[[Tensor], Any]
"""An engine, or any other callable on a batch."""

REST_S = 0.05
"""Pause before a turn: ONNX Runtime's threads slow the next engine by a seventh after 0.01 s, not after 0.03 s."""
ROUNDS, LEAST_ROUNDS = 20, 3
ENOUGH_S, MOST_S = 5.0, 20.0
"""No round starts later than ENOUGH_S after LEAST_ROUNDS rounds, or later than MOST_S after the first."""
SLOW, NEAR = 3.0, 1.25
"""Multiples of the fastest latency: slower engines are dropped after the first round, or after LEAST_ROUNDS rounds, so
that the remaining time is spent on those that may be the fastest.
"""


def take_turns(engines: Sequence[AnyRun], x: Tensor, rounds: int) -> list[list[float]]:
    """Latencies of a batch in ms, one per engine and round: the second of the two calls of each turn."""
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, own in zip(engines, times, strict=True):
            own.append(_turn(engine, x)[1])
    return times


def measured(engines: Sequence[Engine], x: Tensor, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Median latency of a batch in ms, by label, interleaved as in `take_turns` until the fastest is clear.

    In the first round, which decides which engines continue, the faster of the two calls counts.
    """
    times: dict[str, list[float]] = {engine.label: [] for engine in engines}
    limits = {1: SLOW, LEAST_ROUNDS: NEAR}
    began = clock()
    for turn in range(1, ROUNDS + 1):
        for engine in engines:
            first, second = _turn(engine, x, clock)
            times[engine.label].append(second if turn > 1 else min(first, second))
        if turn in limits:
            limit = limits[turn] * min(median(taken) for taken in times.values())
            engines = [engine for engine in engines if median(times[engine.label]) <= limit]
        took = clock() - began
        if took > MOST_S or (took > ENOUGH_S and turn >= LEAST_ROUNDS):
            break
    return {name: round(median(taken), 4) for name, taken in times.items()}


def _turn(engine: AnyRun, x: Tensor, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Latencies of two calls after a pause; the first call loads the weights into the caches again.

    Without the pause, idle threads of the previous engine, which still spin, would slow down a fast one.
    """
    time.sleep(REST_S)
    return timed(engine, x, clock), timed(engine, x, clock)


def timed(engine: AnyRun, x: Tensor, clock: Callable[[], float] = time.perf_counter) -> float:
    """Latency of one batch in ms."""
    start = clock()
    engine(x)
    finish(x.device)
    return (clock() - start) * 1000


def noise(count: int, channels: int, size_px: int) -> Tensor:
    """Uniform noise, always the same. Shapes: → (count, channels, size_px, size_px) in [-1, 1]."""
    return torch.rand(count, channels, size_px, size_px, generator=torch.Generator().manual_seed(0)) * 2 - 1


def finish(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
