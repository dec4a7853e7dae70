"""The report of a run folder: what the run wrote about itself, and an evaluation of its weights."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from inceptionnet.data.splits import AnySplit, Source
from inceptionnet.evaluate.metrics import Metrics
from inceptionnet.model import InceptionNet
from inceptionnet.report.page import Subject
from inceptionnet.train.run import Run
from inceptionnet.weights import Record


def subject(
    run: Run | None,
    record: Record,
    model: InceptionNet,
    metrics: Metrics,
    source: Source,
    split_name: str,
    split: AnySplit,
) -> Subject:
    """What a report is written about.

    Args:
        run: the folder that the weights are from, if they are from one.
        record: of the weights that `model` has.
        split: the images of `source` that `metrics` are of, called `split_name`.

    Raises:
        RunError: run.json or metrics.csv is not there or damaged.
    """
    about: dict[str, Any] = {}
    if run is None:
        settings = {
            "configuration": asdict(record.configuration),
            "preprocessing": record.preprocessing.to_dict(),
            "provenance": record.provenance,
        }
    else:
        settings = run.read_json("run.json")
        again = run.path.with_name(f"{run.path.name}-again")
        about["repeat"] = f"inceptionnet train --repeat {shlex.quote(str(run.path))} --out {shlex.quote(str(again))}"
        about["epochs"] = run.read_metrics()
    return Subject(
        title=f"{record.configuration.name} on {source.title}",
        metrics=metrics,
        split=split,
        split_name=split_name,
        split_note=source.note,
        model=model,
        prep=record.preprocessing,
        settings=settings,
        **about,
    )
