"""A deletion test of Grad-CAM by layer: python benchmarks/gradcam_layer.py RUN DATA

For each endpoint larger than 1×1, the fifth of the pixels with the highest values in the saliency map is set to zero,
on images that the network of RUN classifies correctly. The larger the drop in the probability of the class, the better
the map. The baseline sets a random fifth to zero, in squares. One row per endpoint.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.sources import open_source
from inceptionnet.explain import attribute, default_layer
from inceptionnet.nets.analysis import analyse, endpoints
from inceptionnet.weights import read_weights
from inceptionnet.weights.folder import weights_of

IMAGES, SHARE, SQUARES = 240, 0.2, 7


def covered(x: Tensor, heat: Tensor) -> Tensor:
    """The images with the highest `SHARE` of their pixels in the map set to zero."""
    flat = heat.flatten(1)
    hottest = flat.topk(round(SHARE * flat.shape[1]), dim=1).indices
    keep = torch.ones_like(flat).scatter_(1, hottest, 0).view(len(x), 1, *x.shape[2:])
    return x * keep


def main(run: str, data: str) -> None:
    read = read_weights(weights_of(run))
    model, prep = read.model().eval(), read.record.preprocessing
    split = open_source(data, seed=read.record.provenance["seed"]).splits["val"]
    sample = np.random.default_rng(0).permutation(len(split))[:IMAGES]
    loader = EvalLoader(split.take(sample), prep, batch_size=IMAGES, workers=0, corrupt_images="skip")  # type: ignore[union-attr]
    batch = next(iter(loader))
    x = normalise(batch.images, prep)
    with torch.inference_mode():
        correct = model(x).argmax(1) == batch.labels
    x, labels = x[correct].clone(), batch.labels[correct]

    def probability(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images).softmax(1).gather(1, labels[:, None])[:, 0]

    whole = probability(x)
    chosen = default_layer(model.network, prep.size_px)
    name, count = read.record.configuration.name, len(x)
    print(f"{name}, {prep.size_px} px, {count} correctly classified images, mean probability {whole.mean():.2f}")
    random = torch.rand(len(x), 1, SQUARES, SQUARES, generator=torch.Generator().manual_seed(0))
    maps = {"random": torch.nn.functional.interpolate(random, x.shape[2:])[:, 0]}
    for row in endpoints(analyse(model.network)):
        if row.path.startswith("body.") and min(row.output[1:]) > 1 and row.output.height <= 2 * SQUARES:
            maps[f"{row.name} {row.output.height}×{row.output.width}"] = attribute(model, x, labels, layer=row.name)
    for name, heat in maps.items():
        fell = (whole - probability(covered(x, heat))).numpy()
        empty = int((heat.flatten(1).amax(1) == 0).sum())
        mark = "  ← default" if name.split()[0] == chosen else ""
        print(f"{name}: drop {fell.mean():.2f} ± {fell.std() / len(fell) ** 0.5:.2f}, {empty} empty maps{mark}")


if __name__ == "__main__":
    main(*sys.argv[1:])
