"""Heat maps: how much each place of an image speaks for a class, computed by captum.

All three methods explain the class's logit, and keep what raises it:

- gradcam (Selvaraju et al., ICCV 2017): a layer's activations, each channel weighted by the mean gradient on it. One
  pass forward and back; as coarse as the layer's grid.
- integrated-gradients (Sundararajan et al., ICML 2017): gradients along the straight way from a plain image to this
  one, times their difference; summed over the channels. 50 passes forward and back. Neighbouring pixels often cancel
  out (strided convolutions leave a pattern of both signs), so their mean over small squares is what is kept.
- occlusion (Zeiler and Fergus, ECCV 2014): by how much the logit falls where a square is covered. Some 120 passes.

What an image is compared with is 0 as the network takes it: mid-grey for inputs in [-1, 1], else the mean that the
preprocessing subtracts. What has just that colour counts for nothing in integrated gradients, as black does with the
black image that their paper starts from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inceptionnet.analysis import GridTooSmall, Row, analyse, endpoints, minimum_size
from inceptionnet.errors import ConfigurationError, InputError, missing_extra, nearest
from inceptionnet.model import InceptionNet, check_images
from inceptionnet.spec import Network

METHODS = ("gradcam", "integrated-gradients", "occlusion")

AT_ONCE = 16  # inputs in one pass, whatever the method: some GB at 299 px
STEPS = 50  # of integrated gradients
WINDOW = 1 / 6  # of the side: the square that occlusion covers with; its stride is half of that
MEAN = 1 / 25  # of the side, to an odd number of px: the squares that integrated gradients are averaged over


def attribute(
    model: InceptionNet, x: Tensor, targets: Tensor, method: str = "gradcam", *, layer: str | None = None
) -> Tensor:
    """Heat maps of images for one class each; the network is left as it was found.

    Args:
        x: images as the network takes them.
        targets: the number of the class to explain, for each image.
        layer: the endpoint for gradcam; left out, `default_layer` for images of this size.

    Shapes: x (N, C, H, W), targets (N,) → float32 (N, H, W) on the CPU, each map in [0, 1] by its own maximum; a map
    is 0 everywhere if nothing speaks for the class.

    Raises:
        ConfigurationError: an unknown method or layer, or a network without classes.
        InputError: images that the network cannot take, or targets that are not its classes.
        MissingExtraError: captum is not installed.
    """
    _check(model, x, targets)
    if not len(x):
        return torch.zeros(0, *x.shape[2:])
    name = chosen_layer(model.network, method, layer, min(x.shape[2:]))
    with _at_rest(model):
        x, targets = (tensor.detach().clone().to(model.device) for tensor in (x, targets))
        batches = zip(torch.split(x, AT_ONCE), torch.split(targets.long(), AT_ONCE), strict=True)
        found = [signed(model, some, of, method, name).detach().float().sum(1, keepdim=True) for some, of in batches]
        maps = torch.cat(found).cpu()
        if method == "integrated-gradients":
            around = max(1, round(min(x.shape[2:]) * MEAN / 2))
            maps = F.avg_pool2d(maps, 2 * around + 1, 1, around, count_include_pad=False)
        maps = maps.clamp(min=0)[:, 0]
        most = maps.amax((1, 2), keepdim=True)
        return maps / torch.where(most > 0, most, 1)


def signed(model: InceptionNet, x: Tensor, targets: Tensor, method: str, layer: str | None) -> Tensor:
    """What the method itself gives, for and against; (N, 1, H, W) for gradcam, whose paper drops what is against."""
    captum = captum_attr()
    at_once = max(1, AT_ONCE // len(x))
    found: Tensor
    if method == "gradcam":
        cam = captum.LayerGradCam(model, model.body.get_submodule(str(layer)))
        coarse = cam.attribute(x, target=targets, relu_attributions=True)
        found = captum.LayerAttribution.interpolate(coarse, x.shape[2:], "bilinear")
    elif method == "integrated-gradients":
        found = captum.IntegratedGradients(model).attribute(
            x, target=targets, n_steps=STEPS, internal_batch_size=at_once * len(x)
        )
    else:
        side = max(1, round(min(x.shape[2:]) * WINDOW))
        step = max(1, side // 2)
        found = captum.Occlusion(model).attribute(
            x,
            target=targets,
            sliding_window_shapes=(x.shape[1], side, side),
            strides=(x.shape[1], step, step),
            perturbations_per_eval=at_once,
        )
    return found


def default_layer(network: Network, size_px: int) -> str:
    """The endpoint for gradcam: the last of the body, as is usual.

    On a small image its grid may be 1×1 or 2×2, which tells no place from another. Then it is the last endpoint with
    a grid of 4×4 or more; failing that, the last with more than 1×1.

    Raises:
        InputError: an image smaller than the network takes.
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
    """The endpoint that the method works on, or None if it needs none.

    Raises:
        ConfigurationError: an unknown method or layer, or a layer for a method that needs none.
        InputError: as `default_layer`.
    """
    if method not in METHODS:
        raise ConfigurationError(f"unknown method {method!r}: {nearest(method, METHODS)}")
    if method != "gradcam":
        if layer is not None:
            raise ConfigurationError(f"a layer ({layer}) is for gradcam, {method} needs none; leave it out")
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
    try:
        from captum import attr  # type: ignore[import-untyped]
    except ImportError:
        raise missing_extra("captum", "explain", "explaining predictions") from None
    return attr


def _body(network: Network, size_px: int) -> list[Row]:
    """The endpoints of the body for images of that size."""
    rows = endpoints(analyse(replace(network, aux={}), (size_px, size_px)))
    return [row for row in rows if row.path.startswith("body.")]


def _check(model: InceptionNet, x: Tensor, targets: Tensor) -> None:
    classes = model.num_classes
    if not classes:
        raise ConfigurationError("expected a network with classes to explain, got one without; build it with some")
    check_images(x, model.network, model.minimum_size)  # before any method makes something else of it
    if targets.shape != x.shape[:1] or targets.is_floating_point():
        raise InputError(
            f"expected targets of shape ({len(x)},) in whole numbers, got {tuple(targets.shape)} in {targets.dtype}"
        )
    if len(x) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise InputError(f"expected targets from 0 to {classes - 1}, got {targets.tolist()}")


@contextmanager
def _at_rest(model: InceptionNet) -> Iterator[None]:
    """Evaluation mode and gradients for inputs alone, even within inference mode; then all is as it was."""
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
