"""Evaluation on one crop or many, by one network or an ensemble; corrupt images are counted and named, never replaced.

Source: [v1] section 7, [v4] section 5: probabilities are averaged over an image's crops, then over networks. For images
with several labels see multi_label.py.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import DataError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import SOFTMAX, Outputs, exponential
from inceptionnet.system.distributed import ALONE, World

Kind = TypeVar("Kind")
"""`Evaluation`, or `MultiLabelEvaluation`."""


def top_k(classes: int) -> int:
    """The k of top-k accuracy: 5; 2 for three to five classes; 1 for one or two classes."""
    return 5 if classes > 5 else 2 if classes > 2 else 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The per-image results of a network, or of an ensemble, on a split.

    Shapes: the arrays are (N,), one value for each decoded image, in the order of the split.
    """

    classes: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    """Positions in the split."""
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    """Probability of the predicted class."""
    in_top: npt.NDArray[np.bool_]
    """Whether the true class is among the `k` most probable classes."""
    losses: npt.NDArray[np.float32]
    """Cross-entropy, natural logarithm."""
    decode_errors: tuple[tuple[str, str], ...]
    """(name, reason) of the images that could not be decoded."""
    engines: tuple[Mapping[str, Any], ...] = ()
    """The engine of each network, where it is known."""
    members: tuple[Evaluation, ...] = ()
    """The results of each network of an ensemble on the same images; empty for one network."""
    file: str = ""
    """Weights file of a member."""
    network: str = ""
    """Network name of a member."""
    threshold: float | None = None
    """Of two classes, the probability from which the second one is predicted; None: the most probable class is."""

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each predicted class is the true class."""
        return np.equal(self.predicted, self.labels)

    @property
    def top1(self) -> float:
        """Top-1 accuracy."""
        return float(self.correct.mean())

    @property
    def summary(self) -> str:
        """The accuracy, in words."""
        return f"accuracy {self.top1:.2%}"

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def not_finite(self) -> int:
        """Images for which the network's outputs are not finite: they count as incorrect, with confidence 0."""
        return int(np.isnan(self.losses).sum())

    def most_confident(self, *, correct: bool) -> npt.NDArray[np.int64]:
        """Positions in the arrays of the correct predictions, or of the errors, the most confident first."""
        chosen = np.flatnonzero(self.correct == correct)
        return chosen[np.argsort(-self.confidence[chosen], kind="stable")]

    @property
    def k(self) -> int:
        """The k of `topk`; 1 for one or two classes, where `topk` is `top1`."""
        return top_k(len(self.classes))

    @property
    def topk(self) -> float:
        """Top-k accuracy."""
        return float(self.in_top.mean())


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an evaluation, with the crops it gets of each image."""

    run: Callable[[Tensor], Tensor]
    """What gives its logits: a network in evaluation mode, or an engine made from one."""
    crops: Crops
    device: torch.device
    """Where it takes its input."""
    columns: npt.NDArray[np.int64] | None = None
    """Index of its logit for each class, if its classes have another order; see `same_classes`."""
    file: str = ""
    """What it was loaded from, for the results of each network."""
    network: str = ""
    """Name of the network, for the results of each network."""
    outputs: Outputs = SOFTMAX
    """What its logits mean."""

    def log_probabilities(self, view: Tensor, at_once: int | None) -> Tensor:
        """The logarithms of the probabilities averaged over the crops.

        Args:
            view: (N, K, C, H, W) uint8, K crops of each image.
            at_once: number of crops per forward pass; None: all.

        Shapes: → (N, classes), or with several labels an image (N, labels, 2), as `Outputs.log_probabilities`.
        """
        passes: list[Tensor] = []
        crops = view.flatten(0, 1)
        for some in torch.split(crops, at_once or max(len(crops), 1)):
            x = normalise(some.to(self.device, non_blocking=True), self.crops.prep)
            both = (x, x.flip(3)) if self.crops.mirrored else (x,)
            passes.append(torch.stack([self.outputs.log_probabilities(self.run(seen)) for seen in both], 1).cpu())
        averaged = _log_mean(torch.cat(passes).reshape(len(view), -1, *passes[0].shape[2:]), 1)
        return averaged if self.columns is None else averaged[:, torch.from_numpy(self.columns)]


def _log_mean(logs: Tensor, dim: int) -> Tensor:
    """The logarithm of the mean of exp(logs); a single value is returned unchanged."""
    return logs.logsumexp(dim) - math.log(logs.shape[dim]) if logs.shape[dim] > 1 else logs.squeeze(dim)


def evaluate(
    model: InceptionNet,
    loader: EvalLoader,
    prep: Preprocessing,
    classes: Sequence[str],
    **options: Any,
) -> Evaluation:
    """Evaluate one network on one crop of each image; the options are those of `evaluate_together`."""
    was_training = model.training
    model.eval()
    member = Member(model, Crops(prep), model.device, outputs=model.outputs)
    evaluation = evaluate_together([member], loader, classes, **options)
    model.train(was_training)
    return evaluation


def evaluate_together(
    members: Sequence[Member],
    loader: EvalLoader,
    classes: Sequence[str],
    *,
    labels_of: npt.NDArray[np.int64] | None = None,
    threshold: float | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate an ensemble: probabilities are averaged over crops, then over networks.

    Each process evaluates its share of the images, and every process gets the whole result. Of several networks each
    one's own results are in `Evaluation.members`.

    Args:
        members: the networks, in the order of the loader's `crops` if it has any.
        classes: names in the order of the first network's logits.
        labels_of: index in `classes` for each class of the data, if their numbering differs.
        threshold: see `Evaluation`.
        options: at_once, advance and world of `collected`.

    Raises:
        DataError: none of the images can be decoded.
    """
    outputs = members[0].outputs

    def numbered(labels: Tensor) -> Tensor:
        return labels if labels_of is None else torch.from_numpy(labels_of)[labels]

    def results(logs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return _results(logs, labels, outputs, threshold)

    shared = {"classes": tuple(classes), "threshold": threshold}
    return collected(Evaluation, shared, members, loader, numbered, results, **options)


def collected(
    kind: Callable[..., Kind],
    shared: Mapping[str, Any],
    members: Sequence[Member],
    loader: EvalLoader,
    numbered: Callable[[Tensor], Tensor],
    results: Callable[[Tensor, Tensor], dict[str, Tensor]],
    *,
    at_once: int | None = None,
    advance: Callable[[int, str], None] = lambda images, figures: None,
    world: World = ALONE,
) -> Kind:
    """The evaluation of an ensemble, of that kind, with those of its networks (none for one network) in it.

    Args:
        shared: fields that are the same for the ensemble and its networks.
        numbered: from the labels of the data to those of the networks.
        results: from log-probabilities and labels to arrays by name, among them `predicted`.
        at_once: number of crops per forward pass; None: all of a batch.
        advance: called after each batch with its number of images and the accuracy so far.

    Raises:
        DataError: none of the images can be decoded.
    """
    parts: dict[str, list[Tensor]] = defaultdict(list)
    errors: list[tuple[str, str]] = []
    correct = seen = 0
    with torch.inference_mode():
        for batch in loader:
            errors += batch.decode_errors
            if len(batch):
                labels = numbered(batch.labels)
                views = batch.views or (batch.images[:, None],)
                shown = zip(members, views, strict=True)
                each = torch.stack([m.log_probabilities(view, at_once) for m, view in shown])
                found = results(_log_mean(each, 0), labels)
                if len(members) > 1:  # a member's own results, by its number
                    of_each = [results(logs, labels) for logs in each]
                    found |= {f"{i}.{name}": values for i, one in enumerate(of_each) for name, values in one.items()}
                for name, values in ({"indices": batch.indices, "labels": labels} | found).items():
                    parts[name].append(values)
                same = (found["predicted"] == labels).reshape(len(labels), -1).all(1)  # every label of an image
                correct, seen = correct + int(same.sum()), seen + len(labels)
            counted = batch.planned if world.size > 1 else len(batch) + len(batch.decode_errors)
            advance(counted, f"accuracy {correct / max(seen, 1):.1%}")
    mine = {name: torch.cat(values).numpy() for name, values in parts.items()}
    shares = world.gather((mine, errors))
    full = [arrays for arrays, _ in shares if arrays]
    all_errors = tuple(one for _, share in shares for one in share)
    if not full:
        raise DataError(f"expected images, got {len(all_errors)} of which none can be decoded; check the data")
    joined = {name: np.concatenate([arrays[name] for arrays in full]) for name in full[0]}
    order = np.argsort(joined["indices"], kind="stable")
    ordered: dict[str, Any] = {name: array[order] for name, array in joined.items()}
    whole = {name: array for name, array in ordered.items() if "." not in name}
    shared = {**shared, "decode_errors": all_errors}
    common = {name: whole[name] for name in ("indices", "labels")}
    own = [
        kind(file=one.file, network=one.network, **shared, **common,
             **{name: ordered[f"{i}.{name}"] for name in whole if name not in common})
        for i, one in enumerate(members if len(members) > 1 else ())
    ]  # fmt: skip
    return kind(members=tuple(own), **shared, **whole)


def _results(logs: Tensor, labels: Tensor, outputs: Outputs, threshold: float | None) -> dict[str, Tensor]:
    """The arrays of an `Evaluation` from log-probabilities. Shapes: logs (N, classes), labels (N,)."""
    probabilities, k, broken = exponential(logs), top_k(logs.shape[1]), logs.isnan().any(1)
    predicted = torch.where(broken, (labels + 1) % logs.shape[1], outputs.predicted(probabilities, threshold))
    correct = predicted == labels
    return {
        "predicted": predicted,
        "confidence": probabilities.gather(1, predicted[:, None])[:, 0].masked_fill(broken, 0.0),
        "in_top": (logs.topk(k).indices == labels[:, None]).any(1) & ~broken if k > 1 else correct,
        "losses": F.nll_loss(logs, labels, reduction="none"),
    }
