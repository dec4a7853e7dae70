"""Workers of the part `step` of benchmarks/gpu.py: a training step in bf16, and timm's network in a bare loop.

`plain` measures the sides that are not compiled, interleaved, and prints one row per side. `compiled NETWORK BATCH
SIDE` prepares one compiled side and measures one step for each line that it reads. step_speed.py defines the steps.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
from collections.abc import Callable, Sequence

import torch
from gpu_results import Row, ratios, speed
from gpu_workers import Answering, Cell, Side, asked_for, failure, work
from step_speed import Step, in_turns, ours, theirs

NETWORKS = ("inception_v3", "inception_v4", "inception_resnet_v2.slim")
BATCHES = (256, 64)
ROUNDS, STEPS = 5, 3
THREADS = 6
"""CPU threads of a process that compiles; the GPU has memory for few of these processes."""
MEMORY = {"inception_v3": 0.3, "inception_v4": 0.45, "inception_resnet_v2.slim": 0.55}
"""Share of an 80 GB GPU that a step with batch size 256 needs, a conservative estimate."""
SIDES = {"ours": "ours, compiled", "timm": "timm, compiled", "tuned": "timm, compiled (max-autotune)"}
MODES = {"timm": "default", "tuned": "max-autotune"}


def asked(batch: int, given: argparse.Namespace, rounds: int) -> argparse.Namespace:
    """Arguments for the functions of step_speed.py."""
    steps, size = (1, 75) if given.tiny else (STEPS, 299)
    return argparse.Namespace(batch=batch, size=size, device=given.device, precision="bf16", rounds=rounds, steps=steps)


def of(tiny: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Networks and batch sizes, the most informative first."""
    return (NETWORKS[:1], (2,)) if tiny else (NETWORKS, BATCHES)


def planned(tiny: bool, timm: bool) -> list[str]:
    """Names of the rows that `plain` prints."""
    networks, batches = of(tiny)
    sides = ["ours", "timm, channels last"][: 1 + timm]
    return [named(name, batch, by) for batch in batches for name in networks for by in sides]


def cells(tiny: bool, timm: bool, options: Sequence[str]) -> list[Cell]:
    """What is compiled, the most informative first."""
    networks, batches = of(tiny)
    both = ["ours", "timm"][: 1 + timm]
    plans = [(networks[0], batches[0], both)]
    plans += [(name, batch, both) for batch in reversed(batches) for name in networks if (name, batch) != plans[0][:2]]
    plans += [(networks[0], batches[0], ["tuned"])] if timm else []
    return [
        Cell(
            {"network": name, "batch": batch},
            batch,
            [
                Side(
                    named(name, batch, SIDES[side]),
                    SIDES[side],
                    ["gpu_step.py", "compiled", name, str(batch), side, *options],
                    MEMORY[name] * batch / BATCHES[0],
                )
                for side in sides
            ],
        )
        for name, batch, sides in plans
    ]


def named(network: str, batch: int, by: str) -> str:
    return f"{network}, batch {batch}: {by}"


def plain(given: argparse.Namespace, answering: Answering) -> None:
    networks, batches = of(given.tiny)
    for batch in batches:
        for name in networks:
            settings = asked(batch, given, 2 if given.tiny else ROUNDS)
            makes: dict[str, Callable[[], Step]] = {"ours": lambda name=name, of=settings: ours(name, of, "bf16")}
            if importlib.util.find_spec("timm") is not None:
                makes["timm, channels last"] = lambda name=name, of=settings: theirs(name, of, torch.channels_last)
            sides = dict[str, Step]()
            for by, make in makes.items():
                try:
                    step = make()
                    step()
                    sides[by] = step
                except (Exception, SystemExit) as error:
                    answering.say({"name": named(name, batch, by), **failure(error)})
            times = dict[str, list[float]]()
            try:
                times = {by: in_ms(speeds, batch) for by, speeds in in_turns(sides, settings).items()}
            except (Exception, SystemExit) as error:
                answering.say({"name": f"{name}, batch {batch}", **failure(error)})
            for by, taken in times.items():
                row = {"name": named(name, batch, by), "network": name, "batch": batch, "by": by, **speed(taken, batch)}
                other = times.get("timm, channels last", taken)
                answering.say(row if other is taken else ratios(row, taken, other))
            del sides, makes
            tidy(given.device)


def figures(about: Row, times: list[float], batch: int, peak: float) -> Row:
    """Table columns of one compiled side."""
    return speed(times, batch)


def in_ms(speeds: list[float], batch: int) -> list[float]:
    """Convert images/s to ms per step."""
    return [1000 * batch / speed for speed in speeds]


def tidy(device: str) -> None:
    """Free GPU memory for other processes."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def compiled(given: argparse.Namespace) -> tuple[Row, Callable[[], float]]:
    _, name, batch, side = given.what
    settings = asked(int(batch), given, 1)
    if side == "ours":
        step = ours(name, settings, "bf16", compiled=True)
    elif importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError("timm is not installed")
    else:
        step = theirs(name, settings, torch.channels_last, MODES[side])
    for _ in range(2):
        step()

    def turn() -> float:
        taken = in_ms(in_turns({"it": step}, settings)["it"], int(batch))[0]
        tidy(given.device)
        return taken

    tidy(given.device)
    return {}, turn


def main() -> None:
    given = asked_for(__doc__, "NETWORK BATCH SIDE")
    torch.manual_seed(0)
    work(given, plain, compiled)


if __name__ == "__main__":
    main()
