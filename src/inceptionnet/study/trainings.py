"""The trainings of a study: a plan and a run folder for each arm, value of its grid, and seed."""

from __future__ import annotations

import hashlib
import json
import shlex
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import log
from pathlib import Path
from typing import Any

from inceptionnet.data.loading import CorruptImages
from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError, DataError, InceptionNetError
from inceptionnet.nets.analysis import analyse, multiply_adds, parameters
from inceptionnet.nets.edits import configure
from inceptionnet.study.spec import OPTIONS, Arm, Study
from inceptionnet.train.plan import Job, Plan
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.settings import value_text

MACHINE = ("workers", "device")
"""Fields of a plan that do not change what is trained."""
WIDEST, WIDTH_STEP = 8.0, 1.01
"""Widths that are tried for an equal cost: by steps of 1 %, up to this many times the other arm's and down to as small
a part of it."""


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    study: str
    """Name or file."""
    data: str
    seeds: int
    quick: bool = False
    labels: str | None = None
    splits: str | None = None
    group_by: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)
    """Options of the base that it states: epochs, size, width, batch_size, model."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the base that it states."""
    workers: int = 1
    device: str = "auto"
    corrupt_images: CorruptImages = "fail"

    @property
    def name(self) -> str:
        """The name of the study."""
        return Path(self.study).stem

    def command(self, out: Path) -> str:
        """The command that runs the study again, in any folder but for a relative `out`."""
        options = {**self.base, "seeds": self.seeds, "labels": self.labels, "splits": self.splits,
                   "group-by": self.group_by, "out": out}  # fmt: skip
        words = ["inceptionnet", "study", self.study, self.data, *(["--quick"] if self.quick else [])]
        for key, value in self.settings.items():
            words += ["--set", f"{key}={value}"]
        for key, value in options.items():
            words += [] if value is None else [f"--{key.replace('_', '-')}", str(value)]
        return shlex.join(words)


@dataclass(frozen=True, eq=False)
class Training:
    """One training of a study."""

    arm: str
    value: str
    """Of the arm's grid, as `optimizer.lr=0.01`; empty without one."""
    seed: int
    job: Job
    folder: Path
    multiply_adds: int
    parameters: int
    crops: int
    """Of each image in the final evaluation."""

    @property
    def title(self) -> str:
        """For progress and messages."""
        return f"{self.arm}{f' {self.value}' if self.value else ''}, seed {self.seed}"

    @property
    def images(self) -> int:
        """Training and held-out images of all epochs."""
        return self.epochs * self.images_per_epoch

    @property
    def images_per_epoch(self) -> int:
        """Training and held-out images."""
        return len(self.job.source.splits["train"]) + len(self.job.source.splits["val"])

    @property
    def epochs(self) -> int:
        """Epochs, and the fit of the classifier if there is one."""
        return self.job.recipe.schedule.epochs + self.job.recipe.network.fit_head

    @property
    def finished(self) -> bool:
        """Whether its run is there, with all epochs. Raises: RunError: it is damaged."""
        run = Run(self.folder)
        if not (run.exists and run.weights.is_file() and (self.folder / "metrics.csv").is_file()):
            return False
        rows = run.read_metrics()
        return bool(rows) and rows[-1]["epoch"] == self.job.recipe.schedule.epochs


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks of one seed that are evaluated together."""

    arm: str
    seed: int
    members: Sequence[Training]
    crops: int
    """Of each image."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.arm}, seed {self.seed}"


def ensembles(study: Study, found: Sequence[Training]) -> list[Ensemble]:
    """All ensembles of a study, seed after seed, from all of its trainings."""
    of = {(one.arm, one.seed): one for one in found}
    seeds = dict.fromkeys(one.seed for one in found)
    return [
        Ensemble(name, seed, [of[member, seed] for member in arm.ensemble], arm.crops)
        for seed in seeds
        for name, arm in study.arms.items()
        if arm.ensemble
    ]


def trainings(study: Study, asked: Asked, runs: Path) -> list[Training]:
    """All trainings of a study, seed after seed.

    The folder of a run is named by its network, a hash of all that decides what is trained, and its seed: two arms, or
    two studies that share `runs`, share the runs that are the same.

    Raises:
        InceptionNetError: an arm is not possible; the message names it.
    """
    _check_base(study, asked.base)
    settings = {**study.base.settings, **asked.settings}
    study = study.model_copy(update={"base": study.base.model_copy(update={**asked.base, "settings": settings})})
    plan = Plan(
        asked.data, None, workers=asked.workers, corrupt_images=asked.corrupt_images, device=asked.device,
        splits=asked.splits, labels=asked.labels, group_by=asked.group_by,
    )  # fmt: skip
    found: list[Training] = []
    widths: dict[str, float] = {}
    for seed in range(asked.seeds):
        source = replace(plan, seed=seed).open_source()
        if "val" not in source.splits or "train" not in source.splits:
            raise DataError(
                f"{asked.data}: expected a training and a validation split, got {', '.join(source.splits)}; a study "
                "looks at no test split; split it by --splits, or give unsplit images"
            )
        costs: dict[str, int] = {}
        for name in sorted(study.trained, key=lambda one: bool(study.arms[one].same_cost_as)):
            arm = study.arm(name)
            try:
                if arm.same_cost_as and name not in widths:
                    other = arm.same_cost_as
                    job = _job(arm, replace(plan, seed=seed), source)
                    widths[name] = _as_costly(job, costs[other], study.arm(other).width or 1.0)
                if arm.same_cost_as:
                    arm = arm.model_copy(update={"width": widths[name]})
                found += _of_arm(name, arm, replace(plan, seed=seed), source, runs)
            except InceptionNetError as error:
                raise ConfigurationError(f"arm {name}: {error}") from None
            costs[name] = found[-1].multiply_adds
    names = list(study.arms)
    return sorted(found, key=lambda one: (one.seed, names.index(one.arm)))


def _check_base(study: Study, given: Mapping[str, Any]) -> None:
    """An option that every arm states itself would be without effect. Raises: ConfigurationError."""
    for option in given:
        if all(getattr(arm, option) is not None for arm in study.trained.values()):
            flag = option.replace("_", "-")
            raise ConfigurationError(f"--{flag} has no effect: every arm of the study states its own; omit it")


def _of_arm(name: str, arm: Arm, plan: Plan, source: Source, runs: Path) -> list[Training]:
    """The trainings of an arm with one seed: one for each point of its grid."""
    points: list[dict[str, Any]] = [{}]
    for key, values in arm.grid.items():
        points = [point | {key: value} for point in points for value in values]
    found = []
    for point in points:
        job = _job(arm, plan, source, point)
        value = " ".join(f"{key}={value_text(chosen)}" for key, chosen in point.items())
        folder = runs / f"{job.plan.model}-{_digest(job.plan)}-seed-{plan.seed}"
        rows = analyse(configure(job.trained_configuration))
        found.append(Training(name, value, plan.seed, job, folder, multiply_adds(rows), parameters(rows), arm.crops))
    return found


def _job(arm: Arm, plan: Plan, source: Source, point: Mapping[str, Any] | None = None) -> Job:
    options = arm.model_dump(include=set(OPTIONS), exclude_none=True)
    settings = {**arm.settings, **(point or {}), "log.report": False}
    job = resolve(replace(plan, settings=settings, **options), source)
    schedule = job.recipe.schedule
    if not schedule.epochs or schedule.minutes is not None or schedule.patience is not None:
        raise ConfigurationError(
            "every training of a study has a number of epochs; omit schedule.minutes, schedule.patience and "
            "network.train_from=head"
        )
    return job


def _digest(plan: Plan) -> str:
    """A hash of what decides what is trained, but for the seed."""
    what = {key: value for key, value in asdict(plan).items() if key not in (*MACHINE, "seed")}
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _as_costly(job: Job, cost: int, start: float) -> float:
    """The width near `start` at which the network of a job has the multiply-adds nearest to `cost`."""
    steps = int(log(WIDEST) / log(WIDTH_STEP))
    widths = [round(start * WIDTH_STEP**i, 4) for i in range(-steps, steps + 1)]

    def cost_at(i: int) -> int:
        return multiply_adds(analyse(configure(replace(job.trained_configuration, width=widths[i]))))

    above = bisect_left(range(len(widths) - 1), cost, key=cost_at)
    return widths[min((max(above - 1, 0), above), key=lambda i: abs(log(cost_at(i) / cost)))]
