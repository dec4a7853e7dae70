"""The face network InceptionResnetV1, of facenet-pytorch, TensorFlow and Keras, with and without classifier.

Source: the module names in facenet_pytorch/models/inception_resnet_v1.py; the variable scopes of davidsandberg/facenet,
src/models/inception_resnet_v1.py, whose classifier is outside the network's scope; and the layer names of the Keras
port of it (facenet_keras.h5, facenet_weights.h5). Its embedding is that of `InceptionNet.embed`, L2-normalised.
"""

from __future__ import annotations

from collections.abc import Callable

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.layouts import keras, slim
from inceptionnet.weights.layouts.cadene import REDUCTION_A, REDUCTION_B, RESIDUAL, RESIDUAL_A, RESNET_STEM
from inceptionnet.weights.layouts.layout import TORCH, Layout, Names, within

# For cropped faces: (x - 127.5) / 128.
FIXED = Preprocessing(size_px=160, crop=1.0, mean=(0.5,), std=(128 / 255,))
REMARK = (
    "scaled by (x - 127.5) / 128, as for the checkpoints of 2018: those of 2017, with an embedding of 128, were "
    "trained on images that were each whitened by their own mean and std, which preprocessing here cannot do"
)

FACENET = Layout(
    name="facenet-pytorch's InceptionResnetV1",
    networks=("inception_resnet_v1.facenet",),
    style=TORCH,
    body={
        **RESNET_STEM,
        "stem_conv_6": ("conv2d_4b",),
        **{f"residual_a{i}": within(f"repeat_1.{i - 1}.", RESIDUAL_A) for i in range(1, 6)},
        "reduction_a": within("mixed_6a.", REDUCTION_A),
        **{f"residual_b{i}": within(f"repeat_2.{i - 1}.", RESIDUAL) for i in range(1, 11)},
        "reduction_b": within("mixed_7a.", REDUCTION_B),
        **{f"residual_c{i}": within(f"repeat_3.{i - 1}.", RESIDUAL) for i in range(1, 6)},
        "residual_c6": within("block8.", RESIDUAL),
        "embedding": ("last_linear|last_bn",),
    },
    classifier=("logits",),
    preprocessing=FIXED,
)


def _body(
    block_35: str, block_17: str, block_8: str, last: str, entries: Callable[[str, str], Names]
) -> dict[str, Names]:
    """The body and embedding; `entries(prefix, names)` is how the names of a module's layers are written."""
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Conv2d_4b_3x3")
    reduction_b = (
        "Branch_0/Conv2d_0a_1x1 Branch_0/Conv2d_1a_3x3 Branch_1/Conv2d_0a_1x1 Branch_1/Conv2d_1a_3x3 "
        "Branch_2/Conv2d_0a_1x1 Branch_2/Conv2d_0b_3x3 Branch_2/Conv2d_1a_3x3"
    )
    reduction_a = slim.REDUCTION_A.replace("0/", "Branch_0/").replace("1/", "Branch_1/")
    return {
        **{f"stem_conv_{i}": entries("", name) for i, name in enumerate(stem, 1)},
        **{f"residual_a{i}": entries(f"{block_35}{i}/", slim.RESIDUAL_A) for i in range(1, 6)},
        "reduction_a": entries("Mixed_6a/", reduction_a),
        **{f"residual_b{i}": entries(f"{block_17}{i}/", slim.RESIDUAL_B) for i in range(1, 11)},
        "reduction_b": entries("Mixed_7a/", reduction_b),
        **{f"residual_c{i}": entries(f"{block_8}{i}/", slim.RESIDUAL_C) for i in range(1, 6)},
        "residual_c6": entries(last, slim.RESIDUAL_C),
        "embedding": entries("", "Bottleneck"),
    }


def _scopes(prefix: str, names: str) -> Names:
    return within(f"InceptionResnetV1/{prefix}", names)


def _layers(prefix: str, names: str) -> Names:
    """The Keras port has no scopes, and the batch norm of a convolution is a layer named after it."""
    flat = [(prefix + name).replace("/", "_") for name in names.split()]
    closing = prefix.startswith("Block")
    return tuple(name if closing and i == len(flat) - 1 else f"{name}|{name}_BatchNorm" for i, name in enumerate(flat))


TENSORFLOW = Layout(
    name="davidsandberg's FaceNet",
    networks=("inception_resnet_v1.facenet",),
    style=slim.STYLE,
    body=_body("Repeat/block35_", "Repeat_1/block17_", "Repeat_2/block8_", "Block8/", _scopes),
    classifier=("Logits",),
    preprocessing=FIXED,
    remark=REMARK,
)
KERAS = Layout(
    name="FaceNet in Keras",
    networks=("inception_resnet_v1.facenet",),
    style=keras.STYLE,
    body=_body("Block35_", "Block17_", "Block8_", "Block8_6/", _layers),
    classifier=("predictions",),
    preprocessing=FIXED,
    remark=REMARK,
)
