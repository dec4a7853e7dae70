"""The published checkpoints: where each file is, its licence, classes, preprocessing and accuracy, as stated there.

Nothing here was measured and nothing is downloaded; the facts are in `published.toml`.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Literal, get_args

from inceptionnet.data.preprocess import Interpolation, Preprocessing

Labels = Literal[
    "ImageNet",
    "ImageNet with background",
    "2015 ImageNet graph (1008)",
    "VGGFace2",
    "CASIA-WebFace",
    "none (features)",
]
LABELS: tuple[str, ...] = get_args(Labels)


@dataclass(frozen=True)
class Published:
    """What is known of one published file of weights."""

    name: str
    network: str
    """The network of this package that gives the file's numbers."""
    file: str
    """The file's published name; of a TensorFlow archive, the checkpoint in it."""
    source: str
    """Its address: a URL, or `hf:owner/name` of a repository on the Hugging Face hub."""
    classes: int
    """Of the file, a background class included; 0 where it has no classifier."""
    labels: Labels
    preprocessing: Preprocessing
    """For the network as this package runs it: what a conversion folds into the weights is not done again."""
    reference: str
    """Where the accuracy is stated; without one, where the file is described."""
    license: str = "not stated"
    """SPDX identifier of the weights' licence, which is not always the code's."""
    top1: float | None = None
    """Per cent of ILSVRC 2012's validation images, one crop of each."""
    top5: float | None = None
    sha256: str = ""
    """Whole, or the first digits where the file's name carries them."""
    note: str = ""

    @property
    def on_hub(self) -> bool:
        """Whether it is in a repository of the Hugging Face hub."""
        return self.source.startswith("hf:")

    @property
    def downloadable(self) -> bool:
        """Whether its address gives the file itself, unchanged on the way: no archive, and http only with a hash."""
        if self.on_hub:
            return True
        return self.source.endswith(f"/{self.file}") and (self.source.startswith("https:") or bool(self.sha256))


def published_for(network: str) -> Published | None:
    """The file that stands for a network's published weights: on the hub if possible, with a classifier if possible."""
    found = [one for one in PUBLISHED if one.network == network and one.downloadable]
    return min(found, key=lambda one: (not one.on_hub, not one.classes), default=None)


def published_as(file_name: str) -> Published | None:
    """The checkpoint that is published under this file name, or None.

    A name is a hint, `sha256` where it is known a proof. `model.safetensors` says nothing; a TensorFlow checkpoint's
    `.index` and `.data-00000-of-00001` stand for it.
    """
    base = re.sub(r"(?<=\.ckpt)\.(index|data-\d{5}-of-\d{5})$", "", file_name)
    found = [one for one in PUBLISHED if one.file == base]
    return found[0] if len(found) == 1 else None


def published_at(address: str) -> Published | None:
    """The checkpoint of a hub repository, from `hf:owner/name` with or without a file and a revision, or None."""
    repository = "/".join(address.partition("@")[0].split("/")[:2])
    found = [one for one in PUBLISHED if one.source == repository and one.on_hub]
    return found[0] if found else None


def _short_side(size_px: int, resized_px: int, interpolation: Interpolation = "bilinear") -> Preprocessing:
    """The short side resized to `resized_px`, then the middle square."""
    return Preprocessing(size_px, size_px / resized_px, "keep-aspect", interpolation)


def _squashed(size_px: int, crop: float = 0.875, interpolation: Interpolation = "bilinear") -> Preprocessing:
    return Preprocessing(size_px, crop, "squash", interpolation)


_PREPROCESSING = {
    # torchvision's networks bring ImageNet's mean and deviation back to [-1, 1] themselves.
    "torchvision 224": _short_side(224, 256),
    "torchvision 299": _short_side(299, 342),
    # timm and Cadene round 299 / crop down: 341 px at 0.875, 333 px at 0.8975.
    "timm 341": _short_side(299, 341, "bicubic"),
    "timm 333": _short_side(299, 333, "bicubic"),
    "timm gluon": replace(_short_side(299, 341, "bicubic"), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "cadene 299": _short_side(299, 341),
    # BGR from 0 to 255 less (104, 117, 128); the order and the scale are folded into the first convolution.
    "caffe 224": replace(_short_side(224, 256), mean=(128 / 255, 117 / 255, 104 / 255)),
    "slim 224": _squashed(224, interpolation="tf1-bilinear"),
    "slim 299": _squashed(299, interpolation="tf1-bilinear"),
    "keras 299": _squashed(299),
    "face 160": replace(_squashed(160, crop=1.0), std=(128 / 255,)),  # (x - 127.5) / 128
    "fid": _squashed(299, crop=1.0),
    "fid tensorflow": replace(
        _squashed(299, crop=1.0, interpolation="tf1-bilinear"), mean=(128 / 255,), std=(128 / 255,)
    ),
}


def _read() -> tuple[Published, ...]:
    text = files("inceptionnet.weights").joinpath("published.toml").read_text(encoding="utf-8")
    rows = tomllib.loads(text)["checkpoint"]
    return tuple(Published(**{**row, "preprocessing": _PREPROCESSING[row["preprocessing"]]}) for row in rows)


PUBLISHED = _read()
"""Every published checkpoint of which these facts could be established."""
