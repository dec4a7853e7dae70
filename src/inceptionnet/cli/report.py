"""`inceptionnet report RUN`: everything about a run on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import BatchSize, Device, Labels, Workers, default_workers
from inceptionnet.errors import ConfigurationError


def report(
    weights: Annotated[str, typer.Argument(metavar="RUN|WEIGHTS", help="A run folder; or a weights file of any known "
                                           "layout or hf:OWNER/NAME, with --data.")],
    data: Annotated[str | None, typer.Option(help="Images to evaluate on, as for evaluate; left out, those the run "
                                             "held out.")] = None,
    split: Annotated[str, typer.Option(help="auto (what the run held out; of other data test, else val), train, val, "
                                            "test or all.")] = "auto",
    labels: Labels = None,
    out: Annotated[Path | None, typer.Option(help="The file; left out, report.html in the run folder.")] = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Write a report: one HTML file with curves, confusion, calibration, images and settings, for any browser.

    It needs no network and no other file. Training leaves one in its run folder; this makes it anew, or for other data.
    """
    from inceptionnet.cli.evaluate import evaluated
    from inceptionnet.data.crops import Crops
    from inceptionnet.data.sources import open_source
    from inceptionnet.devices import pick_device
    from inceptionnet.evaluate.metrics import measure
    from inceptionnet.report.page import check_extras, write_report
    from inceptionnet.train.reporting import subject
    from inceptionnet.train.run import REPORT, Run, weights_of
    from inceptionnet.weights import read_weights

    run = Run(Path(weights)) if Path(weights).is_dir() else None
    file = weights_of(weights)
    if run is not None and not run.exists:
        run = None  # weights in a folder, such as a TensorFlow checkpoint
    if run is None and (data is None or out is None):
        raise ConfigurationError(f"{weights}: expected a run folder, or --data and --out with weights; give both")
    path = out or Path(weights) / REPORT
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"--out {path}: expected a file in a folder that is there; make the folder first")
    check_extras()
    read = read_weights(file)
    record = read.classifier()
    if data is None and run is not None:
        data, held_out = run.evaluated_on()
        split = held_out if split == "auto" else split
    assert data is not None
    own = record.provenance.get("seed")
    source = open_source(data, seed=own or 0, labels=labels, evaluating=True)
    name, images = source.pick(split, own=own is not None)
    result = evaluated(
        [read], [Crops(record.preprocessing)], images, source.classes, f"evaluating on {name}",
        batch_size=batch_size, workers=default_workers(workers), device=device,
    )  # fmt: skip
    if result is None:
        return
    model = read.model().to(pick_device(device))
    write_report(path, subject(run, record, model, measure(result), source, name, images))
    print(f"{path}: accuracy {result.top1:.2%} on {len(result.labels)} images")
