"""Shortcuts: classes that the format, the colour mode or the size of their files tells apart.

Such classes often come from different sources. A network may learn that, from traces of compression and resizing,
instead of what the images show (Geirhos et al., Shortcut learning in deep neural networks, 2020). Held-out images of
the same sources have the same shortcut, so that their accuracy does not show it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from inceptionnet.data.inspection import Inspection
from inceptionnet.errors import listed

LEAST = 0.5
"""The least difference between the share of a class that fulfils a condition and the share of the other images."""
CHANCE = 0.01
"""How probable a difference may be if the property has nothing to do with the classes."""
NAMED = 3

Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """A condition on files that many images of a class fulfil, and few others."""

    property: str
    """File format, colour mode or image size."""
    class_name: str
    condition: str
    """Such as `are PNG`, or `have a shorter side of at least 1024 px`."""
    fulfilling: int
    """The images of the class that fulfil it, of `images`."""
    images: int
    others_fulfilling: int
    """The images without the class, and without those of stronger shortcuts, that fulfil it, of `others`."""
    others: int

    def difference(self) -> float:
        """The share of the class less that of the others (Youden's J)."""
        return self.fulfilling / self.images - self.others_fulfilling / self.others


class Shortcuts:
    """The files so far, and the shortcuts among them."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._files: Counter[tuple[tuple[int, ...], str, str, tuple[int, int]]] = Counter()

    def add(self, labels: tuple[int, ...], look: Inspection) -> None:
        """Add an image that can be decoded: the numbers of its classes, and its properties."""
        short, long = sorted(look.size_px)
        self._files[labels, look.format, look.mode, (short, long)] += 1

    def found(self) -> list[Shortcut]:
        """The shortcuts by each property, the strongest first.

        The images of a class that has one are left out of the search for the next: where one class of three has another
        format, the other two have no shortcut.
        """
        if not self._files:
            return []
        labels, formats, modes, sizes = zip(*self._files, strict=True)
        counts = np.array(list(self._files.values()))
        shorter, longer = zip(*sizes, strict=True)
        properties = {
            "file format": [_Values(formats, counts, "are {0}")],
            "colour mode": [_Values(modes, counts, "are of mode {0}")],
            "image size": [
                _Values(sizes, counts, "have sides of {0[0]} and {0[1]} px"),
                _Values(shorter, counts, "have a shorter side of {1} {0} px"),
                _Values(longer, counts, "have a longer side of {1} {0} px"),
            ],
        }
        rows = defaultdict[int, list[int]](list)
        for row, numbers in enumerate(labels):
            for number in numbers:
                rows[number].append(row)

        def shortcut(to: int, title: str) -> Shortcut | None:
            conditions = [one for values in properties[title] for one in values.conditions(rows[to])]
            some = [Shortcut(title, self._classes[to], *one) for one in conditions]
            best = max(some, key=Shortcut.difference, default=None)
            return best if best and best.difference() >= _least(best, 5 * len(self._classes)) else None

        found = []
        for title, some in properties.items():
            first = {number: one.difference() for number in sorted(rows) if (one := shortcut(number, title))}
            for number in sorted(first, key=lambda number: -first[number]):
                if one := shortcut(number, title):
                    found.append(one)
                    for values in some:
                        values.leave_out(rows[number])
        return found


class _Values:
    """A property of every kind of file, of which there are `counts`; a text with a second field is of a threshold."""

    def __init__(self, values: Sequence[Any], counts: Counts, text: str) -> None:
        self.all = sorted(set(values))
        number = {value: i for i, value in enumerate(self.all)}
        self.numbers, self.text = np.array([number[value] for value in values]), text
        self.counts, self.total = counts.copy(), np.bincount(self.numbers, counts)

    def leave_out(self, rows: Sequence[int]) -> None:
        self.counts[rows] = 0
        self.total = np.bincount(self.numbers, self.counts)

    def conditions(self, rows: Sequence[int]) -> Iterator[tuple[str, int, int, int, int]]:
        """What tells these rows from the others best: a condition, how many of both fulfil it, and of how many."""
        own = np.bincount(self.numbers[rows], self.counts[rows], len(self.all))
        others = self.total - own
        images, rest = int(own.sum()), int(others.sum())
        if not (images and rest):
            return
        ways = {"": (own, others)}
        if "{1}" in self.text:  # the largest difference of two distributions, as of Kolmogorov and Smirnov
            from_largest = own[::-1].cumsum()[::-1], others[::-1].cumsum()[::-1]
            ways = {"at most": (own.cumsum(), others.cumsum()), "at least": from_largest}
        for way, (ours, theirs) in ways.items():
            best = int((ours / images - theirs / rest).argmax())
            yield self.text.format(self.all[best], way), int(ours[best]), images, int(theirs[best]), rest


def _least(shortcut: Shortcut, tests: int) -> float:
    """The difference that is asked for: LEAST, and with few images more than chance makes of one property.

    Two samples of one distribution differ by more in at most CHANCE of all cases, in any of so many tests: the
    inequality of Dvoretzky, Kiefer and Wolfowitz.
    """
    per_image = 1 / shortcut.images + 1 / shortcut.others
    return max(LEAST, math.sqrt(math.log(2 * tests / CHANCE) / 2 * per_image))


def shortcut_lines(shortcuts: Sequence[Shortcut]) -> Iterator[str]:
    """A line for each property: its strongest shortcut, the other classes that have one, and what to do."""
    for title in dict.fromkeys(one.property for one in shortcuts):
        first, *more = (one for one in shortcuts if one.property == title)
        also = f"; so can {listed((one.class_name for one in more), NAMED, ordered=True)}" if more else ""
        yield (
            f"class {first.class_name} can be told by its {title}: {first.fulfilling:,} of its {first.images:,} images "
            f"{first.condition}, and {first.others_fulfilling:,} of the {first.others:,} others{also}. A network may "
            "learn that, and the accuracy is then too high for images from elsewhere; take the images of all classes "
            "from the same sources"
        )
