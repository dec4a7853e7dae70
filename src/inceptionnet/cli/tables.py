"""Tables for people, JSON for scripts, both on standard output."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any


def print_json(values: Any) -> None:
    """One JSON document."""
    print(json.dumps(values, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    title: str = "",
    note: str = "",
) -> None:
    """A table that wraps to the terminal, or one line a row elsewhere; the columns in `right` hold numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    if title:
        console.print(Text(title, style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i in right else "left", no_wrap=i in right or i == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    if note:
        console.print(Text(note))
