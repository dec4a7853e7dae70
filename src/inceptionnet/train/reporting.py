"""What a finished run leaves to look at: its plots, its report, and the commands to continue with."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inceptionnet.data.containers import list_folder
from inceptionnet.data.splits import AnySplit, Source, Split
from inceptionnet.errors import InceptionNetError, RunError
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
from inceptionnet.model.network import InceptionNet
from inceptionnet.report import plots
from inceptionnet.report.page import Subject, write_report
from inceptionnet.system.devices import pick_device
from inceptionnet.train.figures import BEST, AnyEvaluation, best_row, deciding, value_of
from inceptionnet.train.plan import Job
from inceptionnet.train.recorded import RecordedHead, RecordedRangeTest
from inceptionnet.train.run import REPORT, Run
from inceptionnet.train.targets import imbalance_of
from inceptionnet.weights import Record, read_weights


def subject(
    run: Run | None,
    record: Record,
    model: InceptionNet,
    metrics: Metrics | MultiLabelMetrics,
    source: Source,
    split_name: str,
    split: AnySplit,
) -> Subject:
    """The content of a report.

    Args:
        run: the run folder of the weights, if they have one.
        record: the metadata of the weights of `model`.
        split: the images of `source` that were evaluated, named `split_name`.

    Raises:
        RunError: run.json or metrics.csv is missing or damaged.
    """
    about: dict[str, Any] = {}
    if run is None:
        settings = {
            "configuration": asdict(record.configuration),
            "preprocessing": record.preprocessing.to_dict(),
            "provenance": record.provenance,
        }
    else:
        settings = run.about() | {"changes": run.changes()}
        about["repeat"] = repeat_command(run)
        about["epochs"] = run.read_metrics()
        about["head"] = run.read_optional("head.json", RecordedHead)
        about["range_test"] = run.read_optional("range_test.json", RecordedRangeTest)
        try:
            about["best"] = best_row(about["epochs"])
            if about["best"]:
                about["chosen_by"] = BEST[deciding(about["best"])]
                about["best_value"], about["last_value"] = value_of(about["best"]), value_of(about["epochs"][-1])
        except KeyError as error:
            file = run.path / "metrics.csv"
            raise RunError(f"{file}: expected a column {error}, got none; restore it") from None
        about["leaks"] = [line.removeprefix("warning: ") for line in settings.get("leaks", [])]
        about["imbalance"] = imbalance_of(source, settings.get("recipe", {}))
    return Subject(
        title=f"{record.configuration.title} on {source.title}",
        metrics=metrics,
        split=split,
        split_name=split_name,
        split_note=source.note,
        model=model,
        prep=record.preprocessing,
        settings=settings,
        **about,
    )


def report_run(
    run: Run,
    job: Job,
    rows: Sequence[Mapping[str, float]],
    metrics: Metrics | MultiLabelMetrics,
    evaluation: AnyEvaluation,
) -> list[str]:
    """Draw the plots and write the report of a finished training; returns what is not written, and why.

    Args:
        rows: of metrics.csv.
        metrics: those of `evaluation`, the last one.
    """
    source, folder = job.source, run.path
    split = source.splits[job.held_out]
    title = f"{job.plan.model} on {source.title}"

    def report() -> None:
        read = read_weights(run.weights)  # the evaluated weights, which may be an average of those in memory
        model = read.model().to(pick_device(job.plan.device))
        about = subject(run, read.record, model, metrics, source, job.held_out, split)
        write_report(folder / REPORT, about)

    made: dict[str, Callable[[], None]] = {}
    if job.recipe.schedule.epochs:
        made["curves.png"] = lambda: plots.curves(rows, folder / "curves.png", title)
    if isinstance(split, Split):
        file = folder / "predictions.png"
        made[file.name] = lambda: plots.predictions(evaluation, split, job.prep, file, title)
    made[REPORT] = report
    failed: dict[str, list[str]] = {}
    for name, make in made.items():
        try:
            make()
        except InceptionNetError as error:
            failed.setdefault(str(error), []).append(name)
    return [f"{', '.join(names)} not written: {why}" for why, names in failed.items()]


def repeat_command(run: Run) -> str:
    """The command that repeats a run in a new folder beside it."""
    again = run.path.with_name(f"{run.path.name}-again")
    return f"inceptionnet train --repeat {shlex.quote(str(run.path))} --out {shlex.quote(str(again))}"


def next_commands(run: Run) -> list[str]:
    """The commands to type after a finished run: evaluate, predict, the report, and repeat.

    Raises:
        RunError: run.json or evaluation.json is missing or damaged.
    """
    of, split = run.evaluated_on()
    folder, data = shlex.quote(str(run.path)), shlex.quote(of.data)
    images = data if Path(of.data).is_dir() and list_folder(Path(of.data)).images else "IMAGE"
    given = {"--labels": of.labels, "--splits": of.splits, "--group-by": of.group_by}
    options = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
    return [
        f"inceptionnet evaluate {folder} {data}{options} --split {split}",
        f"inceptionnet predict {folder} {images}",
        f"inceptionnet report {folder}",
        repeat_command(run),
    ]
