"""`inceptionnet predict RUN|WEIGHTS IMAGE|FOLDER…`: what is on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import BatchSize, Calibrate, Device, Engine, Json, Precision, Weights
from inceptionnet.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.data.preprocess import Preprocessing
    from inceptionnet.engines.runtimes import Run
    from inceptionnet.evaluate.prediction import Prediction
    from inceptionnet.model import InceptionNet


def predict(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER…", help="Images, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to give.", min=1)] = 5,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
    json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="Write a table into this file too.")] = None,
) -> None:
    """Predict classes with their probabilities; an image that cannot be read gets a row that says why."""
    from inceptionnet.cli.tables import print_json
    from inceptionnet.devices import pick_device
    from inceptionnet.engines.choice import check_engine, check_precision
    from inceptionnet.evaluate.prediction import find_images, predict, write_csv
    from inceptionnet.progress import Bar
    from inceptionnet.train.run import weights_of
    from inceptionnet.weights import read_weights

    check_engine(engine)
    check_precision(precision, bool(calibrate))
    read = read_weights(weights_of(weights))
    record = read.classifier()
    files = find_images(images)
    model = read.model().to(pick_device(device))
    run, used = run_by(engine, model, min(batch_size, len(files)), record.preprocessing, precision, calibrate)
    with Bar(len(files), "predicting") as bar:
        rows = list(
            predict(
                model, files, record.preprocessing, record.classes,
                top=top, batch_size=batch_size, run=run, advance=bar.advance,
            )
        )  # fmt: skip
    if csv:
        try:
            write_csv(csv, rows)
        except OSError as error:
            raise ConfigurationError(f"--csv {csv}: cannot be written: {error.strerror}; name another file") from None
    if json:
        print_json([row.to_dict() | {key: used[key] for key in ("engine", "precision")} for row in rows])
    else:
        _print(rows)
    if all(row.error for row in rows):
        raise DataError(f"none of {len(rows)} images could be read; the first: {rows[0].file}: {rows[0].error}")


def run_by(
    engine: str,
    model: InceptionNet,
    batch_size: int,
    prep: Preprocessing,
    precision: str = "fp32",
    calibrate: Sequence[str] | None = None,
) -> tuple[Run, dict[str, Any]]:
    """What gives the model's logits by that engine, and what the engine says of itself."""
    from inceptionnet.engines.agreement import to_calibrate
    from inceptionnet.engines.choice import optimize

    if engine == "eager" and precision == "fp32":
        return model, {"engine": engine, "precision": precision}
    images = to_calibrate(calibrate, prep) if calibrate else None
    made = optimize(
        model, engine, batch_size=batch_size, precision=precision, calibrate=images, device=str(model.device),
        size_px=prep.size_px,
    )  # fmt: skip
    return made, made.about


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "prediction"],
        [
            [row.file, f"error: {row.error}" if row.error else "  ".join(f"{name} {p:.1%}" for name, p in row.top)]
            for row in rows
        ],
    )
