"""Predict the images of a data set of the datasets library, with its caching and its many processes.

    pip install 'inceptionnet[stream]'
    python examples/datasets_map.py runs/flowers flowers/ predictions.parquet

`flowers/` is a folder of images, in folders of their classes or not; in place of `imagefolder`, load_dataset takes any
data set of the Hub.
"""

from __future__ import annotations

import sys

import datasets

import inceptionnet


def main(weights: str, folder: str, out: str) -> None:
    """Write a row for each image."""
    images = datasets.load_dataset("imagefolder", data_dir=folder, split="all")
    # Without decoding: a corrupt image has its reason in its row, and does not stop the others.
    images = images.cast_column("image", datasets.Image(decode=False))
    classifier = inceptionnet.load(weights)
    rows = images.map(
        classifier.columns, batched=True, batch_size=64, fn_kwargs={"top": 3}, remove_columns="image",
    )  # fmt: skip
    rows.to_parquet(out)
    print(f"{out}: {len(rows)} rows, columns {', '.join(rows.column_names)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
