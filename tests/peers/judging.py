"""What every comparison asks of a file: that it is recognised, and that its network gives the peer's numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from inceptionnet.model.network import InceptionNet
from inceptionnet.weights import read_weights

from ..test_reference import CLEARLY_DIFFERENT, images, randomise, relative_difference

__all__ = ["SMALL_PX", "agree", "outputs_of", "images", "random_images", "randomise", "recognised"]

TOLERANCE = 1e-4  # float32, through some 240 convolutions
DIFFERENCES: list[float] = []
"""The relative differences of the comparisons of the test that runs, for the summary at the end of all."""
SMALL_PX = (107, 118)  # height, width: odd and even, and unlike each other


def random_images(height: int, width: int) -> Tensor:
    """Two of them: float32 (2, 3, height, width) in [-1, 1]."""
    return images(height, width, torch.float32)


def recognised(path: Path, network: str, *, classes: int = 1000, channels: int = 3) -> InceptionNet:
    """The model of a file of which only the path is told, in evaluation, once it is found to be that network."""
    read = read_weights(path)
    record, model = read.record, read.model().eval()
    assert record.configuration.name == model.configuration.name == network
    assert len(record.classes) == model.num_classes == classes
    assert record.preprocessing.channels == model.configuration.in_channels == channels
    return model


def agree(got: Tensor, expected: Tensor) -> None:
    """The peer's numbers, and they say something: they are finite and differ from image to image."""
    assert torch.isfinite(expected).all()
    assert relative_difference(expected[:1], expected[1:]) > CLEARLY_DIFFERENT, "the images look alike to the peer"
    assert got.shape == expected.shape
    difference = relative_difference(got, expected)
    DIFFERENCES.append(difference)
    assert difference <= TOLERANCE, f"relative difference {difference:.1e}"


def outputs_of(model: nn.Module, names: tuple[str, ...], x: Tensor) -> tuple[Tensor, ...]:
    """What the model returns for `x`, then the outputs of its submodules of those names."""
    kept: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: kept.update({name: output.clone()})
        )
        for name in names
    ]
    try:
        result = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return result, *(kept[name] for name in names)
