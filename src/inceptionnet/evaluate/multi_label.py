"""Evaluation of images with several labels each: every label has a probability of its own and is predicted by itself.

Source: Tsoumakas and Katakis, International Journal of Data Warehousing and Mining 3 (2007): subset accuracy and
Hamming loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inceptionnet.data.loading import EvalLoader
from inceptionnet.evaluate.evaluation import Member, collected
from inceptionnet.model.outputs import THRESHOLD, exponential
from inceptionnet.system.extras import importing_torchmetrics


@dataclass(frozen=True, eq=False)
class MultiLabelEvaluation:
    """The per-image results of a network with several labels an image, or of an ensemble, on a split.

    Shapes: the arrays are (N, …), one row for each decoded image, in the order of the split.
    """

    classes: tuple[str, ...]
    """The labels' names, in the order of the logits."""
    indices: npt.NDArray[np.int64]
    """Positions in the split."""
    labels: npt.NDArray[np.bool_]
    """(N, C): which labels each image has."""
    predicted: npt.NDArray[np.bool_]
    """(N, C): which labels are at or above the threshold."""
    probabilities: npt.NDArray[np.float32]
    """(N, C): of each label."""
    losses: npt.NDArray[np.float32]
    """(N,): binary cross-entropy, natural logarithm, mean over the labels."""
    threshold: float
    decode_errors: tuple[tuple[str, str], ...]
    """(name, reason) of the images that could not be decoded."""
    engines: tuple[Mapping[str, Any], ...] = ()
    """The engine of each network, where it is known."""
    members: tuple[MultiLabelEvaluation, ...] = ()
    """The results of each network of an ensemble on the same images; empty for one network."""
    file: str = ""
    """Weights file of a member."""
    network: str = ""
    """Network name of a member."""

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the predicted labels of each image are exactly its labels."""
        return np.asarray(np.equal(self.predicted, self.labels).all(1))

    @property
    def subset_accuracy(self) -> float:
        """Share of the images whose predicted labels are exactly their labels."""
        return float(self.correct.mean())

    @property
    def summary(self) -> str:
        """The accuracy, in words."""
        return f"subset accuracy {self.subset_accuracy:.2%}"

    @property
    def not_finite(self) -> int:
        """Images for which the network's outputs are not finite: such a label has probability 0."""
        return int(np.isnan(self.losses).sum())

    @cached_property
    def hamming_losses(self) -> npt.NDArray[np.float32]:
        """(N,): share of the labels that are predicted incorrectly."""
        return np.asarray(np.not_equal(self.predicted, self.labels).mean(1), np.float32)

    @cached_property
    def average_precision(self) -> tuple[float | None, ...]:
        """Of each label: the area under its precision-recall curve, as a sum of steps; None without support."""
        with importing_torchmetrics():
            from torchmetrics.functional.classification import binary_average_precision

        labels, probabilities = torch.from_numpy(self.labels).long(), torch.from_numpy(self.probabilities)
        return tuple(
            binary_average_precision(probabilities[:, i], labels[:, i]).item() if support else None
            for i, support in enumerate(labels.sum(0).tolist())
        )

    @cached_property
    def mean_average_precision(self) -> float | None:
        """Mean over the labels with support; None if no image has a label."""
        known = [area for area in self.average_precision if area is not None]
        return float(np.mean(known)) if known else None

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy."""
        return float(self.losses.mean(dtype=np.float64))


def evaluate_labels(
    members: Sequence[Member],
    loader: EvalLoader,
    classes: Sequence[str],
    *,
    labels_of: npt.NDArray[np.int64],
    threshold: float = THRESHOLD,
    **options: Any,
) -> MultiLabelEvaluation:
    """Evaluate an ensemble: each label's probability is averaged over crops, then over networks.

    Args:
        members: networks with several labels an image, in the order of the loader's `crops` if it has any.
        classes: the labels' names in the order of the first network's logits. Those that the data does not have are
            absent from every image.
        labels_of: index in `classes` for each class of the data, whose images have several labels or one.
        threshold: probability from which a label is predicted.
        options: at_once, advance and world of `collected`.

    Raises:
        DataError: none of the images can be decoded.
    """
    places = torch.from_numpy(labels_of)

    def numbered(labels: Tensor) -> Tensor:
        full = torch.zeros(len(labels), len(classes), dtype=torch.bool)
        if labels.ndim == 1:
            full[torch.arange(len(labels)), places[labels]] = True
        else:
            for i, place in enumerate(places.tolist()):  # two of the data's classes may be one of the network's
                full[:, place] |= labels[:, i]
        return full

    def results(logs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        probabilities = exponential(logs[..., 1]).nan_to_num(0.0)
        return {
            "predicted": members[0].outputs.predicted(probabilities, threshold),
            "probabilities": probabilities,
            "losses": -logs.gather(2, labels[..., None].long())[..., 0].mean(1),
        }

    shared = {"classes": tuple(classes), "threshold": threshold}
    return collected(MultiLabelEvaluation, shared, members, loader, numbered, results, **options)
