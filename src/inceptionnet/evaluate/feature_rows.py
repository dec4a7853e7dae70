"""Rows of features as Arrow tables; for what has computed them by any means, torch is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.system.files import as_text
from inceptionnet.system.parts import ERROR

EMBED = "embed"
"""The pooled features before the classifier, `InceptionNet.embed`."""

Values = npt.NDArray[np.float32]


def features_schema(shape: Sequence[int], about: Mapping[str, Any]) -> Any:
    """The pyarrow.Schema of features: image, split, label, features (flat, float32), error.

    Args:
        shape: of one image's features, from `feature_shape`.
        about: metadata, each value as JSON.
    """
    import pyarrow as pa

    text = [pa.field(name, pa.string()) for name in ("image", "split", "label")]
    values = pa.field("features", pa.list_(pa.float32(), int(np.prod(shape))))
    return pa.schema(
        [*text, values, pa.field(ERROR, pa.string())], {key: json.dumps(value) for key, value in about.items()}
    )


def feature_table(
    schema: Any,
    names: Sequence[str],
    splits: Sequence[str],
    labels: Sequence[str | None],
    decoded: npt.NDArray[np.int64],
    values: Values,
    reasons: Sequence[str],
) -> Any:
    """Some rows as a pyarrow.Table.

    Args:
        decoded: the rows that have features, ascending; the others have the `reasons`, in order.
        values: their features.
    """
    import pyarrow as pa

    length = schema.field("features").type.list_size
    whole = np.zeros((len(names), length), np.float32)
    whole[decoded] = values.reshape(len(decoded), length)
    corrupt = np.ones(len(names), bool)
    corrupt[decoded] = False
    why = np.full(len(names), None, object)
    why[corrupt] = list(reasons)
    columns = [
        pa.array([as_text(name) for name in names], pa.string()),
        pa.array(splits, pa.string()),
        pa.array(labels, pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1)), length, mask=pa.array(corrupt)),
        pa.array([reason and as_text(reason) for reason in why], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
