"""`inceptionnet predict RUN|WEIGHTS IMAGE|FOLDER…`: the classes of images."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
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
    ImagesOrVideos,
    Json,
    Precision,
    Threshold,
    opened,
)
from inceptionnet.cli.parts import (
    OUT,
    PART_SIZE,
    Batch,
    PartSize,
    Threads,
    batch_job,
    named_errors,
    print_errors,
    threads_of,
)
from inceptionnet.cli.tables import is_lone_error
from inceptionnet.errors import ConfigurationError, Interrupted, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from inceptionnet.classifier import Classifier
    from inceptionnet.data.inputs import FoundImages
    from inceptionnet.data.video import Every
    from inceptionnet.evaluate.prediction import Prediction


def predict(
    weights: AnyModel,
    images: ImagesOrVideos,
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
            help="Take videos and cameras too: a row for each second, each 10 frames, …",
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
    interval = None
    if every:
        from inceptionnet.data.video import Every

        interval = Every.parse(every)
    if out and (csv or interval):
        raise ConfigurationError(f"--out {out}: is for the rows of images; omit {'--csv' if csv else '--every'}")
    open_classifier = partial(
        opened, weights, engine=engine, precision=precision, calibrate=calibrate, device=device,
        activation=activation, classes=classes, predicts=True,
    )  # fmt: skip
    if out:
        open_classifier = partial(open_classifier, batch_size=batch_size)
        job = batch_job(
            open_classifier, images, out, part_size=part_size, allow_urls=allow_urls, allow_shards=allow_urls
        )
        _to_parquet(
            job, weights, out, top=top, threshold=threshold, batch_size=batch_size, threads=threads_of(workers),
            json=json,
        )  # fmt: skip
    else:
        found = _found(images, interval, allow_urls=allow_urls)
        _to_terminal(
            open_classifier, weights, found, interval, csv, top=top, threshold=threshold, batch_size=batch_size,
            json=json,
        )  # fmt: skip


def _found(images: list[str], interval: Every | None, *, allow_urls: bool) -> FoundImages:
    """The images, and with an interval the videos. Raises: as `find_images`; ConfigurationError: several processes."""
    from inceptionnet.data.inputs import find_images
    from inceptionnet.system.distributed import processes

    if processes() > 1:
        raise ConfigurationError("--out: expected a folder for the parts of several processes, got none; give one")
    return find_images(images, allow_urls=allow_urls, videos=interval is not None)


def _to_terminal(
    open_classifier: Callable[..., Classifier],
    weights: str,
    found: FoundImages,
    interval: Every | None,
    csv: Path | None,
    *,
    top: int,
    threshold: float | None,
    batch_size: int,
    json: bool,
) -> None:
    """Predict and print the rows. Raises: as `check_videos` and `predict_all`; ConfigurationError: --csv."""
    from inceptionnet.classifier.video import check_videos
    from inceptionnet.cli.tables import end_with_errors, print_json

    videos = check_videos(found, interval)
    classifier = open_classifier(batch_size=batch_size if videos else min(batch_size, len(found)))
    least = classifier.threshold(threshold)
    rows = _predicted(classifier, found, interval, top, threshold, batch_size, json)
    if csv:
        _write_csv(csv, rows, classifier)
    if json:
        print_json({
            "weights": weights,
            "network": classifier.record.configuration.name,
            "assumed": classifier.assumed,
            **{key: classifier.about[key] for key in ("engine", "precision")},
            "activation": classifier.outputs.activation,
            "threshold": least,
            "notes": found.notes,
            "predictions": [row.to_dict() for row in rows],
        })  # fmt: skip
    else:
        if not _is_live(found):
            _print(rows)
        for note in found.notes:
            say(note)
        if (decision := classifier.outputs.decision(classifier.classes, least)) and not is_lone_error(rows):
            say(decision)
    end_with_errors(rows)


def _predicted(
    classifier: Classifier,
    found: FoundImages,
    interval: Every | None,
    top: int,
    threshold: float | None,
    batch_size: int,
    json: bool,
) -> list[Prediction]:
    """The rows, with a progress bar; those of a camera are said as they come, until Ctrl-C."""
    from inceptionnet.classifier.video import predict_all
    from inceptionnet.system.progress import Bar

    live = _is_live(found)
    rows: list[Prediction] = []
    ended = suppress(KeyboardInterrupt) if live else nullcontext()
    with Bar(len(found), "predicting", shown=not live) as bar, ended:
        for row in predict_all(classifier, found, interval, top, threshold=threshold, batch_size=batch_size):
            rows.append(row)
            bar.advance(1)
            if live and not json and not is_lone_error(rows):
                say("  ".join(_cells(row)))
    if not rows:
        raise Interrupted("stopped before the first frame came")
    return rows


def _is_live(found: FoundImages) -> bool:
    from inceptionnet.data.names import is_camera

    return is_camera(found[0].name)


def _write_csv(csv: Path, rows: Sequence[Prediction], classifier: Classifier) -> None:
    from inceptionnet.evaluate.prediction import write_csv

    try:
        write_csv(csv, rows, classifier.classes if classifier.outputs.multi_label else ())
    except OSError as error:
        raise ConfigurationError(f"--csv {csv}: cannot be written: {error.strerror}; name another file") from None


def _to_parquet(
    opening: AbstractContextManager[Batch],
    weights: str,
    out: Path,
    *,
    top: int,
    threshold: float | None,
    batch_size: int,
    threads: int,
    json: bool,
) -> None:
    from inceptionnet.classifier.parts import predict_in_parts
    from inceptionnet.cli.tables import print_json

    with opening as (classifier, job, world):
        written, about = predict_in_parts(
            classifier, job, out, top=top, threshold=threshold, batch_size=batch_size, threads=threads, world=world
        )
    if not world.is_main:
        return
    if json:
        print_json({
            **about, "weights": weights, "assumed": classifier.assumed, "written": str(out), "images": written.rows,
            "data_note": job.source.note, "errors": written.errors, "decode_errors": named_errors(written),
        })  # fmt: skip
    else:
        say(job.source.note)
        say(f"{out}: {number_of('image', written.rows)}")
        print_errors(written)


def _print(rows: Sequence[Prediction]) -> None:
    from inceptionnet.cli.tables import print_table, say_errors

    if is_lone_error(rows):
        return
    print_table(["file", "prediction"], [_cells(row) for row in rows])
    say_errors(rows)


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
