"""`create_model`: any network of the family, fresh or from a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import torch

from inceptionnet.errors import ConfigurationError
from inceptionnet.model.backbone import Indices
from inceptionnet.model.feature_net import FeatureNet
from inceptionnet.model.initialisation import initialise
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.arguments import Scale
from inceptionnet.nets.edits import Configuration, check_edits
from inceptionnet.nets.spec import Hidden
from inceptionnet.registry.names import no_published, resolve
from inceptionnet.weights import load_model
from inceptionnet.weights.download import downloaded
from inceptionnet.weights.known import Published

Value = TypeVar("Value")


class Arguments(TypedDict, total=False):
    """The arguments of `create_model` that are the same for a classifier and a backbone."""

    num_classes: int | None
    in_channels: int | None
    width: float | None
    input_size: int | None
    residual_scale: Scale | None
    dropout: float | None
    aux: bool | None
    weights: str | Path | None
    global_pool: str | None
    hidden: Sequence[Hidden] | None
    activation: str | None
    edits: Sequence[str] | None
    out_indices: Indices
    in_chans: int | None
    drop_rate: float | None
    device: str | torch.device | None
    dtype: torch.dtype | None


@overload
def create_model(
    name: str | None = None,
    pretrained: bool = False,
    *,
    features_only: Literal[False] = False,
    **arguments: Unpack[Arguments],
) -> InceptionNet: ...


@overload
def create_model(
    name: str | None = None, pretrained: bool = False, *, features_only: Literal[True], **arguments: Unpack[Arguments]
) -> FeatureNet: ...


def create_model(
    name: str | None = None,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width: float | None = None,
    input_size: int | None = None,
    residual_scale: Scale | None = None,
    dropout: float | None = None,
    aux: bool | None = None,
    weights: str | Path | None = None,
    global_pool: str | None = None,
    hidden: Sequence[Hidden] | None = None,
    activation: str | None = None,
    edits: Sequence[str] | None = None,
    features_only: bool = False,
    out_indices: Indices = None,
    in_chans: int | None = None,
    drop_rate: float | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> InceptionNet | FeatureNet:
    """A network of the family, randomly initialised as it was published, or with weights from a file.

    By default an argument is as published (1000 classes, 3 channels, width 1, no auxiliary heads), or, with `weights`
    or `pretrained`, as that file says.

    Args:
        name: one of `list_models()`, or what another library calls the network (`googlenet`, `inception_v4.tf_in1k`,
            `InceptionResNetV2`); not needed with `weights`.
        pretrained: load the published weights of that name, from the hub or from their publisher; `weights` of the
            command line lists them.
        num_classes: length of the logits; 0: no classifier, and the model gives its pooled features. Where `weights`
            has another number, the logits are randomly initialised and all else is loaded. Files of 1001 classes give
            1000, without the background, unless 1001 are asked for.
        in_channels: channels of an image. Where `weights` has another number, the first layer's kernels are summed for
            one channel, so that a grey image gives what three equal channels gave, and otherwise repeated and scaled.
        width: width multiplier: that many times as many filters everywhere, in multiples of 8.
        input_size: image size, px, that the network is meant for. 79 and 151 give the 299 px networks their stems for
            low resolution ([v3] section 9); others, from the smallest that works, keep the ordinary stem.
        residual_scale: factor on the residuals, one number or one for each stage; as published 0.17, 0.10, 0.20.
        dropout: share of the pooled features dropped in training.
        aux: with auxiliary heads, see `InceptionNet.all_logits`.
        weights: a weights file of this package (.safetensors), of TF-slim, Keras, torchvision, timm, Cadene,
            facenet-pytorch or of the FID graph, or an address on the hub (`hf:owner/name`). Network and variant are
            recognised from it; where it fits several, `name` chooses.
        global_pool: "avg", "max", "avgmax" (their mean), "catavgmax" (both), or "" with num_classes=0 for the unpooled
            grid.
        hidden: layers between pool and logits: `Linear`, `BatchNorm`, `Activation` and `Dropout` of
            `inceptionnet.nets.spec`.
        activation: "softmax", or "sigmoid" for labels that do not exclude each other, or a single logit.
        edits: the papers' ablations, by name and in order, of the network as published, such as `["conv5x5"]`: see
            `inceptionnet models --edits`. With `weights` all edits, in place of the file's.
        features_only: a backbone instead, see `FeatureNet`: a list of grids, one at each stride.
        out_indices: which of them; the last n, those of a sequence, or all.
        in_chans: timm's name for `in_channels`.
        drop_rate: timm's name for `dropout`.
        device: where the model is made.
        dtype: of its parameters and statistics.

    Raises:
        ConfigurationError: an unknown name, an argument that cannot be used, or no published weights of the network.
        WeightsError: the file holds no weights, they do not fit, or they cannot be downloaded.
        MissingExtraError: the file needs an extra that is not installed: `weights` (Keras, TensorFlow) or `hub`.

    Example:
        >>> import torch
        >>> model = create_model("inception_v4", num_classes=5, width=0.25).eval()
        >>> model(torch.zeros(2, 3, 299, 299)).shape
        torch.Size([2, 5])
        >>> backbone = create_model("inception_v3", width=0.25, features_only=True, out_indices=(1, 2, 3))
        >>> backbone.feature_info.channels(), backbone.feature_info.reduction()
        ([48, 72, 192], [4, 8, 16])
    """
    asked = {
        "num_classes": 0 if features_only else num_classes,
        "in_channels": _same("in_channels", in_channels, "in_chans", in_chans),
        "width": width,
        "input_size": input_size,
        "residual_scale": residual_scale,
        "dropout": _same("dropout", dropout, "drop_rate", drop_rate),
        "aux": aux,
        "global_pool": global_pool,
        "hidden": None if hidden is None else tuple(hidden),
        "activation": activation,
        "edits": edits if edits is None or isinstance(edits, str) else tuple(edits),
    }
    given = {argument: value for argument, value in asked.items() if value is not None}
    if out_indices is not None and not features_only:
        raise ConfigurationError(
            f"out_indices is {out_indices!r}, which needs features_only=True; set it, or leave it out"
        )
    with nullcontext() if device is None else torch.device(device):
        model = _made(name, pretrained, weights, given)
    model.to(device=device, dtype=dtype)
    return FeatureNet(model, out_indices) if features_only else model


def _made(name: str | None, pretrained: bool, weights: str | Path | None, given: dict[str, Any]) -> InceptionNet:
    if weights is not None:
        if pretrained:
            raise ConfigurationError("got both pretrained=True and weights; leave one of them out")
        return load_model(weights, name=None if name is None else resolve(name).network, **given)
    if name is None:
        raise ConfigurationError("create_model needs a name, or weights=FILE; list_models() gives the names")
    named = resolve(name)
    if not pretrained:
        configuration = Configuration(named.network, **given)
        check_edits(configuration)
        model = InceptionNet(configuration)
        initialise(model, model.network)
        return model
    published = named.published
    if published is None or not published.downloadable:
        raise no_published(name, named.network)
    source = published.source if published.on_hub else downloaded(published)
    model = load_model(source, name=named.network, **given)
    model.origin = _origin(published)
    return model


def _origin(published: Published) -> dict[str, Any]:
    """Where weights come from, under the names of timm's `pretrained_cfg`."""
    where = {"hf_hub_id": published.source.removeprefix("hf:")} if published.on_hub else {"url": published.source}
    tag = published.name.partition(".")[2] or published.name
    return {"tag": tag, "license": published.license, **where}


def _same(ours: str, value: Value | None, theirs: str, other: Value | None) -> Value | None:
    """The value of an argument that has two names. Raises: ConfigurationError where they disagree."""
    if value is not None and other is not None and value != other:
        raise ConfigurationError(
            f"{ours} is {value!r} and {theirs} is {other!r}, which mean the same; give one of them"
        )
    return other if value is None else value
