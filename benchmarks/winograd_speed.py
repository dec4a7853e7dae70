"""Engine winograd beside the two runtimes: python benchmarks/winograd_speed.py [NETWORK|WEIGHTS…] [--layers]

ONNX Runtime and OpenVINO are given the same fused network. fp32, published image sizes, noise, random weights unless
files are named. In each round all are measured one after another, and the second of two calls counts. The output is ms
for a batch, median (range), the ratio of the faster runtime to winograd, computed per round, and the largest difference
of winograd's and ONNX Runtime's logits from float64, relative to the largest logit. Options: --threads 1,2 --batch 1,16
--rounds 15.

--layers: the time of each kind of layer in winograd, on one thread, with the rate of the multiplications that a direct
convolution would have (GFLOP/s), and of those that are made.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.classifier import load
from inceptionnet.engines import builders
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.runtimes import Target
from inceptionnet.engines.timing import noise, take_turns
from inceptionnet.engines.winograd.engine import Winograd
from inceptionnet.engines.winograd.library import Step
from inceptionnet.engines.winograd.plan import CONVOLUTION, WINOGRAD
from inceptionnet.engines.winograd.transforms import points
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets import NETWORKS

ENGINES = ("onnxruntime", "openvino", "winograd")
CHECKED = 4


def network(name: str) -> InceptionNet:
    torch.manual_seed(0)
    return (create_model(name) if name in NETWORKS else load(name).model).eval()


def compare(name: str, batch: int, threads: int, rounds: int) -> None:
    model = network(name)
    x = noise(batch, 3, model.network.input_size)
    torch.set_num_threads(threads)
    engines = [builders.build_engine(engine, model, Target(x, "fp32", threads)) for engine in ENGINES]
    times = take_turns(engines, x, rounds)
    with torch.no_grad():
        expected = model.double()(x[:CHECKED].double())
    off = [float((engine(x)[:CHECKED] - expected).abs().max() / expected.abs().max()) for engine in engines]
    ratios = [min(first, second) / own for first, second, own in zip(*times, strict=True)]
    print(f"{name}, batch {batch}, {threads} threads, {rounds} rounds")
    for engine, taken in zip(ENGINES, times, strict=True):
        print(f"  {engine:12}", shown(taken, 1), "ms")
    print(f"  winograd is {shown(ratios, 2)} times as fast as the faster one; differences from float64:", end=" ")
    print(f"{off[2]:.1e} (onnxruntime {off[0]:.1e})", flush=True)


def layers(name: str, batch: int, rounds: int) -> None:
    module = fused(network(name))
    torch.set_num_threads(1)
    engine = Winograd(module.body, module.head, threads=1)
    x = noise(batch, 3, module.network.input_size)
    engine(x)
    (prepared,) = engine._prepared.values()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for layer in prepared.plan.layers:
        if layer.module is not None:
            continue
        step, taken = (Step * 1)(prepared._step(layer)), []
        for _ in range(rounds):
            start = time.perf_counter()
            engine.library.run(step, 1, prepared.scratch.data_ptr(), prepared.scratch_size)
            taken.append(time.perf_counter() - start)
        it = layer.fields
        height, width, stride = it["kernel_height"], it["kernel_width"], it["stride_height"]
        label, direct, made = f"{height}×{width}", 0.0, 0.0
        if it["kind"] in (CONVOLUTION, WINOGRAD):
            pairs = batch * layer.source.channels * layer.target.channels
            grid = layer.target.grid
            direct = made = pairs * grid[0] * grid[1] * height * width
            label += f" at stride {stride}" * (stride > 1)
            if it["kind"] == WINOGRAD:
                tile = it["tile_height"], it["tile_width"]
                tiles = -(-grid[0] // tile[0]) * -(-grid[1] // tile[1])
                made = pairs * tiles * points(tile[0], height, stride) * points(tile[1], width, stride)
                label += f", tiles {tile[0]}×{tile[1]}"
        else:
            label = "other"
        for i, value in enumerate((1, statistics.median(taken), direct, made)):
            found[label][i] += value
    total = sum(each[1] for each in found.values())
    print(f"{name}, batch {batch}, 1 thread, {rounds} rounds: {1000 * total:.1f} ms")
    for label, (count, seconds, direct, made) in sorted(found.items(), key=lambda item: -item[1][1]):
        print(
            f"  {label:24} {count:3.0f} layers {1000 * seconds:8.2f} ms {seconds / total:6.1%} "
            f"{2e-9 * direct / seconds:6.0f} as direct, {2e-9 * made / seconds:4.0f} made"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["inception_v3", "inception_v4"])
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", action="store_true")
    given = parser.parse_args()
    for name in given.networks:
        for batch in map(int, given.batch.split(",")):
            if given.layers:
                layers(name, batch, given.rounds)
                continue
            for threads in map(int, given.threads.split(",")):
                compare(name, batch, threads, given.rounds)


if __name__ == "__main__":
    main()
