"""`inceptionnet predict RUN|WEIGHTS PICTURE|FOLDER…`: what is on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, Weights
from inceptionnet.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.evaluate.prediction import Prediction


def predict(
    weights: Weights,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE|FOLDER…", help="Pictures, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to give.", min=1)] = 5,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write a table into this file too.")] = None,
) -> None:
    """Predict classes with their probabilities; a picture that cannot be read gets a row that says why."""
    from inceptionnet.cli.tables import print_json
    from inceptionnet.devices import pick_device
    from inceptionnet.evaluate.prediction import find_pictures, predict, write_csv
    from inceptionnet.progress import Bar
    from inceptionnet.train.run import weights_of
    from inceptionnet.weights import read_weights

    read = read_weights(weights_of(weights))
    record = read.classifier()
    files = find_pictures(pictures)
    model = read.model().to(pick_device(device))
    with Bar(len(files), "predicting") as bar:
        rows = list(
            predict(
                model, files, record.preprocessing, record.classes,
                top=top, batch_size=batch_size, advance=bar.advance,
            )
        )  # fmt: skip
    if csv:
        try:
            write_csv(csv, rows)
        except OSError as error:
            raise ConfigurationError(f"--csv {csv}: cannot be written: {error.strerror}; name another file") from None
    if json:
        print_json([row.to_dict() for row in rows])
    else:
        _print(rows)
    if all(row.error for row in rows):
        raise DataError(f"none of {len(rows)} pictures could be read; the first: {rows[0].file}: {rows[0].error}")


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "prediction"],
        [
            [row.file, f"error: {row.error}" if row.error else "  ".join(f"{name} {p:.1%}" for name, p in row.top)]
            for row in rows
        ],
    )
