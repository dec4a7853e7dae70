"""Rewriting what stands in a row in the branches of a tree: the tools of ablations.py (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from inceptionnet.nets.analysis import pair
from inceptionnet.nets.spec import AvgPool, Branches, Conv, Kernel, MaxPool, Node, Residual, SeparableConv

Row = Sequence[Node]
"""Nodes one after another."""


def with_rows(node: Node, change: Callable[[Row], Row]) -> Node:
    """The tree with every list of nodes replaced by what `change` makes of it, the inner ones first."""
    match node:
        case Branches(chains=chains):
            return Branches(**{name: with_rows(chain, change) for name, chain in chains.items()})  # type: ignore[arg-type]
        case Residual(body=body):
            return replace(node, body=with_rows(body, change))  # type: ignore[arg-type]
        case Mapping():
            return {name: with_rows(part, change) for name, part in node.items()}
        case Sequence():
            return change([with_rows(part, change) for part in node])
        case _:
            return node


def leaves(node: Node) -> Iterator[Node]:
    """The nodes without parts, in order."""
    match node:
        case Branches(chains=chains):
            parts: list[Node] = list(chains.values())
        case Residual(body=body):
            parts = [body]
        case Mapping():
            parts = list(node.values())
        case Sequence():
            parts = list(node)
        case _:
            yield node
            return
    for part in parts:
        yield from leaves(part)


def two_for_one(row: Row, kernel: int, first: Kernel, last: Kernel) -> Row:
    """The row with convolutions of the kernels `first` and `last` for each one with a square `kernel`."""
    done: list[Node] = []
    for part in row:
        if is_plain(part) and pair(part.kernel) == (kernel, kernel):
            done += [replace(part, kernel=first), replace(part, kernel=last)]
        else:
            done.append(part)
    return done


def with_pairs(row: Row, is_pair: Callable[[Node, Node], bool], change: Callable[[Conv, Conv], Sequence[Node]]) -> Row:
    """The row with every pair of neighbours replaced, from the first on; no convolution is in two pairs."""
    done: list[Node] = []
    rest = list(row)
    while rest:
        part = rest.pop(0)
        if rest and is_pair(part, rest[0]):
            done += change(part, rest.pop(0))  # type: ignore[arg-type]  # both are convolutions
        else:
            done.append(part)
    return done


def is_plain(node: Node) -> TypeGuard[Conv]:
    """Whether it is a convolution with ReLU that keeps the grid."""
    return isinstance(node, Conv) and node.relu and node.stride == 1 and node.padding == "same"


def both_3x3(first: Node, last: Node) -> bool:
    """Whether both are 3×3 and keep the grid."""
    return is_plain(first) and is_plain(last) and pair(first.kernel) == pair(last.kernel) == (3, 3)


def crossed(first: Node, last: Node) -> bool:
    """Whether one is 1×n, the other n×1, and both keep the grid."""
    if not (is_plain(first) and is_plain(last)):
        return False
    one, other = pair(first.kernel), pair(last.kernel)
    return one == other[::-1] and min(one) == 1 < max(one)


def is_module(node: Node) -> bool:
    """Whether it has branches and its output has the grid of its input."""
    windows = [leaf for leaf in leaves(node) if isinstance(leaf, Conv | SeparableConv | MaxPool | AvgPool)]
    keeps = all(leaf.stride == 1 and leaf.padding == "same" for leaf in windows)
    return isinstance(node, Branches | Residual) and keeps


def at_stride_1(row: Row) -> Row:
    """The row with every strided convolution and max pool at stride 1, padded so that the grid stays."""
    return [
        replace(part, stride=1, padding="same") if isinstance(part, Conv | MaxPool) and part.stride > 1 else part
        for part in row
    ]
