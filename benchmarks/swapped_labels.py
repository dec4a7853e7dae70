"""How many swapped labels `check --weights` ranks first: python benchmarks/swapped_labels.py FEATURES.parquet [SEEDS]

FEATURES is a file of `inceptionnet features` of a labelled data set. For each random seed, 5 % of the images get the
label of another class, all equally probable, and all images are ranked by cross-validated predictions. The output is
the share of swapped labels among the first 5 % of the ranking, and the share of them that the first 10 % hold, by two
scores of confident learning: the probability of the label (self-confidence, which `check` uses), and that probability
minus the probability of the most probable other class (normalised margin).
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import torch

from inceptionnet.data.splits import Split
from inceptionnet.train.label_check import judged

SHARE = 0.05


def main(file: str, seeds: int = 3) -> None:
    table = pq.read_table(file)
    classes, correct = np.unique(table["label"].to_pylist(), return_inverse=True)
    features = torch.from_numpy(np.stack(table["features"].to_numpy()))
    names, splits, count = table["image"].to_pylist(), table["split"].to_pylist(), len(correct)
    swaps = round(SHARE * count)
    print(f"{count} images of {len(classes)} classes, {swaps} labels swapped")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        swapped, labels = rng.choice(count, swaps, replace=False), correct.astype(np.int64)
        labels[swapped] = (labels[swapped] + rng.integers(1, len(classes), swaps)) % len(classes)
        start = time.perf_counter()
        ranking, fitted = judged(
            features,
            Split(names, labels, lambda index: b""),
            classes=classes.tolist(),
            splits=splits,
            positions=np.arange(count),
        )
        took = time.perf_counter() - start
        others = fitted.held_out.double().softmax(1).numpy()
        own = others[np.arange(count), labels].copy()
        others[np.arange(count), labels] = -1
        orders = {"self-confidence": ranking.positions, "normalised margin": np.argsort(own - others.max(1))}
        for score, order in orders.items():
            hit = np.isin(order, swapped)
            found.setdefault(score, []).append((hit[:swaps].mean(), hit[: 2 * swaps].sum() / swaps))
        held = ", ".join(f"{score} {values[-1][0]:.1%} / {values[-1][1]:.1%}" for score, values in found.items())
        print(f"seed {seed}: accuracy by the labels {ranking.accuracy:.1%}, fitted in {took:.0f} s; {held}", flush=True)
    for score, values in found.items():
        first, second = zip(*values, strict=True)
        spread = f"{min(first):.1%} to {max(first):.1%}"
        print(f"{score}: {statistics.mean(first):.1%} ({spread}) of the first 5 % are swapped; the first 10 % hold")
        print(f"  {statistics.mean(second):.1%} of the swapped labels")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
