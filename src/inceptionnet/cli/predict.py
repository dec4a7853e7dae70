"""`inceptionnet predict RUN|WEIGHTS IMAGE|FOLDER…`: the classes of images."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
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
from inceptionnet.cli.parts import OUT, PART_SIZE, PartSize, Threads, threads_of
from inceptionnet.errors import ConfigurationError, Interrupted
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inceptionnet.classifier import Classifier
    from inceptionnet.evaluate.prediction import Prediction


def predict(
    weights: AnyModel,
    images: Images,
    top: Annotated[int, typer.Option(help="Number of classes to give, where one is predicted.", min=1)] = 5,
    threshold: Threshold = None,
    activation: Activation = None,
    classes: Classes = None,
    allow_urls: AllowUrls = False,
    out: Annotated[Path | None, OUT] = None,
    part_size: PartSize = PART_SIZE,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="1s|'10 frames'",
            help="Of a camera, or of videos, which are then taken too: a row for each second, each 10 frames, …",
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table into this file too.")] = None,
    json: Json = False,
    batch_size: BatchSize = 16,
    workers: Threads = None,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:
    """Predict the classes or labels of images, with their probabilities.

    A corrupt image gets a row with the reason, and the exit code is 1; it is 2 if no image can be read. With --out the
    rows are written to Parquet, with the split and label of images that have them, and the exit code is 0 once all are
    there; under torchrun several processes share the parts of a folder. A camera (/dev/video0) gives its rows as they
    come, until Ctrl-C.
    """
    from inceptionnet.classifier.video import check_videos, predict_all
    from inceptionnet.cli.tables import end_with_errors, print_json
    from inceptionnet.data.inputs import find_images
    from inceptionnet.data.names import is_camera
    from inceptionnet.data.video import Every
    from inceptionnet.evaluate.prediction import write_csv
    from inceptionnet.system.distributed import processes
    from inceptionnet.system.progress import Bar

    interval = Every.parse(every) if every else None
    open_classifier = partial(
        opened, weights, engine=engine, precision=precision, calibrate=calibrate, device=device,
        activation=activation, classes=classes,
    )  # fmt: skip
    if out:
        if csv or interval:
            raise ConfigurationError(f"--out {out}: is for the rows of images; omit {'--csv' if csv else '--every'}")
        _to_parquet(
            open_classifier, weights, images, out,
            allow_urls=allow_urls, part_size=part_size, top=top, threshold=threshold, batch_size=batch_size,
            workers=workers, json=json,
        )  # fmt: skip
        return
    if processes() > 1:
        raise ConfigurationError("--out: expected a folder for the parts of several processes, got none; give one")
    found = find_images(images, allow_urls=allow_urls, videos=interval is not None)
    videos = check_videos(found, interval)
    classifier = open_classifier(batch_size=batch_size if videos else min(batch_size, len(found)))
    least = classifier.threshold(threshold)
    live = is_camera(found[0].name)
    rows = []
    ended = suppress(KeyboardInterrupt) if live else nullcontext()
    with Bar(len(found), "predicting", shown=not live) as bar, ended:
        for row in predict_all(classifier, found, interval, top, threshold=threshold, batch_size=batch_size):
            rows.append(row)
            bar.advance(1)
            if live and not json:
                say("  ".join(_cells(row)))
    if not rows:
        raise Interrupted("stopped before the first frame came")
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
        if not live:
            _print(rows)
        for note in found.notes:
            say(note)
        if decision := classifier.outputs.decision(classifier.classes, least):
            say(decision)
        if classifier.assumed:
            say(f"assumed: {classifier.assumed}")
    end_with_errors(rows)


def _to_parquet(
    open_classifier: Callable[..., Classifier],
    weights: str,
    images: list[str],
    out: Path,
    *,
    allow_urls: bool,
    part_size: int,
    top: int,
    threshold: float | None,
    batch_size: int,
    workers: int | None,
    json: bool,
) -> None:
    from inceptionnet.classifier.parts import predict_in_parts
    from inceptionnet.cli.parts import print_errors
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.jobs import check_out, open_job
    from inceptionnet.system.distributed import joined_world, share_cores

    with joined_world() as world:
        check_out(out, world)
        share_cores()
        classifier = open_classifier(batch_size=batch_size)
        trained = classifier.record.provenance
        job = open_job(
            images, "all", part_size,
            seed=trained.get("seed", 0), group_by=trained.get("group_by"), allow_urls=allow_urls,
            allow_shards=allow_urls,
        )  # fmt: skip
        written, about = predict_in_parts(
            classifier, job, out, top=top, threshold=threshold, batch_size=batch_size, threads=threads_of(workers),
            world=world,
        )  # fmt: skip
    if not world.is_main:
        return
    if json:
        named = [{"name": name, "reason": reason} for name, reason in written.named]
        print_json({
            **about, "weights": weights, "assumed": classifier.assumed, "written": str(out), "images": written.rows,
            "data_note": job.source.note, "errors": written.errors, "decode_errors": named,
        })  # fmt: skip
    else:
        say(job.source.note)
        say(f"{out}: {written.rows} images")
        print_errors(written)
        if classifier.assumed:
            say(f"assumed: {classifier.assumed}")


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "prediction"],
        [_cells(row) for row in rows],
    )
    if errors := sum(bool(row.error) for row in rows):
        say(f"{errors} of {len(rows)} images could not be read")


def _cells(row: Prediction) -> list[str]:
    name = row.file if row.time_s is None else f"{row.file} {row.time_s:.3f} s"
    return [name, f"error: {row.error}" if row.error else _text(row)]


def _text(row: Prediction) -> str:
    """The most probable classes; or the predicted labels, and if there are none, the most probable one."""
    if row.labels == ():
        name, p = row.top[0]
        return f"no label (most probable: {name} {p:.1%})"
    shown = row.top if row.labels is None else row.top[: len(row.labels)]
    return "  ".join(f"{name} {p:.1%}" for name, p in shown)
