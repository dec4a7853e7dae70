"""`inceptionnet recipes`: the recipes side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from inceptionnet.cli.options import Json


def recipes(
    network: Annotated[str | None, typer.Argument(help="Show the recipes for this network only.")] = None,
    all_settings: Annotated[bool, typer.Option("--all", help="Show the settings that are equal in all recipes "
                                               "too.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Compare the training recipes: default, finetune, and the recipe of each paper.

    inceptionnet train --settings describes every setting.
    """
    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.nets import PAPERS
    from inceptionnet.system.printing import say
    from inceptionnet.train.recipes import DEFAULT, FINETUNE_NOTE, PAPER, paper_of, recipe_named
    from inceptionnet.train.settings import value_text

    shown = {"default": DEFAULT, "finetune": recipe_named("finetune", network)}
    if network:
        shown[f"paper [{paper_of(network)}]"] = recipe_named("paper", network)
    else:
        shown |= {f"paper [{paper}]": recipe for paper, recipe in PAPER.items()}
    values = {name: dict(recipe.items()) for name, recipe in shown.items()}
    if json:
        print_json(values)
        return
    rows = [[key, *(value_text(value[key]) for value in values.values())] for key in values["default"]]
    if not all_settings:
        rows = [row for row in rows if len(set(row[1:])) > 1]
    cited = [paper for paper in PAPERS if any(f"[{paper}]" in name for name in shown)]
    print_table(
        ["setting", *shown],
        rows,
        title="train --recipe NAME"
        + ("" if all_settings else ": the settings that differ (--all shows every setting)"),
        note=FINETUNE_NOTE,
    )
    say(*(f"[{paper}] {PAPERS[paper]}" for paper in cited), "train --settings describes every setting")
