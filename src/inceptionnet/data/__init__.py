"""Data sets of labelled images, decoding and preprocessing; torch is imported for training and evaluation only.

What opens data sets is imported where it is used: prediction does without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from inceptionnet.data.decode import decode, read_image
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.resizing import centre_crop, random_crop

if TYPE_CHECKING:
    from inceptionnet.data.sources import open_source
    from inceptionnet.data.splits import Source, Split, StreamSplit

__all__ = [
    "Augment",
    "Preprocessing",
    "Source",
    "Split",
    "StreamSplit",
    "centre_crop",
    "decode",
    "open_source",
    "random_crop",
    "read_image",
]
_HOME = {"Source": "splits", "Split": "splits", "StreamSplit": "splits", "open_source": "sources"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
