"""Heads that people put on the networks: other pools, hidden layers, sigmoid; beside the same thing in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import InceptionNet, create_model, load_model, save_weights
from inceptionnet.engines.fusion import fused
from inceptionnet.errors import ConfigurationError
from inceptionnet.nets.analysis import analyse, parameters
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Activation, BatchNorm, Dropout, Hidden, Linear

FUNCTIONS = ("relu", "relu6", "elu", "selu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "softplus", "leaky_relu")
LAYERS: tuple[Hidden, ...] = (
    BatchNorm(1e-3),
    Dropout(0.3),
    Linear(16, bias=False),
    BatchNorm(1e-5),
    Activation("gelu"),
    Linear(9, relu=True),
    Activation("leaky_relu", 0.2),
)


def small(**arguments: object) -> InceptionNet:
    torch.manual_seed(0)
    model = create_model("inception_v3", width=0.125, num_classes=3, **arguments)  # type: ignore[call-overload]
    assert isinstance(model, InceptionNet)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias), module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 107, 107, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("pool", ["max", "avgmax", "catavgmax"])
def test_pools(pool: str, images: Tensor) -> None:
    model = small(global_pool=pool)
    grid = model.forward_features(images)
    highest, mean = grid.amax((2, 3)), grid.mean((2, 3))
    expected = {"max": highest, "avgmax": (highest + mean) / 2, "catavgmax": torch.cat([mean, highest], 1)}[pool]
    assert torch.allclose(model.embed(images), expected, rtol=1e-5)
    assert torch.allclose(model(images), model.get_classifier()(expected), rtol=1e-4, atol=1e-5)
    assert model.head_hidden_size == expected.shape[1]


def test_hidden_layers(images: Tensor) -> None:
    model = small(hidden=LAYERS)
    torch.manual_seed(1)
    width = model.num_features
    plain = nn.Sequential(
        nn.BatchNorm1d(width, eps=1e-3), nn.Dropout(0.3), nn.Linear(width, 16, bias=False), nn.BatchNorm1d(16),
        nn.GELU(), nn.Linear(16, 9), nn.ReLU(), nn.LeakyReLU(0.2), nn.Linear(9, 3),
    ).eval()  # fmt: skip
    theirs = [tensor for name, tensor in model.head.state_dict().items()]
    plain.load_state_dict(dict(zip(plain.state_dict(), theirs, strict=True)))
    expected = plain(model.forward_features(images).mean((2, 3)))
    assert torch.allclose(model(images), expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(fused(model)(images), expected, rtol=1e-4, atol=1e-4)
    assert model.embed(images).shape == (2, 9) and model.head_hidden_size == 9
    assert parameters(analyse(model.network)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_activation_functions(function: str) -> None:
    model = small(hidden=[Activation(function)])  # type: ignore[arg-type]
    x = torch.linspace(-3, 7, model.num_features)[None]
    plain = {"gelu_tanh": lambda y: nn.functional.gelu(y, approximate="tanh")}
    expected = plain.get(function, getattr(nn.functional, function, None) or getattr(torch, function, None))(x)
    assert torch.equal(model.head.hidden(x), expected)  # type: ignore[operator]


def test_saved_and_loaded(images: Tensor, tmp_path: object) -> None:
    path = f"{tmp_path}/a.safetensors"
    model = small(hidden=LAYERS, global_pool="max", activation="sigmoid")
    save_weights(model, path)
    again = load_model(path).eval()
    assert again.configuration == model.configuration and again.network.activation == "sigmoid"
    assert torch.equal(again(images), model(images))
    backbone = load_model(path, num_classes=0).eval()
    assert torch.equal(backbone(images), model.embed(images))


def test_length_of_the_face_networks_embedding() -> None:
    model = InceptionNet(Configuration("inception_resnet_v1.facenet", num_classes=3, width=0.0625, embedding=24))
    assert model.get_classifier().in_features == 24 and model.head.embedding.linear.out_features == 24  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="embedding is 24, but inception_v3 has no embedding; omit it"):
        configure(Configuration("inception_v3", embedding=24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation is 'relu'; expected 'softmax' or 'sigmoid'"),
        ({"hidden": [Activation("swoosh")]}, "hidden has Activation"),  # type: ignore[arg-type]
        ({"hidden": [{"units": 3}]}, "hidden has {'units': 3}; expected Linear"),
        ({"global_pool": "median"}, "global_pool is 'median'; expected 'avg', 'max'"),
    ],
)
def test_refused(arguments: dict[str, Sequence[object]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(**arguments)
