"""`inceptionnet explain RUN|WEIGHTS IMAGE|FOLDER…`: saliency maps with the evidence for a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, Weights
from inceptionnet.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.explain.files import Explanation


def explain(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER…", help="Images, or folders of them.")],
    out: Annotated[Path, typer.Option(help="The output folder; one PNG file per image.")],
    class_name: Annotated[str | None, typer.Option("--class", help="The class to explain, by name or number; "
                                                   "default: the predicted class.")] = None,
    method: Annotated[str, typer.Option(help="gradcam, integrated-gradients or occlusion.")] = "gradcam",
    layer: Annotated[str | None, typer.Option(help="The endpoint for gradcam (see show); default: the last with a "
                                              "sufficiently fine grid.")] = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Draw the evidence for a class as a saliency map over each image, next to the preprocessed image.

    Images that cannot be read are listed with the reason.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.devices import pick_device
    from inceptionnet.evaluate.prediction import find_images
    from inceptionnet.explain.files import class_number, explain
    from inceptionnet.progress import Bar
    from inceptionnet.train.run import weights_of
    from inceptionnet.weights import read_weights

    read = read_weights(weights_of(weights))
    record = read.classifier()
    target = None if class_name is None else class_number(class_name, record.classes)
    files = find_images(images, besides=out)
    model = read.model().to(pick_device(device))
    with Bar(len(files), "explaining") as bar:
        rows = list(
            explain(
                model, files, record.preprocessing, record.classes, out,
                method=method, layer=layer, target=target, batch_size=batch_size, advance=bar.advance,
            )
        )  # fmt: skip
    if json:
        print_json([row.to_dict() for row in rows])
    else:
        _print(rows)
    if all(row.error for row in rows):
        raise DataError(f"none of {len(rows)} images could be read; the first: {rows[0].file}: {rows[0].error}")


def _print(rows: Sequence[Explanation]) -> None:
    from inceptionnet.cli.tables import print_table

    print_table(
        ["file", "class", "probability", "method", "layer", "result"],
        [
            [row.file, "", "", "", "", f"error: {row.error}"]
            if row.error
            else [row.file, row.name, f"{row.probability:.1%}", row.method, row.layer or "", row.output]
            for row in rows
        ],
        right={2},
    )
    if bad := sum(bool(row.error) for row in rows):
        print(f"{bad} of {len(rows)} images could not be read")
