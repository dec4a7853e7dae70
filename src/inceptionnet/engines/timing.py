"""Time taken by engines: in turn, so that whatever else the machine does meets them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

from inceptionnet.engines.runtimes import Engine

AnyRun = Callable[[Tensor], Any]
"""An engine, or anything else that takes a batch."""

REST_S = 0.05
"""Before a turn. ONNX Runtime's threads cost the next engine a seventh of its speed after 0.01 s, none after 0.03 s."""
ROUNDS, LEAST_ROUNDS = 20, 3
ENOUGH_S, MOST_S = 5.0, 20.0
"""No round of a trial begins later than that, after the least number of rounds, or after the first."""
SLOW, NEAR = 3.0, 1.25
"""Times the fastest: an engine that takes longer is left out after the first round of a trial, or after the least
number of rounds, so that the time left goes to those that might be the fastest.
"""


def take_turns(engines: Sequence[AnyRun], x: Tensor, rounds: int) -> list[list[float]]:
    """Times of a batch in ms, for each engine one in each round: the second of the two calls of its turn."""
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(rounds):
        for engine, own in zip(engines, times, strict=True):
            own.append(_turn(engine, x)[1])
    return times


def measured(engines: Sequence[Engine], x: Tensor, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Median time of a batch in ms, by engine: turns as of `take_turns`, until it is clear enough who is the fastest.

    In the first turn, which decides who goes on, the better one of the two calls counts.
    """
    times: dict[str, list[float]] = {engine.name: [] for engine in engines}
    limits = {1: SLOW, LEAST_ROUNDS: NEAR}
    began = clock()
    for turn in range(1, ROUNDS + 1):
        for engine in engines:
            first, second = _turn(engine, x, clock)
            times[engine.name].append(second if turn > 1 else min(first, second))
        if turn in limits:
            limit = limits[turn] * min(median(taken) for taken in times.values())
            engines = [engine for engine in engines if median(times[engine.name]) <= limit]
        took = clock() - began
        if took > MOST_S or (took > ENOUGH_S and turn >= LEAST_ROUNDS):
            break
    return {name: round(median(taken), 4) for name, taken in times.items()}


def _turn(engine: AnyRun, x: Tensor, clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Times of two calls after a rest; for the first one the weights have to come back into the caches.

    Without the rest, quick engines would be measured beside threads of the one before, which still look for work.
    """
    time.sleep(REST_S)
    return timed(engine, x, clock), timed(engine, x, clock)


def timed(engine: AnyRun, x: Tensor, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one batch in ms."""
    start = clock()
    engine(x)
    finish(x.device)
    return (clock() - start) * 1000


def noise(count: int, channels: int, size_px: int) -> Tensor:
    """Noise, always the same. Shapes: → (count, channels, size_px, size_px) in [-1, 1]."""
    return torch.rand(count, channels, size_px, size_px, generator=torch.Generator().manual_seed(0)) * 2 - 1


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
