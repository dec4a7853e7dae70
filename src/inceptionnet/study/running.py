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
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

import inceptionnet
from inceptionnet.classifier import load
from inceptionnet.data.crops import Crops
from inceptionnet.data.fingerprint import difference, fingerprint
from inceptionnet.data.loading import EvalLoader
from inceptionnet.errors import Interrupted, RunError, TrainingError, visible
from inceptionnet.evaluate.evaluation import Member, evaluate_together
from inceptionnet.evaluate.multi_label import evaluate_labels
from inceptionnet.report.page import check_extras
from inceptionnet.study.cost import affordable_epochs, announcement, speeds_of
from inceptionnet.study.page import write_page
from inceptionnet.study.result import Outcome, Result, judge
from inceptionnet.study.spec import Study
from inceptionnet.study.trainings import MACHINE, Asked, Ensemble, Training, ensembles, trainings
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.system.opening import SETTINGS_BYTES, contents
from inceptionnet.system.printing import say
from inceptionnet.system.progress import Bar, PartOf
from inceptionnet.train import loop
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import AnyEvaluation, figures
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
    speeds = speeds_of(left, world)
    if minutes is not None:
        asked = replace(asked, base={**asked.base, "epochs": affordable_epochs(found, speeds, minutes, world)})
        found = trainings(study, asked, runs)
        left = [one for one in found if not _known(one, out)]
    together = ensembles(study, found)
    missing = [one for one in together if not _file(one, out).is_file()]
    about = {"package": f"inceptionnet {inceptionnet.__version__}", "study": study.model_dump(mode="json"),
             "asked": _lasting(asked), "fingerprint": fingerprint(found[0].job.source)}  # fmt: skip
    _check_same(out, before, about)
    world.gather(0)  # all have looked before the first of them writes
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": None}, ADVICE)
        say(announcement(found, left, missing, speeds, world), error=True)
    _train(left, found, missing, out, world)
    everything: list[Training | Ensemble] = [*found, *together]
    outcomes = [_outcome(_file(one, out)) for one in everything]
    result = judge(study, outcomes)
    if world.is_main:
        folder.write_json(STUDY, {**about, "result": result.to_dict()}, ADVICE)
        write_page(out, asked.name, study, asked.command(out), result)
    return result


def _train(
    left: Sequence[Training], found: Sequence[Training], together: Sequence[Ensemble], out: Path, world: World
) -> None:
    """Train what is left and evaluate the ensembles, with one progress bar; every process takes the next run."""
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
            _wait_for(left, out, look)
            for i in world.taken(len(together), "ensembles"):
                bar.advance(0, "", f"{together[i].title}, evaluating")
                _evaluate_ensemble(together[i], out)
            _wait_for(together, out, look)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(f"study interrupted; {hint}") from None


def _wait_for(expected: Sequence[Training | Ensemble], out: Path, look: Callable[[], None]) -> None:
    """Wait until the other processes have written their outcomes too."""
    while not all(_file(one, out).is_file() for one in expected):
        time.sleep(0.2)
        look()


def _train_run(arms: Sequence[Training], out: Path, bar: Bar, look: Callable[[], None]) -> None:
    """Train a run, and write its outcome for each of the arms that have it in common."""
    training, log = arms[0], out / "log.txt"
    run = Run(training.folder)

    def note(line: str) -> None:
        try:
            with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{visible(f'{training.title}: {line}')}\n")
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
    folder = os.path.relpath(run.path, out)
    for one in arms:
        job, network = one.job, one.job.trained_configuration
        outcome = Outcome(
            one.arm, one.value, one.seed, folder, network.name, network.width, job.prep.size_px, one.parameters,
            one.multiply_adds, job.recipe.schedule.epochs, len(job.source.classes), rows, error, one.crops,
            {} if error or one.crops == 1 else _accuracies([one], one.crops),
        )  # fmt: skip
        _write(outcome, _file(one, out))
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


def _evaluate_ensemble(ensemble: Ensemble, out: Path) -> None:
    """Write the outcome of an ensemble: one training whose last accuracy is that of its networks together."""
    members = ensemble.members
    error = next((f"{one.title} has no network" for one in members if not Run(one.folder).weights.is_file()), "")
    names = [one.arm for one in members]
    outcome = Outcome(
        ensemble.arm, "", ensemble.seed, "", f"ensemble of {len(members)}", 0.0, 0,
        sum(one.parameters for one in members), sum(one.multiply_adds for one in members), 1,
        len(members[0].job.source.classes), [], error, ensemble.crops,
        {} if error else _accuracies(members, ensemble.crops), names,
    )  # fmt: skip
    _write(outcome, _file(ensemble, out))


def _accuracies(trained: Sequence[Training], crops: int) -> dict[str, float]:
    """The accuracies on the validation split of a network, or of several together, as in a row of metrics.csv.

    `evaluate_together` of the front door gives the same; it would open the data again, and show a bar beside that of
    the study.
    """
    plan, source = trained[0].job.plan, trained[0].job.source
    networks = [load(one.folder, device=plan.device) for one in trained]
    members = [Member(one.run, Crops(one.preprocessing, crops), one.run.device, outputs=one.outputs)
               for one in networks]  # fmt: skip
    loader = EvalLoader(source.splits["val"], networks[0].preprocessing, batch_size=1, workers=plan.workers,
                        corrupt_images=plan.corrupt_images, crops=[one.crops for one in members])  # fmt: skip
    found: AnyEvaluation
    if source.multi_label:
        own = np.arange(len(source.classes))
        found = evaluate_labels(members, loader, source.classes, labels_of=own, at_once=plan.batch_size)
    else:
        found = evaluate_together(members, loader, source.classes, at_once=plan.batch_size)
    return {f"val_{name}": value for name, value in figures(found).items()}


def _file(one: Training | Ensemble, out: Path) -> Path:
    """The outcome of a training or an ensemble; arms that share a run have one each."""
    name = f"seed-{one.seed}" if isinstance(one, Ensemble) else one.folder.name
    return out / "outcomes" / f"{name}-{one.arm}.json"


def _known(training: Training, out: Path) -> bool:
    return _file(training, out).is_file() and Run(training.folder).exists


def _write(outcome: Outcome, file: Path) -> None:
    Run(file.parent).write_json(file.name, asdict(outcome), ADVICE)


def _outcome(file: Path) -> Outcome:
    try:
        return TypeAdapter(Outcome).validate_json(contents(file, SETTINGS_BYTES))
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


def _chosen_epochs(before: dict[str, Any], out: Path) -> int:
    """The epochs that a time budget gave when the study began. Raises: RunError: it began without one."""
    epochs: int | None = before["asked"]["base"].get("epochs")
    if epochs is None:
        raise RunError(f"{out}: has a study without a time budget; omit --time to continue it, or choose another --out")
    return epochs


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
