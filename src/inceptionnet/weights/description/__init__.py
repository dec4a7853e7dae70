"""Files that describe their own model: Keras's .keras and .h5. The network, its head and what comes before it are read
from the description, and every layer must have a place here: what has none is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inceptionnet.errors import WeightsError, listed, one_line
from inceptionnet.weights.description.base import Base, base_at, nearest_base
from inceptionnet.weights.description.graph import Call, Unreadable, graph_of, layers_of
from inceptionnet.weights.description.head import pooled
from inceptionnet.weights.description.model import Described, Model
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.formats.stored import damaged
from inceptionnet.weights.layouts import keras
from inceptionnet.weights.translate import Translation

OTHERS = {
    "block14_sepconv2": "Xception", "conv5_block3_out": "a ResNet", "conv5_block32_concat": "DenseNet",
    "conv5_block16_concat": "DenseNet", "block5_conv4": "VGG19", "block5_conv3": "VGG16",
    "block_16_project": "MobileNetV2", "conv_pw_13": "MobileNet", "top_conv": "EfficientNet",
    "normal_conv_1_12": "NASNet", "Conv_1": "MobileNetV2", "post_bn": "ResNetV2",
}  # fmt: skip
"""Other networks of keras.applications, by a layer that has a name of its own."""


def described(stored: Stored, name: str | None = None) -> Described | None:
    """What a file that describes its model says; None if it does not.

    Args:
        name: the network asked for, if the file fits several.

    Raises:
        WeightsError: another network, or a layer that this package has no place for.
    """
    if not stored.description:
        return None
    path = stored.path
    try:
        return _read(stored, name)
    except Unreadable as error:
        kind = one_line(stored.description.get("class_name"), 40)
        raise WeightsError(
            f"{path}: describes a model ({kind}) whose layers cannot be followed ({error}); save its weights alone, as "
            ".weights.h5, to load them with the usual head"
        ) from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(path, f"its description of the model: {error!r}") from None


def _read(stored: Stored, name: str | None) -> Described:
    inputs, outputs = graph_of(stored.description)
    for what, calls in (("input", inputs), ("output", outputs)):
        if len(calls) != 1:
            raise WeightsError(
                f"{stored.path}: expected a model with one {what}, got {len(calls)} "
                f"({listed(call.name for call in calls)}); save one with a single {what}"
            )
    base, chain, pool = _base_and_head(stored, outputs[0])
    if any(norm.training for _, norm in base.layers.values() if norm):
        raise WeightsError(
            f"{stored.path}: its base, {base.network.name}, is called with training=True, so that batch norm uses the "
            "statistics of each batch; call it with training=False and save the model again"
        )
    return Model(stored, base, chain, pool, name).read()


def undescribed(found: Translation, stored: Stored) -> tuple[str, ...]:
    """What is assumed of a file that does not describe its model, beside what its translation says.

    Raises:
        WeightsError: Keras's weights of a head that only a description could tell.
    """
    said = (found.layout.remark,) if found.layout.remark else ()
    if stored.format != "Keras" or found.layout.style is not keras.STYLE:
        return said
    unused = {name.rpartition("/")[0] for name in found.dropped if name not in stored.dropped}
    if unused:
        raise WeightsError(
            f"{stored.path}: weights of {found.layout.name} with other layers ({listed(unused)}), and no description "
            "of what they do; save the whole model, as .keras"
        )
    classes = found.configuration.num_classes
    if not classes or "predictions/kernel" in stored.tensors:  # none, or Keras's own
        return said
    return (*said, f"average pool and {found.configuration.activation} assumed, for the file has weights alone")


def _base_and_head(stored: Stored, output: Call) -> tuple[Base, list[Call], str]:
    """The network, the layers after it in order of computation, and the pool before them that joins two."""
    call, pool = output, ""
    chain: list[Call] = []
    while True:
        if base := base_at(call):
            return base, chain[::-1], pool
        if both := pooled(call):
            pool, call = both
            continue
        if len(call.inputs) != 1 or pool:
            break
        chain.append(call)
        call = call.inputs[0]
    nearest = nearest_base([output])
    if nearest is None:
        raise WeightsError(
            f"{stored.path}: its base, {_what_it_is(stored.description)}, is not layer by layer a network of this "
            "package; known in Keras: InceptionV3, InceptionResNetV2 and the face network"
        )
    where = call if len(call.inputs) > 1 else chain[-1] if chain else call
    raise WeightsError(
        f"{stored.path}: {where} stands between the base, {nearest.network.name}, and the output, and this package's "
        "heads do not have it; remove it and save the model again, or run the model in Keras"
    )


def _what_it_is(description: Mapping[str, Any]) -> str:
    """A name for a network that is not of this package."""
    layers = list(layers_of(description))
    models = [(len(list(layers_of({"config": config}))), name) for name, kind, config in layers if "layers" in config]
    if models:
        return max(models)[1]
    names = {name for name, _, _ in layers}
    title = description.get("config", {}).get("name") if isinstance(description.get("config"), Mapping) else None
    return next((other for layer, other in OTHERS.items() if layer in names), str(title or "unknown"))
