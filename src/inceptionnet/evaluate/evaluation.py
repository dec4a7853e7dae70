"""Evaluation on one crop or many, by one network or several: corrupt images are counted and named, never replaced.

Source: [v1] section 7, [v4] section 5: softmax probabilities are averaged over an image's crops, then over networks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.crops import Crops
from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.distributed import ALONE, World
from inceptionnet.errors import DataError, listed
from inceptionnet.model import InceptionNet


def top_k(classes: int) -> int:
    """How many classes top-k looks at: 5; 2 where there are no more than five, and of two classes the first alone."""
    return 5 if classes > 5 else 2 if classes > 2 else 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network says of a split.

    Shapes: the arrays are (N,), one value for each image that could be decoded, in the split's order.
    """

    classes: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    """Positions in the split."""
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    """Softmax probability of the predicted class."""
    in_top: npt.NDArray[np.bool_]
    """Whether the label is among the `k` most probable classes."""
    losses: npt.NDArray[np.float32]
    """Cross-entropy, natural logarithm."""
    bad: tuple[tuple[str, str], ...]
    """(name, reason) of the images that could not be decoded."""
    engines: tuple[Mapping[str, Any], ...] = ()
    """What each network ran by, where it is known."""

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is the label."""
        return np.equal(self.predicted, self.labels)

    @property
    def top1(self) -> float:
        """Share of images whose most probable class is the label."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.mean(dtype=np.float64))

    def surest(self, *, right: bool) -> npt.NDArray[np.int64]:
        """Places in the arrays of the right answers, or of the mistakes, the most confident first."""
        chosen = np.flatnonzero(self.right == right)
        return chosen[np.argsort(-self.confidence[chosen], kind="stable")]

    @property
    def k(self) -> int:
        """Of `topk`; 1 where there are too few classes for it to say anything else than `top1`."""
        return top_k(len(self.classes))

    @property
    def topk(self) -> float:
        """Share of images whose label is among the `k` most probable classes."""
        return float(self.in_top.mean())


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an evaluation, and what it is shown of each image."""

    model: InceptionNet
    crops: Crops
    columns: npt.NDArray[np.int64] | None = None
    """Its logit for each class, where its own order is another; see `same_classes`."""
    run: Callable[[Tensor], Tensor] | None = None
    """What gives its logits in the model's stead, such as an engine made from it."""

    def log_probabilities(self, view: Tensor, at_once: int | None) -> Tensor:
        """The logarithm of the softmax averaged over the crops.

        Args:
            view: (N, K, C, H, W) uint8, K crops of each image.
            at_once: how many of them go through the network together; None: all.

        Shapes: → (N, classes).
        """
        run = self.run or self.model
        passes: list[Tensor] = []
        crops = view.flatten(0, 1)
        for some in torch.split(crops, at_once or max(len(crops), 1)):
            x = normalise(some.to(self.model.device, non_blocking=True), self.crops.prep)
            both = (x, x.flip(3)) if self.crops.mirrored else (x,)
            passes.append(torch.stack([run(seen).float().log_softmax(1) for seen in both], 1).cpu())
        averaged = _log_mean(torch.cat(passes).reshape(len(view), -1, passes[0].shape[-1]), 1)
        return averaged if self.columns is None else averaged[:, torch.from_numpy(self.columns)]


def _log_mean(logs: Tensor, dim: int) -> Tensor:
    """The logarithm of the mean of what these are the logarithms of; of a single one, exactly that one."""
    return logs.logsumexp(dim) - math.log(logs.shape[dim]) if logs.shape[dim] > 1 else logs.squeeze(dim)


def evaluate(
    model: InceptionNet,
    loader: EvalLoader,
    prep: Preprocessing,
    classes: Sequence[str],
    **options: Any,
) -> Evaluation:
    """Evaluate one network on one crop of each image; the options are those of `evaluate_together`."""
    return evaluate_together([Member(model, Crops(prep))], loader, classes, **options)


def evaluate_together(
    members: Sequence[Member],
    loader: EvalLoader,
    classes: Sequence[str],
    *,
    labels_of: npt.NDArray[np.int64] | None = None,
    at_once: int | None = None,
    advance: Callable[[int, str], None] = lambda images, figures: None,
    world: World = ALONE,
) -> Evaluation:
    """Run networks over a loader's images, each process over its share of them; every process gets the whole.

    Args:
        members: the networks, in the order of the loader's `crops` where it has any.
        classes: names in the order of the first network's logits.
        labels_of: its class for each class of the data, where their numbering differs.
        at_once: crops that go through a network together; None: all of a batch.
        advance: called after each batch with its number of images and the accuracy so far.
    """
    was_training = [member.model.training for member in members]
    for member in members:
        member.model.eval()
    parts: dict[str, list[Tensor]] = defaultdict(list)
    bad: list[tuple[str, str]] = []
    right = seen = 0
    with torch.inference_mode():
        for batch in loader:
            bad += batch.decode_errors
            if len(batch):
                labels = batch.labels if labels_of is None else torch.from_numpy(labels_of)[batch.labels]
                views = batch.views or (batch.images[:, None],)
                shown = zip(members, views, strict=True)
                logs = _log_mean(torch.stack([m.log_probabilities(view, at_once) for m, view in shown]), 0)
                confidence, predicted = logs.exp().max(1)
                answers = {
                    "indices": batch.indices,
                    "labels": labels,
                    "predicted": predicted,
                    "confidence": confidence,
                    "in_top": (logs.topk(top_k(logs.shape[1])).indices == labels[:, None]).any(1),
                    "losses": F.nll_loss(logs, labels, reduction="none"),
                }
                for name, values in answers.items():
                    parts[name].append(values)
                right, seen = right + int((predicted == labels).sum()), seen + len(labels)
            counted = batch.planned if world.size > 1 else len(batch) + len(batch.decode_errors)
            advance(counted, f"accuracy {right / max(seen, 1):.1%}")
    for member, training in zip(members, was_training, strict=True):
        member.model.train(training)
    mine = {name: torch.cat(values).numpy() for name, values in parts.items()}
    shares = world.gather((mine, bad))
    full = [arrays for arrays, _ in shares if arrays]
    everything = [one for _, share in shares for one in share]
    if not full:
        raise DataError(f"expected images, got {len(everything)} of which none can be decoded")
    joined = {name: np.concatenate([arrays[name] for arrays in full]) for name in full[0]}
    order = np.argsort(joined["indices"], kind="stable")
    ordered: dict[str, Any] = {name: array[order] for name, array in joined.items()}
    return Evaluation(classes=tuple(classes), bad=tuple(everything), **ordered)


def matched_labels(data: Sequence[str], network: Sequence[str]) -> npt.NDArray[np.int64]:
    """For each class of the data its number in the network, by name; ImageNet's wnids and names stand for each other.

    Raises:
        DataError: the data has a class that the network does not know.
    """
    number = {name: i for i, name in enumerate(network)}
    for wnid, name in zip(imagenet_wnids(), imagenet_classes(), strict=True):
        for known, other in ((wnid, name), (name, wnid)):
            if known in number:
                number.setdefault(other, number[known])
    if unknown := [name for name in data if name not in number]:
        raise DataError(
            f"the network does not know the data's class{'es' * (len(unknown) > 1)} {', '.join(unknown)}; "
            f"it knows {', '.join(network[:20])}{' …' * (len(network) > 20)}"
        )
    return np.array([number[name] for name in data], dtype=np.int64)


def same_classes(first: Sequence[str], other: Sequence[str], what: str) -> npt.NDArray[np.int64] | None:
    """For each class of the first network its number in another one; None where the order is the same.

    Raises:
        DataError: `what`, the other one, has other classes.
    """
    if tuple(first) == tuple(other):
        return None
    if sorted(first) != sorted(other):
        missing, more = sorted(set(first) - set(other)), sorted(set(other) - set(first))
        told = "; ".join(f"{word} {listed(names)}" for word, names in (("without", missing), ("with", more)) if names)
        raise DataError(f"{what}: networks that are evaluated together need the same classes, got one {told}")
    return matched_labels(first, other)
