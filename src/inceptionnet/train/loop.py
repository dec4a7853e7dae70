"""The ways into the training loop: a new run, the repetition of one, and one that goes on after an interruption.

The loop itself is in trainer.py.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from inceptionnet.errors import listed
from inceptionnet.system.devices import pick_device
from inceptionnet.system.distributed import ALONE, World, restarted
from inceptionnet.system.progress import PartOf
from inceptionnet.train.budget import fit_into
from inceptionnet.train.changes import Change, Changes, changed, differences
from inceptionnet.train.figures import AnyEvaluation
from inceptionnet.train.plan import Plan, read_job
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.together import check_same
from inceptionnet.train.trainer import Trainer


def train(
    plan: Plan,
    out: Path,
    world: World = ALONE,
    began: float | None = None,
    *,
    leaks: bool = True,
    bar: PartOf | None = None,
) -> AnyEvaluation:
    """Train a network and write a run folder at `out` (see train/run.py); returns the last evaluation.

    Randomness depends on seed, epoch and image only, so the number of workers and processes does not matter. Processes
    that torchrun restarted after a failure resume the run.

    Args:
        began: when the command began, by `time.monotonic`, for a time budget. Default: now.
        leaks: look for held-out images that are also in the training split.
        bar: where progress is shown and log lines go, of several runs together. Default: a bar of its own.

    Raises:
        InceptionNetError: the plan is not possible, before anything is written; or the training stopped, and `resume`
            continues it.
    """
    run, began = Run(out), time.monotonic() if began is None else began
    if restarted() and world.gather(run.exists)[0]:
        return resume(out, world, Changes(machine={"workers": plan.workers, "device": plan.device}), began)
    job, notes, evaluation_s = check_same(resolve(plan), world), list[str](), 0.0
    if job.recipe.schedule.minutes is not None:
        job, notes, evaluation_s = fit_into(job, began, world)
    trainer = Trainer(job, run, world, began, notes=notes, bar=bar)
    trainer.at.evaluation_s = evaluation_s
    return trainer.run(leaks=leaks)


def repeat(
    old: Path, out: Path, world: World = ALONE, changes: Changes | None = None, began: float | None = None
) -> AnyEvaluation:
    """Repeat the training of a run folder, with the settings in its run.json, in a new run folder.

    Raises:
        InceptionNetError: as `train`; or `old` is not a run folder, or a change is not possible (see `Changes`).
    """
    changes, run = changes or Changes(), Run(old)
    if restarted() and world.gather(Run(out).exists)[0]:
        return resume(out, world, Changes(changes.data, changes.labels, machine=changes.machine), began)
    run.check_unchanged("run.json")
    job = check_same(changed(read_job(run, changes.data, changes.labels), changes, begun=False), world)
    notes = []
    if when := [f"{name}: {how}" for name, how in run.changes().items()]:
        notes.append(
            f"warning: settings of {old} changed while it trained ({listed(when, ordered=True)}); this run has the "
            "last ones from the start"
        )
    return Trainer(job, Run(out), world, began, notes=notes).run()


def resume(
    out: Path,
    world: World = ALONE,
    changes: Changes | None = None,
    began: float | None = None,
    *,
    bar: PartOf | None = None,
) -> AnyEvaluation:
    """Resume a run that was interrupted, or train a finished one for more epochs, from its newest readable checkpoint.

    Without changes, on a CPU with the same number of threads, the final weights are bit for bit those of an
    uninterrupted run, unless it has a time budget. Changes are recorded in run.json. `bar` is as for `train`.

    Raises:
        InceptionNetError: as `train`; or there is no run, its data has changed, or a change is not possible (see
            `Changes`).
    """
    changes, run = changes or Changes(), Run(out)
    run.check_unchanged("run.json")
    before = read_job(run, changes.data, changes.labels)
    job = check_same(changed(before, changes, begun=True), world)
    was = run.data()
    moved = replace(before, plan=replace(before.plan, data=was.data, labels=was.labels))
    found = [*differences(moved, job)]
    device, now = run.device(), pick_device(job.plan.device).type
    if device and device != now:
        found.append(Change("device", device, now))
    return Trainer(job, run, world, began, resumed=True, changes=found, bar=bar).run()
