"""`inceptionnet features RUN|WEIGHTS DATA…`: features (embeddings) of images, as a table."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import AllowUrls, AnyModel, BatchSize, Device, Json, SplitName, Workers, opened
from inceptionnet.cli.parts import OUT, PART_SIZE, PartSize, batch_job, named_errors, print_errors
from inceptionnet.errors import number_of
from inceptionnet.system.printing import say


def features(
    weights: AnyModel,
    data: Annotated[list[str], typer.Argument(metavar="DATA…", help="Labelled images as for train, a folder, .zip "
                                              "or .tar of unlabelled images, image files, or a stream.")],
    out: Annotated[Path, OUT],
    endpoint: Annotated[str, typer.Option(help="embed (the pooled features before the classifier), or an endpoint, see "
                                               "inceptionnet show.")] = "embed",
    grid: Annotated[bool, typer.Option("--grid", help="The whole feature map. Default: its spatial mean.")] = False,
    split: Annotated[SplitName, typer.Option(help="auto: test, else val.")] = "all",
    part_size: PartSize = PART_SIZE,
    allow_urls: AllowUrls = False,
    batch_size: BatchSize = 32,
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Write the features of every image to Parquet, one row per image: image, split, label, features, error.

    A corrupt image has no features, and the reason in error. Network, endpoint, shape, weights and preprocessing are in
    the schema metadata. The network needs no classifier. Under torchrun several processes share the parts of a folder.
    """
    from inceptionnet.classifier.parts import features_in_parts
    from inceptionnet.cli.tables import print_json
    from inceptionnet.system.devices import default_workers

    open_classifier = partial(opened, weights, device=device)
    with batch_job(open_classifier, data, out, split=split, part_size=part_size, allow_urls=allow_urls) as batch:
        classifier, job, world = batch
        written, about = features_in_parts(
            classifier, job, out,
            endpoint=endpoint, grid=grid, batch_size=batch_size, workers=default_workers(workers), world=world,
        )  # fmt: skip
    if not world.is_main:
        return
    images = written.rows - written.errors
    if json:
        said = {"written": str(out), "images": images, "data_note": job.source.note}
        print_json({**about, **said, "decode_errors": named_errors(written)})
        return
    say(job.source.note)
    size = "×".join(map(str, about["shape"]))
    say(f"{out}: {number_of('image', images)}, {size} features each, {endpoint} of {about['network']}")
    print_errors(written)
