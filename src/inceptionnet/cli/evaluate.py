"""`inceptionnet evaluate RUN|WEIGHTS… DATA`: figures of a network, or of several together, on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import (
    BatchSize,
    Calibrate,
    Device,
    Engine,
    Json,
    Labels,
    Precision,
    Workers,
    default_workers,
)
from inceptionnet.cli.predict import run_by
from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inceptionnet.data.crops import Crops
    from inceptionnet.data.splits import AnySplit
    from inceptionnet.evaluate.evaluation import Evaluation
    from inceptionnet.evaluate.metrics import Interval, Metrics
    from inceptionnet.weights import WeightsFile

MATRIX = 12
"""Up to so many classes the confusion matrix is printed whole."""


def evaluate(
    weights: Annotated[list[str], typer.Argument(metavar="RUN|WEIGHTS…", help="Run folders, weights files of any known "
                                                 "layout, or hf:OWNER/NAME; several are evaluated together.")],
    data: Annotated[str, typer.Argument(help="As for train; the same data is split in the same way as it was there. "
                                        "Or images side by side, with --labels.")],
    split: Annotated[str, typer.Option(help="auto (test, else val; all where weights from elsewhere meet images that "
                                            "are not split), train, val, test or all.")] = "auto",
    crops: Annotated[int, typer.Option(help="Crops of each image: 1, 10, 12 or 144, as in the papers.")] = 1,
    scales: Annotated[str, typer.Option(help="Their shorter sides in px, with commas; left out, the papers'.")] = "",
    show_crops: Annotated[tuple[Path, Path] | None, typer.Option(metavar="IMAGE PNG", help="Draw an image's "
                                                                 "crops into this file, and evaluate nothing.")] = None,
    stop_after: Annotated[int | None, typer.Option(help="Only so many images, drawn by lot.", min=1)] = None,
    labels: Labels = None,
    exclude: Annotated[Path | None, typer.Option(help="A text file with names of images to leave out, or the numbers "
                                                      "that ImageNet's end in, one a line.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Write what is said of each image into this .csv or "
                                                          ".parquet file.")] = None,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Evaluate networks: top-1, top-5, cross-entropy, calibration, and class by class, on one crop or many.

    Softmax is averaged over the crops, then over the networks, each with its own preprocessing. Under torchrun (as
    train) every process takes its share, and every image counts once.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.crops import Crops
    from inceptionnet.data.sources import open_source
    from inceptionnet.data.splits import Split
    from inceptionnet.engines.choice import check_engine, check_precision
    from inceptionnet.evaluate.metrics import measure
    from inceptionnet.evaluate.table import check_kind, write_predictions
    from inceptionnet.train.run import weights_of
    from inceptionnet.weights import read_weights

    check_engine(engine)
    check_precision(precision, bool(calibrate))
    if predictions:
        check_kind(predictions)
    files = [weights_of(one) for one in weights]
    read = [read_weights(file) for file in files]
    records = [one.classifier() for one in read]
    views = [Crops(record.preprocessing, crops, _numbers(scales)) for record in records]
    if show_crops:
        _draw(*show_crops, views[0])
        return
    own = [record.provenance["seed"] for record in records if "seed" in record.provenance]
    source = open_source(data, seed=own[0] if own else 0, labels=labels, evaluating=True)
    name, images = source.pick(split, own=bool(own))
    _check_at_hand(images, {"--exclude": exclude, "--stop-after": stop_after, "--predictions": predictions})
    images, left_out = _chosen(images, exclude, stop_after)
    result = evaluated(
        read, views, images, source.classes, f"evaluating on {name}",
        batch_size=batch_size, workers=default_workers(workers), device=device, engine=engine,
        precision=precision, calibrate=calibrate,
    )  # fmt: skip
    if result is None:
        return
    if predictions and isinstance(images, Split):
        write_predictions(predictions, result, images.names)
    figures = {
        "weights": files,
        "networks": [record.configuration.name for record in records],
        "data": data,
        "split": name,
        "split_note": source.note,
        "crops": [{"count": view.shown, "scales_px": view.scales} for view in views],
        "engines": result.engines,
        **left_out,
    }
    metrics = measure(result)
    if json:
        print_json(figures | metrics.to_dict())
    else:
        _print(figures, metrics)


def evaluated(
    read: Sequence[WeightsFile],
    views: Sequence[Crops],
    images: AnySplit,
    classes: Sequence[str],
    title: str,
    *,
    batch_size: int,
    workers: int,
    device: str,
    engine: str = "eager",
    precision: str = "fp32",
    calibrate: Sequence[str] | None = None,
) -> Evaluation | None:
    """The evaluation of the networks together, in the main process."""
    from dataclasses import replace

    from inceptionnet.data.loading import EvalLoader
    from inceptionnet.devices import pick_device
    from inceptionnet.distributed import joined_world
    from inceptionnet.evaluate.evaluation import Member, evaluate_together, matched_labels, same_classes
    from inceptionnet.progress import Bar

    known = read[0].record.classes
    orders = [same_classes(known, one.record.classes, str(one.path)) for one in read]
    labels_of = matched_labels(classes, known)
    with joined_world() as world:
        at = pick_device(device)
        most = max(len(view.names) for view in views)
        images_at_once = max(1, batch_size // most)
        members, engines = [], []
        for one, view, order in zip(read, views, orders, strict=True):
            model = one.model().to(at)
            crops_at_once = min(batch_size, max(1, min(images_at_once, len(images))) * len(view.names))
            run, used = run_by(engine, model, crops_at_once, view.prep, precision, calibrate)
            members.append(Member(model, view, order, run, file=str(one.path), network=one.record.configuration.name))
            engines.append(used)
        loader = EvalLoader(
            images, views[0].prep,
            batch_size=images_at_once, workers=workers, corrupt_images="skip", crops=views, world=world,
        )  # fmt: skip
        with Bar(len(images), title, shown=world.is_main) as bar:
            result = evaluate_together(
                members, loader, known, labels_of=labels_of, at_once=batch_size, advance=bar.advance, world=world
            )
        return replace(result, engines=tuple(engines)) if world.is_main else None


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise ConfigurationError(
            f"--scales {text!r}: expected whole numbers of px with commas, as in 256,288"
        ) from None


def _draw(image: Path, file: Path, view: Crops) -> None:
    from inceptionnet.data.crops import montage
    from inceptionnet.data.decode import decode, read_image

    decoded = decode(read_image(image), channels=view.prep.channels, name=str(image))
    try:
        montage(decoded, view).save(file, "PNG")
    except OSError as error:
        raise ConfigurationError(f"--show-crops {file}: cannot be written: {error.strerror}; name another") from None
    print(f"{file}: {view.shown} crops of {view.prep.size_px} px")


def _check_at_hand(images: AnySplit, asked: Mapping[str, object]) -> None:
    from inceptionnet.data.splits import Split

    if not isinstance(images, Split) and (given := [option for option, value in asked.items() if value is not None]):
        raise ConfigurationError(f"{' and '.join(given)} need data that is at hand, got a stream; leave them out")


def _chosen(images: AnySplit, exclude: Path | None, stop_after: int | None) -> tuple[AnySplit, dict[str, int]]:
    """The images that are wanted, how many the list left out, and how many of its lines name none."""
    import numpy as np

    from inceptionnet.data.flat import excluded
    from inceptionnet.data.splits import Split

    if not isinstance(images, Split):
        return images, {"left_out": 0}
    keep = np.arange(len(images))
    left_out = {"left_out": 0}
    if exclude is not None:
        try:
            lines = exclude.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--exclude {exclude}: expected a text file, got {error}") from None
        out, unmatched = excluded(images.names, lines, f"--exclude {exclude}")
        left_out = {"left_out": int(out.sum()), "unmatched_lines": unmatched}
        keep = keep[~out]
    if stop_after is not None and stop_after < len(keep):
        keep = np.sort(np.random.default_rng(0).permutation(keep)[:stop_after])
    return images.take(keep), left_out


def _print(figures: dict[str, Any], metrics: Metrics) -> None:
    from inceptionnet.cli.tables import print_table

    said = metrics.evaluation
    together = " + ".join(
        f"{file}: {network}" for file, network in zip(figures["weights"], figures["networks"], strict=True)
    )
    print_table(
        ["class", "images", "right", "recall", "precision", "F1"],
        [
            [one.name, str(one.support), str(one.correct), f"{one.recall:.1%}",
             "" if one.precision is None else f"{one.precision:.1%}", f"{one.f1:.3f}"]
            for one in metrics.classes if one.support
        ],
        right={1, 2, 3, 4, 5},
        title=f"{together} on {figures['data']}, {figures['split']}",
        note=figures["split_note"],
    )  # fmt: skip
    _print_confusion(metrics)
    told = sorted(
        {f"{one['count']} crops ({_scales(one['scales_px'])})" for one in figures["crops"] if one["count"] > 1}
    )
    if told:
        print("each image as " + ", ".join(told))
    if left_out := figures["left_out"]:
        unmatched = figures["unmatched_lines"]
        print(f"{left_out} images left out" + (f"; {unmatched} lines of the list name none" if unmatched else ""))
    print(f"top-1 {said.top1:.2%}{_within(metrics.top1_interval, '.2%')}", end="")
    print(f"  top-{said.k} {said.topk:.2%}{_within(metrics.topk_interval, '.2%')}" if said.k > 1 else "")
    print(f"cross-entropy {said.loss:.4f}{_within(metrics.loss_interval, '.4f')}", end="  ")
    print(f"macro F1 {metrics.macro_f1:.3f}{_within(metrics.macro_f1_interval, '.3f')}", end="  ")
    print(f"calibration error {metrics.ece:.1%}  on {len(said.labels)} images")
    for name, reason in said.decode_errors:
        print(f"not counted: {name}: {reason}")


def _print_confusion(metrics: Metrics) -> None:
    """The whole matrix of few classes, of many what is taken for what most often."""
    from inceptionnet.cli.tables import print_table

    names = metrics.evaluation.classes
    if len(names) <= MATRIX:
        rows = [[name, *map(str, row)] for name, row in zip(names, metrics.confusion_matrix.tolist(), strict=True)]
        print_table(["is ↓  taken for →", *names], rows, right=range(1, len(names) + 1))
    elif metrics.confused_pairs:
        rows = [[names[i], names[j], str(count)] for i, j, count in metrics.confused_pairs[:MATRIX]]
        print_table(["is", "most often taken for", "images"], rows, right={2})


def _within(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval.low:{form}} to {interval.high:{form}})"


def _scales(scales: tuple[int, ...]) -> str:
    return "shorter side " + ", ".join(map(str, scales)) + " px"
