"""Tables for people, JSON for scripts, both on standard output."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import typer

from inceptionnet.errors import none_read, number_of, visible
from inceptionnet.system.printing import say

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
    """One JSON document, in which control characters are JSON's escapes, so that what is read from it is exact."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    say(*(_UNSEEN.sub(_in_json, line) for line in text.split("\n")))


_UNSEEN = re.compile(r"[^ -~]+")


def _in_json(match: re.Match[str]) -> str:
    return "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in match[0])


def is_lone_error(rows: Sequence[Prediction] | Sequence[Explanation]) -> bool:
    """Whether there is a single image, which could not be read: the error that follows says all of it."""
    return len(rows) == 1 and bool(rows[0].error)


def say_errors(rows: Sequence[Prediction] | Sequence[Explanation]) -> None:
    """Below a table of images: how many could not be read."""
    if errors := sum(bool(row.error) for row in rows):
        say(f"{errors} of {number_of('image', len(rows))} could not be read")


def end_with_errors(rows: Sequence[Prediction] | Sequence[Explanation]) -> None:
    """How a command ends whose rows are images: well, or with 1 if some could not be read, or with an error if none.

    Raises:
        DataError: none of them could be read.
    """
    errors = [row for row in rows if row.error]
    if len(errors) == len(rows):
        raise none_read(len(rows), rows[0].file, rows[0].error)
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
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    rows = [list(map(visible, row)) for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_COLUMNS
    bold = partial(console.print, style="bold", markup=False, no_wrap=True, overflow="ignore", crop=False)
    if title:
        console.print(Text(visible(title), style="bold"))
    whole = {0, *right}
    kept = list(range(len(columns)))
    least = [_least(columns[i], [row[i] for row in rows], i in whole) for i in kept]
    for i in optional:
        least[i] = max(least[i], min(READABLE, max((cell_len(row[i]) for row in rows), default=0)))
    for i in optional:
        if _total([least[j] for j in kept]) > console.width:
            kept.remove(i)
    widths = _widths([[columns[i], *(row[i] for row in rows)] for i in kept], [least[i] for i in kept], console.width)

    def lines(cells: Sequence[Sequence[str]]) -> Iterator[str]:
        """The lines of a row, of the lines of its cells."""
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (_padded(part, width, right=i in right)
                      for i, part, width in zip(kept, parts, widths, strict=True))  # fmt: skip
            yield f" {(' ' * BETWEEN).join(padded)} "

    empty = " " * _total(widths)
    say(empty)
    for line in lines([wrap(columns[i], width, break_long_words=False) for i, width in zip(kept, widths, strict=True)]):
        bold(line)
    say(f" {'─' * (len(empty) - 2)} ")
    for row in rows:  # not by rich's table, which takes half a millisecond for each
        say(*lines([
            [row[i]] if i in whole or cell_len(row[i]) <= width
            else [line.plain.rstrip() for line in Text(row[i]).wrap(console, width)]
            for i, width in zip(kept, widths, strict=True)
        ]))  # fmt: skip
    say(empty)
    if note:
        console.print(Text(visible(note)))


def _padded(text: str, width: int, *, right: bool) -> str:
    from rich.cells import cell_len

    room = " " * (width - cell_len(text))
    return room + text if right else text + room


def _least(heading: str, cells: Sequence[str], whole: bool) -> int:
    """The width of a column whose heading is wrapped, and whose cells are too unless they stay whole."""
    from rich.cells import cell_len

    words = [*wrap(heading, 1, break_long_words=False), *(cells if whole else " ".join(cells).split())]
    return max(map(cell_len, words), default=0)


def _widths(texts: Sequence[Sequence[str]], least: Sequence[int], room: int) -> list[int]:
    """Widths of the columns: as wide as their texts, else the widest are narrowed, none below its `least`."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in texts]
    while _total(widths) > room and (wide := [i for i, width in enumerate(widths) if width > least[i]]):
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN * (len(widths) - 1) + 2
