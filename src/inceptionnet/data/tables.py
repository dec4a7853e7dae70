"""Tables of labels as files hold them: CSV with any separator, JSON, JSON lines, parquet, or lines of a text.

Every kind becomes rows of cells with their line numbers. Which column is which is decided in columns.py; of a CSV or a
text, the separator that finds the most images is the one meant.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from inceptionnet.data.features import class_names
from inceptionnet.data.matching import Images
from inceptionnet.data.names import is_image
from inceptionnet.data.text import FIRST_SPACE, LAST_SPACE, Row, cells_of, json_lines, json_of, plain, read_text
from inceptionnet.errors import DataError, listed
from inceptionnet.system.parquet_files import flat, open_parquet

Cell: TypeAlias = str | tuple[str, ...]
"""A text, or several labels."""

IMAGE_HEADERS = frozenset((
    "image", "images", "image_id", "imageid", "image_name", "imagename", "image_path", "imagepath", "image_file",
    "image_filename", "img", "img_id", "img_name", "img_path", "img_file", "id", "name", "file", "files", "fileid",
    "file_id", "filename", "filenames", "file_name", "file_names", "filepath", "filepaths", "file_path", "file_paths",
    "fname", "path", "paths", "relpath", "relative_path", "picture", "photo", "uri", "url", "key",
))  # fmt: skip
LABEL_HEADERS = frozenset((
    "label", "labels", "label_name", "label_id", "class", "classes", "class_name", "classname", "class_id", "classid",
    "class_label", "class_idx", "class_index", "category", "categories", "category_name", "category_id", "target",
    "targets", "tag", "tags", "y", "species", "breed", "diagnosis", "dx", "ground_truth", "gt", "annotation",
    "finding_labels", "predictionstring", "prediction_string", "wnid", "synset",
))  # fmt: skip
SPLIT_HEADERS = frozenset(("split", "splits", "set", "subset", "partition", "data_set", "dataset", "phase", "usage",
                           "data_split", "fold"))  # fmt: skip
GROUP_HEADERS = frozenset((
    "group", "groups", "group_id", "groupid", "group_name", "patient", "patients", "patient_id", "patientid",
    "patient_name", "subject", "subject_id", "subjectid", "participant", "participant_id", "person", "person_id",
    "lesion_id", "video", "video_id", "video_name", "videoid", "clip", "clip_id", "sequence", "sequence_id", "scene",
    "scene_id", "product", "product_id", "animal_id", "specimen_id", "slide_id",
))  # fmt: skip
MARKS = (",", ";", "\t", "|", FIRST_SPACE, LAST_SPACE)
"""Separators of cells."""
METADATA_NAME = "file_name"
_OBJECT = re.compile(r"\s*\{\s*\".*\}\s*")
"""An object on one line."""
SAMPLE = 300
"""Rows that are enough to see which column names images."""
EXPECTED = "a file with labels"


@dataclass(frozen=True)
class Table:
    """The rows of a table; without header the columns have no names."""

    file: str
    header: tuple[str, ...]
    rows: Sequence[tuple[int, tuple[Cell, ...]]]
    names: Mapping[str, str]
    """Names of classes by their numbers, if the file states them."""

    def error(self, line: int, expected: str, got: str, do: str) -> DataError:
        """The error about a line."""
        return DataError(f"{self.file}: line {line}: expected {expected}, got {got}", do)


def read_table(file: Path, images: Images, columns: int = 2) -> Table:
    """Read a table of labels with so many columns or more; `images` tell which separator is meant.

    Raises: DataError, MissingExtraError.
    """
    table = _read(file, images, columns)
    if not table.rows:
        raise DataError(f"{file}: expected {EXPECTED}, got an empty one: give another")
    width = len(table.header) or len(table.rows[0][1])
    for line, cells in table.rows:
        if not len(cells) == width > 0:
            raise table.error(line, f"{width or 'some'} cells, as in the others", str(len(cells)), "correct the row")
    return table


def _read(file: Path, images: Images, columns: int) -> Table:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _of_parquet(file)
    if suffix in (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"):
        raise DataError(f"{file}: expected {EXPECTED}, got a spreadsheet ({suffix}): save it as CSV UTF-8")
    text = read_text(file, EXPECTED)
    if suffix in (".jsonl", ".ndjson"):
        return _of_objects(str(file), list(json_lines(text, str(file))))
    lines = list(filter(str.strip, text.split("\n")))
    if len(lines) > 1 and all(map(_OBJECT.fullmatch, lines)):  # pandas calls them .json
        return _of_objects(str(file), list(json_lines(text, str(file))))
    value = json_of(text, str(file), is_json=suffix == ".json")
    if isinstance(value, Mapping):
        return _of_mapping(str(file), value, images)
    if isinstance(value, list) and all(isinstance(one, list) for one in value):
        return Table(str(file), (), [(i, tuple(map(_cell, row))) for i, row in enumerate(value, start=1)], {})
    if value is not None:
        return _of_objects(str(file), list(enumerate(value, start=1)))
    return _of_cells(str(file), text, images, columns)


def read_metadata(files: Mapping[str, Path], images: Images) -> Table:
    """Tables of Hugging Face's layout, one in each folder of images, as one; by folder. Raises: as `read_table`."""
    objects: list[tuple[int, Any]] = []
    for folder, file in files.items():
        table = read_table(file, images, 1)  # a test split may have names alone
        for line, cells in table.rows:
            row: dict[str, Cell] = dict(zip(table.header, cells, strict=False))
            name = row.get(METADATA_NAME) or row.pop("filename", "")  # Roboflow's
            objects.append((line, row | {METADATA_NAME: f"{folder}/{name}"}))
    return _of_objects(listed(map(str, files.values())), objects)


def _of_cells(file: str, text: str, images: Images, columns: int) -> Table:
    ways, errors = [], []
    if stated := re.match(r"sep=(.)\n", text):  # a line of Excel's own
        text = "\n" + text[len(stated[0]) :]
    for mark in stated[1] if stated else MARKS:
        try:
            ways.append(cells_of(text, mark, file))
        except DataError as error:
            errors.append(error)
    for step in steps(max(map(len, ways))):
        scores = [_score(rows, images, step) for rows in ways]
        (most, _), rows = max(zip(scores, ways, strict=True), key=lambda way: way[0])
        if most:
            break
    if errors and not most:
        raise errors[0]
    if not rows:
        raise DataError(f"{file}: expected {EXPECTED}, got an empty one: give another")
    header = rows[0].cells if _is_header(rows, images) else ()
    width = max(len(rows[0].cells), columns)
    out: list[tuple[int, tuple[Cell, ...]]] = []
    for row in rows[bool(header) :]:
        cells = row.cells
        while len(cells) > width and not cells[-1].strip():
            cells = cells[:-1]
        if len(cells) != width:
            raise DataError(
                f"{file}: line {row.line}: expected {width} cells, as in NAME LABEL or NAME,LABEL, got {len(cells)} in "
                f"{' '.join(cells)[:60]!r}: correct the line, with quotes around cells that contain the separator"
            )
        out.append((row.line, tuple(map(_cell, cells))))
    if not out:
        raise DataError(f"{file}: line {rows[0].line}: expected rows of images and labels below the header, got none: "
                        "add them")  # fmt: skip
    return Table(file, header, out, {})


def _score(rows: Sequence[Row], images: Images, step: int) -> tuple[int, bool]:
    """How well a separator fits: images that a column names, and whether there are headers that people use."""
    wide = [row.cells for row in rows if len(row.cells) > 1]
    known = bool(wide) and any(plain(cell) in IMAGE_HEADERS | LABEL_HEADERS for cell in wide[0])
    return max((one.all for one in matched(wide[::step], images)), default=0), known


class Matched(NamedTuple):
    """How many different images a column names."""

    all: int
    as_files: int
    """With an extension, as no number of a row or of a class does."""


def matched(rows: Sequence[tuple[Cell, ...]], images: Images) -> list[Matched]:
    """How many different images each column names."""
    found: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in range(max(map(len, rows), default=0))]
    for cells in rows:
        for column, cell in enumerate(cells):
            if isinstance(cell, str):
                places = images.find(cell)[:1]
                found[column][0].update(places)
                found[column][1].update(places if is_image(cell.strip()) else ())
    return [Matched(len(some), len(as_files)) for some, as_files in found]


def steps(rows: int) -> tuple[int, ...]:
    """The steps through rows that show which column names images: a sample, then all, if the sample has none."""
    return (rows // SAMPLE + 1, 1) if rows > SAMPLE else (1,)


def _is_header(rows: Sequence[Row], images: Images) -> bool:
    """Whether the first row names the columns: all of its cells are headers that people use, or one and none an image.

    Of more than two columns, any texts above an image are headers.
    """
    first = rows[0].cells
    headers = [plain(cell) in IMAGE_HEADERS | LABEL_HEADERS | SPLIT_HEADERS for cell in first]
    if len(first) > 1 and all(headers):
        return True
    if any(images.find(cell) for cell in first):
        return False
    if any(headers):
        return True
    texts = [cell.strip() for cell in first]
    named = len(first) > 2 and len(set(texts)) == len(texts) and not any(re.fullmatch(r"[\d.]*", one) for one in texts)
    return named and len(rows) > 1 and any(map(images.find, rows[1].cells))


def _of_mapping(file: str, value: Mapping[str, Any], images: Images) -> Table:
    """{"a.png": "daisy"}, {"a.png": ["daisy", "rose"]}, or {"daisy": ["a.png", "b.png"]}."""
    for holder in ("data", "labels", "annotations", "images", "rows"):
        if isinstance(value.get(holder), list) and all(isinstance(one, Mapping) for one in value[holder]):
            if "categories" in value:
                raise DataError(f"{file}: expected images with their labels, got annotations in COCO's layout: write "
                                "a CSV with the columns image and label")  # fmt: skip
            return _of_objects(file, list(enumerate(value[holder], start=1)))
    pairs = [(str(key), one) for key, one in value.items()]
    turned = [(_cell(image), key) for key, one in pairs if isinstance(one, list) for image in one]
    by_key = sum(bool(images.find(key)) for key, _ in pairs)
    if sum(bool(images.find(str(image))) for image, _ in turned) > by_key:
        rows: list[tuple[int, tuple[Cell, ...]]] = [(i, (str(a), b)) for i, (a, b) in enumerate(turned, start=1)]
    else:
        rows = [(i, (key, _cell(one))) for i, (key, one) in enumerate(pairs, start=1)]
    return Table(file, ("image", "label"), rows, {})


def _of_objects(file: str, objects: Sequence[tuple[int, Any]]) -> Table:
    header: dict[str, None] = {}
    for line, one in objects:
        if not isinstance(one, Mapping):
            raise DataError(
                f"{file}: line {line}: expected an object with an image and its label, got {_text(one)[:60]}: correct "
                "it"
            )
        header |= dict.fromkeys(map(str, one))
    if not header:
        raise DataError(f"{file}: expected {EXPECTED}, got an empty one: give another")
    rows = [(line, tuple(_cell(one.get(key)) for key in header)) for line, one in objects]
    return Table(file, tuple(header), rows, {})


def _of_parquet(file: Path) -> Table:
    with open_parquet(file) as opened:
        binary = [f.name for f in opened.schema if "binary" in str(f.type)]
        if binary:
            raise DataError(f"{file}: expected names of images and labels, got encoded images in {binary[0]}: give "
                            "the folder of the file as the data")  # fmt: skip
        names = class_names(file, opened.schema) or []
        table = opened.read()
        header = tuple(table.column_names)
        columns = [flat(table[name]).to_pylist() for name in header]
    rows = [(i, tuple(map(_cell, row))) for i, row in enumerate(zip(*columns, strict=True), start=1)]
    return Table(str(file), header, rows, {str(i): name for i, name in enumerate(names)})


def _cell(value: Any) -> Cell:
    """A value as text; a list, or one printed into a cell (['a', 'b']), as several."""
    if isinstance(value, str) and "[" in value and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        try:
            read = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
        return tuple(map(_text, read)) if isinstance(read, list) else value
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return tuple(map(_text, value))
    return _text(value)


class Nested(str):
    """The text of an object or a list inside a cell or a list, which is no label."""


def _text(value: Any) -> str:
    """A value as one text, whatever is in it: of lists in lists, the text of each in that of the next would double."""
    if isinstance(value, Mapping | list | tuple):
        try:
            return Nested(value)
        except RecursionError:
            return Nested("[…]")
    if value is None or value != value:  # NaN
        return ""
    try:
        return str(int(value) if isinstance(value, bool) else value)
    except RecursionError:
        return "[…]"
