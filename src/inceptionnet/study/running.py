"""Running a study: what it will cost, the trainings one after another or shared among processes, and the result.

OUT/study.json      the study, what was asked for, every training with its metrics, the verdict
OUT/runs/           a run folder for each training, without checkpoints and reports; --runs names another place
OUT/outcomes/       one file for each finished training, to continue from
OUT/log.txt         the log lines of all trainings
OUT/figure.svg, figure.png, index.html
"""

from __future__ import annotations

import gc
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

import inceptionnet
from inceptionnet.classifier import load
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.errors import ConfigurationError, Interrupted, RunError, TrainingError
from inceptionnet.evaluate.evaluation import Member, evaluate_together
from inceptionnet.report.page import check_extras
from inceptionnet.study.page import write_page
from inceptionnet.study.result import Outcome, Result, judge
from inceptionnet.study.spec import Study
from inceptionnet.study.trainings import MACHINE, Asked, Training, trainings
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.system.progress import Bar, PartOf
from inceptionnet.train import loop
from inceptionnet.train.budget import Speed, measure
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import figures
from inceptionnet.train.fingerprint import difference, fingerprint
from inceptionnet.train.run import Run

STUDY = "study.json"
ADVICE = "; choose another --out"
LOOK_EVERY_S = 5.0
"""How often the main process looks how far the others are."""


def run_study(
    study: Study,
    asked: Asked,
    out: Path,
    *,
    runs: Path | None = None,
    minutes: float | None = None,
    world: World = ALONE,
) -> Result:
    """Run a study, or what is left of it, and write its folder; all processes call it and get the result.

    Args:
        runs: where the run folders are; runs that are there already are used. Default: in `out`.
        minutes: instead of epochs, what all trainings together may take: all get as many epochs as fit.

    Raises:
        InceptionNetError: the study is not possible, before anything is written; or a training had to stop.
    """
    check_extras()  # of the page; not to be missed after hours
    runs = runs or out / "runs"
    folder = Run(out)
    before = folder.read_optional(STUDY)
    if before and minutes is not None:
        asked, minutes = replace(asked, base={**asked.base, "epochs": _chosen_epochs(before, out)}), None
    found = trainings(study, asked, runs)
    left = [one for one in found if not _known(one, out)]
    speeds = _speeds(left, world)
    if minutes is not None:
        asked = replace(asked, base={**asked.base, "epochs": _epochs(found, speeds, minutes, world)})
        found = trainings(study, asked, runs)
        left = [one for one in found if not _known(one, out)]
    about = {"package": f"inceptionnet {inceptionnet.__version__}", "study": study.model_dump(mode="json"),
             "asked": _lasting(asked), "fingerprint": fingerprint(found[0].job.source)}  # fmt: skip
    _check_same(out, before, about)
    world.gather(0)  # all have looked before the first of them writes
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": None}, ADVICE)
        print(_cost(found, left, speeds, world), file=sys.stderr, flush=True)
    _train(left, found, out, world)
    outcomes = [_outcome(one, out) for one in found]
    result = judge(study, outcomes)
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": result.to_dict()}, ADVICE)
        write_page(out, asked.name, study, asked.command(out), result)
    return result


def _train(left: Sequence[Training], found: Sequence[Training], out: Path, world: World) -> None:
    """Train what is left, with one progress bar over everything; every process takes the next run."""
    runs: dict[Path, list[Training]] = {}
    for one in left:
        runs.setdefault(one.folder, []).append(one)
    queue = list(runs.values())
    done = sum(one.images for one in found if one not in left)
    hint = f"run the same command again to continue: finished trainings in {shlex.quote(str(out))} are kept"
    with Bar(sum(one.images for one in found), "study", shown=world.is_main, done=done) as bar:
        mine = set[Training]()
        look = _looker(left, mine, bar) if world.size > 1 else lambda: None
        try:
            for i in world.taken(len(queue), "trainings"):
                mine.update(queue[i])
                _train_run(queue[i], out, bar, look)
            while not all(_file(one, out).is_file() for one in left):  # the other processes are training
                time.sleep(0.2)
                look()
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"study interrupted; {hint}") from None


def _train_run(arms: Sequence[Training], out: Path, bar: Bar, look: Callable[[], None]) -> None:
    """Train a run, and write its outcome for each of the arms that have it in common."""
    training, log = arms[0], out / "log.txt"
    run = Run(training.folder)

    def note(line: str) -> None:
        try:
            with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{training.title}: {line}\n")
        except OSError as error:
            bar.note(f"warning: {log}: cannot be written: {error.strerror}; the line is: {line}")
        if line.startswith("warning:"):
            bar.note(f"{training.title}: {line}")
        look()

    part, error = PartOf(bar, training.title, note), ""
    try:
        if training.finished:
            _check_images(training)
            bar.advance(training.images, "", f"{training.title}, from {run.path}")
        elif run.exists:
            plan = training.job.plan
            loop.resume(run.path, changes=Changes(machine={key: getattr(plan, key) for key in MACHINE}), bar=part)
        else:
            loop.train(training.job.plan, run.path, leaks=False, bar=part)
    except TrainingError as caught:
        error = str(caught)
        bar.note(f"{training.title}: stopped: {error}")
    rows = run.read_metrics() if (run.path / "metrics.csv").is_file() else []
    folder = os.path.relpath(run.path, out) if run.path.is_relative_to(out) else str(run.path)
    for one in arms:
        job, network = one.job, one.job.trained_configuration
        outcome = Outcome(
            one.arm, one.value, one.seed, folder, network.name, network.width, job.prep.size_px, one.parameters,
            one.multiply_adds, job.recipe.schedule.epochs, len(job.source.classes), rows, error, one.crops,
            {} if error or one.crops == 1 else _on_crops(one),
        )  # fmt: skip
        file = _file(one, out)
        Run(file.parent).write_json(file.name, asdict(outcome), ADVICE)
    if not error:
        for large in (run.path / "checkpoints", run.features):  # several times the size of the weights
            shutil.rmtree(large, ignore_errors=True)
    bar.advance(sum(one.images for one in arms[1:]), "", f"{training.title}, done")
    gc.collect()  # the network and its optimiser refer to one another


def _check_images(training: Training) -> None:
    """Check that a finished run was trained on these images, as `loop.resume` does. Raises: RunError."""
    run = Run(training.folder)
    if what := difference(training.job.source, run.about()["data"]):
        raise RunError(f"{run.path}: was trained on other images than {training.job.plan.data} has now: {what}; give "
                       "another --runs or --out, or restore them")  # fmt: skip


def _on_crops(training: Training) -> dict[str, float]:
    """The accuracies of the trained network on the crops of its arm, as in a row of metrics.csv.

    `Classifier.evaluate` gives the same; it would open the data again, and show a bar beside that of the study.
    """
    plan, source = training.job.plan, training.job.source
    classifier = load(training.folder, device=plan.device)
    member = Member(classifier.run, Crops(classifier.preprocessing, training.crops), classifier.run.device,
                    outputs=classifier.outputs)  # fmt: skip
    loader = EvalLoader(source.splits["val"], classifier.preprocessing, batch_size=1, workers=plan.workers,
                        corrupt_images=plan.corrupt_images, crops=[member.crops])  # fmt: skip
    found = evaluate_together([member], loader, source.classes, at_once=plan.batch_size)
    return {f"val_{name}": value for name, value in figures(found).items()}


def _file(training: Training, out: Path) -> Path:
    """The outcome of a training; arms that share a run have one each."""
    return out / "outcomes" / f"{training.folder.name}-{training.arm}.json"


def _known(training: Training, out: Path) -> bool:
    return _file(training, out).is_file() and Run(training.folder).exists


def _outcome(training: Training, out: Path) -> Outcome:
    file = _file(training, out)
    try:
        return TypeAdapter(Outcome).validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{file}: cannot be read ({' '.join(str(error).split())}); remove it and run again") from None


def _looker(left: Sequence[Training], mine: set[Training], bar: Bar) -> Callable[[], None]:
    """Counts what the other processes have trained since the last look."""
    counted: dict[Training, int] = {}
    last = time.monotonic()

    def look() -> None:
        nonlocal last
        if time.monotonic() - last < LOOK_EVERY_S:
            return
        last = time.monotonic()
        for one in left:
            file = one.folder / "metrics.csv"
            if one not in mine and file.is_file():
                epochs = max(0, len(file.read_text(encoding="utf-8").splitlines()) - 1)
                bar.advance((epochs - counted.get(one, 0)) * one.images_per_epoch)
                counted[one] = epochs

    return look


def _speeds(left: Sequence[Training], world: World) -> dict[tuple[str, str], Speed]:
    """The measured speed of each arm of which a training is left."""
    found: dict[tuple[str, str], Speed] = {}
    for one in left:
        if (one.arm, one.value) not in found and not one.finished:
            same = next((found[key] for key in found if key[0] == one.arm), None)
            found[one.arm, one.value] = same or measure(one.job.empty_model(), one.job, ALONE)
    slowest = world.gather(found)
    return {key: max((each[key] for each in slowest if key in each), key=lambda speed: speed.train_s) for key in found}


def _seconds(one: Training, speeds: dict[tuple[str, str], Speed], epochs: int | None = None) -> float:
    speed = speeds.get((one.arm, one.value))
    if speed is None:
        return 0.0
    splits, recipe = one.job.source.splits, one.job.recipe
    weights = 1 + (recipe.average.decay is not None)
    held_out_s = len(splits["val"]) * speed.forward_s
    evaluated = held_out_s * weights / recipe.schedule.evaluate_every
    crops_s = held_out_s * (0 if one.crops == 1 or epochs == 1 else one.crops)
    return (epochs or one.epochs) * (len(splits["train"]) * speed.train_s + evaluated) + crops_s


def _epochs(found: Sequence[Training], speeds: dict[tuple[str, str], Speed], minutes: float, world: World) -> int:
    one_epoch = sum(_seconds(one, speeds, 1) for one in found) / world.size
    epochs = int(60 * minutes / one_epoch) if one_epoch else 0
    if epochs < 1:
        raise ConfigurationError(
            f"--time is {minutes:.3g} min, but an epoch of all {len(found)} trainings takes about {one_epoch / 60:.2g} "
            "min here; give more time, fewer --seeds, a smaller --size or --width"
        )
    return epochs


def _chosen_epochs(before: dict[str, Any], out: Path) -> int:
    """The epochs that a time budget gave when the study began. Raises: RunError: it began without one."""
    epochs: int | None = before["asked"]["base"].get("epochs")
    if epochs is None:
        raise RunError(f"{out}: has a study without a time budget; omit --time to continue it, or choose another --out")
    return epochs


def _cost(
    found: Sequence[Training], left: Sequence[Training], speeds: dict[tuple[str, str], Speed], world: World
) -> str:
    """What the study will cost, said before it starts."""
    seconds = sum(_seconds(one, speeds) for one in left) / world.size
    epochs = {one.job.recipe.schedule.epochs for one in found}
    length = (
        f"{min(epochs)} to {max(epochs)} epochs" if len(epochs) > 1 else f"{max(epochs)} epoch{'s' * (max(epochs) > 1)}"
    )
    there = f", {len(found) - len(left)} are there" if len(left) < len(found) else ""
    shared = f" in {world.size} processes" if world.size > 1 else ""
    return (
        f"{len(found)} trainings of {length}{there}; those left take about {_duration(seconds)}{shared} by the "
        "speed measured here"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"


def _lasting(asked: Asked) -> dict[str, Any]:
    """What must be the same when a study is continued; the number of seeds may grow."""
    return {key: value for key, value in asdict(asked).items() if key not in (*MACHINE, "corrupt_images", "seeds")}


def _check_same(out: Path, before: dict[str, Any], about: dict[str, Any]) -> None:
    """Check that a folder is new, empty, or has this study. Raises: RunError."""
    if not before:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out}: exists and has no study; choose another --out")
        return
    for key in ("study", "asked", "fingerprint"):
        if before.get(key) != json.loads(json.dumps(about[key])):
            what = {"study": "another study", "asked": "a study with other options", "fingerprint": "other images"}[key]
            raise RunError(f"{out}: has {what}; choose another --out, or give the same command as before")
