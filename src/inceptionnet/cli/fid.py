"""`inceptionnet fid REAL GENERATED`: Fréchet inception distance and inception score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, opened
from inceptionnet.errors import ConfigurationError, DataError
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

    from inceptionnet.evaluate.fid import FidFeatures, Measured

NETWORK = "inception_v3.fid"
IMAGES = "all images of a folder, .zip or .tar; a data set as for train; or an .npz with mu and sigma."


def fid(
    real: Annotated[str, typer.Argument(metavar="REAL", help=f"Real images: {IMAGES}")],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Generated images, as REAL.")],
    weights: Annotated[str, typer.Option(help=f"Weights of {NETWORK}, see inceptionnet "
                                              "weights. Required.")] = "",
    save_statistics: Annotated[Path | None, typer.Option(help="Write mu and sigma of REAL to this .npz file, for "
                                                              "use as REAL later.")] = None,
    batch_size: BatchSize = 32,
    workers: Annotated[int | None, typer.Option(help="Threads that load images.", min=0,
                                                rich_help_panel="Machine")] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Compute the Fréchet inception distance of generated images to real ones, and the inception score of both.

    Whole images are resized as the publisher of the weights does: as in pytorch-fid or torch-fidelity.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.evaluate.fid import FidFeatures, new_distance
    from inceptionnet.evaluate.fid import save_statistics as save
    from inceptionnet.system.devices import default_workers

    if save_statistics and save_statistics.suffix != ".npz":
        raise ConfigurationError(f"--save-statistics {save_statistics}: expected a file ending in .npz")
    classifier = opened(weights or _published(), device=device)
    features = FidFeatures(classifier.model, classifier.preprocessing)
    distance = new_distance(features)
    sides = {"real": real, "generated": generated}
    measured = {
        side: _measured(where, features, distance, side == "real", batch_size, default_workers(workers))
        for side, where in sides.items()
    }
    if save_statistics:
        save(save_statistics, distance)
    figures = {
        "fid": max(0.0, float(distance.compute())),  # equal sets can give slightly less by rounding
        "weights": classifier.source,
        "network": classifier.record.configuration.name,
        "resize": features.prep.interpolation,
        "size_px": features.prep.size_px,
        **{side: {"images_of": sides[side], **_figures(one)} for side, one in measured.items()},
        "remarks": _remarks(classifier.record.configuration.name, features.num_features, measured),
    }
    if json:
        print_json(figures)
    else:
        _print(figures)


def _published() -> str:
    """Raises: ConfigurationError, with the addresses of the published files."""
    from inceptionnet.weights.known import PUBLISHED

    where = " or ".join(one.source for one in PUBLISHED if one.network == NETWORK)
    raise ConfigurationError(f"--weights: expected weights of {NETWORK}, got none; download {where}")


def _measured(
    where: str, features: FidFeatures, distance: FrechetInceptionDistance, real: bool, batch_size: int, workers: int
) -> Measured:
    from inceptionnet.data.unlabelled import every_image
    from inceptionnet.evaluate.fid import load_statistics, measure
    from inceptionnet.system.progress import Bar

    if where.endswith(".npz"):
        return load_statistics(Path(where), distance, real=real)
    split, notes = every_image(where)
    with Bar(len(split), where) as bar:
        try:
            found = measure(
                features, split, distance, real=real, batch_size=batch_size, workers=workers, advance=bar.advance
            )
            return replace(found, notes=tuple(notes))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _figures(one: Measured) -> dict[str, Any]:
    score = one.inception_score
    return {
        "images": one.images,
        "notes": one.notes,
        "inception_score": None if score is None else {"mean": score[0], "std": score[1]},
        "decode_errors": [{"name": name, "reason": reason} for name, reason in one.decode_errors],
    }


def _remarks(network: str, num_features: int, measured: dict[str, Measured]) -> list[str]:
    """Warnings about the validity of the distance."""
    remarks = []
    if network != NETWORK or num_features != 2048:
        remarks.append(f"computed with {network} and {num_features} features: not comparable with published FIDs")
    for side, one in measured.items():
        if one.images is not None and one.images <= num_features:
            remarks.append(
                f"{one.images} {side} images, {num_features} features: the covariance is singular and the FID is "
                "biased upwards; use many more images"
            )
    return remarks


def _print(figures: dict[str, Any]) -> None:
    from inceptionnet.cli.tables import print_table

    rows = []
    for side in ("real", "generated"):
        one = figures[side]
        score = one["inception_score"]
        text = "" if score is None else f"{score['mean']:.3f} ± {score['std']:.3f}"
        rows.append([side, one["images_of"], "" if one["images"] is None else str(one["images"]), text])
    print_table(["", "images of", "images", "inception score"], rows, right={2, 3}, title=figures["network"])
    say(f"FID {figures['fid']:.4f}, images resized to {figures['size_px']} px ({figures['resize']})")
    for remark in figures["remarks"]:
        say(remark)
    for side in ("real", "generated"):
        for note in figures[side]["notes"]:
            say(f"{figures[side]['images_of']}: {note}")
        for one in figures[side]["decode_errors"]:
            say(f"corrupt image, not counted: {one['name']}: {one['reason']}")
