"""`fit`: from labelled images to a classifier, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from inceptionnet.classifier import Classifier, load
from inceptionnet.data.loading import CorruptImages
from inceptionnet.devices import default_workers
from inceptionnet.distributed import joined_world
from inceptionnet.train import loop
from inceptionnet.train.plan import Plan
from inceptionnet.train.recipe import with_shortcuts

log = logging.getLogger("inceptionnet")


def fit(
    data: str | Path,
    out: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    accumulate: int = 1,
    size: int | None = None,
    width: float | None = None,
    train_from: str | None = None,
    bn: str | None = None,
    seed: int = 0,
    splits: str | None = None,
    settings: Mapping[str, object] | None = None,
    corrupt_images: CorruptImages = "fail",
    workers: int | None = None,
    device: str = "auto",
    resume: bool = False,
) -> Classifier:
    """Train a network on labelled images; the run folder has weights, metrics and report, and its classifier is given.

    The arguments are the options of `inceptionnet train`. Under torchrun every process calls it.

    Args:
        data: a folder of class folders, split or not, a .zip of one, a folder of .parquet or .tar files, or a stream.
        labels: a file with the labels, and perhaps splits, of the images, see docs/data.md. Default: class folders.
        out: the run folder to make. Default: `runs/NAME-DATE-TIME`, which is logged.
        model: a network's name. Default: the one in `weights`.
        weights: start from a weights file of any known layout, a run folder or hf:OWNER/NAME.
        recipe: default, paper or finetune. Default: finetune with `weights`, else default.
        epochs: number of passes over the training set. Default: as in the recipe.
        batch_size: the effective batch size.
        accumulate: gradient-accumulation steps.
        size: image size, px. Default: the network's.
        width: width multiplier. Default: 1, or that of `weights`.
        train_from: head for a linear probe, an endpoint for it and all after it, or all. Default: as in the recipe.
        bn: what becomes of batch norm's statistics: update, freeze or recalibrate. Default: as in the recipe.
        seed: random seed.
        splits: which folders are the splits, as train=A,val=B, or none if they are classes. Default: by their names.
        settings: other settings of the recipe, such as `{"optimizer.lr": 0.01}`.
        corrupt_images: fail, or skip and name them.
        workers: processes that decode images. Default: half of the cores, at most 4.
        device: as for `pick_device`.
        resume: go on with the run in `out`, which decides everything but `workers` and `device`.

    Raises:
        InceptionNetError: what is asked for cannot be done, before anything is written; or the training had to stop.
    """
    machine = {"workers": default_workers(workers), "device": device}
    folder = Path(out) if out else _new_folder(data)
    asked = with_shortcuts(settings or {}, bn=bn, train_from=train_from)
    with joined_world() as world:
        if resume:
            loop.resume(folder, world, **machine)
        else:
            plan = Plan(
                data=str(data), model=model, recipe=recipe, epochs=epochs, batch_size=batch_size, accumulate=accumulate,
                size=size, width=width, weights=None if weights is None else str(weights), seed=seed,
                splits=splits, labels=None if labels is None else str(labels), settings=asked,
                corrupt_images=corrupt_images, **machine,  # type: ignore[arg-type]
            )  # fmt: skip
            loop.train(plan, folder, world)
    return load(folder, device=device)


def _new_folder(data: str | Path) -> Path:
    folder = Path("runs") / f"{Path(data).stem or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
    log.info("the run folder is %s", folder)
    return folder
