"""The labels of images in a table, row by row.

Nothing is guessed: what can be read in two ways is an error with the line, and what is not used is in the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from inceptionnet.data.class_names import is_number
from inceptionnet.data.columns import Columns, columns_of, is_one, split_in
from inceptionnet.data.matching import Images
from inceptionnet.data.tables import Cell, Nested, Table
from inceptionnet.data.text import NOT_UTF8, is_damaged, nfc, plain
from inceptionnet.errors import DataError, listed, number_of

_MISSING = frozenset(("nan", "<na>", "nat", "#n/a", "#na", "#ref!", "#value!", "#name?", "#null!", "#div/0!"))
"""What pandas and spreadsheets write where there is no value."""
_PLURAL = frozenset(("labels", "classes", "categories", "tags", "targets"))


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
    columns, header = columns_of(table, images, group_by), table.header
    rows, notes = _rows(table, images, columns)
    binary = len(columns.labels) > 1
    if binary:
        notes.append(
            f"a class for each 0/1 column: {listed((header[i].strip() for i in columns.labels), ordered=True)}"
        )
    if columns.unused:
        notes.append(f"columns not used: {listed(_called(header, i) for i in columns.unused)}")
    rows.sort(key=lambda row: row.image)
    named = [header[i].strip() for i in columns.labels] if binary else None
    classes, labels = _numbered(rows, table.file, columns.class_names, named)
    positions = np.array([row.image for row in rows], np.int64)
    splits = tuple(row.split for row in rows) if columns.split is not None else ()
    whole = _whole_numbers(row.group for row in rows)
    groups = () if columns.group is None else tuple(whole[row.group] for row in rows)
    called = "" if columns.group is None else header[columns.group]
    return Labelled(classes, positions, labels, splits, groups, called.strip(), header, tuple(notes))


def _called(header: Sequence[str], column: int) -> str:
    return (header[column].strip() or "without name") if header else str(column + 1)


def _rows(table: Table, images: Images, columns: Columns) -> tuple[list[_Row], list[str]]:
    """The rows with an image and a label, and notes on the others."""
    found: list[_Row] = []
    seen: dict[int, int] = {}
    lost: list[str] = []
    empty: list[int] = []
    label, split, group = columns.labels, columns.split, columns.group
    header = plain(table.header[label[0]]) if table.header else ""
    for line, cells in table.rows:
        entry = cells[columns.image]
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
            labels = tuple(str(i) for i, column in enumerate(label) if is_one(cells[column]))
        else:
            labels = _labels(table, line, cells[label[0]], header)
            if not labels:
                empty.append(places[0])
        part = split_in(cells[split]) if split is not None else ""
        held = cells[group] if group is not None else ""
        together = nfc((held if isinstance(held, str) else ";".join(held)).strip())
        together = "" if together.lower() in _MISSING else together
        found.append(_Row(line, places[0], labels, part, together))
    several = any(len(row.labels) > 1 for row in found)
    alone = {one for row in found for one in row.labels}
    for row in found if header in _PLURAL else ():
        words = [word for one in row.labels for word in one.split() if " " in one]
        if words and alone.issuperset(words):
            raise table.error(row.line, f"several {header} separated by ; or |", repr(" ".join(words))[:60],
                              "separate them so, or call the column label if this is one class")  # fmt: skip
    if len(label) > 1 and not several and (none := [row.line for row in found if not row.labels]):
        raise table.error(none[0], "a 1 in one of the columns of classes", "none", "correct it, or remove the row")
    if not several:
        found = [row for row in found if row.labels]
    if not found:
        raise table.error(table.rows[0][0], "a label for every image", "none in any row", "add them")
    notes = []
    if lost:
        rows = number_of("row", len(lost))
        notes.append(f"{rows} of {table.file} without image in the data: {listed(lost, 3, ordered=True)}")
    labelled = {row.image for row in found}
    if bare := [name for i, name in enumerate(images.names) if i not in labelled]:
        some = number_of("image", len(bare))
        notes.append(f"{some} without label not used: {listed(bare, 3)}")
    return found, notes


def _labels(table: Table, line: int, cell: Cell, header: str) -> tuple[str, ...]:
    """The labels in a cell; several are separated by ; or |, or are a list."""
    parts = cell if isinstance(cell, tuple) else tuple(re.split(r"[;|]", cell))
    labels = tuple(nfc(part.strip()) for part in parts if part.strip())
    if missing := [label for label in labels if label.lower() in _MISSING]:
        raise table.error(line, "a label", f"{missing[0]!r}, which is written for a missing value",
                          "leave the cell empty, or name the class otherwise")  # fmt: skip
    if nested := [one for one in (cell if isinstance(cell, tuple) else (cell,)) if isinstance(one, Nested)]:
        raise table.error(line, "the name or number of a class", nested[0][:60], "write the label itself")
    if isinstance(cell, str) and len(labels) == 1 and re.fullmatch(r"\d+( +\d+)+", labels[0]):
        raise table.error(line, "a label, or several separated by ; or |", repr(labels[0])[:60], "separate them so")
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
    if columns:
        names = {label: nfc(columns[int(label)]) for label in used}
        classes = tuple(map(nfc, columns))
    elif stated:
        if unknown := used - stated.keys():
            raise DataError(
                f"{file}: expected labels that have a name in the file, got {listed(unknown, 3)}: correct them"
            )
        names, classes = dict(stated), tuple(stated.values())
    else:
        names = _whole_numbers(used)
        classes = tuple(sorted(set(names.values())))
        if all(map(is_number, classes)):
            classes = tuple(sorted(classes, key=int))
            if same := next(((a, b) for a, b in pairwise(classes) if int(a) == int(b)), None):
                raise DataError(f"{file}: expected one number for a class, got {' and '.join(same)}: correct one")
    if twice := [name for name, times in Counter(classes).items() if times > 1]:
        raise DataError(f"{file}: expected every class once, got {listed(twice)} more than once: rename them")
    code = {name: i for i, name in enumerate(classes)}
    if all(len(row.labels) == 1 for row in rows):
        return classes, np.array([code[names[row.labels[0]]] for row in rows], np.int64)
    labels = np.zeros((len(rows), len(classes)), np.bool_)
    for i, row in enumerate(rows):
        labels[i, [code[names[label]] for label in row.labels]] = True
    return classes, labels


def _whole_numbers(texts: Iterable[str]) -> dict[str, str]:
    """What each text stands for: if all are numbers, without the .0 that pandas writes beside missing ones."""
    whole = {text: re.sub(r"\.0+$", "", text) for text in texts}
    return whole if all(is_number(number) for text, number in whole.items() if text) else {text: text for text in whole}
