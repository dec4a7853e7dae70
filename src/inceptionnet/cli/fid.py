"""`inceptionnet fid REAL GENERATED`: Fréchet inception distance and inception score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inceptionnet.cli.options import BatchSize, Device, Json, opened
from inceptionnet.cli.parts import PART_SIZE, PartSize, Threads, threads_of
from inceptionnet.errors import ConfigurationError, DataError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchmetrics.image.fid import FrechetInceptionDistance

    from inceptionnet.classifier import Classifier
    from inceptionnet.data.jobs import Job
    from inceptionnet.evaluate.fid import FidFeatures, Measured
    from inceptionnet.system.distributed import World

NETWORK = "inception_v3.fid"
IMAGES = "all images of a folder, .zip or .tar; a data set as for train; or an .npz with mu and sigma."


def fid(
    real: Annotated[str, typer.Argument(metavar="REAL", help=f"Real images: {IMAGES}")],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Generated images, as REAL.")],
    weights: Annotated[str, typer.Option(help=f"Weights of {NETWORK}, see inceptionnet "
                                              "weights. Required.")] = "",
    save_statistics: Annotated[Path | None, typer.Option(help="Write mu and sigma of REAL to this .npz file, for "
                                                              "use as REAL later.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the features of both to FOLDER/real and "
                                             "FOLDER/generated, in parts: the same command resumes it, and torchrun "
                                             "shares it.")] = None,
    part_size: PartSize = PART_SIZE,
    batch_size: BatchSize = 32,
    workers: Threads = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Compute the Fréchet inception distance of generated images to real ones, and the inception score of both.

    Whole images are resized as the publisher of the weights does: as in pytorch-fid or torch-fidelity.
    """
    from inceptionnet.cli.tables import print_json
    from inceptionnet.evaluate.fid import FidFeatures, new_distance
    from inceptionnet.evaluate.fid import save_statistics as save
    from inceptionnet.system.distributed import joined_world, share_cores

    if save_statistics and save_statistics.suffix != ".npz":
        raise ConfigurationError(f"--save-statistics {save_statistics}: expected a file ending in .npz")
    sides = {"real": real, "generated": generated}
    with joined_world() as world:
        if out is None and world.size > 1:
            raise ConfigurationError("--out: expected a folder for the parts of several processes, got none; give one")
        share_cores()
        classifier = opened(weights or _published(), device=device)
        features = FidFeatures(classifier.model, classifier.preprocessing)
        jobs = {side: _job(where, part_size) for side, where in sides.items()}
        if out is not None:
            _write(classifier, features, jobs, out, batch_size, threads_of(workers), world)
    if not world.is_main:
        return
    distance = new_distance(features)
    measured = {
        side: _measured(side, sides[side], features, job, distance, out and out / side, batch_size, threads_of(workers))
        for side, job in jobs.items()
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


def _job(where: str, part_size: int) -> tuple[Job, list[str]] | None:
    """The images of a place, and notes; None for statistics."""
    from inceptionnet.data.jobs import in_parts
    from inceptionnet.data.unlabelled import every_image

    if where.endswith(".npz"):
        return None
    source, notes = every_image(where)
    return in_parts(source, "all", part_size), notes


def _write(
    classifier: Classifier,
    features: FidFeatures,
    jobs: Mapping[str, tuple[Job, list[str]] | None],
    out: Path,
    batch_size: int,
    threads: int,
    world: World,
) -> None:
    from inceptionnet.classifier.parts import described
    from inceptionnet.evaluate.fid_parts import write_fid_features

    if out.suffix:
        raise ConfigurationError(f"--out {out}: expected a folder for the parts of real and generated images")
    for side, found in jobs.items():
        if found is not None:
            about = described(classifier, found[0], answers="features of FID")
            write_fid_features(
                features, found[0], out / side, about,
                batch_size=batch_size, workers=threads, world=world, title=side,
            )  # fmt: skip


def _measured(
    side: str,
    where: str,
    features: FidFeatures,
    found: tuple[Job, list[str]] | None,
    distance: FrechetInceptionDistance,
    parts: Path | None,
    batch_size: int,
    threads: int,
) -> Measured:
    from inceptionnet.evaluate.fid import load_statistics, measure
    from inceptionnet.evaluate.fid_parts import measure_parts
    from inceptionnet.system.progress import Bar

    real = side == "real"
    if found is None:
        return load_statistics(Path(where), distance, real=real)
    job, notes = found
    try:
        if parts is not None:
            return replace(measure_parts(features, parts, distance, real=real), notes=tuple(notes))
        chunks = (chunk for part in job.parts for chunk in part())
        with Bar(job.images, where) as bar:
            one = measure(
                features, chunks, distance, real=real, batch_size=batch_size, workers=threads, advance=bar.advance
            )
        return replace(one, notes=tuple(notes))
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
                f"{number_of(f'{side} image', one.images)}, {num_features} features: the covariance is singular and "
                "the FID is biased upwards; use many more images"
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
