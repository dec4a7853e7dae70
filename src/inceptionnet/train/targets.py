"""The targets of a step's loss: class weights, label smoothing, and the mixed images of mixup and CutMix.

With several labels an image each label is a problem of two classes, absent and present, so that targets have the shape
(N, labels, 2); one logit with sigmoid has the targets of two classes, (N, 2).

Source: Zhang et al., mixup, ICLR 2018; Yun et al., CutMix, ICCV 2019. As in timm there is one mixing ratio per step,
and that of CutMix is the ratio of the areas after the box is cut off at the border. The partner of an image is its
neighbour in the shuffled batch, which every number of processes and of gradient-accumulation steps leaves beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.data.balance import balanced_weights, class_counts, imbalance_note
from inceptionnet.data.preprocess import Augment
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.outputs import Outputs
from inceptionnet.train.recipe import Recipe


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Shapes: labels (N,) int64 → (N, classes) of the type."""
    return F.one_hot(labels, classes).to(dtype)


def targets_of(labels: Tensor, outputs: Outputs, dtype: torch.dtype = torch.float32) -> Tensor:
    """The probabilities that a network should give.

    Shapes: labels (N,) int64 → (N, classes); of several labels an image (N, labels) bool → (N, labels, 2).
    """
    if outputs.multi_label:  # of no image at all the labels have the shape (0,)
        return one_hot(labels.long().reshape(len(labels), outputs.logits), 2, dtype)
    return one_hot(labels, outputs.classes, dtype)


def cross_entropy(logits: Tensor, targets: Tensor, outputs: Outputs) -> Tensor:
    """Sum over the images; of several labels an image, and over the labels: binary cross-entropy of each.

    Shapes: logits (N, logits), targets as `soft` → scalar.
    """
    if outputs.activation == "softmax":
        return F.cross_entropy(logits, targets, reduction="sum")
    return -(targets * outputs.log_probabilities(logits)).sum()


def soft(targets: Tensor, smoothing: float, weights: Tensor | None) -> Tensor:
    """Targets for `cross_entropy`: weighted by class, then smoothed; a row's sum is the weight of its image.

    The weight is that of the image, so it multiplies the smoothed part too; torch's `weight` would smooth towards the
    heavy classes.
    Shapes: (N, classes), rows of sum 1, weights (classes,) → (N, classes); or (N, labels, 2), weights (labels, 2).
    """
    if weights is not None:
        targets = targets * weights
    return targets * (1 - smoothing) + targets.sum(-1, keepdim=True) * (smoothing / targets.shape[-1])


def mix(
    x: Tensor, targets: Tensor, rows: Tensor, planned: int, augment: Augment, key: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix of this process's share of a step, drawn by `key`; with both, either with the same probability.

    An image without a partner (the last one of an odd number, or beside a corrupt one) is not mixed. `x` is changed
    in place.
    Shapes: x float (N, C, H, W), targets (N, …), rows (N,) on the CPU, of `planned` ones → as x and targets.
    """
    rng = np.random.default_rng(list(key))
    cutting = rng.random() < 0.5 if augment.mixup and augment.cutmix else augment.cutmix > 0
    alpha = augment.cutmix if cutting else augment.mixup
    own = float(rng.beta(alpha, alpha))
    partner = partners(rows, planned).to(x.device)
    if cutting:
        height, width = x.shape[-2:]
        (top, bottom), (left, right) = (_side(side, sqrt(1 - own), rng) for side in (height, width))
        own = 1 - (bottom - top) * (right - left) / (height * width)
        x[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right][partner]
    else:
        other = x[partner]  # index_select would change the memory format
        x.mul_(own).add_(other, alpha=1 - own)
    return x, torch.lerp(targets[partner], targets, own)


def _side(side: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """From where to where a box goes along one side; its centre is anywhere in the image."""
    length, centre = int(side * share), int(rng.integers(side))
    return max(centre - length // 2, 0), min(centre + (length + 1) // 2, side)


def partners(rows: Tensor, planned: int) -> Tensor:
    """The place of each image's partner: row 2k is mixed with row 2k + 1, and a row without it with itself.

    Shapes: rows (N,) int64, on the CPU, of the `planned` ones → (N,) int64.
    """
    places = torch.full((planned + 1,), -1, dtype=torch.int64)
    places[rows] = torch.arange(len(rows))
    partner = places[rows ^ 1]
    return torch.where(partner < 0, torch.arange(len(rows)), partner)


def class_weights(source: Source, recipe: Recipe) -> Tensor | None:
    """The weights of the classes in the loss, (classes,) float32, as `balanced_weights`; None: all equal.

    Of several labels an image (labels, 2): those of its absence and of its presence, for each label by itself.

    Raises:
        ConfigurationError: the classes would be balanced twice, or the labels are not known.
    """
    if recipe.loss.class_weights == "none":
        return None
    if recipe.data.sampler == "balanced":
        raise ConfigurationError(
            "loss.class_weights and data.sampler are both balanced, which would weigh small classes twice; use one"
        )
    split = source.splits["train"]
    if not isinstance(split, Split):
        raise ConfigurationError(
            "loss.class_weights is balanced: expected images whose labels are known before training, got a stream; use "
            "loss.class_weights=none"
        )
    return balanced(split.labels, len(source.classes))


def balanced(labels: npt.NDArray[np.int64 | np.bool_], classes: int) -> Tensor:
    """The balanced weights of `class_weights`. Shapes: (N,) → (classes,); (N, labels) bool → (labels, 2)."""
    counts = class_counts(labels, classes)
    if labels.ndim == 1:
        return torch.from_numpy(balanced_weights(counts)).float()
    pairs = [balanced_weights([len(labels) - int(count), int(count)]) for count in counts]
    return torch.from_numpy(np.stack(pairs)).float()


def imbalance_of(source: Source, recipe: Mapping[str, Any]) -> str:
    """`imbalance_note` of the training split; empty for a stream, several labels an image, and without the split.

    Args:
        recipe: the settings by group, as in run.json.
    """
    split = source.splits.get("train")
    if not isinstance(split, Split) or source.multi_label:
        return ""
    names = (("loss", "class_weights"), ("data", "sampler"))
    balanced_by = [f"{group}.{name}" for group, name in names if recipe.get(group, {}).get(name) == "balanced"]
    return imbalance_note(class_counts(split.labels, len(source.classes)), source.classes, balanced_by)
