"""`inceptionnet study NAME|FILE.toml DATA`: test a claim of the papers, or another, by trainings over random seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.cli.options import CorruptImages, Device, GroupBy, Json, Labels, Splits, Workers
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.study.result import Result
    from inceptionnet.study.spec import Study


def study(
    name: Annotated[str | None, typer.Argument(metavar="NAME|FILE.toml", help="A built-in study, or a file with one "
                                               "of your own. Default: list the built-in studies.")] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="As for train. Default: describe the "
                                               "study.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the study to create, or to continue. Required with "
                                                  "DATA.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Random seeds of each arm; a study that is there can get more. "
                                              "Default: as in the study.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The study's short form, for a first look.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every training. Default: as in the study.",
                                               min=1)] = None,
    time: Annotated[str | None, typer.Option(metavar="DURATION", help="Instead of --epochs: what all trainings "
                                             "together may take, such as 20m; all get the epochs that fit.")] = None,
    model: Annotated[str | None, typer.Option(help="Network of the base, where the arms have none of their "
                                                   "own.")] = None,
    size: Annotated[int | None, typer.Option(help="Image size of the base, px.")] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier of the base.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Batch size of the base.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the "
                                                       "base; can be repeated.")] = None,
    runs: Annotated[Path | None, typer.Option(help="Where the run folders are; finished runs in it are used. "
                                              "Default: runs in --out.")] = None,
    labels: Labels = None,
    splits: Splits = None,
    group_by: GroupBy = None,
    corrupt_images: CorruptImages = "fail",
    workers: Workers = None,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Test a claim: train every arm with the same seeds, compare them in pairs, and say whether the claim holds.

    The rule for the verdict is part of the study and stands before any training. The same command continues a study
    that was interrupted. Several at a time: torchrun --nproc-per-node N -m inceptionnet study …
    """
    from inceptionnet.study.spec import read_study

    if name is None:
        _list(json)
        return
    about = read_study(name)
    about = about.quickly() if quick else about
    if data is None:
        _describe(name, about, json)
        return
    if out is None:
        raise ConfigurationError("expected --out DIR, the folder of the study, got none; give --out")
    if epochs is not None and time is not None:
        raise ConfigurationError("--epochs and --time both say how long to train; give one of them")

    from inceptionnet.study.running import run_study
    from inceptionnet.study.trainings import Asked
    from inceptionnet.system.devices import default_workers
    from inceptionnet.system.distributed import joined_world
    from inceptionnet.train.budget import minutes_of
    from inceptionnet.train.plan import absolute
    from inceptionnet.train.recipe import parse_settings

    base = {"epochs": epochs, "model": model, "size": size, "width": width, "batch_size": batch_size}
    asked = Asked(
        name,
        absolute(data),
        about.seeds if seeds is None else seeds,
        quick=quick,
        labels=None if labels is None else str(labels.resolve()),
        splits=splits,
        group_by=group_by,
        base={key: value for key, value in base.items() if value is not None},
        settings=parse_settings(settings or []),
        workers=default_workers(workers),
        device=device,
        corrupt_images=corrupt_images,
    )
    with joined_world() as world:
        result = run_study(about, asked, out, runs=runs, minutes=minutes_of(time), world=world)
    if world.is_main:
        _print(about, result, out, json)


def _list(json: bool) -> None:
    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.study.spec import read_study, studies

    found = {name: read_study(name) for name in studies()}
    if json:
        print_json({name: {"claim": one.claim, "source": one.source} for name, one in found.items()})
        return
    rows = [[name, one.claim, one.source] for name, one in found.items()]
    note = "inceptionnet study NAME describes one; inceptionnet study NAME DATA --out DIR runs it."
    print_table(["study", "claim", "source"], rows, note=note)


def _describe(name: str, about: Study, json: bool) -> None:
    """What a study would do, without running it."""
    from inceptionnet.cli.tables import print_json, print_table

    if json:
        print_json(about.model_dump(mode="json"))
        return
    rows = [[arm, *_arm(about, arm)] for arm in about.arms]
    columns = ["arm", "network", "what is different", "in the paper"]
    print_table(columns, rows, title=f"{name}: {about.claim}", note=about.source)
    print_table(
        ["holds if", "smallest difference of interest"],
        [[one.title, "1 point" if one.margin == 0.01 else f"{100 * one.margin:g} points"] for one in about.compare],
    )
    for note in about.notes:
        say(note)
    say(f"run it with: inceptionnet study {name} DATA --out DIR")


def _arm(about: Study, name: str) -> list[str]:
    from inceptionnet.train.settings import value_text

    own, whole = about.arms[name], about.arm(name)
    options = {key: getattr(own, key) for key in ("recipe", "epochs", "batch_size", "size", "width")}
    said = [f"{key.replace('_', ' ')} {value}" for key, value in options.items() if value is not None]
    said += [f"{key}={value_text(value)}" for key, value in own.settings.items()]
    said += [f"{key} of {', '.join(map(value_text, values))}" for key, values in own.grid.items()]
    said += [f"{own.crops} crops of each image"] * (own.crops > 1)
    said += [f"ensemble of {', '.join(own.ensemble)}"] * bool(own.ensemble)
    said += [f"width for the cost of {own.same_cost_as}"] * bool(own.same_cost_as)
    different = ", ".join(said) or "–"
    return [
        "–" if own.ensemble else whole.model or "–",
        f"{own.about}: {different}" if own.about else different,
        own.paper or "–",
    ]


def _print(about: Study, result: Result, out: Path, json: bool) -> None:
    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.study.tables import arm_table, comparison_table, ends_of_grids, grid_table, verdict_line

    if json:
        print_json({"claim": about.claim, **result.to_dict()})
        return
    columns, rows = arm_table(about, result)
    print_table(columns, rows, right=range(2, len(columns) - 1), title=about.claim, note=about.source)
    columns, rows = grid_table(result)
    if rows:
        print_table(columns, rows, note=" ".join(ends_of_grids(about, result)))
    columns, rows = comparison_table(result)
    print_table(columns, rows)
    say(verdict_line(result))
    say(f"the page is {out / 'index.html'}")
