"""Judge: pretrainedmodels 0.7.4, Cadene's ports: `last_linear`, and BN-Inception from Caffe, for BGR in 0 to 255."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from .conftest import Peer
from .judging import agree, random_images, randomise, recognised

CASES = (
    ("inceptionv3", "inception_v3.torchvision"),
    ("inceptionv4", "inception_v4.slim"),
    ("inceptionresnetv2", "inception_resnet_v2.slim"),
)


def random_network(peer: Peer, name: str) -> nn.Module:
    model = getattr(peer("pretrainedmodels"), name)(num_classes=1000, pretrained=None).eval()
    randomise(model, seed=6)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of torchvision's, for how it is called
@pytest.mark.parametrize(("name", "network"), CASES, ids=[case[0] for case in CASES])
def test_logits(peer: Peer, folder: Path, name: str, network: str) -> None:
    theirs = random_network(peer, name)
    torch.save(theirs.state_dict(), folder / f"{name}.pth", _use_new_zipfile_serialization=False)
    x = random_images(299, 299)  # their last pool is 8×8, whatever comes
    agree(recognised(folder / f"{name}.pth", network)(x), theirs(x))


@pytest.fixture(scope="module")
def bninception(peer: Peer) -> nn.Module:
    return random_network(peer, "bninception")


def published_input(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same images as Caffe's network takes them, and as this package's preprocessing makes them for it."""
    zero_to_one = (x + 1) / 2
    bgr = 255 * zero_to_one.flip(1) - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1)
    rgb = (zero_to_one - torch.tensor([128.0, 117.0, 104.0]).view(3, 1, 1) / 255) / 0.5
    return bgr, rgb


def test_bninception(bninception: nn.Module, folder: Path) -> None:
    torch.save(bninception.state_dict(), folder / "bn.pth")
    ours = recognised(folder / "bn.pth", "inception_v2.caffe")
    bgr, rgb = published_input(random_images(224, 224))
    agree(ours(rgb), bninception(bgr))


def test_bninception_with_one_row_of_batch_norm_tensors(bninception: nn.Module, folder: Path) -> None:
    """The published file is from before torch 0.4: batch norm has shape (1, channels), and counts no batches."""
    state = {
        key: tensor[None] if "_bn." in key else tensor
        for key, tensor in bninception.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    torch.save(state, folder / "bn.pth", _use_new_zipfile_serialization=False)
    bgr, rgb = published_input(random_images(224, 224))
    agree(recognised(folder / "bn.pth", "inception_v2.caffe")(rgb), bninception(bgr))
