"""What the commands have in common that write a table in parts: options, and what is said of corrupt images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.system.parts import Totals

PART_SIZE = 4096
SHOWN = 10
"""Corrupt images that are named; the others are in the table."""

OUT = typer.Option(
    metavar="FOLDER|FILE.parquet",
    help="A folder for a table in parts: the same command resumes it, and torchrun shares it; or one .parquet file.",
)
PartSize = Annotated[
    int, typer.Option(help="The most images in a part; of a stream, a part is a shard.", min=1, metavar="N")
]

Threads = Annotated[
    int | None, typer.Option(help="Threads that load images.", min=0, rich_help_panel="Machine", metavar="N")
]


def threads_of(workers: int | None) -> int:
    """As many threads as asked for; default: half of the cores of this process, at most 4."""
    from inceptionnet.system.devices import cores_allowed

    return max(1, min(4, cores_allowed() // 2) if workers is None else workers)


def print_errors(written: Totals) -> None:
    """Name the first corrupt images."""
    for name, reason in written.named[:SHOWN]:
        say(f"corrupt image: {name}: {reason}")
    if written.errors > SHOWN:
        say(f"{written.errors} corrupt images in all; their rows have the reason in the column error")
