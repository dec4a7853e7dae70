"""The trees against the papers' figures, and the counts against torch's own counters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inceptionnet.model.build import build
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import GridTooSmall, analyse, endpoints, minimum_size, multiply_adds, parameters
from inceptionnet.nets.arguments import at_size
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Conv, MaxPool, Network, SeparableConv

DEEP = ("inception_v4", "inception_resnet_v1", "inception_resnet_v2")
"""Slow where they are run several times."""
# The published counts at 1000 classes without auxiliary heads, and multiply-adds in G at the network's own size.
PUBLISHED = {
    "inception_v1.slim": (6_624_904, 1.498),
    "inception_v1": (6_998_552, 1.583),
    "inception_v3": (23_834_568, 5.71),
    "inception_v4": (42_679_816, 12.25),
    "inception_resnet_v1": (22_756_328, 6.21),
    "inception_resnet_v2": (32_433_928, 9.26),
    "inception_resnet_v2.slim": (55_843_464, 13.16),
    # A bias and no batch norm on the first convolution, as in the published checkpoint: 64 fewer than with batch norm.
    "inception_v2.slim": (11_188_288 - 64, 1.94),
}

# Output height (= width) and channels at the boundaries that the papers print, by endpoint.
V4_STEM = {
    "stem_conv_1": (149, 32), "stem_conv_2": (147, 32), "stem_conv_3": (147, 64), "stem_mixed_1": (73, 160),
    "stem_mixed_2": (71, 192), "stem_mixed_3": (35, 384),
}  # fmt: skip
V3 = {
    "conv_1a": (149, 32), "conv_2a": (147, 32), "conv_2b": (147, 64), "pool_3a": (73, 64), "conv_3b": (73, 80),
    "conv_4a": (71, 192), "pool_5a": (35, 192), "mixed_5b": (35, 256), "mixed_5c": (35, 288), "mixed_5d": (35, 288),
    "mixed_6a": (17, 768), "mixed_6b": (17, 768), "mixed_6c": (17, 768), "mixed_6d": (17, 768), "mixed_6e": (17, 768),
    "mixed_7a": (8, 1280), "mixed_7b": (8, 2048), "mixed_7c": (8, 2048), "pool": (1, 2048), "logits": (1, 1000),
}  # fmt: skip
V1 = {
    "conv_1": (112, 64), "pool_1": (56, 64), "conv_2_reduce": (56, 64), "conv_2": (56, 192), "pool_2": (28, 192),
    "inception_3a": (28, 256), "inception_3b": (28, 480), "pool_3": (14, 480), "inception_4a": (14, 512),
    "inception_4b": (14, 512), "inception_4c": (14, 512), "inception_4d": (14, 528), "inception_4e": (14, 832),
    "pool_4": (7, 832), "inception_5a": (7, 832), "inception_5b": (7, 1024), "pool": (1, 1024), "logits": (1, 1000),
}  # fmt: skip
V2 = {
    "conv_1": (112, 64), "pool_1": (56, 64), "conv_2": (56, 192), "pool_2": (28, 192), "inception_3a": (28, 256),
    "inception_3b": (28, 320), "inception_3c": (14, 576), "inception_4a": (14, 576), "inception_4b": (14, 576),
    "inception_4c": (14, 576), "inception_4d": (14, 576), "inception_4e": (7, 1024), "inception_5a": (7, 1024),
    "inception_5b": (7, 1024),
}  # fmt: skip
V4 = V4_STEM | {
    "inception_a1": (35, 384), "inception_a4": (35, 384), "reduction_a": (17, 1024), "inception_b1": (17, 1024),
    "inception_b7": (17, 1024), "reduction_b": (8, 1536), "inception_c1": (8, 1536), "inception_c3": (8, 1536),
    "pool": (1, 1536),
}  # fmt: skip
RESNET_V1 = {
    "stem_conv_1": (149, 32), "stem_conv_2": (147, 32), "stem_conv_3": (147, 64), "stem_pool": (73, 64),
    "stem_conv_4": (73, 80), "stem_conv_5": (71, 192), "stem_conv_6": (35, 256), "residual_a5": (35, 256),
    "reduction_a": (17, 896), "residual_b10": (17, 896), "reduction_b": (8, 1792), "residual_c5": (8, 1792),
}  # fmt: skip
RESNET_V2 = V4_STEM | {
    "residual_a5": (35, 384), "reduction_a": (17, 1152), "residual_b10": (17, 1152), "reduction_b": (8, 2144),
    "residual_c5": (8, 2144), "pool": (1, 2144),
}  # fmt: skip
RESNET_V2_SLIM = {
    "stem_pool_2": (35, 192), "mixed_5b": (35, 320), "residual_a10": (35, 320), "reduction_a": (17, 1088),
    "residual_b20": (17, 1088), "reduction_b": (8, 2080), "residual_c10": (8, 2080), "conv_7b": (8, 1536),
}  # fmt: skip
FACENET = {"reduction_a": (8, 896), "reduction_b": (3, 1792), "residual_c6": (3, 1792), "embedding": (1, 512)}
BOUNDARIES = {
    "inception_v1": V1, "inception_v1.slim": V1, "inception_v1.torchvision": V1, "inception_v2": V2,
    "inception_v2.slim": V2, "inception_v3": V3, "inception_v2.caffe": V2
    | {"inception_4c": (14, 608), "inception_4d": (14, 608), "inception_4e": (7, 1056)}, "inception_v3.torchvision": V3,
    "inception_v3.fid": V3 | {"logits": (1, 1008)},
    "inception_v2.rethinking": {"conv_1a": (147, 64)} | dict(list(V3.items())[3:]),
    "inception_v4": V4, "inception_v4.slim": V4, "inception_resnet_v1": RESNET_V1,
    "inception_resnet_v1.facenet": FACENET, "inception_resnet_v2": RESNET_V2,
    "inception_resnet_v2.slim": RESNET_V2_SLIM,
}  # fmt: skip


def plain(name: str) -> Network:
    return replace(NETWORKS[name], aux={})


def test_all_names_are_there() -> None:
    assert set(NETWORKS) == set(BOUNDARIES)
    assert all(name == network.name for name, network in NETWORKS.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_boundaries_are_the_papers(name: str) -> None:
    found = {row.name: (row.output.height, row.output.channels) for row in endpoints(analyse(plain(name)))}
    assert {endpoint: found[endpoint] for endpoint in BOUNDARIES[name]} == BOUNDARIES[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    rows = analyse(plain(name))
    count, giga = PUBLISHED[name]
    assert parameters(rows) == count
    assert multiply_adds(rows) / 1e9 == pytest.approx(giga, abs=0.006)


def test_v3_with_its_auxiliary_head() -> None:
    assert parameters(analyse(NETWORKS["inception_v3"])) == 27_161_264


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_are_torchs(name: str) -> None:
    """Parameters by module and multiply-adds by torch's counter, without a number computed (meta tensors)."""
    network = plain(name)
    rows = analyse(network)
    body, head, _ = build(network)
    with FlopCounterMode(display=False) as counter:
        head.eval()(body.eval()(torch.empty(1, 3, network.input_size, network.input_size, device="meta")))
    assert counter.get_total_flops() == 2 * multiply_adds(rows)
    for row in rows:
        module = {"body": body, "head": head}[row.path.partition(".")[0]].get_submodule(row.path.partition(".")[2])
        assert sum(p.numel() for p in module.parameters()) == row.parameters, row.path


@pytest.mark.parametrize("size", ["own", pytest.param("odd", marks=pytest.mark.slow), "smallest"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_intermediate_shape_is_torchs(name: str, size: str) -> None:
    network = NETWORKS[name]
    px = {"own": network.input_size, "odd": network.input_size + 26, "smallest": minimum_size(network)}[size]
    body, head, aux = build(at_size(network, px))
    roots = {"body": body, "head": head, "aux": aux}
    seen: dict[str, tuple[int, ...]] = {}
    for root, tree in roots.items():
        for path, module in tree.named_modules():
            module.register_forward_hook(
                lambda _, __, output, path=f"{root}.{path}": seen.update({path: tuple(output.shape)})
            )
    x = torch.empty(2, 3, px, px, device="meta")
    outputs = {}
    for endpoint, module in body.named_children():
        x = outputs[endpoint] = module(x)
    head(x)
    for endpoint, module in aux.named_children():
        module(outputs[endpoint])
    rows = analyse(at_size(network, px))
    assert len(rows) > 20
    for row in rows:
        expected = seen[row.path]
        assert (2, *row.output)[: len(expected)] == expected, row.path


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n.partition(".")[0] in DEEP else []) for n in NETWORKS]
)
def test_minimum_size_is_torchs(name: str) -> None:
    """Torch itself runs that size and the next ones, and refuses the one below."""
    body, head, _ = build(plain(name))
    least = minimum_size(plain(name))
    for px in range(least, least + 3):
        assert head(body(torch.empty(2, 3, px, px, device="meta"))).shape[0] == 2
    if least > 1:
        with pytest.raises(RuntimeError):
            head(body(torch.empty(2, 3, least - 1, least - 1, device="meta")))


def test_minimum_size_by_known_values() -> None:
    """75 px is what Keras and torchvision state for v3, 15 px what torchvision states for its googlenet."""
    assert minimum_size(plain("inception_v3")) == minimum_size(plain("inception_resnet_v2.slim")) == 75
    assert minimum_size(plain("inception_v1.torchvision")) == 15
    with pytest.raises(GridTooSmall, match=r"body\.reduction_b"):
        analyse(plain("inception_v4"), (74, 74))


def test_receptive_field_by_hand() -> None:
    """v3's stem: 3, +2·2, +2·2, pool +2·2, 1×1, +2·4, pool +2·4; then two 3×3 at a step of 8."""
    field = {row.name: row.field for row in endpoints(analyse(plain("inception_v3")))}
    assert [field[name].height for name in ("conv_1a", "conv_2a", "conv_2b", "pool_3a", "conv_3b", "conv_4a")] == [
        3, 7, 11, 15, 15, 23,
    ]  # fmt: skip
    assert field["pool_5a"] == (31, 31, 8)
    assert field["mixed_5b"] == (31 + 4 * 8, 31 + 4 * 8, 8)
    assert field["mixed_6a"].step == 16 and field["mixed_7a"].step == 32
    assert field["pool"].height == float("inf")


def grids(name: str, size: int) -> list[int]:
    sizes = [row.output.height for row in endpoints(analyse(configure(Configuration(name, input_size=size))))]
    return [side for i, side in enumerate(sizes) if i == 0 or side != sizes[i - 1]]


def test_low_resolution_stems() -> None:
    """[v3] section 9: the grids, and with them the cost, are those of 299 px; at 79 px up to a pixel."""
    own = [149, 147, 73, 71, 35, 17, 8, 1]
    for name in ("inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2"):
        assert grids(name, 299) == grids(name, 151) == own
    assert grids("inception_v4", 79) == [77, 75, 73, 71, 35, 17, 8, 1]
    assert grids("inception_v3", 79) == [77, 75, 73, 36, 17, 8, 1]
    for name in ("inception_v3", "inception_v4", "inception_resnet_v2.slim"):
        costs = [multiply_adds(analyse(configure(Configuration(name, input_size=px)))) for px in (299, 151, 79)]
        assert costs[1] == costs[0] and costs[2] == pytest.approx(costs[0], rel=0.07)
    assert grids("inception_v3", 152) == [75, 73, 36, 34, 16, 7, 3, 1], "other sizes keep the ordinary stem"


def test_variants_differ_in_what_they_say() -> None:
    def differing(a: str, b: str) -> set[str]:
        one, other = NETWORKS[a].body, NETWORKS[b].body
        return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}

    assert differing("inception_v3", "inception_v3.torchvision") == set()
    assert differing("inception_v3", "inception_v3.fid") == {"mixed_7c"}
    assert differing("inception_v2", "inception_v2.slim") == {"conv_1"}
    assert differing("inception_v3", "inception_v2.rethinking") == {"conv_1a", "conv_2a", "conv_2b"}
    assert isinstance(NETWORKS["inception_v2.slim"].body["conv_1"], SeparableConv)
    assert NETWORKS["inception_v1.slim"].body["pool_4"] == MaxPool(2, 2)
    first = NETWORKS["inception_v1"].body["conv_1"]
    assert isinstance(first, Conv) and (first.kernel, first.stride) == (7, 2)
