"""`inceptionnet predict RUN|WEIGHTS IMAGE|FOLDER…`: the classes of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import (
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
    opened,
)
from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.evaluate.prediction import Prediction


def predict(
    weights: AnyModel,
    images: Images,
    top: Annotated[int, typer.Option(help="Number of classes to give.", min=1)] = 5,
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
    """Predict the classes of images, with their probabilities.

    A corrupt image gets a row with the reason, and the exit code is 1; it is 2 if no image can be read.
    """
    from inceptionnet.cli.tables import end_with_errors, print_json
    from inceptionnet.data.images import Item
    from inceptionnet.data.inputs import find_images
    from inceptionnet.evaluate.prediction import write_csv
    from inceptionnet.progress import Bar

    found = find_images(images, allow_urls=allow_urls)
    classifier = opened(
        weights, engine=engine, precision=precision, calibrate=calibrate, device=device,
        batch_size=min(batch_size, len(found)), classes=classes,
    )  # fmt: skip
    rows = []
    with Bar(len(found), "predicting") as bar:
        for row in classifier.stream([Item(one.name, one) for one in found], top, batch_size=batch_size):
            rows.append(row)
            bar.advance(1)
    if csv:
        try:
            write_csv(csv, rows)
        except OSError as error:
            raise ConfigurationError(f"--csv {csv}: cannot be written: {error.strerror}; name another file") from None
    if json:
        about = {key: classifier.about[key] for key in ("engine", "precision")}
        network = classifier.record.configuration.name
        predictions = [row.to_dict() for row in rows]
        print_json(
            {"weights": weights, "network": network, "assumed": classifier.assumed, **about, "predictions": predictions}
        )
    else:
        _print(rows)
        if classifier.assumed:
            print(f"assumed: {classifier.assumed}")
    end_with_errors(rows)


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "prediction"],
        [
            [row.file, f"error: {row.error}" if row.error else "  ".join(f"{name} {p:.1%}" for name, p in row.top)]
            for row in rows
        ],
    )
    if errors := sum(bool(row.error) for row in rows):
        print(f"{errors} of {len(rows)} images could not be read")
