"""A classifier as the function that other libraries call with a batch of columns: Ray Data, datasets, Spark.

Spark counts the parameters of the function, so that `Classifier.__call__` has one; `Classifier.columns` has options.
Each of them has images in its own form, and takes columns back: Ray a dict of arrays, datasets a dict of lists, Spark
a dict of arrays for the array of one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inceptionnet.data.images import Item
from inceptionnet.data.inputs import NamedImage
from inceptionnet.errors import InputError, listed
from inceptionnet.evaluate.answers import answer_columns

if TYPE_CHECKING:
    from inceptionnet.classifier.classifier import Classifier

IMAGES = ("image", "img", "bytes", "content")
"""Columns that images are in: of image data sets and `ray.data.read_images`, of `ray.data.read_binary_files`, and of
Spark's binaryFile."""
NAMES = ("path", "image_id", "file", "name", "id")
"""Columns by which an image is called in its error."""


def answer(
    classifier: Classifier, batch: Any, *, image: str | None, top: int, threshold: float | None, batch_size: int
) -> dict[str, Any]:
    """See `Classifier.columns`."""
    if not isinstance(batch, Mapping):
        return _answers(classifier, batch, None, top, threshold, batch_size)
    column = image if image is not None else next((name for name in IMAGES if name in batch), None)
    if column not in batch:
        wanted = repr(image) if image is not None else f"one of {listed(IMAGES, ordered=True)}"
        raise InputError(
            f"expected a column of images, {wanted}, got {listed(map(str, batch), ordered=True) or 'no columns'}; "
            "name it with image="
        )
    images = batch[column]
    others = {name: values for name, values in batch.items() if name != column}
    called = next((others[name] for name in NAMES if name in others), None)
    found = _answers(classifier, images, called, top, threshold, batch_size)
    if not isinstance(images, np.ndarray):  # of datasets
        found = {name: column.tolist() for name, column in found.items()}
    return {**others, **found}


def _answers(
    classifier: Classifier, images: Any, names: Any, top: int, threshold: float | None, batch_size: int
) -> dict[str, Any]:
    if not isinstance(images, np.ndarray | Sequence) or isinstance(images, str | bytes):
        raise InputError(f"expected a batch of images in columns, an array or a list, got {type(images).__name__}")
    items = [Item(_name(one, names, i), _image(one)) for i, one in enumerate(images)]
    rows = list(classifier.stream(items, top, threshold=threshold, batch_size=batch_size))
    found = answer_columns(rows, classifier.classes, top=top, multi_label=classifier.outputs.multi_label)
    for column in found.values():
        if column.dtype == object:  # those libraries find out types from a batch, which may have nothing but null
            column[[value is None for value in column]] = ""
    return found


def _image(one: Any) -> Any:
    """An image in a form that is known: bytes of any kind, and what datasets has of an image that is not decoded."""
    if isinstance(one, Mapping) and "bytes" in one:
        one = one["bytes"] if one["bytes"] is not None else one.get("path")
    if isinstance(one, bytearray | memoryview | np.bytes_):
        return bytes(one)
    if isinstance(one, str | Path):
        return NamedImage.at(one)
    return b"" if one is None else one  # an image of no bytes has its error in its row


def _name(one: Any, names: Any, position: int) -> str:
    stored = one.get("path") if isinstance(one, Mapping) else None
    if names is not None and stored is None:
        stored = names[position]
    return str(stored) if stored is not None else f"image {position}"
