"""What a network's logits mean: the one place where they become probabilities and predicted classes.

- softmax: one class an image.
- sigmoid, one logit: two classes, of which the logit is the second against the first, as in Keras and in torch's
  BCEWithLogitsLoss.
- sigmoid, several logits: labels that do not exclude each other, each with a probability of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

Values = npt.NDArray[np.float32]

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
                "if the network was trained with sigmoid, state it: --activation sigmoid, here or in convert"
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
        from torch import stack
        from torch.nn.functional import logsigmoid

        both = stack([logsigmoid(-logits), logsigmoid(logits)], -1)
        return both if self.multi_label else both[:, 0]

    @overload
    def probabilities(self, logits: Values) -> Values: ...
    @overload
    def probabilities(self, logits: Tensor) -> Tensor: ...
    def probabilities(self, logits: Any) -> Any:
        """The probability of each class, or of each label: of an array an array, of a tensor one on the CPU.

        Both are computed by the same code, in float64 and rounded once.
        Shapes: (N, logits) → float32 (N, classes).
        """
        if isinstance(logits, np.ndarray):
            return self._probabilities(logits)
        from torch import from_numpy

        return from_numpy(self._probabilities(logits.detach().cpu().float().numpy()))

    def _probabilities(self, logits: Values) -> Values:
        x = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of what is not finite: NaN, which a prediction reports
            if self.activation == "softmax":
                shares = np.exp(x - x.max(1, keepdims=True))
                shares /= shares.sum(1, keepdims=True)
                probabilities: Values = shares.astype(np.float32)
                return probabilities
            present = np.exp(-np.logaddexp(0, -x))
            if self.multi_label:
                return present.astype(np.float32)
            return np.concatenate([np.exp(-np.logaddexp(0, x)), present], 1).astype(np.float32)

    @overload
    def predicted(self, probabilities: Values, threshold: float | None) -> npt.NDArray[Any]: ...
    @overload
    def predicted(self, probabilities: Tensor, threshold: float | None) -> Tensor: ...
    def predicted(self, probabilities: Any, threshold: float | None) -> Any:
        """The predicted class, or which labels are predicted: of an array an array, of a tensor a tensor.

        Args:
            threshold: from `threshold`; of two classes that of the second.

        Shapes: (N, classes) → (N,) int64; of several labels an image (N, labels) bool.
        """
        if self.multi_label:
            return probabilities >= (THRESHOLD if threshold is None else threshold)
        if threshold is None:
            return probabilities.argmax(1)
        second = probabilities[:, 1] >= threshold
        return second.astype(np.int64) if isinstance(second, np.ndarray) else second.long()

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
        if not self.binary:
            return logits
        from torch import cat

        return cat([-logits, logits], 1)


SOFTMAX = Outputs()
"""One class an image, of any number."""


def exponential(logs: Tensor) -> Tensor:
    """exp, rounded once, on the CPU: a logit of exactly 0 gives 0.5, which float32 misses. Shapes: any."""
    return logs.cpu().double().exp().float()
