"""The state dict in what a training script saved: any dict of tensors, at any level, or a whole module."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.errors import WeightsError, listed, one_line
from inceptionnet.weights.formats.stored import Module
from inceptionnet.weights.formats.unpickle import Thing, is_module, modules_of

AVERAGED = re.compile(r"(^|[._])(ema|swa|average[ds]?|averaged_model|shadow|polyak)(?=$|[._\d])", re.IGNORECASE)
"""Keys and prefixes of averaged weights."""
USUAL = frozenset({
    "state_dict", "model_state_dict", "model_state", "model", "model_weights", "module", "net", "network",
    "net_state_dict", "weights", "params", "student", "backbone", "encoder",
})  # fmt: skip
"""Keys that training scripts use for the weights themselves, where there are several sets of equal size."""
OTHER = re.compile(r"optim|sched|scaler|loop", re.IGNORECASE)
"""Keys of states other than the network's."""
MAX_DEPTH = 5
STATE_DICT_ONLY = "load it where it was saved, and save model.state_dict() with torch.save"


@dataclass(frozen=True)
class Unwrapped:
    """A state dict and what was around it."""

    state: Mapping[Any, Any]
    modules: Mapping[str, Module] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Set:
    """A dict with tensors, or a module, at some place of the file."""

    place: tuple[str, ...]
    content: Any

    @property
    def state(self) -> Mapping[Any, Any]:
        if not is_module(self.content):
            return self.content  # type: ignore[no-any-return]
        return {_join(path, n): t for path, _, own in modules_of(self.content) for n, t in own.items()}

    @property
    def modules(self) -> dict[str, Module]:
        return {path: module for path, module, _ in modules_of(self.content)} if is_module(self.content) else {}

    @property
    def averaged(self) -> bool:
        return any(AVERAGED.search(key) for key in self.place)


def unwrapped(content: Any, path: Path) -> Unwrapped:
    """The state dict of a checkpoint: the largest dict of tensors, averaged weights before others.

    Small dicts of weights beside it, such as a classifier's, are parts of the same network.

    Raises:
        WeightsError: no tensors, or several sets of weights.
    """
    sets = {one.place: (one, _count(one.state)) for one in _sets(content, (), frozenset())}
    most = max((count for _, count in sets.values()), default=0)
    if not most:
        raise WeightsError(
            f"{path}: expected a state dict, alone or under a key such as state_dict or model, got {_got(content)}; "
            f"{STATE_DICT_ONLY}"
        )
    large = [one for one, count in sets.values() if 2 * count >= most and (count > 1 or most == 1)]
    chosen = _chosen(large, path)
    beside = [one for one, _ in sets.values() if one not in large and _has_weights(one.state) and not one.averaged]
    dropped = {
        ".".join(one.place): "averaged weights used instead" if chosen.averaged else f"{_place(chosen)} used instead"
        for one in large
        if one is not chosen and one.place
    }
    dropped |= _others(content, chosen.place, {one.place for one in (*large, *beside)})
    averaged = ", the averaged weights" if chosen.averaged else ""
    if beside:
        state = {_join(".".join(one.place), n): t for one in (chosen, *beside) for n, t in one.state.items()}
        modules = {_join(".".join(one.place), n): m for one in (chosen, *beside) for n, m in one.modules.items()}
        parts = listed((_place(one) for one in (chosen, *beside)), ordered=True, last="and")
        return Unwrapped(state, modules, dropped, (f"state dicts {parts} taken together{averaged}",))
    notes = [f"unwrapped from {key}" for key in chosen.place]
    if averaged:
        notes[-1] += averaged
    if modules := chosen.modules:
        notes.append(f"a whole module ({modules[''].name}): its tensors and its modules' classes read, no code run")
    return Unwrapped(chosen.state, modules, dropped, tuple(notes))


def _chosen(large: list[_Set], path: Path) -> _Set:
    """Of several sets of about the same size: the averaged one, else the one under a usual key."""
    for wanted in (
        [one for one in large if one.averaged],
        [one for one in large if not one.averaged and one.place and one.place[-1] in USUAL],
        large,
    ):
        if len(wanted) == 1:
            return wanted[0]
        if len(wanted) > 1 and wanted is not large:
            break
    raise WeightsError(
        f"{path}: {len(large)} sets of weights: {listed(map(_place, large))}; save the one that is meant, alone"
    )


def _sets(content: Any, place: tuple[str, ...], above: frozenset[int]) -> Iterator[_Set]:
    if len(place) > MAX_DEPTH or id(content) in above:
        return
    if is_module(content):
        yield _Set(place, content)
        return
    table: Mapping[Any, Any] = {}
    if isinstance(content, Mapping):
        table = {**content.attributes, **content} if isinstance(content, Thing) else content
    elif isinstance(content, list | tuple) and len(content) <= 10:
        table = {i: value for i, value in enumerate(content) if isinstance(value, Mapping)}
    if any(isinstance(value, Tensor) for value in table.values()):
        yield _Set(place, table)
    for key, value in table.items():
        if isinstance(value, Mapping | list | tuple) and not OTHER.search(str(key)):
            yield from _sets(value, (*place, str(key)), above | {id(content)})


def _count(state: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, Tensor) for value in state.values())


def _has_weights(state: Mapping[Any, Any]) -> bool:
    return any(str(n).rpartition(".")[2] == "weight" and isinstance(t, Tensor) for n, t in state.items())


def _others(content: Any, place: tuple[str, ...], known: set[tuple[str, ...]]) -> dict[str, str]:
    """The entries beside the weights on the way to them, with the reason that they are not used."""
    found: dict[str, str] = {}
    for depth, key in enumerate(place):
        if not isinstance(content, Mapping):
            break
        for other in content:
            here = (*place[:depth], str(other))
            if str(other) != key and not any(k[: len(here)] == here for k in known):
                found[str(other)] = "not part of the weights"
        content = next((value for name, value in content.items() if str(name) == key), None)
    return found


def _place(one: _Set) -> str:
    return ".".join(one.place) or "the top level"


def _join(path: str, name: Any) -> Any:
    return f"{path}.{name}" if path and isinstance(name, str) else name


def _got(content: Any) -> str:
    if isinstance(content, Thing):
        return content.kind
    held = listed(map(str, content), ordered=True) if isinstance(content, Mapping) else type(content).__name__
    return one_line(held or "nothing")
