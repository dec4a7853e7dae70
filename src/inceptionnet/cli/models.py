"""`inceptionnet models`: every network with its paper, parameters and multiply-adds, or every edit of networks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from inceptionnet.cli.options import Json


def models(
    edits: Annotated[bool, typer.Option("--edits", help="List the papers' ablations instead, for show --edit and train "
                                        "--set network.edits=NAME: what they change, and in which networks.")] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """List all networks with paper, image size, parameters and multiply-adds."""
    from dataclasses import replace

    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.nets import NETWORKS, PAPERS
    from inceptionnet.nets.analysis import analyse, multiply_adds, parameters

    if edits:
        _print_edits(json)
        return
    rows: list[dict[str, Any]] = []
    for network in NETWORKS.values():
        figures = analyse(replace(network, aux={}))
        rows.append(
            {
                "name": network.name,
                "summary": network.summary,
                "paper": network.paper,
                "input_size_px": network.input_size,
                "parameters": parameters(figures),
                "multiply_adds": multiply_adds(figures),
                "auxiliary_heads": len(network.aux),
            }
        )
    if json:
        print_json({"models": rows, "papers": PAPERS})
        return
    print_table(
        ["name", "image size, px", "parameters", "multiply-adds", "paper", "description"],
        [
            [
                row["name"],
                str(row["input_size_px"]),
                f"{row['parameters']:,}",
                f"{row['multiply_adds'] / 1e9:.2f} G",
                row["paper"],
                row["summary"],
            ]
            for row in rows
        ],
        right={1, 2, 3},
        optional=[5, 4],
        note="With the published classes (1000; FID: 1008), without auxiliary heads. `inceptionnet show NAME` "
        "describes a network layer by layer; --json has every column. "
        + " ".join(f"[{key}] {reference}." for key, reference in PAPERS.items()),
    )


def _print_edits(json: bool) -> None:
    from inceptionnet.cli.tables import print_json, print_table
    from inceptionnet.nets import PAPERS
    from inceptionnet.nets.ablations import EDITS, networks_changed_by

    rows: list[dict[str, Any]] = [
        {"name": name, "summary": edit.summary, "paper": edit.paper, "networks": networks_changed_by(name)}
        for name, edit in EDITS.items()
    ]
    if json:
        print_json({"edits": rows, "papers": PAPERS})
        return
    print_table(
        ["edit", "change", "paper", "networks that it changes"],
        [[row["name"], row["summary"], row["paper"], ", ".join(row["networks"])] for row in rows],
        note=f"`inceptionnet show NAME --edit EDIT` shows the network after it. [v3] {PAPERS['v3']}.",
    )
