"""The one class of model for all networks: logits always one tensor, features by name."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from inceptionnet.analysis import minimum_size
from inceptionnet.build import build, initialise
from inceptionnet.edits import Configuration, configure
from inceptionnet.errors import InputError
from inceptionnet.spec import Linear, Network


class InceptionNet(nn.Module):
    """Any network of the family, as ordinary modules: `body` (named endpoints), `head` (pool, dropout, logits), `aux`.

    Shapes: images are float (N, in_channels, H, W) in [-1, 1]; H and W may differ and may be any size from
    `minimum_size` px up, whatever the network was built for.
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self.network = configure(configuration)
        self.configuration = replace(
            configuration, num_classes=_classes(self.network), input_size=self.network.input_size
        )
        self.body, self.head, self.aux = build(self.network)
        self.minimum_size = minimum_size(replace(self.network, aux={}))
        self.minimum_size_aux = minimum_size(self.network) if self.aux else self.minimum_size

    @property
    def num_classes(self) -> int:
        """Length of the logits; 0 without a classifier."""
        return _classes(self.network)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, x: Tensor) -> Tensor:
        """Logits, in training and evaluation alike; pooled features where there is no classifier (0 classes).

        Shapes: (N, in_channels, H, W) → (N, num_classes), or (N, C) as `embed`.

        Raises:
            InputError: not such a batch of images, or smaller than `minimum_size`.
        """
        check_images(x, self.network, self.minimum_size)
        logits: Tensor = self.head(self.body(x))
        return logits

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every endpoint of the body, by name, in order.

        Shapes: (N, in_channels, H, W) → {name: (N, C, H', W')}.

        Raises:
            InputError: as `forward`.
        """
        check_images(x, self.network, self.minimum_size)
        outputs = {}
        for name, module in self.body.named_children():
            x = outputs[name] = module(x)
        return outputs

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features, what the logits are computed from but without dropout; the face network's embedding.

        Shapes: (N, in_channels, H, W) → (N, C).

        Raises:
            InputError: as `forward`.
        """
        check_images(x, self.network, self.minimum_size)
        x = self.body(x)
        for name, module in self.head.named_children():
            if name not in ("dropout", "logits"):
                x = module(x)
        return x

    def all_logits(self, x: Tensor) -> dict[str, Tensor]:
        """Main and auxiliary logits in one pass, for training: `logits`, then each endpoint that has a head.

        Shapes: (N, in_channels, H, W) → {"logits": (N, num_classes), endpoint: (N, num_classes)}.

        Raises:
            InputError: as `forward`, or a size that the auxiliary heads cannot take.
        """
        check_images(x, self.network, self.minimum_size)
        if min(x.shape[2:]) < self.minimum_size_aux:
            raise InputError(
                f"the auxiliary heads as built take images of {self.minimum_size_aux} px or more on each side, got "
                f"{x.shape[2]}×{x.shape[3]}; give create_model the input_size that you train at"
            )
        outputs = {}
        for name, module in self.body.named_children():
            x = module(x)
            if name in self.aux:
                outputs[name] = self.aux[name](x)
        return {"logits": self.head(x), **outputs}

    def reset_head(self, num_classes: int) -> None:
        """New, freshly initialised logits for `num_classes` classes, in the auxiliary heads too; all else stays.

        0 takes the classifier away, auxiliary heads and all, and any other number brings one back.

        Raises:
            ConfigurationError: `num_classes` is not a whole number of at least 0.
        """
        configuration = replace(self.configuration, num_classes=num_classes, aux=bool(self.aux) and num_classes > 0)
        network = configure(configuration)
        like = next(self.parameters())
        _, head, aux = build(network)
        for new, old in ((head, self.head), *((aux[on], self.aux[on]) for on in aux)):
            new.to(like.dtype).train(self.training)
            for name, module in old.named_children():
                if name != "logits" and hasattr(new, name):
                    new.register_module(name, module)
        self.head, self.aux = head, aux
        if not aux:
            self.minimum_size_aux = self.minimum_size
        with like.device:
            initialise(self, network)
        self.configuration, self.network = configuration, network


def check_images(x: Tensor, network: Network, minimum_size: int) -> None:
    """Raises: InputError for what is no batch of images (N, in_channels, H, W), or one below `minimum_size`."""
    channels = network.in_channels
    if x.dim() != 4 or x.shape[1] != channels:
        raise InputError(f"expected images of shape (N, {channels}, H, W), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"expected images as float in [-1, 1], got {x.dtype}; convert with x.float() / 127.5 - 1")
    if x.shape[2] < minimum_size or x.shape[3] < minimum_size:
        raise InputError(
            f"{network.name} as built takes images of {minimum_size} px or more on each side, "
            f"got {x.shape[2]}×{x.shape[3]}; enlarge them"
        )


def _classes(network: Network) -> int:
    logits = network.head.get("logits")
    return logits.filters if isinstance(logits, Linear) else 0
