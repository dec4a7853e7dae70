"""scikit-learn's LogisticRegressionCV on this package's features of the same weights.

It takes the time it takes, and sees the images at the size of the weights, where their features are best. The features
are not standardised: that lowers the accuracy on photographs of refuse (head.py).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import Job, arguments, command, trained, write_predictions
from sklearn.linear_model import LogisticRegressionCV

CS = np.logspace(-4, 2, 7)
STEPS = 200


def features(job: Job, folder: object, split: str, out: str) -> tuple[np.ndarray, list[str], list[str]]:
    command("features", str(job.weights), str(folder), "--split", split, "--out", out)
    return read(out)


def read(file: str | Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Features (N, C), labels and images of a file that `inceptionnet features` wrote."""
    table = pq.read_table(file)
    return np.stack(table["features"].to_numpy()), table["label"].to_pylist(), table["image"].to_pylist()


def regression(seed: int) -> LogisticRegressionCV:
    return LogisticRegressionCV(
        Cs=CS, cv=5, solver="lbfgs", max_iter=STEPS, random_state=seed, l1_ratios=(0,), use_legacy_attributes=False
    )


def main() -> None:
    job = arguments()
    x, labels, _ = features(job, job.images, "train", "train.parquet")
    model = regression(job.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, labels)
    stopped = sum("did not converge" in str(one.message) or "failed to converge" in str(one.message) for one in caught)
    trained(job, f"C {model.C_:.0e}; {stopped} of {5 * len(CS) + 1} fits stopped after {STEPS} steps")
    x, _, names = features(job, job.held_out, "all", "held-out.parquet")
    write_predictions([job.held_out / name for name in names], model.predict(x))


if __name__ == "__main__":
    main()
