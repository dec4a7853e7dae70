"""Throughput of a network alone and of an evaluation on 144 crops, in crops/s, interleaved in one run.

    python benchmarks/crops_speed.py FOLDER [NETWORK] [IMAGES] [ROUNDS]

FOLDER contains images with any file names. The network alone runs on random batches in memory. The evaluation reads,
decodes, crops and flips the images, with as many loader processes as the command `evaluate` uses.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from inceptionnet import create_model
from inceptionnet.data import Split
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.evaluate.evaluation import Member, evaluate_together
from inceptionnet.system.devices import default_workers

BATCH = 32


def main() -> None:
    folder = Path(sys.argv[1])
    name = sys.argv[2] if len(sys.argv) > 2 else "inception_v1.slim"
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 16
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    split = Split([str(file) for file in files], np.zeros(len(files), np.int64), lambda i: files[i].read_bytes())
    model = create_model(name).eval().to(memory_format=torch.channels_last)
    crops = Crops(Preprocessing(model.network.input_size), 144)
    loader = EvalLoader(
        split, crops.prep, batch_size=1, workers=default_workers(None), corrupt_images="fail", crops=[crops]
    )
    x = torch.randn(BATCH, 3, crops.prep.size_px, crops.prep.size_px).to(memory_format=torch.channels_last)
    classes = tuple(map(str, range(model.num_classes)))
    alone, evaluated = [], []
    for _ in range(rounds):
        passes = 144 * len(files) // BATCH
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(passes):
                model(x)
        alone.append(passes * BATCH / (time.perf_counter() - start))
        start = time.perf_counter()
        evaluate_together([Member(model, crops)], loader, classes, at_once=BATCH)
        evaluated.append(144 * len(files) / (time.perf_counter() - start))
    ratios = sorted(b / a for a, b in zip(alone, evaluated, strict=True))
    print(f"{name}, {len(files)} images, {rounds} rounds, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"network alone   {statistics.median(alone):7.1f} ({min(alone):.1f}–{max(alone):.1f}) crops/s")
    print(f"144 crops       {statistics.median(evaluated):7.1f} ({min(evaluated):.1f}–{max(evaluated):.1f}) crops/s")
    print(f"ratio           {statistics.median(ratios):7.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
