"""`inceptionnet evaluate RUN|WEIGHTS… DATA`: figures of a network, or of several together, on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import (
    Activation,
    BatchSize,
    Calibrate,
    ClassOrder,
    Device,
    Engine,
    GroupBy,
    Json,
    Labels,
    Precision,
    SplitName,
    Splits,
    Threshold,
    Workers,
    opened,
)
from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.classifier import Classifier
    from inceptionnet.classifier.evaluating import Evaluated
    from inceptionnet.data.crops import Crops
    from inceptionnet.evaluate.evaluation import Evaluation
    from inceptionnet.evaluate.intervals import Interval
    from inceptionnet.evaluate.metrics import ClassFigures, Metrics
    from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
    from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics

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
    splits: Splits = None,
    group_by: GroupBy = None,
    exclude: Annotated[Path | None, typer.Option(help="A text file with names of images to exclude, or the numbers "
                                                      "that ImageNet's end in, one a line.")] = None,
    classes: ClassOrder = None,
    predictions: Annotated[Path | None, typer.Option(help="Write every image's prediction into this .csv or .parquet "
                                                          "file.")] = None,
    threshold: Threshold = None,
    activation: Activation = None,
    json: Json = False,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    engine: Engine = "eager",
    precision: Precision = "fp32",
    calibrate: Calibrate = None,
) -> None:  # fmt: skip
    """Evaluate networks: accuracy, cross-entropy, calibration and per-class metrics, on one crop or many.

    Probabilities are averaged over the crops, then over the networks, each with its own preprocessing. Under torchrun
    every process takes its share, and every image counts once.
    """
    from inceptionnet.classifier.evaluating import evaluate_together
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.crops import Crops
    from inceptionnet.evaluate.table import check_kind
    from inceptionnet.system.devices import default_workers
    from inceptionnet.system.distributed import joined_world

    sides = _numbers(scales)
    if predictions:
        check_kind(predictions)
    with joined_world() as world:
        classifiers = [
            opened(
                one, engine=engine, precision=precision, calibrate=calibrate, device=device, batch_size=batch_size,
                activation=activation, predicts=not show_crops,
            )
            for one in weights
        ]  # fmt: skip
        if show_crops:
            _draw(*show_crops, Crops(classifiers[0].preprocessing, crops, sides))
            return
        found = evaluate_together(
            classifiers, data, split=split, crops=crops, scales=sides, sample=sample, labels=labels, splits=splits,
            group_by=group_by, exclude=exclude, classes=classes, threshold=threshold, predictions=predictions,
            batch_size=batch_size, workers=default_workers(workers),
            world=world,
        )  # fmt: skip
    if not world.is_main:
        return
    if json:
        networks = [one.record.configuration.name for one in classifiers]
        assumed = [one.assumed for one in classifiers]
        activations = [one.outputs.activation for one in classifiers]
        about = {"weights": weights, "networks": networks, "activations": activations, "assumed": assumed}
        print_json({**about, **found.to_dict()})
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
    from inceptionnet.system.files import replacing

    image = decode(read_image(path), channels=view.prep.channels, name=str(path))
    try:
        with replacing(file) as temporary:
            montage(image, view).save(temporary, "PNG")
    except OSError as error:
        raise ConfigurationError(f"--show-crops {file}: cannot be written: {error.strerror}; name another") from None
    say(f"{file}: {view.shown} crops of {view.prep.size_px} px")


def _print(classifiers: Sequence[Classifier], found: Evaluated) -> None:
    from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics

    metrics = found.metrics
    together = " + ".join(f"{one.source}: {one.record.configuration.title}" for one in classifiers)
    title = f"{together} on {found.data}, {found.split_name}"
    if isinstance(metrics, MultiLabelMetrics):
        _print_labels(metrics, title, found.source.note_on(found.split_name))
    else:
        _print_classes(metrics, title, found.source.note_on(found.split_name))
    views = {f"{view.shown} crops (shorter side {', '.join(map(str, view.scales))} px)" for view in found.crops
             if view.shown > 1}  # fmt: skip
    if classifiers[1:]:
        say("the networks together:")
    if views:
        say("each image as " + ", ".join(sorted(views)))
    if found.excluded or found.unmatched:
        say(f"{number_of('image', found.excluded)} excluded; lines of the list that match no image: {found.unmatched}")
    if found.labels_note:
        say(found.labels_note)
    evaluation = metrics.evaluation
    if decision := classifiers[0].outputs.decision(evaluation.classes, evaluation.threshold):
        say(decision)
    if isinstance(metrics, MultiLabelMetrics):
        _print_label_figures(metrics)
    else:
        _print_figures(metrics)
    for name, reason in evaluation.decode_errors:
        say(f"not counted: {name}: {reason}")
    _print_members(metrics)
    if found.class_order:
        say(f"class order: {found.class_order}")


def _print_classes(metrics: Metrics, title: str, note: str) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["class", "support", "correct", "recall", "precision", "F1"],
        [_figures(one) for one in metrics.classes if one.support],
        right={1, 2, 3, 4, 5},
        title=title,
        note=note,
    )
    _print_confusion(metrics)


def _print_labels(metrics: MultiLabelMetrics, title: str, note: str) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["label", "support", "correct", "recall", "precision", "F1", "AP"],
        [
            [*_figures(one), "" if area is None else f"{area:.3f}"]
            for one, area in zip(metrics.classes, metrics.average_precision, strict=True)
        ],
        right={1, 2, 3, 4, 5, 6},
        title=title,
        note=note,
    )


def _figures(one: ClassFigures) -> list[str]:
    shares = ["" if share is None else f"{share:.1%}" for share in (one.recall, one.precision)]
    return [one.name, str(one.support), str(one.correct), *shares, f"{one.f1:.3f}"]


def _print_figures(metrics: Metrics) -> None:
    result = metrics.evaluation
    say(f"top-1 accuracy {result.top1:.2%}{_within(metrics.top1_interval, '.2%')}", end="")
    say(f"  top-{result.k} {result.topk:.2%}{_within(metrics.topk_interval, '.2%')}" if result.k > 1 else "")
    say(f"cross-entropy {result.loss:.4f}{_within(metrics.loss_interval, '.4f')}", end="  ")
    say(f"macro F1 {metrics.macro_f1:.3f}{_within(metrics.macro_f1_interval, '.3f')}", end="  ")
    say(f"expected calibration error {metrics.ece:.1%}  on {number_of('image', len(result.labels))}")


def _print_label_figures(metrics: MultiLabelMetrics) -> None:
    within, area = metrics.intervals, metrics.mean_average_precision
    say(f"subset accuracy {metrics.subset_accuracy:.2%}{_within(within['subset_accuracy'], '.2%')}", end="  ")
    say(f"Hamming loss {metrics.hamming_loss:.4f}{_within(within['hamming_loss'], '.4f')}")
    for name, one in (("macro", metrics.macro), ("micro", metrics.micro)):
        say(f"{name} precision {one.precision:.3f}  recall {one.recall:.3f}  ", end="")
        say(f"F1 {one.f1:.3f}{_within(within[f'{name}_f1'], '.3f')}")
    if area is not None:
        say(f"mean average precision {area:.3f}{_within(within['mean_average_precision'], '.3f')}")
    loss, images = metrics.evaluation.loss, number_of("image", len(metrics.evaluation.labels))
    say(f"binary cross-entropy {loss:.4f}{_within(within['loss'], '.4f')}  on {images}")


def _print_members(metrics: Metrics | MultiLabelMetrics) -> None:
    """Each network of an ensemble by itself, and every two of them compared on the same images."""
    from inceptionnet.cli.tables import print_table
    from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
    from inceptionnet.evaluate.paired import paired_rows

    if not metrics.members:
        return
    if isinstance(metrics, MultiLabelMetrics):
        compared, columns = "subset accuracy", ["subset accuracy", "mAP", "cross-entropy"]
        figures = [
            [f"{one.subset_accuracy:.2%}", f"{one.mean_average_precision or 0:.3f}", f"{one.evaluation.loss:.4f}"]
            for one in metrics.members
        ]
    else:
        compared, columns = "top-1", ["top-1", f"top-{metrics.evaluation.k}", "cross-entropy"]
        results = [one.evaluation for one in metrics.members]
        figures = [[f"{one.top1:.2%}", f"{one.topk:.2%}", f"{one.loss:.4f}"] for one in results]
    evaluations: Sequence[Evaluation | MultiLabelEvaluation] = metrics.evaluation.members
    rows = [
        [f"{i}: {one.file}", one.network, *own]
        for i, (one, own) in enumerate(zip(evaluations, figures, strict=True), 1)
    ]
    print_table(["by itself", "network", *columns], rows, right={2, 3, 4})
    print_table(
        [
            "networks", "only first correct", "only second correct", f"{compared} difference (95 % interval)",
            "p (McNemar)",
        ],
        paired_rows(metrics.paired),
        right={1, 2, 4},
    )  # fmt: skip


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
