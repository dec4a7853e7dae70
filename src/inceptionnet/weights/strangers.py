"""State dicts of other networks, named for what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from inceptionnet.errors import listed
from inceptionnet.weights.layouts import Layout

SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("timm's inception_next (MetaNeXt, another architecture)", ("token_mixer.dwconv_hw.weight",)),
    ("a file of Keras 1, which numbers and orders its layers differently", ("convolution2d_", "batchnormalization_1/")),
    ("xception", ("block1.rep.0.conv1.weight", "block12.rep.")),
    ("aligned xception", ("blocks.0.stack.conv1.conv_dw.weight",)),
    ("a LoRA adapter (PEFT), which holds changes of weights and not the weights", ("lora_A", "lora_down")),
    ("a vision transformer", ("cls_token", "patch_embed.proj.weight", "vit.embeddings.")),
    ("a Swin transformer", ("relative_position_bias_table",)),
    ("ConvNeXt", ("downsample_layers.0.0.weight", "stages.0.blocks.0.conv_dw.weight")),
    ("EfficientNet or MobileNet", ("conv_head.weight", "_conv_head.weight", "features.0.0.weight")),
    ("DenseNet", ("denseblock1.denselayer1.",)),
    ("ResNet", ("layer1.0.conv1.weight", "layer4.0.conv1.weight")),
    ("VGG or AlexNet", ("classifier.6.weight",)),
    ("YOLO", ("model.22.", "model.24.m.0.weight")),
    ("pytorch-fid's or another Inception graph of TensorFlow, as a scripted module", ("layers.conv.weight",)),
)
"""Parts of names that one kind of network has."""


def other_network(tensors: Mapping[str, Tensor], layouts: Iterable[Layout]) -> str:
    """What a state dict is that has no layout of this family, and what to do, for an error."""
    for what, parts in SIGNATURES:
        if any(part in name for part in parts for name in tensors):
            return (
                f"expected weights of the Inception family, got {what}, by its tensor names "
                f"({next(name for name in tensors for part in parts if part in name)}); `inceptionnet weights` lists "
                "what is read"
            )
    some = ", ".join(sorted(tensors)[:3])
    return (
        f"{len(tensors)} tensors ({some or 'none'} …) in an unknown layout; "
        f"known: {listed(layout.name for layout in layouts)}"
    )


def changed_weights(tensors: Iterable[str]) -> str:
    """What else than weights a state dict holds that changes its function, and what to do; empty if nothing."""
    for name in tensors:
        if ".lora_" in name:
            return (
                f"weights with changes of a LoRA adapter beside them ({name}); merge them (merge_and_unload) and save"
            )
        if name.endswith("_packed_params") or "weight_fake_quant" in name or "activation_post_process" in name:
            return (
                f"a network of quantisation-aware training ({name}), whose weights and activations are rounded; give "
                "the float weights that it started from"
            )
    return ""


def reparametrised(tensors: Mapping[str, Tensor], missing: Iterable[str]) -> str:
    """What else a file has in place of the missing weights, and what to do; empty if nothing."""
    kinds = {
        "_orig": "pruned or spectrally normalised weights",
        "_g": "weight-normalised weights",
        "_mask": "pruned weights",
        "_packed": "quantised weights",
        "lora_A": "a LoRA adapter's changes",
    }
    for layer in missing:
        for name in tensors:
            if name.startswith(layer) and "parametrizations" in name:
                return f"with parametrised weights ({name}); remove the parametrisation before saving"
            for ending, what in kinds.items():
                if name.startswith(layer) and name.endswith(f"weight{ending}"):
                    return f"with {what} ({name}); make them plain weights before saving"
    return ""
