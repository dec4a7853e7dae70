"""TF-slim's InceptionV1 to InceptionV4 and InceptionResnetV2.

Source: the scopes in tensorflow/models, research/slim/nets. Batch norm has no gamma, and class 0 of 1001 is the
background. Some published scopes are irregular: a 3×3 called `Conv2d_0a_3x3` in V1's Mixed_5b, a 5×5 called
`Conv_1_0c_5x5` in V3's Mixed_5c, 3×3 called `1x1` in its Mixed_6a, a 3×1 lettered b in Mixed_7b but c in Mixed_7c.
"""

from __future__ import annotations

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.layouts.layout import Layout, Names, Style, within

STYLE = Style(
    "{}", "{}", "{}/BatchNorm", "/",
    {
        "weight": "weights", "bias": "biases", "gamma": "gamma", "beta": "beta",
        "mean": "moving_mean", "var": "moving_variance",
        "depthwise": "depthwise_weights", "pointwise": "pointwise_weights",
    },
    "tensorflow",
)  # fmt: skip


def _preprocessing(size_px: int) -> Preprocessing:
    return Preprocessing(size_px=size_px, crop=0.875, interpolation="tf1-bilinear")


def _v1(module: str, large: str = "0b_3x3") -> Names:
    layers = f"0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 2/Conv2d_0a_1x1 2/Conv2d_{large} 3/Conv2d_0b_1x1"
    return within(f"InceptionV1/{module}/Branch_", layers)


INCEPTION_V1 = Layout(
    name="TF-slim's InceptionV1",
    networks=("inception_v1.slim", "inception_v1.torchvision"),
    style=STYLE,
    body={
        "conv_1": ("InceptionV1/Conv2d_1a_7x7",),
        "conv_2_reduce": ("InceptionV1/Conv2d_2b_1x1",),
        "conv_2": ("InceptionV1/Conv2d_2c_3x3",),
        "inception_3a": _v1("Mixed_3b"),
        "inception_3b": _v1("Mixed_3c"),
        "inception_4a": _v1("Mixed_4b"),
        "inception_4b": _v1("Mixed_4c"),
        "inception_4c": _v1("Mixed_4d"),
        "inception_4d": _v1("Mixed_4e"),
        "inception_4e": _v1("Mixed_4f"),
        "inception_5a": _v1("Mixed_5b", large="0a_3x3"),
        "inception_5b": _v1("Mixed_5c"),
    },
    classifier=("InceptionV1/Logits/Conv2d_0c_1x1",),
    preprocessing=_preprocessing(224),
)


def _v2(module: str) -> Names:
    return within(
        f"InceptionV2/{module}/Branch_",
        "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 "
        "2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_0c_3x3 3/Conv2d_0b_1x1",
    )


def _v2_reduction(module: str) -> Names:
    return within(
        f"InceptionV2/{module}/Branch_",
        "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 1/Conv2d_1a_3x3",
    )


INCEPTION_V2 = Layout(
    name="TF-slim's InceptionV2",
    networks=("inception_v2.slim",),
    style=STYLE,
    body={
        "conv_1": ("InceptionV2/Conv2d_1a_7x7",),
        "conv_2_reduce": ("InceptionV2/Conv2d_2b_1x1",),
        "conv_2": ("InceptionV2/Conv2d_2c_3x3",),
        "inception_3a": _v2("Mixed_3b"),
        "inception_3b": _v2("Mixed_3c"),
        "inception_3c": _v2_reduction("Mixed_4a"),
        "inception_4a": _v2("Mixed_4b"),
        "inception_4b": _v2("Mixed_4c"),
        "inception_4c": _v2("Mixed_4d"),
        "inception_4d": _v2("Mixed_4e"),
        "inception_4e": _v2_reduction("Mixed_5a"),
        "inception_5a": _v2("Mixed_5b"),
        "inception_5b": _v2("Mixed_5c"),
    },
    classifier=("InceptionV2/Logits/Conv2d_1c_1x1",),
    preprocessing=_preprocessing(224),
)

A = "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_5x5 2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_0c_3x3 3/Conv2d_0b_1x1"
B = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 2/Conv2d_0a_1x1 "
    "2/Conv2d_0b_7x1 2/Conv2d_0c_1x7 2/Conv2d_0d_7x1 2/Conv2d_0e_1x7 3/Conv2d_0b_1x1"
)
C = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_1x3 1/Conv2d_0{}_3x1 "
    "2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_0c_1x3 2/Conv2d_0d_3x1 3/Conv2d_0b_1x1"
)


def _v3(module: str, layers: str) -> Names:
    return within(f"InceptionV3/{module}/Branch_", layers)


INCEPTION_V3 = Layout(
    name="TF-slim's InceptionV3",
    networks=("inception_v3", "inception_v3.torchvision", "inception_v3.fid"),
    style=STYLE,
    body={
        "conv_1a": ("InceptionV3/Conv2d_1a_3x3",),
        "conv_2a": ("InceptionV3/Conv2d_2a_3x3",),
        "conv_2b": ("InceptionV3/Conv2d_2b_3x3",),
        "conv_3b": ("InceptionV3/Conv2d_3b_1x1",),
        "conv_4a": ("InceptionV3/Conv2d_4a_3x3",),
        "mixed_5b": _v3("Mixed_5b", A),
        "mixed_5c": _v3("Mixed_5c", A.replace("1/Conv2d_0a_1x1 1/Conv2d_0b_5x5", "1/Conv2d_0b_1x1 1/Conv_1_0c_5x5")),
        "mixed_5d": _v3("Mixed_5d", A),
        "mixed_6a": _v3("Mixed_6a", "0/Conv2d_1a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 1/Conv2d_1a_1x1"),
        "mixed_6b": _v3("Mixed_6b", B),
        "mixed_6c": _v3("Mixed_6c", B),
        "mixed_6d": _v3("Mixed_6d", B),
        "mixed_6e": _v3("Mixed_6e", B),
        "mixed_7a": _v3(
            "Mixed_7a",
            "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 1/Conv2d_1a_3x3",
        ),
        "mixed_7b": _v3("Mixed_7b", C.format("b")),
        "mixed_7c": _v3("Mixed_7c", C.format("c")),
    },
    aux={"mixed_6e": within("InceptionV3/AuxLogits/", "Conv2d_1b_1x1 Conv2d_2a_5x5 Conv2d_2b_1x1")},
    classifier=("InceptionV3/Logits/Conv2d_1c_1x1",),
    preprocessing=_preprocessing(299),
)

V4_A = A.replace("5x5", "3x3")
V4_C = (
    "0/Conv2d_0a_1x1 1/Conv2d_0a_1x1 1/Conv2d_0b_1x3 1/Conv2d_0c_3x1 "
    "2/Conv2d_0a_1x1 2/Conv2d_0b_3x1 2/Conv2d_0c_1x3 2/Conv2d_0d_1x3 2/Conv2d_0e_3x1 3/Conv2d_0b_1x1"
)
REDUCTION_A = "0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_3x3 1/Conv2d_1a_3x3"


def _v4(module: str, layers: str) -> Names:
    return within(f"InceptionV4/{module}/Branch_", layers)


INCEPTION_V4 = Layout(
    name="TF-slim's InceptionV4",
    networks=("inception_v4.slim",),
    style=STYLE,
    body={
        "stem_conv_1": ("InceptionV4/Conv2d_1a_3x3",),
        "stem_conv_2": ("InceptionV4/Conv2d_2a_3x3",),
        "stem_conv_3": ("InceptionV4/Conv2d_2b_3x3",),
        "stem_mixed_1": _v4("Mixed_3a", "1/Conv2d_0a_3x3"),
        "stem_mixed_2": _v4(
            "Mixed_4a",
            "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 1/Conv2d_1a_3x3",
        ),
        "stem_mixed_3": _v4("Mixed_5a", "0/Conv2d_1a_3x3"),
        **{f"inception_a{i}": _v4(f"Mixed_5{letter}", V4_A) for i, letter in enumerate("bcde", 1)},
        "reduction_a": _v4("Mixed_6a", REDUCTION_A),
        **{f"inception_b{i}": _v4(f"Mixed_6{letter}", B) for i, letter in enumerate("bcdefgh", 1)},
        "reduction_b": _v4(
            "Mixed_7a",
            "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_0b_1x7 1/Conv2d_0c_7x1 1/Conv2d_1a_3x3",
        ),
        **{f"inception_c{i}": _v4(f"Mixed_7{letter}", V4_C) for i, letter in enumerate("bcd", 1)},
    },
    aux={"inception_b7": within("InceptionV4/AuxLogits/", "Conv2d_1b_1x1 Conv2d_2a Aux_logits")},
    classifier=("InceptionV4/Logits/Logits",),
    preprocessing=_preprocessing(299),
)

RESIDUAL_A = (
    "Branch_0/Conv2d_1x1 Branch_1/Conv2d_0a_1x1 Branch_1/Conv2d_0b_3x3 "
    "Branch_2/Conv2d_0a_1x1 Branch_2/Conv2d_0b_3x3 Branch_2/Conv2d_0c_3x3 Conv2d_1x1"
)
RESIDUAL_B = "Branch_0/Conv2d_1x1 Branch_1/Conv2d_0a_1x1 Branch_1/Conv2d_0b_1x7 Branch_1/Conv2d_0c_7x1 Conv2d_1x1"
RESIDUAL_C = RESIDUAL_B.replace("1x7", "1x3").replace("7x1", "3x1")


def _resnet(module: str, layers: str) -> Names:
    return within(f"InceptionResnetV2/{module}", layers)


INCEPTION_RESNET_V2 = Layout(
    name="TF-slim's InceptionResnetV2",
    networks=("inception_resnet_v2.slim",),
    style=STYLE,
    body={
        "stem_conv_1": ("InceptionResnetV2/Conv2d_1a_3x3",),
        "stem_conv_2": ("InceptionResnetV2/Conv2d_2a_3x3",),
        "stem_conv_3": ("InceptionResnetV2/Conv2d_2b_3x3",),
        "stem_conv_4": ("InceptionResnetV2/Conv2d_3b_1x1",),
        "stem_conv_5": ("InceptionResnetV2/Conv2d_4a_3x3",),
        "mixed_5b": _resnet("Mixed_5b/Branch_", A.replace("0/Conv2d_0a_1x1 1/", "0/Conv2d_1x1 1/")),
        **{f"residual_a{i}": _resnet(f"Repeat/block35_{i}/", RESIDUAL_A) for i in range(1, 11)},
        "reduction_a": _resnet("Mixed_6a/Branch_", REDUCTION_A),
        **{f"residual_b{i}": _resnet(f"Repeat_1/block17_{i}/", RESIDUAL_B) for i in range(1, 21)},
        "reduction_b": _resnet(
            "Mixed_7a/Branch_",
            "0/Conv2d_0a_1x1 0/Conv2d_1a_3x3 1/Conv2d_0a_1x1 1/Conv2d_1a_3x3 "
            "2/Conv2d_0a_1x1 2/Conv2d_0b_3x3 2/Conv2d_1a_3x3",
        ),
        **{f"residual_c{i}": _resnet(f"Repeat_2/block8_{i}/", RESIDUAL_C) for i in range(1, 10)},
        "residual_c10": _resnet("Block8/", RESIDUAL_C),
        "conv_7b": ("InceptionResnetV2/Conv2d_7b_1x1",),
    },
    aux={"residual_b20": within("InceptionResnetV2/AuxLogits/", "Conv2d_1b_1x1 Conv2d_2a_5x5 Logits")},
    classifier=("InceptionResnetV2/Logits/Logits",),
    preprocessing=_preprocessing(299),
)
