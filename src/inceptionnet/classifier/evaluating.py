"""Classifiers on labelled images: one by itself, or several together, each with its own preprocessing.

Source: [v1] section 7, [v4] section 5: probabilities are averaged over an image's crops, then over the networks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from inceptionnet.classifier.base import Backend
from inceptionnet.data.crops import Crops
from inceptionnet.data.fingerprint import check_everywhere
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.matching import read_exclude_list
from inceptionnet.data.sources import open_source
from inceptionnet.data.splits import AnySplit, Source, Split
from inceptionnet.errors import ConfigurationError, DataError, WeightsError, listed
from inceptionnet.evaluate.classes import Matched, matched_classes, same_classes
from inceptionnet.evaluate.evaluation import Evaluation, Member
from inceptionnet.evaluate.evaluation import evaluate_together as run_together
from inceptionnet.evaluate.metrics import Metrics, measure
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation, evaluate_labels
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics, measure_labels
from inceptionnet.evaluate.table import check_kind, write_predictions
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.distributed import World, joined_world
from inceptionnet.system.progress import Bar
from inceptionnet.weights.record import Record

log: logging.Logger = logging.getLogger("inceptionnet")


class Evaluable(Protocol):
    """A `Classifier`, as far as an evaluation needs it."""

    run: Backend
    record: Record
    source: str

    def check_probabilities(self) -> None:
        """Raises: WeightsError: the network has no classifier; ConfigurationError: softmax of a single logit."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What an evaluation gives, and what it was on."""

    metrics: Metrics | MultiLabelMetrics
    data: str
    source: Source
    split_name: str
    split: AnySplit
    """The images that were evaluated."""
    crops: tuple[Crops, ...]
    excluded: int = 0
    """Images that the list `exclude` names."""
    unmatched: int = 0
    """Lines of that list that name no image."""
    labels_note: str = ""
    """How the labels of the data became those of a network with several labels an image, where that is not plain."""
    class_order: str = ""
    """Where the order of the classes is from, if it is not simply the names in the weights."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: what was evaluated on, then the figures of `Metrics.to_dict`."""
        return {
            "data": self.data,
            "split": self.split_name,
            "split_note": self.source.note_on(self.split_name),
            "class_order": self.class_order,
            "crops": [{"count": view.shown, "scales_px": view.scales} for view in self.crops],
            "engines": list(self.metrics.evaluation.engines),
            "excluded": self.excluded,
            "unmatched_lines": self.unmatched,
            "labels_note": self.labels_note,
            **self.metrics.to_dict(),
        }


def evaluate_together(
    classifiers: Sequence[Evaluable],
    data: str | Path,
    *,
    split: str = "auto",
    crops: int = 1,
    scales: Sequence[int] = (),
    sample: int | None = None,
    labels: str | Path | None = None,
    splits: str | None = None,
    group_by: str | None = None,
    exclude: str | Path | None = None,
    threshold: float | None = None,
    classes: str | Path | Sequence[str] | None = None,
    predictions: str | Path | None = None,
    batch_size: int = 32,
    workers: int = 0,
    world: World | None = None,
) -> Evaluated:
    """Evaluate classifiers on labelled images; a corrupt image is counted and named, never replaced.

    Args:
        data: as for `open_source`. Data that is not split is split as in the training of the first classifier; all of
            it is evaluated where `labels` is given to a classifier that was not trained with any.
        split: auto (test, else val; all, where the weights are from elsewhere and the data is not split), train, val,
            test or all.
        crops: of each image: 1, or the papers' 10, 12 or 144.
        scales: their shorter sides in px. Default: the papers'.
        sample: evaluate a random sample of so many images, always the same one.
        labels: a file with the labels of the images, see docs/data.md. Default, for images in one folder: one with a
            well-known name.
        splits: which folders are the splits, as train=A,val=B, or none if they are classes. Default: by their names.
        group_by: what a split that is made here does not divide, see `open_source`. Default: as in the training of the
            first classifier.
        exclude: a text file with names of images to exclude, or the numbers that ImageNet's end in, one a line.
        threshold: probability from which a label is predicted, or of two classes the second. Default: 0.5 for sigmoid;
            for softmax the most probable class is predicted.
        classes: the classes in the order of the logits: a file or list of names; imagenet; text or numeric: the data's
            names sorted as text or as numbers. Default: the names in the weights; if they have none,
            the order of the data, in which folders are sorted as text.
        predictions: a .csv or .parquet file to write every image's prediction into.
        batch_size: crops in one pass.
        workers: processes that decode images.
        world: the processes of `joined_world`. Default: joined for this evaluation.

    Raises:
        ConfigurationError: an option that cannot be used with this data.
        DataError: data that cannot be read, or classes that do not match.
        WeightsError: a network without classifier.
    """
    if predictions:
        check_kind(Path(predictions))
    for one in classifiers:
        one.check_probabilities()
    outputs = _outputs_together(classifiers)
    least = _threshold(classifiers, threshold)
    views = tuple(Crops(one.record.preprocessing, crops, tuple(scales)) for one in classifiers)
    seeds = [one.record.provenance["seed"] for one in classifiers if "seed" in one.record.provenance]
    together = next(filter(None, [group_by, *(one.record.provenance.get("group_by") for one in classifiers)]), None)
    source = open_source(
        data, seed=seeds[0] if seeds else 0, labels=labels, evaluating=True, splits=splits, group_by=together
    )
    if source.multi_label and not outputs.multi_label:
        raise DataError(
            f"{data}: expected one label an image, for {outputs}, got several; evaluate a network with sigmoid of "
            "several logits, or state --activation sigmoid if this is one"
        )
    own = bool(seeds) and (labels is None or "labels" in classifiers[0].record.provenance)
    name, images = source.pick(split, own=own)
    _check_at_hand(images, {"exclude": exclude, "sample": sample, "predictions": predictions})
    out = unmatched = 0
    if isinstance(images, Split):
        images, out, unmatched = _chosen(images, exclude, sample)
    matched = [
        matched_classes(source.classes, one.record.classes, numbered=one.record.numbered, given=classes)
        for one in classifiers
    ]
    with nullcontext(world) if world else joined_world() as joined:
        check_everywhere(Source(source.title, source.classes, {name: images}, source.note), joined)
        evaluation = _run(
            classifiers, views, images, matched, least, f"evaluating on {name}", batch_size, workers, joined
        )
    if broken := evaluation.not_finite:
        raise WeightsError(
            f"{' and '.join(one.source or repr(one) for one in classifiers)}: the outputs are not finite for {broken} "
            f"of {len(evaluation.labels)} images, so there is nothing to evaluate; the training diverged, or the "
            "precision is too low"
        )
    if predictions and joined.is_main and isinstance(images, Split):
        write_predictions(Path(predictions), evaluation, images.names)
    order = "; ".join(dict.fromkeys(one.order for one in matched if one.order))
    if order and joined.is_main:
        log.info("class order: %s", order)
    if isinstance(evaluation, MultiLabelEvaluation):
        return Evaluated(
            measure_labels(evaluation), str(data), source, name, images, views, out, unmatched,
            _labels_note(source, evaluation), order,
        )  # fmt: skip
    return Evaluated(measure(evaluation), str(data), source, name, images, views, out, unmatched, class_order=order)


def _outputs_together(classifiers: Sequence[Evaluable]) -> Outputs:
    """What the logits of an ensemble mean. Raises: ConfigurationError: some are for one label an image, some not."""
    kinds = {one.record.outputs.multi_label: one for one in classifiers}
    if len(kinds) > 1:
        told = " and ".join(f"{one.record.outputs} ({one.source})" for one in kinds.values())
        raise ConfigurationError(
            f"the networks of an ensemble need outputs of one kind, got {told}; evaluate them apart"
        )
    return classifiers[0].record.outputs


def _threshold(classifiers: Sequence[Evaluable], stated: float | None) -> float | None:
    """The threshold of an ensemble: as stated, else that of sigmoid if a network has it. Raises: ConfigurationError."""
    each = [one.record.outputs.threshold(stated, one.source or "the network") for one in classifiers]
    return next((one for one in each if one is not None), None)


def _labels_note(source: Source, found: MultiLabelEvaluation) -> str:
    """How the labels of the data became those of the network, where that is not plain."""
    notes = []
    if not source.multi_label:
        notes.append("the data has one label an image: all others count as absent")
    support = found.labels.sum(0).tolist()
    if absent := [name for name, images in zip(found.classes, support, strict=True) if not images]:
        notes.append(f"labels that no image has, counted as absent: {listed(absent, ordered=True)}")
    return "; ".join(notes)


def _run(
    classifiers: Sequence[Evaluable],
    views: Sequence[Crops],
    images: AnySplit,
    matched: Sequence[Matched],
    threshold: float | None,
    title: str,
    batch_size: int,
    workers: int,
    world: World,
) -> Evaluation | MultiLabelEvaluation:
    known, labels_of = matched[0].names, matched[0].labels_of
    orders = [
        same_classes(known, own.names, one.source or repr(one)) for one, own in zip(classifiers, matched, strict=True)
    ]
    members = [
        Member(one.run, view, one.run.device, order, one.source, one.record.configuration.name, one.record.outputs)
        for one, view, order in zip(classifiers, views, orders, strict=True)
    ]
    loader = EvalLoader(
        images, views[0].prep, batch_size=max(1, batch_size // max(len(view.names) for view in views)),
        workers=workers, corrupt_images="skip", crops=views, world=world,
    )  # fmt: skip
    engines = tuple(one.run.about for one in classifiers)
    with Bar(len(images), title, shown=world.is_main) as bar:
        how: dict[str, Any] = {"labels_of": labels_of, "at_once": batch_size, "advance": bar.advance, "world": world}
        if members[0].outputs.multi_label:
            assert threshold is not None
            return replace(evaluate_labels(members, loader, known, threshold=threshold, **how), engines=engines)
        return replace(run_together(members, loader, known, threshold=threshold, **how), engines=engines)


def _check_at_hand(images: AnySplit, asked: dict[str, object]) -> None:
    given = [f"--{option}" for option, value in asked.items() if value is not None]
    if given and not isinstance(images, Split):
        raise ConfigurationError(f"{' and '.join(given)} need data on this machine, got a stream; leave them out")


def _chosen(images: Split, exclude: str | Path | None, sample: int | None) -> tuple[Split, int, int]:
    """The images that are wanted, how many the list leaves out, and how many of its lines name none."""
    keep, out, unmatched = np.arange(len(images)), 0, 0
    if exclude is not None:
        named, unmatched = read_exclude_list(Path(exclude), images.names)
        out, keep = int(named.sum()), keep[~named]
    if sample is not None and sample < len(keep):
        keep = np.sort(np.random.default_rng(0).permutation(keep)[:sample])
    return images.take(keep), out, unmatched
