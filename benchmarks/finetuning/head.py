"""The classifier of `train --train-from head` beside scikit-learn's on the same features, and beside one pass.

    python benchmarks/finetuning/head.py DATA WEIGHTS [--images 400,all] [--splits 5] [--held-out 500] [--rounds 3]
        [--out FOLDER]

Accuracy: the features of all images are computed once (OUT/features.parquet). For each number of images and each
random seed, so many are drawn for training and --held-out others for testing, both stratified; this package's fit and
the `LogisticRegressionCV` of with_sklearn.py on the features and on standardised ones get the same. Time: the whole
command `train --train-from head` and the whole command `features`, one after the other, in --rounds rounds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import command
from sklearn.base import ClassifierMixin
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from with_sklearn import read, regression

from inceptionnet.model.outputs import Outputs
from inceptionnet.train import logistic

Predict = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--images", default="400,all", help="numbers of training images")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of the times; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("head-results"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "features.parquet"
    if not file.exists():
        command("features", given.weights, given.data, "--out", str(file))
    x, labels, _ = read(file)
    classes, y = np.unique(labels, return_inverse=True)
    print(f"{len(x)} images, {x.shape[1]} features, {len(classes)} classes, {torch.get_num_threads()} threads")
    for images in given.images.split(","):
        compare(x, y, len(x) - given.held_out if images == "all" else int(images), given.held_out, given.splits)
    if given.rounds:
        times(given.data, given.weights, given.out, given.rounds)


def compare(x: np.ndarray, y: np.ndarray, images: int, held_out: int, splits: int) -> None:
    """Print the accuracies of the methods on the same splits, and how long they took."""
    methods: dict[str, Callable[[np.ndarray, np.ndarray, int], Predict]] = {
        "inceptionnet": own,
        "LogisticRegressionCV": plain,
        "LogisticRegressionCV, standardised": standardised,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for seed in range(splits):
        drawn = StratifiedShuffleSplit(1, train_size=images, test_size=held_out, random_state=seed)
        train, test = next(drawn.split(x, y))
        for name, method in methods.items():
            start = time.perf_counter()
            predict = method(x[train], y[train], seed)
            took = time.perf_counter() - start
            found[name].append((float((predict(x[test]) == y[test]).mean()), took))
    for name, values in found.items():
        accuracies, seconds = zip(*values, strict=True)
        print(
            f"{images} images, {name}: {spread([100 * one for one in accuracies])} %, {spread(seconds)} s", flush=True
        )


def own(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    fitted = logistic.fit(torch.from_numpy(x), torch.from_numpy(y), Outputs("softmax", int(y.max()) + 1), seed=seed)
    weight, bias = fitted.weight.numpy(), fitted.bias.numpy()
    return lambda other: np.argmax(other @ weight.T + bias, axis=1)


def plain(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return peer(regression(seed), x, y)


def standardised(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return peer(make_pipeline(StandardScaler(), regression(seed)), x, y)


def peer(model: ClassifierMixin, x: np.ndarray, y: np.ndarray) -> Predict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits that stop before they converge
        model.fit(x, y)
    return model.predict


def times(data: str, weights: str, out: Path, rounds: int) -> None:
    """Print how long the two commands take, and their ratio in each round."""
    run, file = out / "run", out / "pass.parquet"
    pairs = []
    for number in range(rounds):
        shutil.rmtree(run, ignore_errors=True)
        file.unlink(missing_ok=True)
        whole = ("train", data, "--weights", weights, "--train-from", "head", "--out", str(run))
        one_pass = ("features", weights, data, "--out", str(file))
        took = {words[0]: timed(*words) for words in ((whole, one_pass) if number % 2 else (one_pass, whole))}
        pairs.append((took["train"], took["features"]))
        print(f"round {number}: train {took['train']:.0f} s, features {took['features']:.0f} s", flush=True)
    ratios = [train / features for train, features in pairs]
    print(f"train: {spread([train for train, _ in pairs])} s, features: {spread([one for _, one in pairs])} s, "
          f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


def timed(*words: str) -> float:
    """Run a command of this package; how long it took, in seconds."""
    start = time.perf_counter()
    command(*words)
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
