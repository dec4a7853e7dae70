"""Cadene's inceptionv4, inceptionresnetv2 and bninception; timm's inception_v4 and inception_resnet_v2 are identical.

Source: the module names in pretrainedmodels/models and timm/models. bninception was ported from Caffe: every
convolution has a bias before its batch norm, and the input is BGR in 0 to 255 minus the mean. Biases are folded into
batch norm's mean, channel order and scale into the first convolution, so that the network takes RGB like the others.
"""

from __future__ import annotations

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.layouts.layout import TORCH, TORCH_PARTS, Layout, Names, Style, within


def _timm(resized_px: int) -> Preprocessing:
    """timm's evaluation: bicubic resize of the shorter side to `resized_px`, then a centre crop of 299 px."""
    return Preprocessing(size_px=299, crop=299 / resized_px, resize="keep-aspect", interpolation="bicubic")


INCEPTION_V4 = Layout(
    name="timm's and Cadene's inception_v4",
    networks=("inception_v4.slim",),
    style=TORCH,
    body={
        "stem_conv_1": ("features.0",),
        "stem_conv_2": ("features.1",),
        "stem_conv_3": ("features.2",),
        "stem_mixed_1": ("features.3.conv",),
        "stem_mixed_2": within("features.4.", "branch0.0 branch0.1 branch1.0 branch1.1 branch1.2 branch1.3"),
        "stem_mixed_3": ("features.5.conv",),
        **{
            f"inception_a{i}": within(
                f"features.{i + 5}.", "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 branch3.1"
            )
            for i in range(1, 5)
        },
        "reduction_a": within("features.10.", "branch0 branch1.0 branch1.1 branch1.2"),
        **{
            f"inception_b{i}": within(
                f"features.{i + 10}.",
                "branch0 branch1.0 branch1.1 branch1.2 branch2.0 branch2.1 branch2.2 branch2.3 branch2.4 branch3.1",
            )
            for i in range(1, 8)
        },
        "reduction_b": within("features.18.", "branch0.0 branch0.1 branch1.0 branch1.1 branch1.2 branch1.3"),
        **{
            f"inception_c{i}": within(
                f"features.{i + 18}.",
                "branch0 branch1_0 branch1_1a branch1_1b branch2_0 branch2_1 branch2_2 branch2_3a branch2_3b branch3.1",
            )
            for i in range(1, 4)
        },
    },
    classifier=("last_linear",),
    preprocessing=_timm(341),
)

RESNET_STEM: dict[str, Names] = {
    "stem_conv_1": ("conv2d_1a",),
    "stem_conv_2": ("conv2d_2a",),
    "stem_conv_3": ("conv2d_2b",),
    "stem_conv_4": ("conv2d_3b",),
    "stem_conv_5": ("conv2d_4a",),
}
RESIDUAL_A = "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 conv2d"
RESIDUAL = "branch0 branch1.0 branch1.1 branch1.2 conv2d"
REDUCTION_A = "branch0 branch1.0 branch1.1 branch1.2"
REDUCTION_B = "branch0.0 branch0.1 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2"

INCEPTION_RESNET_V2 = Layout(
    name="timm's and Cadene's inception_resnet_v2",
    networks=("inception_resnet_v2.slim",),
    style=TORCH,
    body={
        **RESNET_STEM,
        "mixed_5b": within("mixed_5b.", "branch0 branch1.0 branch1.1 branch2.0 branch2.1 branch2.2 branch3.1"),
        **{f"residual_a{i}": within(f"repeat.{i - 1}.", RESIDUAL_A) for i in range(1, 11)},
        "reduction_a": within("mixed_6a.", REDUCTION_A),
        **{f"residual_b{i}": within(f"repeat_1.{i - 1}.", RESIDUAL) for i in range(1, 21)},
        "reduction_b": within("mixed_7a.", REDUCTION_B),
        **{f"residual_c{i}": within(f"repeat_2.{i - 1}.", RESIDUAL) for i in range(1, 10)},
        "residual_c10": within("block8.", RESIDUAL),
        "conv_7b": ("conv2d_7b",),
    },
    classifier=("last_linear", "classif"),
    preprocessing=_timm(333),
)


def _inception(name: str, *, reduction: bool = False) -> Names:
    first, last = ("", "") if reduction else ("1x1 ", " pool_proj")
    layers = f"{first}3x3_reduce 3x3 double_3x3_reduce double_3x3_1 double_3x3_2{last}"
    return within(f"inception_{name}_", layers)


BN_INCEPTION = Layout(
    name="Cadene's bninception",
    networks=("inception_v2.caffe",),
    style=Style("{}", "{}", "{}_bn", ".", TORCH_PARTS, "torch"),
    body={
        "conv_1": ("conv1_7x7_s2",),
        "conv_2_reduce": ("conv2_3x3_reduce",),
        "conv_2": ("conv2_3x3",),
        **{f"inception_{name}": _inception(name) for name in ("3a", "3b")},
        "inception_3c": _inception("3c", reduction=True),
        **{f"inception_{name}": _inception(name) for name in ("4a", "4b", "4c", "4d")},
        "inception_4e": _inception("4e", reduction=True),
        **{f"inception_{name}": _inception(name) for name in ("5a", "5b")},
    },
    classifier=("last_linear", "fc"),
    preprocessing=Preprocessing(
        size_px=224, crop=0.875, resize="keep-aspect", mean=(128 / 255, 117 / 255, 104 / 255), std=(0.5,)
    ),
    bgr_255=True,
)
