"""Grouping modules into kinds, and the steps of the overview.

Two modules are of one kind if their drawings differ only in numbers of filters and residual scales. A number that all
members share is printed; one that differs becomes a letter, the same letter wherever the numbers agree in all members,
such as c in v3's 7×7 modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from inceptionnet.draw.words import caption, counted, grid_text, listed
from inceptionnet.nets.analysis import Row, Shape, endpoints
from inceptionnet.nets.spec import Chain, Conv, Leaf, Linear, Network, Node, Residual, SeparableConv


@dataclass(frozen=True)
class Member:
    """One module; `rows` are its parts, by relative path."""

    name: str
    node: Node
    input: Shape
    output: Shape
    rows: Mapping[str, Row]


@dataclass(frozen=True)
class Kind:
    """A group of modules that share one drawing."""

    number: int
    names: str
    members: tuple[Member, ...]
    figures: Mapping[str, str]
    """By path of a part: its number of filters or residual scale, or the letter for it."""
    table: tuple[tuple[str, ...], ...]
    """A heading, and a row of numbers for each run of equal members; empty if all members are equal."""

    @property
    def node(self) -> Node:
        """The module to draw, apart from its numbers."""
        return self.members[0].node

    def caption(self, path: str) -> tuple[str, str]:
        """Both lines of the part at `path`."""
        node = self.members[0].rows[path].node
        assert isinstance(node, Leaf)
        return caption(node, self.figures.get(path, ""))

    def output(self, path: str) -> str:
        """The output shape of a part if all members agree, else ""."""
        return _common(member.rows[path].output for member in self.members)

    @property
    def ends(self) -> tuple[str, str]:
        """Input and output shape if all members agree, else ""."""
        return _common(member.input for member in self.members), _common(member.output for member in self.members)


@dataclass(frozen=True)
class Step:
    """One box of the overview: a single layer, or a run of modules of one kind."""

    name: str
    """The name of the endpoint, unless it is part of the text."""
    text: str
    output: str
    node: Node
    kind: int | None = None
    aux: tuple[str, int] | None = None
    """Name and kind of the auxiliary head attached to this step."""


def kinds(network: Network, rows: Sequence[Row]) -> list[Kind]:
    """The kinds of module in order of first occurrence, auxiliary heads last."""
    modules = [_member(row.name, row.path, row.node, rows) for row in endpoints(rows) if not isinstance(row.node, Leaf)]
    heads = [_member(f"aux.{on}", f"aux.{on}", head, rows) for on, head in network.aux.items()]
    order = [row.name for row in endpoints(rows)] + [head.name for head in heads]
    alike: dict[object, list[Member]] = {}
    for member in modules + heads:
        alike.setdefault(_drawing(member), []).append(member)
    return [_kind(number, tuple(members), order) for number, members in enumerate(alike.values(), 1)]


def steps(network: Network, rows: Sequence[Row], kinds: Sequence[Kind]) -> list[Step]:
    """The overview from the first endpoint to the logits; runs of one kind and output shape are one step.

    A run ends at an auxiliary head, so that it is clear which module the head is attached to.
    """
    kind_of = {member.name: kind.number for kind in kinds for member in kind.members}
    runs: list[list[Row]] = []
    for row in endpoints(rows):
        last = runs[-1][-1] if runs else None
        grows = (
            last is not None
            and not isinstance(row.node, Leaf)
            and last.name not in network.aux
            and (kind_of.get(last.name), last.output) == (kind_of[row.name], row.output)
        )
        if grows:
            runs[-1].append(row)
        else:
            runs.append([row])
    return [_step(run, kind_of) for run in runs]


def chain_steps(kind: Kind) -> list[Step]:
    """The parts of a kind without branches, else []."""
    parts = {path: row.node for path, row in kind.members[0].rows.items() if path}
    if not all(isinstance(node, Leaf) for node in parts.values()):
        return []
    return [
        Step(path.removeprefix("."), _line(kind.caption(path)), kind.output(path), node) for path, node in parts.items()
    ]


def _step(run: Sequence[Row], kind_of: Mapping[str, int]) -> Step:
    row = run[-1]
    head = f"aux.{row.name}"
    aux = (head, kind_of[head]) if head in kind_of else None
    if isinstance(row.node, Leaf):
        name, text = row.name, _line(caption(row.node, _figure(row.node)))
    else:
        name, text = "", counted([member.name for member in run])
    return Step(name, text, grid_text(row.output), row.node, kind_of.get(row.name), aux)


def _member(name: str, path: str, node: Chain | Node, rows: Sequence[Row]) -> Member:
    """The module at `path`; an auxiliary head has no row of its own."""
    parts = {row.path.removeprefix(path): row for row in rows if row.path == path or row.path.startswith(f"{path}.")}
    own = [parts[""]] if "" in parts else list(parts.values())
    return Member(name, node, own[0].input, own[-1].output, parts)


def _kind(number: int, members: tuple[Member, ...], order: Sequence[str]) -> Kind:
    values = {
        path: tuple(_figure(member.rows[path].node) for member in members)
        for path in members[0].rows
        if _figure(members[0].rows[path].node)
    }
    columns: dict[tuple[str, ...], str] = {}
    for column in values.values():
        if len(set(column)) > 1:
            columns.setdefault(column, _letter(len(columns)))
    figures = {path: columns.get(column, column[0]) for path, column in values.items()}
    names = listed([member.name for member in members], order)
    return Kind(number, names, members, figures, _table(members, columns, order))


def _table(
    members: Sequence[Member], columns: Mapping[tuple[str, ...], str], order: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """Inputs and outputs if they differ, then the letters; consecutive equal members share a row."""
    ends = {
        "in": tuple(grid_text(member.input) for member in members),
        "out": tuple(grid_text(member.output) for member in members),
    }
    told = {heading: column for heading, column in ends.items() if len(set(column)) > 1}
    told |= {letter: column for column, letter in columns.items()}
    if not told:
        return ()
    cells = list(zip(*told.values(), strict=True))
    rows = [
        (listed([members[i].name for i in run], order), *figures)
        for figures, run in groupby(range(len(members)), key=cells.__getitem__)
    ]
    return (("module", *told), *rows)


def _drawing(member: Member) -> object:
    """The module without its numbers, for grouping: captions of its parts, by path."""
    return tuple((path, _words(row.node)) for path, row in member.rows.items())


def _words(node: Node) -> object:
    if isinstance(node, Residual):
        return node.scale is None, node.relu
    return caption(node) if isinstance(node, Leaf) else None


def _figure(node: Node) -> str:
    """The number of filters or residual scale of a node, or ""."""
    match node:
        case Conv() | SeparableConv() | Linear():
            return str(node.filters)
        case Residual(scale=float() | int() as scale):
            return f"{scale:g}"
        case _:
            return ""


def _line(lines: tuple[str, str]) -> str:
    return ", ".join(line for line in lines if line)


def _common(shapes: Iterable[Shape]) -> str:
    different = {grid_text(shape) for shape in shapes}
    return different.pop() if len(different) == 1 else ""


def _letter(number: int) -> str:
    """a to z, then aa to zz."""
    return chr(ord("a") + number % 26) * (number // 26 + 1)
