"""What a network's logits mean: the one place where they become probabilities and predicted classes.

- softmax: one class an image.
- sigmoid, one logit: two classes, of which the logit is the second against the first, as in Keras and in torch's
  BCEWithLogitsLoss.
- sigmoid, several logits: labels that do not exclude each other, each with a probability of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.errors import ConfigurationError

THRESHOLD = 0.5
"""Of sigmoid: what is as probable as this, or more, is predicted."""


@dataclass(frozen=True)
class Outputs:
    """The meaning of a network's logits."""

    activation: str = "softmax"
    """Or "sigmoid"."""
    logits: int = 0
    """Their number; 0: features of a network without classifier."""

    @property
    def binary(self) -> bool:
        """Whether one logit tells two classes apart."""
        return self.activation == "sigmoid" and self.logits == 1

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several labels, or none."""
        return self.activation == "sigmoid" and self.logits > 1

    @property
    def classes(self) -> int:
        """The number of class names: two for one logit with sigmoid."""
        return 2 if self.binary else self.logits

    def __str__(self) -> str:
        if self.binary:
            return "sigmoid of one logit, which tells two classes apart"
        if self.multi_label:
            return f"sigmoid of {self.logits} logits, labels that do not exclude each other"
        return f"softmax of {self.logits} logits, one class an image"

    def check(self, where: str) -> None:
        """Raises: ConfigurationError: softmax of a single logit, whose probability is 1 whatever the image."""
        if self.activation == "softmax" and self.logits == 1:
            raise ConfigurationError(
                f"{where}: expected two logits or more for softmax, got one, whose probability would always be 100 %; "
                "if the network was trained with sigmoid, state it: --activation sigmoid"
            )

    def threshold(self, stated: float | None, where: str = "the network") -> float | None:
        """The threshold that is used: the stated one, else `THRESHOLD` for sigmoid and None for softmax.

        Raises:
            ConfigurationError: it is no probability, or the network has three classes or more, one an image.
        """
        if stated is None:
            return THRESHOLD if self.activation == "sigmoid" else None
        if not 0 <= stated <= 1:
            raise ConfigurationError(f"threshold is {stated}; expected a probability, from 0 to 1")
        if not self.multi_label and self.classes != 2:
            raise ConfigurationError(
                f"threshold is {stated}, but {where} has {self.classes} classes, of which the most probable one is "
                "predicted; a threshold needs two classes, or several labels an image; omit it"
            )
        return stated

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """The logarithms of the probabilities.

        Shapes: (N, logits) → (N, classes); of several labels an image (N, labels, 2): that each is absent, and present.
        """
        logits = logits.float()
        if self.activation == "softmax":
            return logits.log_softmax(1)
        both = torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], -1)
        return both if self.multi_label else both[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability of each class, or of each label, on the CPU. Shapes: (N, logits) → (N, classes)."""
        logs = self.log_probabilities(logits)
        return exponential(logs[..., 1] if self.multi_label else logs)

    def predicted(self, probabilities: Tensor, threshold: float | None) -> Tensor:
        """The predicted class, or which labels are predicted.

        Args:
            threshold: from `threshold`; of two classes that of the second.

        Shapes: (N, classes) → (N,) int64; of several labels an image (N, labels) bool.
        """
        if self.multi_label:
            return probabilities >= (THRESHOLD if threshold is None else threshold)
        return probabilities.argmax(1) if threshold is None else (probabilities[:, 1] >= threshold).long()

    def decided(self, logits: Tensor) -> Tensor:
        """As `predicted` with the usual threshold, from logits and on their device.

        Shapes: (N, logits) → (N,) int64; of several labels an image (N, labels) int64, 1 for those that are predicted.
        """
        if self.activation == "softmax":
            return logits.argmax(1)
        present = (logits >= 0).long()
        return present if self.multi_label else present[:, 0]

    def hits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Whether each image is classified correctly, with all of its labels. Shapes: (N, logits), labels → (N,)."""
        decided = self.decided(logits)
        same = decided == labels.reshape(decided.shape)
        return same.all(1) if self.multi_label else same

    def decision(self, classes: Sequence[str], threshold: float | None) -> str:
        """How a threshold decides, in one line; empty without one."""
        if threshold is None:
            return ""
        if self.multi_label:
            return f"threshold {threshold:g}: labels with a probability of {threshold:g} or more are predicted"
        first, second = classes
        return (
            f"threshold {threshold:g}: {second} is predicted if its probability is {threshold:g} or more, else {first}"
        )

    def evidence(self, logits: Tensor) -> Tensor:
        """A number for each class that rises with the evidence for it. Shapes: (N, logits) → (N, classes)."""
        return torch.cat([-logits, logits], 1) if self.binary else logits


SOFTMAX = Outputs()
"""One class an image, of any number."""


def exponential(logs: Tensor) -> Tensor:
    """exp, rounded once, on the CPU: a logit of exactly 0 gives 0.5, which float32 misses. Shapes: any."""
    return logs.cpu().double().exp().float()
