"""Heads that people put on a network: the same function, or one line that says why not."""

from __future__ import annotations

import json
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet import create_model, load
from inceptionnet.errors import WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.weights import read_weights
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from .published import as_published

NARROW = {"width": 0.125}
D = 128
"""Channels of the narrow network's last grid."""
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> InceptionNet:
    torch.manual_seed(0)
    return create_model("inception_v1.torchvision", num_classes=3, **NARROW).eval()


@pytest.fixture(scope="module")
def whole(network: InceptionNet) -> State:
    return as_published(network, GOOGLENET)


@pytest.fixture(scope="module")
def body(whole: State) -> State:
    return {name: tensor for name, tensor in whole.items() if not name.startswith("fc.")}


def under(prefix: str, state: Mapping[str, Tensor] | nn.Module) -> State:
    held = state.state_dict() if isinstance(state, nn.Module) else state
    return {f"{prefix}.{name}": tensor for name, tensor in held.items()}


def randomised(head: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for tensor in head.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return head.eval()


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "w.pth")
    return folder / "w.pth"


def refused(content: Any, folder: Path, message: str, **options: Any) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(saved(content, folder), **options)
    assert "\n" not in str(caught.value)


def quantised(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it will not have such tensors for ever
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


KNOWN: dict[str, tuple[nn.Module, str]] = {
    "one": (nn.Linear(D, 3), "global average pool assumed"),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Linear(D, 3)), "global average pool assumed"),
    "no bias": (nn.Linear(D, 3, bias=False), "linear without bias assumed"),
    "hidden": (nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, 3)), r"between x\.0 and x\.2: relu assumed"),
    "hidden, dropout": (
        nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
        r"between x\.0 and x\.3: relu and dropout assumed",
    ),
    "norm": (
        nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
        r"x\.1: eps 1e-05 assumed; activation between x\.1 and x\.4: relu and dropout assumed",
    ),
    "fastai's order": (
        nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)),
        r"between x\.0 and x\.2: relu assumed; x\.2: eps 1e-05 assumed; between x\.2 and x\.4: dropout assumed",
    ),
    "norm without gamma": (nn.Sequential(nn.BatchNorm1d(D, affine=False), nn.Linear(D, 3)), "eps 1e-05 assumed"),
    "prelu": (nn.Sequential(nn.Linear(D, 8), nn.PReLU(), nn.Linear(8, 3)), "global average pool assumed"),
    "more than ten": (
        nn.Sequential(*(nn.Linear(D, D) for _ in range(11)), nn.ReLU(), nn.Linear(D, 3)),
        r"between x\.10 and x\.12: relu assumed",
    ),
}


@pytest.mark.parametrize("prefix", ["", "model.backbone"])
@pytest.mark.parametrize("kind", KNOWN)
def test_heads_that_a_state_dict_tells(
    network: InceptionNet, body: State, tmp_path: Path, kind: str, prefix: str
) -> None:
    head, assumed = KNOWN[kind]
    randomised(head)
    base = under(prefix, body) if prefix else body
    state = under("x", head) | base if prefix else base | under("x", head)
    read = read_weights(saved(state, tmp_path))
    x = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(read.model(**NARROW).eval()(x), head(network.embed(x)), rtol=1e-4, atol=1e-4)
    assert re.search(assumed, read.assumed), read.assumed


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"fc1": nn.Linear(D, 8), "fc2": nn.Linear(8, 3)}, r"a head of 2 layers, fc1, fc2, .* --head 'fc1 relu fc2'"),
        ({"fc2": nn.Linear(D, 8), "fc1": nn.Linear(8, 3)}, r"--head 'fc2 relu fc1'"),
        ({"fc": nn.Linear(D, 3), "fc_new": nn.Linear(D, 5)}, r"2 classifiers .*: fc \(3\) and fc_new \(5\); state"),
        ({"bn": nn.BatchNorm1d(D), "cls": nn.Linear(D, 3)}, r"a head of 2 layers, bn, cls, .* --head 'bn cls'"),
        ({"fc": nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 3))}, r"fc\.0, .*a layer of a kind that is not known"),
        ({"fc": nn.Linear(D, 3), "se": nn.Conv2d(D, 8, 1)}, r"se\.weight of shape \(8, 128, 1, 1\): a layer that"),
        ({"fc": nn.Linear(D, 3), "p": nn.Linear(7, 7)}, r"p\.weight of shape \(7, 7\): a layer that .* --head 'fc'"),
        ({"fc": nn.Conv2d(D, 3, 3)}, r"fc, .*weight \(3, 128, 3, 3\): a layer of a kind"),
        ({"fc": nn.Linear(D, 3), "attn": nn.MultiheadAttention(D, 1)}, "attn, .*in_proj_weight .*not known"),
        (
            {"fc": nn.Sequential(nn.Linear(D, 8), *(nn.Identity() for _ in range(3)), nn.Linear(8, 3))},
            r"3 modules without tensors between fc\.0 and fc\.4, .* --head 'fc\.0 relu fc\.4'",
        ),
        ({"fc": nn.Sequential(nn.Linear(D, 3), nn.BatchNorm1d(3))}, r"fc\.1: batch norm after the logits"),
        ({"fc": nn.Linear(49 * D, 3)}, "fc takes 6272 values, but gets 128"),
        ({"classifier": nn.Linear(2 * D, 3)}, r"average and maximum in an order that the file does not tell"),
        (
            {"fc": nn.Sequential(OrderedDict(fc1=nn.Linear(D, 8), relu=nn.ReLU(), fc2=nn.Linear(8, 3)))},
            r"fc\.fc1, fc\.fc2, whose activations",
        ),
    ],
)
def test_heads_that_it_does_not_tell(body: State, tmp_path: Path, head: dict[str, nn.Module], message: str) -> None:
    state = dict(body)
    for name, module in head.items():
        state |= under(name, module)
    refused(state, tmp_path, message)


def test_a_head_that_is_stated(network: InceptionNet, body: State, tmp_path: Path) -> None:
    first, second, old = nn.Linear(2 * D, 8), nn.Linear(8, 3), nn.Linear(D, 1000)
    state = {**under("net", {**body, **under("fc", old)}), **under("a", first), **under("b", second)}
    path = saved(state, tmp_path)
    x = torch.randn(2, 3, 96, 96)
    grid = network.forward_features(x)
    average, maximum = grid.mean((2, 3)), grid.amax((2, 3))
    for words, pooled in (("catavgmax", (average, maximum)), ("catmaxavg", (maximum, average))):
        read = read_weights(path, head=f"{words} a silu b sigmoid")
        expected = second(nn.functional.silu(first(torch.cat(pooled, 1))))
        torch.testing.assert_close(read.model(**NARROW).eval()(x), expected, rtol=1e-4, atol=1e-4)
        assert read.record.configuration.activation == "sigmoid"
        assert read.report.dropped["net.fc.weight"] == "not in the stated head"
    with pytest.raises(WeightsError, match="head has 'c', which is no layer"):
        load(path, head="a relu c")
    refused(state, tmp_path, "head has 'c', which is no layer outside the body and no function", head="a relu c")
    refused(state, tmp_path, "b takes 8 values, but gets 128", head="b")


def test_one_logit_is_the_second_of_two_classes(body: State, tmp_path: Path) -> None:
    state = {**body, **under("fc", nn.Linear(D, 1))}
    for content, names in (
        (state, ("0", "1")),
        ({"state_dict": state, "classes": ["cat", "dog"]}, ("cat", "dog")),
        ({"state_dict": state, "classes": ["a", "b", "c"]}, ("0", "1")),
    ):
        read = read_weights(saved(content, tmp_path))
        assert read.record.classes == names and read.record.configuration.activation == "sigmoid"
        assert "one logit: sigmoid, the probability of the second of two classes, assumed" in read.assumed


def test_class_names_that_disagree_are_not_used(whole: State, tmp_path: Path) -> None:
    names = {"classes": ["a", "b", "c"], "class_to_idx": {"b": 0, "a": 1, "c": 2}}
    read = read_weights(saved({"state_dict": whole, **names}, tmp_path))
    assert read.record.classes == ("0", "1", "2") and "class_to_idx and classes disagree" in read.report.classes
    read = read_weights(saved({"state_dict": whole, "classes": ["a", "b", "c"]}, tmp_path))
    assert read.record.classes == ("a", "b", "c") and read.report.classes == "the file's classes"
    read = read_weights(saved({"state_dict": whole, "classes": ["a", "b"]}, tmp_path))
    assert "the file's names do not fit (classes has 2 for 3 classes)" in read.report.classes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_to_idx", {"a": 0, "b": 2, "c": 3}),
        ("class_to_idx", {"a": 1, "b": 2, "c": 3}),
        ("class_to_idx", {"a": 0, "b": 1, "c": 1}),
        ("class_to_idx", {"a": torch.tensor(0), "b": torch.tensor(1), "c": torch.tensor(2)}),
        ("classes", np.array(["a", "b", "c"])),
        ("classes", {"a", "b", "c"}),
        ("classes", ["a", "a", "b"]),
        ("classes", ["a", "", "b"]),
        ("classes", ["a", "b\nb", "c"]),
    ],
)
def test_class_names_that_cannot_be_used_are_named(whole: State, tmp_path: Path, key: str, value: Any) -> None:
    read = read_weights(saved({"state_dict": whole, key: value}, tmp_path))
    assert read.record.classes == ("0", "1", "2")
    assert f"the file's names do not fit ({key} " in read.assumed


def test_what_is_no_layer_is_left_out_and_said(whole: State, tmp_path: Path) -> None:
    state = {**under("model", whole), "criterion.weight": torch.ones(3), "train_f1.tp": torch.ones(3),
             "steps": torch.tensor(3), "class_weights": torch.ones(3),
             "center_loss.centers": torch.ones(3, D)}  # fmt: skip
    read = read_weights(saved(state, tmp_path))
    assert set(read.report.dropped) == {
        "criterion.weight", "train_f1.tp", "steps", "class_weights", "center_loss.centers",
    }  # fmt: skip
    assert "not used: center_loss.centers, class_weights, criterion.weight … and 2 more" in read.assumed


def test_copies_of_the_network(network: InceptionNet, whole: State, tmp_path: Path) -> None:
    other = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    read = read_weights(saved({**under("net", other), **under("net_ema.module", whole)}, tmp_path))
    assert "the averaged weights, net_ema.module., used" in read.report.changed
    assert read.report.dropped["net.fc.weight"] == "averaged weights used instead"
    x = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(read.model(**NARROW).eval()(x), network(x))
    outside = {**under("net", other), **under("ema_net", whole)}
    outside = {name.replace("net.fc.", "classifier."): tensor for name, tensor in outside.items()}
    read = read_weights(saved(outside, tmp_path))
    torch.testing.assert_close(read.model(**NARROW).eval()(x), network(x))
    refused({**under("student", whole), **under("teacher", whole)}, tmp_path, "2 networks of .*, student and teacher;")


def test_a_normalisation_inside_the_network_becomes_preprocessing(whole: State, tmp_path: Path) -> None:
    mean, std = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.25, 0.5, 0.125])
    for scale in (1, 255):
        buffers = {"mean": scale * mean.view(1, 3, 1, 1), "std": scale * std.view(1, 3, 1, 1)}
        prep = read_weights(saved({**under("net", whole), **buffers}, tmp_path)).record.preprocessing
        assert prep.mean == (0.5, 0.25, 0.125) and prep.std == (0.25, 0.5, 0.125)
    caffe = {"mean": torch.tensor([127.5, 51, 102]), "std": torch.ones(3)}  # of pixels from 0 to 255
    prep = read_weights(saved({**under("net", whole), **caffe}, tmp_path)).record.preprocessing
    assert prep.mean == (0.5, 0.2, 0.4) and prep.std == pytest.approx((1 / 255,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k.replace("conv2.conv.weight", "conv2.conv.weight_orig"): v for k, v in s.items()},
         r"with pruned or spectrally normalised weights \(conv2\.conv\.weight_orig\)"),
        (lambda s: {**s, "fc.lora_A.default.weight": torch.ones(2, D)}, "of a LoRA adapter beside them .*; merge them"),
        (lambda s: {**s, "fc.weight_fake_quant.scale": torch.ones(1)}, "a network of quantisation-aware training"),
        (lambda s: {**s, "temperature": torch.tensor([1.5])}, r"temperature = 1\.5: a number that the logits may be"),
        (lambda s: {**s, "avgpool.p": torch.tensor([3.0])}, r"avgpool\.p of shape \(1,\): no weight, bias or stat"),
        (lambda s: {**s, "fc.1.alpha": torch.tensor([2.0])}, r"fc\.1\.alpha of shape \(1,\): no weight, bias or stat"),
        (lambda s: {**s, "fc.prototypes": torch.ones(3, D)}, r"fc\.prototypes of shape \(3, 128\): no weight, bias"),
        (lambda s: {**s, **under("fc", nn.utils.parametrizations.weight_norm(nn.Linear(D, 3)))},
         r"a head with parametrised weights \(fc\.parametrizations\.weight\.original0\)"),
        (lambda s: {**s, "x.weight_g": torch.ones(3, 1), "x.weight_v": torch.ones(3, D)},
         r"a head with weight-normalised weights \(x\.weight_g\)"),
        (lambda s: {"stages.0.blocks.0.token_mixer.dwconv_hw.weight": torch.ones(3)}, "got timm's inception_next"),
        (lambda s: {"block1.rep.0.conv1.weight": torch.ones(3)}, "got xception, by its tensor names"),
        (lambda s: {"conv1.conv.weight": quantised(torch.ones(2, 2))}, r"a quantised network \(int8\)"),
    ],
)  # fmt: skip
def test_other_causes_are_named(whole: State, tmp_path: Path, change: Any, message: str) -> None:
    refused(change(whole), tmp_path, message)


def test_layers_beside_a_network_of_this_package_are_named(network: InceptionNet, tmp_path: Path) -> None:
    backbone = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("head.")}
    read = read_weights(saved({**under("net", backbone), **under("fc", nn.Linear(D, 3))}, tmp_path))
    assert read.report.dropped == {"fc.weight": "not under net.", "fc.bias": "not under net."}
    assert "not used: fc.bias, fc.weight" in read.assumed


def test_eight_bits_are_no_weights(whole: State, tmp_path: Path) -> None:
    file = saved({**whole, "fc.weight": whole["fc.weight"].to(torch.float8_e4m3fn)}, tmp_path)
    with pytest.raises(WeightsError, match=r"expected values of float16, .*, got float8_e4m3fn \(fc\.weight\); save"):
        read_weights(file)


def test_a_cut_backbone(network: InceptionNet, body: State, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in body.items() if not name.startswith("inception5")}
    read = read_weights(saved(state, tmp_path))
    assert read.record.configuration.last == "inception_4e"
    x = torch.randn(1, 3, 96, 96)
    got = read.model(**NARROW).eval().forward_features(x)
    torch.testing.assert_close(got, network.features(x)["inception_4e"])


def test_a_folder_downloaded_from_the_hub(whole: State, tmp_path: Path) -> None:
    """Its config.json states the preprocessing, and the metadata of the .safetensors file may name the classes."""
    held = {name: tensor.contiguous() for name, tensor in under("timm_model", whole).items()}
    save_file(held, tmp_path / "model.safetensors", {"classes": '["a", "b", "c"]'})
    stated = {"input_size": [3, 240, 240], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5], "std": [0.25]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": stated}))
    record = read_weights(tmp_path).record
    assert record.classes == ("a", "b", "c")
    assert (record.preprocessing.size_px, record.preprocessing.std) == (240, (0.25,) * 3)
    old = stated | {
        "architecture": "inception_v3",
        "label_names": ["c", "a", "b"],
    }  # of older timm
    (tmp_path / "config.json").write_text(json.dumps(old))
    save_file(held, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        read = read_weights(place)
        assert read.record.classes == ("c", "a", "b") and read.report.classes.endswith("config.json (label_names)")
        assert (read.record.preprocessing.size_px, read.record.preprocessing.std) == (240, (0.25,) * 3)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"got a PEFT \(LoRA\) adapter, by its adapter_config\.json; merge it"):
        read_weights(tmp_path)
