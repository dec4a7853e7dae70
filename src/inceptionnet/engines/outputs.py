"""What a network is wrapped in for an exported file: normalisation before it, a second output beside the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.data.preprocess import Preprocessing


class WithEmbedding(nn.Module):
    """A network with a classifier that gives the pooled features before it as well.

    Args:
        network: in evaluation mode, with `body` and `head`, whose last part is `logits`.

    Shapes: float (N, C, H, W) → logits (N, classes), embedding (N, C).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the network's `forward` and `embed`, of which the logits are computed."""
        head = self.network.get_submodule("head")
        x = self.network.get_submodule("body")(x)
        for name, module in head.named_children():
            if name != "logits":
                x = module(x)
        return head.get_submodule("logits")(x), x


class FromPixels(nn.Module):
    """A network preceded by the normalisation of its input.

    Shapes: uint8 (N, H, W, C) → as the network's output.
    """

    def __init__(self, network: nn.Module, prep: Preprocessing) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prep.mean, prep.std))
        # OpenVINO keeps a product and a sum when it compiles; it rewrites a difference and a quotient.
        self.scale: nn.Buffer = nn.Buffer(1 / (255 * std))
        self.shift: nn.Buffer = nn.Buffer(-mean / std)

    def forward(self, pixels: Tensor) -> Any:
        """Normalise as `data.augment.normalise`, then run the network."""
        return self.network(pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift)
