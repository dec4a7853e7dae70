"""Labels that look wrong: images ranked by the probability that cross-validated predictions give their label.

The score is the self-confidence of confident learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068). Its
normalised margin, the probability of the label minus that of the most probable other class, found fewer of the swapped
labels of a data set (docs/data.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import listed, number_of
from inceptionnet.evaluate.intervals import share_interval
from inceptionnet.system.files import as_text

FEW = 10
"""Classes with fewer images are named, since their labels are hard to predict."""


@dataclass(frozen=True, eq=False)
class LabelRanking:
    """Images with one label each, those whose label is the least probable first.

    Shapes: positions, labels, predicted (N,) int64; label_probability, predicted_probability (N,) float64.
    """

    classes: tuple[str, ...]
    names: Sequence[str]
    splits: Sequence[str]
    positions: npt.NDArray[np.int64]
    """Of the images in the data they were ranked from."""
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    label_probability: npt.NDArray[np.float64]
    predicted_probability: npt.NDArray[np.float64]
    few: tuple[str, ...]
    """Classes with fewer than FEW images."""
    alone: tuple[str, ...]
    """Classes with one image, or whose images are all of one group: they are not ranked, since every prediction of them
    would be by a classifier that has not seen the class."""
    unranked: int
    """The number of images of these classes."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def differing(self) -> npt.NDArray[np.intp]:
        """The places in the ranking of the images whose predicted class is not their label."""
        return np.flatnonzero(self.labels != self.predicted)

    @property
    def accuracy(self) -> float:
        """Accuracy of the cross-validated predictions, measured by the labels as they are."""
        return 1 - len(self.differing) / len(self)

    @property
    def largest_share(self) -> float:
        """The share of the largest class, which is the accuracy of always predicting it."""
        return int(np.bincount(self.labels).max()) / len(self)

    @property
    def informative(self) -> bool:
        """Whether the predictions are better than always the largest class, by the 95 % interval of their accuracy."""
        return share_interval(len(self) - len(self.differing), len(self)).low > self.largest_share

    def cautions(self) -> list[str]:
        """What to know before the ranking is believed, one sentence each."""
        found = [
            f"the predictions agree with {self.accuracy:.1%} of the labels (always the largest class: "
            f"{self.largest_share:.1%}); the higher this is, the more the ranking says"
        ]
        if not self.informative:
            found = [
                f"the predictions agree with {self.accuracy:.1%} of the labels, not clearly more than always the "
                f"largest class ({self.largest_share:.1%}): the ranking says little; try other weights, or more images"
            ]
        found.append("a low probability is no proof: hard and unusual images have one too; look at each image")
        if self.few:
            found.append(f"fewer than {FEW} images, so that their labels have low probabilities: {listed(self.few)}")
        if self.alone:
            images = number_of("image", self.unranked, ",")
            found.append(f"not ranked, since the class has one image or one group: {images} of {listed(self.alone)}")
        return found

    def columns(self) -> dict[str, list[Any]]:
        """The ranking as a table."""
        classes = [as_text(name) for name in self.classes]
        return {
            "rank": list(range(1, len(self) + 1)),
            "image": [as_text(name) for name in self.names],
            "split": list(self.splits),
            "label": [classes[i] for i in self.labels],
            "predicted": [classes[i] for i in self.predicted],
            "label_probability": self.label_probability.tolist(),
            "predicted_probability": self.predicted_probability.tolist(),
        }


def rank_labels(
    probabilities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    *,
    classes: Sequence[str],
    names: Sequence[str],
    splits: Sequence[str],
    positions: npt.NDArray[np.int64],
    units: Sequence[str],
) -> LabelRanking:
    """Rank images by the probability of their label; equal ones stay in the order given.

    Args:
        probabilities: (N, classes), of each image by a classifier that was not trained on it.
        labels, names, splits, positions: of each image.
        units: what was held out as a whole: the group of each image, or its name.
    """
    counts = np.bincount(labels, minlength=len(classes))
    apart = np.bincount(np.array([label for label, _ in {*zip(labels.tolist(), units, strict=True)}], np.int64))
    own = probabilities[np.arange(len(labels)), labels]
    predicted = probabilities.argmax(1)
    order = np.argsort(own, kind="stable")
    order = order[apart[labels[order]] > 1]
    return LabelRanking(
        classes=tuple(classes),
        names=[names[i] for i in order],
        splits=[splits[i] for i in order],
        positions=positions[order],
        labels=labels[order],
        predicted=predicted[order],
        label_probability=own[order],
        predicted_probability=probabilities.max(1)[order],
        few=tuple(classes[i] for i in range(len(apart)) if apart[i] > 1 and counts[i] < FEW),
        alone=tuple(classes[i] for i in range(len(apart)) if apart[i] == 1),
        unranked=len(labels) - len(order),
    )
