"""The predictions of an evaluation as a table, one row per image: .csv, or .parquet by pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.errors import ConfigurationError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.system.extras import import_extra
from inceptionnet.system.files import as_text, replacing

KINDS = (".csv", ".parquet")


def check_kind(path: Path, option: str = "--predictions") -> None:
    """Raises: ConfigurationError for a file that is neither .csv nor .parquet; MissingExtraError without pyarrow."""
    if path.suffix not in KINDS:
        raise ConfigurationError(f"{option} {path}: expected a file ending in {' or '.join(KINDS)}")
    if path.suffix == ".parquet":
        import_extra("pyarrow.parquet", "parquet", f"writing {path}")


def write_predictions(path: Path, evaluation: Evaluation | MultiLabelEvaluation, names: Sequence[str]) -> None:
    """Write one row per decoded image: image, label, predicted, confidence, in_top5 (in_top2 for few classes), loss.

    With several labels an image: image, labels, predicted (both with `;` between them), correct, loss, and
    probability_NAME for each label.

    Args:
        names: of all images of the split, by position.

    Raises:
        ConfigurationError: the file cannot be written; an existing file is unchanged.
    """
    write_table(path, {"image": [as_text(names[i]) for i in evaluation.indices], **_columns(evaluation)})


def write_table(path: Path, columns: Mapping[str, Sequence[Any]], option: str = "--predictions") -> None:
    """Write columns of equal length to a .csv or .parquet file.

    Raises:
        ConfigurationError: the file cannot be written; an existing file is unchanged.
    """
    try:
        with replacing(path) as temporary:
            if path.suffix == ".parquet":
                import pyarrow
                import pyarrow.parquet

                pyarrow.parquet.write_table(pyarrow.table(dict(columns)), str(temporary))
                return
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: cannot be written: {error.strerror}; choose another file") from None


def _columns(evaluation: Evaluation | MultiLabelEvaluation) -> dict[str, list[Any]]:
    classes = [as_text(name) for name in evaluation.classes]
    if isinstance(evaluation, MultiLabelEvaluation):

        def joined(rows: npt.NDArray[np.bool_]) -> list[str]:
            return [";".join(name for name, has in zip(classes, row, strict=True) if has) for row in rows.tolist()]

        return {
            "labels": joined(evaluation.labels),
            "predicted": joined(evaluation.predicted),
            "correct": evaluation.correct.tolist(),
            "loss": evaluation.losses.tolist(),
            **{f"probability_{name}": evaluation.probabilities[:, i].tolist() for i, name in enumerate(classes)},
        }
    return {
        "label": [classes[i] for i in evaluation.labels],
        "predicted": [classes[i] for i in evaluation.predicted],
        "confidence": evaluation.confidence.tolist(),
        f"in_top{evaluation.k}": evaluation.in_top.tolist(),
        "loss": evaluation.losses.tolist(),
    }
