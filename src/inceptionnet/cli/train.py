"""`inceptionnet train DATA`: train a network on labelled images, or resume an interrupted run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inceptionnet.cli.options import CorruptImages, Device, GroupBy, Labels, Splits, Workers
from inceptionnet.errors import ConfigurationError, RunError, number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.train.figures import AnyEvaluation

BEGAN = monotonic()
"""About when the process began; a time budget counts from there."""

RecipeName = Literal["default", "finetune", "paper"]
BatchNormMode = Literal["update", "freeze", "recalibrate"]


def train(
    context: typer.Context,
    data: Annotated[str | None, typer.Argument(help="Labelled images: digits, a folder of class folders (split or "
                                                    "not), a .zip of one, images with --labels, a folder of .parquet "
                                                    "or .tar files, or a stream: hf:OWNER/NAME, "
                                                    "https://…/train-{000..099}.tar.")] = None,
    labels: Labels = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to create, or with --resume the one to continue. "
                                                  "Required.")] = None,
    model: Annotated[str | None, typer.Option(help="Network, see inceptionnet models. Default: that of "
                                                   "--weights.")] = None,
    weights: Annotated[str | None, typer.Option(help="Pretrained weights to start from: a run folder, a weights file "
                                                     "of any known layout, or hf:OWNER/NAME. Default: randomly "
                                                     "initialised.")] = None,
    recipe: Annotated[RecipeName | None, typer.Option(help="See inceptionnet recipes. Default: finetune with "
                                                           "--weights, else default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Number of passes over the training set. Default: as in the "
                                                    "recipe.")] = None,
    time: Annotated[str | None, typer.Option(metavar="DURATION", help="Instead of --epochs: the time that the whole "
                                             "command may take, such as 90s, 10m or 1.5h. Image size and epochs are "
                                             "chosen to fit, by the speed measured here.")] = None,
    batch_size: Annotated[int, typer.Option(help="Effective (global) batch size: images per step over all processes "
                                                 "and accumulation steps.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Gradient-accumulation steps per update, to save memory.")] = 1,
    size: Annotated[int | None, typer.Option(help="Image size, px. Default: that of --weights, else of the "
                                                  "network.")] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier. Default: that of --weights, else 1.")] = None,
    train_from: Annotated[str | None, typer.Option(help="First trained layer of --weights: all, an endpoint (see "
                                                        "inceptionnet show) with earlier layers frozen, or head: "
                                                        "the classifier alone, by logistic regression.")] = None,
    bn: Annotated[BatchNormMode | None, typer.Option(metavar="MODE", help="Running statistics of batch norm: update, "
                                                     "freeze (keep those of --weights) or recalibrate (before each "
                                                     "evaluation). Default: as in the recipe.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the validation split, initialisation and "
                                           "training.")] = 0,
    splits: Splits = None,
    group_by: GroupBy = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the "
                                                       "recipe, see --settings. Repeatable. Several values, with "
                                                       "commas, are a search by successive halving (but for "
                                                       "network.residual_scale, network.edits and "
                                                       "log.trackers, which are lists).")] = None,
    list_settings: Annotated[bool, typer.Option("--settings", help="List all settings of the recipe (of --recipe and "
                                                "--model) with values and descriptions, and exit.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out (--resume RUN does too): as it was, "
                                         "or with other --epochs, --time, --batch-size, --accumulate, --workers, "
                                         "--device, --corrupt-images, --data, and --set.")] = False,
    repeat: Annotated[Path | None, typer.Option(help="Repeat the training of this run folder, in --out; the same "
                                                     "options may change.")] = None,
    moved: Annotated[str | None, typer.Option("--data", metavar="DATA", help="Where the images of the run are now, if "
                                              "they have moved; for --resume and --repeat.")] = None,
    corrupt_images: CorruptImages = "fail",
    workers: Workers = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Train a network on labelled images; writes a run folder with weights, metrics, plots and a report.

    Ctrl-C stops after the current step and saves a checkpoint; --resume RUN continues, after a crash too.
    Distributed: torchrun --nproc-per-node N -m inceptionnet train …
    """
    if list_settings:
        _print_settings(recipe or ("finetune" if weights else "default"), model, weights, settings or [])
        return
    data, out = _places(data, out, moved, resume=resume, repeat=repeat)

    from inceptionnet.system.devices import default_workers
    from inceptionnet.system.distributed import joined_world
    from inceptionnet.train import loop, search
    from inceptionnet.train.budget import minutes_of
    from inceptionnet.train.changes import FIXED, Changes
    from inceptionnet.train.plan import Plan
    from inceptionnet.train.recipe import parse_settings, with_shortcuts
    from inceptionnet.train.trials import searched

    machine = {"workers": default_workers(workers), "device": device}
    if not (resume or repeat) or _given(context, "corrupt_images"):
        machine["corrupt_images"] = corrupt_images
    asked = with_shortcuts(parse_settings(settings or []), bn=bn, train_from=train_from, minutes=minutes_of(time))
    changes = Changes(
        data=data,
        labels=None if labels is None else str(labels),
        epochs=epochs,
        batch_size=batch_size if _given(context, "batch_size") else None,
        accumulate=accumulate if _given(context, "accumulate") else None,
        settings=asked,
        machine=machine,
        fixed={name: context.params[name] for name in FIXED if _given(context, name)},
    )
    with joined_world() as world:
        if resume:
            searching = search.unfinished(out)
            evaluation = search.resume(out, world, changes, BEGAN)
        elif repeat:
            searching = False
            evaluation = loop.repeat(repeat, out, world, changes, BEGAN)
        else:
            plan = Plan(
                data=str(data),
                model=model,
                recipe=recipe,
                epochs=epochs,
                batch_size=batch_size,
                accumulate=accumulate,
                size=size,
                width=width,
                weights=weights,
                seed=seed,
                splits=splits,
                group_by=group_by,
                settings=asked,
                labels=None if labels is None else str(labels),
                **machine,  # type: ignore[arg-type]
            )
            searching = bool(searched(asked))
            evaluation = search.train(plan, out, world, BEGAN)
        if world.is_main:
            if searching:
                _print_ranking(out)
            _print_end(out, evaluation)


def _places(
    data: str | None, out: Path | None, moved: str | None, *, resume: bool, repeat: Path | None
) -> tuple[str | None, Path]:
    """Where the images are, unless the run folder says it, and the run folder.

    Raises: ConfigurationError: one is missing or given twice.
    """
    if resume and out is None and data is not None:  # --resume RUN
        out, data = Path(data), None
    if out is None:
        raise ConfigurationError("expected --out RUN, the run folder to create, got none; give --out")
    if resume and repeat:
        raise ConfigurationError("--resume continues a run, --repeat starts one; give one of them")
    if data is not None and moved is not None:
        raise ConfigurationError(f"expected the data once, got {data} and --data {moved}; omit one")
    data = moved if data is None else data
    if data is None and not (resume or repeat):
        raise ConfigurationError(
            "expected DATA to train on, got none; give it, or --resume to continue the run in --out"
        )
    return data, out


def _print_end(out: Path, evaluation: AnyEvaluation) -> None:
    """What the training has come to, and what can be done next."""
    from inceptionnet.train.figures import summary
    from inceptionnet.train.reporting import next_commands
    from inceptionnet.train.run import Run

    say(f"{out}: {summary(evaluation)} on {number_of('held-out image', len(evaluation.labels))}")
    with suppress(RunError):  # a file that could not be written has been warned about
        say("next:", *(f"  {command}" for command in next_commands(Run(out))))


def _print_settings(recipe: str, model: str | None, weights: str | None, settings: list[str]) -> None:
    """The settings of the recipe for the network, with the changes of --set."""
    import shutil

    from inceptionnet.train.recipe import parse_settings
    from inceptionnet.train.recipes import recipe_named
    from inceptionnet.train.settings import listing
    from inceptionnet.weights import read_record
    from inceptionnet.weights.folder import weights_of

    if weights and not model:
        model = read_record(weights_of(weights)).configuration.name
    chosen = recipe_named(recipe, model).changed(parse_settings(settings))
    say(f"Settings of the recipe {recipe}{f' of {model}' if model else ''}; change one with --set KEY=VALUE.", "")
    say(*listing(chosen, min(100, shutil.get_terminal_size().columns)).split("\n"))


def _print_ranking(out: Path) -> None:
    """The trials of a search, best first."""
    from inceptionnet.cli.tables import print_table
    from inceptionnet.train import search
    from inceptionnet.train.figures import BEST, deciding, value_of

    ranking = search.ranking(out)
    best = ranking[0]
    metric = BEST[deciding(best.metrics)]
    rows = [
        [
            str(i), *one.settings.values(), str(one.rung), f"{one.budget:.3g}",
            *((value_of(one.metrics), f"{one.metrics['val_loss']:.4f}") if one.metrics else ("failed", "")),
            f"{one.wall_s:.0f}", str(out / one.run),
        ]
        for i, one in enumerate(ranking, 1)
    ]  # fmt: skip
    columns = ["", *best.settings, "rung", best.unit, f"val {metric}", "val loss", "wall s", "run"]
    print_table(
        columns, rows, right=range(1 + len(best.settings), len(columns) - 1),
        note=f"Best of {number_of('trial', len(ranking))} by the validation split, whose metrics flatter it for that "
        "reason; evaluate it on images that were not used to choose, such as a test split.",
    )  # fmt: skip


def _given(context: typer.Context, name: str) -> bool:
    """Whether the option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
