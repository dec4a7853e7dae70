"""Every network gives the logits of a second description of it, written by hand in ordinary torch (tests/reference).

All weights and statistics are random, and are paired by order of execution; so a wrong branch order, padding, pool,
stride, scale or epsilon shows. The second half plants such errors and demands that they are found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inceptionnet import create_model

from .reference import inception_resnet, inception_v1, inception_v2, inception_v3, inception_v4
from .reference.transfer import executed_layers, transfer

PAIRING_PX = 96
SMALL_PX = ((107, 96), (96, 118))  # height, width: odd and even sides, which stride 2 pads differently
TOLERANCE_FLOAT64 = 1e-9
TOLERANCE_FLOAT32 = 1e-4
CLEARLY_DIFFERENT = 1e-2
CLEARLY_WRONG = 1000 * TOLERANCE_FLOAT64


@dataclass(frozen=True)
class Case:
    name: str
    reference: Callable[[int], nn.Module]
    native_px: int
    num_parameters: int
    num_classes: int = 1000


CASES = (
    Case("inception_v1", inception_v1.GoogLeNet, 224, 6_998_552),
    Case("inception_v1.slim", inception_v1.InceptionV1Slim, 224, 6_624_904),
    Case("inception_v2", inception_v2.BNInception, 224, 11_194_984),
    Case("inception_v2.slim", inception_v2.InceptionV2Slim, 224, 11_188_224),
    Case("inception_v3", inception_v3.InceptionV3, 299, 23_834_568),
    Case("inception_v3.torchvision", inception_v3.InceptionV3Torchvision, 299, 23_834_568),
    Case("inception_v3.fid", inception_v3.InceptionV3FID, 299, 23_850_960, num_classes=1008),
    Case("inception_v4", inception_v4.InceptionV4, 299, 42_679_816),
    Case("inception_v4.slim", inception_v4.InceptionV4Slim, 299, 42_679_816),
    Case("inception_resnet_v1", inception_resnet.InceptionResNetV1, 299, 22_756_328),
    Case("inception_resnet_v1.facenet", inception_resnet.FaceNet, 160, 23_995_624),
    Case("inception_resnet_v2", inception_resnet.InceptionResNetV2, 299, 32_433_928),
    Case("inception_resnet_v2.slim", inception_resnet.InceptionResNetV2Slim, 299, 55_843_464),
)


def randomise(model: nn.Module, seed: int) -> None:
    """Random weights that neither blow up nor die out through ReLUs; random batch norm parameters and statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, (2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, 0.0, 0.1, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)


def images(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Two random images in [-1, 1]: coarse patches of colour, which pooling does not average away, and fine noise."""
    generator = torch.Generator().manual_seed(height + 1000 * width)
    patches = torch.rand(2, 3, 5, 4, generator=generator, dtype=dtype) * 2 - 1
    noise = torch.rand(2, 3, height, width, generator=generator, dtype=dtype) * 2 - 1
    coarse = F.interpolate(patches, size=(height, width), mode="bilinear", align_corners=False)
    return 0.8 * coarse + 0.2 * noise


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest absolute value."""
    return ((a - b).abs().max() / b.abs().max()).item()


@dataclass(frozen=True)
class Pair:
    case: Case
    reference: nn.Module
    network: nn.Module


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    case: Case = request.param
    reference = case.reference(case.num_classes).eval()
    randomise(reference, seed=1)
    network = create_model(case.name, num_classes=case.num_classes).eval()
    transfer(reference, network, PAIRING_PX)
    yield Pair(case, reference, network)


def test_parameter_count(pair: Pair) -> None:
    for model in (pair.reference, pair.network):
        assert sum(parameter.numel() for parameter in model.parameters()) == pair.case.num_parameters
        weighted = {id(p) for _, layer in executed_layers(model, PAIRING_PX) for p in layer.parameters()}
        assert weighted == {id(p) for p in model.parameters()}, "a parameter is not used in the forward pass"


def test_same_logits_at_native_size(pair: Pair) -> None:
    x = images(pair.case.native_px, pair.case.native_px, torch.float32)[:1]
    with torch.no_grad():
        expected, got = pair.reference(x), pair.network(x)
    assert got.shape == (1, pair.case.num_classes)
    assert relative_difference(got, expected) <= TOLERANCE_FLOAT32


@pytest.mark.slow
def test_same_logits_exactly_on_other_sizes(pair: Pair) -> None:
    pair.reference.double()
    pair.network.double()
    try:
        for height, width in SMALL_PX:
            x = images(height, width, torch.float64)
            with torch.no_grad():
                expected, got = pair.reference(x), pair.network(x)
            assert torch.isfinite(expected).all()
            assert relative_difference(expected[:1], expected[1:]) > CLEARLY_DIFFERENT, "the images look alike"
            assert relative_difference(got, expected) <= TOLERANCE_FLOAT64, f"{height}×{width}"
    finally:
        pair.reference.float()
        pair.network.float()


# Planted errors: each must change the logits far beyond the tolerance, or stop the transfer.


def difference_found(right: nn.Module, wrong: nn.Module) -> float:
    """What the comparison above measures on the first of its small sizes, after the transfer."""
    transfer(right, wrong, PAIRING_PX)
    x = images(*SMALL_PX[0], torch.float64)[:1]
    with torch.no_grad():
        return relative_difference(wrong.double()(x), right.double()(x))


def roll_channels(name: str, by: int) -> Callable[[nn.Module], None]:
    """Another concatenation order: the last `by` channels of a module come first."""

    def plant(model: nn.Module) -> None:
        model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: output.roll(by, 1))

    return plant


def bn_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def last_relu(model: nn.Module) -> None:
    model.get_submodule("last_c").register_forward_hook(lambda _module, _inputs, output: F.relu(output))


def one_residual_scale(model: nn.Module) -> None:
    """B's first block scaled by 0.11 instead of 0.10."""
    closing = model.get_submodule("b.0.closing")
    closing.register_forward_hook(lambda _module, _inputs, output: output * 1.1)


def lrn_of_alexnet(model: nn.Module) -> None:
    norm = model.get_submodule("norm1")
    assert isinstance(norm, nn.LocalResponseNorm)
    norm.k = 2.0


def lrn_of_tensorflow(model: nn.Module) -> None:
    """The same alpha, not divided by the window of five."""
    for name in ("norm1", "norm2"):
        norm = model.get_submodule(name)
        assert isinstance(norm, nn.LocalResponseNorm)
        norm.alpha *= 5


def relu_on_closing(model: nn.Module) -> None:
    model.get_submodule("a.4.closing").register_forward_hook(lambda _module, _inputs, output: F.relu(output))


def bigger_last_pool(model: nn.Module) -> None:
    model.set_submodule("pool4", inception_v1.SameMaxPool2(3))


def symmetrical_pool(name: str) -> Callable[[nn.Module], None]:
    def plant(model: nn.Module) -> None:
        model.set_submodule(name, nn.MaxPool2d(3, stride=2, padding=1))

    return plant


PLANTS: tuple[tuple[str, Callable[[int], nn.Module], Callable[[nn.Module], None]], ...] = (
    ("batch norm epsilon", inception_v2.BNInception, bn_eps),
    ("local response norm's k", inception_v1.GoogLeNet, lrn_of_alexnet),
    ("local response norm's alpha", inception_v1.GoogLeNet, lrn_of_tensorflow),
    ("3×3 last pool", inception_v1.InceptionV1Slim, bigger_last_pool),
    ("symmetrical padding of a pool", inception_v2.InceptionV2Slim, symmetrical_pool("body.pool1")),
    ("symmetrical padding inside a module", inception_v2.InceptionV2Slim, symmetrical_pool("body.mixed_4e.pool")),
    ("pool branch first", inception_v4.InceptionV4Slim, roll_channels("b.3", 128)),
    ("pool branch first in a reduction", inception_resnet.FaceNet, roll_channels("reduction_b", 896)),
    ("residual scale", inception_resnet.InceptionResNetV1, one_residual_scale),
    ("ReLU on a closing convolution", inception_resnet.InceptionResNetV1, relu_on_closing),
    ("ReLU after the last block", inception_resnet.FaceNet, last_relu),
)


@pytest.mark.parametrize(("reference", "plant"), [p[1:] for p in PLANTS], ids=[p[0] for p in PLANTS])
def test_planted_error_changes_the_logits(
    reference: Callable[[int], nn.Module], plant: Callable[[nn.Module], None]
) -> None:
    right = reference(10).eval()
    randomise(right, seed=1)
    wrong = copy.deepcopy(right)
    plant(wrong)
    assert difference_found(right, wrong) > CLEARLY_WRONG


@pytest.mark.parametrize("form", [inception_v3.InceptionV3Torchvision, inception_v3.InceptionV3FID])
def test_another_pool_changes_the_logits(form: Callable[[int], nn.Module]) -> None:
    right, wrong = inception_v3.InceptionV3(10).eval(), form(10).eval()
    randomise(right, seed=1)
    assert difference_found(right, wrong) > CLEARLY_WRONG


def test_transfer_names_the_first_swapped_convolution() -> None:
    right, wrong = inception_v4.InceptionV4Slim(10), inception_v4.InceptionV4(10)
    with pytest.raises(AssertionError, match=r"source 'stem\.right_b\.conv'.*\(64, 64, 1, 7\).*\(64, 64, 7, 1\)"):
        transfer(right, wrong, PAIRING_PX)


def test_transfer_names_a_missing_layer_and_copies_nothing() -> None:
    right, wrong = inception_resnet.FaceNet(10), inception_resnet.FaceNet(10)
    wrong.last_c = nn.Identity()
    before = wrong.linear.weight.clone()
    with pytest.raises(AssertionError, match=r"source 'last_c\.residual\.one_1x1\.conv'.*target 'embedding'"):
        transfer(right, wrong, PAIRING_PX)
    assert torch.equal(wrong.linear.weight, before)
