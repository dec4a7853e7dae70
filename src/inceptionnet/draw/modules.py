"""Drawing one kind of module: input, branches side by side, concat, and the shortcut of a residual block.

A part is drawn as a `Flow`, with x relative to its axis: a single inlet or outlet is on the axis, so that parts can be
stacked and lines never cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from inceptionnet.draw.column import column
from inceptionnet.draw.kinds import Kind, chain_steps
from inceptionnet.draw.marks import (
    PAPER,
    QUIET,
    SHADE,
    Box,
    Drawing,
    Label,
    Line,
    Mark,
    Point,
    colours,
    moved,
    text_width,
)
from inceptionnet.nets.spec import Branches, Chain, Conv, Leaf, Linear, Node, Residual, SeparableConv

BOX, BAR, ROUND = 36, 22, 22
"""Heights in pixels of a box with two lines, a bar (input, concat, output) and the circle of a sum."""
GAP, ENTRY, BETWEEN = 16, 26, 14
"""Distances in pixels: between boxes, into a named branch, between branches."""
SMALL = 9.5
"""Font size of branch names, in pixels."""


@dataclass(frozen=True)
class Flow:
    """A drawn part: extent left and right of its axis, height, inlets (at the top) and outlets."""

    left: float
    right: float
    height: float
    marks: tuple[Mark, ...]
    inlets: tuple[float, ...]
    outlets: tuple[Point, ...]


def module(kind: Kind) -> Drawing:
    """Draw a kind of module from input to output.

    A chain without branches, such as an auxiliary head, is drawn like the overview, with names and sizes.
    """
    if parts := chain_steps(kind):
        return column(parts, f"input {kind.ends[0]}", _ground(kind))
    flow = _flow(kind.node, "", kind, _cell(kind))
    into, out = kind.ends
    flow = _gathered(flow, f"concat {out}") if len(flow.outlets) > 1 else _below(flow, _bar(flow, f"output {out}"))
    start = _bar(flow, f"input {into}")
    if len(flow.inlets) > 1:
        marks = start.marks + moved(flow.marks, 0, BAR)
        flow = replace(flow, left=start.left, right=start.right, height=BAR + flow.height, marks=marks)
    else:
        flow = _below(start, flow)
    return Drawing(flow.left + flow.right, flow.height, moved(flow.marks, flow.left, 0))


def _flow(node: Node, path: str, kind: Kind, cell: float) -> Flow:
    """The part at `path`, with boxes of width `cell`."""
    match node:
        case Branches(chains=chains):
            return _side_by_side([_branch(name, chain, f"{path}.{name}", kind, cell) for name, chain in chains.items()])
        case Residual():
            return _residual(node, path, kind, cell)
        case Mapping() | list() | tuple():
            return _chain(node, path, kind, cell)
        case _:
            ground = _ground(kind) if isinstance(node, Conv | SeparableConv | Linear) else SHADE
            return _box(tuple(line for line in kind.caption(path) if line), cell, BOX, ground)


def _chain(chain: Chain, path: str, kind: Kind, cell: float) -> Flow:
    """The parts in sequence."""
    named = chain.items() if isinstance(chain, Mapping) else ((str(i), part) for i, part in enumerate(chain))
    return reduce(_below, [_flow(part, f"{path}.{name}", kind, cell) for name, part in named])


def _branch(name: str, chain: Chain, path: str, kind: Kind, cell: float) -> Flow:
    """A chain with the line into it, labelled with the name of the branch."""
    flow = _chain(chain, path, kind, cell)
    marks = (*_into(0, 0, flow.inlets, ENTRY), Label(5, 11, name, SMALL, QUIET), *moved(flow.marks, 0, ENTRY))
    right = max(flow.right, 5 + text_width(name, SMALL))
    outlets = tuple((x, y + ENTRY) for x, y in flow.outlets)
    return Flow(flow.left, right, flow.height + ENTRY, marks, (0,), outlets)


def _residual(node: Residual, path: str, kind: Kind, cell: float) -> Flow:
    """Branches, concat, the closing convolution, scale, sum with the shortcut, and ReLU."""
    branches = _flow(node.body, f"{path}.branches", kind, cell)
    flow = _gathered(branches, f"concat {kind.output(f'{path}.branches')}")
    flow = _below(flow, _box(kind.caption(f"{path}.closing"), cell, BOX, _ground(kind)))
    if node.scale is not None:
        flow = _below(flow, _box((f"× {kind.figures[path]}",), cell, BAR, SHADE))
    flow = _below(flow, _box(("+",), ROUND, ROUND, PAPER, radius=ROUND / 2))
    middle = flow.height - ROUND / 2
    if node.relu:
        flow = _below(flow, _box(("ReLU",), cell, BAR, SHADE))
    word = "shortcut"
    x = -(flow.left + BETWEEN + text_width(word, SMALL) + 5)
    shortcut = (Line(((x, 0), (x, middle), (-ROUND / 2, middle))), Label(x + 5, 11, word, SMALL, QUIET))
    return replace(flow, left=BETWEEN - x, marks=flow.marks + shortcut, inlets=(x, *branches.inlets))


def _side_by_side(branches: Sequence[Flow]) -> Flow:
    """The branches from left to right, top-aligned."""
    width = sum(flow.left + flow.right for flow in branches) + BETWEEN * (len(branches) - 1)
    marks: list[Mark] = []
    inlets: list[float] = []
    outlets: list[Point] = []
    edge = -width / 2
    for flow in branches:
        axis = edge + flow.left
        marks += moved(flow.marks, axis, 0)
        inlets += [axis + x for x in flow.inlets]
        outlets += [(axis + x, y) for x, y in flow.outlets]
        edge = axis + flow.right + BETWEEN
    height = max(flow.height for flow in branches)
    return Flow(width / 2, width / 2, height, tuple(marks), tuple(inlets), tuple(outlets))


def _below(upper: Flow, lower: Flow) -> Flow:
    """`lower` below `upper`, concatenating the branches of `upper` first."""
    if len(upper.outlets) > 1:
        upper = _gathered(upper, "concat")
    y = upper.height + GAP
    return Flow(
        max(upper.left, lower.left),
        max(upper.right, lower.right),
        y + lower.height,
        upper.marks + _into(0, upper.height, lower.inlets, y) + moved(lower.marks, 0, y),
        upper.inlets,
        tuple((x, y + below) for x, below in lower.outlets),
    )


def _gathered(flow: Flow, text: str) -> Flow:
    """The flow with its branches joined by a bar."""
    bar, y = _bar(flow, text), flow.height + GAP
    arrows = tuple(Line(((x, top), (x, y))) for x, top in flow.outlets)
    marks = flow.marks + arrows + moved(bar.marks, 0, y)
    return Flow(bar.left, bar.right, y + BAR, marks, flow.inlets, ((0, y + BAR),))


def _into(x: float, top: float, inlets: Sequence[float], y: float) -> tuple[Line, ...]:
    """Lines from a point down to the inlets at `y`: an arrow, or a fork."""
    if len(inlets) == 1:
        return (Line(((x, top), (inlets[0], y))),)
    return Line(((x, top), (x, y)), arrow=False), Line(((min(inlets), y), (max(inlets), y)), arrow=False)


def _bar(flow: Flow, text: str) -> Flow:
    """A bar as wide as the flow or its text."""
    text = text.strip()
    more = max(0, text_width(text, 12) + BAR - flow.left - flow.right) / 2
    left, right = flow.left + more, flow.right + more
    bar = Box(-left, 0, left + right, BAR, (text,), radius=BAR / 2, bold=True)
    return Flow(left, right, BAR, (bar,), (0,), ((0, BAR),))


def _box(text: tuple[str, ...], width: float, height: float, ground: str, radius: float = 3) -> Flow:
    box = Box(-width / 2, 0, width, height, text, ground=ground, radius=radius)
    return Flow(width / 2, width / 2, height, (box,), (0,), ((0, height),))


def _ground(kind: Kind) -> str:
    return colours(kind.number)[0]


def _cell(kind: Kind) -> float:
    """Width of the boxes of a kind, from its longest line."""
    return max(text_width(line, 12) for line in _lines(kind)) + 12


def _lines(kind: Kind) -> Iterable[str]:
    for path, row in kind.members[0].rows.items():
        if isinstance(row.node, Leaf):
            yield from kind.caption(path)
