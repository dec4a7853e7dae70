"""Several values for a setting: a search for the best combination, by successive halving.

Source: Jamieson & Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, arXiv:1502.07943.
Every combination of the values is a trial. The first rung trains all of them for a part of the epochs (or of the
minutes); the better half, rounded down, goes on to the next rung, until one is left. A trial is trained from the start
in each rung, since a schedule that is cut short is another schedule.

OUT              the run of the last trial, which has all epochs
OUT/trials/      the runs of all others, by rung; without checkpoints, features and reports
OUT/search.csv   one row for each trial and rung
OUT/search.json  the plan and the results, to resume from
"""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from inceptionnet.errors import ConfigurationError, Interrupted, RunError, TrainingError, number_of
from inceptionnet.system.distributed import ALONE, World, restarted
from inceptionnet.system.printing import say
from inceptionnet.train import loop
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import AnyEvaluation, figures, worth, written
from inceptionnet.train.plan import Plan, absolute
from inceptionnet.train.run import SEARCH, SEARCH_TABLE, TRIALS, Run
from inceptionnet.train.step import Stepper
from inceptionnet.train.trackers import check_installed
from inceptionnet.train.trials import MINUTES, Trial, halved, rungs_of, searched, share_of_time, trials_of


@dataclass(frozen=True)
class Result:
    """The result of a trial in a rung."""

    trial: int
    settings: dict[str, str]
    rung: int
    unit: Literal["epochs", "minutes"]
    budget: float
    metrics: dict[str, float]
    """Of the last epoch on the validation split; empty if the training failed."""
    wall_s: float
    """Since the result before it, so that nothing is left out of a time budget."""
    run: str
    """Its folder, in that of the search."""
    error: str = ""

    @property
    def worth(self) -> tuple[bool, tuple[float, float]]:
        """Larger is better: the metric that chooses the best epoch, then the loss."""
        return (not self.error, worth(self.metrics) if self.metrics else (0.0, 0.0))


def train(plan: Plan, out: Path, world: World = ALONE, began: float | None = None) -> AnyEvaluation:
    """Train a network, or search if settings have several values; returns the last evaluation of the run in `out`.

    Args:
        began: when the command began, by `time.monotonic`; a time budget counts from there. Default: now.

    Raises:
        InceptionNetError: as `loop.train`; or the values cannot be searched, before anything is written.
    """
    begun = world.gather((out / TRIALS).is_dir())[0]
    if begun and restarted():
        return resume(out, world, Changes(machine={"workers": plan.workers, "device": plan.device}), began)
    if begun:
        raise RunError(f"{out}: holds a search; choose another --out, or resume it with --resume --out {out}")
    if not searched(plan.settings):
        return loop.train(plan, out, world, began)
    search = _Search(plan, out, world, began=began)
    search.check()
    if world.is_main:
        Run(out).create()
        search.write()
    return search.run()


def resume(
    out: Path, world: World = ALONE, changes: Changes | None = None, began: float | None = None
) -> AnyEvaluation:
    """Resume a run, or a search that was interrupted: finished trials are not trained again.

    Raises:
        InceptionNetError: as `loop.resume`; or a change of a search that has not begun its last run.
    """
    changes = changes or Changes()
    if several := list(searched(changes.settings)):
        raise ConfigurationError(
            f"--set {several[0]} has several values; expected one, since a search starts in a new --out"
        )
    if not unfinished(out):
        return loop.resume(out, world, changes, began)
    plan, results = _read(out)
    if not Run(out).exists and (given := _given(changes, plan)):
        raise ConfigurationError(
            f"{given} cannot change in a search that is resumed, only --workers, --device and --corrupt-images; omit it"
        )
    plan = replace(plan, **changes.machine)
    return _Search(plan, out, world, results, changes, began).run()


def unfinished(out: Path) -> bool:
    """Whether the folder holds a search that has not come to its end. Raises: RunError: search.json is damaged."""
    return (out / SEARCH).is_file() and not Run(out).read_json(SEARCH).get("finished")


def ranking(out: Path) -> list[Result]:
    """The last result of each trial of a search, best first. Raises: RunError: search.json is damaged."""
    _, results = _read(out)
    last = {result.trial: result for result in results}  # in the order of the rungs
    return sorted(last.values(), key=lambda result: (result.rung, result.worth), reverse=True)


def _read(out: Path) -> tuple[Plan, list[Result]]:
    """The content of search.json. Raises: RunError: it is damaged."""
    about = Run(out).read_optional(SEARCH)
    try:
        plan = TypeAdapter(Plan).validate_python(about["plan"])
        return plan, TypeAdapter(list[Result]).validate_python(about["results"])
    except (KeyError, TypeError, ValidationError) as error:
        raise RunError(f"{out / SEARCH}: is damaged ({' '.join(str(error).split())}); start again") from None


def _given(changes: Changes, plan: Plan) -> str:
    """An option that would change more than the machine; empty if there is none."""
    numbers = {"epochs": changes.epochs, "batch_size": changes.batch_size, "accumulate": changes.accumulate}
    moved = None if changes.data is None or absolute(changes.data) == plan.data else changes.data
    given = {"data": moved, "labels": changes.labels, **numbers, "set": changes.settings or None, **changes.fixed}
    return next((f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None), "")


class _Search:
    """A search, and its state."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        world: World,
        results: Sequence[Result] = (),
        changes: Changes | None = None,
        began: float | None = None,
    ) -> None:
        self.out, self.world, self.changes = out, world, changes or Changes()
        self.results = {(result.trial, result.rung): result for result in results}
        self._mark_s = time.monotonic() if began is None else began
        self.trials = trials_of(plan)
        first = self.trials[0].job
        # With the paths and names that were resolved, but every value.
        self.plan = replace(first.plan, settings=plan.settings)
        self.minutes: float | None = first.recipe.schedule.minutes
        self.rungs = rungs_of(len(self.trials), first.recipe.schedule.epochs)
        if self.minutes is not None:
            self.rungs = [(count, 0) for count in halved(len(self.trials))]

    def check(self) -> None:
        """Check every trial as far as it can be checked without training it. Raises: InceptionNetError."""
        for trial in self.trials:
            check_installed(trial.job.recipe.log.trackers)
            Stepper(trial.job.empty_model(), trial.job, steps_per_epoch=1)

    def run(self) -> AnyEvaluation:
        """Train the trials that are left; returns the evaluation of the last one."""
        total = " → ".join(str(count) for count, _ in self.rungs)
        self._note(f"search: {number_of('trial', len(self.trials))} in {number_of('rung', len(self.rungs))}: {total}")
        left = self.trials
        evaluation: AnyEvaluation | None = None
        for rung, (count, epochs) in enumerate(self.rungs, 1):
            left, budget = left[:count], float(epochs)
            if self.minutes is not None:
                spent_s = sum(one.wall_s for one in self.results.values() if one.rung < rung)
                budget = share_of_time(self.minutes, spent_s / 60, len(self.rungs) + 1 - rung, len(left))
            for i, trial in enumerate(left, 1):
                if (trial.number, rung) not in self.results:
                    length = f"{budget:.3g} minutes" if self.minutes else number_of("epoch", epochs)
                    self._note(f"search: rung {rung} of {len(self.rungs)}, trial {i} of {len(left)}: {trial}, {length}")
                    evaluation = self._train(trial, rung, budget)
            found = {trial: self.results[trial.number, rung] for trial in left}
            left = sorted(found, key=lambda trial: found[trial].worth, reverse=True)
            left = [trial for trial in left if not found[trial].error]
            if not left:
                raise TrainingError(f"every trial of rung {rung} failed; see search.csv, and give other values")
        assert evaluation is not None
        return evaluation

    def write(self) -> None:
        """Write search.json and, as soon as there are results, search.csv."""
        finished = any(result.rung == len(self.rungs) for result in self.results.values())
        results = [asdict(result) for result in self.results.values()]
        Run(self.out).write_sealed(SEARCH, {"plan": asdict(self.plan), "finished": finished, "results": results})
        rows: list[dict[str, Any]] = [
            {"trial": one.trial, **one.settings, "rung": one.rung, one.unit: one.budget, **one.metrics,
             "wall_s": one.wall_s, "run": one.run, "error": one.error}
            for one in self.results.values()
        ]  # fmt: skip
        if rows:
            longest = max(rows, key=len)  # of a trial that has not failed, if there is one
            Run(self.out).write_table(SEARCH_TABLE, longest, rows)

    def _train(self, trial: Trial, rung: int, budget: float) -> AnyEvaluation | None:
        """Train a trial, or resume it, and write its result; None if the training failed, as at a high learning rate.

        Raises:
            InceptionNetError: it failed for another reason, or it is the last one.
        """
        last = rung == len(self.rungs)
        run = Run(self.out if last else self.out / TRIALS / f"rung-{rung}" / trial.folder)
        own = {} if self.minutes is None else {MINUTES: budget}
        settings = {**trial.job.plan.settings, **own, **({} if last else {"log.report": False})}
        plan = replace(trial.job.plan, settings=settings, epochs=None if own else round(budget))
        evaluation, error = None, ""
        try:
            if self.world.gather(run.exists)[0]:
                changes = self.changes if last else Changes(machine=self.changes.machine)
                evaluation = loop.resume(run.path, self.world, changes)
            else:
                # Copies of validation images in the training split are looked for once; the last run records them too.
                first = not self.results or last
                evaluation = loop.train(plan, run.path, self.world, leaks=first)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(
                f"search interrupted in rung {rung}, trial {trial.number}; resume with: inceptionnet train --resume "
                f"--out {shlex.quote(str(self.out))}"
            ) from None
        except TrainingError as caught:  # in all processes
            if last:
                raise
            error = str(caught)
        now = time.monotonic()
        found = {} if evaluation is None else {f"val_{name}": value for name, value in figures(evaluation).items()}
        where = str(run.path.relative_to(self.out)) if run.path != self.out else "."
        unit: Literal["epochs", "minutes"] = "minutes" if own else "epochs"
        wall_s, self._mark_s = now - self._mark_s, now
        result = Result(trial.number, dict(trial.settings), rung, unit, budget, found, wall_s, where, error)
        self.results[trial.number, rung] = self.world.gather(result)[0]
        if self.world.is_main:
            self.write()
            if not last:
                run.remove_large()
        if evaluation is not None and not last:
            self._note(f"search: {trial}: {written(figures(evaluation))}")
        if error:
            self._note(f"search: {trial} failed: {error}")
        gc.collect()  # frees the network and its optimiser, which refer to one another, before the next one's
        if trial.job.recipe.compute.compile:
            torch.compiler.reset()  # the compiler gives up after a few networks
        return evaluation

    def _note(self, line: str) -> None:
        if self.world.is_main:
            say(line, error=True)
