"""`inceptionnet report RUN`: everything about a run on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import (
    Activation,
    BatchSize,
    ClassOrder,
    Device,
    GroupBy,
    Labels,
    SplitName,
    Splits,
    Workers,
    opened,
)
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.printing import say


def report(
    weights: Annotated[str, typer.Argument(metavar="RUN|WEIGHTS", help="A run folder; or a weights file of any known "
                                           "layout or hf:OWNER/NAME, with --data.")],
    data: Annotated[str | None, typer.Option(help="Images to evaluate on, as for evaluate; or where the run's own are "
                                             "now, if they have moved. Default: those the run held out.")] = None,
    split: Annotated[SplitName, typer.Option(help="auto: what the run held out; of other data test, else "
                                                  "val.")] = "auto",
    labels: Labels = None,
    splits: Splits = None,
    group_by: GroupBy = None,
    classes: ClassOrder = None,
    out: Annotated[Path | None, typer.Option(help="The file. Default: report.html in the run folder.")] = None,
    activation: Activation = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Write a report: one HTML file with curves, confusion matrix, calibration, images and settings, for any browser.

    It needs no network and no other file. Training leaves one in its run folder; this makes it again, or for other
    data.
    """
    from inceptionnet.classifier.evaluating import evaluate_together
    from inceptionnet.report.page import check_extras, write_report
    from inceptionnet.system.devices import default_workers
    from inceptionnet.train.plan import check_there, is_data_of
    from inceptionnet.train.reporting import subject
    from inceptionnet.train.run import REPORT, Run

    run = Run(Path(weights)) if Path(weights).is_dir() and Run(Path(weights)).exists else None
    if run is None and (data is None or out is None):
        raise ConfigurationError(f"{weights}: expected a run folder, or --data and --out with weights; give both")
    check_extras()
    classifier = opened(weights, device=device, batch_size=batch_size, activation=activation)
    place = str(split)
    stated = labels is not None or splits is not None or group_by is not None
    own = run is not None and (data is None or (not stated and is_data_of(run, data)))
    if run is not None and own:
        trained_on, held_out = run.evaluated_on()
        if data is None:
            check_there(run, trained_on.data)
        now = trained_on.moved(data, labels)
        data, labels, splits = now.data, Path(now.labels) if now.labels else None, splits or now.splits
        group_by = group_by or now.group_by
        place = held_out if split == "auto" else split
    found = evaluate_together(
        [classifier],
        str(data),
        split=place,
        labels=labels,
        splits=splits,
        group_by=group_by,
        classes=classes,
        batch_size=batch_size,
        workers=default_workers(workers),
    )
    path = out or Path(weights) / REPORT
    write_report(
        path,
        subject(run, classifier.record, classifier.model, found.metrics, found.source, found.split_name, found.split),
    )
    evaluation = found.metrics.evaluation
    which = f", {place} of the run's own data" if own else ""
    say(f"{path}: {evaluation.summary} on {number_of('image', len(evaluation.labels))}{which}")
    if found.class_order:
        say(f"class order: {found.class_order}")
