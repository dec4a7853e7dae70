"""What a training should know before it starts: the same images, or images of one group, in two splits, and shortcuts.

Every image is read and decoded at a reduced size; of more than MOST_IMAGES, an evenly spaced part of every split.
`check` looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace

from inceptionnet.data.copies import Copies, Pairs, Place
from inceptionnet.data.groups import divided_groups
from inceptionnet.data.inspection import glance, inspect_images
from inceptionnet.data.shortcuts import Shortcuts, shortcut_lines
from inceptionnet.data.splits import Source, Split, evenly_spaced
from inceptionnet.errors import listed

MOST_IMAGES = 20_000
NAMED = 3


def find_leaks(
    source: Source, workers: int, *, most: int = MOST_IMAGES, advance: Callable[[int], None] = lambda images: None
) -> list[str]:
    """A line for each kind of leak between two splits, and of shortcut in train, with numbers and what to do.

    Streams are not looked at.

    Args:
        workers: processes that decode; 0: this one.
        most: number of images to look at.
        advance: called with the number of images since the last call.

    Raises:
        DataError: a process dies.
    """
    lines = list(_groups(source))
    splits = {name: split for name, split in source.splits.items() if isinstance(split, Split)}
    if len(splits) < len(source.splits):
        return lines
    some = _part(splits, most)
    copies, shortcuts = Copies(), Shortcuts(source.classes)
    with closing(inspect_images(replace(source, splits=some), workers, glance)) as chunks:
        for chunk, looks in chunks:
            for name, labels, look in zip(chunk.names, chunk.labels, looks, strict=True):
                if look.reason:
                    continue
                copies.add(Place(chunk.split, labels, name), look.digest, look.signature)
                if chunk.split == "train":
                    shortcuts.add(labels, look)
            advance(len(looks))
    seen = {name: len(split) for name, split in some.items()}
    lines += _lines(copies.exact().across, seen, "are copies of {} images", "=", "remove them from one of both")
    together = "remove them from one of both, or state with --group-by which images belong together"
    alike = "look nearly the same as {} images, perhaps mirrored or turned"
    lines += _lines(copies.near(inside=False).across, seen, alike, "≈", together)
    lines += [f"warning: {line}" for line in shortcut_lines(shortcuts.found())]
    if any(seen[name] < len(split) for name, split in splits.items()):
        parts = listed((f"{seen[name]:,} of {len(split):,} {name}" for name, split in splits.items()), ordered=True)
        lines.append(f"looked at {parts} images only; inceptionnet check looks at all")
    return lines


def _groups(source: Source) -> list[str]:
    return [
        f"warning: {len(shared)} {'group is' if len(shared) == 1 else 'groups are'} in both {names} "
        f"({source.grouped_by}: {listed(shared, NAMED)}), so that the accuracy on {names.split()[-1]} is too high for "
        "new groups; move each to one of both"
        for names, shared in divided_groups(source.splits).items()
    ]


def _part(splits: Mapping[str, Split], most: int) -> dict[str, Split]:
    """At most so many images: a share of the larger splits that makes the most pairs, evenly spaced."""
    left, out = most, dict[str, Split]()
    for i, (name, split) in enumerate(sorted(splits.items(), key=lambda one: len(one[1]))):
        count = min(len(split), left // (len(splits) - i))
        left -= count
        out[name] = split.take(evenly_spaced(len(split), count))
    return {name: out[name] for name in splits}


def _lines(found: Mapping[str, Pairs], seen: Mapping[str, int], what: str, sign: str, do: str) -> list[str]:
    lines = []
    for pairs in found.values():
        one, other = pairs[0].first.split, pairs[0].later.split
        examples = listed((f"{pair.later.name} {sign} {pair.first.name}" for pair in pairs), NAMED, ordered=True)
        lines.append(
            f"warning: {len(pairs):,} of {seen[other]:,} {other} images {what.format(one)} ({examples}), so that the "
            f"accuracy on {other} is too high; {do} (list: inceptionnet check)"
        )
    return lines
