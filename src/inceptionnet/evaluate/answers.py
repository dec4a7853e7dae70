"""Predictions as columns, the same ones wherever many are written: parts in Parquet, Ray Data, datasets and Spark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inceptionnet.system.files import as_text
from inceptionnet.system.parts import ERROR

if TYPE_CHECKING:
    from inceptionnet.evaluate.prediction import Prediction

Column: TypeAlias = npt.NDArray[np.object_ | np.float32]
LABELS = "labels"


def answer_columns(
    predictions: Sequence[Prediction], classes: Sequence[str], *, top: int, multi_label: bool
) -> dict[str, Column]:
    """Columns of predictions: class_1, probability_1, class_2 …, error; texts and null, float32 and NaN.

    With several labels an image: labels (with `;` between them), probability_NAME for each label, error.
    Shapes: each (N,).
    """
    found: dict[str, list[Any]] = {name: [] for name in answer_names(classes, top=top, multi_label=multi_label)}
    for one in predictions:
        row: dict[str, Any] = {ERROR: as_text(one.error) if one.error else None}
        if multi_label:
            row[LABELS] = None if one.error else as_text(one.label)
            row |= {f"probability_{as_text(name)}": p for name, p in one.top}
        else:
            for rank, (name, p) in enumerate(one.top, 1):
                row |= {f"class_{rank}": as_text(name), f"probability_{rank}": p}
        for name, values in found.items():
            values.append(row.get(name, np.nan if name.startswith("probability_") else None))
    return {
        name: np.array(values, np.float32 if name.startswith("probability_") else object)
        for name, values in found.items()
    }


def answer_names(classes: Sequence[str], *, top: int, multi_label: bool) -> list[str]:
    """The names of the columns, in order."""
    if multi_label:
        return [LABELS, *(f"probability_{as_text(name)}" for name in classes), ERROR]
    ranks = range(1, min(top, len(classes)) + 1)
    return [*(f"{what}_{rank}" for rank in ranks for what in ("class", "probability")), ERROR]


def answers_schema(names: Sequence[str], about: dict[bytes, bytes]) -> Any:
    """The pyarrow.Schema of parts: image, split, label, and these columns of answers."""
    import pyarrow as pa

    text = [pa.field(name, pa.string()) for name in ("image", "split", "label")]
    kinds = [pa.field(name, pa.float32() if name.startswith("probability_") else pa.string()) for name in names]
    return pa.schema([*text, *kinds], about)


def answers_table(
    schema: Any,
    images: Sequence[str],
    splits: Sequence[str],
    labels: Sequence[str | None],
    columns: dict[str, Column],
) -> Any:
    """Rows as a pyarrow.Table of `answers_schema`; NaN becomes null."""
    import pyarrow as pa

    known: dict[str, Any] = {"image": [as_text(name) for name in images], "split": splits, "label": labels, **columns}
    return pa.Table.from_arrays(
        [pa.array(known[field.name], field.type, from_pandas=True) for field in schema], schema=schema
    )


def names_of(labels: npt.NDArray[np.int64 | np.bool_], classes: Sequence[str]) -> list[str | None]:
    """The class of each image, several with ; between them; None without label."""
    names = [as_text(name) for name in classes]
    if labels.ndim == 2:
        return [";".join(name for name, held in zip(names, row, strict=True) if held) for row in labels.tolist()]
    return [names[label] if label >= 0 else None for label in labels.tolist()]
