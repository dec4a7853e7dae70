"""The columns of a table of labels: which one names the image, which the label, which the split, or 0/1 columns.

Nothing is guessed: what can be read in two ways is an error with the line, and what is not used is in the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
from inceptionnet.data.text import NOT_UTF8, is_damaged, nfc, plain
from inceptionnet.errors import DataError, listed

_VAGUE = frozenset(("id", "name", "key"))
_VAGUE_GROUPS = frozenset(("group", "groups"))
_PLURAL = frozenset(("labels", "classes", "categories", "tags", "targets"))
_ZERO_ONE = frozenset(("0", "1", "0.0", "1.0", "false", "true"))
_ONE = frozenset(("1", "1.0", "true"))


@dataclass(frozen=True, eq=False)
class Labelled:
    """The images that a file labels.

    Shapes: positions (N,) of the images, sorted; labels (N,) int64, or of several labels an image (N, classes) bool.
    """

    classes: tuple[str, ...]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64 | np.bool_]
    splits: tuple[str, ...] = ()
    """The split of each, if the file says it."""
    groups: tuple[str, ...] = ()
    """The group of each, if the file has a column of groups; empty for an image without."""
    group_column: str = ""
    columns: tuple[str, ...] = ()
    """All headers."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    line: int
    image: int
    labels: tuple[str, ...]
    split: str
    group: str


def labels_in(table: Table, images: Images, group_by: str | None = None) -> Labelled:
    """The labels in a table; `group_by` as in `GroupBy.asked`. Raises: DataError."""
    image = _image_column(table, images)
    others = [i for i in range(len(table.rows[0][1])) if i != image]
    if table.header:  # pandas writes the number of a row into a column without name
        others = [i for i in others if plain(table.header[i]) and not plain(table.header[i]).startswith("unnamed:")]
    split = _split_column(table, others)
    others = [i for i in others if i != split]
    group = _group_column(table, others, group_by, has_splits=split is not None)
    others = [i for i in others if i != group]
    label, stated, unused = _label_columns(table, others)
    rows, notes = _rows(table, images, image, split, group, label)
    if len(label) > 1:
        notes.append(f"a class for each 0/1 column: {listed((table.header[i] for i in label), ordered=True)}")
    if unused:
        notes.append(f"columns not used: {listed(table.header[i] or 'without name' for i in unused)}")
    rows.sort(key=lambda row: row.image)
    named = [table.header[i].strip() for i in label] if len(label) > 1 else None
    classes, labels = _numbered(rows, table.file, stated, named)
    positions = np.array([row.image for row in rows], np.int64)
    splits = tuple(row.split for row in rows) if split is not None else ()
    groups = () if group is None else _same_numbers([row.group for row in rows])
    called = "" if group is None else table.header[group]
    return Labelled(classes, positions, labels, splits, groups, called.strip(), table.header, tuple(notes))


def _image_column(table: Table, images: Images) -> int:
    width = len(table.rows[0][1])
    headers = [plain(table.header[i]) if table.header else "" for i in range(width)]
    known = [(header in IMAGE_HEADERS) + (header in IMAGE_HEADERS - _VAGUE) for header in headers]
    cells = [cells for _, cells in table.rows]
    for step in steps(len(cells)):
        counts = matched(cells[::step], images)
        best = max(range(width), key=lambda i: (bool(counts[i] and known[i]), counts[i], known[i]))
        if counts[best]:
            break
    if not counts[best]:
        shown = next((i for i in range(width) if known[i]), 0)
        line, first = table.rows[0]
        such = f" such as {images.names[0]}" if images.names else ""
        raise table.error(line, f"the name of an image in the data,{such}", f"{str(first[shown])[:60]!r}, and no image "
                          f"in {len(cells)} rows", "correct the names, or give other data")  # fmt: skip
    return best


def _split_column(table: Table, columns: Sequence[int]) -> int | None:
    """The column with names of splits."""
    if not table.header:
        full = [i for i in columns if len(columns) > 1 and all(_split(cells[i]) for _, cells in table.rows)]
        return full[0] if len(full) == 1 else None
    named = [i for i in columns if plain(table.header[i]) in SPLIT_HEADERS]
    named.sort(key=lambda i: plain(table.header[i]) not in ("split", "splits"))
    for i in named:
        bad = [(line, cells[i]) for line, cells in table.rows if not _split(cells[i])]
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
    return plain(table.header[column]) in _VAGUE_GROUPS and (len(values) < 3 or all(map(_split, values)))


def _same_numbers(groups: Sequence[str]) -> tuple[str, ...]:
    """The groups; numbers without the .0 that pandas writes beside missing ones."""
    whole = tuple(re.sub(r"\.0+$", "", group) for group in groups)
    return whole if all(is_number(group) for group in whole if group) else tuple(groups)


def _split(cell: Cell) -> str:
    return split_named(cell) if isinstance(cell, str) else ""


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
    got = f"the columns {listed(table.header, ordered=True)}" if table.header else f"{len(columns) + 1} without header"
    raise table.error(line, "a column of labels (label, class, category or target), or a 0/1 column for each class",
                      got if columns else "none", "add or rename it")  # fmt: skip


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


def _is_binary(cell: Cell) -> bool:
    return cell in _ZERO_ONE or (isinstance(cell, str) and cell.strip().lower() in _ZERO_ONE)


def _is_one(cell: Cell) -> bool:
    return cell in _ONE or (isinstance(cell, str) and cell.strip().lower() in _ONE)


def _rows(
    table: Table, images: Images, image: int, split: int | None, group: int | None, label: Sequence[int]
) -> tuple[list[_Row], list[str]]:
    """The rows with an image and a label, and notes on the others."""
    found: list[_Row] = []
    seen: dict[int, int] = {}
    lost: list[str] = []
    empty: list[int] = []
    header = plain(table.header[label[0]]) if table.header else ""
    for line, cells in table.rows:
        entry = cells[image]
        name = entry if isinstance(entry, str) else str(entry)
        places = images.find(name)
        if len(places) > 1:
            raise table.error(line, "one image", f"{name}, which is {listed(images.names[i] for i in places)}",
                              "write its folder too")  # fmt: skip
        if not places:
            if is_damaged(name):
                raise DataError(f"{table.file}: line {line}: {NOT_UTF8}")
            lost.append(f"{name.strip()} (line {line})")
            continue
        if places[0] in seen:
            raise table.error(line, "every image once", f"{images.names[places[0]]} more than once (line "
                              f"{seen[places[0]]})", "remove a line; several labels are written a;b")  # fmt: skip
        seen[places[0]] = line
        if len(label) > 1:
            labels = tuple(str(i) for i, column in enumerate(label) if _is_one(cells[column]))
        else:
            labels = _labels(table, line, cells[label[0]], header)
            if not labels:
                empty.append(places[0])
        part = _split(cells[split]) if split is not None else ""
        held = cells[group] if group is not None else ""
        together = nfc((held if isinstance(held, str) else ";".join(held)).strip())
        found.append(_Row(line, places[0], labels, part, together))
    several = any(len(row.labels) > 1 for row in found)
    if len(label) > 1 and not several and (none := [row.line for row in found if not row.labels]):
        raise table.error(none[0], "a 1 in one of the columns of classes", "none", "correct it, or remove the row")
    if not several:
        found = [row for row in found if row.labels]
    if not found:
        raise table.error(table.rows[0][0], "a label for every image", "none in any row", "add them")
    notes = []
    if lost:
        rows = "1 row" if len(lost) == 1 else f"{len(lost)} rows"
        notes.append(f"{rows} of {table.file} without image in the data: {listed(lost, 3, ordered=True)}")
    labelled = {row.image for row in found}
    if bare := [name for i, name in enumerate(images.names) if i not in labelled]:
        some = "1 image" if len(bare) == 1 else f"{len(bare)} images"
        notes.append(f"{some} without label not used: {listed(bare, 3)}")
    return found, notes


def _labels(table: Table, line: int, cell: Cell, header: str) -> tuple[str, ...]:
    """The labels in a cell; several are separated by ; or |, or are a list."""
    parts = cell if isinstance(cell, tuple) else tuple(re.split(r"[;|]", cell))
    labels = tuple(nfc(part.strip()) for part in parts if part.strip())
    if missing := [label for label in labels if label.lower() == "nan"]:
        raise table.error(line, "a label", f"{missing[0]!r}, which pandas writes for a missing value",
                          "leave the cell empty, or name the class otherwise")  # fmt: skip
    if is_damaged("".join(labels)):
        raise DataError(f"{table.file}: line {line}: {NOT_UTF8}")
    if isinstance(cell, str) and header in _PLURAL and len(labels) == 1:
        mark = next((mark for mark in (",", " ") if mark in labels[0] and (mark == "," or header == "tags")), "")
        if mark:
            raise table.error(line, f"several {header} separated by ; or |", repr(labels[0])[:60],
                              "separate them so, or call the column label if this is one class")  # fmt: skip
    if len(set(labels)) < len(labels):
        raise table.error(line, "every label of an image once", ";".join(labels)[:60], "correct it")
    return labels


def _numbered(
    rows: Sequence[_Row], file: str, stated: Mapping[str, str], columns: Sequence[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64 | np.bool_]]:
    """Class names, and labels as numbers or as a row of classes for each image.

    Numbers are in their order, names sorted as text, columns as they come.
    """
    used = {label for row in rows for label in row.labels}
    whole = {label: re.sub(r"\.0+$", "", label) for label in used}  # pandas writes 1.0 beside missing numbers
    if not all(map(is_number, whole.values())):
        whole = {label: label for label in used}
    if columns:
        names = {label: nfc(columns[int(label)]) for label in used}
        classes = tuple(map(nfc, columns))
    elif stated and used <= stated.keys():
        names, classes = dict(stated), tuple(stated.values())
    else:
        names = whole
        distinct = set(whole.values())
        classes = tuple(sorted(distinct, key=int if all(map(is_number, distinct)) else None))
    if twice := [name for name, times in Counter(classes).items() if times > 1]:
        raise DataError(f"{file}: expected every class once, got {listed(twice)} more than once: rename them")
    code = {name: i for i, name in enumerate(classes)}
    if all(len(row.labels) == 1 for row in rows):
        return classes, np.array([code[names[row.labels[0]]] for row in rows], np.int64)
    labels = np.zeros((len(rows), len(classes)), np.bool_)
    for i, row in enumerate(rows):
        labels[i, [code[names[label]] for label in row.labels]] = True
    return classes, labels
