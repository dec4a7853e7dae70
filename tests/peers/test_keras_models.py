"""Judges: Keras 3.15.1 on torch and tf_keras 2.21.0; models with a network of `applications` between other layers.

Each answers images of 8 bits with what its own library says, or is refused by the name of the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet import load
from inceptionnet.classifier import Classifier
from inceptionnet.errors import WeightsError

from .conftest import Peer

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

PX = 75
TOLERANCE = 1e-4  # of probabilities
RNG = np.random.default_rng(17)
IMAGES = [
    np.clip(RNG.integers(0, 256, 3) + RNG.integers(-60, 61, (PX, PX, 3)), 0, 255).astype(np.uint8) for _ in range(3)
]


@pytest.fixture(scope="module")
def base(keras: Any) -> Any:
    """One network for all heads: without top, of random weights."""
    return spread(keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(PX, PX, 3)))


def spread(model: Any) -> Any:
    """Random weights that tell images apart, and random statistics."""
    rng = np.random.default_rng(3)
    for variable in model.weights:
        name, shape = variable.path.rpartition("/")[2] if hasattr(variable, "path") else variable.name, variable.shape
        name = name.partition(":")[0].rpartition("/")[2]
        if name == "kernel":
            variable.assign(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, tuple(shape)))
        elif name in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 1.5, tuple(shape)))
        elif name in ("moving_mean", "beta", "bias"):
            variable.assign(rng.normal(0, 0.1, tuple(shape)))
    return model


def answers(clf: Classifier, paths: list[str]) -> np.ndarray:
    logits = clf.logits(paths)
    sigmoid = clf.record.configuration.activation == "sigmoid"
    return (logits.sigmoid() if sigmoid else logits.softmax(1)).numpy()


def same(
    model: Any, path: Path, *, scaled: bool = False, logits: bool = False, tolerance: float = TOLERANCE
) -> Classifier:
    """Save the model and compare; `scaled`: whether it scales its images itself."""
    head = [layer for layer in model.layers if not hasattr(layer, "layers")]
    for layer in head:
        if not layer.name.startswith(("conv2d", "batch_normalization_")):
            spread_head(layer)
    x = np.stack(IMAGES).astype("float32")
    expected = model(x if scaled else x / 127.5 - 1, training=False)
    expected = expected.detach().float().numpy() if isinstance(expected, torch.Tensor) else expected.numpy()
    model.save(path)
    paths = []
    for i, image in enumerate(IMAGES):
        paths.append(str(path.parent / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    clf = load(path)
    got = clf.logits(paths).numpy() if logits else answers(clf, paths)
    assert np.ptp(expected, axis=0).max() > 10 * TOLERANCE, "the images look alike to the peer"
    assert np.abs(got - expected).max() <= tolerance
    return clf


def spread_head(layer: Any) -> None:
    """Dense layers of the head with a bias, and statistics of its batch norms."""
    kind = type(layer).__name__
    if kind == "Dense" or (kind == "BatchNormalization" and layer.name.startswith("head")):
        spread(layer)


def on(keras: Any, base: Any, pool: str, *after: Any) -> Any:
    """The layers one after another on the base."""
    x = base.output
    for layer in (getattr(keras.layers, f"Global{pool}Pooling2D")(), *after):
        x = layer(x)
    return keras.Model(base.input, x)


def dense_and_relu_apart(keras: Any, base: Any) -> Any:
    la = keras.layers
    return on(
        keras, base, "Average", la.Dense(24, use_bias=False), la.BatchNormalization(scale=False, name="head_1"),
        la.ReLU(), la.Dropout(0.3), la.Dense(16), la.BatchNormalization(center=False, epsilon=0.01, name="head_2"),
        la.Activation("relu"), la.GaussianNoise(0.1), la.Dense(3, activation="softmax"),
    )  # fmt: skip


def several_functions(keras: Any, base: Any) -> Any:
    la = keras.layers
    return on(
        keras, base, "Max", la.Dense(16, activation="leaky_relu"), la.LeakyReLU(0.05), la.Dense(16, activation="elu"),
        la.Dense(16, activation="gelu"), la.Dense(16), la.Activation("swish"), la.Dense(12, activation="selu"),
        la.ReLU(negative_slope=0.25), la.Dense(12, activation=la.LeakyReLU(0.1)), la.ReLU(max_value=6),
        la.Dense(4), la.Softmax(),
    )  # fmt: skip


def labels_apart(keras: Any, base: Any) -> Any:
    return on(keras, base, "Average", keras.layers.Dense(5), keras.layers.Activation("sigmoid"))


def one_logit(keras: Any, base: Any) -> Any:
    return on(keras, base, "Average", keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid"))


def norm_around(keras: Any, base: Any) -> Any:
    la = keras.layers
    x = la.BatchNormalization(name="head_1")(base.output)
    x = la.Dense(3)(la.GlobalAveragePooling2D()(x))
    return keras.Model(base.input, la.Softmax()(la.BatchNormalization(name="head_2")(x)))


def both_pools(keras: Any, base: Any) -> Any:
    la = keras.layers
    x = la.Concatenate()([la.GlobalAveragePooling2D()(base.output), la.GlobalMaxPooling2D()(base.output)])
    return keras.Model(base.input, la.Dense(3, activation="softmax")(x))


def a_window_of_the_whole_grid(keras: Any, base: Any) -> Any:
    la = keras.layers
    x = la.Flatten()(la.AveragePooling2D((1, 1))(base.output))
    return keras.Model(base.input, la.Dense(3, activation="softmax")(x))


def cut_base(keras: Any, base: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(base.get_layer("mixed7").output)
    return keras.Model(base.input, keras.layers.Dense(3, activation="softmax")(x))


HEADS: dict[str, Callable[[Any, Any], Any]] = {
    maker.__name__: maker
    for maker in (
        dense_and_relu_apart, several_functions, labels_apart, one_logit, norm_around, both_pools,
        a_window_of_the_whole_grid, cut_base,
    )
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_heads(keras: Any, base: Any, folder: Path, head: str) -> None:
    clf = same(HEADS[head](keras, base), folder / ("model.h5" if head == "norm_around" else "model.keras"))
    assert "scaled to [-1, 1] (assumed" in clf.assumed and "75 px (as the file says)" in clf.assumed


def sequences_in_sequences(keras: Any, base: Any) -> Any:
    la = keras.layers
    before = keras.Sequential([la.RandomFlip("horizontal"), la.RandomRotation(0.1), la.Rescaling(1 / 255)])
    after = keras.Sequential([keras.Sequential([la.Dense(8, activation="relu"), la.Dropout(0.2)]), la.Dense(3)])
    model = keras.Sequential(
        [keras.Input((PX, PX, 3)), before, base, la.GlobalAveragePooling2D(), after, la.Activation("softmax")]
    )
    spread_head(after.layers[0].layers[0]), spread_head(after.layers[1])
    return model


def adapted(keras: Any, base: Any) -> Any:
    la = keras.layers
    norm = la.Normalization()
    norm.adapt(np.stack(IMAGES).astype("float32"))
    i = keras.Input((PX, PX, 3))
    x = base(norm(i), training=False)
    return keras.Model(i, la.Dense(3, activation="softmax")(la.GlobalAveragePooling2D()(x)))


def stated(keras: Any, base: Any) -> Any:
    la = keras.layers
    i = keras.Input((PX, PX, 3))
    x = la.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506])(la.Rescaling(1 / 255)(i))
    return keras.Model(i, la.Dense(3, activation="softmax")(la.GlobalAveragePooling2D()(base(x))))


def operations(keras: Any, base: Any) -> Any:
    la = keras.layers
    i = keras.Input((PX, PX, 3))
    x = base(keras.applications.inception_v3.preprocess_input(i))
    return keras.Model(i, la.Dense(3, activation="softmax")(la.GlobalAveragePooling2D()(x)))


def named_lambda(keras: Any, base: Any) -> Any:
    la = keras.layers
    i = keras.Input((PX, PX, 3))
    x = base(la.Lambda(keras.applications.inception_v3.preprocess_input)(i))
    return keras.Model(i, la.Dense(3, activation="softmax")(la.GlobalAveragePooling2D()(x)))


SCALED = {m.__name__: m for m in (sequences_in_sequences, adapted, stated, operations, named_lambda)}


@pytest.mark.parametrize("what", SCALED)
def test_scaling_inside_the_model(keras: Any, base: Any, folder: Path, what: str) -> None:
    clf = same(SCALED[what](keras, base), folder / ("model.h5" if what == "adapted" else "model.keras"), scaled=True)
    assert "of the model" in clf.assumed and clf.preprocessing.size_px == PX
    if what == "sequences_in_sequences":
        assert "augmentation of the model not taken over" in clf.assumed


def test_logits_without_activation(keras: Any, base: Any, folder: Path) -> None:
    head = (keras.layers.Dense(4),)
    clf = same(on(keras, base, "Average", *head), folder / "a.keras", logits=True)
    assert "its output is logits: softmax assumed" in clf.assumed
    model = on(keras, base, "Average", keras.layers.Dense(4))
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    clf = same(model, folder / "b.keras", logits=True)
    assert clf.record.configuration.activation == "sigmoid" and "by its binary loss" in clf.assumed


def test_mixed_precision_is_said(keras: Any, base: Any, folder: Path) -> None:
    model = on(keras, base, "Average", keras.layers.Dense(3, activation="softmax", dtype="mixed_float16"))
    clf = same(model, folder / "a.keras", tolerance=5e-3)
    assert "computed in float32, not mixed_float16" in clf.assumed


def test_inception_resnet_v2(keras: Any, folder: Path) -> None:
    la = keras.layers
    inner = spread(keras.applications.InceptionResNetV2(weights=None, include_top=False, input_shape=(PX, PX, 3)))
    parts = [la.Rescaling(1 / 127.5, -1), inner, la.GlobalMaxPooling2D(), la.Dense(3, activation="softmax")]
    clf = same(keras.Sequential([keras.Input((PX, PX, 3)), *parts]), folder / "a.keras", scaled=True)
    assert clf.record.configuration.name == "inception_resnet_v2.slim"
    assert clf.preprocessing.mean == pytest.approx((0.5,) * 3) and clf.preprocessing.std == pytest.approx((0.5,) * 3)


@pytest.mark.parametrize("form", ["model.h5", "model.keras"])
def test_tf_keras(peer: Peer, folder: Path, form: str) -> None:
    keras = peer("tf_keras")
    la = keras.layers
    inner = spread(
        keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(PX, PX, 3), pooling="avg")
    )
    i = keras.Input((PX, PX, 3))
    x = inner(keras.applications.inception_v3.preprocess_input(la.RandomFlip()(i)), training=False)
    x = la.LeakyReLU(0.2)(la.Dense(12)(x))
    model = keras.Model(i, la.Dense(3, activation="softmax")(x))
    model.compile("adam", "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    clf = same(model, folder / form, scaled=True)
    assert "tf.math.truediv" in clf.assumed and "(TFOpLambda) of the model" in clf.assumed


def own(keras: Any, name: str) -> Any:
    """A class of the user's that is called like one of Keras's and does something else."""
    return type(name, (keras.layers.Layer,), {"call": lambda self, x: 2 * x})


def compiled(model: Any, loss: str) -> Any:
    model.compile(loss=loss)
    return model


def quantised(model: Any) -> Any:
    model.layers[-1].quantize("int8")
    return model


def refusals(keras: Any, whole: Any) -> list[tuple[str, Any]]:
    """Most on the first blocks alone, since each is saved."""
    la = keras.layers
    base = keras.Model(whole.input, whole.get_layer("mixed1").output, name=whole.name)
    pooled = la.GlobalAveragePooling2D()(base.output)
    grey, plain = keras.Input((PX, PX, 1)), keras.Input((PX, PX, 3))

    def end(x: Any) -> Any:
        return la.Dense(3, activation="softmax")(x)

    def around(i: Any, x: Any, **options: Any) -> Any:
        return keras.Model(i, end(la.GlobalAveragePooling2D()(base(x, **options))))

    other = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3), pooling="avg")
    look = la.GlobalAveragePooling2D()(la.MultiHeadAttention(1, 4, name="look")(base.output, base.output))
    unlike = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(PX, 90, 3), pooling="avg")
    flat = la.Flatten(name="f")(whole.get_layer("mixed7").output)
    normed = la.GlobalMaxPooling2D()(la.BatchNormalization(name="b")(base.output))
    models = {
        r"three \(Conv2D\) stands between the input and the base": around(
            grey, la.Conv2D(3, 3, padding="same", name="three")(grey)
        ),
        r"mine \(Lambda\) stands .* bytecode, which is never run": around(
            plain, la.Lambda(lambda x: x / 255, name="mine")(plain)
        ),
        "expected one above 0": around(plain, 1 - plain / 255),
        "training=True": around(plain, plain, training=True),
        r"look \(MultiHeadAttention\) stands between the base, inception_v3, and": keras.Model(base.input, end(look)),
        r"p \(PReLU\) stands between": on(keras, base, "Average", la.PReLU(name="p"), la.Dense(3)),
        r"n \(LayerNormalization\) stands": on(keras, base, "Average", la.LayerNormalization(name="n"), la.Dense(3)),
        "a model with one output, got 2": keras.Model(base.input, [end(pooled), la.Dense(1)(pooled)]),
        r"f \(Flatten\) stands .* a grid of 3×3": keras.Model(whole.input, end(flat)),
        r"d \(Dense\) stands .* 'mish'": on(
            keras, base, "Average", la.Dense(3, activation="mish", name="d"), la.Dense(2)
        ),
        r"\(tanh\) after the logits": on(keras, base, "Average", la.Dense(3, activation="tanh")),
        "its base, MobileNetV2, is not layer by layer a network": keras.Model(other.input, end(other.output)),
        "75×90 px": keras.Model(unlike.input, end(unlike.output)),
        r"n1 \(Normalization\) stands between the input": around(
            plain, la.Normalization(axis=1, mean=[100.0] * PX, variance=[50.0] * PX, name="n1")(plain)
        ),
        r"cast.* \(Cast\) stands between the input": around(
            plain, keras.ops.cast(la.Rescaling(1 / 127.5)(plain), "int32")
        ),
        r"r \(Rescaling, a class of its author\) stands": around(plain, own(keras, "Rescaling")(name="r")(plain)),
        r"s \(Swish, a class of its author\) stands": on(
            keras, base, "Average", own(keras, "Swish")(name="s"), la.Dense(3)
        ),
        "trained with a loss of values (mse|.mse.)": compiled(on(keras, base, "Average", la.Dense(1)), "mse"),
        "dense.* quantised": quantised(on(keras, base, "Average", la.Dense(3))),
        "after b, and batch norm comes after the pool": keras.Model(base.input, end(normed)),
    }
    return list(models.items())


def test_refused_by_the_layers_name(keras: Any, base: Any, folder: Path) -> None:
    path = folder / "model.keras"
    for message, model in refusals(keras, base):
        model.save(path)
        with pytest.raises(WeightsError, match=message) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_weights_alone_of_a_head_of_several_layers(keras: Any, base: Any, folder: Path) -> None:
    model = on(keras, base, "Average", keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3))
    model.save_weights(folder / "a.weights.h5")
    with pytest.raises(WeightsError, match=r"with other layers \(dense.*\), and no description of what they do"):
        load(folder / "a.weights.h5")
    model = on(keras, base, "Average", keras.layers.Dense(1, activation="sigmoid"))
    model.save_weights(folder / "b.weights.h5")
    clf = load(folder / "b.weights.h5")
    assert clf.record.configuration.activation == "sigmoid" and "sigmoid assumed" in clf.assumed
