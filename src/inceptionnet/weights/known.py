"""The published checkpoints: address, licence, classes, preprocessing and accuracy of each, as stated by its publisher.

Nothing here was measured, and nothing is downloaded; the facts are in `published.toml`.
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
    """The facts about one published weights file."""

    name: str
    network: str
    """The network of this package that reproduces the file's outputs."""
    file: str
    """The published file name; for a TensorFlow archive, that of the checkpoint in it."""
    source: str
    """Its address: a URL, or `hf:owner/name` of a repository on the Hugging Face hub."""
    classes: int
    """Number of classes in the file, including a background class; 0 without classifier."""
    labels: Labels
    preprocessing: Preprocessing
    """For the converted network: steps that the conversion folds into the weights are not part of it."""
    reference: str
    """Source of the accuracy; without one, of the file's description."""
    license: str = "not stated"
    """SPDX identifier of the weights' licence, which may differ from the code's."""
    top1: float | None = None
    """Accuracy on the validation images of ILSVRC 2012, single crop, %."""
    top5: float | None = None
    sha256: str = ""
    """Complete, or the first digits as given in the file name."""
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
    """The checkpoint published under this file name, or None.

    The name is only a hint; `sha256`, if known, is proof. `model.safetensors` is ambiguous; `.index` and
    `.data-00000-of-00001` of a TensorFlow checkpoint both match.
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
    """The short side resized to `resized_px`, then the central square."""
    return Preprocessing(size_px, size_px / resized_px, "keep-aspect", interpolation)


def _squashed(size_px: int, crop: float = 0.875, interpolation: Interpolation = "bilinear") -> Preprocessing:
    return Preprocessing(size_px, crop, "squash", interpolation)


_PREPROCESSING = {
    # torchvision's networks convert input normalised with ImageNet's mean and std to [-1, 1] themselves.
    "torchvision 224": _short_side(224, 256),
    "torchvision 299": _short_side(299, 342),
    # timm and Cadene round 299 / crop down: 341 px at 0.875, 333 px at 0.8975.
    "timm 341": _short_side(299, 341, "bicubic"),
    "timm 333": _short_side(299, 333, "bicubic"),
    "timm gluon": replace(_short_side(299, 341, "bicubic"), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "cadene 299": _short_side(299, 341),
    # BGR in 0 to 255 minus (104, 117, 128); order and scale are folded into the first convolution.
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
"""All published checkpoints for which these facts are known."""
