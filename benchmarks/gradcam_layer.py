"""Does the default layer for Grad-CAM find what a network looks at: python benchmarks/gradcam_layer.py RUN DATA

Images that RUN's network tells right are covered, with what it takes for nothing, where the map of each endpoint with
more than one place is hottest, a fifth of the pixels; the further the class's probability falls, the better the map.
A fifth drawn by lot in squares is what a map that knows nothing would cover. One row an endpoint.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from inceptionnet.analysis import analyse, endpoints
from inceptionnet.data.augment import normalise
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.sources import open_source
from inceptionnet.explain import attribute, default_layer
from inceptionnet.weights import read_weights
from inceptionnet.weights.folder import weights_of

IMAGES, SHARE, SQUARES = 240, 0.2, 7


def covered(x: Tensor, heat: Tensor) -> Tensor:
    """The images without the hottest share of their pixels."""
    flat = heat.flatten(1)
    hottest = flat.topk(round(SHARE * flat.shape[1]), dim=1).indices
    keep = torch.ones_like(flat).scatter_(1, hottest, 0).view(len(x), 1, *x.shape[2:])
    return x * keep


def main(run: str, data: str) -> None:
    read = read_weights(weights_of(run))
    model, prep = read.model().eval(), read.record.preprocessing
    split = open_source(data, seed=read.record.provenance["seed"]).splits["val"]
    lots = np.random.default_rng(0).permutation(len(split))[:IMAGES]
    loader = EvalLoader(split.take(lots), prep, batch_size=IMAGES, workers=0, corrupt_images="skip")  # type: ignore[union-attr]
    batch = next(iter(loader))
    x = normalise(batch.images, prep)
    with torch.inference_mode():
        right = model(x).argmax(1) == batch.labels
    x, labels = x[right].clone(), batch.labels[right]

    def probability(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images).softmax(1).gather(1, labels[:, None])[:, 0]

    whole = probability(x)
    chosen = default_layer(model.network, prep.size_px)
    print(f"{read.record.configuration.name}, {prep.size_px} px, {len(x)} images told right, p {whole.mean():.2f}")
    lot = torch.rand(len(x), 1, SQUARES, SQUARES, generator=torch.Generator().manual_seed(0))
    maps = {"by lot": torch.nn.functional.interpolate(lot, x.shape[2:])[:, 0]}
    for row in endpoints(analyse(model.network)):
        if row.path.startswith("body.") and min(row.output[1:]) > 1 and row.output.height <= 2 * SQUARES:
            maps[f"{row.name} {row.output.height}×{row.output.width}"] = attribute(model, x, labels, layer=row.name)
    for name, heat in maps.items():
        fell = (whole - probability(covered(x, heat))).numpy()
        empty = int((heat.flatten(1).amax(1) == 0).sum())
        mark = "  ← default" if name.split()[0] == chosen else ""
        print(f"{name}: falls by {fell.mean():.2f} ± {fell.std() / len(fell) ** 0.5:.2f}, {empty} empty maps{mark}")


if __name__ == "__main__":
    main(*sys.argv[1:])
