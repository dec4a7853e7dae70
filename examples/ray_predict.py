"""Predict the images of a folder, or of a bucket, on the machines of a Ray cluster.

    pip install inceptionnet 'ray[data]'
    python examples/ray_predict.py runs/flowers flowers/ predictions/ --workers 2

Ray reads the files, gives each worker batches of them, and starts a worker again that dies, with the batches that it
had: each image has one row. Instead of `Predict`, map_batches also takes a classifier itself, as in
`images.map_batches(inceptionnet.load(weights), batch_size=64)`: Ray then sends its weights along with the tasks, where
`Predict` loads them once a worker.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import ray

import inceptionnet


class Predict:
    """A worker."""

    def __init__(self, weights: str, top: int) -> None:
        self.classifier, self.top = inceptionnet.load(weights), top

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch's path, and class_1, probability_1 … and error instead of its bytes."""
        return self.classifier.columns(batch, top=self.top)


def main() -> None:
    """Write a Parquet file for each block of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("images", help="a folder, or an address that Ray reads such as s3://bucket/images")
    parser.add_argument("out", help="a folder for .parquet files")
    parser.add_argument("--workers", type=int, default=2, help="of which each has one core")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--top", type=int, default=1)
    asked = parser.parse_args()
    ray.init(ignore_reinit_error=True)
    if (cores := ray.cluster_resources().get("CPU", 0)) <= asked.workers:
        sys.exit(f"error: {asked.workers} workers and the reading of files need a core each, and Ray has {cores:.0f}")
    images = ray.data.read_binary_files(asked.images, include_paths=True)
    predictions = images.map_batches(
        Predict,
        fn_constructor_args=(asked.weights, asked.top),
        batch_size=asked.batch_size,
        compute=ray.data.ActorPoolStrategy(size=asked.workers),
        num_cpus=1,  # num_gpus=1 for one GPU a worker
    )
    predictions.write_parquet(asked.out)
    print(f"{asked.out}: {ray.data.read_parquet(asked.out).count()} rows")


if __name__ == "__main__":
    main()
