"""A variant is a diff: the network it comes from, and only what it has differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inceptionnet.nets.spec import Network, Node


def variant(network: Network, *, body: Mapping[str, Node | None] | None = None, **changes: Any) -> Network:
    """`network` with the named endpoints of its body replaced (None: removed; new: added last), and other fields."""
    return replace(network, body=patched(network.body, body or {}), **changes)


def patched(chain: Mapping[str, Node], diff: Mapping[str, Node | None]) -> dict[str, Node]:
    """`chain` in its own order, with the entries of `diff` in place of its own, removed (None) or added at its end."""
    return {name: node for name, node in {**chain, **diff}.items() if node is not None}
