"""Modules and initial weights, against torch, hand calculation and the published rules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from inceptionnet import create_model, list_models
from inceptionnet.model.modules import SameMaxPool, SamePad
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import analyse

from .conftest import without_repeats

NARROW = {"width": 0.125, "num_classes": 10}


def has_aux(name: str) -> bool:
    return bool(NETWORKS[name].aux)


def test_tensorflow_same_padding_by_hand() -> None:
    """TensorFlow pads 224 for 7×7/2 with 2 before and 3 after, for 3×3/2 with 0 and 1; 225 for 3×3/2 with 1 and 1."""
    for size, kernel, before, after in ((224, 7, 2, 3), (224, 3, 0, 1), (225, 3, 1, 1), (225, 7, 3, 3), (8, 2, 0, 0)):
        x = torch.randn(1, 2, size, size)
        expected = F.pad(x, (before, after, before, after))
        assert torch.equal(SamePad((kernel, kernel), 2)(x), expected)
        endless = F.pad(x, (before, after, before, after), value=-torch.inf)
        assert torch.equal(SameMaxPool((kernel, kernel), 2)(x), F.max_pool2d(endless, kernel, 2))


def test_max_pool_does_not_see_its_padding() -> None:
    model = create_model("inception_v1", **NARROW)
    x = torch.full((1, 1, 6, 6), -5.0)
    assert torch.equal(model.body.get_submodule("pool_1")(x), torch.full((1, 1, 3, 3), -5.0))


def test_average_pools_differ_between_the_copies_of_v3() -> None:
    """At a corner of ones: the mean of 4 pixels is 1, divided by the whole window of 9 it is 4/9."""
    x = torch.ones(1, 4, 5, 5)
    for name, corner in (("inception_v3", 1.0), ("inception_v3.torchvision", 4 / 9)):
        pool = create_model(name, **NARROW).body.get_submodule("mixed_5b.pool.0")
        assert pool(x)[0, 0, 0, 0].item() == pytest.approx(corner)


@pytest.mark.parametrize("name", list_models())
def test_batch_norm_only_where_the_paper_puts_it(name: str) -> None:
    model = create_model(name, aux=has_aux(name), **NARROW)
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and not path.endswith("depthwise"):
            parent = model.get_submodule(path.rpartition(".")[0])
            has_norm = hasattr(parent, "bn")
            assert has_norm == (module.bias is None), path
            linear = ".closing" in path or name == "inception_v1" or path.startswith("body.conv_1.pointwise")
            linear = linear or (path.startswith("aux.") and name == "inception_v2.rethinking")
            assert has_norm != linear, path
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.eps == (1e-5 if name == "inception_v2.caffe" else 1e-3)


@pytest.mark.parametrize("name", list_models())
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, aux=has_aux(name), input_size=139, **NARROW).train()
    x = torch.randn(2, 3, 139, 139)
    sum(logits.square().sum() for logits in model.all_logits(x).values()).backward()  # type: ignore[union-attr]
    without = [path for path, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_truncated_normal_is_one() -> None:
    """v3's 0.1 throughout, 0.01 and 0.001 in the auxiliary head; the spread of a normal cut at two deviations."""
    torch.manual_seed(0)
    model = create_model("inception_v3", aux=True)
    for path, std in (
        ("body.mixed_7c.b3x3.0.conv", 0.1),
        ("aux.mixed_6e.conv.conv", 0.01),
        ("aux.mixed_6e.logits", 0.001),
    ):
        weight = model.get_submodule(path).weight
        assert weight.abs().max() <= 2 * std * 1.000001
        assert weight.std().item() == pytest.approx(0.87963 * std, rel=0.01)
        assert weight.mean().abs() < 0.01 * std
        density_at_0 = ((weight / std).abs() < 0.1).float().mean().item()
        assert density_at_0 == pytest.approx(math.erf(0.1 / math.sqrt(2)) / math.erf(math.sqrt(2)), rel=0.03)


def test_variance_scaling_and_glorot() -> None:
    torch.manual_seed(0)
    model = create_model("inception_v4")
    weight = model.get_submodule("body.inception_c1.b3x3dbl.2.conv").weight  # 448 → 512, 3×1
    assert weight.var().item() == pytest.approx(2 / (448 * 3), rel=0.03)
    logits = model.head.get_submodule("logits").weight
    assert logits.abs().max().item() == pytest.approx(math.sqrt(6 / (1536 + 1000)), rel=0.01)
    assert logits.var().item() == pytest.approx(2 / (1536 + 1000), rel=0.03)


@pytest.mark.parametrize("name", ["inception_v1", "inception_resnet_v1.facenet", "inception_v2.slim"])
def test_everything_is_initialised_and_follows_from_the_seed(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name, **NARROW).state_dict())
    for (key, one), other in zip(states[0].items(), states[1].values(), strict=True):
        assert not one.is_meta and torch.equal(one, other), key
        if key.endswith(("bias", "running_mean", "num_batches_tracked")):
            assert not one.any(), key
        elif key.endswith("running_var") or ".bn.weight" in key:
            assert (one == 1).all(), key
        else:
            assert 0 < one.std() < 2, key


@pytest.mark.parametrize("name", list_models())
def test_names_are_the_trees(name: str) -> None:
    model = create_model(name, aux=has_aux(name), **NARROW)
    for row in analyse(model.network):
        model.get_submodule(row.path)


DEEPEST = "inception_resnet_v2.slim"


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_captured_whole_by_compile_and_export(name: str) -> None:
    """fullgraph=True raises at the first graph break; the captured graphs give the module's own numbers.

    The deepest network has all its blocks, others every kind of block once.
    """
    torch.manual_seed(0)
    model = create_model(name, **NARROW, input_size=96).eval()
    if name != DEEPEST:
        without_repeats(model)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = model(x)
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
        for captured in (compiled, exported):
            torch.testing.assert_close(captured(x), expected)
        torch.testing.assert_close(exported(x[:1]), expected[:1], rtol=1e-4, atol=1e-5)
