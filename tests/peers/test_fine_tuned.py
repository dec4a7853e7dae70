"""Judge: torchvision, timm, Cadene and facenet-pytorch, as fine-tuning scripts change, wrap and save their networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import load_model
from inceptionnet.errors import WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.weights import convert, read_weights

from .conftest import Peer
from .judging import SMALL_PX, agree, random_images, randomise

V1, V3 = "inception_v1.torchvision", "inception_v3.torchvision"


def googlenet(peer: Peer, classes: int = 4, **options: Any) -> nn.Module:
    options = {"aux_logits": False, "transform_input": False, **options}
    return peer("torchvision").models.googlenet(weights=None, init_weights=False, num_classes=classes, **options)


def ready(model: nn.Module, seed: int = 7) -> nn.Module:
    randomise(model.eval(), seed=seed)
    return model


def saved(content: Any, folder: Path, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def same(path: Path, theirs: nn.Module | Tensor, network: str, **options: Any) -> InceptionNet:
    """The file is read as that network, and gives the logits of the model that was saved."""
    x = random_images(*SMALL_PX)
    ours = load_model(path, **options).eval()
    assert ours.configuration.name == network
    agree(ours(x), theirs(x) if isinstance(theirs, nn.Module) else theirs)
    return ours


def mlp(function: nn.Module, width: int = 1024) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 16, bias=False), nn.BatchNorm1d(16), function, nn.Dropout(0.3), nn.Linear(16, 4)
    )


class Wrapped(nn.Module):
    """A network without its classifier under a name of its own, and a classifier behind it."""

    def __init__(self, base: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = base
        self.classifier = head

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.encoder(x))
        return y


HEADS: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(1024, 4)),
    "hidden": lambda: nn.Sequential(nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 4)),
    "hidden, dropout": lambda: nn.Sequential(nn.Linear(1024, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)),
    "batch norm": lambda: mlp(nn.ReLU()),
    "batch norm first": lambda: nn.Sequential(nn.BatchNorm1d(1024), nn.Dropout(), nn.Linear(1024, 4)),
    "linear twice": lambda: nn.Sequential(nn.Linear(1024, 16), nn.Linear(16, 4, bias=False)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1024, 1, 1)), nn.Conv2d(1024, 4, 1), nn.Flatten()),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_state_dict_with_a_sequential_as_classifier(peer: Peer, folder: Path, head: str) -> None:
    model = googlenet(peer)
    model.fc = HEADS[head]()
    same(saved(ready(model).state_dict(), folder), model, V1)


@pytest.mark.parametrize(
    "function", [nn.GELU(), nn.SiLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.ELU(), nn.GELU("tanh"), nn.ReLU6()], ids=str
)
def test_a_whole_module_tells_its_activations(peer: Peer, folder: Path, function: nn.Module) -> None:
    model = googlenet(peer)
    model.fc = mlp(function)
    same(saved(ready(model), folder), model, V1)


def swapped(model: nn.Module, old: type[nn.Module], new: Callable[[], nn.Module]) -> None:
    for name, child in model.named_children():
        if isinstance(child, old):
            setattr(model, name, new())
        else:
            swapped(child, old, new)


def set_on(module: nn.Module, name: str, value: Any) -> None:
    setattr(module, name, value)


GOOGLENETS: dict[str, tuple[Callable[[Any], None], str]] = {
    "no pool": (lambda m: set_on(m, "maxpool1", nn.Identity()), r"maxpool1 \(Identity\) is in the body"),
    "another pool": (
        lambda m: set_on(m, "maxpool2", nn.AvgPool2d(3, 2, ceil_mode=True)),
        r"maxpool2 \(AvgPool2d\) .* has no pool of AvgPool2d 3×3, stride 2",
    ),
    "a pool that rounds down": (
        lambda m: set_on(m.maxpool2, "ceil_mode", False),
        r"maxpool2 \(MaxPool2d\) .* MaxPool2d 3×3, stride 2, padding 0;",
    ),
    "stride": (lambda m: set_on(m.conv1.conv, "stride", (1, 1)), r"conv1\.conv .* stride \(1, 1\), .* has \(2, 2\)"),
    "dilation": (lambda m: set_on(m.conv3.conv, "dilation", (2, 2)), r"conv3\.conv \(Conv2d\) with dilation"),
    "padding": (lambda m: set_on(m.conv3.conv, "padding_mode", "reflect"), "with padding_mode 'reflect'"),
    "an activation": (
        lambda m: set_on(m, "inception4a", nn.Sequential(m.inception4a, nn.SiLU())),
        "but without inception4a",
    ),
}


@pytest.mark.parametrize("case", GOOGLENETS)
def test_a_whole_module_whose_body_was_changed(peer: Peer, folder: Path, case: str) -> None:
    change, message = GOOGLENETS[case]
    model = ready(googlenet(peer))
    change(model)
    with pytest.raises(WeightsError, match=message):
        load_model(saved(model, folder))


def test_a_whole_module_with_other_activations(peer: Peer, folder: Path) -> None:
    model = peer("timm").create_model("inception_v3", num_classes=4)
    swapped(model, nn.ReLU, nn.SiLU)
    with pytest.raises(WeightsError, match=r"Conv2d_1a_3x3\.bn\.act \(SiLU\) is in the body"):
        load_model(saved(ready(model), folder))


class Basic(nn.Module):
    """A block of the user's own, whose forward no file has."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv, self.bn = block.conv, block.bn

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.bn(self.conv(x)))


def test_a_forward_in_the_body_is_assumed_and_said(peer: Peer, folder: Path) -> None:
    model = ready(googlenet(peer))
    model.conv2 = Basic(model.conv2)
    same(saved(model, folder), model, V1)
    assert "forward of Basic in the body is not in the file" in read_weights(folder / "w.pth").assumed


def test_a_stated_head(peer: Peer, folder: Path) -> None:
    model = googlenet(peer)
    model.fc = nn.Sequential(nn.Linear(1024, 16), nn.SiLU(), nn.Linear(16, 4))
    path = saved(ready(model).state_dict(), folder)
    same(path, model, V1, head="fc.0 silu fc.2")
    convert(path, folder / "out.safetensors", head="fc.0 silu fc.2")
    same(folder / "out.safetensors", model, V1)


@pytest.mark.parametrize("traced", [True, False])
def test_a_torchscript_archive(peer: Peer, folder: Path, traced: bool) -> None:
    model = googlenet(peer)
    model.fc = mlp(nn.SiLU())
    ready(model)
    x = random_images(*SMALL_PX)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(model, x) if traced else torch.jit.script(model)
        script.save(str(folder / "m.pt"))
    same(folder / "m.pt", model, V1)


@pytest.mark.parametrize("whole", [True, False])
def test_a_classifier_outside_the_network(peer: Peer, folder: Path, whole: bool) -> None:
    base = googlenet(peer)
    base.fc = nn.Identity()
    model = ready(Wrapped(nn.DataParallel(base), mlp(nn.ReLU())))
    same(saved(model if whole else model.state_dict(), folder), model, V1)


def test_a_network_followed_by_sigmoid(peer: Peer, folder: Path) -> None:
    model = ready(nn.Sequential(googlenet(peer), nn.Sigmoid()))
    path = saved(model, folder)
    assert same(path, model[0](random_images(*SMALL_PX)), V1).network.activation == "sigmoid"
    one = ready(googlenet(peer, classes=1))
    read = read_weights(saved(one.state_dict(), folder))
    assert read.record.classes == ("0", "1") and "one logit: sigmoid" in read.assumed
    assert same(read.path, one, V1).network.activation == "sigmoid"


@pytest.mark.parametrize("prefix", ["", "features.", "net.base."])
def test_positions_of_torchvisions_googlenet(peer: Peer, folder: Path, prefix: str) -> None:
    model = ready(googlenet(peer))
    chain = nn.Sequential(*list(model.children())[:-1], nn.Flatten(), model.fc)
    state = {prefix + key: tensor for key, tensor in chain.state_dict().items()}
    same(saved(state, folder), model, V1)
    same(saved(chain, folder, "whole.pth"), model, V1)


@pytest.mark.parametrize(
    ("library", "name", "network"),
    [
        ("torchvision", "inception_v3", V3),
        ("timm", "inception_v3", V3),
        ("timm", "inception_v4", "inception_v4.slim"),
        ("timm", "inception_resnet_v2", "inception_resnet_v2.slim"),
        ("pretrainedmodels", "inceptionv4", "inception_v4.slim"),
        ("pretrainedmodels", "inceptionresnetv2", "inception_resnet_v2.slim"),
    ],
)
def test_positions_without_a_classifier(peer: Peer, folder: Path, library: str, name: str, network: str) -> None:
    if library == "torchvision":
        model = peer(library).models.inception_v3(weights=None, aux_logits=False, init_weights=False)
    elif library == "timm":
        model = peer(library).create_model(name)
    else:
        model = peer(library).__dict__[name](pretrained=None, num_classes=1000)
    ready(model)
    names = [name for name, _ in model.named_children()]
    cut = next(i for i, name in enumerate(names) if "pool" in name.lower() and i == len(names) - len(names[i:]) and
               not any("ixed" in later or "onv" in later or "repeat" in later for later in names[i:]))  # fmt: skip
    chain = nn.Sequential(*list(model.children())[:cut]).eval()
    state = {f"backbone.{key}": tensor for key, tensor in chain.state_dict().items()}
    x = random_images(*SMALL_PX)
    same(saved(state, folder), chain(x).mean((2, 3)), network)


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax"])
def test_timms_pools(peer: Peer, folder: Path, pool: str) -> None:
    model = ready(peer("timm").create_model("inception_v3", num_classes=4, global_pool=pool))
    same(saved(model, folder), model, V3)
    path = saved(model.state_dict(), folder, "state.pth")
    same(path, model, V3, head=f"{pool} fc")
    if pool == "catavgmax":
        same(path, model, V3)
    else:
        assert "global average pool assumed" in read_weights(path).assumed


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2"])
def test_timms_features_only(peer: Peer, folder: Path, name: str) -> None:
    model = ready(peer("timm").create_model(name, features_only=True))
    x = random_images(*SMALL_PX)
    got = load_model(saved(model.state_dict(), folder)).eval()
    agree(got.forward_features(x), model(x)[-1])


def test_lightning_with_hyper_parameters_loss_and_metrics(peer: Peer, folder: Path) -> None:
    model = ready(googlenet(peer, classes=3, aux_logits=True))
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    state |= {"criterion.weight": torch.ones(3), "val_acc.tp": torch.zeros(3, dtype=torch.long),
              "loss_fn.class_weights": torch.ones(3)}  # fmt: skip
    names = {"lr": 0.1, "class_names": ["ant", "bee", "cat"]}
    checkpoint = {"epoch": 3, "state_dict": state, "hyper_parameters": names, "optimizer_states": [{"state": {}}]}
    path = saved(checkpoint, folder, "last.ckpt")
    same(path, model, V1)
    read = read_weights(path)
    assert read.record.classes == ("ant", "bee", "cat") and "class names: the file's hyper_parameters" in read.assumed
    assert read.report.dropped["criterion.weight"] == "of a loss or a metric, not a layer"


def test_an_averaged_copy_beside_the_network(peer: Peer, folder: Path) -> None:
    model, average = ready(googlenet(peer), 1), ready(googlenet(peer), 2)
    state = {f"net.{k}": t for k, t in model.state_dict().items()}
    state |= {f"ema_model.module.{k}": t for k, t in average.state_dict().items()}
    path = saved(state, folder)
    same(path, average, V1)
    assert "the averaged weights, ema_model.module., used" in read_weights(path).report.changed


def test_fastais_learner(peer: Peer, folder: Path) -> None:
    """fastai's `vision_learner`: the children of the network, then maximum and average, batch norms and two layers."""

    class AdaptiveConcatPool2d(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.amax((2, 3), keepdim=True), x.mean((2, 3), keepdim=True)], 1)

    base = googlenet(peer)
    head = nn.Sequential(
        AdaptiveConcatPool2d(), nn.Flatten(), nn.BatchNorm1d(2048), nn.Dropout(0.25), nn.Linear(2048, 16, bias=False),
        nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4, bias=False),
    )  # fmt: skip
    model = ready(nn.Sequential(nn.Sequential(*list(base.children())[:-3]), head))
    path = saved({"model": model.state_dict(), "opt": {"state": []}}, folder)
    same(path, model, V1)
    assert "maximum, then average (fastai)" in read_weights(path).assumed
