"""`inceptionnet train DATA`: from labelled images to a run folder, or on with one that stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import Device, Workers, default_workers
from inceptionnet.errors import ConfigurationError


def _list_settings(wanted: bool) -> None:
    if wanted:
        from inceptionnet.cli.tables import print_table
        from inceptionnet.train.recipe import Recipe

        print_table(["setting", "default"], [[key, str(value)] for key, value in Recipe().items()])
        raise typer.Exit


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    data: Annotated[str | None, typer.Argument(help="digits, a folder of class folders (split or not), a .zip of one, "
                                                    "a folder of .parquet or .tar files, or a stream: hf:OWNER/NAME, "
                                                    "https://…/train-{000..099}.tar.")] = None,
    model: Annotated[str | None, typer.Option(help="A network; left out, the one in --weights.")] = None,
    recipe: Annotated[str | None, typer.Option(help="default, paper (the network's paper's) or finetune (from "
                                                    "--weights); see inceptionnet recipes.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Times through all images; left out, the recipe's.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all processes and parts together.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Parts that a step is computed in, where memory is short.")] = 1,
    size: Annotated[int | None, typer.Option(help="Height and width that images are brought to, px; left out, the "
                                                  "network's own.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on every number of filters.")] = None,
    weights: Annotated[str | None, typer.Option(help="Start from this weights file of any known layout, run folder or "
                                                     "hf:OWNER/NAME.")] = None,
    train_from: Annotated[str | None, typer.Option(help="Train the head alone (head), an endpoint of inceptionnet "
                                                        "show and all after it, or all; the rest stays as in "
                                                        "--weights.")] = None,
    bn: Annotated[str | None, typer.Option(help="Batch norm's statistics: update, freeze (keep those of --weights) or "
                                                "recalibrate (measured anew before each evaluation).")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and all chance.")] = 0,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the "
                                                       "recipe, see --settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    repeat: Annotated[Path | None, typer.Option(help="Run the training of this run folder again.")] = None,
    corrupt_images: Annotated[str, typer.Option(help="Images that cannot be decoded: fail, or skip and name "
                                                 "them.")] = "fail",
    workers: Workers = None,
    device: Device = "auto",
    list_settings: Annotated[bool, typer.Option("--settings", callback=_list_settings, is_eager=True,
                                                help="List the recipe's settings and exit.")] = False,
) -> None:  # fmt: skip
    """Train a network on labelled images and leave a run folder with weights, metrics and images of both.

    Ctrl-C finishes the step and saves; --resume --out RUN goes on from there, after a crash too. In several processes:
    torchrun --nproc-per-node N -m inceptionnet train …
    """
    if corrupt_images not in ("fail", "skip"):
        raise ConfigurationError(f"--corrupt-images is {corrupt_images!r}; expected fail or skip")
    if resume or repeat:
        _refuse_others(context, "--resume" if resume else "--repeat", "repeat" if not resume else "resume")
    elif data is None:
        raise ConfigurationError("expected DATA to train on, got none; name it, or --resume the run in --out")

    from inceptionnet.distributed import joined_world
    from inceptionnet.train import loop
    from inceptionnet.train.plan import Plan
    from inceptionnet.train.recipe import parse_settings
    from inceptionnet.weights.folder import weights_of

    machine = {"workers": default_workers(workers), "device": device}
    if not resume or _given(context, "corrupt_images"):
        machine["corrupt_images"] = corrupt_images
    asked = parse_settings(settings or [])
    if bn is not None:
        asked = {"batch_norm.mode": bn, **asked}
    if train_from is not None:
        asked = {"network.train_from": train_from, **asked}
    with joined_world() as world:
        if resume:
            evaluation = loop.resume(out, world, **machine)
        elif repeat:
            evaluation = loop.repeat(repeat, out, world, **machine)
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
                weights=weights_of(weights) if weights else None,
                seed=seed,
                settings=asked,
                **machine,  # type: ignore[arg-type]
            )
            evaluation = loop.train(plan, out, world)
        if world.is_main:
            print(f"{out}: accuracy {evaluation.top1:.2%} on {len(evaluation.labels)} held-out images")


def _given(context: typer.Context, name: str) -> bool:
    """Whether the user wrote the option, rather than its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_others(context: typer.Context, option: str, own: str) -> None:
    """An option that the run folder decides, given all the same, would be ignored; better say so."""
    free = {own, "out", "workers", "device", "corrupt_images"}
    extra = sorted(name for name in context.params if name not in free and _given(context, name))
    if extra:
        names = ", ".join("DATA" if name == "data" else f"--{name.replace('_', '-')}" for name in extra)
        raise ConfigurationError(f"{option} takes everything from the run folder; leave out {names}")
