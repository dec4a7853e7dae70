"""`inceptionnet features RUN|WEIGHTS DATA…`: features (embeddings) of images, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import AnyModel, BatchSize, Device, Json, SplitName, Workers, opened
from inceptionnet.system.printing import say


def features(
    weights: AnyModel,
    data: Annotated[list[str], typer.Argument(metavar="DATA…", help="Labelled images as for train, a folder, .zip "
                                              "or .tar of unlabelled images, or image files.")],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    endpoint: Annotated[str, typer.Option(help="embed (the pooled features before the classifier), or an endpoint, see "
                                               "inceptionnet show.")] = "embed",
    grid: Annotated[bool, typer.Option("--grid", help="The whole feature map. Default: its spatial mean.")] = False,
    split: Annotated[SplitName, typer.Option(help="auto: test, else val.")] = "all",
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Write the features of every image to a .parquet file, one row per image: image, split, label, features.

    Network, endpoint, shape, weights and preprocessing are in the schema metadata. The network needs no classifier.
    """
    from inceptionnet import __version__
    from inceptionnet.cli.tables import print_json
    from inceptionnet.data.loading import EvalLoader
    from inceptionnet.data.splits import Split
    from inceptionnet.data.unlabelled import open_images
    from inceptionnet.evaluate import features as extraction
    from inceptionnet.system.devices import default_workers
    from inceptionnet.system.progress import Bar

    extraction.check_file(out)
    classifier = opened(weights, device=device)
    model, prep, record = classifier.embedder, classifier.preprocessing, classifier.record
    source = open_images(data, seed=record.provenance.get("seed", 0), group_by=record.provenance.get("group_by"))
    chosen, images = source.pick(split)
    assert isinstance(images, Split)  # since it is no stream
    of_split = list(source.splits) if chosen == "all" else [chosen]
    splits = [name for name in of_split for _ in range(len(source.splits[name]))]
    shape = extraction.feature_shape(model, prep, endpoint, grid=grid)
    loader = EvalLoader(images, prep, batch_size=batch_size, workers=default_workers(workers), corrupt_images="skip")
    about = {
        "network": record.configuration.name,
        "endpoint": endpoint,
        "shape": shape,
        "weights": weights,
        "preprocessing": prep.to_dict(),
        "inceptionnet": __version__,
    }
    with Bar(len(images), "features") as bar:
        rows, errors = extraction.write_features(
            out, extraction.features(model, loader, prep, endpoint, grid=grid), shape,
            names=images.names, splits=splits, classes=source.classes, about=about, advance=bar.advance,
        )  # fmt: skip
    named = [{"name": name, "reason": reason} for name, reason in errors]
    if json:
        print_json({**about, "written": str(out), "images": rows, "data_note": source.note, "decode_errors": named})
        return
    say(source.note)
    size = "×".join(map(str, shape))
    say(f"{out}: {rows} images, {size} features each, {endpoint} of {about['network']}")
    for one in named:
        say(f"corrupt image skipped: {one['name']}: {one['reason']}")
