"""facenet-pytorch's InceptionResnetV1, with and without its classifier.

Source: the module names in facenet_pytorch/models/inception_resnet_v1.py. Its embedding is that of
`InceptionNet.embed`, L2-normalised.
"""

from __future__ import annotations

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.layouts.cadene import REDUCTION_A, REDUCTION_B, RESIDUAL, RESIDUAL_A, RESNET_STEM
from inceptionnet.weights.layouts.layout import TORCH, Layout, within

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
    # For cropped faces: (x - 127.5) / 128.
    preprocessing=Preprocessing(size_px=160, crop=1.0, mean=(0.5,), std=(128 / 255,)),
)
