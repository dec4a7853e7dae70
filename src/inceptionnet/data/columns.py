"""Which column of a table names the image, which the label, the split and the group; or a 0/1 column for each class.

Nothing is guessed: what can be read in two ways is an error with the line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inceptionnet.data.class_names import is_number
from inceptionnet.data.groups import NO_GROUPS
from inceptionnet.data.matching import Images
from inceptionnet.data.names import split_named
from inceptionnet.data.tables import (
    GROUP_HEADERS,
    IMAGE_HEADERS,
    LABEL_HEADERS,
    SPLIT_HEADERS,
    Cell,
    Table,
    matched,
    steps,
)
from inceptionnet.data.text import nfc, plain
from inceptionnet.errors import listed

_VAGUE = frozenset(("id", "name", "key"))
_VAGUE_GROUPS = frozenset(("group", "groups"))
_ZERO_ONE = frozenset(("0", "1", "0.0", "1.0", "false", "true"))
_ONE = frozenset(("1", "1.0", "true"))


@dataclass(frozen=True)
class Columns:
    """The columns of a table by their positions."""

    image: int
    split: int | None
    group: int | None
    labels: Sequence[int]
    """The column of labels, or several with 0 and 1, one for each class."""
    class_names: Mapping[str, str]
    """Names of classes by their numbers in the column of labels, in their order; empty if the table has none."""
    unused: Sequence[int]


def columns_of(table: Table, images: Images, group_by: str | None = None) -> Columns:
    """What the columns of a table are; `group_by` as in `GroupBy.asked`. Raises: DataError."""
    image = _image_column(table, images)
    others = [i for i in range(len(table.rows[0][1])) if i != image]
    if table.header:  # pandas writes the number of a row into a column without name
        others = [i for i in others if plain(table.header[i]) and not plain(table.header[i]).startswith("unnamed:")]
    split = _split_column(table, others)
    others = [i for i in others if i != split]
    group = _group_column(table, others, group_by, has_splits=split is not None)
    others = [i for i in others if i != group]
    return Columns(image, split, group, *_label_columns(table, others))


def _image_column(table: Table, images: Images) -> int:
    width = len(table.rows[0][1])
    headers = [plain(table.header[i]) if table.header else "" for i in range(width)]
    known = [(header in IMAGE_HEADERS) + (header in IMAGE_HEADERS - _VAGUE) for header in headers]  # 2: certainly
    cells = [cells for _, cells in table.rows]
    for step in steps(len(cells)):
        found = matched(cells[::step], images)
        ranks = [
            (bool(one.all and usual == 2), one.as_files, bool(one.all and usual), one.all, usual)
            for one, usual in zip(found, known, strict=True)
        ]
        best = max(range(width), key=ranks.__getitem__)
        if found[best].all:
            break
    for rival in (i for i in range(width) if found[best].as_files and i != best and ranks[i] == ranks[best]):
        for line, row in table.rows:
            if images.find(str(row[rival])) != images.find(str(row[best])):
                raise table.error(line, "one column with names of images", f"{row[best]} and {row[rival]}",
                                  "remove the other one, or call the column image")  # fmt: skip
    if not found[best].all:
        shown = next((i for i in range(width) if known[i]), 0)
        line, first = table.rows[0]
        such = f" such as {images.names[0]}" if images.names else ""
        raise table.error(line, f"the name of an image in the data,{such}", f"{str(first[shown])[:60]!r}, and no image "
                          f"in {len(cells)} rows", "correct the names, or give other data")  # fmt: skip
    return best


def _split_column(table: Table, columns: Sequence[int]) -> int | None:
    """The column with names of splits."""
    if not table.header:
        full = [i for i in columns if len(columns) > 1 and all(split_in(cells[i]) for _, cells in table.rows)]
        return full[0] if len(full) == 1 else None
    named = [i for i in columns if plain(table.header[i]) in SPLIT_HEADERS]
    named.sort(key=lambda i: plain(table.header[i]) not in ("split", "splits"))
    for i in named:
        bad = [(line, cells[i]) for line, cells in table.rows if not split_in(cells[i])]
        if not bad:
            return i
        if len(bad) < len(table.rows) or plain(table.header[i]) in ("split", "splits"):
            line, got = bad[0]
            raise table.error(line, f"a split in column {table.header[i]} (train, val or test)", repr(got)[:60],
                              "correct it, or rename the column")  # fmt: skip
    return None


def _group_column(table: Table, columns: Sequence[int], group_by: str | None, *, has_splits: bool) -> int | None:
    """The column with the groups of the images: the one that is asked for, else one with a header that people use."""
    if not table.header or group_by == NO_GROUPS:
        return None
    if group_by is not None:
        return next((i for i in columns if plain(table.header[i]) == plain(group_by)), None)
    named = [i for i in columns if plain(table.header[i]) in GROUP_HEADERS and not _is_no_group(table, i)]
    if len(named) == len(columns):  # one of them has the labels
        return None
    if len(named) > 1 and not has_splits:
        names = listed((table.header[i] for i in named), ordered=True, last="and")
        raise table.error(table.rows[0][0], "one column of groups, which no split divides", names,
                          f"choose one with --group-by, or --group-by {NO_GROUPS}")  # fmt: skip
    return named[0] if len(named) == 1 else None


def _is_no_group(table: Table, column: int) -> bool:
    """Whether a column called group has something else: splits, or two kinds such as treated and not."""
    values = {cells[column] for _, cells in table.rows}
    return plain(table.header[column]) in _VAGUE_GROUPS and (len(values) < 3 or all(map(split_in, values)))


def _label_columns(table: Table, columns: Sequence[int]) -> tuple[list[int], Mapping[str, str], list[int]]:
    """(the column of labels, or several with 0 and 1; names of classes by their numbers; columns that are not used)."""
    line, _ = table.rows[0]
    named = [i for i in columns if table.header and plain(table.header[i]) in LABEL_HEADERS]
    binary = [i for i in columns if table.header and all(_is_binary(cells[i]) for _, cells in table.rows)]
    if len(binary) > 1 and not named:
        return binary, {}, [i for i in columns if i not in binary]
    if len(named) == 2 and (stated := _named_numbers(table, named)):
        return named[:1], stated, [i for i in columns if i not in named]
    if len(named) > 1:
        names = listed((table.header[i] for i in named), ordered=True, last="and")
        raise table.error(line, "one column of labels", names, "remove or rename all but one")
    if named:
        return named, table.names, [i for i in columns if i != named[0]]
    if len(columns) == 1:
        return list(columns), table.names, []
    texts = [i for i in columns if not table.header and not all(_is_figure(cells[i]) for _, cells in table.rows)]
    if len(texts) == 1 and 2 * len({cells[texts[0]] for _, cells in table.rows}) <= len(table.rows):
        return texts, {}, [i for i in columns if i != texts[0]]  # beside numbers, such as those of boxes
    got = f"the columns {listed(table.header, ordered=True)}" if table.header else f"{len(columns) + 1} without header"
    raise table.error(line, "a column of labels (label, class, category or target), or a 0/1 column for each class",
                      got if columns else "none", "add or rename it")  # fmt: skip


def _is_figure(cell: Cell) -> bool:
    return isinstance(cell, str) and re.fullmatch(r"\s*[-+.\d]*\s*", cell) is not None


def _named_numbers(table: Table, columns: Sequence[int]) -> Mapping[str, str]:
    """The name of each class by what the first of two columns calls it, if they say the same; sorted by number.

    Columns class_id and class_name are one list of labels: the numbers give the order, the names the names.
    """
    pairs = {(cells[columns[0]], cells[columns[1]]) for _, cells in table.rows}
    for_first, for_second = ({pair[i] for pair in pairs} for i in (0, 1))
    if not len(pairs) == len(for_first) == len(for_second) or not all(isinstance(c, str) for p in pairs for c in p):
        return {}
    texts = [(str(a).strip(), str(b).strip()) for a, b in pairs]
    numeric = [i for i in (0, 1) if all(is_number(pair[i]) for pair in texts)]
    if not numeric:
        return {}
    texts.sort(key=lambda pair: int(pair[numeric[0]]))
    return {a: nfc(a if numeric[0] else b) for a, b in texts}


def split_in(cell: Cell) -> str:
    """The split that a cell names, or ""."""
    return split_named(cell) if isinstance(cell, str) else ""


def _is_binary(cell: Cell) -> bool:
    return cell in _ZERO_ONE or (isinstance(cell, str) and cell.strip().lower() in _ZERO_ONE)


def is_one(cell: Cell) -> bool:
    """Whether a cell of a 0/1 column is 1."""
    return cell in _ONE or (isinstance(cell, str) and cell.strip().lower() in _ONE)
