"""The fused network gives the numbers of the plain one, with less to do; counted by torch itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inceptionnet import create_model, list_models
from inceptionnet.engines.fusion import SiblingBranches, fused
from inceptionnet.errors import InputError
from inceptionnet.model.network import InceptionNet

SWITCHES = ("batch_norm", "residual_scale", "siblings", "pools", "channels_last")


def network(name: str, **changes: object) -> InceptionNet:
    """A narrow network whose batch norm has something to say."""
    torch.manual_seed(0)
    model = create_model(name, **({"width": 0.125, "num_classes": 7} | changes))  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def images(model: InceptionNet, count: int = 2) -> Tensor:
    size = max(model.minimum_size, 80)
    return torch.randn(count, model.network.in_channels, size, size + 3)


def difference(first: nn.Module, second: nn.Module, x: Tensor) -> float:
    """The largest one, relative to the largest number of the first."""
    with torch.inference_mode():
        a, b = first(x), second(x)
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize("name", list_models())
def test_every_network_gives_its_numbers(name: str) -> None:
    model = network(name)
    x = images(model)
    assert difference(model, fused(model), x) < 1e-5
    assert difference(model, fused(model, siblings=True), x) < 1e-5


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(
    "name",
    [
        "inception_v3", "inception_v3.torchvision", "inception_resnet_v1",
        pytest.param("inception_resnet_v2.slim", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_each_rewrite_can_be_left_out_or_be_the_only_one(name: str, switch: str) -> None:
    model = network(name)
    x = images(model)
    alone = {one: one == switch or one == "batch_norm" for one in SWITCHES}
    for switches in (dict.fromkeys(SWITCHES, True) | {switch: False}, alone):
        assert difference(model, fused(model, **switches), x) < 1e-5
    assert difference(model, fused(model, **dict.fromkeys(SWITCHES, False)), x) == 0


def test_what_is_folded_is_gone() -> None:
    made = fused(network("inception_resnet_v1", aux=True, dropout=0.5), siblings=True)
    kinds = {type(module) for module in made.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.BatchNorm1d, nn.Dropout} and SiblingBranches in kinds
    assert {scale for module in made.modules() if (scale := getattr(module, "scale", None)) is not None} == {1.0}
    assert not any(parameter.requires_grad for parameter in made.parameters()) and not made.training
    assert [name for name, _ in made.body.named_children()] == list(network("inception_resnet_v1").network.body)


def test_siblings_are_one_convolution_and_no_product_is_added() -> None:
    """Inception-v3 has nine modules with three or four 1×1 convolutions on one input, two of them with two."""
    model = network("inception_v3", width=0.25)
    x = images(model)

    def convolutions(module: nn.Module) -> tuple[int, int]:
        counts = [0]
        hooks = [
            part.register_forward_hook(lambda *_: counts.__setitem__(0, counts[0] + 1))
            for part in module.modules() if isinstance(part, nn.Conv2d)
        ]  # fmt: skip
        with torch.inference_mode(), FlopCounterMode(display=False) as flops:
            module(x)
        for hook in hooks:
            hook.remove()
        return counts[0], flops.get_total_flops()

    plain, products = convolutions(model)
    fewer, same = convolutions(fused(model, siblings=True))
    # 5b-5d: 1×1, 5×5, double 3×3 and pool; 6b-6e: 1×1, two 7×7 chains and pool; 7a: two; 7b, 7c: 1×1, two chains, pool.
    assert plain - fewer == 3 * 3 + 4 * 3 + 1 + 2 * 3
    assert same == products


def test_a_pool_moves_only_where_that_is_less_work() -> None:
    """In Inception-v3's 5b a pool of 192 channels becomes one of 32; of as many channels as before it stays."""
    made = fused(network("inception_v3", width=1.0, num_classes=2))
    pools = [module for name, module in made.named_modules() if isinstance(module, nn.AvgPool2d)]
    seen: list[int] = []
    for pool in pools:
        pool.register_forward_hook(lambda pool, inputs, output: seen.append(inputs[0].shape[1]))
    with torch.inference_mode():
        made(torch.zeros(1, 3, 79, 79))
    assert seen == [32, 64, 64, 192, 192, 192, 192, 192, 192]


def test_the_model_stays_as_it_is() -> None:
    model = network("inception_v3").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("changes", [{"num_classes": 0}, {"in_channels": 1}, {"in_channels": 6}])
def test_other_classes_and_channels(changes: dict[str, int]) -> None:
    model = network("inception_resnet_v1.facenet", **changes)
    assert difference(model, fused(model), images(model)) < 1e-5


def test_wrong_images_are_refused_in_the_same_words() -> None:
    model = network("inception_v3")
    made = fused(model)
    for x in (torch.zeros(2, 1, 99, 99), torch.zeros(2, 3, 99, 99, dtype=torch.uint8), torch.zeros(1, 3, 20, 20)):
        told = []
        for one in (model, made):
            with pytest.raises(InputError) as error:
                one(x)
            told.append(str(error.value))
        assert told[0] == told[1]


def test_it_is_captured_whole_and_half_precision_works() -> None:
    model = network("inception_v4")
    made = fused(model, siblings=True)
    x = images(model)
    exported = torch.export.export(made, (x,)).module()
    assert difference(made, exported, x) < 1e-6
    with torch.inference_mode():
        assert torch.allclose(made.bfloat16()(x.bfloat16()).float(), model(x), atol=0.1)
