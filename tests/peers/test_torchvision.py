"""Judge: torchvision 0.28.0, `models.inception_v3` and `models.googlenet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet import create_model
from inceptionnet.data import open_source
from inceptionnet.evaluate.classes import matched_classes

from .conftest import Peer
from .judging import SMALL_PX, agree, outputs_of, random_images, randomise, recognised

V3, V1 = "inception_v3.torchvision", "inception_v1.torchvision"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
State = dict[str, Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


FORMS: dict[str, Callable[[State, Path], None]] = {
    "state.pth": torch.save,
    "before_torch_1.6.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "data_parallel.pth.tar": lambda state, path: torch.save({"state_dict": prefixed(state, "module.")}, path),
    "checkpoint.pth": lambda state, path: torch.save({"model": state, "epoch": 3}, path),
    "compiled.pt": lambda state, path: torch.save(prefixed(state, "_orig_mod."), path),
    "state.safetensors": save_file,
}


@pytest.fixture(scope="module")
def inception_v3(peer: Peer) -> nn.Module:
    models = peer("torchvision").models
    model = models.inception_v3(weights=None, aux_logits=True, transform_input=False, init_weights=False).eval()
    randomise(model, seed=2)
    return model


@pytest.fixture(scope="module")
def googlenet(peer: Peer) -> nn.Module:
    models = peer("torchvision").models
    model = models.googlenet(weights=None, aux_logits=True, transform_input=False, init_weights=False).eval()
    randomise(model, seed=3)
    return model


@pytest.mark.parametrize("form", FORMS)
def test_inception_v3_in_every_form_of_file(inception_v3: nn.Module, folder: Path, form: str) -> None:
    FORMS[form](inception_v3.state_dict(), folder / form)
    x = random_images(*SMALL_PX)
    agree(recognised(folder / form, V3)(x), inception_v3(x))


def test_inception_v3_with_its_auxiliary_head_at_native_size(inception_v3: nn.Module, folder: Path) -> None:
    torch.save(inception_v3.state_dict(), folder / "w.pth")
    x = random_images(299, 299)
    logits, grid, pooled = outputs_of(inception_v3, ("Mixed_6e", "avgpool"), x)
    ours = create_model(V3, weights=folder / "w.pth", aux=True).eval()
    got = ours.all_logits(x)
    assert got.keys() == {"logits", "mixed_6e"}
    agree(got["logits"], logits)
    agree(got["mixed_6e"], inception_v3.AuxLogits(grid))
    agree(ours.embed(x), pooled.flatten(1))


def test_inception_v3_that_normalises_its_input_anew(inception_v3: nn.Module, folder: Path) -> None:
    """With `transform_input` it takes ImageNet's mean and deviation and makes [-1, 1] of it, which ours takes."""
    torch.save(inception_v3.state_dict(), folder / "w.pth")
    x = random_images(*SMALL_PX)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    inception_v3.transform_input = True
    try:
        expected = inception_v3(((x + 1) / 2 - mean) / std)
    finally:
        inception_v3.transform_input = False
    agree(recognised(folder / "w.pth", V3)(x), expected)


def test_inception_v3_for_other_classes_keeps_its_features(inception_v3: nn.Module, folder: Path) -> None:
    torch.save(inception_v3.state_dict(), folder / "w.pth")
    x = random_images(*SMALL_PX)
    ours = create_model(V3, weights=folder / "w.pth", num_classes=5).eval()
    assert ours(x).shape == (2, 5)
    agree(ours.embed(x), outputs_of(inception_v3, ("avgpool",), x)[1].flatten(1))


@pytest.mark.parametrize("size", [(224, 224), SMALL_PX], ids=str)
def test_googlenet_with_its_auxiliary_heads(googlenet: nn.Module, folder: Path, size: tuple[int, int]) -> None:
    save_file(googlenet.state_dict(), folder / "w.safetensors")
    x = random_images(*size)
    logits, grid_4a, grid_4d = outputs_of(googlenet, ("inception4a", "inception4d"), x)
    got = create_model(V1, weights=folder / "w.safetensors", aux=True).eval().all_logits(x)
    assert got.keys() == {"logits", "inception_4a", "inception_4d"}
    agree(got["logits"], logits)
    agree(got["inception_4a"], googlenet.aux1(grid_4a))
    agree(got["inception_4d"], googlenet.aux2(grid_4d))


def test_googlenet_recognised(googlenet: nn.Module, folder: Path) -> None:
    torch.save(googlenet.state_dict(), folder / "w.pth")
    x = random_images(*SMALL_PX)
    agree(recognised(folder / "w.pth", V1)(x), googlenet(x))


def test_classes_are_numbered_as_by_image_folder(peer: Peer, tmp_path: Path) -> None:
    """Of weights without names, class i is the i-th folder of `ImageFolder`."""
    for name in ("0", "1", "2", "10", "11", "b", "a", "B", "é", "_"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    theirs = peer("torchvision").datasets.ImageFolder(tmp_path).class_to_idx
    data = list(open_source(tmp_path, evaluating=True).classes)
    found = matched_classes(data, [str(i) for i in range(10)], numbered=True)
    assert dict(zip(data, found.labels_of.tolist(), strict=True)) == theirs
