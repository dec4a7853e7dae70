"""torchvision's inception_v3 and googlenet; timm's and Cadene's inception_v3 and the FID graph have the same names.

Source: the module names in torchvision/models/inception.py and googlenet.py. torchvision's pretrained models convert
input normalised with ImageNet's mean and std to [-1, 1] (`transform_input`); the weights, and so the networks here,
take [-1, 1].
"""

from __future__ import annotations

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.layouts.layout import TORCH, Layout, Names, within

A = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool"
B = (
    "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 "
    "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 branch_pool"
)
C = (
    "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b "
    "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b branch_pool"
)

INCEPTION_V3 = Layout(
    name="torchvision's and timm's inception_v3",
    networks=("inception_v3.torchvision", "inception_v3", "inception_v3.fid"),
    style=TORCH,
    body={
        "conv_1a": ("Conv2d_1a_3x3",),
        "conv_2a": ("Conv2d_2a_3x3",),
        "conv_2b": ("Conv2d_2b_3x3",),
        "conv_3b": ("Conv2d_3b_1x1",),
        "conv_4a": ("Conv2d_4a_3x3",),
        "mixed_5b": within("Mixed_5b.", A),
        "mixed_5c": within("Mixed_5c.", A),
        "mixed_5d": within("Mixed_5d.", A),
        "mixed_6a": within("Mixed_6a.", "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"),
        "mixed_6b": within("Mixed_6b.", B),
        "mixed_6c": within("Mixed_6c.", B),
        "mixed_6d": within("Mixed_6d.", B),
        "mixed_6e": within("Mixed_6e.", B),
        "mixed_7a": within(
            "Mixed_7a.", "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"
        ),
        "mixed_7b": within("Mixed_7b.", C),
        "mixed_7c": within("Mixed_7c.", C),
    },
    aux={"mixed_6e": ("AuxLogits.conv0", "AuxLogits.conv1", "AuxLogits.fc")},
    classifier=("fc", "last_linear"),
    by_classes={1008: "inception_v3.fid"},
    # Shorter side resized to 342 px, centre crop of 299 px.
    preprocessing=Preprocessing(size_px=299, crop=299 / 342, resize="keep-aspect"),
)


def _inception(name: str) -> Names:
    return within(f"inception{name}.", "branch1 branch2.0 branch2.1 branch3.0 branch3.1 branch4.1")


GOOGLENET = Layout(
    name="torchvision's googlenet",
    networks=("inception_v1.torchvision", "inception_v1.slim"),
    style=TORCH,
    body={
        "conv_1": ("conv1",),
        "conv_2_reduce": ("conv2",),
        "conv_2": ("conv3",),
        **{f"inception_{name}": _inception(name) for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")},
    },
    aux={
        "inception_4a": within("aux1.", "conv fc1 fc2"),
        "inception_4d": within("aux2.", "conv fc1 fc2"),
    },
    classifier=("fc",),
    preprocessing=Preprocessing(size_px=224, crop=224 / 256, resize="keep-aspect"),
)
