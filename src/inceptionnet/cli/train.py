"""`inceptionnet train DATA`: from labelled pictures to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inceptionnet.cli.options import BadImages, BatchSize, Device, Workers, default_workers
from inceptionnet.errors import ConfigurationError


def _list_settings(wanted: bool) -> None:
    if wanted:
        from inceptionnet.cli.tables import print_table
        from inceptionnet.train.recipe import Recipe

        print_table(["setting", "default"], [[key, str(value)] for key, value in Recipe().items()])
        raise typer.Exit


def train(
    data: Annotated[str, typer.Argument(help="digits, a folder of class folders (split or not), a .zip of one, or a "
                                             "folder of .parquet files.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    model: Annotated[str | None, typer.Option(help="A network; left out, the one in --weights.")] = None,
    epochs: Annotated[int, typer.Option(help="Times through all pictures.")] = 30,
    batch_size: BatchSize = 32,
    size: Annotated[int | None, typer.Option(help="Height and width that pictures are brought to, px; left out, the "
                                                  "network's own.")] = None,
    width: Annotated[float | None, typer.Option(help="Factor on every number of filters.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Start from this weights file or run folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and all chance.")] = 0,
    workers: Workers = None,
    bad_images: BadImages = "fail",
    device: Device = "auto",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the "
                                                       "recipe, see --settings.")] = None,
    list_settings: Annotated[bool, typer.Option("--settings", callback=_list_settings, is_eager=True,
                                                help="List the recipe's settings and exit.")] = False,
) -> None:  # fmt: skip
    """Train a network on labelled pictures and leave a run folder with weights, metrics and pictures of both."""
    if bad_images not in ("fail", "skip"):
        raise ConfigurationError(f"--bad-images is {bad_images!r}; expected fail or skip")

    from inceptionnet.train.loop import Plan, train
    from inceptionnet.train.recipe import parse_settings
    from inceptionnet.train.run import weights_of

    plan = Plan(
        data=data,
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        size=size,
        width=width,
        weights=str(weights_of(weights)) if weights else None,
        seed=seed,
        workers=default_workers(workers),
        bad_images="skip" if bad_images == "skip" else "fail",
        device=device,
        settings=parse_settings(settings or []),
    )
    evaluation = train(plan, out)
    print(f"{out}: accuracy {evaluation.top1:.2%} on {len(evaluation.labels)} held-out pictures")
