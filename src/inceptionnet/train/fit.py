"""`fit`: from labelled images to a classifier, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from inceptionnet.classifier import Classifier, load
from inceptionnet.data.loading import CorruptImages
from inceptionnet.system.devices import default_workers
from inceptionnet.system.distributed import World, joined_world
from inceptionnet.train import search
from inceptionnet.train.budget import minutes_of
from inceptionnet.train.changes import Changes
from inceptionnet.train.plan import Plan
from inceptionnet.train.recipe import with_shortcuts

log: logging.Logger = logging.getLogger("inceptionnet")


def fit(
    data: str | Path,
    out: str | Path | None = None,
    *,
    labels: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    time: str | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    size: int | None = None,
    width: float | None = None,
    train_from: str | None = None,
    bn: str | None = None,
    seed: int | None = None,
    splits: str | None = None,
    group_by: str | None = None,
    settings: Mapping[str, object] | None = None,
    corrupt_images: CorruptImages | None = None,
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
        time: instead of epochs, the time that the whole call may take, such as "10m"; image size and epochs are chosen
            to fit. Default: no budget.
        batch_size: the effective batch size. Default: 32.
        accumulate: gradient-accumulation steps. Default: 1.
        size: image size, px. Default: the network's.
        width: width multiplier. Default: 1, or that of `weights`.
        train_from: head for the classifier alone (a linear probe, by logistic regression), an endpoint for it and all
            after it, or all. Default: as in the recipe.
        bn: what becomes of batch norm's statistics: update, freeze or recalibrate. Default: as in the recipe.
        seed: random seed. Default: 0.
        splits: which folders are the splits, as train=A,val=B, or none if they are classes. Default: by their names.
        group_by: what no split divides: a column of `labels` such as patient_id, a regular expression for the names of
            images such as "(P[0-9]+)_", or none. Default: a column with a well-known name, see docs/data.md.
        settings: other settings of the recipe, such as `{"optimizer.lr": 0.01}`. Several values of a setting, such as
            `{"optimizer.lr": [0.001, 0.003]}`, are a search (docs/training.md), whose best run is in `out`.
        corrupt_images: fail, or skip and name them. Default: fail.
        workers: processes that decode images. Default: half of the cores, at most 4.
        device: as for `pick_device`.
        resume: continue the run in `out`. Defaults are then the run's own settings; `data` may have moved, and the
            same arguments may change as the options of `inceptionnet train --resume`.

    Raises:
        InceptionNetError: what is asked for cannot be done, before anything is written; or the training had to stop.
    """
    began = monotonic()
    machine: dict[str, Any] = {"workers": default_workers(workers), "device": device}
    if corrupt_images is not None or not resume:
        machine["corrupt_images"] = corrupt_images or "fail"
    start = None if weights is None else str(weights)
    labelled = None if labels is None else str(labels)
    asked = with_shortcuts(settings or {}, bn=bn, train_from=train_from, minutes=minutes_of(time))
    with joined_world() as world:
        folder = Path(out) if out else _new_folder(data, world)
        if resume:
            fixed = {
                "model": model, "weights": start, "recipe": recipe, "size": size, "width": width, "seed": seed,
                "splits": splits, "group_by": group_by,
            }  # fmt: skip
            changes = Changes(str(data), labelled, epochs, batch_size, accumulate, asked, machine, fixed)
            search.resume(folder, world, changes, began)
        else:
            sizes: dict[str, Any] = {"batch_size": batch_size, "accumulate": accumulate, "seed": seed}
            plan = Plan(
                data=str(data), model=model, recipe=recipe, epochs=epochs, size=size, width=width, weights=start,
                splits=splits, group_by=group_by, labels=labelled, settings=asked, **machine,
                **{name: n for name, n in sizes.items() if n is not None},
            )  # fmt: skip
            search.train(plan, folder, world, began)
    return load(folder, device=device)


def _new_folder(data: str | Path, world: World) -> Path:
    """A folder named after the time, the same in all processes."""
    name = f"{Path(data).stem or 'run'}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path("runs", world.gather(name)[0])
    if world.is_main:
        log.info("the run folder is %s", folder)
    return folder
