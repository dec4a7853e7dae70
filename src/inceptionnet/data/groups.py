"""Groups of images that no split may divide, such as those of one patient, video or product.

They are from a column of the file of labels, from a regular expression for the names of the images, or, without either,
augmented versions of one image (versions.py). An image without group is one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.data.versions import VERSIONS, versions
from inceptionnet.errors import ConfigurationError, DataError, listed, number_of

NO_GROUPS = "none"
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")


@dataclass(frozen=True)
class GroupBy:
    """What the option --group-by says, and which groups the file of labels has."""

    asked: str | None = None
    """A column, a regular expression or NO_GROUPS; None: a column with a known header, if there is one."""
    column: str = ""
    """The column that the groups of the images are from."""
    columns: tuple[str, ...] = ()
    """All columns of the file of labels."""
    versions: bool = False
    """Whether the groups are augmented versions of one image."""

    @property
    def name(self) -> str:
        """What the groups are from; empty if there are none."""
        if self.versions:
            return VERSIONS
        return self.column or ("" if self.asked in (None, NO_GROUPS) else str(self.asked))


def with_groups(where: str, found: Mapping[str, Split], by: GroupBy) -> tuple[dict[str, Split], GroupBy, list[str]]:
    """The splits with the groups that are asked for or found, what these are from, and notes on images without one.

    Raises:
        ConfigurationError: a mistake in the regular expression.
        DataError: it matches no image; or it is neither an expression nor a column of the labels.
    """
    splits = dict(found)
    if by.asked is not None and not by.asked.strip():
        raise ConfigurationError("--group-by: expected a column or a regular expression, got an empty one; omit it")
    if by.asked is None and not by.column:
        groups = iter(versions([name for split in found.values() for name in split.names]))
        splits = {name: replace(split, groups=[next(groups) for _ in split.names]) for name, split in found.items()}
        if any(map(any, (split.groups for split in splits.values()))):
            return splits, replace(by, versions=True), []
    if not by.name:
        return dict(found), by, []
    if not by.column:
        pattern = _pattern(by)
        splits = {name: replace(split, groups=_groups(split.names, pattern)) for name, split in found.items()}
        if not any(map(any, (split.groups for split in splits.values()))):
            names = [name for split in found.values() for name in split.names] or [where]
            raise DataError(
                f"{where}: expected names of images that --group-by {by.asked} matches, got none of {len(names)}, such "
                f"as {names[0]}: correct the expression"
            )
    bare = [name for split in splits.values() for name, group in zip(split.names, split.groups, strict=True)
            if not group]  # fmt: skip
    some = number_of("image", len(bare))
    return splits, by, [f"{some} without group ({by.name}), each a group of its own: {listed(bare, 3)}"] * bool(bare)


def divided_groups(splits: Mapping[str, AnySplit]) -> dict[str, list[str]]:
    """The groups that are in two splits, by the names of the splits (`train and val`)."""
    groups = {name: dict.fromkeys(split.groups) for name, split in splits.items() if isinstance(split, Split)}
    both = {f"{a} and {b}": [one for one in groups[b] if one and one in groups[a]] for a, b in combinations(groups, 2)}
    return {names: shared for names, shared in both.items() if shared}


def _pattern(by: GroupBy) -> re.Pattern[str]:
    asked = str(by.asked)
    if not _SPECIAL.search(asked):
        got = f"the columns {listed(by.columns, ordered=True)}" if by.columns else "no file of labels with columns"
        raise DataError(
            f"--group-by {asked}: expected a column of the file of labels, or a regular expression for the names of "
            f"images such as '(P[0-9]+)_', got {got}: correct it, give --labels, or --group-by {NO_GROUPS}"
        )
    try:
        return re.compile(asked)
    except re.error as error:
        raise ConfigurationError(
            f"--group-by {asked}: expected a regular expression, got a mistake in it ({error}); correct it"
        ) from None


def _groups(names: Sequence[str], pattern: re.Pattern[str]) -> list[str]:
    """What the first bracket that matches contains, or the whole match of an expression without brackets."""
    found = map(pattern.search, names)
    return [next(filter(None, one.groups() if pattern.groups else [one[0]]), "") if one else "" for one in found]
