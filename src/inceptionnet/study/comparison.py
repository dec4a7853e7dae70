"""Finished runs beside one another: figures, settings that differ, curves, and paired differences on the same images.

Source of the statistics: evaluate/paired.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from inceptionnet.errors import DataError, RunError, listed, one_line
from inceptionnet.evaluate.intervals import Interval
from inceptionnet.nets.analysis import analyse, multiply_adds, parameters
from inceptionnet.nets.edits import configure
from inceptionnet.study.curves import Curve, read_curve
from inceptionnet.study.differences import differing_settings
from inceptionnet.study.opened_runs import OpenRun, check_same_data, opened_runs
from inceptionnet.study.result import finite
from inceptionnet.study.same_images import SameImages, evaluate_runs, why_not_the_same
from inceptionnet.train.settings import value_text

ONE_SEED = (
    "Each run is one training with one random seed: this compares trainings, not methods. Another seed gives other "
    "figures, and no interval here includes that; a study over several seeds compares methods."
)
OF_CLASSES = {"top1": "top-1 accuracy", "top2": "top-2 accuracy", "top5": "top-5 accuracy"}
OF_LABELS = {
    "mean_average_precision": "mean average precision", "subset_accuracy": "subset accuracy", "macro_f1": "macro F1",
}  # fmt: skip
FIGURES = OF_CLASSES | OF_LABELS
"""The figures of evaluation.json that are compared, if it has them: of one label an image, and of several."""
MACHINE = ("device", "processes", "threads", "cores", "platform")
"""What times depend on."""
FIRST = 10
"""Disagreements in `Comparison.to_dict`."""


@dataclass(frozen=True)
class RunFigures:
    """What is known of a run without evaluating it again."""

    name: str
    """The end of its path, as long as is needed to tell the runs apart."""
    path: str
    network: str
    parameters: int
    """Without auxiliary heads, as multiply-adds."""
    multiply_adds: int
    """Of an image at the run's size."""
    epochs: int
    """Finished ones; 0 where only the classifier was fitted."""
    planned_epochs: int | None
    """None with a time budget."""
    split: str
    """Of the last evaluation."""
    images: int
    """In it."""
    figures: Mapping[str, float]
    """Of it: those of `FIGURES` that it has."""
    intervals: Mapping[str, Interval | None]
    seconds: float
    """Of training, evaluation and restarts included."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "run": self.name,
            "path": self.path,
            "network": self.network,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "epochs": self.epochs,
            "planned_epochs": self.planned_epochs,
            "split": self.split,
            "images": self.images,
            **self.figures,
            "intervals": self.intervals,
            "training_s": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Finished runs beside one another."""

    runs: Sequence[RunFigures]
    data: str
    """The title of their data."""
    settings: Mapping[str, Sequence[Any]]
    """The settings that differ, by the names that `train` takes, with the value of each run."""
    curves: Mapping[str, Sequence[Curve]]
    """By `MEASURES` of curves.py, the deciding one first; a curve for each run."""
    notes: Sequence[str]
    """What to know before the figures are compared; one sentence each."""
    same_images: SameImages | None
    unpaired: str
    """Why `same_images` is None; else empty."""

    @property
    def title(self) -> str:
        """The runs, in words."""
        return listed([one.name for one in self.runs], 4, ordered=True, last="and")

    @property
    def figures(self) -> list[str]:
        """The keys of `FIGURES` that the runs have."""
        return [name for name in FIGURES if any(name in one.figures for one in self.runs)]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of the disagreements their number and the first ones."""
        names, found = [one.name for one in self.runs], self.same_images
        pairs = found.paired if found else {}
        return {
            "data": self.data,
            "runs": [one.to_dict() for one in self.runs],
            "settings": {name: list(values) for name, values in self.settings.items()},
            "notes": list(self.notes),
            "curves": {
                what: [
                    {"run": one.label, "epochs": one.epochs, "minutes": one.minutes, "values": finite(one.values)}
                    for one in curves
                ]
                for what, curves in self.curves.items()
            },
            "unpaired": self.unpaired,
            "split": found.evaluated.split_name if found else None,
            "split_note": found.note if found else "",
            "images": found.images if found else None,
            "paired": [
                {"first": names[i], "second": names[j], **one.to_dict()} for (i, j), one in pairs.items()
            ],
            "disagreements": len(found.disagreements) if found else None,
            "first_disagreements": [
                {
                    "image": one.image,
                    "label": one.label,
                    "predicted": list(one.predicted),
                    "correct": list(one.correct),
                    "losses": list(one.losses),
                }
                for one in (found.disagreements if found else ())[:FIRST]
            ],
        }  # fmt: skip


def compare(
    runs: Sequence[str | Path],
    *,
    split: str = "auto",
    data: str | None = None,
    labels: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
) -> Comparison:
    """Compare finished runs on the same data: figures, settings that differ, curves; and image by image.

    Where the runs held out the same images, their last weights are evaluated on them: the paired differences in
    accuracy with McNemar's test, and the images on which they disagree.

    Args:
        runs: two or more run folders.
        split: auto (test, else val), val or test.
        data, labels: where the runs' images and the file of their labels are now, if they have moved.
        device: as for `pick_device`.
        batch_size: images in one pass.
        workers: processes that decode images.

    Raises:
        ConfigurationError: fewer than two runs, or the same one twice.
        RunError: a folder is no run, has no finished epoch, or its data has moved or changed.
        DataError: the runs have other classes or images, or not the split.
        WeightsError: the weights of a run cannot be read.
    """
    opened = opened_runs([Path(one) for one in runs], data, None if labels is None else str(labels))
    first = opened[0]
    for other in opened[1:]:
        if first.job.outputs.multi_label != other.job.outputs.multi_label:
            several, one = (first, other) if first.job.outputs.multi_label else (other, first)
            raise DataError(
                f"{several.run.path} has several labels an image and {one.run.path} one; compare runs on one data set"
            )
        check_same_data(first, other)
    unpaired = why_not_the_same(opened, split)
    curves = {
        what: [read_curve(one.run, what, label=one.name, colour=i) for i, one in enumerate(opened)]
        for what in _measures(opened)
    }
    figures = [_figures(one) for one in opened]
    found = None
    if not unpaired:
        found = evaluate_runs(opened, split, device=device, batch_size=batch_size, workers=workers)
    return Comparison(
        figures,
        first.job.source.title,
        differing_settings([one.about for one in opened]),
        curves,
        _notes(opened, figures),
        found,
        unpaired,
    )


def _measures(runs: Sequence[OpenRun]) -> list[str]:
    """Which curves the runs have, the deciding one first; top-5 of more than five classes."""
    if runs[0].job.outputs.multi_label:
        return ["map", "subset_error", "loss"]
    top5 = all({"val_top5", "test_top5"} & one.run.read_metrics()[0].keys() for one in runs)
    return ["top1_error", *(["top5_error"] if top5 else []), "loss"]


def _figures(one: OpenRun) -> RunFigures:
    evaluation, last = one.run.read_json("evaluation.json"), one.run.read_metrics()[-1]
    schedule, configuration = one.job.recipe.schedule, one.job.configuration
    assert configuration is not None
    rows = analyse(replace(configure(configuration), aux={}))
    try:
        wanted = OF_LABELS if one.job.outputs.multi_label else OF_CLASSES
        found = {name: evaluation[name] for name in wanted if evaluation.get(name) is not None}
        intervals = {name: evaluation["intervals"][name] for name in found}
        values = {
            "name": one.name,
            "path": str(one.run.path),
            "network": configuration.name,
            "parameters": parameters(rows),
            "multiply_adds": multiply_adds(rows),
            "epochs": int(last["epoch"]),
            "planned_epochs": schedule.epochs if schedule.minutes is None else None,
            "split": evaluation["split"],
            "images": evaluation["images"],
            "figures": found,
            "intervals": intervals,
            "seconds": last["elapsed_s"],
        }
        return TypeAdapter(RunFigures).validate_python(values)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{one.run.path}: evaluation.json or metrics.csv is damaged: {one_line(repr(error))}") from None


def _notes(runs: Sequence[OpenRun], figures: Sequence[RunFigures]) -> list[str]:
    notes = []
    for one, row in zip(runs, figures, strict=True):
        if changes := [f"{name}: {how}" for name, how in one.run.changes().items()]:
            notes.append(
                f"settings of {one.name} changed while it trained ({listed(changes, ordered=True)}); those at its end "
                "are listed"
            )
        if row.planned_epochs is not None and row.epochs < row.planned_epochs:
            notes.append(f"{one.name} has {row.epochs} of {row.planned_epochs} epochs: stopped early, or not finished")
    for name in MACHINE:
        values = [value_text(one.about["environment"].get(name)) for one in runs]
        if len(set(values)) > 1:
            notes.append(f"training times are not comparable: another {name} ({', '.join(values)})")
    return notes
