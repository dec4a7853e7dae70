"""`inceptionnet evaluate RUN|WEIGHTS… DATA`: figures of a network, or of several together, on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import (
    BatchSize,
    Calibrate,
    ClassOrder,
    Device,
    Engine,
    Json,
    Labels,
    Precision,
    SplitName,
    Workers,
    opened,
)
from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.classifier import Classifier
    from inceptionnet.classifier.evaluating import Evaluated
    from inceptionnet.data.crops import Crops
    from inceptionnet.evaluate.metrics import Interval, Metrics

MATRIX = 12
"""Up to so many classes the confusion matrix is printed whole."""


def evaluate(
    weights: Annotated[list[str], typer.Argument(metavar="RUN|WEIGHTS…", help="Run folders, weights files of any known "
                                                 "layout, hf:OWNER/NAME or exported files; several are an ensemble.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for train; data that is not split is split as it was "
                                        "for training.")],
    split: Annotated[SplitName, typer.Option(help="auto: test, else val; all where the weights are from elsewhere and "
                                                  "the data is not split.")] = "auto",
    crops: Annotated[int, typer.Option(help="Crops of each image: 1, or the papers' 10, 12 or 144.")] = 1,
    scales: Annotated[str, typer.Option(metavar="PX,PX…", help="Their shorter sides. Default: the papers'.")] = "",
    show_crops: Annotated[tuple[Path, Path] | None, typer.Option(metavar="IMAGE PNG", help="Draw an image's crops into "
                                                                 "a file, and evaluate nothing.")] = None,
    sample: Annotated[int | None, typer.Option(metavar="N", help="Evaluate a random sample of N images.",
                                               min=1)] = None,
    labels: Labels = None,
    exclude: Annotated[Path | None, typer.Option(help="A text file with names of images to exclude, or the numbers "
                                                      "that ImageNet's end in, one a line.")] = None,
    classes: ClassOrder = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every image's prediction into this .csv or .parquet "
                                                          "file.")] = None,
    json: Json = False,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:  # fmt: skip
    """Evaluate networks: accuracy, cross-entropy, calibration and per-class metrics, on one crop or many.

    Softmax is averaged over the crops, then over the networks, each with its own preprocessing. Under torchrun every
    process takes its share, and every image counts once.
    """
    from inceptionnet.classifier.evaluating import evaluate_together
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.crops import Crops
    from inceptionnet.devices import default_workers
    from inceptionnet.distributed import joined_world
    from inceptionnet.evaluate.table import check_kind

    sides = _numbers(scales)
    if predictions:
        check_kind(predictions)
    with joined_world() as world:
        classifiers = [
            opened(one, engine=engine, precision=precision, calibrate=calibrate, device=device, batch_size=batch_size)
            for one in weights
        ]
        if show_crops:
            _draw(*show_crops, Crops(classifiers[0].preprocessing, crops, sides))
            return
        found = evaluate_together(
            classifiers, data, split=split, crops=crops, scales=sides, sample=sample, labels=labels, exclude=exclude,
            classes=classes, predictions=predictions, batch_size=batch_size, workers=default_workers(workers),
            world=world,
        )  # fmt: skip
    if not world.is_main:
        return
    if json:
        networks = [one.record.configuration.name for one in classifiers]
        assumed = [one.assumed for one in classifiers]
        print_json({"weights": weights, "networks": networks, "assumed": assumed, **found.to_dict()})
    else:
        _print(classifiers, found)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",")) if text else ()
    except ValueError:
        raise ConfigurationError(
            f"--scales {text!r}: expected whole numbers of px with commas, as in 256,288"
        ) from None


def _draw(path: Path, file: Path, view: Crops) -> None:
    from inceptionnet.data.crops import montage
    from inceptionnet.data.decode import decode, read_image
    from inceptionnet.files import replacing

    image = decode(read_image(path), channels=view.prep.channels, name=str(path))
    try:
        with replacing(file) as temporary:
            montage(image, view).save(temporary, "PNG")
    except OSError as error:
        raise ConfigurationError(f"--show-crops {file}: cannot be written: {error.strerror}; name another") from None
    print(f"{file}: {view.shown} crops of {view.prep.size_px} px")


def _print(classifiers: Sequence[Classifier], found: Evaluated) -> None:
    from inceptionnet.cli.tables import print_table

    metrics = found.metrics
    result = metrics.evaluation
    together = " + ".join(f"{one.source}: {one.record.configuration.name}" for one in classifiers)
    print_table(
        ["class", "support", "correct", "recall", "precision", "F1"],
        [
            [one.name, str(one.support), str(one.correct), f"{one.recall:.1%}",
             "" if one.precision is None else f"{one.precision:.1%}", f"{one.f1:.3f}"]
            for one in metrics.classes if one.support
        ],
        right={1, 2, 3, 4, 5},
        title=f"{together} on {found.data}, {found.split_name}",
        note=found.source.note,
    )  # fmt: skip
    _print_confusion(metrics)
    views = {f"{view.shown} crops (shorter side {', '.join(map(str, view.scales))} px)" for view in found.crops
             if view.shown > 1}  # fmt: skip
    if classifiers[1:]:
        print("the networks together:")
    if views:
        print("each image as " + ", ".join(sorted(views)))
    if found.excluded or found.unmatched:
        print(f"{found.excluded} images excluded; {found.unmatched} lines of the list match no image")
    print(f"top-1 accuracy {result.top1:.2%}{_within(metrics.top1_interval, '.2%')}", end="")
    print(f"  top-{result.k} {result.topk:.2%}{_within(metrics.topk_interval, '.2%')}" if result.k > 1 else "")
    print(f"cross-entropy {result.loss:.4f}{_within(metrics.loss_interval, '.4f')}", end="  ")
    print(f"macro F1 {metrics.macro_f1:.3f}{_within(metrics.macro_f1_interval, '.3f')}", end="  ")
    print(f"expected calibration error {metrics.ece:.1%}  on {len(result.labels)} images")
    for name, reason in result.decode_errors:
        print(f"not counted: {name}: {reason}")
    _print_members(metrics)
    for one in classifiers:
        if one.assumed:
            print(f"assumed of {one.source}: {one.assumed}")
    if found.class_order:
        print(f"class order: {found.class_order}")


def _print_members(metrics: Metrics) -> None:
    """Each network of an ensemble by itself, and every two of them compared on the same images."""
    from inceptionnet.cli.tables import print_table
    from inceptionnet.evaluate.paired import paired_rows

    if not metrics.members:
        return
    k = metrics.evaluation.k
    rows = [
        [f"{i}: {one.evaluation.file}", one.evaluation.network, f"{one.evaluation.top1:.2%}",
         f"{one.evaluation.topk:.2%}", f"{one.evaluation.loss:.4f}"]
        for i, one in enumerate(metrics.members, 1)
    ]  # fmt: skip
    print_table(["by itself", "network", "top-1", f"top-{k}", "cross-entropy"], rows, right={2, 3, 4})
    print_table(
        ["networks", "only first correct", "only second correct", "top-1 difference (95 % interval)", "p (McNemar)"],
        paired_rows(metrics.paired),
        right={1, 2, 4},
    )


def _print_confusion(metrics: Metrics) -> None:
    """The whole matrix of few classes; of many, the pairs that are confused most."""
    from inceptionnet.cli.tables import print_table

    names = metrics.evaluation.classes
    if len(names) <= MATRIX:
        rows = [[name, *map(str, row)] for name, row in zip(names, metrics.confusion_matrix.tolist(), strict=True)]
        print_table(["true ↓  predicted →", *names], rows, right=range(1, len(names) + 1))
    elif metrics.confused_pairs:
        rows = [[names[i], names[j], str(count)] for i, j, count in metrics.confused_pairs[:MATRIX]]
        print_table(["true class", "confused with", "images"], rows, right={2}, title="most confused pairs")


def _within(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval.low:{form}} to {interval.high:{form}})"
