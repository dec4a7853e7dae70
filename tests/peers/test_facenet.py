"""Judge: facenet-pytorch 2.6.0, `InceptionResnetV1`, with classifier and without; its embedding has length 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .conftest import Peer
from .judging import SMALL_PX, agree, random_images, randomise, recognised

NETWORK = "inception_resnet_v1.facenet"
CLASSES = 31


@pytest.fixture(scope="module")
def classifier(peer: Peer) -> nn.Module:
    model = peer("facenet_pytorch").InceptionResnetV1(classify=True, num_classes=CLASSES).eval()
    randomise(model, seed=7)
    return model


@pytest.mark.parametrize("size", [(160, 160), SMALL_PX], ids=str)
def test_with_classifier(classifier: nn.Module, folder: Path, size: tuple[int, int]) -> None:
    torch.save(classifier.state_dict(), folder / "faces.pt")
    ours = recognised(folder / "faces.pt", NETWORK, classes=CLASSES)
    x = random_images(*size)
    agree(ours(x), classifier(x))
    classifier.classify = False
    try:
        expected = classifier(x)
    finally:
        classifier.classify = True
    agree(F.normalize(ours.embed(x)), expected)


def test_as_published_for_8631_faces(peer: Peer, folder: Path) -> None:
    theirs = peer("facenet_pytorch").InceptionResnetV1(classify=True, num_classes=8631).eval()
    randomise(theirs, seed=8)
    torch.save(theirs.state_dict(), folder / "vggface2.pt", _use_new_zipfile_serialization=False)
    x = random_images(*SMALL_PX)
    agree(recognised(folder / "vggface2.pt", NETWORK, classes=8631)(x), theirs(x))


def test_without_classifier_the_output_is_the_embedding(peer: Peer, folder: Path) -> None:
    theirs = peer("facenet_pytorch").InceptionResnetV1(classify=False).eval()
    randomise(theirs, seed=9)
    torch.save(theirs.state_dict(), folder / "faces.pt")
    ours = recognised(folder / "faces.pt", NETWORK, classes=0)
    x = random_images(*SMALL_PX)
    agree(F.normalize(ours.embed(x)), theirs(x))
    agree(F.normalize(ours(x)), theirs(x))
