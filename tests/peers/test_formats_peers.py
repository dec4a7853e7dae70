"""Judges: TensorFlow 2.21's Saver and checkpoint reader, Keras 3.15.1 and tf_keras where it is installed: every form
of file that they write comes in with the same names and bits."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from inceptionnet.errors import WeightsError
from inceptionnet.weights.formats import open_weights

from .conftest import Peer

# Keras hands its own variables to NumPy 2 in a way that NumPy 1 asked for.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def assert_same(found: Any, expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        bits = torch.uint8 if values.ndim else found[name].dtype
        got: Tensor = found[name].contiguous().view(bits) if values.size else found[name]
        assert got.numpy().tobytes() == values.tobytes(), name
        assert tuple(found[name].shape) == values.shape and str(found[name].dtype).endswith(str(values.dtype)), name


@pytest.fixture(scope="module")
def tensorflow(peer: Peer) -> Any:
    pytest.importorskip("tensorflow")
    return peer("tensorflow")


@pytest.fixture(scope="module")
def trained(tensorflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a training of a few steps, in both versions, whole and in shards."""
    folder, tf1 = tmp_path_factory.mktemp("trained"), tensorflow.compat.v1
    shapes = {"Net/Conv/weights": (3, 3, 5, 7), "Net/Conv/BatchNorm/beta": (7,), "Net/Logits/weights": (7, 11)}
    with tensorflow.Graph().as_default(), tf1.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these savers are old is the point
        rng = np.random.default_rng(0)

        def variable(name: str, values: Any, dtype: Any = tensorflow.float32) -> Any:
            return tf1.get_variable(name, initializer=tensorflow.constant(values, dtype), trainable=name in shapes)

        weights = [variable(name, rng.normal(size=shape)) for name, shape in shapes.items()]
        variable("Net/Conv/BatchNorm/moving_mean", rng.normal(size=7))
        variable("single", 2.5)
        variable("none", np.zeros((0, 3)))
        variable("double", [1 / 3], tensorflow.float64)
        step = tf1.train.get_or_create_global_step()
        loss = sum(tensorflow.reduce_sum(v * v) for v in weights)
        averages = tf1.train.ExponentialMovingAverage(0.9)
        for optimizer in (
            tf1.train.RMSPropOptimizer(0.1, momentum=0.9),
            tf1.train.MomentumOptimizer(0.1, 0.9),
            tf1.train.AdamOptimizer(0.1),
            tf1.train.AdagradOptimizer(0.1),
            tf1.train.FtrlOptimizer(0.1),
        ):
            with tensorflow.control_dependencies([optimizer.minimize(loss, global_step=step)]):
                train = averages.apply(weights[:2])
            old = tf1.global_variables()
        variable("half", [1 / 3] * 3, tensorflow.float16)  # these two TensorFlow does not read from the first version
        variable("brain", [1 / 3] * 3, tensorflow.bfloat16)
        variable("words", ["a", "bc"], tensorflow.string)
        session.run(tf1.global_variables_initializer())
        session.run(train)
        for version, variables in ((1, old), (2, tf1.global_variables())):
            for sharded in (False, True):
                saver = tf1.train.Saver(variables, write_version=version, sharded=sharded)
                path = str(folder / f"v{version}{'-sharded' * sharded}.ckpt")
                saver.save(session, path, write_meta_graph=False, write_state=False)
    return folder


@pytest.mark.parametrize("name", ["v1.ckpt", "v1-sharded.ckpt", "v2.ckpt", "v2-sharded.ckpt"])
def test_tensorflow_checkpoints(tensorflow: Any, trained: Path, name: str) -> None:
    reader = tensorflow.train.load_checkpoint(str(trained / (name + "-?????-of-?????" * (name == "v1-sharded.ckpt"))))
    everything = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    average = "/ExponentialMovingAverage"
    averaged = {key.removesuffix(average) for key in everything if key.endswith(average)}
    assert averaged == {"Net/Conv/weights", "Net/Conv/BatchNorm/beta"}
    wanted = averaged | {"Net/Logits/weights", "Net/Conv/BatchNorm/moving_mean", "single", "none", "double"}
    wanted |= {"half", "brain"} if name.startswith("v2") else set()
    stored = open_weights(trained / name)
    assert_same(stored.tensors, {key: everything[key + average * (key in averaged)] for key in wanted})
    assert stored.notes == ("moving averages (ExponentialMovingAverage) of 2 variables used",)
    assert stored.dropped.keys() == everything.keys() - (wanted - averaged) - {key + average for key in averaged}
    slots = {key for key, why in stored.dropped.items() if why == "optimiser state"}
    suffixes = ("RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1", "Adagrad", "Ftrl", "Ftrl_1")
    assert {f"Net/Conv/weights/{suffix}" for suffix in suffixes} | {"beta1_power"} <= slots
    assert stored.dropped["global_step"] == "count of training steps"


def test_partitioned_and_object_checkpoints_are_refused(tensorflow: Any, tmp_path: Path) -> None:
    tf1 = tensorflow.compat.v1
    with tensorflow.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable("w", (7, 3), partitioner=tf1.fixed_size_partitioner(2))
        session.run(tf1.global_variables_initializer())
        for version in (1, 2):
            tf1.train.Saver(write_version=version).save(session, str(tmp_path / f"v{version}"), write_meta_graph=False)
    for version in (1, 2):
        with pytest.raises(
            WeightsError, match=r"expected whole variables, got the partitioned variable w; save it unpartitioned"
        ):
            open_weights(tmp_path / f"v{version}")
    tensorflow.train.Checkpoint(v=tensorflow.Variable(1.0)).write(str(tmp_path / "objects"))
    with pytest.raises(WeightsError, match="expected a checkpoint with layer names, got one of Keras objects"):
        open_weights(tmp_path / "objects")


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def keras(request: pytest.FixtureRequest, peer: Peer) -> Any:
    pytest.importorskip(request.param)
    return peer(request.param)


def network(keras: Any, top: bool = True) -> Any:
    """All kinds of layer with variables, on two ways, so that order of creation and of layers differ."""
    layers = keras.layers
    image = layers.Input((9, 9, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(4, 3, use_bias=False)(image))
    long = layers.Conv2D(2, 1)(layers.Activation("relu")(layers.Conv2D(2, 1)(x)))
    short = layers.Conv2D(3, 1, name="named")(x)
    x = layers.BatchNormalization()(layers.Concatenate()([short, long]))
    x = layers.DepthwiseConv2D(3)(layers.SeparableConv2D(3, 3, use_bias=False)(x))
    if top:
        x = layers.Dense(5, name="predictions")(layers.Dropout(0.5)(layers.Flatten()(x)))
    return keras.Model(image, x)


def values(model: Any) -> dict[str, np.ndarray]:
    """What Keras itself says of its layers, random where it would begin with zeros and ones."""
    found, rng = {}, np.random.default_rng(1)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= values(layer)
            continue
        layer.set_weights([rng.random(w.shape, np.float32) for w in layer.get_weights()])
        names = [str(getattr(w, "path", w.name)).partition(":")[0].rpartition("/")[2] for w in layer.weights]
        found |= {f"{layer.name}/{name}": w for name, w in zip(names, layer.get_weights(), strict=True)}
    return found


def save(model: Any, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old is the point
        (model.save_weights if "weights" in path.name else model.save)(str(path))


@pytest.mark.parametrize("name", ["model.h5", "weights.h5", "model.keras", "m.weights.h5"])
@pytest.mark.parametrize("build", ["whole", "no top", "nested", "compiled"])
def test_keras_files(keras: Any, tmp_path: Path, build: str, name: str) -> None:
    layers, old = keras.layers, keras.__name__ != "keras"
    model = network(keras, top=build == "whole")
    if build in ("nested", "compiled"):
        model = keras.Sequential([model, layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(5)])
    if build == "compiled":
        model.compile("rmsprop", "mse")
        with torch.enable_grad():
            model.fit(np.ones((2, 9, 9, 3), np.float32), np.ones((2, 5), np.float32), verbose=0)
    expected = values(model)
    if name == "weights.h5" and not old:  # Keras 3 still writes this group, but in whole models alone
        save(model, tmp_path / "model.h5")
        with h5py.File(tmp_path / "model.h5") as source, h5py.File(tmp_path / name, "w") as target:
            for child in source["model_weights"]:
                source.copy(f"model_weights/{child}", target)
            target.attrs.update(source["model_weights"].attrs)
    else:
        save(model, tmp_path / name)
    if old and name == "m.weights.h5":
        assert all("@" in variable for variable in open_weights(tmp_path / name).tensors)  # it wrote no names
        return
    if old and name == "model.keras":  # variables without names get Keras 3's
        depthwise = re.compile(r"^(depthwise_conv2d\w*)/depthwise_kernel$")
        expected = {depthwise.sub(r"\1/kernel", key): w for key, w in expected.items()}
    stored = open_weights(tmp_path / name)
    assert_same(stored.tensors, expected)
    assert set(stored.dropped.values()) <= {"optimiser state", "metrics", "not floating point"}
    assert ("optimiser state" in stored.dropped.values()) == (build == "compiled" and name != "weights.h5")
