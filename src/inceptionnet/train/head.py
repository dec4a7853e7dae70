"""The classifier on a frozen network: the features of all training images once, then a logistic regression on them.

The features are kept in the run folder, in features/: parts of PART images, each a safetensors file with `features`
(N, D), what the logits are computed from, `indices` (N,), the positions in the train split, and `labels`, with a
checksum. A run that was interrupted goes on after the parts that are there; damaged ones are computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.errors import DataError, RunError, message_of
from inceptionnet.evaluate.features import features
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.checksum import CHECKSUM, DAMAGED, check, checksum
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import check_fit, from_json
from inceptionnet.train.logistic import FOLDS, Fit, fit
from inceptionnet.train.plan import Job
from inceptionnet.train.targets import balanced, targets_of

PART = 1000
"""Images of a part; those of a stream are in one."""
MANY_CLASSES = 100
"""With more classes the penalty is chosen on a single fold, since the fit would take longer than the features."""


@dataclass(frozen=True)
class Part:
    """The features of some images of a split, of those that could be decoded.

    Shapes: features (N, D) float32, indices (N,) int64, labels (N,) int64 or (N, labels) bool.
    """

    features: Tensor
    indices: Tensor
    labels: Tensor
    errors: tuple[tuple[str, str], ...] = ()
    """(name, reason) of each image that could not be decoded."""

    def save(self, file: Path) -> None:
        """Write it. Raises: RunError: that is not possible."""
        tensors = {"features": self.features, "indices": self.indices, "labels": self.labels}
        errors = json.dumps(self.errors)
        try:
            with replacing(file) as temporary:
                save_file(tensors, temporary, metadata={"errors": errors, CHECKSUM: checksum(errors, tensors)})
        except (OSError, SafetensorError) as error:
            raise RunError(f"{file}: cannot be written: {message_of(error)}") from None

    def is_of(self, images: AnySplit, start: int, width: int) -> bool:
        """Whether it has `width` features of each of these images, the first of which is at `start` of the split."""
        rows = len(self.labels)
        if self.features.shape != (rows, width) or self.features.dtype != torch.float32:
            return False
        if not isinstance(images, Split):
            return self.indices.shape == (rows,)
        places = self.indices - start
        return (
            self.indices.shape == (rows,)
            and rows + len(self.errors) == len(images)
            and bool(((places >= 0) & (places < len(images))).all())
            and bool((places.diff() > 0).all())
            and torch.equal(self.labels, torch.from_numpy(images.labels)[places])
        )

    @classmethod
    def load(cls, file: Path) -> Part | None:
        """Read it; None if the file is missing or damaged, and the features are to be computed again."""
        try:
            check_fit(file)
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
                tensors = {name: opened.get_tensor(name) for name in ("features", "indices", "labels")}
                check(metadata[CHECKSUM], metadata["errors"], tensors)
                errors = tuple((name, why) for name, why in from_json(metadata["errors"]))
                return cls(**tensors, errors=errors)
        except DAMAGED:
            return None


def features_of(
    model: InceptionNet,
    job: Job,
    folder: Path,
    world: World,
    *,
    save: Callable[[Callable[[], None]], Any],
    advance: Callable[[int], None],
) -> Part:
    """The features of all training images, from the parts in `folder` where they are there. All processes call it.

    Args:
        save: called with what writes a part; it may fail.
        advance: called with the number of images of each batch; may raise to interrupt.

    Raises:
        DataError: none of the images can be decoded.
    """
    plan, split, found, logits = job.plan, job.source.splits["train"], list[Part](), model.head.logits
    assert isinstance(logits, nn.Linear)
    for number, (start, images) in enumerate(_parts(split)):
        file = folder / f"{number:05}.safetensors"
        part = Part.load(file) if world.is_main else None
        if part and not part.is_of(images, start, logits.in_features):
            part = None  # damaged, or of other images
        part = world.gather(part)[0]
        if part is None:
            new = computed(
                model, job.prep, images, world=world, batch_size=plan.batch_size, workers=plan.workers,
                corrupt_images=plan.corrupt_images, may_be_empty=True, advance=lambda batch, corrupt: advance(batch),
            )  # fmt: skip
            part = replace(new, indices=new.indices + start)
            save(partial(part.save, file))
        else:
            advance(len(images))
        found.append(part)
    errors = tuple(error for part in found for error in part.errors)
    filled = [part for part in found if len(part.labels)]
    if not filled:
        name, why = errors[0]
        raise DataError(f"expected images, got {len(errors)} of which none can be decoded, such as {name} ({why})")
    values, indices, labels = (
        torch.cat([getattr(part, name) for part in filled]) for name in ("features", "indices", "labels")
    )
    return Part(values, indices, labels, errors)


def _parts(split: AnySplit) -> Iterator[tuple[int, AnySplit]]:
    """The position of the first image, and the images, of each part."""
    if not isinstance(split, Split):
        yield 0, split
        return
    for start in range(0, len(split), PART):
        yield start, split.take(np.arange(start, min(start + PART, len(split))))


def computed(
    model: InceptionNet, prep: Preprocessing, images: AnySplit, *, advance: Callable[[int, int], None],
    world: World = ALONE, **options: Any,
) -> Part:  # fmt: skip
    """The features of the images that can be decoded, in their order. All processes call it.

    Args:
        advance: called after each batch with its number of images, and that of the corrupt ones so far.
        options: batch_size, workers, corrupt_images and may_be_empty of `EvalLoader`.
    """
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    errors: list[tuple[str, str]] = []
    for batch, array in features(model, EvalLoader(images, prep, world=world, **options), prep):
        rows.append((torch.from_numpy(array), batch.indices, batch.labels))
        errors += batch.decode_errors
        advance(batch.planned, len(errors))
    shares = world.gather(([torch.cat(column) for column in zip(*rows, strict=True)], errors))
    values, indices, labels = (torch.cat(column) for column in zip(*(mine for mine, _ in shares), strict=True))
    order = indices.argsort()
    return Part(values[order], indices[order], labels[order], tuple(error for _, each in shares for error in each))


def fit_head(model: InceptionNet, job: Job, part: Part, world: World) -> Fit:
    """Fit the logits of a model to the features of the training images, by the main process, and set them in all.

    Images of one group are in the same fold of the cross-validation. With balanced classes, in the loss or by the
    sampler, every class has the same weight; of several labels an image, the absence and the presence of each.
    """
    logits = model.head.logits
    assert isinstance(logits, nn.Linear)
    fitted: Fit | None = None
    if world.is_main:
        split, weights = job.source.splits["train"], None
        units = split.units if isinstance(split, Split) and split.groups else None
        if "balanced" in (job.recipe.loss.class_weights, job.recipe.data.sampler):
            by_class = balanced(part.labels.numpy(), len(job.source.classes))
            weights = (targets_of(part.labels, model.outputs) * by_class).sum(-1)
        fitted = fit(
            part.features.to(model.device),
            part.labels,
            model.outputs,
            seed=job.plan.seed,
            folds=FOLDS,
            image_weights=weights,
            groups=None if units is None else [units[i] for i in part.indices.tolist()],
            bias=logits.bias is not None,
            one_fold=model.outputs.logits > MANY_CLASSES,
        )
    fitted = world.gather(fitted)[0]
    assert fitted is not None
    with torch.no_grad():
        logits.weight.copy_(fitted.weight)
        if logits.bias is not None:
            logits.bias.copy_(fitted.bias)
    return fitted


def about(fitted: Fit) -> dict[str, Any]:
    """The content of head.json: the penalty that was chosen, and what every penalty reached."""
    return {
        "solver": "logistic regression (L-BFGS)",
        "penalty": fitted.penalty,
        "folds": fitted.folds,
        "images": fitted.images,
        "measure": fitted.measure,
        "accuracy": fitted.accuracy,
        "summary": fitted.summary,
        "trials": [asdict(trial) for trial in fitted.trials],
    }
