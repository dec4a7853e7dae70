"""`inceptionnet weights`: the published checkpoints with network, licence and published accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inceptionnet.cli.options import Json

if TYPE_CHECKING:
    from inceptionnet.weights.known import Published

NOTE = (
    "Every command that takes weights takes hf: addresses and downloads them; other files you download yourself and "
    "give by path. Accuracies are the publishers' own: ImageNet validation, single crop, %. --json has the network, "
    "address, checksum and preprocessing of each file, and the source of its accuracy."
)


def weights(json: Json = False) -> None:
    """List the published checkpoints that can be loaded, with licence and accuracy as stated by their publishers.

    Downloads nothing.
    """
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
            optional=[1],
            title=f"{_publisher(group[0])}: {_folder(group)}, licence {group[0].license}",
            note=NOTE if group is groups[-1] else "",
        )


def _publisher(one: Published) -> str:
    return one.name.partition("/")[0]


def _folder(group: Sequence[Published]) -> str:
    """The common beginning of the addresses."""
    parts = zip(*(one.source.split("/")[:-1] for one in group), strict=False)
    return "".join(f"{part[0]}/" for part in parts if len(set(part)) == 1)


def _row(one: Published) -> list[str]:
    accuracies = ["" if top is None else str(round(top, 2)) for top in (one.top1, one.top5)]
    name = one.name.partition("/")[2]
    return [name, one.network, str(one.classes or "none"), str(one.preprocessing.size_px), *accuracies]
