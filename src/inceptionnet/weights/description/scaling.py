"""What a described Keras model does to an image before its network, as preprocessing.

Every layer must be a plain affine map, a resize, or inactive at inference. The numbers are applied in the order of
the layers and become `mean` and `std`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError, listed
from inceptionnet.weights.description.affine import Affine, affine_of, is_cast, is_named_alone, operation_of
from inceptionnet.weights.description.base import does_nothing
from inceptionnet.weights.description.graph import INPUT, Call

RANDOM = frozenset(
    {
        "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
        "RandomShear", "RandomHue", "RandomSaturation", "RandomColorJitter", "RandomColorDegeneration",
        "RandomSharpness", "RandomPosterization", "RandomGrayscale", "RandomInvert", "RandomErasing",
        "RandomGaussianBlur", "RandomPerspective", "RandomElasticTransform", "RandomApply", "RandomHeight",
        "RandomWidth", "RandAugment", "AugMix", "MixUp", "CutMix",
    }
)  # fmt: skip
"""Augmentation, which Keras leaves out at inference."""


@dataclass
class Scaling:
    """What was found between the image and the network."""

    preprocessing: Preprocessing
    origin: str
    """In words, without a semicolon."""
    said: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Layers whose tensors it has."""


def preprocessing_of(
    image: Call, path: Path, tensors: Mapping[str, Tensor], usual: Preprocessing, cropped: bool
) -> Scaling:
    """The preprocessing of a model whose network takes the output of `image`.

    Args:
        usual: that of the network as published, for what the model does not say.
        cropped: whether the centre of an image is taken, as published, and not all of it.

    Raises:
        WeightsError: a layer that preprocessing has no word for.
    """
    total = Affine(torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    scaled: list[str] = []
    named_alone = ""
    left: list[str] = []
    said: list[str] = []
    used: set[str] = set()
    resized: Call | None = None
    sizes: list[tuple[int, int]] = []
    call = image
    while True:
        if resized is None:
            sizes += [(shape[1], shape[2]) for shape in call.shapes if len(shape) == 4 and shape[1] and shape[2]]
        if call.kind == INPUT:
            if resized and any(shape[1:3] not in ([None, None], list(_size(resized))) for shape in call.shapes):
                raise WeightsError(
                    f"{path}: images come to the size of {call.name} and then to that of {resized}, and preprocessing "
                    "has one resize; build the model with an input of (None, None, 3), and save that"
                )
            break
        if call.kind in RANDOM and not call.training:
            left.append(str(call))
        elif _resizes(call) and resized is None:
            resized = call
            sizes = sizes or [_size(call)]
        elif not (does_nothing(call) or is_cast(call)):
            affine = affine_of(call, tensors)
            if affine is None or len(call.inputs) != 1:
                raise WeightsError(
                    f"{path}: {call} stands between the input and the base{_why(call)}; preprocessing has scaling and "
                    "one resize only: save the model without it, and give it images to which it was applied"
                )
            if not (affine.scale == 1).all() or not (affine.offset == 0).all():
                total = Affine(total.scale * affine.scale, total.scale * affine.offset + total.offset)
                scaled.append(str(call))
                if is_named_alone(call):
                    named_alone = f" ({call.name} calls some preprocess_input: to [-1, 1], as InceptionV3's, assumed)"
                used.add(call.name)
        call = call.inputs[0]
    size, where = _side(sizes, call, path), "as the file says"
    if size is None:
        size, where = usual.size_px, "assumed, for the file has no size"
    origin = [f"{size} px ({where})"]
    mean, std = usual.mean, usual.std
    if scaled:
        mean, std, unit = _mean_std(total, path, scaled)
        origin.append(f"scaled by {listed(scaled[::-1], ordered=True)} of the model{unit}{named_alone}")
    else:
        origin.append("scaled to [-1, 1] (assumed, for the model has no layer that scales)" if not _odd(usual) else
                      "scaled as published (assumed, for the model has no layer that scales)")  # fmt: skip
    prep, how = _resize(usual, resized, cropped)
    origin.append(how)
    if left:
        said.append(f"augmentation of the model not taken over, which is inactive at inference: {listed(left)}")
    channels = _channels(image)
    if scaled and len(mean) not in (1, channels):
        raise WeightsError(
            f"{path}: {listed(scaled, ordered=True)} between the input and the base give {len(mean)} channels of an "
            f"input of {channels}; give the model an input of {len(mean)} channels, and save that"
        )
    if len(mean) not in (1, channels):
        mean, std = mean[:1], std[:1]
    found = Preprocessing(
        size_px=size, crop=prep.crop, resize=prep.resize, interpolation=prep.interpolation, mean=mean, std=std,
        channels=channels,
    )  # fmt: skip
    return Scaling(found, ", ".join(origin), said, used)


def _odd(usual: Preprocessing) -> bool:
    return {*usual.mean, *usual.std} != {0.5}


def _channels(image: Call) -> int:
    """Of the input, as the model states it; 3 if it does not."""
    call: Call | None = image
    while call is not None:
        for shape in call.shapes:
            if len(shape) == 4 and shape[3]:
                return int(shape[3])
        call = call.inputs[0] if call.inputs else None
    return 3


def _side(sizes: Sequence[tuple[int, int]], call: Call, path: Path) -> int | None:
    if not sizes:
        return None
    height, width = sizes[0]
    if any(size != sizes[0] for size in sizes):
        raise WeightsError(f"{path}: expected one image size in the model, got {_texts(sizes)}; save it with one")
    if height != width:
        raise WeightsError(
            f"{path}: its input {call.name} takes images of {height}×{width} px (height × width), and preprocessing "
            "makes squares; build the model with a square input, load the weights into it, and save that"
        )
    return height


def _texts(sizes: Sequence[tuple[int, int]]) -> str:
    return listed({f"{height}×{width} px" for height, width in sizes})


def _resize(usual: Preprocessing, resized: Call | None, cropped: bool) -> tuple[Preprocessing, str]:
    """How images come to their size, and in words."""
    if resized is None:
        if cropped:
            return usual, "resized as published (assumed)"
        prep = Preprocessing(usual.size_px, 1.0, "squash", "bilinear")
        return prep, "the whole image resized without its aspect ratio, bilinear (assumed, as Keras's loaders do)"
    c = resized.config
    keep = bool(c.get("crop_to_aspect_ratio"))
    kind = "bicubic" if (c.get("interpolation") or _named(resized, "method") or "bilinear") == "bicubic" else "bilinear"
    prep = Preprocessing(usual.size_px, 1.0, "keep-aspect" if keep else "squash", kind)  # type: ignore[arg-type]
    antialias = c.get("antialias") or _named(resized, "antialias")
    note = "" if antialias else ", with antialiasing, which that layer has not"
    return prep, f"resized as {resized} does{note}"


def _named(call: Call, key: str) -> Any:
    return call.named.get(key)


def _is(call: Call, names: Sequence[str]) -> bool:
    return operation_of(call) in names


def _resizes(call: Call) -> bool:
    """Whether a layer is a resize that preprocessing has a word for."""
    c = call.config
    kind = c.get("interpolation") or _named(call, "method") or "bilinear"
    plain = kind in ("bilinear", "bicubic") and not c.get("pad_to_aspect_ratio")
    return _is(call, ("Resizing", "Resize", "image.resize")) and plain and all(_size(call))


def _size(call: Call) -> tuple[int, int]:
    c = call.config
    size = c.get("size") or _named(call, "size") or [c.get("height"), c.get("width")]
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
    return (size[0], size[1]) if whole else (0, 0)


def _mean_std(total: Affine, path: Path, scaled: Sequence[str]) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """mean and std for images in [0, 1]; the model takes 0 to 255 unless its numbers are those of [0, 1]."""
    scale, offset = total.scale + 0 * total.offset, total.offset + 0 * total.scale
    if not (scale > 0).all() or not offset.isfinite().all() or not scale.isfinite().all():
        raise WeightsError(
            f"{path}: {listed(scaled, ordered=True)} between the input and the base give a scale of "
            f"{scale.tolist()}; expected one above 0: images that are inverted cannot be described by mean and std"
        )
    unit, note = 255.0, ""
    if ((-offset / scale).abs() <= 1).all() and (scale >= 0.5).all():  # x - 0.5 is no use on 0 to 255
        unit, note = 1.0, " (on images in [0, 1], by its numbers: assumed)"
    std = 1 / (unit * scale)
    return tuple((-offset * std + 0.0).tolist()), tuple(std.tolist()), note


def _why(call: Call) -> str:
    if call.kind == "Lambda":
        return ", and its code is kept as Python bytecode, which is never run"
    return " with training=True" if call.training else ""
