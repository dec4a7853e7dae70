"""Judge: timm 1.0.31, `create_model` for its three Inception networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from inceptionnet import create_model

from .conftest import Peer
from .judging import SMALL_PX, agree, random_images, randomise, recognised


@dataclass(frozen=True)
class Case:
    peer: str
    network: str
    file: str
    classes: int = 1000
    channels: int = 3
    size_px: tuple[int, int] = SMALL_PX

    def __str__(self) -> str:
        return f"{self.peer}, {self.classes} classes, {self.channels} channels, {self.file}"

    def random(self, peer: Peer) -> nn.Module:
        create = peer("timm").create_model
        model = create(self.peer, pretrained=False, num_classes=self.classes, in_chans=self.channels).eval()
        randomise(model, seed=4)
        return model

    def save(self, model: nn.Module, folder: Path) -> Path:
        path = folder / self.file
        save_file(model.state_dict(), path) if path.suffix == ".safetensors" else torch.save(model.state_dict(), path)
        return path


CASES = (
    Case("inception_v3", "inception_v3.torchvision", "model.safetensors"),
    Case("inception_v3", "inception_v3.torchvision", "model.pth", classes=7),
    Case("inception_v4", "inception_v4.slim", "model.safetensors", classes=7, channels=1),
    Case("inception_v4", "inception_v4.slim", "model.pth", size_px=(299, 299)),
    Case("inception_resnet_v2", "inception_resnet_v2.slim", "model.safetensors"),
    Case("inception_resnet_v2", "inception_resnet_v2.slim", "model.pth", classes=7),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logits(peer: Peer, folder: Path, case: Case) -> None:
    theirs = case.random(peer)
    ours = recognised(case.save(theirs, folder), case.network, classes=case.classes, channels=case.channels)
    x = random_images(*case.size_px)[:, : case.channels]
    agree(ours(x), theirs(x))


@pytest.mark.parametrize(
    "case",
    [
        Case("inception_v3", "inception_v3.torchvision", "model.safetensors", classes=1001),
        Case("inception_v4", "inception_v4.slim", "model.pth", classes=1001),
        Case("inception_resnet_v2", "inception_resnet_v2.slim", "model.safetensors", classes=1001),
    ],
    ids=str,
)
def test_background_class_is_dropped(peer: Peer, folder: Path, case: Case) -> None:
    theirs = case.random(peer)
    ours = recognised(case.save(theirs, folder), case.network, classes=1000)
    x = random_images(*case.size_px)
    agree(ours(x), theirs(x)[:, 1:])


@pytest.mark.parametrize(
    "case",
    [
        Case("inception_v3", "inception_v3.torchvision", "model.pth", classes=0),
        Case("inception_v4", "inception_v4.slim", "model.safetensors", classes=0),
        Case("inception_resnet_v2", "inception_resnet_v2.slim", "model.pth", classes=0),
    ],
    ids=str,
)
def test_without_classifier_the_output_is_the_pooled_features(peer: Peer, folder: Path, case: Case) -> None:
    theirs = case.random(peer)
    ours = recognised(case.save(theirs, folder), case.network, classes=0)
    x = random_images(*case.size_px)
    agree(ours(x), theirs(x))
    agree(ours.embed(x), theirs(x))


def test_auxiliary_head(peer: Peer, folder: Path) -> None:
    theirs = peer("timm").create_model("inception_v3", pretrained=False, aux_logits=True).eval()
    randomise(theirs, seed=5)
    torch.save(theirs.state_dict(), folder / "model.pth")
    x = random_images(299, 299)
    logits, aux = theirs(x)
    got = create_model("inception_v3.torchvision", weights=folder / "model.pth", aux=True).eval().all_logits(x)
    agree(got["logits"], logits)
    agree(got["mixed_6e"], aux)


def test_of_a_training_checkpoint_the_average_is_taken(peer: Peer, folder: Path) -> None:
    """As timm's own `load_checkpoint` does: a training with an average of the weights keeps both."""
    case = Case("inception_v3", "inception_v3.torchvision", "checkpoint-9.pth.tar", classes=7)
    average = case.random(peer)
    raw = {key: torch.zeros_like(tensor) for key, tensor in average.state_dict().items()}
    checkpoint = {"epoch": 9, "arch": case.peer, "state_dict": raw, "state_dict_ema": average.state_dict()}
    torch.save(checkpoint, folder / case.file)
    theirs = peer("timm").create_model(case.peer, pretrained=False, num_classes=7).eval()
    peer("timm.models").load_checkpoint(theirs, str(folder / case.file))
    x = random_images(*case.size_px)
    agree(recognised(folder / case.file, case.network, classes=7)(x), theirs(x))
