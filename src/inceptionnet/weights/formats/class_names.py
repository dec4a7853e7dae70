"""Class names that training scripts save beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

KEYS = frozenset({
    "classes", "classnames", "classlabels", "classlist", "classtoidx", "classtoindex", "classtoid", "class2idx",
    "class2id", "idxtoclass", "indextoclass", "idtoclass", "idx2class", "id2class", "labels", "labelnames",
    "labelmap", "labeltoidx", "labeltoid", "label2idx", "label2id", "idxtolabel", "idtolabel", "idx2label",
    "id2label", "categories", "categorynames", "targetnames", "names", "vocab",
})  # fmt: skip
"""The usual keys, without case and underscores."""
MAX_DEPTH = 5


def class_names_in(content: Any) -> dict[str, tuple[str, ...]]:
    """By place (`hyper_parameters.class_names`), every list of class names in the content of a checkpoint.

    Empty for what has such a key and cannot be read, such as numbers with gaps or NumPy's arrays.
    """
    return dict(_found(content, (), frozenset()))


def names_of(value: Any) -> tuple[str, ...] | None:
    """The class names in the order of the logits: of a list, or of a dict from name to number or the reverse."""
    if isinstance(value, list | tuple):
        return tuple(value) if value and all(isinstance(name, str) for name in value) else None
    if not isinstance(value, Mapping) or not value:
        return None
    named = all(isinstance(v, str) for v in value.values()) and all(map(_is_number, value))  # {0: "10"}: number → name
    pairs = [(v, k) if named else (str(k), v) for k, v in value.items()]
    if not all(isinstance(name, str) and _is_number(number) for name, number in pairs):
        return None
    ordered = {int(number): name for name, number in pairs}
    return tuple(ordered[i] for i in range(len(pairs))) if sorted(ordered) == list(range(len(pairs))) else None


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.isdecimal() and len(value) < 10
    )


def _found(content: Any, place: tuple[str, ...], above: frozenset[int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if len(place) > MAX_DEPTH or id(content) in above:
        return
    tables = [content] if isinstance(content, Mapping) else []
    attributes = getattr(content, "attributes", None) or getattr(content, "__dict__", None)  # a Thing; a Namespace
    if isinstance(attributes, Mapping) and not isinstance(content, type):
        tables.append(attributes)
    for table in tables:
        for key, value in table.items():
            here = (*place, str(key))
            usual = str(key).lower().replace("_", "").replace("-", "") in KEYS
            names = names_of(getattr(value, "values_in_order", None) or value) if usual else None
            inner: list[tuple[str, tuple[str, ...]]] = []
            if names:
                inner = [(".".join(here), names)]
            elif isinstance(value, Mapping) or hasattr(value, "__dict__"):
                inner = list(_found(value, here, above | {id(content)}))
            yield from inner
            if usual and not inner and _could_be_names(value):
                yield ".".join(here), ()


def _could_be_names(value: Any) -> bool:
    """Whether an unreadable value may hold class names: a collection, or an object of a class that is not imported."""
    if isinstance(value, Mapping):
        return bool(getattr(value, "kind", "")) or any(map(_is_plain, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and bool(value)


def _is_plain(value: Any) -> bool:
    """Whether this may be a name or a number, of NumPy or torch too."""
    one = isinstance(value, Tensor) and value.numel() == 1
    return one or isinstance(value, str | int) or bool(getattr(value, "kind", ""))
