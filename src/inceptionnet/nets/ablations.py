"""The ablations that the papers describe in words, as edits: functions from network to network (no torch).

All are of [v3] Szegedy et al., Rethinking the Inception architecture, arXiv:1512.00567, which argues for each step from
Inception-v1 to -v3. They work on every network that has what they change, in the bodies of residual blocks too.
"In a row" is within one branch; convolutions with another stride or padding stay.

Where the paper leaves a number of filters open, both of the convolutions that stand for one have as many as that one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal

from inceptionnet.errors import ConfigurationError, listed, nearest
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import pair
from inceptionnet.nets.chains import (
    Row,
    at_stride_1,
    both_3x3,
    crossed,
    is_module,
    leaves,
    rewritten,
    two_for_one,
    with_pairs,
)
from inceptionnet.nets.inception_v3 import RETHINKING, V3
from inceptionnet.nets.spec import Branches, Conv, MaxPool, Network, Node

EditName = Literal[
    "conv5x5", "two_3x3", "linear_between", "square", "factorize_a", "factorize_b", "factorize_c", "aux_without_norm",
    "aux_with_norm", "pool_first", "convolve_first", "stem_7x7", "stem_3x3",
]  # fmt: skip
"""The keys of EDITS, for types."""

FIRST = ("conv_1a", "conv_2a", "conv_2b")
"""v3's convolutions before its first pool."""


@dataclass(frozen=True)
class Edit:
    """One change of a network."""

    summary: str
    paper: str
    """The section that argues about it, and its figure or table."""
    apply: Callable[[Network], Network]
    """Gives an equal network where there is nothing to change."""


def conv5x5(network: Network) -> Network:
    """Two 3×3 in a row become the 5×5 that they stand for, with the filters of the second.

    At equal numbers of filters a 5×5 costs 25/18 of two 3×3, which save 28 %. A pair whose second reduces the grid
    stays.
    """
    return _with_rows(network, lambda row: with_pairs(row, both_3x3, lambda _, last: [replace(last, kernel=5)]))


def two_3x3(network: Network) -> Network:
    """Every 5×5 becomes two 3×3 with as many filters each, as in [v2] figure 5."""
    return _with_rows(network, lambda row: two_for_one(row, 5, 3, 3))


def linear_between(network: Network) -> Network:
    """No ReLU after the first of two 3×3 in a row, and of 1×n and n×1 in a row; its batch norm stays."""

    def is_pair(first: Node, last: Node) -> bool:
        return both_3x3(first, last) or crossed(first, last)

    return _with_rows(
        network, lambda row: with_pairs(row, is_pair, lambda first, last: [replace(first, relu=False), last])
    )


def square(network: Network) -> Network:
    """1×n and n×1 in a row become n×n with the filters of the last; side by side, with the filters of both.

    At equal numbers of filters 1×n and n×1 cost 2/n of n×n.
    """

    def joined(part: Node) -> Node:
        if not isinstance(part, Branches):
            return part
        pairs = [list(chain) for chain in part.chains.values() if isinstance(chain, Sequence) and len(chain) == 1]
        if len(pairs) != 2 or len(part.chains) != 2 or not crossed(*(one := [first for (first,) in pairs])):
            return part
        first, last = (conv for conv in one if isinstance(conv, Conv))
        return replace(last, filters=first.filters + last.filters, kernel=max(pair(last.kernel)))

    def row_of(row: Row) -> Row:
        parts = [joined(part) for part in row]
        return with_pairs(parts, crossed, lambda _, last: [replace(last, kernel=max(pair(last.kernel)))])

    return _with_rows(network, row_of)


def factorized(network: Network, grid: int) -> Network:
    """Every 3×3 of the modules on one grid becomes 1×3 and 3×1 with as many filters each.

    `grid`: 0, 1 or 2, for the runs of modules before, between and after the two reductions.
    """
    runs = groupby(network.body.items(), lambda named: is_module(named[1]))
    names = [[name for name, _ in run] for keeps_grid, run in runs if keeps_grid]
    return _with_rows(network, lambda row: two_for_one(row, 3, (1, 3), (3, 1)), names[grid])


def with_aux_norm(network: Network, norm: bool) -> Network:
    """The convolutions of the auxiliary heads with batch norm, or with biases in its place.

    The paper's networks without "BN-auxiliary" have batch norm in the convolutions of that head and not in its fully
    connected layer, which was released as a convolution. Here all of them change, as in `inception_v2.rethinking`.
    """
    if network.conventions.batch_norm_eps is None:
        return network  # it has no batch norm anywhere
    heads = {
        on: {name: replace(part, norm=norm) if isinstance(part, Conv) else part for name, part in head.items()}
        for on, head in network.aux.items()
    }
    return replace(network, aux=heads)


def pooled(network: Network, *, first: bool) -> Network:
    """Every parallel reduction ([v3] figure 10) between two grids becomes its max pool, then the same module at stride
    1; or the module, then the pool.

    In the module at stride 1 a 3×3 max pool of stride 1, which passes its input's channels, replaces the branch that
    was the pool. So numbers of channels and of parameters stay. The stem's reductions stay: at low resolution ([v3]
    section 8) they have no stride.
    """
    names = list(network.body)
    start = next((i for i, name in enumerate(names) if is_module(network.body[name])), len(names))

    def changed(node: Node) -> Node:
        pools = [part for part in leaves(node) if isinstance(part, MaxPool) and part.stride > 1]
        if not isinstance(node, Branches) or not pools:
            return node
        module = rewritten(node, row=at_stride_1)
        return {"pool": pools[0], "branches": module} if first else {"branches": module, "pool": pools[0]}

    later = set(names[start:])
    body = {name: changed(node) if name in later else node for name, node in network.body.items()}
    return replace(network, body=body)


def with_stem(network: Network, *, old: Network, new: Network) -> Network:
    """The network with the first convolutions of `new`, at low resolution too, if its own are those of `old`."""
    held, wanted = ({name: one.body[name] for name in FIRST if name in one.body} for one in (old, new))
    if {name: network.body[name] for name in FIRST if name in network.body} != held:
        return network
    rest = {name: node for name, node in network.body.items() if name not in held}
    stems = {
        size: {**diff, FIRST[0]: new.low_resolution[size][FIRST[0]]} for size, diff in network.low_resolution.items()
    }
    return replace(network, body={**wanted, **rest}, low_resolution=stems)


def _factorize(letter: str, grid: int, where: str) -> Edit:
    what = f"every 3×3 of the modules on grid {letter}, the {where}, becomes 1×3 and 3×1"
    return Edit(what, "[v3] section 3.2, figure 3", partial(factorized, grid=grid))


EDITS: dict[str, Edit] = {
    "conv5x5": Edit("two 3×3 in a row become one 5×5", "[v3] section 3.1, figures 4 and 5", conv5x5),
    "two_3x3": Edit("every 5×5 becomes two 3×3", "[v3] section 3.1, figures 4 and 5", two_3x3),
    "linear_between": Edit(
        "no ReLU between two 3×3 in a row, or 1×n and n×1", "[v3] section 3.1, figure 2", linear_between
    ),
    "square": Edit("1×n and n×1, in a row or side by side, become n×n", "[v3] section 3.2, figures 6 and 7", square),
    "factorize_a": _factorize("A", 0, "largest"),
    "factorize_b": _factorize("B", 1, "middle one"),
    "factorize_c": _factorize("C", 2, "smallest"),
    "aux_without_norm": Edit(
        "auxiliary heads with biases in place of batch norm",
        "[v3] sections 4 and 10, table 3",
        partial(with_aux_norm, norm=False),
    ),
    "aux_with_norm": Edit(
        "auxiliary heads with batch norm", "[v3] sections 4 and 10, table 3", partial(with_aux_norm, norm=True)
    ),
    "pool_first": Edit(
        "reductions pool, then convolve: a representational bottleneck",
        "[v3] section 5, figure 9 left",
        partial(pooled, first=True),
    ),
    "convolve_first": Edit(
        "reductions convolve at the full grid, then pool: several times the cost",
        "[v3] section 5, figure 9 right",
        partial(pooled, first=False),
    ),
    "stem_7x7": Edit(
        "one 7×7 for the first three 3×3", "[v3] section 10, table 3", partial(with_stem, old=V3, new=RETHINKING)
    ),
    "stem_3x3": Edit(
        "three 3×3 for the first 7×7", "[v3] section 10, table 3", partial(with_stem, old=RETHINKING, new=V3)
    ),
}
"""Every edit by name, in the order of the paper's sections."""


def with_edits(network: Network, names: Sequence[str]) -> Network:
    """The network after these edits, one after another; its summary names them.

    Raises:
        ConfigurationError: an unknown name, one given twice, or one that makes no difference.
    """
    for i, name in enumerate(names):
        if name not in EDITS:
            raise ConfigurationError(f"unknown edit {name!r}: {nearest(str(name), EDITS)}")
        if name in names[:i]:
            raise ConfigurationError(f"the edit {name} is given twice; give it once")
    edited = _applied(network, names)
    for name in names:
        others = [other for other in names if other != name]
        if _applied(network, others) == edited:
            raise _without_effect(network, name, others)
    return replace(edited, summary=f"{network.summary}; edited: {', '.join(names)}") if names else network


def networks_changed_by(edit: str) -> list[str]:
    """The networks, as published and with their auxiliary heads, that the edit changes."""
    return [network.name for network in NETWORKS.values() if EDITS[edit].apply(network) != network]


def _without_effect(network: Network, name: str, others: Sequence[str]) -> ConfigurationError:
    changed = networks_changed_by(name)
    nothing = f"the edit {name} changes nothing in {network.name}"
    if others:
        return ConfigurationError(f"{nothing} together with {listed(others, ordered=True, last='and')}; omit it")
    if network.name in changed:
        return ConfigurationError(
            f"{nothing} without auxiliary heads; set aux=True with it (in a recipe: --set network.aux=true)"
        )
    have = listed(changed, len(NETWORKS), ordered=True)
    return ConfigurationError(f"{nothing}; networks that it changes: {have}")


def _applied(network: Network, names: Sequence[str]) -> Network:
    for name in names:
        network = EDITS[name].apply(network)
    return network


def _with_rows(network: Network, change: Callable[[Row], Row], only: Collection[str] | None = None) -> Network:
    """The network with the rows of its body's branches changed, all or of those endpoints.

    The stems for low resolution have no branches with several convolutions, so there is nothing to change in them.
    """
    body = {
        name: rewritten(node, row=change) if only is None or name in only else node
        for name, node in network.body.items()
    }
    return replace(network, body=body)
