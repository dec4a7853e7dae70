"""Attribution: saliency maps with the evidence for a class, computed by captum.

All three methods explain the logit of the class and keep the positive part; if one logit tells two classes apart, the
first has the negative logit:

- gradcam (Selvaraju et al., ICCV 2017): the activations of a layer, weighted per channel by the mean gradient. One
  forward and backward pass; the resolution is that of the layer.
- integrated-gradients (Sundararajan et al., ICML 2017): gradients integrated from a baseline to the image, times their
  difference, summed over the channels. 50 forward and backward passes. Neighbouring pixels often cancel (strided
  convolutions leave a checkerboard of both signs), so the result is averaged over small squares.
- occlusion (Zeiler and Fergus, ECCV 2014): the drop of the logit when a square is covered. About 120 forward passes.

The baseline is 0 in the network's input: mid-grey for inputs in [-1, 1], otherwise the mean of the preprocessing.
Pixels of that colour get no attribution by integrated gradients, as black ones with the paper's black baseline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.errors import ConfigurationError, InputError, nearest
from inceptionnet.model.network import InceptionNet, check_images
from inceptionnet.nets.analysis import GridTooSmall, Row, analyse, endpoints, minimum_size
from inceptionnet.nets.spec import Network
from inceptionnet.system.extras import import_extra

METHODS = ("gradcam", "integrated-gradients", "occlusion")

AT_ONCE = 16  # batch size for every method: a few GB at 299 px
STEPS = 50  # of integrated gradients
WINDOW = 1 / 6  # of the side: the square that occlusion covers, with a stride of half of it
MEAN = 1 / 25  # of the side, rounded to an odd number of px: averaging window of integrated gradients


def attribute(
    model: InceptionNet, x: Tensor, targets: Tensor, method: str = "gradcam", *, layer: str | None = None
) -> Tensor:
    """Saliency maps of images, for one class each; the network is not modified.

    Args:
        x: network input.
        targets: the class number to explain, for each image.
        layer: the endpoint for gradcam; default: `default_layer` for this image size.

    Shapes: x (N, C, H, W), targets (N,) → float32 (N, H, W) on the CPU, each map scaled to a maximum of 1; a map is 0
    everywhere if there is no evidence for the class.

    Raises:
        ConfigurationError: an unknown method or layer, or a network without classes.
        InputError: images that the network cannot process, or targets that are not class numbers.
        MissingExtraError: captum is not installed.
    """
    _check(model, x, targets)
    if not len(x):
        return torch.zeros(0, *x.shape[2:])
    name = chosen_layer(model.network, method, layer, min(x.shape[2:]))
    with _evaluating(model):
        x, targets = (tensor.detach().clone().to(model.device) for tensor in (x, targets))
        batches = zip(torch.split(x, AT_ONCE), torch.split(targets.long(), AT_ONCE), strict=True)
        found = [
            raw_attribution(model, some, of, method, name).detach().float().sum(1, keepdim=True) for some, of in batches
        ]
        maps = torch.cat(found).cpu()
        if method == "integrated-gradients":
            around = max(1, round(min(x.shape[2:]) * MEAN / 2))
            maps = F.avg_pool2d(maps, 2 * around + 1, 1, around, count_include_pad=False)
        maps = maps.clamp(min=0)[:, 0]
        most = maps.amax((1, 2), keepdim=True)
        return maps / torch.where(most > 0, most, 1)


def raw_attribution(model: InceptionNet, x: Tensor, targets: Tensor, method: str, layer: str | None) -> Tensor:
    """The attribution, positive and negative; for gradcam (N, 1, H, W), without negative values as in the paper."""
    captum = captum_attr()

    def forward(images: Tensor) -> Tensor:
        return model.outputs.evidence(model(images))

    at_once = max(1, AT_ONCE // len(x))
    found: Tensor
    if method == "gradcam":
        cam = captum.LayerGradCam(forward, model.body.get_submodule(str(layer)))
        coarse = cam.attribute(x, target=targets, relu_attributions=True)
        found = captum.LayerAttribution.interpolate(coarse, x.shape[2:], "bilinear")
    elif method == "integrated-gradients":
        found = captum.IntegratedGradients(forward).attribute(
            x, target=targets, n_steps=STEPS, internal_batch_size=at_once * len(x)
        )
    else:
        side = max(1, round(min(x.shape[2:]) * WINDOW))
        step = max(1, side // 2)
        found = captum.Occlusion(forward).attribute(
            x,
            target=targets,
            sliding_window_shapes=(x.shape[1], side, side),
            strides=(x.shape[1], step, step),
            perturbations_per_eval=at_once,
        )
    return found


def default_layer(network: Network, size_px: int) -> str:
    """The default endpoint for gradcam: the last one of the body, as is usual.

    For small images, where its grid is 1×1 or 2×2, it is the last endpoint with a grid of at least 4×4, otherwise the
    last with more than 1×1.

    Raises:
        InputError: an image below the network's minimum size.
    """
    try:
        rows = _body(network, size_px)
    except GridTooSmall:
        least = minimum_size(replace(network, aux={}))
        raise InputError(f"{network.name} takes images of {least} px or more on each side, got {size_px}") from None
    for least, behind in ((3, rows[-1:]), (4, rows), (2, rows)):
        for row in reversed(behind):
            if min(row.output[1:]) >= least:
                return row.name
    return rows[-1].name


def chosen_layer(network: Network, method: str, layer: str | None, size_px: int) -> str | None:
    """The endpoint that the method uses, or None if it uses none.

    Raises:
        ConfigurationError: an unknown method or layer, or a layer for a method without one.
        InputError: as `default_layer`.
    """
    if method not in METHODS:
        raise ConfigurationError(f"unknown method {method!r}: {nearest(method, METHODS)}")
    if method != "gradcam":
        if layer is not None:
            raise ConfigurationError(
                f"layer {layer}: expected method gradcam, got {method}, which has no layer; omit it"
            )
        return None
    if layer is None:
        return default_layer(network, size_px)
    if layer not in network.body:
        raise ConfigurationError(
            f"{network.name} has no endpoint {layer!r} in its body: {nearest(layer, network.body)}"
        )
    return layer


def captum_attr() -> Any:
    """The module `captum.attr`. Raises: MissingExtraError."""
    return import_extra("captum.attr", "explain", "explaining predictions")


def _body(network: Network, size_px: int) -> list[Row]:
    """The endpoints of the body for images of that size."""
    rows = endpoints(analyse(replace(network, aux={}), (size_px, size_px)))
    return [row for row in rows if row.path.startswith("body.")]


def _check(model: InceptionNet, x: Tensor, targets: Tensor) -> None:
    classes = model.outputs.classes
    if not classes:
        raise ConfigurationError("expected a network with a classifier, got one without; set num_classes")
    check_images(x, model.network, model.minimum_size)  # before any method modifies it
    if targets.shape != x.shape[:1] or targets.is_floating_point():
        raise InputError(
            f"expected targets of shape ({len(x)},) in whole numbers, got {tuple(targets.shape)} in {targets.dtype}"
        )
    if len(x) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise InputError(f"expected targets from 0 to {classes - 1}, got {int(targets.min())} to {int(targets.max())}")


@contextmanager
def _evaluating(model: InceptionNet) -> Iterator[None]:
    """Evaluation mode with gradients for inputs only, even within inference mode; restores everything at the end."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            model.eval().requires_grad_(False)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for parameter, wanted in flags:
                parameter.requires_grad_(wanted)
