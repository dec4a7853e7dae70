"""Keras's InceptionV3 and InceptionResNetV2, with and without top.

Source: keras/src/applications/inception_v3.py and inception_resnet_v2.py. Most layers are named by a counter that
increases in order of creation, from any start. That order is the tree's, so layers are identified by rank:
`conv2d#0`, `conv2d#1`, … No dropout, no auxiliary head.

A .weights.h5 of Keras before 3.6 has no names: layers are numbered by their position in `model.layers`, which is
sorted by distance to the output (keras/src/ops/function.py). That distance is computed from the tree.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.spec import Branches, Conv, Linear, Node, Residual
from inceptionnet.weights.layouts.layout import Layout, Names, Style

STYLE = Style(
    "{}", "{}", "{}", "/",
    {
        "weight": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta",
        "mean": "moving_mean", "var": "moving_variance",
    },
    "tensorflow",
)  # fmt: skip
EMBEDDING = "Bottleneck"
"""The dense layer of the face network, which is no classifier."""
PREPROCESSING = Preprocessing(size_px=299, crop=0.875)


def _ranks() -> Iterator[str]:
    """The entries of the numbered layers, in order of creation."""
    number = 0
    while True:
        yield f"conv2d#{number}|batch_normalization#{number}"
        number += 1


def _next(ranks: Iterator[str], count: int) -> Names:
    return tuple(next(ranks) for _ in range(count))


def _inception_v3() -> dict[str, Names]:
    ranks = _ranks()
    counts = {
        "conv_1a": 1, "conv_2a": 1, "conv_2b": 1, "conv_3b": 1, "conv_4a": 1,
        "mixed_5b": 7, "mixed_5c": 7, "mixed_5d": 7, "mixed_6a": 4,
        "mixed_6b": 10, "mixed_6c": 10, "mixed_6d": 10, "mixed_6e": 10, "mixed_7a": 6, "mixed_7b": 9, "mixed_7c": 9,
    }  # fmt: skip
    return {endpoint: _next(ranks, count) for endpoint, count in counts.items()}


def _inception_resnet_v2() -> dict[str, Names]:
    ranks = _ranks()
    body = {f"stem_conv_{i}": _next(ranks, 1) for i in range(1, 6)}
    body["mixed_5b"] = _next(ranks, 7)
    body |= {f"residual_a{i}": (*_next(ranks, 6), f"block35_{i}_conv") for i in range(1, 11)}
    body["reduction_a"] = _next(ranks, 4)
    body |= {f"residual_b{i}": (*_next(ranks, 4), f"block17_{i}_conv") for i in range(1, 21)}
    body["reduction_b"] = _next(ranks, 7)
    body |= {f"residual_c{i}": (*_next(ranks, 4), f"block8_{i}_conv") for i in range(1, 11)}
    return body | {"conv_7b": ("conv_7b|conv_7b_bn",)}


INCEPTION_V3 = Layout(
    name="Keras's InceptionV3",
    networks=("inception_v3", "inception_v3.torchvision", "inception_v3.fid"),
    style=STYLE,
    body=_inception_v3(),
    classifier=("predictions",),
    preprocessing=PREPROCESSING,
)
INCEPTION_RESNET_V2 = Layout(
    name="Keras's InceptionResNetV2",
    networks=("inception_resnet_v2.slim",),
    style=STYLE,
    body=_inception_resnet_v2(),
    classifier=("predictions",),
    preprocessing=PREPROCESSING,
)


def named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors with numbered layers named by rank, and unnamed ones (`conv2d@0`) by their place in the tree.

    A classifier of another name is renamed to `predictions`, as in Keras.
    """
    numbered = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?/")
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in tensors:
        if found := numbered.match(name):
            numbers[found[1]].add(int(found[2] or 0))
    rank = {(kind, number): i for kind, those in numbers.items() for i, number in enumerate(sorted(those))}
    placed = _placed(tensors)
    matrices = {name.partition("/")[0] for name, tensor in tensors.items() if tensor.dim() == 2} - {EMBEDDING}
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, part = name.partition("/")
        if found := numbered.match(name):
            layer = f"{found[1]}#{rank[found[1], int(found[2] or 0)]}"
        elif matrices == {layer}:
            layer = "predictions"
        renamed[f"{placed.get(layer, layer)}/{part}"] = tensor
    return renamed


def _placed(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The layer behind each unnamed one (`conv2d@5`: the sixth in `model.layers`)."""
    nameless = {name.partition("/")[0] for name in tensors if name.startswith("conv2d@")}
    for layout in (INCEPTION_V3, INCEPTION_RESNET_V2):
        entries = [entry for names in layout.body.values() for entry in names]
        if len(entries) == len(nameless):
            distances = _distances(NETWORKS[layout.networks[0]].body, 0)
            ordered = [entries[i] for i in sorted(range(len(entries)), key=lambda i: -distances[i])]
            norms = [entry.partition("|")[2] for entry in ordered if "|" in entry]
            return {
                **{f"conv2d@{i}": entry.partition("|")[0] for i, entry in enumerate(ordered)},
                **{f"batch_normalization@{i}": norm for i, norm in enumerate(norms)},
            }
    return {}


def _distances(node: Node, after: int) -> list[int]:
    """The Keras layers from each convolution, in tree order, to the output; `after` layers follow the node."""
    match node:
        case Conv():
            return [after]
        case Branches(chains=chains):
            return [distance for chain in chains.values() for distance in _distances(chain, after + 1)]
        case Residual(body=body):
            return [*_distances(body, after + 1), after]
        case Mapping() | Sequence():
            found: list[int] = []
            for part in reversed(list(node.values()) if isinstance(node, Mapping) else list(node)):
                found = _distances(part, after) + found
                after += _length(part)
            return found
    return []


def _length(node: Node) -> int:
    """Keras layers on the longest path through a node; batch norm and activation after a convolution count too."""
    match node:
        case Conv() | Linear():
            return 3
        case Branches(chains=chains):
            return 1 + max(_length(chain) for chain in chains.values())
        case Residual(body=body):
            return 3 + _length(body)  # closing convolution, sum, activation
        case Mapping() | Sequence():
            return sum(_length(part) for part in (node.values() if isinstance(node, Mapping) else node))
    return 1
