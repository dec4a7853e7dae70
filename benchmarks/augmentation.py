"""Cost of each augmentation in training, as a ratio to training without it, through the data loader and the whole step.

python benchmarks/augmentation.py DATA [--rounds 9] [--networks inception_resnet_v1:0.25:75:32 inception_v3:1:299:8]

A network is NAME:WIDTH:SIZE:BATCH. One network and one optimiser train on all variants, one step of each in turn, in
this process (no workers, one thread); two steps of each variant warm up. "input" is the loader alone: decoding, crop,
policy and random erasing. "training" is the loader and the step: transfer, flips, colour, mixing, forward and backward
passes, update. CPU time, since other processes may use the cores.
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import PIL
import torch

from inceptionnet.data.loading import Batch, TrainLoader
from inceptionnet.system.devices import cpu_says
from inceptionnet.train.plan import Job, Plan
from inceptionnet.train.resolve import resolve
from inceptionnet.train.step import Stepper

VARIANTS: dict[str, dict[str, object]] = {
    "none": {},
    "color=full": {"color": "full"},
    "policy=trivial": {"policy": "trivial"},
    "policy=rand": {"policy": "rand"},
    "erase=0.25": {"erase": 0.25},
    "mixup=0.2": {"mixup": 0.2},
    "cutmix=1": {"cutmix": 1},
    "trivial, erase, mixup, cutmix": {"policy": "trivial", "erase": 0.25, "mixup": 0.2, "cutmix": 1},
}
PLAIN = {"optimizer.name": "sgd", "optimizer.lr": 1e-4, "loss.label_smoothing": 0.1}


class Variant:
    """The batches of an augmentation, epoch after epoch."""

    def __init__(self, job: Job, augment: dict[str, object]) -> None:
        settings = {f"augment.{key}": value for key, value in augment.items()}
        self.job = replace(job, recipe=job.recipe.changed(settings))
        self.batches = self.endless()
        self.input: list[float] = []
        """CPU seconds per image."""
        self.training: list[float] = []

    def endless(self) -> Iterator[Batch]:
        job, plan = self.job, self.job.plan
        loader = TrainLoader(
            job.source.splits["train"],
            job.prep,
            job.augment,
            batch_size=plan.batch_size,
            seed=0,
            workers=0,
            corrupt_images="skip",
        )
        for epoch in itertools.count(1):
            yield from loader.epoch(epoch)

    def step(self, stepper: Stepper, number: int) -> None:
        stepper.job = self.job
        start = time.process_time()
        batch = next(self.batches)
        loaded = time.process_time()
        if stepper.step(batch, number).skipped:
            raise SystemExit("a step was skipped, so the times are not valid; use a larger batch or size")
        self.input.append((loaded - start) / len(batch))
        self.training.append((time.process_time() - start) / len(batch))


def compare(data: str, network: str, rounds: int) -> None:
    name, width, size, batch = network.split(":")
    plan = Plan(data, name, width=float(width), size=int(size), batch_size=int(batch), settings=PLAIN)
    job = resolve(plan)
    model = job.model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stepper = Stepper(model, job, steps_per_epoch=1000)
    variants = {what: Variant(job, augment) for what, augment in VARIANTS.items()}
    for number, (_, one) in itertools.product(range(2 + rounds), variants.items()):
        one.step(stepper, number)
    print(f"{name}, width {width}, {size} px, batch {batch}: median (range)")
    plain = variants["none"]
    for what, one in variants.items():
        cells = []
        for kind in ("input", "training"):
            mine, base = getattr(one, kind)[2:], getattr(plain, kind)[2:]
            ratios = sorted(b / a for a, b in zip(mine, base, strict=True))
            rate = f"{1 / statistics.median(mine):.1f} images/s"
            cells.append(f"{kind} {rate}, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")
        print(f"  {what:<30} {'; '.join(cells)}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--networks", nargs="+", default=["inception_resnet_v1:0.25:75:32", "inception_v3:1:299:8"])
    given = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, pillow {PIL.__version__}, Python {platform.python_version()}", end=", ")
    print(f"{cpu_says('model name') or platform.processor()}, {given.rounds} rounds of one step")
    for network in given.networks:
        compare(given.data, network, given.rounds)


if __name__ == "__main__":
    main()
