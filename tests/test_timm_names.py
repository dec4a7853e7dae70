"""timm's names beside ours: features, heads, checkpointing, groups, tracing, names and published weights."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import create_model, list_models, load_model, save_weights
from inceptionnet.errors import ConfigurationError, InputError
from inceptionnet.nets import NETWORKS
from inceptionnet.registry.names import KNOWN, NEAR, resolve
from inceptionnet.weights.known import PUBLISHED, published_for

from .conftest import without_repeats
from .forked import Forked

ROOT = Path(__file__).parents[1]
NARROW = {"width": 0.125, "num_classes": 7}
# Tracing takes seconds for each: the paper's GoogLeNet (own padding, response norm), and a separable first convolution.
TRACED = ("inception_v1", "inception_v2.slim")
ALL = [name if name == TRACED[0] else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]


def images(px: int = 96, batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, px, px + 3, generator=torch.Generator().manual_seed(px))


# Names and reductions that timm 1.0.31 has for the same networks; its Inception-v4 takes 160 channels at stride 4, from
# the first module there, where ours takes the last.
TIMM_FEATURES = {
    "inception_v3.torchvision": ([64, 192, 288, 768, 2048], ["conv_2b", "conv_4a", "mixed_5d", "mixed_6e", "mixed_7c"]),
    "inception_v4.slim": (
        [64, 192, 384, 1024, 1536],
        ["stem_conv_3", "stem_mixed_2", "inception_a4", "inception_b7", "inception_c3"],
    ),
    "inception_resnet_v2.slim": (
        [64, 192, 320, 1088, 1536],
        ["stem_conv_3", "stem_conv_5", "residual_a10", "residual_b20", "conv_7b"],
    ),
}


@pytest.mark.parametrize("name", TIMM_FEATURES)
def test_features_are_timms(name: str) -> None:
    info = create_model(name, device="meta").feature_info
    assert [one["num_chs"] for one in info] == TIMM_FEATURES[name][0]
    assert [one["module"] for one in info] == [f"body.{endpoint}" for endpoint in TIMM_FEATURES[name][1]]
    assert [one["reduction"] for one in info] == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("name", list_models())
def test_widths_and_description_are_what_the_network_computes(name: str) -> None:
    model = create_model(name, device="meta").eval()
    cfg = model.pretrained_cfg
    assert cfg == model.default_cfg and cfg["architecture"] == name and cfg["num_classes"] == model.num_classes
    grid = model.forward_features(torch.empty(1, *cfg["input_size"], device="meta"))
    assert grid.shape == (1, model.num_features, *cfg["pool_size"])
    assert model.forward_head(grid, pre_logits=True).shape == (1, model.head_hidden_size)
    assert {f"{cfg['first_conv']}.weight", f"{cfg['classifier']}.weight"} <= model.state_dict().keys()
    assert model.get_submodule(cfg["first_conv"]).weight is next(model.parameters())


def test_features_head_and_logits_agree() -> None:
    model = create_model("inception_resnet_v1.facenet", width=0.25, num_classes=4).eval()
    x = images(107)
    with torch.no_grad():
        grid, found = model.forward_intermediates(x)
        assert grid.equal(model.forward_features(x)) and model.forward_head(grid).equal(model(x))
        assert model.forward_head(grid, pre_logits=True).equal(model.embed(x))
        ours = model.features(x)
        for info, feature in zip(model.feature_info, found, strict=True):
            assert feature.equal(ours[info["module"].removeprefix("body.")]) and feature.shape[1] == info["num_chs"]
        two = model.forward_intermediates(x, indices=[-1, 1], intermediates_only=True)
        assert [feature.equal(found[i]) for feature, i in zip(two, (1, -1), strict=True)] == [True, True]
        early, _ = model.forward_intermediates(x, indices=(0,), stop_early=True)
        assert early.equal(found[0])
    with pytest.raises(ConfigurationError, match=r"indices are \(7,\); expected the last 1 to 5, or some of 0 to 4"):
        model.forward_intermediates(x, (7,))
    with pytest.raises(ConfigurationError, match="expected 'NCHW'"):
        model.forward_intermediates(x, output_fmt="NHWC")
    with pytest.raises(InputError, match="expected images of shape"):
        model.forward_intermediates(x[0])


def test_reset_classifier() -> None:
    model = create_model("inception_v3", aux=True, input_size=128, **NARROW).eval()
    x = images(128)
    body = {name: value.clone() for name, value in model.body.state_dict().items()}
    model.reset_classifier(4)
    assert model(x).shape == (2, 4) and model.all_logits(x)["mixed_6e"].shape == (2, 4)
    assert model.get_classifier() is model.head.logits and model.get_classifier().out_features == 4
    model.reset_classifier(0)
    pooled = model(x)
    assert pooled.shape == (2, model.num_features) and isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(x).mean((2, 3)), pooled)
    model.reset_classifier(0)
    assert model(x).dim() == 4, "the pool stays as it is"
    model.reset_classifier(3)
    assert model(x).shape == (2, 3), "classes need the pool again"
    assert all(torch.equal(value, model.body.state_dict()[name]) for name, value in body.items())
    for arguments, message in (
        ((0, "median"), "global_pool is 'median'; expected 'avg', 'max', 'avgmax', 'catavgmax', or ''"),
        ((3, ""), "set num_classes=0"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            model.reset_classifier(*arguments)
    assert model(x).shape == (2, 3), "a refusal changes nothing"


def test_features_only() -> None:
    whole = create_model("inception_v4.slim", width=0.125).eval()
    backbone = create_model("inception_v4.slim", width=0.125, features_only=True, out_indices=(1, -2)).eval()
    missing = backbone.model.load_state_dict(whole.state_dict(), strict=False)
    assert not missing.missing_keys and not any(name.startswith("head.") for name in backbone.model.state_dict())
    assert list(backbone.model.network.body)[-1] == "inception_b7", "what comes after is not there"
    x = images()
    with torch.no_grad():
        grids, expected = backbone(x), whole.forward_intermediates(x, (1, 3), intermediates_only=True)
    assert all(map(torch.equal, grids, expected))
    info = backbone.feature_info
    assert info.channels() == [grid.shape[1] for grid in grids] and info.reduction() == [4, 16] and len(info) == 5
    assert info.module_name() == ["body.stem_mixed_2", "body.inception_b7"] and info.channels(0) == 8
    assert info.get_dicts(["reduction"], [2]) == [{"reduction": 8}] and backbone.pretrained_cfg["input_size"][1] == 299
    with pytest.raises(ConfigurationError, match="needs features_only=True"):
        create_model("inception_v3", out_indices=2)


def test_a_pruned_network_is_saved_and_loaded(tmp_path: Path) -> None:
    model = create_model("inception_v3", **NARROW).eval()
    x = images()
    expected = model.forward_intermediates(x, [2], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([2]) == [2] and model(x).equal(expected)
    assert model.num_features == model.head_hidden_size == expected.shape[1] and model.minimum_size < 75
    save_weights(model, tmp_path / "pruned.safetensors")
    assert load_model(tmp_path / "pruned.safetensors").eval()(x).equal(expected)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    kept = create_model("inception_v3", **NARROW).eval()
    logits = kept(x)
    kept.prune_intermediate_layers([4], prune_head=False)
    assert kept(x).equal(logits)


class Saved:
    """Bytes of the activations that autograd keeps, each storage once; parameters are not counted."""

    def __init__(self, model: nn.Module) -> None:
        self.own = {parameter.data_ptr() for parameter in [*model.parameters(), *model.buffers()]}
        self.storages: dict[int, int] = {}
        self.kept: list[Tensor] = []

    def pack(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in self.own:
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage.nbytes()
            self.kept.append(tensor)  # so that no address is used twice
        return tensor

    @property
    def bytes(self) -> int:
        return sum(self.storages.values())


@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v2.slim"])
def test_checkpointing_keeps_less_and_changes_nothing(name: str) -> None:
    model = create_model(name, width=0.125, num_classes=3, dropout=0.0).train()
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing()
    x, kept = images(107, batch=4), {}
    for network in (plain, model):
        saved = Saved(network)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            loss = network(x).square().sum()
        kept[network] = saved.bytes
        loss.backward()
    assert kept[model] < 0.45 * kept[plain], "measured: 0.39 and 0.40, at an eighth of the width"
    for (path, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None and torch.equal(one.grad, other.grad), path
    for (path, one), other in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other), f"{path}: statistics are updated once"
    assert int(next(value for path, value in model.named_buffers() if path.endswith("num_batches_tracked"))) == 1
    assert all(torch.equal(a, b) for a, b in zip(model.features(x).values(), plain.features(x).values(), strict=True))
    model.set_grad_checkpointing(False)
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        model(x).square().sum()
    assert saved.bytes == kept[plain]


def test_checkpointing_with_auxiliary_heads() -> None:
    model = create_model("inception_v3", aux=True, input_size=107, width=0.125, num_classes=3, dropout=0.0).train()
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing()
    x = images(107, batch=4)
    for network in (plain, model):
        sum(logits.square().sum() for logits in network.all_logits(x).values()).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.slow
def test_checkpointing_compiled_whole() -> None:
    model = create_model("inception_v1.slim", **NARROW).train()
    model.prune_intermediate_layers([2])
    plain = copy.deepcopy(model)
    model.set_grad_checkpointing()
    for network in (torch.compile(model, fullgraph=True, backend="aot_eager"), plain):
        network(images(64, batch=4)).square().sum().backward()
    for (path, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=1e-3, atol=1e-3, msg=lambda text, path=path: f"{path}: {text}"
        )
    for (path, one), other in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=lambda text, path=path: f"{path}: {text}")


def test_groups_go_from_stem_to_head() -> None:
    model = create_model("inception_v4", aux=True, **NARROW)
    layer, stage = model.group_matcher(), model.group_matcher(coarse=True)
    names = [name for name, _ in model.named_parameters()]
    layers = {name: layer(name) for name in names}
    assert {layers[name] for name in names if ".stem_conv_" in name} == {0}
    body = [layers[name] for name in names if name.startswith("body.")]
    assert body == sorted(body) and len(set(body)) == 1 + sum(
        not path.startswith("stem_conv") for path in model.network.body
    )
    assert all(math.isinf(layers[name]) for name in names if name.startswith("head."))
    assert {layers[name] for name in names if name.startswith("aux.")} == {
        layer("body.inception_b7.b1x1.0.conv.weight")
    }
    assert {stage(name) for name in names} == {2, 4, 8, 16, 32, math.inf}
    assert model.no_weight_decay() == set()


def test_timms_arguments() -> None:
    model = create_model("inception_v3", in_chans=1, drop_rate=0.5, dtype=torch.float64, **NARROW)
    assert model.in_chans == 1 and model.head.dropout.p == 0.5 and model.head.logits.weight.dtype == torch.float64
    assert create_model("inception_v3", in_chans=1, in_channels=1, **NARROW).in_chans == 1
    for arguments, message in (
        (
            {"in_chans": 1, "in_channels": 3},
            "in_channels is 3 and in_chans is 1, which mean the same; give one of them",
        ),
        ({"drop_rate": 0.1, "dropout": 0.2}, "dropout is 0.2 and drop_rate is 0.1"),
        ({"global_pool": "median"}, "global_pool is 'median'; expected 'avg'"),
        ({"pretrained": True, "weights": "x.pth"}, "both pretrained=True and weights"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            create_model("inception_v3", **arguments)
    with pytest.raises(TypeError):
        create_model("inception_v3", drop_path_rate=0.1)
    assert create_model("inception_v3", num_classes=0, global_pool="", width=0.125).eval()(images()).dim() == 4


def test_names_that_people_know() -> None:
    for name, network in {
        "googlenet": "inception_v1.torchvision", "inceptionv3": "inception_v3.torchvision",
        "inception_v3.tf_in1k": "inception_v3.torchvision", "inception_v3": "inception_v3",
        "InceptionV3": "inception_v3",
        "bninception": "inception_v2.caffe", "inceptionv4": "inception_v4.slim", "inceptionv1": "inception_v1",
        "inceptionresnetv2": "inception_resnet_v2.slim", "InceptionResNetV2": "inception_resnet_v2.slim",
        "InceptionResnetV1": "inception_resnet_v1.facenet", "hf-hub:timm/inception_v4.tf_in1k": "inception_v4.slim",
    }.items():  # fmt: skip
        assert resolve(name).network == network
    assert create_model("googlenet", device="meta").configuration.name == "inception_v1.torchvision"
    assert not KNOWN.keys() & NETWORKS.keys(), "a name of ours means ours"
    for name, named in KNOWN.items():
        assert named.network in NETWORKS and (named.published is None or named.published.network == named.network), name
    assert {one.name for one in PUBLISHED if one.name.startswith("timm/")} == {
        f"timm/{name}" for name in KNOWN if "in1k" in name
    }
    for unknown in ("inception_v5", "resnet50", "Inception-ResNet"):
        with pytest.raises(ConfigurationError, match=f"unknown network '{unknown}'") as caught:
            create_model(unknown)
        message = str(caught.value)
        assert "\n" not in message and message.count(" or ") < NEAR
    with pytest.raises(ConfigurationError, match=r"'resnet50': list_models\(\) gives the names$"):
        resolve("resnet50")


def test_listing() -> None:
    assert list_models() == list(NETWORKS)
    assert list_models("*resnet*", pretrained=True) == ["inception_resnet_v1.facenet", "inception_resnet_v2.slim"]
    assert list_models(["*.slim", "*.caffe"], exclude_filters="*_v1*") == [
        "inception_v2.slim", "inception_v2.caffe", "inception_v4.slim", "inception_resnet_v2.slim",
    ]  # fmt: skip
    assert list_models("nothing*") == []
    assert set(list_models(pretrained=True)) == {name for name in NETWORKS if published_for(name)}
    for name in NETWORKS.keys() - set(list_models(pretrained=True)):
        with pytest.raises(ConfigurationError, match=r"no published weights of .* can be downloaded; there are"):
            create_model(name, pretrained=True)


def test_checks_stand_in_eager_use_only() -> None:
    model = create_model("inception_v3", **NARROW).eval()
    traced = torch.fx.symbolic_trace(model)
    for network, error in ((model, InputError), (traced, RuntimeError)):
        with pytest.raises(error):
            network(torch.zeros(1, 1, 96, 96))
    with pytest.raises(InputError, match=r"expected images of shape \(N, 3, H, W\), got \(1, 1, 96, 96\)"):
        model(torch.zeros(1, 1, 96, 96))


@pytest.mark.parametrize("name", ALL)
def test_torch_fx(name: str) -> None:
    model = create_model(name, **NARROW).eval()
    traced = torch.fx.symbolic_trace(model)
    for px in (96, 107):
        assert traced(images(px)).equal(model(images(px)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript(name: str) -> None:
    """Traced and scripted; torch deprecates both. Response norm's own code warns when it is traced.

    Here and below, of blocks that are built alike the first alone.
    """
    model = without_repeats(create_model(name, **NARROW)).eval()
    with torch.no_grad():
        for made in (torch.jit.trace(model, images(96)), torch.jit.script(model)):
            for px in (96, 107):
                torch.testing.assert_close(made(images(px)), model(images(px)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_branches_keep_their_order() -> None:
    """torch.jit.script shares what it compiled between networks that differ in nothing but the order of branches."""
    for name in ("inception_v4", "inception_v4.slim"):
        model = create_model(name, **NARROW).eval()
        model.prune_intermediate_layers([2])
        with torch.no_grad():
            assert torch.jit.script(model)(images()).equal(model(images())), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TRACED, "inception_v4", "inception_resnet_v2.slim"])
def test_strict_torch_export(name: str) -> None:
    """Not strict, every network goes through it in test_build.py."""
    model = without_repeats(create_model(name, **NARROW)).eval()
    program = torch.export.export(model, (images(),), strict=True)
    torch.testing.assert_close(program.module()(images()), model(images()))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_fx_quantisation(name: str) -> None:
    """torch.ao's graph mode, which torch deprecates for torchao; random weights say nothing of its accuracy."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model = without_repeats(create_model(name, **NARROW)).eval()
    x = images(96, batch=4)
    with torch.no_grad():
        prepared = prepare_fx(model, get_default_qconfig_mapping("fbgemm"), (x,))
        prepared(x)
        quantised = convert_fx(prepared)
        logits = quantised(x)
    kinds = [type(part) for part in quantised.modules() if "quantized" in type(part).__module__]
    assert len(kinds) > 10 and logits.shape == (4, 7) and logits.isfinite().all()


def test_torch_hub() -> None:
    model = torch.hub.load(str(ROOT), "inception_v3_fid", source="local", trust_repo=True, **NARROW)
    assert model.configuration.name == "inception_v3.fid" and model(images()).shape == (2, 7)
    hubconf = sys.modules.get("hubconf") or torch.hub._import_module("hubconf", str(ROOT / "hubconf.py"))
    entries = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    assert entries == {name.replace(".", "_") for name in NETWORKS} | {"googlenet"}


def test_heavy_packages_stay_out(with_torch: Forked) -> None:
    heavy = {"huggingface_hub", "torchvision", "timm"}
    code = f"import sys, inceptionnet.registry.create; print(sorted({heavy!r} & set(sys.modules)))"
    found = with_torch(code)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr
