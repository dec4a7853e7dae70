"""Throughput gained by each rewrite of fusion: python benchmarks/fusion_speed.py [NETWORK…]

Published image sizes, random weights, torch eager mode. In each round all variants are measured one after another, and
the second of two calls counts. The output is images/s and the ratio to the plain network, computed per round; both are
median (range).
"""

from __future__ import annotations

import sys

import torch
from input_speed import shown

from inceptionnet import create_model
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.timing import noise, take_turns

NETWORKS = ("inception_v3", "inception_v4.slim", "inception_resnet_v2.slim")
ROUNDS = {1: 12, 16: 4}
OFF = dict.fromkeys(("batch_norm", "residual_scale", "siblings", "pools", "channels_last"), False)


def main(names: list[str]) -> None:
    for name in names:
        torch.manual_seed(0)
        model = create_model(name).eval()
        variants = {
            "plain": model,
            "channels last": fused(model, **{**OFF, "channels_last": True}),
            "+ batch norm folded": fused(model, residual_scale=False, pools=False),
            "+ residual scale folded": fused(model, pools=False),
            "+ convolutions before pools (default)": fused(model),
            "+ siblings merged": fused(model, siblings=True),
        }
        for batch, rounds in ROUNDS.items():
            x = noise(batch, 3, model.network.input_size)
            with torch.inference_mode():
                times = take_turns(list(variants.values()), x, rounds)
            print(f"{name}, batch {batch}, {rounds} rounds, {torch.get_num_threads()} threads")
            for variant, found in zip(variants, times, strict=True):
                ratios = [plain / own for plain, own in zip(times[0], found, strict=True)]
                print(f"  {variant:38}", shown([1000 * batch / ms for ms in found], 2), " ratio", shown(ratios, 2))


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
