"""Memory and time of a training step with and without `compute.gradient_checkpointing`, on the CPU.

python benchmarks/gradient_checkpointing.py [--network inception_v3] [--size 299] [--batch 8] [--rounds 3] [--steps 2]
    [--threads 1]

Every measurement is a process of its own, and the two sides alternate. The step is the one of step_speed.py. Memory is
the peak of the process's resident memory during the steps, less what it had before the first one; the optimiser's state
and the gradients are in it. Time is CPU time per step, after a first step that is not counted.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from step_speed import ours


def resident_mb() -> float:
    """The resident memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measured(given: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    step = ours(given.network, given, "fp32", checkpointing=given.side == "on")
    before = resident_mb()
    step()
    start = time.process_time()
    for _ in range(given.steps):
        step()
    seconds = (time.process_time() - start) / given.steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {"mb": peak - before, "s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="inception_v3")
    for name, default in (("size", 299), ("batch", 8), ("rounds", 3), ("steps", 2), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--side", choices=("off", "on"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.device = "cpu"
    if given.side:
        print(json.dumps(measured(given)))
        return
    found: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for _ in range(given.rounds):
        for side, results in found.items():
            command = [sys.executable, *sys.argv, "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout))
    print("| gradient checkpointing | memory, MB | CPU time of a step, s |\n|---|---|---|")
    for side, results in found.items():
        cells = []
        for key, form in (("mb", "{:.0f}"), ("s", "{:.2f}")):
            values = [result[key] for result in results]
            middle, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
            cells.append(f"{middle} ({low}–{high})")
        print(f"| {side} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
