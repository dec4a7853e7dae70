"""Throughput of `auto` and of every engine on the plain network: python benchmarks/auto_speed.py [NETWORK…]

A plain engine runs the network without this package's fusion, with the engine's best settings (torch.compile with
frozen weights and channels last). `auto` is the engine that `optimize` chooses on this machine. Published image sizes,
random weights, fp32. In each round all engines are measured one after another, and the second of two calls counts. The
output is images/s, median (range), and the ratio of `auto` to the fastest plain engine, computed per round.
"""

from __future__ import annotations

import statistics
import sys

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.engines import builders
from inceptionnet.engines.choice import optimize
from inceptionnet.engines.runtimes import Target
from inceptionnet.engines.timing import noise, take_turns

ROUNDS = {1: 15, 16: 5}
PLAIN = ("eager", "channels_last", "compile", "onnxruntime", "openvino")


def main(names: list[str]) -> None:
    fold, threads = builders.fused, torch.get_num_threads()
    for name in names:
        torch.manual_seed(0)
        model = create_model(name).eval()
        for batch, rounds in ROUNDS.items():
            x = noise(batch, 3, model.network.input_size)
            chosen = optimize(model, batch_size=batch)
            builders.fused = lambda plain: plain  # the rewrite that each builder applies to the model
            target = Target(x, "fp32", threads)
            engines = [builders.build_engine(engine, model, target) for engine in PLAIN]
            builders.fused = fold
            times = take_turns([*engines, chosen], x, rounds)
            print(f"{name}, batch {batch}, {rounds} rounds, {threads} threads; {chosen.about['why']}")
            for label, found in zip(
                [f"{engine}, plain" for engine in PLAIN] + [f"auto: {chosen.name}"], times, strict=True
            ):
                print(f"  {label:24}", shown([1000 * batch / ms for ms in found], 2))
            *plain, own = times
            fastest = min(plain, key=statistics.median)
            ratios = [theirs / ours for theirs, ours in zip(fastest, own, strict=True)]
            print(f"  auto is {shown(ratios, 2)} times as fast as {PLAIN[plain.index(fastest)]}, plain", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["inception_v3", "inception_v4.slim", "inception_resnet_v2.slim"])
