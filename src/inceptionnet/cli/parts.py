"""What commands share that write a table in parts: options, the job, and what is said of corrupt images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from inceptionnet.errors import number_of
from inceptionnet.system.printing import say

if TYPE_CHECKING:
    from inceptionnet.classifier import Classifier
    from inceptionnet.data.jobs import Job
    from inceptionnet.system.distributed import World
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


class Batch(NamedTuple):
    """What writes a table of all images."""

    classifier: Classifier
    job: Job
    world: World


@contextmanager
def batch_job(
    open_classifier: Callable[[], Classifier],
    places: Sequence[str],
    out: Path,
    *,
    split: str = "all",
    part_size: int = PART_SIZE,
    allow_urls: bool = False,
    allow_shards: bool = True,
) -> Iterator[Batch]:
    """The images at some places in parts, which all processes that torchrun started share.

    Data that is not split is split as it was for training. Where the table goes to is checked before anything is
    loaded. The arguments are those of `open_job`. Raises: as `check_out`, `load` and `open_job`.
    """
    from inceptionnet.data.jobs import check_out, open_job
    from inceptionnet.system.distributed import joined_world, share_cores

    with joined_world() as world:
        check_out(out, world)
        share_cores()
        classifier = open_classifier()
        trained = classifier.record.provenance
        job = open_job(
            places, split, part_size, seed=trained.get("seed", 0), group_by=trained.get("group_by"),
            allow_urls=allow_urls, allow_shards=allow_shards,
        )  # fmt: skip
        yield Batch(classifier, job, world)


def threads_of(workers: int | None) -> int:
    """As many threads as worker processes would be, but at least one."""
    from inceptionnet.system.devices import default_workers

    return max(1, default_workers(workers))


def named_errors(written: Totals) -> list[dict[str, str]]:
    """The first corrupt images with their reasons, as plain JSON."""
    return [{"name": name, "reason": reason} for name, reason in written.named]


def print_errors(written: Totals) -> None:
    """Name the first corrupt images."""
    for name, reason in written.named[:SHOWN]:
        say(f"corrupt image: {name}: {reason}")
    if written.errors > SHOWN:
        say(f"{number_of('corrupt image', written.errors)} in all; their rows have the reason in the column error")
