"""A logistic regression with a given penalty on its weights, solved by L-BFGS.

The objective is that of scikit-learn's LogisticRegression: mean cross-entropy + penalty / 2 · the sum of the squared
weights (not of the biases), so that its C is 1 / (penalty · images). With several labels an image it is the sum over
the labels, one logistic regression each, with the same penalty. L-BFGS minimises it in the principal axes of the
features, each scaled by the curvature that the penalty and the variance along it give, where it needs a tenth of the
steps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.model.outputs import Outputs

ITERATIONS = 200
TOLERANCE = 1e-6
"""A solution is found when no slope is larger, or the objective changes less."""
SMALLEST = 1e-7
"""Principal axes with less than this share of the largest variance are rounding errors."""


class Axes:
    """Features along their principal axes.

    Shapes: `values` (N, r), with r at most N and D; `variances` (r,); `axes` (r, D).
    """

    def __init__(self, features: Tensor, *, centred: bool) -> None:
        self.mean: Tensor = features.mean(0) * centred  # without biases nothing could take its place
        rest = features - self.mean
        self.size: float = float(features.square().mean()) or 1.0
        """The mean square of a feature; penalties are stated for 1."""
        short = len(features) < features.shape[1]
        gram = (rest @ rest.t() if short else rest.t() @ rest) / len(features)
        variances, vectors = torch.linalg.eigh(gram.double())
        kept = variances > SMALLEST * variances[-1].clamp_min(1e-300)
        self.variances: Tensor = variances[kept].to(features)
        vectors = vectors[:, kept].to(features)
        norms = (self.variances * len(features)).sqrt()
        self.values: Tensor = vectors * norms if short else rest @ vectors
        self.axes: Tensor = (vectors / norms).t() @ rest if short else vectors.t()


class Problem:
    """The regression on the images with a weight; it keeps its last solution, from which it solves the next.

    Shapes: y (N, logits), rows (N, 1) or (N, logits).
    """

    def __init__(self, axes: Axes, y: Tensor, rows: Tensor, outputs: Outputs, *, bias: bool) -> None:
        self.axes = axes
        self.y = y
        self.bias = bias
        self.softmax: bool = outputs.activation == "softmax"
        self.share: Tensor = rows / rows.sum(0)
        logits = y.shape[1]
        self.curvature: float = (1 - 1 / logits) / logits if self.softmax else 0.25
        """Of the cross-entropy by a logit, where all classes are equally probable."""
        self.weight: Tensor = y.new_zeros(logits, len(axes.variances))
        self.offset: Tensor = y.new_zeros(logits)

    def solve(self, penalty: float) -> None:
        """Find the solution with that penalty, which is stated for features whose mean square is 1."""
        penalty *= self.axes.size
        scale = (self.curvature * self.axes.variances + penalty).rsqrt()
        seen = self.axes.values * scale
        weight, offset = self.weight / scale, self.offset.clone()
        solver = torch.optim.LBFGS(
            [weight, offset],
            max_iter=ITERATIONS,
            history_size=10,
            tolerance_grad=TOLERANCE,
            tolerance_change=TOLERANCE,
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            logits = F.linear(seen, weight, offset)
            if self.softmax:
                logs = logits.log_softmax(1)
                losses, probabilities = -(self.y * logs), logs.exp()
            else:
                losses = F.binary_cross_entropy_with_logits(logits, self.y, reduction="none")
                probabilities = logits.sigmoid()
            slope = ((probabilities - self.y) * self.share).t().contiguous()
            scaled = weight * scale
            weight.grad = slope @ seen + penalty * scaled * scale
            offset.grad = slope.sum(1) * self.bias
            total: Tensor = (losses * self.share).sum() + penalty / 2 * scaled.square().sum()
            return total

        with torch.no_grad():
            solver.step(objective)  # type: ignore[no-untyped-call]
        self.weight, self.offset = weight * scale, offset

    def logits(self) -> Tensor:
        """Of all images. Shapes: → (N, logits)."""
        return F.linear(self.axes.values, self.weight, self.offset)

    def solution(self) -> tuple[Tensor, Tensor]:
        """Weights (logits, D) and biases (logits,)."""
        weight = self.weight @ self.axes.axes
        return weight, self.offset - weight @ self.axes.mean
