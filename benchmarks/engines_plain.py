"""Gain from fusion in engines that optimise graphs themselves: python benchmarks/engines_plain.py [NETWORK…]

Each engine runs the plain network, the fused network, and the fused network with sibling 1×1 convolutions merged.
Published image sizes, random weights. In each round all are measured one after another, and the second of two calls
counts. The output is images/s, median (range).
"""

from __future__ import annotations

import sys

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.engines import builders
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.runtimes import Target
from inceptionnet.engines.timing import noise, take_turns

ROUNDS = {1: 12, 16: 4}
GIVEN = {
    "plain": lambda model: model,
    "fused": fused,
    "fused, siblings merged": lambda model: fused(model, siblings=True),
}


def main(names: list[str]) -> None:
    for name in names:
        torch.manual_seed(0)
        model = create_model(name).eval()
        for batch, rounds in ROUNDS.items():
            x = noise(batch, 3, model.network.input_size)
            target = Target(x, "fp32", torch.get_num_threads())
            engines = {}
            for given, make in GIVEN.items():
                builders.fused = make  # the rewrite that each builder applies to the model
                for engine in ("fused", "onnxruntime", "openvino"):
                    label = f"{'torch' if engine == 'fused' else engine}, {given}"
                    engines[label] = builders.build_engine(engine, model, target)
            times = take_turns(list(engines.values()), x, rounds)
            print(f"{name}, batch {batch}, {rounds} rounds, {torch.get_num_threads()} threads")
            for label, found in zip(engines, times, strict=True):
                print(f"  {label:36}", shown([1000 * batch / ms for ms in found], 2))


if __name__ == "__main__":
    main(sys.argv[1:] or ["inception_v3", "inception_v4.slim", "inception_resnet_v2.slim"])
