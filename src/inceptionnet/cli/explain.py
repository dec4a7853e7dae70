"""`inceptionnet explain RUN|WEIGHTS IMAGE|FOLDER…`: saliency maps with the evidence for a class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inceptionnet.cli.options import Activation, AllowUrls, BatchSize, Device, Images, Json, Weights, opened
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inceptionnet.explain.files import Explanation

Method = Literal["gradcam", "integrated-gradients", "occlusion"]


def explain(
    weights: Weights,
    images: Images,
    out: Annotated[Path, typer.Option(help="The folder for the results, a PNG file for each image.")],
    class_name: Annotated[str | None, typer.Option("--class", help="The class to explain, by name or number. "
                                                   "Default: the predicted one.")] = None,
    method: Annotated[Method, typer.Option(help="How the evidence is computed.")] = "gradcam",
    layer: Annotated[str | None, typer.Option(help="The endpoint for gradcam, as show lists them. Default: the last "
                                              "with a grid of 4×4 or more.")] = None,
    activation: Activation = None,
    allow_urls: AllowUrls = False,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Draw the evidence for a class as a saliency map over each image, next to the preprocessed image.

    A corrupt image gets a row with the reason, and the exit code is 1; it is 2 if no image can be read.
    """
    from inceptionnet.cli.tables import end_with_errors, print_json
    from inceptionnet.data.inputs import find_images
    from inceptionnet.explain.files import class_number, explain
    from inceptionnet.system.progress import Bar

    classifier = opened(weights, device=device, activation=activation)
    classifier.check_probabilities()
    target = None if class_name is None else class_number(class_name, classifier.classes)
    files = find_images(images, besides=out, allow_urls=allow_urls)
    with Bar(len(files), "explaining") as bar:
        rows = list(
            explain(
                classifier.model, files, classifier.preprocessing, classifier.classes, out,
                method=method, layer=layer, target=target, batch_size=batch_size, advance=bar.advance,
            )
        )  # fmt: skip
    if json:
        print_json([row.to_dict() for row in rows])
        if files.notes:
            say(*files.notes, error=True)
    else:
        _print(rows)
        for note in files.notes:
            say(note)
    end_with_errors(rows)


def _print(rows: Sequence[Explanation]) -> None:
    from inceptionnet.cli.tables import is_lone_error, print_table, say_errors

    if is_lone_error(rows):
        return
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
    say_errors(rows)
