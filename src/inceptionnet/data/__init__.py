"""Data sets of labelled images, decoding and preprocessing; without torch, except in loading.py and augment.py."""

from __future__ import annotations

from inceptionnet.data.decode import decode, read_image
from inceptionnet.data.preprocess import Augment, Preprocessing, centre_crop, random_crop
from inceptionnet.data.sources import Source, Split, open_source
from inceptionnet.data.splits import StreamSplit

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
