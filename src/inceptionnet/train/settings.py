"""The settings of a recipe with their descriptions and choices, for `train --settings` and for documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inceptionnet.train.recipe import Recipe, choices_of


@dataclass(frozen=True)
class Setting:
    """One setting of a recipe."""

    key: str
    value: Any
    description: str
    choices: tuple[str, ...]
    """The words that it takes; empty for numbers and other values."""


@dataclass(frozen=True)
class Group:
    """A group of settings, such as `optimizer`."""

    name: str
    description: str
    settings: tuple[Setting, ...]


def value_text(value: object) -> str:
    """A value as `--set` takes it: none, true, 0.004, sgd, or numbers with commas."""
    match value:
        case None | () | []:
            return "none"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.6g}"
        case tuple() | list():
            return ",".join(map(value_text, value))
        case _:
            return str(value)


def describe(recipe: Recipe) -> Iterator[Group]:
    """All settings of a recipe by group, in the order of the recipe."""
    for name in Recipe.model_fields:
        group = getattr(recipe, name)
        yield Group(
            name,
            type(group).__doc__ or "",
            tuple(
                Setting(key := f"{name}.{field}", getattr(group, field), about.description, choices_of(key))
                for field, about in type(group).model_fields.items()
            ),
        )


def listing(recipe: Recipe, width: int) -> str:
    """All settings as text: `key=value` as `--set` takes it, and below it what it means, wrapped to `width` columns."""
    lines: list[str] = []
    for group in describe(recipe):
        lines += ["", *textwrap.wrap(f"{group.name}: {group.description}", width)]
        for one in group.settings:
            lines.append(f"  {one.key}={value_text(one.value)}")
            choices = f" Choices: {', '.join(one.choices)}." if one.choices else ""
            text = one.description + choices
            lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines[1:])
