"""Time to build, initialise and load networks, in seconds: median (range) of several runs.

python benchmarks/building.py [RUNS]
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from inceptionnet import create_model, save_weights
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.edits import Configuration

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 7


def timed(what: Callable[[], object]) -> str:
    seconds = []
    what()
    for _ in range(RUNS):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


def torchs_own(count: int) -> None:
    torch.nn.init.trunc_normal_(torch.empty(count), std=0.1, a=-0.2, b=0.2)


print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {RUNS} runs after a warm-up, median (range) in s")
for name in ("inception_v3", "inception_v4", "inception_resnet_v2.slim"):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        model = create_model(name)
        save_weights(model, file)
        count = sum(p.numel() for p in model.parameters())
        print(f"{name}, {count:,} parameters")
        print(
            f"  modules only, no memory allocated        {timed(lambda name=name: InceptionNet(Configuration(name)))}"
        )
        print(f"  create_model, randomly initialised       {timed(lambda name=name: create_model(name))}")
        print(f"  create_model(weights=FILE)               {timed(lambda file=file: create_model(weights=file))}")
        print(f"  nn.init.trunc_normal_, as many values    {timed(lambda count=count: torchs_own(count))}")
