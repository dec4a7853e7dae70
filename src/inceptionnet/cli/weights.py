"""`inceptionnet weights`: every published checkpoint with its network, licence and published accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inceptionnet.cli.options import Json

if TYPE_CHECKING:
    from inceptionnet.weights.known import Published

NOTE = (
    "hf: addresses can be given to --weights, predict and convert as they are; the other files you download yourself "
    "and give by path. This command downloads nothing. Accuracies are the publishers', one crop, in per cent; --json "
    "has each file's whole address, checksum, preprocessing and where its figures are stated."
)


def weights(json: Json = False) -> None:
    """List the published checkpoints that can be loaded, with licence and accuracy as their publishers state them."""
    from dataclasses import asdict
    from itertools import groupby

    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.weights.known import PUBLISHED

    if json:
        print_json({"weights": [asdict(one) for one in PUBLISHED]})
        return
    groups = [list(group) for _, group in groupby(PUBLISHED, lambda one: (_publisher(one), one.license))]
    for group in groups:
        print_table(
            ["name", "network", "classes", "px", "top-1", "top-5"],
            [_row(one) for one in group],
            right={2, 3, 4, 5},
            title=f"{_publisher(group[0])}: {_folder(group)}, licence {group[0].license}",
            note=NOTE if group is groups[-1] else "",
        )


def _publisher(one: Published) -> str:
    return one.name.partition("/")[0]


def _folder(group: Sequence[Published]) -> str:
    """What the addresses begin with."""
    parts = zip(*(one.source.split("/")[:-1] for one in group), strict=False)
    return "".join(f"{part[0]}/" for part in parts if len(set(part)) == 1)


def _row(one: Published) -> list[str]:
    accuracies = ["" if top is None else str(round(top, 2)) for top in (one.top1, one.top5)]
    name = one.name.partition("/")[2]
    return [name, one.network, str(one.classes or "none"), str(one.preprocessing.size_px), *accuracies]
