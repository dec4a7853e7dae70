"""`inceptionnet predict RUN|WEIGHTS IMAGE|FOLDER…`: the classes of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import (
    Activation,
    AllowUrls,
    AnyModel,
    BatchSize,
    Calibrate,
    Classes,
    Device,
    Engine,
    Images,
    Json,
    Precision,
    Threshold,
    opened,
)
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.evaluate.prediction import Prediction


def predict(
    weights: AnyModel,
    images: Images,
    top: Annotated[int, typer.Option(help="Number of classes to give, where one is predicted.", min=1)] = 5,
    threshold: Threshold = None,
    activation: Activation = None,
    classes: Classes = None,
    allow_urls: AllowUrls = False,
    csv: Annotated[Path | None, typer.Option(help="Write a table into this file too.")] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:
    """Predict the classes or labels of images, with their probabilities.

    A corrupt image gets a row with the reason, and the exit code is 1; it is 2 if no image can be read.
    """
    from inceptionnet.cli.tables import end_with_errors, print_json
    from inceptionnet.data.images import Item
    from inceptionnet.data.inputs import find_images
    from inceptionnet.evaluate.prediction import write_csv
    from inceptionnet.system.progress import Bar

    found = find_images(images, allow_urls=allow_urls)
    classifier = opened(
        weights, engine=engine, precision=precision, calibrate=calibrate, device=device,
        batch_size=min(batch_size, len(found)), activation=activation, classes=classes,
    )  # fmt: skip
    least = classifier.threshold(threshold)
    rows = []
    with Bar(len(found), "predicting") as bar:
        for row in classifier.stream(
            [Item(one.name, one) for one in found], top, threshold=threshold, batch_size=batch_size
        ):
            rows.append(row)
            bar.advance(1)
    if csv:
        try:
            write_csv(csv, rows, classifier.classes if classifier.outputs.multi_label else ())
        except OSError as error:
            raise ConfigurationError(f"--csv {csv}: cannot be written: {error.strerror}; name another file") from None
    if json:
        about = {key: classifier.about[key] for key in ("engine", "precision")}
        network = classifier.record.configuration.name
        about |= {"activation": classifier.outputs.activation, "threshold": least}
        predictions = [row.to_dict() for row in rows]
        print_json(
            {
                "weights": weights,
                "network": network,
                "assumed": classifier.assumed,
                **about,
                "notes": found.notes,
                "predictions": predictions,
            }
        )
    else:
        _print(rows)
        for note in found.notes:
            say(note)
        if decision := classifier.outputs.decision(classifier.classes, least):
            say(decision)
        if classifier.assumed:
            say(f"assumed: {classifier.assumed}")
    end_with_errors(rows)


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "prediction"],
        [[row.file, f"error: {row.error}" if row.error else _text(row)] for row in rows],
    )
    if errors := sum(bool(row.error) for row in rows):
        say(f"{errors} of {len(rows)} images could not be read")


def _text(row: Prediction) -> str:
    """The most probable classes; or the predicted labels, and if there are none, the most probable one."""
    if row.labels == ():
        name, p = row.top[0]
        return f"no label (most probable: {name} {p:.1%})"
    shown = row.top if row.labels is None else row.top[: len(row.labels)]
    return "  ".join(f"{name} {p:.1%}" for name, p in shown)
