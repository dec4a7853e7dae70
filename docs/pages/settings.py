"""Every setting of a training: meaning, values, and what it is in each recipe."""

from __future__ import annotations

from typing import Any, get_args

from inceptionnet.nets import PAPERS
from inceptionnet.train.recipe import LISTS, Recipe
from inceptionnet.train.recipes import DEFAULT, FINETUNE, FINETUNE_NOTE, PAPER
from inceptionnet.train.settings import Setting, describe, value_text
from pages.text import page, table

RECIPES = {
    name: {key: value_text(value) for key, value in recipe.items()}
    for name, recipe in {
        "default": DEFAULT, "finetune": FINETUNE, **{f"paper [{paper}]": one for paper, one in PAPER.items()}
    }.items()
}  # fmt: skip
"""The values of each recipe as text, by key."""
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
KINDS = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}


def takes(key: str) -> str:
    """The values that a setting takes, in words."""
    group, _, name = key.partition(".")
    field = type(getattr(DEFAULT, group)).model_fields[name]
    annotation: Any = field.annotation
    options = [one for one in (get_args(annotation) or (annotation,)) if one is not type(None)]
    named = [KINDS[one.__name__] for one in options if getattr(one, "__name__", "") in KINDS]
    bounds = [
        f"{word} {value_text(getattr(limit, bound))}"
        for limit in field.metadata
        for bound, word in BOUNDS.items()
        if getattr(limit, bound, None) is not None
    ]
    kind = " or ".join(named) + (", or several with commas" if key in LISTS else "")
    none = ", or none" if type(None) in get_args(annotation) else ""
    return f"{kind}{' ' if kind and bounds else ''}{' and '.join(bounds)}{none}"


def _values(key: str) -> str:
    """The value in each recipe; the papers' only where they differ from the default."""
    values = {name: recipe[key] for name, recipe in RECIPES.items()}
    default = values.pop("default")
    others = [f"{name} `{value}`" for name, value in values.items() if value != default]
    return f"Default `{default}`" + (f"; {', '.join(others)}." if others else " in every recipe.")


def _setting(setting: Setting) -> str:
    choices = ", ".join(f"`{choice}`" for choice in setting.choices)
    several = f"Any of {choices}, with commas, or `none`." if setting.key in LISTS else f"One of {choices}."
    return page(
        f"### {setting.key}",
        setting.description,
        f"{several if choices else f'Takes: {takes(setting.key)}.'} {_values(setting.key)}",
    )


def pages() -> dict[str, str]:
    """One page, so that the browser's search finds every setting."""
    rows = [[f"`{key}`", *(recipe[key] for recipe in RECIPES.values())] for key in RECIPES["default"]]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    groups = [
        part
        for group in describe(Recipe())
        for part in (f"## {group.name}", group.description, *(_setting(one) for one in group.settings))
    ]
    return {
        "index.md": page(
            "# Settings",
            "Every setting of a training besides the data and the network. `--set KEY=VALUE` of "
            "[`inceptionnet train`](../commands/train.md) changes one, `settings={KEY: VALUE}` of "
            "`inceptionnet.fit` in Python. `--recipe NAME` takes all of a recipe: `default`, `finetune` (the default "
            "from weights), or `paper`, that of the paper of the network. `inceptionnet train --settings` prints this "
            "list, `inceptionnet recipes` the comparison below.",
            "Several values with commas start [a search](../../training.md).",
            *groups,
            "## The recipes side by side",
            "The settings that are not the same in all of them.",
            table(["setting", *RECIPES], differing),
            FINETUNE_NOTE[0].upper() + FINETUNE_NOTE[1:] + ".",
            "\n".join(f"- [{paper}] {PAPERS[paper]}" for paper in PAPER),
        )
    }
