"""Which output of a network stands for which class of the data: by name, or by the order of the data's classes.

Names that nobody gave (0, 1, 2 … of a file without names) are never matched with names of folders. Of as many classes,
class i is then the i-th of the data's names sorted as text, as torchvision's ImageFolder and Keras number folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inceptionnet.data.class_names import IMAGENET, is_number, named_classes
from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.data.text import nfc
from inceptionnet.errors import ConfigurationError, DataError, listed

TEXT, NUMERIC = "text", "numeric"
OPTION = "--classes"
_WNID = re.compile(r"(n\d{8})[\s,:].*")


@dataclass(frozen=True, eq=False)
class Matched:
    """The classes of a network, matched with those of the data."""

    names: tuple[str, ...]
    """In the order of the logits."""
    labels_of: npt.NDArray[np.int64]
    """The network's class index for each class of the data."""
    assumed: str = ""
    """The order that was assumed, in one line."""


def matched_classes(
    data: Sequence[str],
    network: Sequence[str],
    *,
    numbered: bool = False,
    given: str | Path | Sequence[str] | None = None,
) -> Matched:
    """Match the classes of the data with those of a network.

    Args:
        data: the names of the data's classes.
        network: the names of the network's, in the order of the logits.
        numbered: those are numbers that nobody gave.
        given: text or numeric: class i is the i-th of the data's names sorted as text or as numbers; imagenet, a file
            or a list: the names in the order of the logits. Default: the network's names; without names, text.

    Raises:
        ConfigurationError: not one name for each class.
        DataError: the data has a class that the network does not have, or another number of classes.
    """
    data = [nfc(name) for name in data]
    if given is not None and str(given) in (TEXT, NUMERIC):
        return _ordered(data, network, str(given), numbered=numbered)
    if given is not None:
        names = named_classes(given, OPTION)
        above = len(network) - len(names)
        if str(given) == IMAGENET and above == 1:
            names = ("background", *names)
        if len(names) != len(network):
            raise ConfigurationError(f"{OPTION} {given if isinstance(given, str | Path) else ''}: expected "
                                     f"{len(network)} class names, one per class, got {len(names)}")  # fmt: skip
        if str(given) == IMAGENET and set(data) <= {str(i) for i in range(len(imagenet_classes()))}:
            return Matched(names, np.array([int(name) + above for name in data], np.int64))
        return Matched(names, matched_labels(data, names))
    if numbered:
        found = _ordered(data, network, TEXT, numbered=True)
        return Matched(
            found.names,
            found.labels_of,
            "the weights have no class names: class i is the i-th of the data's, sorted as text "
            f"({listed(found.names, 4, ordered=True)}); {OPTION} {NUMERIC}, {IMAGENET} or FILE states another order",
        )
    if len(data) == len(imagenet_classes()) and set(data) == {str(i) for i in range(len(data))}:
        at = {name: i for i, name in enumerate(map(nfc, network))}
        if all(name in at for name in imagenet_classes()):
            return Matched(tuple(network), np.array([at[imagenet_classes()[int(name)]] for name in data], np.int64),
                           f"class k of the data (0 to {len(data) - 1}) is the k-th of ImageNet's")  # fmt: skip
    return Matched(tuple(network), matched_labels(data, network))


def _ordered(data: Sequence[str], network: Sequence[str], order: str, *, numbered: bool) -> Matched:
    """The data's classes by their order; a number below the number of classes is the class itself."""
    count = len(network)
    if order == NUMERIC:
        if strange := [name for name in data if not is_number(name)]:
            raise DataError(f"{OPTION} {NUMERIC}: expected classes of the data that are numbers, got "
                            f"{listed(strange)}; use {OPTION} {TEXT}, or FILE with the names")  # fmt: skip
        numbers = list(map(int, data))
        if len(set(numbers)) == len(numbers) and all(0 <= number < count for number in numbers):
            names = list(network)
            for name, number in zip(data, numbers, strict=True) if numbered else ():
                names[number] = name
            return Matched(tuple(names), np.array(numbers, np.int64))
    if len(data) != count:
        raise DataError(
            f"expected {count} classes in the data, as many as the network has without names, got {len(data)} "
            f"({listed(data, 3)}); give the names in the order of the logits, {OPTION} FILE"
        )
    ordered = sorted(data, key=int if order == NUMERIC else None)
    at = {name: i for i, name in enumerate(ordered)}
    return Matched(tuple(ordered), np.array([at[name] for name in data], np.int64))


def matched_labels(data: Sequence[str], network: Sequence[str]) -> npt.NDArray[np.int64]:
    """The network's class index for each class of the data, matched by name; ImageNet wnids match ImageNet names.

    Raises:
        DataError: the data has a class that the network does not have.
    """
    number = {nfc(name): i for i, name in enumerate(network)}
    for i, name in enumerate(network):  # n01440764 tench, Tinca tinca: a line of synset_words.txt
        if match := _WNID.fullmatch(name):
            number.setdefault(match[1], i)
    for wnid, name in zip(imagenet_wnids(), imagenet_classes(), strict=True):
        for known, other in ((wnid, name), (name, wnid)):
            if known in number:
                number.setdefault(other, number[known])
    names = [nfc(name) for name in data]
    if unknown := [name for name in names if name not in number]:
        order = NUMERIC if all(map(is_number, names)) else TEXT
        raise DataError(
            f"the network does not have the data's class{'es' * (len(unknown) > 1)} {listed(unknown)}; it has "
            f"{listed(network, ordered=True)}; evaluate a network with the same classes, or state which they are with "
            f"{OPTION} {order} or {OPTION} FILE"
        )
    return np.array([number[name] for name in names], dtype=np.int64)


def same_classes(first: Sequence[str], other: Sequence[str], what: str) -> npt.NDArray[np.int64] | None:
    """The other network's class index for each class of the first; None if the order is the same.

    Raises:
        DataError: the other network, named `what`, has other classes.
    """
    first, other = tuple(map(nfc, first)), tuple(map(nfc, other))
    if first == other:
        return None
    if sorted(first) != sorted(other):
        missing, more = sorted(set(first) - set(other)), sorted(set(other) - set(first))
        told = "; ".join(f"{word} {listed(names)}" for word, names in (("without", missing), ("with", more)) if names)
        raise DataError(f"{what}: the networks of an ensemble need the same classes, got one {told}")
    return matched_labels(first, other)
