"""The rows of an answer: a prediction for each image, or why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inceptionnet.serve.images import Options, Upload
from inceptionnet.serve.models import Answer, Model

_NOT_FINITE = "the outputs of the network are not finite"


def prediction_rows(
    model: Model, uploads: Sequence[Upload], answers: Sequence[Answer | str], options: Options, threshold: float | None
) -> list[dict[str, Any]]:
    """As JSON values.

    Args:
        answers: to each image that of the network, or why it cannot be decoded.
    """
    named = [(upload.name, one) for upload, one in zip(uploads, answers, strict=True) if isinstance(one, Answer)]
    found = _predicted(model, named, options, threshold) if model.classes and named else [{"file": n} for n, _ in named]
    for row, (_, answer) in zip(found, named, strict=True):
        if answer.embedding is not None and "error" not in row:
            finite = bool(np.isfinite(answer.embedding).all())
            row |= {"embedding": answer.embedding.tolist()} if finite else {"error": _NOT_FINITE}
    left = iter(found)
    return [
        next(left) if isinstance(one, Answer) else {"file": upload.name, "error": one}
        for upload, one in zip(uploads, answers, strict=True)
    ]


def _predicted(
    model: Model, named: Sequence[tuple[str, Answer]], options: Options, threshold: float | None
) -> list[dict[str, Any]]:
    logits = np.stack([answer.logits for _, answer in named if answer.logits is not None])
    top = len(model.classes) if options.probabilities else options.top
    rows = []
    for one in model.predictions([name for name, _ in named], logits, top, threshold):
        row = one.to_dict()
        if options.probabilities and not one.error:
            row["probabilities"] = dict(one.top)
        if "top" in row:
            row["top"] = row["top"][: options.top]
        rows.append(row)
    return rows


def first_class(row: dict[str, Any]) -> str:
    """The predicted class, or the most probable label."""
    return str(row["top"][0]["class"] if "top" in row else next(iter(row["probabilities"])))
