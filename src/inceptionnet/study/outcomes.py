"""The outcome of one training or ensemble of a study: trained, evaluated, and kept in a file of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from inceptionnet.classifier import load
from inceptionnet.data.crops import Crops
from inceptionnet.data.fingerprint import difference
from inceptionnet.data.loading import EvalLoader
from inceptionnet.errors import RunError, TrainingError, visible
from inceptionnet.evaluate.evaluation import Member, evaluate_together
from inceptionnet.evaluate.multi_label import evaluate_labels
from inceptionnet.study.result import Outcome
from inceptionnet.study.trainings import MACHINE, Ensemble, Training
from inceptionnet.system.opening import SETTINGS_BYTES, contents
from inceptionnet.system.progress import Bar, PartOf
from inceptionnet.train import loop
from inceptionnet.train.changes import Changes
from inceptionnet.train.figures import AnyEvaluation, figures
from inceptionnet.train.out_folder import OutFolder
from inceptionnet.train.run import Run

ADVICE = "; choose another --out"


def train_run(arms: Sequence[Training], out: Path, bar: Bar, look: Callable[[], None]) -> None:
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
        _write(outcome, file_of(one, out))
    if not error:
        run.remove_large()
    bar.advance(sum(one.images for one in arms[1:]), "", f"{training.title}, done")
    gc.collect()  # the network and its optimiser refer to one another


def _check_images(training: Training) -> None:
    """Check that a finished run was trained on these images, as `loop.resume` does. Raises: RunError."""
    run = Run(training.folder)
    if what := difference(training.job.source, run.about()["data"]):
        raise RunError(f"{run.path}: was trained on other images than {training.job.plan.data} has now: {what}; give "
                       "another --runs or --out, or restore them")  # fmt: skip


def evaluate_ensemble(ensemble: Ensemble, out: Path) -> None:
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
    _write(outcome, file_of(ensemble, out))


def _accuracies(trained: Sequence[Training], crops: int) -> dict[str, float]:
    """The accuracies on the validation split of a network, or of several together, as in a row of metrics.csv.

    `evaluate_together` of classifier/ gives the same; it would open the data again, and show a bar beside that of
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


def file_of(one: Training | Ensemble, out: Path) -> Path:
    """The outcome of a training or an ensemble; arms that share a run have one each."""
    name = f"seed-{one.seed}" if isinstance(one, Ensemble) else one.folder.name
    return out / "outcomes" / f"{name}-{one.arm}.json"


def is_known(training: Training, out: Path) -> bool:
    """Whether it has an outcome, and its run is still there."""
    return file_of(training, out).is_file() and Run(training.folder).exists


def _write(outcome: Outcome, file: Path) -> None:
    OutFolder(file.parent).write_json(file.name, asdict(outcome), ADVICE)


def read_outcome(file: Path) -> Outcome:
    """The outcome in a file. Raises: RunError: it cannot be read, or is none."""
    try:
        return TypeAdapter(Outcome).validate_json(contents(file, SETTINGS_BYTES))
    except (OSError, ValidationError) as error:
        raise RunError(f"{file}: cannot be read ({' '.join(str(error).split())}); remove it and run again") from None
