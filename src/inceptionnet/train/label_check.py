"""Labels that look wrong: features of all images, and cross-validated predictions of a logistic regression on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inceptionnet.classifier import Classifier
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, RunError, number_of
from inceptionnet.evaluate.label_ranking import LabelRanking, rank_labels
from inceptionnet.model.outputs import Outputs
from inceptionnet.train.head import Part, computed
from inceptionnet.train.logistic import Fit, fit
from inceptionnet.train.plan import Job, read_job
from inceptionnet.train.run import Run


@dataclass(frozen=True)
class LabelCheck:
    """The ranking of the labels of a data set, and how it was made."""

    ranking: LabelRanking
    fitted: Fit
    decode_errors: tuple[tuple[str, str], ...]
    """(name, reason) of each image that was skipped."""


def all_images(source: Source) -> tuple[Split, list[str]]:
    """The images of all splits, and the name of the split of each.

    Raises:
        DataError: a stream, or images with several labels.
    """
    if any(not isinstance(split, Split) for split in source.splits.values()):
        raise DataError(
            f"{source.title}: expected images in files to rank their labels, got a stream; download it and give the "
            "folder"
        )
    if source.multi_label:
        raise DataError(
            f"{source.title}: expected one label an image to rank the labels, got several; check without --weights, or "
            "give a file with one label an image"
        )
    _, images = source.pick("all")
    assert isinstance(images, Split)
    return images, [name for name, split in source.splits.items() for _ in range(len(split))]


def job_of(weights: str, data: str, labels: Path | None) -> Job | None:
    """The job of the run folder `weights`, if it was trained on this data with these labels; else None."""
    run = Run(Path(weights))
    if not run.exists:
        return None
    try:
        return read_job(run, data, None if labels is None else str(labels))
    except (RunError, DataError):
        return None


def kept_features(weights: str, job: Job | None, classifier: Classifier) -> dict[str, Tensor]:
    """The features that a run folder keeps of its training images, by name.

    They are those of the run's weights only where nothing but the classifier was trained; else there are none.
    """
    if job is None or job.recipe.schedule.epochs or job.prep != classifier.preprocessing:
        return {}
    split, found = job.source.splits["train"], dict[str, Tensor]()
    names = split.names if isinstance(split, Split) else ()
    for file in sorted(Run(Path(weights)).features.glob("*.safetensors")):
        if part := Part.load(file):
            found |= {names[i]: row for i, row in zip(part.indices.tolist(), part.features, strict=True)}
    return found


def trained_on(classifier: Classifier, job: Job | None, source: Source) -> str:
    """A caution if the weights were trained on these labels; empty if not, as far as the weights say."""
    about = classifier.record.provenance
    if not about.get("epochs") or (job is None and about.get("data") != source.title):
        return ""
    return (
        f"the weights were trained on {about.get('data')}: their features may repeat incorrect labels of these images, "
        "which then look probable; give the weights that the training started from"
    )


def check_labels(
    classifier: Classifier,
    source: Source,
    *,
    kept: Mapping[str, Tensor],
    batch_size: int,
    workers: int,
    seed: int = 0,
    advance: Callable[[int, str], None] = lambda images, figures: None,
    fitting: Callable[[int], None] = lambda images: None,
) -> LabelCheck:
    """Rank the labels of all splits together.

    Args:
        kept: features by name of image, which are not computed again.
        seed: of the folds.
        advance: called with the number of images and what to show beside it, after each batch.
        fitting: called with the number of images before the cross-validation.

    Raises:
        DataError: a stream, several labels an image, no image that can be decoded, or no class with two.
    """
    images, splits = all_images(source)
    missing = np.array([i for i, name in enumerate(images.names) if name not in kept], np.int64)
    rows = {i: kept[name] for i, name in enumerate(images.names) if name in kept}
    errors: tuple[tuple[str, str], ...] = ()
    if len(missing):
        part = computed(
            classifier.model, classifier.preprocessing, images.take(missing), batch_size=batch_size, workers=workers,
            corrupt_images="skip", may_be_empty=bool(rows),
            advance=lambda batch, corrupt: advance(batch, f"{corrupt} corrupt" if corrupt else ""),
        )  # fmt: skip
        rows |= zip(missing[part.indices].tolist(), part.features, strict=True)
        errors = part.errors
    there = np.array(sorted(rows))
    fitting(len(there))
    ranking, fitted = judged(
        torch.stack([rows[i] for i in there.tolist()]).to(classifier.model.device),
        images.take(there),
        classes=source.classes,
        splits=[splits[i] for i in there.tolist()],
        positions=there,
        seed=seed,
    )
    return LabelCheck(ranking, fitted, errors)


def judged(
    values: Tensor,
    images: Split,
    *,
    classes: Sequence[str],
    splits: Sequence[str],
    positions: npt.NDArray[np.int64],
    seed: int = 0,
) -> tuple[LabelRanking, Fit]:
    """The labels of images, ranked by the fits of a cross-validation that each image was held out of.

    Images of one group are in the same fold, so that no image is predicted by another one of its group.

    Args:
        values: (N, D) float32, the features of the images, on the device to compute on.
        splits, positions: of each image.

    Raises:
        DataError: nothing can be predicted: a single class, or no class with two images or groups.
    """
    labels = images.labels.astype(np.int64)
    kinds = len(np.unique(labels))
    if kinds < 2 or len({*zip(labels.tolist(), images.units, strict=True)}) == kinds:
        raise DataError(
            "expected two classes or more, and one with two images (of two groups, if there are groups), to hold some "
            f"out, got {number_of('image', len(images))} of {number_of('class', kinds)}; add images"
        )
    groups = images.units if images.groups else None
    fitted = fit(values, torch.from_numpy(labels), Outputs("softmax", len(classes)), seed=seed, groups=groups)
    ranking = rank_labels(
        fitted.held_out.double().softmax(1).numpy(),
        labels,
        classes=classes,
        names=images.names,
        splits=splits,
        positions=positions,
        units=images.units,
    )
    return ranking, fitted
