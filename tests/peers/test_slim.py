"""Judges: TensorFlow 2.21.0, which writes all checkpoints, and for the numbers of v1 to v3 tf-slim 1.1.0, run by it.

That package has no Inception-v4 and no Inception-ResNet-v2; their numbers come from tests/reference, whose weights
TensorFlow writes under the names in slim_variables.py. All have 1001 classes, of which the first is the background.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inceptionnet import create_model

from ..reference.inception_resnet import InceptionResNetV2Slim
from ..reference.inception_v4 import InceptionV4Slim
from .judging import agree, outputs_of, random_images, randomise, recognised
from .slim_variables import RESNET_V2_AUX, V4_AUX, Aux, checkpoint, resnet_v2_scopes, v4_scopes

pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated:UserWarning")

CLASSES = 1001
NETWORKS = {"inception_v1": 224, "inception_v2": 224, "inception_v3": 299}  # with their sizes in pixels


@dataclass(frozen=True)
class Judged:
    """What TensorFlow computed, and the checkpoints that it wrote of just that: file names in `folder`."""

    folder: Path
    network: str
    x: Tensor
    logits: Tensor
    aux: Tensor | None


def random_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name.endswith("weights"):
        # A depthwise kernel is (height, width, in, multiplier), and sums over one channel.
        summed = np.prod(shape[:2] if "depthwise" in name else shape[:-1])
        return rng.normal(0, (2 / summed) ** 0.5, shape).astype(np.float32)
    if name.endswith("moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    assert name.endswith(("beta", "moving_mean", "biases")), name
    return rng.normal(0, 0.1, shape).astype(np.float32)


def put(session: Any, values: dict[Any, np.ndarray]) -> None:
    """Give variables their values, through their initialisers: no constant in the graph, no operation more."""
    session.run([v.initializer for v in values], {v.initializer.inputs[1]: value for v, value in values.items()})


@pytest.fixture(scope="module")
def judged(
    request: pytest.FixtureRequest, slim: Any, tf: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judged]:
    name: str = request.param
    size = NETWORKS[name]
    folder = tmp_path_factory.mktemp(name)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        images = tf.compat.v1.placeholder(tf.float32, (2, size, size, 3))
        # Updates of the statistics in place of collected ones: no difference but in training, and no need for tf_keras.
        with slim.arg_scope(slim.nets.inception.inception_v3_arg_scope(updates_collections=None)):
            logits, ends = getattr(slim.nets.inception, name)(images, num_classes=CLASSES, is_training=False)
        outputs = [logits] + [ends[end] for end in ends if end == "AuxLogits"]
        variables = slim.get_model_variables()
        rng = np.random.default_rng(12)
        values = {v: random_value(v.op.name, tuple(v.shape), rng) for v in variables}
        put(session, values)
        x = random_images(size, size)
        results = session.run(outputs, {images: x.permute(0, 2, 3, 1).numpy()})
        v1 = tf.compat.v1
        v1.train.Saver(write_version=v1.train.SaverDef.V1).save(session, str(folder / "released.ckpt"))
        v1.train.Saver().save(session, str(folder / "model.ckpt-1000"))
        if name == "inception_v1":  # the smallest
            save_in_training(tf, session, values, folder / "training.ckpt-1000")
    expected = [torch.from_numpy(result)[:, 1:] for result in results]
    network = "inception_v3" if name == "inception_v3" else f"{name}.slim"
    yield Judged(folder, network, x, expected[0], expected[1] if len(expected) > 1 else None)
    shutil.rmtree(folder)


def save_in_training(tf: Any, session: Any, values: dict[Any, np.ndarray], path: Path) -> None:
    """As a training does: the averages have those values, the variables others, the optimiser its own beside them."""
    v1 = tf.compat.v1
    step = v1.train.create_global_step()
    averages = tf.train.ExponentialMovingAverage(0.9999, step)
    averages.apply(list(values))
    trained = [(tf.zeros_like(v), v) for v in v1.trainable_variables()]
    optimizer = v1.train.RMSPropOptimizer(0.1, decay=0.9, momentum=0.9)
    optimizer.apply_gradients(trained, global_step=step)
    session.run(v1.global_variables_initializer())
    rng = np.random.default_rng(13)
    put(session, {averages.average(v): value for v, value in values.items()})
    put(session, {v: random_value(v.op.name, tuple(v.shape), rng) for v in values})
    v1.train.Saver().save(session, str(path))
    names = {v.op.name for v in v1.global_variables()}
    assert "global_step" in names
    some = trained[0][1].op.name
    assert {f"{some}/RMSProp", f"{some}/RMSProp_1", f"{some}/ExponentialMovingAverage"} <= names


@pytest.mark.parametrize("judged", NETWORKS, indirect=True)
@pytest.mark.parametrize("file", ["released.ckpt", "model.ckpt-1000", "model.ckpt-1000.index"])
def test_checkpoint_of_tf_slim(judged: Judged, file: str) -> None:
    ours = recognised(judged.folder / file, judged.network)
    agree(ours(judged.x), judged.logits)


@pytest.mark.parametrize("judged", ["inception_v1"], indirect=True)
@pytest.mark.parametrize("file", ["training.ckpt-1000", "training.ckpt-1000.index"])
def test_of_a_training_checkpoint_the_average_is_taken(judged: Judged, file: str) -> None:
    agree(recognised(judged.folder / file, judged.network)(judged.x), judged.logits)


@pytest.mark.parametrize("judged", ["inception_v3"], indirect=True)
def test_auxiliary_head_of_tf_slim(judged: Judged) -> None:
    ours = create_model("inception_v3", weights=judged.folder / "model.ckpt-1000", aux=True).eval()
    got = ours.all_logits(judged.x)
    assert judged.aux is not None
    agree(got["logits"], judged.logits)
    agree(got["mixed_6e"], judged.aux)


REFERENCES = {
    "inception_v4.slim": (InceptionV4Slim, 1024, "InceptionV4", v4_scopes, V4_AUX, "inception_b7"),
    "inception_resnet_v2.slim": (
        InceptionResNetV2Slim, 1088, "InceptionResnetV2", resnet_v2_scopes, RESNET_V2_AUX, "residual_b20",
    ),
}  # fmt: skip


def random_without_gamma(model: nn.Module, seed: int) -> None:
    randomise(model, seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


def save_variables(tf: Any, variables: dict[str, np.ndarray], path: Path) -> None:
    """By the operations that TensorFlow's Saver runs: the first format with one file, the second with two."""
    names, values = list(variables), list(variables.values())
    if path.suffix == ".ckpt":
        tf.raw_ops.Save(filename=str(path), tensor_names=names, data=values)
    else:
        part = f"{path}-part"
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[part], destination_prefix=str(path))


@pytest.mark.parametrize("network", REFERENCES)
@pytest.mark.parametrize("file", ["released.ckpt", "model.ckpt-7"])
def test_checkpoint_of_a_network_that_tf_slim_lacks(tf: Any, folder: Path, network: str, file: str) -> None:
    reference, channels, root, scopes, aux_scopes, endpoint = REFERENCES[network]
    body, aux = reference(CLASSES).eval(), Aux(channels, CLASSES).eval()
    random_without_gamma(body, seed=14)
    random_without_gamma(aux, seed=15)
    save_variables(tf, checkpoint(root, body, scopes(), aux, aux_scopes), folder / file)
    x = random_images(299, 299)
    logits, grid = outputs_of(body, ("b",), x)
    agree(recognised(folder / file, network)(x), logits[:, 1:])
    got = create_model(network, weights=folder / file, aux=True).eval().all_logits(x)
    agree(got["logits"], logits[:, 1:])
    agree(got[endpoint], aux(grid)[:, 1:])
