"""Judges: facenet-pytorch 2.6.0, `InceptionResnetV1`, with classifier and without; its embedding has length 1.

Under TensorFlow's and Keras's names: the same network written here for tf-slim 1.1.0 and Keras 3.15.1, since neither
library has it, with scopes and layer names as in the published files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inceptionnet import load

from .conftest import Peer
from .judging import SMALL_PX, agree, random_images, randomise, recognised

NETWORK = "inception_resnet_v1.facenet"
CLASSES = 31


@pytest.fixture(scope="module")
def classifier(peer: Peer) -> nn.Module:
    model = peer("facenet_pytorch").InceptionResnetV1(classify=True, num_classes=CLASSES).eval()
    randomise(model, seed=7)
    return model


@pytest.mark.parametrize("size", [(160, 160), SMALL_PX], ids=str)
def test_with_classifier(classifier: nn.Module, folder: Path, size: tuple[int, int]) -> None:
    torch.save(classifier.state_dict(), folder / "faces.pt")
    ours = recognised(folder / "faces.pt", NETWORK, classes=CLASSES)
    x = random_images(*size)
    agree(ours(x), classifier(x))
    classifier.classify = False
    try:
        expected = classifier(x)
    finally:
        classifier.classify = True
    agree(F.normalize(ours.embed(x)), expected)


def test_as_published_for_8631_faces(peer: Peer, folder: Path) -> None:
    theirs = peer("facenet_pytorch").InceptionResnetV1(classify=True, num_classes=8631).eval()
    randomise(theirs, seed=8)
    torch.save(theirs.state_dict(), folder / "vggface2.pt", _use_new_zipfile_serialization=False)
    x = random_images(*SMALL_PX)
    agree(recognised(folder / "vggface2.pt", NETWORK, classes=8631)(x), theirs(x))


def test_without_classifier_the_output_is_the_embedding(peer: Peer, folder: Path) -> None:
    theirs = peer("facenet_pytorch").InceptionResnetV1(classify=False).eval()
    randomise(theirs, seed=9)
    torch.save(theirs.state_dict(), folder / "faces.pt")
    ours = recognised(folder / "faces.pt", NETWORK, classes=0)
    x = random_images(*SMALL_PX)
    agree(F.normalize(ours.embed(x)), theirs(x))
    agree(F.normalize(ours(x)), theirs(x))


BLOCKS = {
    "block35": ({"0": ("Conv2d_1x1",), "1": ("0a_1x1", "0b_3x3"), "2": ("0a_1x1", "0b_3x3", "0c_3x3")}, 32, 256, 0.17),
    "block17": ({"0": ("Conv2d_1x1",), "1": ("0a_1x1", "0b_1x7", "0c_7x1")}, 128, 896, 0.10),
    "block8": ({"0": ("Conv2d_1x1",), "1": ("0a_1x1", "0b_1x3", "0c_3x1")}, 192, 1792, 0.20),
}
"""Branches, their filters, the depth of the grid and the residual scale."""
STEM = (("1a_3x3", 32, 2, "VALID"), ("2a_3x3", 32, 1, "VALID"), ("2b_3x3", 64, 1, "SAME"), None,
        ("3b_1x1", 80, 1, "VALID"), ("4a_3x3", 192, 1, "VALID"), ("4b_3x3", 256, 2, "VALID"))  # fmt: skip
REDUCTIONS = {
    "Mixed_6a": ((("1a_3x3", 384, 2),), (("0a_1x1", 192, 1), ("0b_3x3", 192, 1), ("1a_3x3", 256, 2))),
    "Mixed_7a": (
        (("0a_1x1", 256, 1), ("1a_3x3", 384, 2)),
        (("0a_1x1", 256, 1), ("1a_3x3", 256, 2)),
        (("0a_1x1", 256, 1), ("0b_3x3", 256, 1), ("1a_3x3", 256, 2)),
    ),
}


def sides(name: str) -> tuple[int, int]:
    height, width = name.rpartition("_")[2].split("x")
    return int(height), int(width)


def values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith(("weights", "kernel")):
        return rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return rng.normal(0, 0.1, shape).astype(np.float32)


def slim_graph(tf: Any, slim: Any, images: Any, length: int, classes: int) -> tuple[Any, Any]:
    """Embedding and logits."""
    scope = tf.compat.v1.variable_scope
    norm = {"is_training": False, "decay": 0.995, "epsilon": 0.001, "updates_collections": None}

    def block(net: Any, kind: str, scale: float, relu: bool) -> Any:
        branches, filters, depth, _ = BLOCKS[kind]
        ends = []
        for number, names in branches.items():
            with scope(f"Branch_{number}"):
                end = net
                for name in names:
                    full = name if name.startswith("Conv2d") else f"Conv2d_{name}"
                    end = slim.conv2d(end, filters, sides(name), scope=full)
                ends.append(end)
        up = slim.conv2d(tf.concat(ends, 3), depth, 1, normalizer_fn=None, activation_fn=None, scope="Conv2d_1x1")
        net = net + scale * up
        return tf.nn.relu(net) if relu else net

    def reduction(net: Any, kind: str) -> Any:
        ends = []
        with scope(kind):
            for number, layers in enumerate(REDUCTIONS[kind]):
                with scope(f"Branch_{number}"):
                    end = net
                    for name, filters, stride in layers:
                        padding = "VALID" if stride == 2 else "SAME"
                        end = slim.conv2d(end, filters, sides(name), stride, padding, scope=f"Conv2d_{name}")
                    ends.append(end)
            return tf.concat([*ends, slim.max_pool2d(net, 3, 2)], 3)

    def block35(net: Any, scope: str) -> Any:
        with tf.compat.v1.variable_scope(scope):
            return block(net, "block35", 0.17, True)

    def block17(net: Any, scope: str) -> Any:
        with tf.compat.v1.variable_scope(scope):
            return block(net, "block17", 0.10, True)

    def block8(net: Any, scope: str) -> Any:
        with tf.compat.v1.variable_scope(scope):
            return block(net, "block8", 0.20, True)

    normed = slim.arg_scope([slim.conv2d, slim.fully_connected], normalizer_fn=slim.batch_norm, normalizer_params=norm)
    with normed, scope("InceptionResnetV1"):
        net = images
        for layer in STEM:
            if layer is None:
                net = slim.max_pool2d(net, 3, 2)
            else:
                name, filters, stride, padding = layer
                net = slim.conv2d(net, filters, sides(name), stride, padding, scope=f"Conv2d_{name}")
        net = slim.repeat(net, 5, block35)
        net = slim.repeat(reduction(net, "Mixed_6a"), 10, block17)
        net = slim.repeat(reduction(net, "Mixed_7a"), 5, block8)
        with scope("Block8"):
            net = block(net, "block8", 1.0, False)
        net = tf.reduce_mean(net, [1, 2])
        embedding = slim.fully_connected(net, length, activation_fn=None, scope="Bottleneck")
    return embedding, slim.fully_connected(embedding, classes, activation_fn=None, scope="Logits")


@pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated:UserWarning")
@pytest.mark.parametrize(("length", "with_logits"), [(512, True), (128, False)])
def test_tensorflows_checkpoint(tf: Any, slim: Any, folder: Path, length: int, with_logits: bool) -> None:
    v1 = tf.compat.v1
    rng = np.random.default_rng(5)
    x = random_images(*SMALL_PX)
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (2, *SMALL_PX, 3))
        embedding, logits = slim_graph(tf, slim, images, length, CLASSES)
        variables = [v for v in v1.global_variables() if with_logits or not v.op.name.startswith("Logits")]
        session.run(v1.global_variables_initializer())
        fed = {v.initializer.inputs[1]: values(v.op.name, tuple(v.shape), rng) for v in variables}
        session.run([v.initializer for v in variables], fed)
        expected = [
            torch.from_numpy(y) for y in session.run([embedding, logits], {images: x.permute(0, 2, 3, 1).numpy()})
        ]
        names = {v.op.name for v in variables}
        assert {"InceptionResnetV1/Repeat_2/block8_5/Conv2d_1x1/biases", "InceptionResnetV1/Block8/Conv2d_1x1/weights",
                "InceptionResnetV1/Bottleneck/BatchNorm/moving_mean"} <= names  # fmt: skip
        v1.train.Saver(variables).save(session, str(folder / "model-20180402-114759.ckpt-275"))
    ours = recognised(folder / "model-20180402-114759.ckpt-275", NETWORK, classes=CLASSES if with_logits else 0)
    agree(ours.embed(x), expected[0])
    if with_logits:
        agree(ours(x), expected[1])


def keras_port(keras: Any, length: int, size: int | None) -> Any:
    """Embedding, by the layer names of the port."""
    la = keras.layers

    def conv(x: Any, name: str, filters: int, stride: int = 1, padding: str = "same") -> Any:
        x = la.Conv2D(filters, sides(name), strides=stride, padding=padding, use_bias=False, name=name)(x)
        x = la.BatchNormalization(momentum=0.995, epsilon=0.001, scale=False, name=f"{name}_BatchNorm")(x)
        return la.Activation("relu", name=f"{name}_Activation")(x)

    def block(x: Any, kind: str, number: int, last: bool = False) -> Any:
        branches, filters, depth, scale = BLOCKS[kind]
        title = f"{kind.capitalize()}_{number}"
        ends = []
        for branch, names in branches.items():
            end = x
            for name in names:
                full = name if name.startswith("Conv2d") else f"Conv2d_{name}"
                end = conv(end, f"{title}_Branch_{branch}_{full}", filters)
            ends.append(end)
        up = la.Conv2D(depth, 1, padding="same", name=f"{title}_Conv2d_1x1")(la.Concatenate()(ends))
        x = la.Add()([x, la.Rescaling(1.0 if last else scale)(up)])
        return x if last else la.Activation("relu", name=f"{title}_Activation")(x)

    def reduction(x: Any, kind: str) -> Any:
        ends = []
        for number, layers in enumerate(REDUCTIONS[kind]):
            end = x
            for name, filters, stride in layers:
                padding = "valid" if stride == 2 else "same"
                end = conv(end, f"{kind}_Branch_{number}_Conv2d_{name}", filters, stride, padding)
            ends.append(end)
        return la.Concatenate(name=kind)([*ends, la.MaxPooling2D(3, strides=2)(x)])

    i = x = keras.Input((size, size, 3))
    for layer in STEM:
        if layer is None:
            x = la.MaxPooling2D(3, strides=2, name="MaxPool_3a_3x3")(x)
        else:
            x = conv(x, f"Conv2d_{layer[0]}", layer[1], layer[2], layer[3].lower())
    for n in range(1, 6):
        x = block(x, "block35", n)
    x = reduction(x, "Mixed_6a")
    for n in range(1, 11):
        x = block(x, "block17", n)
    x = reduction(x, "Mixed_7a")
    for n in range(1, 7):
        x = block(x, "block8", n, last=n == 6)
    x = la.Dropout(0.2, name="Dropout")(la.GlobalAveragePooling2D(name="AvgPool")(x))
    x = la.Dense(length, use_bias=False, name="Bottleneck")(x)
    x = la.BatchNormalization(momentum=0.995, epsilon=0.001, scale=False, name="Bottleneck_BatchNorm")(x)
    model = keras.Model(i, x)
    rng = np.random.default_rng(6)
    for variable in model.weights:
        variable.assign(values(variable.name, tuple(variable.shape), rng))
    return model


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(("form", "length"), [("facenet_weights.h5", 128), ("a.weights.h5", 512), ("a.keras", 128)])
def test_keras_port(peer: Peer, folder: Path, form: str, length: int) -> None:
    from .test_keras import save_legacy_weights

    model = keras_port(peer("keras"), length, 160 if form == "a.keras" else None)
    saved: dict[str, Callable[[Any, Path], None]] = {"facenet_weights.h5": save_legacy_weights}
    saved.get(form, lambda m, p: m.save_weights(p) if ".weights." in p.name else m.save(p))(model, folder / form)
    x: Tensor = random_images(*((160, 160) if form == "a.keras" else SMALL_PX))
    expected = model(x.permute(0, 2, 3, 1), training=False)
    ours = recognised(folder / form, NETWORK, classes=0)
    agree(ours.embed(x), expected)
    assert "(x - 127.5) / 128" in load(folder / form).assumed or form == "a.keras"
