"""Which output of a network stands for which class of the data: by name, or by the order of the data's classes.

Names that nobody gave (0, 1, 2 … of a file without names) are never matched with names of folders. Of as many classes,
class i is then the i-th class of the data: of folders sorted as text, as torchvision's ImageFolder and Keras number
them; of numbers in a file of labels sorted as numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inceptionnet.data.class_names import IMAGENET, is_number, named_classes
from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.data.text import nfc
from inceptionnet.errors import ConfigurationError, DataError, listed

TEXT, NUMERIC, AS_IS = "text", "numeric", "as is"
OPTION = "--classes"
_WNID = re.compile(r"(n\d{8})[\s,:].*")


@dataclass(frozen=True, eq=False)
class Matched:
    """The classes of a network, matched with those of the data."""

    names: tuple[str, ...]
    """In the order of the logits."""
    labels_of: npt.NDArray[np.int64]
    """The network's class index for each class of the data."""
    order: str = ""
    """In one line, where the order of the classes is from, if it is not simply the names in the weights."""


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
            or a list: the names in the order of the logits. Default: the network's names; without names, the order of
            the data.

    Raises:
        ConfigurationError: not one name for each class.
        DataError: the data has a class that the network does not have, or another number of classes.
    """
    data = [nfc(name) for name in data]
    if given is not None and str(given) in (TEXT, NUMERIC):
        return _ordered(data, network, str(given), numbered=numbered)
    if given is not None:
        return _given(data, network, given)
    if numbered:
        found = _ordered(data, network, _own_order(data), numbered=True)
        return replace(found, order=f"the weights have no class names, assumed {found.order.partition(': ')[2]}; "
                                    f"{OPTION} {TEXT}, {NUMERIC}, {IMAGENET} or FILE states another order")  # fmt: skip
    at = {nfc(name): i for i, name in enumerate(network)}
    if len(data) == len(imagenet_classes()) and _are_numbers(data) and all(name in at for name in imagenet_classes()):
        labels_of = [at[imagenet_classes()[int(name)]] for name in data]
        return Matched(tuple(network), np.array(labels_of, np.int64),
                       "assumed that class k of the data, 0 to 999, is the k-th of ImageNet's; "
                       f"{OPTION} {TEXT} or FILE states another order")  # fmt: skip
    return Matched(tuple(network), matched_labels(data, network))


def _own_order(data: Sequence[str]) -> str:
    """The order that the data's classes have: folders are sorted as text, numbers of a file of labels as numbers."""
    if data == sorted(data):
        return TEXT
    return NUMERIC if all(map(is_number, data)) and data == sorted(data, key=int) else AS_IS


def _are_numbers(data: Sequence[str]) -> bool:
    """Whether the names are numbers of ImageNet's classes."""
    return set(data) <= {str(i) for i in range(len(imagenet_classes()))}


def _given(data: Sequence[str], network: Sequence[str], given: str | Path | Sequence[str]) -> Matched:
    """Names that the user gives, in the order of the logits."""
    names = named_classes(given, OPTION, (IMAGENET, TEXT, NUMERIC))
    called = f"{OPTION} {given}" if isinstance(given, str | Path) else OPTION
    above = len(network) - len(names)
    if str(given) == IMAGENET and above == 1:
        names = ("background", *names)
    if len(names) != len(network):
        raise ConfigurationError(
            f"{called}: expected {len(network)} class names, one per class of the network, got {len(names)}"
        )
    if str(given) == IMAGENET and _are_numbers(data):
        labels_of = np.array([int(name) + above for name in data], np.int64)
        return Matched(names, labels_of, f"{called}: class k of the data is the k-th of ImageNet's")
    return Matched(names, matched_labels(data, names), f"{called}: {len(names)} names in place of those of the weights")


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
            return Matched(tuple(names), np.array(numbers, np.int64),
                           f"{OPTION} {NUMERIC}: class k of the data is output k of the network, from 0")  # fmt: skip
    if len(data) != count:
        raise DataError(
            f"expected {count} classes in the data, one for each output of the network, got {len(data)} "
            f"({listed(data, 3)}); give the names in the order of the logits, {OPTION} FILE"
            + (f", or {OPTION} {NUMERIC} if class k is output k" if all(map(is_number, data)) else "")
        )
    ordered = list(data) if order == AS_IS else sorted(data, key=int if order == NUMERIC else None)
    at = {name: i for i, name in enumerate(ordered)}
    how = {TEXT: "sorted as text", NUMERIC: "sorted as numbers", AS_IS: "in their order"}[order]
    how += f" ({listed(ordered, 4, ordered=True)})"
    labels_of = np.array([at[name] for name in data], np.int64)
    return Matched(tuple(ordered), labels_of, f"{OPTION} {order}: the data's classes {how}")


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
