"""Logistic regression on the features of a frozen network, with its penalty chosen by cross-validation.

The penalties are tried from the strongest to the weakest, each from the solution of the one before (regression.py). A
weak penalty often classifies better and is over-confident. So the logits of held-out images are scaled by one number
(temperature scaling, Guo et al., arXiv:1706.04599) before penalties are compared, and those of the result by the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from inceptionnet.errors import number_of
from inceptionnet.model.outputs import Outputs
from inceptionnet.train.regression import Axes, Problem
from inceptionnet.train.targets import one_hot

PENALTIES = tuple(10.0 ** (-k / 2) for k in range(13))
"""Tried penalties, 1 to 1e-6, on features whose mean square is 1."""
FOLDS = 5
PATIENCE = 2
"""Penalties in a row that may be worse than the best one; the rest, which are weaker still, are not tried."""
LEAST_SCALE = 0.01


@dataclass(frozen=True)
class Trial:
    """A penalty, and its mean cross-entropy and accuracy on images that were held out of the fit."""

    penalty: float
    scale: float
    """Of the logits, at most 1: that with the smallest loss."""
    loss: float
    """Of the scaled logits; of several labels an image, the mean over the labels too."""
    accuracy: float
    """Of several labels an image, subset accuracy."""


@dataclass(frozen=True)
class Fit:
    """A fitted classifier, and how its penalty was chosen."""

    weight: Tensor
    """(logits, D)."""
    bias: Tensor
    """(logits,); zeros without biases."""
    penalty: float
    scale: float
    """Weights and biases are those of the regression times this."""
    trials: tuple[Trial, ...]
    """Every penalty that was tried; empty if there was nothing to hold out."""
    held_out: Tensor
    """(N, logits): the logits of every image by the fit, with the chosen penalty, that the image was held out of;
    empty if there was nothing to hold out."""
    folds: int
    images: int
    loss: float
    """Mean cross-entropy of the images it was fitted to, as `Trial.loss`."""
    accuracy: float
    """Accuracy on the images it was fitted to, as `Trial.accuracy`."""
    measure: str = "accuracy"
    """What `accuracy` is: accuracy or subset accuracy."""

    @property
    def summary(self) -> str:
        """What was fitted, and how the penalty was chosen, for a log line."""
        images = number_of("image", self.images)
        if not self.trials:
            return f"{images}, penalty {self.penalty:g} without cross-validation: too few images or groups"
        chosen = next(trial for trial in self.trials if trial.penalty == self.penalty)
        how = f"{self.folds}-fold cross-validation" if self.folds > 1 else "a held-out fifth of the training images"
        found = f"{self.measure} {chosen.accuracy:.1%} there"
        return f"{images}; penalty {self.penalty:.3g} by {how}, {found}"


def fit(
    features: Tensor,
    labels: Tensor,
    outputs: Outputs,
    *,
    seed: int = 0,
    folds: int = FOLDS,
    groups: Sequence[object] | None = None,
    image_weights: Tensor | None = None,
    bias: bool = True,
    one_fold: bool = False,
) -> Fit:
    """Fit logits to features; penalty and scale are those of the smallest mean cross-entropy on held-out images.

    Args:
        features: (N, D) float32, on the device to compute on.
        labels: (N,) int64, or of several labels an image (N, labels) bool.
        outputs: what the logits mean.
        seed: of the folds.
        groups: for each image; images of one group are in the same fold.
        image_weights: (N,) weight of each image in the mean, or (N, logits). Default: all the same.
        bias: whether the logits have biases.
        one_fold: hold out only the first fold, which takes a fifth of the time.
    """
    y = _targets(labels.to(features.device), outputs)
    axes = Axes(features, centred=bias)
    rows = torch.ones(len(y), 1, device=y.device) if image_weights is None else image_weights.to(y)
    rows = rows.reshape(len(y), -1)
    fold = torch.as_tensor(stratified_folds(labels.cpu().numpy(), folds, seed, groups), device=y.device)
    parts = [part for part in (fold == number for number in range(folds)) if part.any() and not part.all()]
    problems = [
        Problem(axes, y, rows * ~part[:, None], outputs, bias=bias) for part in parts[: 1 if one_fold else None]
    ]
    tested = torch.stack(parts[: len(problems)]).any(0) if problems else torch.zeros(len(y), dtype=torch.bool)
    trials: list[Trial] = []
    best, held_out, worse = Trial(PENALTIES[len(PENALTIES) // 2], 1.0, np.inf, 0.0), torch.zeros(0, y.shape[1]), 0
    for penalty in PENALTIES if problems else ():
        logits = torch.zeros_like(y)
        for problem, part in zip(problems, parts, strict=False):
            problem.solve(penalty)
            logits[part] = problem.logits()[part]
        trial = _judged(penalty, logits[tested], y[tested], rows[tested], outputs)
        trials.append(trial)
        if trial.loss < best.loss:
            best, held_out, worse = trial, (trial.scale * logits).cpu(), 0
        elif (worse := worse + 1) > PATIENCE:
            break
    whole = Problem(axes, y, rows, outputs, bias=bias)
    for penalty in (penalty for penalty in PENALTIES if penalty >= best.penalty):
        whole.solve(penalty)
    weight, offset = whole.solution()
    loss, accuracy = _figures(best.scale * whole.logits(), y, rows, outputs)
    return Fit(
        (best.scale * weight).cpu(),
        (best.scale * offset).cpu(),
        best.penalty,
        best.scale,
        tuple(trials),
        held_out,
        len(problems),
        len(y),
        loss,
        accuracy,
        "subset accuracy" if outputs.multi_label else "accuracy",
    )


def stratified_folds(
    labels: npt.NDArray[np.int64 | np.bool_], folds: int, seed: int, groups: Sequence[object] | None = None
) -> npt.NDArray[np.int64]:
    """The fold of each image: the images of every class, or set of labels, are spread over all folds evenly.

    With `groups`, whole groups are placed, the largest first, each where its classes are rarest.

    Shapes: labels (N,) or (N, labels) → (N,).
    """
    rng = np.random.default_rng(seed)
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    if groups is not None:
        return _grouped_folds(kinds, folds, rng, np.unique([str(group) for group in groups], return_inverse=True)[1])
    fold, start = np.zeros(len(kinds), np.int64), 0
    for kind in range(kinds.max(initial=-1) + 1):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        fold[members] = (start + np.arange(len(members))) % folds
        start += len(members)  # so that classes smaller than the number of folds do not all miss the same one
    return fold


def _grouped_folds(
    kinds: npt.NDArray[np.intp], folds: int, rng: np.random.Generator, groups: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    table = np.zeros((groups.max() + 1, kinds.max() + 1))
    np.add.at(table, (groups, kinds), 1)
    shares, sizes = table / table.sum(0), table.sum(1)
    held, place = np.zeros((folds, table.shape[1])), np.zeros(len(table), np.int64)
    order = rng.permutation(len(table))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        place[group] = np.lexsort((held.sum(1), held @ table[group]))[0]
        held[place[group]] += shares[group]
    return place[groups]


def _targets(labels: Tensor, outputs: Outputs) -> Tensor:
    """What the probabilities should be. Shapes: → (N, logits) float32."""
    if outputs.activation == "softmax":
        return one_hot(labels, outputs.logits)
    return labels.float().reshape(len(labels), -1)


def _judged(penalty: float, logits: Tensor, y: Tensor, rows: Tensor, outputs: Outputs) -> Trial:
    """What a penalty reached, with the best scale of its logits."""

    def loss(log_scale: float) -> float:
        return _figures(math.exp(log_scale) * logits, y, rows, outputs)[0]

    found = minimize_scalar(loss, bounds=(math.log(LEAST_SCALE), 0), method="bounded")
    scale = math.exp(found.x) if found.fun < loss(0) else 1.0
    return Trial(penalty, scale, *_figures(scale * logits, y, rows, outputs))


def _figures(logits: Tensor, y: Tensor, rows: Tensor, outputs: Outputs) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over the images; with weights of its own for each label the accuracy has none."""
    share = rows.double() / rows.sum(0, dtype=torch.float64)
    if outputs.activation == "softmax":
        losses, right = -(y * logits.log_softmax(1)).sum(1, keepdim=True), outputs.hits(logits, y.argmax(1))
    else:
        losses = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        right = outputs.hits(logits, y)
    counted = share[:, 0] if share.shape[1] == 1 else torch.full_like(share[:, 0], 1 / len(share))
    return float((losses * share).sum(0).mean()), float((right * counted).sum())
