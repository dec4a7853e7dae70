"""Walking through trees and rewriting them: the tools of arguments.py and ablations.py (no torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

from inceptionnet.nets.analysis import pair
from inceptionnet.nets.spec import AvgPool, Branches, Conv, Kernel, Leaf, MaxPool, Node, Residual, SeparableConv

Row = Sequence[Node]
"""Nodes one after another."""


def rewritten(
    node: Node, *, leaf: Callable[[Leaf], Leaf] = lambda leaf: leaf, row: Callable[[Row], Row] = lambda row: row
) -> Node:
    """The tree with every leaf replaced by `leaf(…)`, and every list of nodes by `row(…)`, the inner ones first."""

    def inner(part: Node) -> Node:
        return rewritten(part, leaf=leaf, row=row)

    match node:
        case Branches(chains=chains):
            return Branches(**{name: inner(chain) for name, chain in chains.items()})  # type: ignore[arg-type]  # chains stay chains
        case Residual(body=body):
            return replace(node, body=inner(body))  # type: ignore[arg-type]  # branches stay branches
        case Mapping():
            return {name: inner(part) for name, part in node.items()}
        case Sequence():
            return row([inner(part) for part in node])
        case _:
            return leaf(node)


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
