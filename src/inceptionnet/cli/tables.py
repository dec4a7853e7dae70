"""Tables for people, JSON for scripts, both on standard output."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import typer

from inceptionnet.errors import DataError

if TYPE_CHECKING:
    from inceptionnet.evaluate.prediction import Prediction
    from inceptionnet.explain.files import Explanation

PIPED_COLUMNS = 1000
"""Width where standard output is no terminal: one line for each row."""
BETWEEN = 3
"""Characters between two columns; at either end of a row there is one."""
READABLE = 30
"""An optional column of text is dropped rather than wrapped to fewer characters."""


def print_json(values: Any) -> None:
    """One JSON document."""
    print(json.dumps(values, indent=2, ensure_ascii=False))


def end_with_errors(rows: Sequence[Prediction] | Sequence[Explanation]) -> None:
    """How a command ends whose rows are images: well, or with 1 if some could not be read, or with an error if none.

    Raises:
        DataError: none of them could be read.
    """
    errors = [row for row in rows if row.error]
    if len(errors) == len(rows):
        raise DataError(f"none of {len(rows)} images could be read; the first: {rows[0].file}: {rows[0].error}")
    if errors:
        raise typer.Exit(1)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    optional: Sequence[int] = (),
    title: str = "",
    note: str = "",
) -> None:
    """A table that fits the terminal, or has one line for each row elsewhere.

    Where it is too wide, optional columns are dropped, then headings and text are wrapped between words.

    Args:
        right: columns of numbers, aligned to the right and never wrapped; nor is the first column.
        optional: columns to drop where the terminal is too narrow, in this order.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[_one_line(cell) for cell in row] for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_COLUMNS
    if title:
        console.print(Text(title, style="bold"))
    whole = {0, *right}
    kept = list(range(len(columns)))
    least = [_least(columns[i], [row[i] for row in rows], i in whole) for i in kept]
    for i in optional:
        least[i] = max(least[i], min(READABLE, max((len(row[i]) for row in rows), default=0)))
    for i in optional:
        if _total([least[j] for j in kept]) > console.width:
            kept.remove(i)
    widths = _widths([[columns[i], *(row[i] for row in rows)] for i in kept], [least[i] for i in kept], console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, width in zip(kept, widths, strict=True):
        heading = "\n".join(wrap(columns[i], width, break_long_words=False))
        table.add_column(Text(heading), justify="right" if i in right else "left", no_wrap=i in whole, width=width)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))
    console.print(table)
    if note:
        console.print(Text(note))


def _one_line(cell: str) -> str:
    r"""A cell without line breaks and other control characters, which names of files may have: as \n, \t …"""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cell)


def _least(heading: str, cells: Sequence[str], whole: bool) -> int:
    """The width of a column whose heading is wrapped, and whose cells are too unless they stay whole."""
    words = [*wrap(heading, 1, break_long_words=False), *(cells if whole else " ".join(cells).split())]
    return max(map(len, words), default=0)


def _widths(texts: Sequence[Sequence[str]], least: Sequence[int], room: int) -> list[int]:
    """Widths of the columns: as wide as their texts, else the widest are narrowed, none below its `least`."""
    widths = [max(map(len, column)) for column in texts]
    while _total(widths) > room and (wide := [i for i, width in enumerate(widths) if width > least[i]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN * (len(widths) - 1) + 2
