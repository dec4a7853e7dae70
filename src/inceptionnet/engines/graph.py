"""What an exported file has: the network, normalisation before it, a second output beside the logits, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import inceptionnet
from inceptionnet.data.augment import as_input
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.agreement import Images
from inceptionnet.engines.int8 import weight_bits
from inceptionnet.engines.kinds import Graph, input_of
from inceptionnet.engines.sessions import EMBEDDING, OUTPUT
from inceptionnet.weights import WeightsFile


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


def graph_of(
    module: nn.Module,
    read: WeightsFile,
    calibrated_on: Images | None,
    *,
    raw: bool,
    batch_size: int | None,
    embedding: int | None,
) -> Graph:
    """The graph to write; `raw`: including normalisation; `embedding`: length of the second output, if there is one."""
    prep, calibration = read.record.preprocessing, None
    about = _about(read, input_of(raw=raw, batch=batch_size), embedding, calibrated_on)
    if embedding:
        module = WithEmbedding(module).eval()
    if raw:
        module = FromPixels(module, prep).eval()
        example = torch.zeros(batch_size or 2, prep.size_px, prep.size_px, prep.channels, dtype=torch.uint8)
    else:
        example = torch.zeros(batch_size or 2, prep.channels, prep.size_px, prep.size_px)
    if calibrated_on:
        pixels = calibrated_on.pixels
        calibration = torch.from_numpy(np.stack(pixels)) if raw else as_input(pixels, prep)
    outputs = (OUTPUT, EMBEDDING) if embedding else (OUTPUT,)
    return Graph(module, example, batch_size is None, about, calibration, outputs)


def _about(
    read: WeightsFile, takes: Mapping[str, Any], embedding: int | None, calibrated_on: Images | None
) -> dict[str, str]:
    """The metadata that kinds.py documents."""
    record = read.record
    about = {
        "network": record.configuration.name,
        "configuration": asdict(replace(record.configuration, aux=False)),
        "classes": record.classes,
        "activation": record.configuration.activation,
        "preprocessing": record.preprocessing.to_dict(),
        "input": takes,
        "output": "logits" if record.classes else "features",
        **({"embedding": embedding} if embedding else {}),
        "precision": "int8" if calibrated_on else "fp32",
        "provenance": dict(record.provenance),
        "source": read.report.source,
        "version": inceptionnet.__version__,
    }
    if calibrated_on:
        about["quantisation"] = {"images": len(calibrated_on.pixels), "weight_bits": weight_bits()}
    return {key: json.dumps(value) for key, value in about.items()}
