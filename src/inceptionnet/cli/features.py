"""`inceptionnet features RUN|WEIGHTS DATA…`: what a network sees in images, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, Weights, Workers, default_workers


def features(
    weights: Weights,
    data: Annotated[list[str], typer.Argument(metavar="DATA…", help="As for train, or a folder or .zip of images "
                                              "without labels, or image files.")],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    endpoint: Annotated[str, typer.Option(help="embed, the pooled features before the classifier, or an endpoint of "
                                               "the network.")] = "embed",
    grid: Annotated[bool, typer.Option("--grid", help="Its whole grid; left out, the mean over it.")] = False,
    split: Annotated[str, typer.Option(help="all, train, val or test.")] = "all",
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Write a network's features of every image, one row each: image, split, label and a list of numbers.

    The file says network, endpoint, shape, weights and preprocessing in its schema's metadata. A network without
    classifier will do.
    """
    from inceptionnet import __version__
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.loading import EvalLoader
    from inceptionnet.data.splits import Split
    from inceptionnet.data.unlabelled import open_images
    from inceptionnet.devices import pick_device
    from inceptionnet.evaluate import features as extraction
    from inceptionnet.progress import Bar
    from inceptionnet.weights import read_weights
    from inceptionnet.weights.folder import weights_of

    extraction.check_file(out)
    file = weights_of(weights)
    read = read_weights(file)
    prep = read.record.preprocessing
    source = open_images(data, seed=read.record.provenance.get("seed", 0))
    chosen, images = source.pick(split)
    assert isinstance(images, Split)  # since it is no stream
    of_split = list(source.splits) if chosen == "all" else [chosen]
    splits = [name for name in of_split for _ in range(len(source.splits[name]))]
    model = read.model().to(pick_device(device))
    shape = extraction.feature_shape(model, prep, endpoint, grid=grid)
    loader = EvalLoader(images, prep, batch_size=batch_size, workers=default_workers(workers), corrupt_images="skip")
    about = {
        "network": read.record.configuration.name,
        "endpoint": endpoint,
        "shape": shape,
        "weights": file,
        "preprocessing": prep.to_dict(),
        "inceptionnet": __version__,
    }
    with Bar(len(images), "features") as bar:
        rows, bad = extraction.write_features(
            out, extraction.features(model, loader, prep, endpoint, grid=grid), shape,
            names=images.names, splits=splits, classes=source.classes, about=about, advance=bar.advance,
        )  # fmt: skip
    named = [{"name": name, "reason": reason} for name, reason in bad]
    if json:
        print_json({**about, "written": str(out), "images": rows, "data_note": source.note, "decode_errors": named})
        return
    print(source.note)
    size = "×".join(map(str, shape))
    print(f"{out}: {rows} images, {size} numbers each, {endpoint} of {about['network']}")
    for one in named:
        print(f"left out: {one['name']}: {one['reason']}")
