"""Other names of the same layers: positions in a Sequential of a model's children, and timm's flattened names.

Source: the order in which torchvision, timm, Cadene and facenet-pytorch define the children of their networks, and
pytorch-fid's blocks. `nn.Sequential(*model.children())` names them by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from inceptionnet.weights.layouts import cadene, facenet, torchvision
from inceptionnet.weights.layouts.layout import Layout, Names

_V3_STEM: Names = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2",
)  # fmt: skip
_V3_17: Names = tuple(f"Mixed_{name}" for name in ["5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"])
_V3_8: Names = ("Mixed_7a", "Mixed_7b", "Mixed_7c")
_V1: Names = (
    "conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a",
    "inception4b", "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a", "inception5b",
)  # fmt: skip
_RESNET_STEM: Names = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a")

CHILDREN: Mapping[Layout, tuple[Names, ...]] = {
    torchvision.INCEPTION_V3: (
        (*_V3_STEM, *_V3_17, *_V3_8, "avgpool", "dropout", "fc"),
        (*_V3_STEM, *_V3_17, "AuxLogits", *_V3_8, "avgpool", "dropout", "fc"),
    ),
    torchvision.GOOGLENET: (
        (*_V1, "avgpool", "dropout", "fc"),
        (*_V1, "aux1", "aux2", "avgpool", "dropout", "fc"),
    ),
    cadene.INCEPTION_V4: (("features", "global_pool", "head_drop", "last_linear"), ("features", "avg_pool")),
    cadene.INCEPTION_RESNET_V2: (
        (
            *_RESNET_STEM, "maxpool_5a", "mixed_5b", "repeat", "mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8",
            "conv2d_7b", "global_pool", "head_drop", "classif",
        ),
    ),
    facenet.FACENET: (
        (
            *_RESNET_STEM, "conv2d_4b", "repeat_1", "mixed_6a", "repeat_2", "mixed_7a", "repeat_3", "block8",
            "avgpool_1a", "dropout", "last_linear", "last_bn", "logits",
        ),
    ),
}  # fmt: skip
"""Every child of the network, in order of definition, with and without auxiliary heads."""

FID_BLOCKS: tuple[Names, ...] = (_V3_STEM[:4], _V3_STEM[4:], _V3_17, _V3_8)
"""pytorch-fid's `blocks`."""


def renamings(layout: Layout) -> Iterator[tuple[str, dict[str, str]]]:
    """Other names of a layout's parts: in words, and by the file's name of a child, the layout's."""
    for order in CHILDREN.get(layout, ()):
        yield "positions in a Sequential", {str(i): child for i, child in enumerate(order)}
    if layout is torchvision.INCEPTION_V3:
        blocks = ((f"blocks.{i}.{j}", child) for i, block in enumerate(FID_BLOCKS) for j, child in enumerate(block))
        yield "pytorch-fid's blocks", dict(blocks)
    if layout in (cadene.INCEPTION_V4, cadene.INCEPTION_RESNET_V2):
        children = dict.fromkeys(
            ".".join(entry.split(".")[:2]) for entry in chain(*layout.body.values()) if entry.split(".")[1:2][:1]
        )
        flat = {child.replace(".", "_"): child for child in children if child.rpartition(".")[2].isdigit()}
        yield "timm's features_only", flat
