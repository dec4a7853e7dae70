"""`create_model`: any network of the family, fresh or from a weights file."""

from __future__ import annotations

from pathlib import Path

from inceptionnet.build import initialise
from inceptionnet.edits import Configuration, Scale
from inceptionnet.errors import ConfigurationError
from inceptionnet.model import InceptionNet
from inceptionnet.weights import load_model


def create_model(
    name: str | None = None,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    width: float | None = None,
    input_size: int | None = None,
    residual_scale: Scale | None = None,
    dropout: float | None = None,
    aux: bool | None = None,
    weights: str | Path | None = None,
) -> InceptionNet:
    """A network of the family, freshly initialised as it was published, or with weights from a file.

    An argument left out is as published (1000 classes, 3 channels, width 1, no auxiliary heads), or, with `weights`,
    as that file says.

    Args:
        name: one of `list_models()`; may be left out with `weights`.
        num_classes: length of the logits; 0 leaves the classifier out, and the model gives its pooled features. Other
            than in `weights`: the logits start anew, all else is loaded. Files of 1001 classes give 1000, without the
            background, unless 1001 are asked for.
        in_channels: channels of an image. Other than in `weights`: the first layer's kernels are summed for one
            channel, which gives a grey image what equal channels gave, and else repeated and scaled.
        width: factor on every number of filters; they stay multiples of 8.
        input_size: height and width in pixels the network is meant for. 79 and 151 give the 299 px networks their
            stems for low resolution ([v3] section 8); others, from the smallest that works, keep the ordinary stem.
        residual_scale: factor on the residuals, one number or one for each stage; as published 0.17, 0.10, 0.20.
        dropout: share of the pooled features dropped in training.
        aux: with auxiliary heads, see `InceptionNet.all_logits`.
        weights: a weights file of this package (.safetensors), of TF-slim, Keras, torchvision, timm, Cadene,
            facenet-pytorch or of the FID graph, or an address on the hub (`hf:owner/name`). Network and variant are
            recognised from it; where it fits several, `name` chooses.

    Raises:
        ConfigurationError: an unknown name, or an argument that cannot be used.
        WeightsError: the file holds no weights, or they do not fit.
        MissingExtraError: the file needs an extra that is not installed: `weights` (Keras, TensorFlow) or `hub`.

    Example:
        >>> import torch
        >>> model = create_model("inception_v4", num_classes=5, width=0.25).eval()
        >>> model(torch.zeros(2, 3, 299, 299)).shape
        torch.Size([2, 5])
    """
    asked = {
        "num_classes": num_classes,
        "in_channels": in_channels,
        "width": width,
        "input_size": input_size,
        "residual_scale": residual_scale,
        "dropout": dropout,
        "aux": aux,
    }
    given = {argument: value for argument, value in asked.items() if value is not None}
    if weights is not None:
        return load_model(weights, name=name, **given)
    if name is None:
        raise ConfigurationError("create_model needs a name, or weights=FILE; list_models() gives the names")
    model = InceptionNet(Configuration(name, **given))  # type: ignore[arg-type]
    initialise(model, model.network)
    return model
