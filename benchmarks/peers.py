"""Throughput of the networks of other packages and of this package, with the same weights:

    PYTHONPATH=.venv/peers python benchmarks/peers.py [--networks timm:inception_v3 …] [--batch 1 16] [--rounds 10]
        [--device cpu|cuda] [--precision fp32|bf16] [--no-compile]

`make peers` installs timm, torchvision, Keras and TensorFlow. Each peer's network is randomly initialised, saved in
that package's own format, and loaded here from the file. The logits are compared first. In each round all variants are
measured one after another, and the second of two calls counts. Variants of a peer are its default, channels last, and
torch.compile (with frozen weights on a CPU, max-autotune on a GPU); for Keras on TensorFlow, tf.function with and
without XLA. This package runs `optimize(…, engine="auto")`. The output is images/s, median (range), and the ratio to
the peer's fastest variant, computed per round.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}

import torch
from input_speed import import_torchvision, shown
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet import load_model, optimize
from inceptionnet.engines.runtimes import DTYPES
from inceptionnet.engines.timing import AnyRun, noise, take_turns

NETWORKS = (
    "timm:inception_v3", "timm:inception_v4", "timm:inception_resnet_v2", "torchvision:inception_v3",
    "torchvision:googlenet", "keras:InceptionV3", "keras:InceptionResNetV2",
)  # fmt: skip
TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "torchvision", "keras"))
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {versions}")
    import_torchvision()  # timm imports it too, and would fail
    for name in given.networks:
        package, _, network = name.partition(":")
        peer = PACKAGES[package](network, Path(tempfile.mkdtemp()))
        for batch in given.batch:
            compare(name, peer, batch, given)


class OfTorch:
    """A network of timm or torchvision."""

    def __init__(self, network: str, folder: Path, make: Callable[[str], nn.Module]) -> None:
        torch.manual_seed(0)
        self.module = make(network).eval().requires_grad_(False)
        self.file = folder / "peer.safetensors"
        save_file(self.module.state_dict(), self.file)

    def runs(self, x: Tensor, given: argparse.Namespace) -> dict[str, AnyRun]:
        dtype = DTYPES[given.precision]
        module = self.module.to(x.device, dtype)
        last = x.to(dtype, memory_format=torch.channels_last)
        x = x.to(dtype)
        made: dict[str, AnyRun] = {"eager": lambda _: module(x)}
        copied = copy.deepcopy(module).to(memory_format=torch.channels_last)
        made["channels last"] = lambda _: copied(last)
        if not given.no_compile:
            torch._dynamo.reset()
            if x.device.type == "cpu":
                compiled = torch.compile(copied, dynamic=False, options={"freezing": True})
            else:
                compiled = torch.compile(copied, dynamic=False, mode="max-autotune")
            made["compile"] = lambda _: compiled(last)
        return made


class OfKeras:
    """A network of Keras on TensorFlow."""

    def __init__(self, network: str, folder: Path) -> None:
        import keras

        keras.utils.set_random_seed(0)
        self.model = getattr(keras.applications, network)(weights=None, classifier_activation=None)
        self.file = folder / "peer.keras"
        self.model.save(self.file)

    def runs(self, x: Tensor, given: argparse.Namespace) -> dict[str, AnyRun]:
        import tensorflow as tf

        images = tf.constant(x.permute(0, 2, 3, 1).cpu().numpy())
        plain, xla = (tf.function(lambda x: self.model(x, training=False), jit_compile=jit) for jit in (False, True))
        return {"tf.function": lambda _: plain(images).numpy(), "tf.function, XLA": lambda _: xla(images).numpy()}


def of_timm(network: str, folder: Path) -> OfTorch:
    import timm

    return OfTorch(network, folder, lambda name: timm.create_model(name, pretrained=False))


def of_torchvision(network: str, folder: Path) -> OfTorch:
    from torchvision import models

    # The file contains the auxiliary heads, which do nothing in evaluation mode.
    return OfTorch(
        network, folder, lambda name: getattr(models, name)(weights=None, aux_logits=True, init_weights=False)
    )


PACKAGES: dict[str, Callable[[str, Path], Any]] = {"timm": of_timm, "torchvision": of_torchvision, "keras": OfKeras}


def compare(name: str, peer: Any, batch: int, given: argparse.Namespace) -> None:
    ours = load_model(peer.file).eval()
    x = noise(batch, 3, ours.network.input_size).to(given.device)
    engine = optimize(ours, batch_size=batch, precision=given.precision, device=given.device)
    label = f"inceptionnet, {engine.name}"
    with torch.inference_mode():
        runs = peer.runs(x, given) | {label: engine}
        logits = {kind: torch.as_tensor(run(x)).float().cpu() for kind, run in runs.items()}
        expected = next(iter(logits.values()))
        for kind, got in logits.items():
            off = float((got - expected).abs().max() / expected.abs().max())
            limit = TOLERANCE[given.precision]
            assert off <= limit, f"{kind}: logits differ by {off:.1e} of the largest, the tolerance is {limit:g}"
        taken = take_turns(list(runs.values()), x, given.rounds if batch < 16 else max(3, given.rounds // 3))
    times = dict(zip(runs, taken, strict=True))
    print(f"{name} as {ours.configuration.name}, {given.precision}, batch {batch}")
    for kind, found in times.items():
        print(f"  {kind:28}", shown([1000 * batch / ms for ms in found], 2))
    fastest = min((kind for kind in times if kind != label), key=lambda kind: statistics.median(times[kind]))
    ratios = [theirs / own for theirs, own in zip(times[fastest], times[label], strict=True)]
    print(f"  inceptionnet is {shown(ratios, 2)} times as fast as {fastest}", flush=True)


if __name__ == "__main__":
    main()
