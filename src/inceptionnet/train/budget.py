"""A time budget, `--time`: the image size and the number of epochs that fit into it, by the speed measured here.

Both are planned before the run; the schedule then follows the clock, so that the run ends in time on a machine that
becomes slower or faster. What is planned is written to the log and to run.json.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count

import torch

from inceptionnet.data.augment import to_input
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.analysis import minimum_size
from inceptionnet.system.devices import cores_allowed
from inceptionnet.system.distributed import World
from inceptionnet.train import range_test
from inceptionnet.train.plan import Job
from inceptionnet.train.position import Position
from inceptionnet.train.recipes import evaluation_interval
from inceptionnet.train.step import Stepper

SECONDS = {"s": 1, "m": 60, "h": 3600}
SMALLER = (1.0, 0.8, 0.65, 0.5)
"""The image sizes that are tried, relative to the one of the weights or the network."""
FEWEST = 5
"""A smaller image is taken if the budget has fewer epochs than this."""
PROBE, PROBES = 16, 3
"""Images of a batch to measure the speed with, and number of batches, the first of which is not counted. With
fewer the speed is too low: the update of the weights counts more, and the second step is slower than later ones."""
CHEAP_S = 1.0
"""If a step on a whole batch takes less, the speed is measured again with whole batches: fast networks are small, and
the update of the weights counts more there too."""
RANGE_TEST_SHARE = 0.1
"""A range test may take this share of the time."""
REPORT_S = 8.0
"""Seconds that the plots and the report take, besides REPORT_IMAGES times the training of an image."""
REPORT_IMAGES = 60


def minutes_of(text: str | None) -> float | None:
    """Minutes of a duration such as `90s`, `10m`, `1.5h` or `1h30m`, if there is one. Raises: ConfigurationError."""
    if text is None:
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigurationError(f"--time is {text!r}; expected a duration such as 90s, 10m, 1.5h or 1h30m")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if not seconds:
        raise ConfigurationError(f"--time is {text!r}; expected more than 0")
    return seconds / 60


@dataclass(frozen=True)
class Speed:
    """Seconds per image, over all processes, of a training step and of an evaluation."""

    size_px: int
    train_s: float
    forward_s: float

    def at(self, size_px: int) -> Speed:
        """The speed at another image size: it is proportional to the area."""
        factor = (size_px / self.size_px) ** 2
        return Speed(size_px, self.train_s * factor, self.forward_s * factor)


@dataclass(frozen=True)
class Fit:
    """A plan: what fits into the budget at an image size."""

    speed: Speed
    epochs: int
    evaluate_every: int
    range_test: bool
    left_s: float
    """Seconds for all epochs and their evaluations but the last one."""
    epoch_s: float
    """Seconds of an epoch, and of its share of the evaluations."""
    evaluation_s: float


class Clock:
    """The time of a run with a budget; it follows the clock of the main process."""

    def __init__(self, minutes: float, *, report: bool) -> None:
        self.seconds: float = 60 * minutes
        self.report = report

    def progress(self, at: Position, elapsed_s: float) -> float:
        """The share of the time for training that is over, from 0 to 1; at 1 no step is left.

        What follows the last step, its evaluation and the report, needs time as well.
        """
        image_s = at.counted.trained_s / max(at.counted.seen, 1)
        end = self.seconds - at.evaluation_s - report_s(image_s, self.report)
        if elapsed_s + image_s * at.batch_size / 2 >= end:
            return 1.0
        return max(0.0, (elapsed_s - at.began_s) / (end - at.began_s))


def fit_into(job: Job, began: float, world: World) -> tuple[Job, list[str], float]:
    """The job with the image size and the number of epochs that fit into its budget.

    All processes call it. Returns also what was chosen, as log lines, and the seconds that an evaluation will take.

    Args:
        began: when the run began, by `time.monotonic`.

    Raises:
        ConfigurationError: not even one epoch at the smallest image size fits.
    """
    minutes = job.recipe.schedule.minutes
    assert minutes is not None
    model = job.empty_model()
    speed = measure(model, job, world)
    smallest = minimum_size(model.network)
    tried = list(plans(job, speed, seconds_since(began, world), smallest))
    enough = [one for one in tried if one.epochs >= FEWEST]
    chosen = enough[0] if enough else tried[-1]
    if chosen.epochs < 1:
        whole = (60 * minutes - chosen.left_s + chosen.epoch_s) / 60
        raise ConfigurationError(
            f"--time is {minutes:.3g} min, but the pass over the images before training, one epoch and the evaluation "
            f"take about {whole:.2g} min at {chosen.speed.size_px} px here; give more time, a smaller --size, or "
            "--train-from head"
        )
    size = chosen.speed.size_px
    settings = {
        "schedule.epochs": chosen.epochs,
        "schedule.evaluate_every": chosen.evaluate_every,
        "optimizer.range_test": chosen.range_test,
    }
    lines = [
        f"time budget {minutes:.3g} min: measured {1 / speed.train_s:.3g} images/s in training and "
        f"{1 / speed.forward_s:.3g} in evaluation at {speed.size_px} px; chosen: {size} px, about "
        f"{number_of('epoch', chosen.epochs)}, an evaluation every {number_of('epoch', chosen.evaluate_every)}"
    ]
    if size < speed.size_px:
        lines.append(
            f"images are {size} px instead of {speed.size_px} px, at which fewer than {FEWEST} epochs fit; "
            f"--size {speed.size_px} keeps it"
        )
    if job.recipe.optimizer.range_test and not chosen.range_test:
        lines.append(f"no learning-rate range test: it would take more than {RANGE_TEST_SHARE:.0%} of the time")
    plan, prep = replace(job.plan, size=size), replace(job.prep, size_px=size)
    return replace(job, plan=plan, recipe=job.recipe.changed(settings), prep=prep), lines, chosen.evaluation_s


def seconds_since(began: float, world: World) -> float:
    """Seconds since a time by `time.monotonic`, in the main process."""
    return float(world.gather(time.monotonic() - began)[0])


def measure(model: InceptionNet, job: Job, world: World) -> Speed:
    """Measure the speed of a model with a few training images. All processes call it."""
    plan = job.plan
    model = job.placed(model)
    stepper = Stepper(model, job, steps_per_epoch=1, world=world)
    few = min(PROBE * world.size * plan.accumulate, plan.batch_size)
    speed = _measured(stepper, few)
    if few < plan.batch_size and speed.train_s * plan.batch_size < CHEAP_S:
        speed = _measured(stepper, plan.batch_size)
    return speed


def _measured(stepper: Stepper, batch_size: int) -> Speed:
    """The speed with batches of that size. All processes call it."""
    model, job, world = stepper.model, stepper.job, stepper.world
    loader = job.batches(batch_size, 0, world)
    batches = chain.from_iterable(loader.epoch(epoch) for epoch in count(1))  # few images may be a single batch
    loads, steps, forwards = [], [], []
    for number in range(PROBES):
        start = time.perf_counter()
        batch = next(batches)
        loads.append((time.perf_counter() - start) / batch.planned)
        start = time.perf_counter()
        stepper.step(batch, number)
        steps.append((time.perf_counter() - start) / batch.planned)
        model.eval()
        start = time.perf_counter()
        with torch.no_grad():
            if len(batch):
                model(to_input(batch.images.to(model.device), job.prep, job.augment, batch.draws)).sum().item()
        forwards.append((time.perf_counter() - start) / batch.planned)
    load, step, forward = (min(times[1:]) for times in (loads, steps, forwards))
    threads = torch.get_num_threads() if model.device.type == "cpu" else 1
    train, evaluate = (together(load, one, workers=job.plan.workers, threads=threads) for one in (step, forward))
    slowest = [max(values) for values in zip(*world.gather((train, evaluate)), strict=True)]
    return Speed(job.prep.size_px, *slowest)


def together(load_s: float, compute_s: float, *, workers: int, threads: int) -> float:
    """Seconds per image of loading and computing: workers load meanwhile, but on cores that may have to do both.

    Args:
        threads: those that compute.
    """
    if not workers:
        return load_s + compute_s
    cores = cores_allowed()
    return max(compute_s, load_s / workers, (load_s + compute_s * min(threads, cores)) / cores)


def plans(job: Job, speed: Speed, elapsed_s: float, smallest: int) -> Iterator[Fit]:
    """What fits into the budget at each image size that is possible, the largest first.

    Args:
        elapsed_s: seconds since the run began.
        smallest: the smallest image size of the network, px.
    """
    recipe, minutes = job.recipe, job.recipe.schedule.minutes
    assert minutes is not None
    train, held_out = len(job.source.splits["train"]), len(job.source.splits[job.held_out])
    weights = 1 + (recipe.average.decay is not None)
    for share in (1.0,) if job.plan.size else SMALLER:
        size = round(share * speed.size_px)
        if share < 1 and size < smallest:
            continue
        now = speed.at(size)
        before = elapsed_s + (train + held_out) * now.forward_s * recipe.network.fit_head
        evaluation_s = held_out * now.forward_s * weights
        left = 60 * minutes - before - evaluation_s - report_s(now.train_s, recipe.log.report)
        test_s = range_test.STEPS * job.plan.batch_size * now.train_s
        tested = recipe.optimizer.range_test and test_s <= RANGE_TEST_SHARE * left
        left -= test_s * tested
        every = evaluation_interval(int(left / (train * now.train_s)))
        epoch_s = train * now.train_s + evaluation_s / every
        yield Fit(now, math.floor(left / epoch_s), every, tested, left, epoch_s, evaluation_s)


def report_s(train_s: float, written: bool) -> float:
    """Seconds for the plots and the report, if they are written, where an image takes `train_s` in training."""
    return (REPORT_S + REPORT_IMAGES * train_s) * written
