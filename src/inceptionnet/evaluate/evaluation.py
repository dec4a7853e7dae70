"""Single-crop evaluation: every picture once, bad ones counted and named, never replaced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.distributed import ALONE, World
from inceptionnet.errors import DataError
from inceptionnet.model import InceptionNet

TOP = 5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network says of a split.

    Shapes: the arrays are (N,), one value for each picture that could be decoded, in the split's order.
    """

    classes: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    """Positions in the split."""
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    """Softmax probability of the predicted class."""
    in_top: npt.NDArray[np.bool_]
    """Whether the label is among the `TOP` most probable classes."""
    losses: npt.NDArray[np.float32]
    """Cross-entropy, natural logarithm."""
    bad: tuple[tuple[str, str], ...]
    """(name, reason) of the pictures that could not be decoded."""

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is the label."""
        return np.equal(self.predicted, self.labels)

    @property
    def top1(self) -> float:
        """Share of pictures whose most probable class is the label."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.mean(dtype=np.float64))

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values; `top5` only where there are more than five classes."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        right = np.bincount(self.labels[self.right], minlength=len(self.classes))
        figures: dict[str, Any] = {"pictures": len(self.labels), "top1": self.top1}
        if len(self.classes) > TOP:
            figures["top5"] = float(self.in_top.mean())
        return figures | {
            "loss": self.loss,
            "classes": {
                name: {"pictures": int(n), "right": int(r)}
                for name, n, r in zip(self.classes, counts, right, strict=True)
                if n
            },
            "bad_pictures": [{"name": name, "reason": reason} for name, reason in self.bad],
        }


def evaluate(
    model: InceptionNet,
    loader: EvalLoader,
    prep: Preprocessing,
    classes: Sequence[str],
    *,
    labels_of: npt.NDArray[np.int64] | None = None,
    advance: Callable[[int, str], None] = lambda pictures, figures: None,
    world: World = ALONE,
) -> Evaluation:
    """Run the network over a loader's pictures, each process over its share of them; every process gets the whole.

    Args:
        classes: names in the order of the logits.
        labels_of: the network's class for each class of the data, where their numbering differs.
        advance: called after each batch with its number of pictures and the accuracy so far.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[Tensor]] = defaultdict(list)
    bad: list[tuple[str, str]] = []
    right = seen = 0
    with torch.inference_mode():
        for batch in loader:
            bad += batch.bad
            if len(batch):
                labels = batch.labels if labels_of is None else torch.from_numpy(labels_of)[batch.labels]
                pictures = batch.pictures.to(model.device, non_blocking=True)
                logits = model(normalise(pictures, prep)).float().cpu()
                confidence, predicted = logits.softmax(1).max(1)
                answers = {
                    "indices": batch.indices,
                    "labels": labels,
                    "predicted": predicted,
                    "confidence": confidence,
                    "in_top": (logits.topk(min(TOP, logits.shape[1])).indices == labels[:, None]).any(1),
                    "losses": F.cross_entropy(logits, labels, reduction="none"),
                }
                for name, values in answers.items():
                    parts[name].append(values)
                right, seen = right + int((predicted == labels).sum()), seen + len(labels)
            counted = batch.planned if world.size > 1 else len(batch) + len(batch.bad)
            advance(counted, f"accuracy {right / max(seen, 1):.1%}")
    model.train(was_training)
    mine = {name: torch.cat(values).numpy() for name, values in parts.items()}
    shares = world.gather((mine, bad))
    full = [arrays for arrays, _ in shares if arrays]
    everything = [one for _, share in shares for one in share]
    if not full:
        raise DataError(f"expected pictures, got {len(everything)} of which none can be decoded")
    joined = {name: np.concatenate([arrays[name] for arrays in full]) for name in full[0]}
    order = np.argsort(joined["indices"], kind="stable")
    return Evaluation(
        classes=tuple(classes), bad=tuple(everything), **{name: array[order] for name, array in joined.items()}
    )


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
