"""The report of a run folder, and the commands to continue with."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inceptionnet.data.containers import list_folder
from inceptionnet.data.splits import AnySplit, Source
from inceptionnet.errors import RunError
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
from inceptionnet.model.network import InceptionNet
from inceptionnet.report.page import Subject
from inceptionnet.train.figures import BEST, best_row, deciding, value_of
from inceptionnet.train.recorded import RecordedHead, RecordedRangeTest
from inceptionnet.train.run import Run
from inceptionnet.train.targets import imbalance_of
from inceptionnet.weights import Record


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


def repeat_command(run: Run) -> str:
    """The command that repeats a run in a new folder beside it."""
    again = run.path.with_name(f"{run.path.name}-again")
    return f"inceptionnet train --repeat {shlex.quote(str(run.path))} --out {shlex.quote(str(again))}"


def next_commands(run: Run) -> list[str]:
    """The commands to type after a finished run: evaluate, predict, the report, and repeat.

    Raises:
        RunError: run.json or evaluation.json is missing or damaged.
    """
    (data, labels, splits, group_by), split = run.evaluated_on()
    folder = shlex.quote(str(run.path))
    images = shlex.quote(data) if Path(data).is_dir() and _holds_images(Path(data)) else "IMAGE"
    given = {"--labels": labels, "--splits": splits, "--group-by": group_by}
    options = "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)
    return [
        f"inceptionnet evaluate {folder} {shlex.quote(data)}{options} --split {split}",
        f"inceptionnet predict {folder} {images}",
        f"inceptionnet report {folder}",
        repeat_command(run),
    ]


def _holds_images(folder: Path) -> bool:
    return bool(list_folder(folder).images)
