"""The one class of model for all networks: logits always one tensor, features by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import InputError
from inceptionnet.model.backbone import Backbone, classes_of
from inceptionnet.model.build import build
from inceptionnet.model.initialisation import initialise
from inceptionnet.model.outputs import Outputs
from inceptionnet.model.recompute import recomputed
from inceptionnet.nets.analysis import minimum_size
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Network


class InceptionNet(Backbone):
    """Any network of the family, as ordinary modules: `body` (named endpoints), `head` (pool, dropout, logits), `aux`.

    Shapes: images are float (N, in_channels, H, W) in [-1, 1]; H and W may differ and may be any size from
    `minimum_size` px up, whatever the network was built for.
    """

    if TYPE_CHECKING:  # torch.jit.script takes such a type neither here nor in __init__
        origin: dict[str, Any]

    __jit_unused_properties__: ClassVar[tuple[str, ...]] = (
        "num_classes", "outputs", "device", "in_chans", "num_features", "head_hidden_size", "feature_info",
        "pretrained_cfg", "default_cfg",
    )  # fmt: skip

    def __init__(self, configuration: Configuration) -> None:
        super().__init__()
        self.network: Network = configure(configuration)
        self.configuration: Configuration = replace(
            configuration, num_classes=classes_of(self.network), input_size=self.network.input_size
        )
        self.preprocessing: Preprocessing = Preprocessing(
            size_px=self.network.input_size, channels=self.network.in_channels
        )
        self.origin = {}
        self.grad_checkpointing = False
        self.body: nn.Module
        self.head: nn.Module
        self.aux: nn.ModuleDict
        self.body, self.head, self.aux = build(self.network)
        self._measure()

    @property
    def num_classes(self) -> int:
        """Length of the logits; 0 without a classifier."""
        return classes_of(self.network)

    @property
    def outputs(self) -> Outputs:
        """What the logits mean."""
        return Outputs(self.network.activation, self.num_classes)

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
        if is_scripting():  # noqa: SIM108  TorchScript compiles only the branch that it takes
            x = self.body(x)
        else:
            x = self.forward_features(x)
        logits: Tensor = self.head(x)
        return logits

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every endpoint of the body, by name, in order.

        Shapes: (N, in_channels, H, W) → {name: (N, C, H', W')}.

        Raises:
            InputError: as `forward`.
        """
        self._check(x)
        outputs = {}
        for name, module in self.body.named_children():
            x = outputs[name] = self._endpoint(module, x)
        return outputs

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features, what the logits are computed from but without dropout; the face network's embedding.

        Shapes: (N, in_channels, H, W) → (N, C).

        Raises:
            InputError: as `forward`.
        """
        x = self.forward_features(x)
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
        self._check(x)
        if min(x.shape[2:]) < self.minimum_size_aux:
            raise InputError(
                f"the auxiliary heads as built take images of {self.minimum_size_aux} px or more on each side, got "
                f"{x.shape[2]}×{x.shape[3]}; give create_model the input_size that you train at"
            )
        outputs = {}
        for name, module in self.body.named_children():
            x = self._endpoint(module, x)
            if name in self.aux:
                outputs[name] = self.aux[name](x)
        return {"logits": self.head(x), **outputs}

    def reset_head(self, num_classes: int, activation: str | None = None) -> None:
        """New, randomly initialised logits for `num_classes` classes, in the auxiliary heads too; all else stays.

        0 takes the classifier away, auxiliary heads and all, and any other number brings one back.

        Args:
            activation: "softmax" or "sigmoid". Default: as it is.

        Raises:
            ConfigurationError: `num_classes` is not a whole number of at least 0, or an unknown activation.
        """
        if activation is not None:
            self.set_activation(activation)
        self.reset_classifier(num_classes)

    def set_activation(self, activation: str) -> None:
        """State what the logits mean, "softmax" or "sigmoid"; the weights stay as they are.

        Raises:
            ConfigurationError: an unknown activation.
        """
        configuration = replace(self.configuration, activation=activation)
        self.network, self.configuration = configure(configuration), configuration

    def _endpoint(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing:
            return recomputed(module, x)
        y: Tensor = module(x)
        return y

    def _check(self, x: Tensor) -> None:
        check_images(x, self.network, self.minimum_size)

    def _become(self, configuration: Configuration) -> None:
        network = configure(configuration)
        like = next(self.parameters())
        body, head, aux = build(network)
        for name, module in self.body.named_children():
            if hasattr(body, name):
                body.register_module(name, module)
        body.training, aux.training = self.body.training, self.aux.training
        heads = [(head, self.head, network.head, self.network.head)]
        heads += [(aux[on], self.aux[on], network.aux[on], self.network.aux[on]) for on in aux]
        for new, old, parts, held in heads:
            new.to(like.dtype).train(self.training)
            for name, module in old.named_children():
                if name != "logits" and parts.get(name) == held[name]:
                    new.register_module(name, module)
        self.body = body
        self.head = head
        self.aux = aux
        with like.device:
            initialise(self, network)
        self.configuration, self.network = configuration, network
        self._measure()

    def _measure(self) -> None:
        """The smallest images that body and head, and the auxiliary heads, can take."""
        self.minimum_size: int = minimum_size(replace(self.network, aux={}))
        self.minimum_size_aux: int = minimum_size(self.network) if self.aux else self.minimum_size


# torch.fx copies the annotations into its code, where TorchScript does not know those that are text.
InceptionNet.forward.__annotations__ = get_type_hints(InceptionNet.forward)


def check_images(x: Tensor, network: Network, minimum_size: int) -> None:
    """Raises: InputError for what is no batch of images (N, in_channels, H, W), or one below `minimum_size`.

    torch.fx and torch.jit.trace record operations on a stand-in whose shape is not known; there is nothing to check.
    """
    if isinstance(x, Proxy) or is_tracing():  # type: ignore[no-untyped-call]
        return
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
