"""`auto` beside every engine given the plain network: python benchmarks/auto_speed.py [NETWORK…]

The plain engines are what a person writes who has torch, ONNX Runtime and OpenVINO but not this package: nothing folded
beforehand, each under its best settings (torch.compile with frozen weights and channels last). `auto` is what
`optimize` chooses here. Published sizes, random weights, fp32, all in turn in each round, the second of two calls;
images per second, median (range), and the ratio of `auto` to the plain engine that is the fastest, round by round.
"""

from __future__ import annotations

import statistics
import sys

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.engines import runtimes
from inceptionnet.engines.choice import optimize
from inceptionnet.engines.timing import noise, take_turns

ROUNDS = {1: 15, 16: 5}
PLAIN = ("eager", "channels_last", "compile", "onnxruntime", "openvino")


def main(names: list[str]) -> None:
    fold, threads = runtimes.fused, torch.get_num_threads()
    for name in names:
        torch.manual_seed(0)
        model = create_model(name).eval()
        for batch, rounds in ROUNDS.items():
            x = noise(batch, 3, model.network.input_size)
            chosen = optimize(model, batch_size=batch)
            runtimes.fused = lambda plain: plain  # what each builder makes of the model
            target = runtimes.Target(x, "fp32", threads)
            engines = [runtimes.build_engine(engine, model, target) for engine in PLAIN]
            runtimes.fused = fold
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
