"""Judge: Keras 3.15.1 on torch, `applications.InceptionV3` and `InceptionResNetV2`, in every form of file it writes.

What people put before and after these networks is in test_keras_models.py.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from torch import Tensor

from .judging import agree, random_images, recognised

# Keras hands its own variables to NumPy 2 in a way that NumPy 1 asked for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NETWORKS = {"InceptionV3": "inception_v3", "InceptionResNetV2": "inception_resnet_v2.slim"}
SMALL_PX = (96, 96)
UNNAMED = ("conv2d", "batch_normalization", "activation", "custom_scale_layer", "max_pooling2d", "average_pooling2d")
Build = Callable[..., Any]


@pytest.fixture(scope="module")
def build(keras: Any) -> Build:
    """A network of the applications, with random weights, in a process where other models were built before."""

    def built(name: str, *, size: tuple[int, int] = SMALL_PX, **options: object) -> Any:
        keras.utils.clear_session()
        for _ in range(50):  # so that the numbers of this network's layers start at 50 and pass 100
            keras.layers.Conv2D(1, 1)
            keras.layers.BatchNormalization()
        application = getattr(keras.applications, name)
        model = application(weights=None, classifier_activation=None, input_shape=(*size, 3), **options)
        randomise(model)
        return model

    return built


def randomise(model: Any) -> None:
    """As for the torch models: random statistics and biases, and kernels that keep the size of the activations."""
    rng = np.random.default_rng(11)
    for variable in model.weights:
        if variable.name == "kernel":
            value = rng.normal(0, (2 / np.prod(variable.shape[:-1])) ** 0.5, variable.shape)
        elif variable.name == "moving_variance":
            value = rng.uniform(0.5, 1.5, variable.shape)
        else:
            assert variable.name in ("beta", "moving_mean", "bias"), variable.path
            value = rng.normal(0, 0.1, variable.shape)
        variable.assign(value)


def run(model: Any, x: Tensor) -> Tensor:
    logits: Tensor = model(x.permute(0, 2, 3, 1), training=False)
    return logits


def save_legacy_weights(model: Any, path: Path) -> None:
    """What `save_weights("….h5")` wrote until Keras 2; Keras 3 still has the writer, for whole models."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def save_as_published(model: Any, path: Path) -> None:
    """As in the files of 2017: numbers from 1, `:0` after a variable's name, bytes for text, no attributes of Keras."""
    numbers = {kind: sorted(number for layer in model.layers for number in own(layer, kind)) for kind in UNNAMED}
    names = [layer.name for layer in model.layers]
    for i, layer in enumerate(model.layers):
        for kind in UNNAMED:
            for number in own(layer, kind):
                names[i] = f"{kind}_{numbers[kind].index(number) + 1}"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name, layer in zip(names, model.layers, strict=True):
            group = file.create_group(name)
            variables = {f"{name}/{variable.name}:0": variable for variable in layer.weights}
            group.attrs["weight_names"] = [key.encode() for key in variables]
            for key, variable in variables.items():
                group[key] = variable.numpy()


def own(layer: Any, kind: str) -> list[int]:
    """The number in a layer's name, if its name is `kind` or `kind` and a number."""
    name, _, number = layer.name.rpartition("_")
    if layer.name == kind:
        return [0]
    return [int(number)] if name == kind and number.isdigit() else []


def save_before_keras_3_6(model: Any, path: Path) -> None:
    """An archive whose weights are in numbered groups without the layers' names; only its configuration has those."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(path.parent)
    forget_names(path.parent / "model.weights.h5")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.write(path.parent / name, name)


def save_nameless(model: Any, path: Path) -> None:
    """The numbers of its groups follow `model.layers`, and nothing says which layers those are."""
    model.save_weights(path)
    forget_names(path)


def forget_names(weights: Path) -> None:
    def forget(_name: str, item: Any) -> None:
        item.attrs.pop("name", None)

    with h5py.File(weights, "r+") as file:
        file.visititems(forget)


FORMS: dict[str, Callable[[Any, Path], None]] = {
    "model.h5": lambda model, path: model.save(path),
    "model.keras": lambda model, path: model.save(path),
    "model.weights.h5": lambda model, path: model.save_weights(path),
    "before_3.6.keras": save_before_keras_3_6,
    "before_3.6.weights.h5": save_nameless,
    "weights_keras_2.h5": save_legacy_weights,
    "weights_tf_dim_ordering_tf_kernels.h5": save_as_published,
}


@pytest.fixture(scope="module", params=NETWORKS)
def whole(request: pytest.FixtureRequest, build: Build) -> tuple[str, Any, Tensor]:
    """The network here, Keras's, and its logits of some images."""
    theirs = build(request.param)
    return NETWORKS[request.param], theirs, run(theirs, random_images(*SMALL_PX))


@pytest.mark.parametrize("form", FORMS)
def test_logits(whole: tuple[str, Any, Tensor], folder: Path, form: str) -> None:
    network, theirs, expected = whole
    FORMS[form](theirs, folder / form)
    agree(recognised(folder / form, network)(random_images(*SMALL_PX)), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_top_the_output_is_the_pooled_features(build: Build, folder: Path, name: str) -> None:
    theirs = build(name, include_top=False, pooling="avg")
    x = random_images(*SMALL_PX)
    expected = run(theirs, x)
    for form in ("model.weights.h5", "before_3.6.weights.h5", "model.keras", "weights_tf_dim_ordering_tf_kernels.h5"):
        FORMS[form](theirs, folder / form)
        ours = recognised(folder / form, NETWORKS[name], classes=0)
        agree(ours(x), expected)
        agree(ours.embed(x), expected)


def test_logits_at_native_size(build: Build, folder: Path) -> None:
    theirs = build("InceptionV3", size=(299, 299), classes=7)
    theirs.save(folder / "model.keras")
    x = random_images(299, 299)
    agree(recognised(folder / "model.keras", "inception_v3", classes=7)(x), run(theirs, x))


@pytest.mark.parametrize("form", ["tuned.h5", "tuned.keras", "tuned.weights.h5"])
def test_fine_tuned_by_a_new_last_layer(keras: Any, build: Build, folder: Path, form: str) -> None:
    base = build("InceptionV3", include_top=False)
    theirs = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    randomise(theirs)
    theirs.save_weights(folder / form) if ".weights." in form else theirs.save(folder / form)
    x = random_images(*SMALL_PX)
    agree(recognised(folder / form, "inception_v3", classes=5)(x), run(theirs, x))
