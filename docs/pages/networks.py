"""A page for each network, from its tree: drawing, shapes, cost, published weights, and what differs from its base."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

from inceptionnet.draw import svg, words
from inceptionnet.nets import NETWORKS, PAPERS
from inceptionnet.nets.analysis import Row, analyse, endpoints, minimum_size, multiply_adds, parameters
from inceptionnet.nets.spec import Branches, Conv, Linear, Network, Residual, SeparableConv
from inceptionnet.registry.names import KNOWN
from inceptionnet.weights.known import PUBLISHED, Published
from pages.text import billions, millions, page, table, toctree

FACTS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
CONVENTIONS = {
    "same": "padding at stride 2",
    "average_counts_padding": "average pools count their padding",
    "batch_norm_eps": "epsilon of batch norm",
    "conv_init": "initial weights of convolutions",
    "linear_init": "initial weights of linear layers",
}


def title(name: str) -> str:
    """As the field writes it."""
    return str(FACTS[name]["title"])


def base(name: str) -> str | None:
    """The network that this one is compared with; None: it is one itself."""
    found = FACTS[name].get("base", name.partition(".")[0])
    return None if found == name else str(found)


def brief(node: Any) -> str:
    """A node in one line: `1×1 conv 64 → 3×3 conv 96`, branches separated by a bar."""
    match node:
        case Branches(chains=chains):
            return " | ".join(brief(chain) or "unchanged" for chain in chains.values())
        case Residual(body=body, scale=scale):
            scaled = "unscaled" if scale is None else f"scale {scale:g}"
            return f"residual, {scaled}{'' if node.relu else ', no ReLU'}: {brief(body)}"
        case Mapping():
            return " → ".join(map(brief, node.values()))
        case Sequence():
            return " → ".join(f"[{brief(part)}]" if isinstance(part, Branches) else brief(part) for part in node)
    filters = str(node.filters) if isinstance(node, Conv | SeparableConv | Linear) else ""
    return " ".join(part for part in words.caption(node, filters) if part)


def differences(one: Network, other: Network) -> list[list[str]]:
    """What, what it is in `one`, and in `other`; endpoints in a row that differ in the same way are one entry."""
    found: list[list[str]] = []
    chains = [(one.body | one.head, other.body | other.head), (_heads(one), _heads(other))]
    for mine, its in chains:
        order = list(dict.fromkeys([*its, *mine]))
        groups: list[tuple[list[str], str, str]] = []
        for name in order:
            texts = (brief(mine[name]) if name in mine else "–", brief(its[name]) if name in its else "–")
            if mine.get(name) == its.get(name):
                continue
            if groups and groups[-1][1:] == texts and order.index(groups[-1][0][-1]) == order.index(name) - 1:
                groups[-1][0].append(name)
            else:
                groups.append(([name], *texts))
        found += [[f"`{names[0]}`" + (f" to `{names[-1]}`" if names[1:] else ""), *texts] for names, *texts in groups]
    for field, meaning in CONVENTIONS.items():
        values = [getattr(network.conventions, field) for network in (one, other)]
        if values[0] != values[1]:
            found.append([meaning, *map(_said, values)])
    if one.input_size != other.input_size:
        found.append(["image size", f"{one.input_size} px", f"{other.input_size} px"])
    return [row if row[1] != row[2] else [*row[:1], f"{row[1]} (other initial weights)", row[2]] for row in found]


def _heads(network: Network) -> dict[str, Any]:
    return {f"aux.{endpoint}": chain for endpoint, chain in network.aux.items()}


def _said(value: object) -> str:
    match value:
        case None:
            return "no batch norm; biases"
        case bool():
            return "yes" if value else "no"
        case str():
            return {"tensorflow": "TensorFlow's", "symmetric": "half the kernel on every side"}.get(value, value)
        case float():
            return f"{value:g}"
    return str(value)


def _shape(row: Row) -> list[str]:
    seen = "whole image" if row.field.height == inf else f"{row.field.height:g}×{row.field.width:g}"
    name = row.name if row.depth == 1 else row.path
    cost = f"{row.multiply_adds / 1e6:,.2f}"
    return [f"`{name}`", words.grid_text(row.output), f"{row.parameters:,}", cost, seen]


def _weights(one: Published) -> list[str]:
    accuracy = [f"{value:.2f} %" if value else "–" for value in (one.top1, one.top5)]
    source = f"`{one.source}`" if one.on_hub else f"[{one.file}]({one.source})"
    return [one.name, *accuracy, str(one.classes or "features"), one.license, source, one.note]


def _overview(network: Network, rows: Sequence[Row]) -> str:
    main = [row for row in rows if not row.path.startswith("aux.")]
    last = [row for row in endpoints(main) if row.path.startswith("body.")][-1]
    heads = ", ".join(f"`{endpoint}`" for endpoint in network.aux)
    aux = f"; {millions(parameters(rows))} with auxiliary heads" if network.aux else ""
    cited = [f"[{key}] {PAPERS[key]}" for key in PAPERS if f"[{key}]" in network.paper]
    facts = [
        ["name", f"`{network.name}`"],
        ["source", ". ".join([network.paper, *cited])],
        ["image size", f"{network.input_size} px, at least {minimum_size(replace(network, aux={}))} px"],
        ["parameters", f"{parameters(main):,} ({millions(parameters(main))}{aux})"],
        ["multiply-adds", billions(multiply_adds(main))],
        ["last grid", words.grid_text(last.output)],
        ["auxiliary heads", f"after {heads}" if heads else "none"],
        ["stems for low resolution", ", ".join(f"{size} px" for size in network.low_resolution) or "none"],
    ]
    return table(["", ""], facts)


def _compared(network: Network) -> str:
    against = base(network.name)
    if against is None:
        others = [name for name in NETWORKS if base(name) == network.name]
        rows = [[f"[{title(name)}]({name}.md)", f"`{name}`", NETWORKS[name].summary] for name in others]
        told = "The networks that are compared with this one, each on its page:"
        return page("## Drawn and released", told, table(["network", "name", "what it is"], rows)) if rows else ""
    other = NETWORKS[against]
    rows = differences(network, other)
    costs = [
        [what, count(network), count(other)]
        for what, count in (
            ("parameters", lambda one: f"{parameters(analyse(replace(one, aux={}))):,}"),
            ("multiply-adds", lambda one: billions(multiply_adds(analyse(replace(one, aux={}))))),
        )
    ]
    told = (
        f"All that differs from [{title(against)}]({against}.md), from the two trees. A bar separates the branches of "
        "a module, an arrow the layers of a branch; V is valid padding, /2 a stride of 2."
    )
    return page("## Drawn and released", told, table(["", f"`{network.name}`", f"`{against}`"], rows + costs))


def _elsewhere(name: str) -> str:
    known = sorted(other for other, named in KNOWN.items() if named.network == name)
    names = f"`create_model` finds this network by these names too: {', '.join(f'`{one}`' for one in known)}."
    listed = "\n".join(f"- {one}" for one in FACTS[name].get("differences", ()))
    more = "[More about timm](../../timm.md), and [how files of others are read](../../weights.md)."
    return page("## In torchvision, timm and Keras", listed, names if known else "", more)


def _page(network: Network) -> str:
    name = network.name
    rows = analyse(network)
    shown = [*endpoints(rows), *(row for row in rows if row.path.startswith("aux.") and row.depth == 2)]
    published = [_weights(one) for one in PUBLISHED if one.network == name]
    heads = ["file", "top-1", "top-5", "classes", "licence", "address", "note"]
    summary = f"{network.summary[0].upper() if network.summary[:5] != 'torch' else 't'}{network.summary[1:]}."
    return page(
        f"# {title(name)}",
        summary,
        _overview(network, rows),
        f'```python\nfrom inceptionnet import create_model\n\nmodel = create_model("{name}")\n```',
        "## Drawing",
        "````{container} drawing-box\n"
        f"```{{image}} {name}.svg\n:alt: {title(name)}, overview and each kind of module\n:class: drawing\n```\n````",
        f"[The drawing by itself]({name}.svg); `inceptionnet show {name} --svg FILE` writes it.",
        "## Shapes and cost",
        f"Of an image of {network.input_size} px; `inceptionnet show {name} --size PX` gives others.",
        table(
            ["endpoint", "output (H×W×C)", "parameters", "multiply-adds (M)", "receptive field (px)"],
            [_shape(row) for row in shown],
            right=(1, 2, 3, 4),
        ),
        "## Published weights",
        "Accuracies and licences as the publishers state them: ImageNet's validation images, one crop."
        if published
        else "There are none for this network.",
        table(heads, published, right=(1, 2, 3)) if published else "",
        _compared(network),
        _elsewhere(name),
    )


def pages() -> dict[str, str]:
    """A page and a drawing of every network, and their list."""
    made = {f"{name}.md": _page(network) for name, network in NETWORKS.items()}
    made |= {f"{name}.svg": svg(network) for name, network in NETWORKS.items()}
    rows = []
    for name, network in NETWORKS.items():
        counted = analyse(replace(network, aux={}))
        best = max((one.top1 or 0 for one in PUBLISHED if one.network == name), default=0)
        rows.append([
            f"[{title(name)}]({name}.md)", f"`{name}`", str(network.input_size), f"{best:.1f} %" if best else "–",
            millions(parameters(counted)), billions(multiply_adds(counted)),
        ])  # fmt: skip
    made["index.md"] = page(
        "# Networks",
        "Every network of the family, as its paper draws it and as it was released. A page has the drawing, the "
        "shapes, parameters, multiply-adds and receptive fields, the published weights, and what differs from the "
        "others.",
        table(["network", "name", "px", "top-1", "parameters", "multiply-adds"], rows, right=(2, 3, 4, 5)),
        "Top-1: the best of the published weights, on ImageNet's validation images with one crop, as its publisher "
        "states it. Parameters and multiply-adds without auxiliary heads.",
        toctree(*NETWORKS),
    )
    return made
