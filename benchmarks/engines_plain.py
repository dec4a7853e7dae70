"""What the fused network gives to engines that rewrite graphs themselves: python benchmarks/engines_plain.py [NETWORK…]

Each engine is given the plain network, the fused one, and the fused one with sibling 1×1 convolutions joined; published
sizes, random weights, all in turn in each round, the second of two calls. Images per second, median (range).
"""

from __future__ import annotations

import sys

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.engines import runtimes
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.timing import noise, take_turns

ROUNDS = {1: 12, 16: 4}
GIVEN = {
    "plain": lambda model: model,
    "fused": fused,
    "fused, siblings": lambda model: fused(model, siblings=True),
}


def main(names: list[str]) -> None:
    for name in names:
        torch.manual_seed(0)
        model = create_model(name).eval()
        for batch, rounds in ROUNDS.items():
            x = noise(batch, 3, model.network.input_size)
            target = runtimes.Target(x, "fp32", torch.get_num_threads())
            engines = {}
            for given, make in GIVEN.items():
                runtimes.fused = make  # what each builder makes of the model
                for engine in ("fused", "onnxruntime", "openvino"):
                    label = f"{'torch' if engine == 'fused' else engine}, {given}"
                    engines[label] = runtimes.build_engine(engine, model, target)
            times = take_turns(list(engines.values()), x, rounds)
            print(f"{name}, batch {batch}, {rounds} rounds, {torch.get_num_threads()} threads")
            for label, found in zip(engines, times, strict=True):
                print(f"  {label:30}", shown([1000 * batch / ms for ms in found], 2))


if __name__ == "__main__":
    main(sys.argv[1:] or ["inception_v3", "inception_v4.slim", "inception_resnet_v2.slim"])
