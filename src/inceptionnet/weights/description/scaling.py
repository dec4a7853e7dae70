"""What a described Keras model does to an image before its network, as preprocessing.

Every layer must be a plain affine map, a resize, or inactive at inference. The numbers are applied in the order of
the layers and become `mean` and `std`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError, listed
from inceptionnet.weights.description.base import does_nothing
from inceptionnet.weights.description.graph import INPUT, TENSOR, Call

SYMMETRIC = ("inception_v3", "inception_resnet_v2", "xception", "mobilenet", "mobilenet_v2", "nasnet")
"""Keras's applications whose `preprocess_input` maps 0 to 255 to [-1, 1]."""
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
OPERATIONS = {
    "TrueDivide": "/", "Divide": "/", "math.truediv": "/", "math.divide": "/", "RealDiv": "/",
    "Multiply": "*", "math.multiply": "*", "Mul": "*",
    "Subtract": "-", "math.subtract": "-", "Sub": "-",
    "Add": "+", "math.add": "+", "__operators__.add": "+", "AddV2": "+",
}  # fmt: skip
CASTS = ("Cast", "cast")
EPSILON = 1e-7
"""What Keras's Normalization divides by at least."""


class Affine(NamedTuple):
    """x → scale · x + offset, per channel or for all."""

    scale: Tensor
    offset: Tensor


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
        elif not (does_nothing(call) or _is(call, CASTS)):
            affine = _affine(call, tensors)
            if affine is None or len(call.inputs) != 1:
                raise WeightsError(
                    f"{path}: {call} stands between the input and the base{_why(call)}; preprocessing has scaling and "
                    "one resize only: save the model without it, and give it images to which it was applied"
                )
            if not (affine.scale == 1).all() or not (affine.offset == 0).all():
                total = Affine(total.scale * affine.scale, total.scale * affine.offset + total.offset)
                scaled.append(str(call))
                used.add(call.name)
        call = call.inputs[0]
    size, where = _side(sizes, call, path), "as the file says"
    if size is None:
        size, where = usual.size_px, "assumed, for the file has no size"
    origin = [f"{size} px ({where})"]
    mean, std = usual.mean, usual.std
    if scaled:
        mean, std, unit = _mean_std(total, path, scaled)
        origin.append(f"scaled by {listed(scaled[::-1], ordered=True)} of the model{unit}")
    else:
        origin.append("scaled to [-1, 1] (assumed, for the model has no layer that scales)" if not _odd(usual) else
                      "scaled as published (assumed, for the model has no layer that scales)")  # fmt: skip
    prep, how = _resize(usual, resized, cropped)
    origin.append(how)
    if left:
        said.append(f"augmentation of the model not taken over, which is inactive at inference: {listed(left)}")
    channels = _channels(image)
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


def _function(call: Call) -> str:
    """The operation of a layer that TensorFlow made of a function, or its class."""
    if call.kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(call.config.get("function"))
    if call.kind == "TensorFlowOpLayer":
        node = call.config.get("node_def")
        return str(node.get("op")) if isinstance(node, Mapping) else call.kind
    return call.kind


def _is(call: Call, names: Sequence[str]) -> bool:
    return _function(call) in names


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


def _affine(call: Call, tensors: Mapping[str, Tensor]) -> Affine | None:
    """The affine map that a layer is; None if it is another, or one that the description does not tell."""
    c = call.config
    match call.kind:
        case "Rescaling":
            return _both(c.get("scale", 1.0), c.get("offset", 0.0))
        case "Normalization":
            return _normalization(call, tensors)
        case "Lambda":
            known = _application(c)
            return _both(1 / 127.5, -1.0) if known else None
    sign = OPERATIONS.get(_function(call))
    if sign is None or len(call.inputs) != 1:
        return None
    first, other = _operands(call)
    value = _numbers(other)
    if value is None:
        return None
    one, nothing = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if sign == "+":
        return Affine(one, value)
    if sign == "*":
        return Affine(value, nothing)
    if sign == "-":
        return Affine(one, -value) if first else Affine(-one, value)
    return Affine(1 / value, nothing) if first and (value != 0).all() else None


def _operands(call: Call) -> tuple[bool, Any]:
    """Whether the tensor comes first, and the constant."""
    if call.kind == "TensorFlowOpLayer":
        constants = call.config.get("constants")
        if not isinstance(constants, Mapping) or len(constants) != 1:
            return True, None
        place, value = next(iter(constants.items()))
        return str(place) == "1", value
    given = [*call.operands, *(call.named[key] for key in ("x1", "x2", "x", "y") if key in call.named)]
    constants = [value for value in given if value is not TENSOR]
    return bool(given) and given[0] is TENSOR, constants[0] if len(constants) == 1 else None


def _application(config: Mapping[str, Any]) -> bool:
    """Whether a Lambda is `preprocess_input` of an application that maps to [-1, 1].

    Keras 3 keeps its name only; on a network of this family it is the family's.
    """
    function = config.get("function")
    module = str(config.get("module") or "")
    if isinstance(function, Mapping) and function.get("class_name") == "function":
        module, function = str(function.get("module")), function.get("config")
        if function == "preprocess_input" and module == "builtins":
            return True
    return module.rpartition(".")[2] in SYMMETRIC and ".applications." in f".{module}"


def _normalization(call: Call, tensors: Mapping[str, Tensor]) -> Affine | None:
    c = call.config
    mean, variance = c.get("mean"), c.get("variance")
    if mean is None or variance is None:
        mean, variance = tensors.get(f"{call.name}/mean"), tensors.get(f"{call.name}/variance")
    mean, variance = _numbers(mean), _numbers(variance)
    if mean is None or variance is None:
        return None
    std = variance.sqrt().clamp_min(EPSILON)
    return Affine(std, mean) if c.get("invert") else Affine(1 / std, -mean / std)


def _both(scale: Any, offset: Any) -> Affine | None:
    a, b = _numbers(scale), _numbers(offset)
    return None if a is None or b is None else Affine(a, b)


def _numbers(value: Any) -> Tensor | None:
    """One number, or one for each channel: a vector in double precision."""
    if isinstance(value, Mapping):  # an array or a tensor as Keras 3 writes it
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else value.get("value")
    if value is None or isinstance(value, bool | str):
        return None
    try:
        found = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    # One number for each channel: the other axes have length 1.
    return found.flatten() if found.numel() and found.numel() == (found.shape[-1] if found.dim() else 1) else None


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
