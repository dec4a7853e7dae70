"""Judges: pytorch-fid 0.3.0 and torch-fidelity 0.4.0, the two PyTorch ports of the network of the Fréchet distance."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from .conftest import Peer
from .judging import SMALL_PX, agree, outputs_of, random_images, randomise, recognised

NETWORK, CLASSES = "inception_v3.fid", 1008
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state(peer: Peer) -> State:
    """Random weights under the names and in the shapes of the published file, which counts no batches."""
    shapes = peer("torchvision").models.inception_v3(
        weights=None, num_classes=CLASSES, aux_logits=False, init_weights=False
    )
    randomise(shapes, seed=10)
    return {key: tensor for key, tensor in shapes.state_dict().items() if not key.endswith("num_batches_tracked")}


@pytest.fixture
def path(state: State, folder: Path) -> Path:
    torch.save(state, folder / "pt_inception-2015-12-05.pth")
    return folder / "pt_inception-2015-12-05.pth"


@pytest.fixture
def pytorch_fid(peer: Peer, state: State, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """pytorch-fid's network, which would fetch its weights."""
    inception = peer("pytorch_fid.inception")
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: copy.copy(state))
    network: nn.Module = inception.fid_inception_v3().eval()
    return network


@pytest.mark.parametrize("size", [(299, 299), SMALL_PX], ids=str)
def test_logits_and_features_of_pytorch_fid(path: Path, pytorch_fid: nn.Module, size: tuple[int, int]) -> None:
    ours = recognised(path, NETWORK, classes=CLASSES)
    x = random_images(*size)
    logits, pooled = outputs_of(pytorch_fid, ("avgpool",), x)
    agree(ours(x), logits)
    agree(ours.embed(x), pooled.flatten(1))


@pytest.mark.usefixtures("pytorch_fid")
def test_blocks_of_pytorch_fid(peer: Peer, path: Path) -> None:
    """The wrapper that the distance is computed with: pooled features of the fourth block."""
    inception = peer("pytorch_fid.inception")
    blocks = inception.InceptionV3([3], resize_input=False, normalize_input=False).eval()
    x = random_images(*SMALL_PX)
    agree(recognised(path, NETWORK, classes=CLASSES).embed(x), blocks(x)[0].flatten(1))


def test_logits_and_features_of_torch_fidelity(peer: Peer, path: Path) -> None:
    extractor = peer("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3(
        "inception", ["2048", "logits"], feature_extractor_weights_path=str(path)
    )
    grey_values = ((random_images(299, 299) + 1) * 127.5).round().to(torch.uint8)
    pooled, logits = extractor(grey_values)
    ours = recognised(path, NETWORK, classes=CLASSES)
    x = (grey_values.float() - 128) / 128
    agree(ours.embed(x), pooled)
    agree(ours(x), logits)
