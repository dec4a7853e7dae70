"""Class names in the order of the logits, in any of the files that people have.

One name a line; `0 ant`, `0: ant`, `ant 0` and the like on every line; a CSV with a column of names and perhaps one of
numbers; a JSON list; a JSON object either way round ({"ant": 0}, {"0": "ant"}): Keras's class_indices.json, or the
`id2label` and `label2id` of a Hugging Face config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.data.text import NOT_UTF8, cells_of, decoded, is_damaged, json_of, lines_of, nfc, plain, read_text
from inceptionnet.errors import DataError, listed

CLASSES_FILE = "classes.txt"
IMAGENET = "imagenet"
EXPECTED = "class names"
# Keys of JSON objects that hold the names among other things.
_HOLDERS = ("id2label", "label2id", "class_to_idx", "class_indices", "label_names", "class_names", "classes", "names",
            "categories", "labels")  # fmt: skip
_NAME_HEADERS = ("name", "class_name", "classname", "label_name", "class", "label", "category", "species", "synset",
                 "wnid", "text", "classes", "names", "labels", "categories")  # fmt: skip
_NUMBER_HEADERS = ("index", "idx", "id", "number", "class_id", "class_index", "class_idx", "label_id", "category_id",
                   "label", "class", "target", "code")  # fmt: skip
# Runs of spaces have an end, so that a line of nothing else takes no time that grows with its square.
_NUMBER_FIRST = re.compile(r"(\d{1,9})(?:\s{0,99}[:,;=\t]\s{0,99}|[.)]\s{1,99}|\s{1,99}-\s{1,99}|\s{1,99})(\S.*)")
_NUMBER_LAST = re.compile(r"(.*?\S)(\s{0,99}[:,;=\t]\s{0,99}|\s{1,99})(\d{1,9})")
_ADVICE = "number them 0 to N-1, or give a JSON list of the names if the numbers belong to them"


def is_number(label: str) -> bool:
    """Whether a label is an integer."""
    return re.fullmatch(r"[+-]?[0-9]{1,9}", label) is not None


@dataclass(frozen=True)
class ClassNames:
    """Class names in label order; a label is given as a number or a name."""

    names: tuple[str, ...]
    first: int = 0
    """The number of the first class in the file: 0, or 1."""

    @classmethod
    def parse(cls, text: str, where: str) -> ClassNames:
        """Read the text of a file in any of the formats above; `where` is its name. Raises: DataError."""
        suffix = PurePosixPath(where).suffix.lower()
        if is_damaged(text):
            raise DataError(f"{where}: line {text[: _damage(text)].count(chr(10)) + 1}: {NOT_UTF8}")
        if suffix in (".yaml", ".yml", ".pbtxt"):
            raise DataError(f"{where}: expected {EXPECTED} as text, CSV or JSON, got {suffix}: save them one a line")
        value = json_of(text, where, is_json=suffix == ".json")
        if value is not None:
            return _of_json(value, where)
        if suffix in (".csv", ".tsv"):
            return _of_table(text, suffix, where)
        return _of_lines(_bare([(line.number, line.text) for line in lines_of(text)]), where)

    @classmethod
    def read(cls, file: Path) -> ClassNames:
        """Read a file in any of the formats above. Raises: DataError."""
        return cls.parse(read_text(file, EXPECTED), str(file))

    def number(self, label: str, place: str) -> int:
        """The number of the class `label`, itself a number or a name; errors name `place`. Raises: DataError."""
        by_name = {name: i for i, name in enumerate(self.names)}
        number = by_name.get(nfc(label), -1)
        if is_number(label):
            number = int(label) - self.first
        if not 0 <= number < len(self.names):
            last = self.first + len(self.names) - 1
            raise DataError(
                f"{place}: expected a label from {self.first} to {last} or a name in {CLASSES_FILE}, got {label}: "
                "correct one of them"
            )
        return number


def named_classes(
    given: str | Path | Sequence[str], option: str = "classes", words: Sequence[str] = (IMAGENET,)
) -> tuple[str, ...]:
    """The class names that an option gives: a list of names, the name of a file, or `imagenet`.

    `words` are all that the option takes besides files. Raises: DataError.
    """
    if not isinstance(given, str | Path):
        return tuple(given)
    if str(given) == IMAGENET:
        return imagenet_classes()
    if not Path(given).exists():
        known = listed(words, last="or")
        raise DataError(f"{option} {given}: expected a file with class names or {known}, got no such file: correct it")
    try:
        return ClassNames.read(Path(given)).names
    except DataError as error:
        raise DataError(f"{option} {error}") from None


def parse_bytes(data: bytes, where: str) -> ClassNames:
    """As `ClassNames.parse`, from the bytes of a file. Raises: DataError."""
    return ClassNames.parse(decoded(data, where, EXPECTED), where)


def _damage(text: str) -> int:
    return next(i for i, character in enumerate(text) if is_damaged(character))


def _bare(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Lines without what a list has around each name: a dash before it, a comma after it, quotes around it."""
    if len(lines) > 1 and all(text.startswith("- ") for _, text in lines):
        lines = [(n, text[2:].strip()) for n, text in lines]
    if len(lines) > 1 and all(text.endswith(",") for _, text in lines[:-1]):
        lines = [(n, text.removesuffix(",").rstrip()) for n, text in lines]
    for quote in "\"'":
        if lines and all(len(text) > 2 and text[0] == text[-1] == quote for _, text in lines):
            lines = [(n, text[1:-1]) for n, text in lines]
    return lines


def _of_lines(lines: Sequence[tuple[int, str]], where: str) -> ClassNames:
    """Names one a line, or with a number on every line."""
    if wide := _numbered([(n, _NUMBER_FIRST.fullmatch(text)) for n, text in lines], 1, 2, where):
        return wide
    # A name may end with a number (Model 3, Hummer 2000): only numbers 0 to N-1 or 1 to N count as such.
    last = [_NUMBER_LAST.fullmatch(text) for _, text in lines]
    if all(last) and len({match[2].strip() for match in last if match}) == 1:
        numbers = sorted(int(match[3]) for match in last if match)
        marked = any(match[2].strip() for match in last if match)
        counted = numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        rows = [(n, match) for (n, _), match in zip(lines, last, strict=True)]
        if (marked or counted) and (found := _numbered(rows, 3, 1, where)):
            return found
    return _checked(lines, where)


def _numbered(
    lines: Sequence[tuple[int, re.Match[str] | None]], number: int, name: int, where: str
) -> ClassNames | None:
    """The names by their numbers, if most lines have one; None if they are part of the names."""
    matched = [(n, match) for n, match in lines if match]
    if 2 * len(matched) <= len(lines):
        return None
    if len(matched) > 1 and len({match[name] for _, match in matched}) == 1:  # 1 euro, 2 euro; class 0, class 1
        return None
    if len(matched) < len(lines):
        # 7 up, cola, 3 musketeers: the numbers are no numbering if they do not follow the lines.
        follows = [i for i, (_, match) in enumerate(lines) if match and int(match[number]) in (i, i + 1)]
        if len(follows) < len(matched):
            return None
        missing = next(n for n, match in lines if not match)
        raise DataError(f"{where}: line {missing}: expected a number and a name as on the other lines, got a name "
                        f"alone: {_ADVICE}")  # fmt: skip
    return _by_number([(n, int(match[number]), match[name]) for n, match in matched], where)


def _by_number(rows: Sequence[tuple[int, int, str]], where: str) -> ClassNames:
    """(line or 0, number, name) → names in the order of the numbers. Raises: DataError unless 0 to N-1 or 1 to N."""
    first = min((number for _, number, _ in rows), default=0)
    seen: dict[int, int] = {}
    for line, number, _ in rows:
        if number in seen or first not in (0, 1) or number >= first + len(rows):
            got = f"{number} again" if number in seen else str(number)
            place = f"line {line}: " if line else ""
            raise DataError(f"{where}: {place}expected {len(rows)} classes numbered 0 to {len(rows) - 1}, got {got}: "
                            f"{_ADVICE}")  # fmt: skip
        seen[number] = line
    ordered = sorted(rows, key=lambda row: row[1])
    return ClassNames(_checked([(line, name) for line, _, name in ordered], where).names, first)


def _checked(rows: Sequence[tuple[int, str]], where: str) -> ClassNames:
    """Unique names; (line or 0, name)."""
    if not rows:
        raise DataError(f"{where}: expected unique class names, one per line, got none: correct the file")
    seen: dict[str, int] = {}
    for line, text in rows:
        name = nfc(text.strip())
        if name in seen or not name:
            place = f"line {line}: " if line else ""
            before = f" (line {seen[name]} has it too)" if seen.get(name) else ""
            got = f"{name} twice{before}" if name else "an empty one"
            raise DataError(f"{where}: {place}expected unique class names, got {got}: correct the file")
        seen[name] = line
    return ClassNames(tuple(seen))


def _of_table(text: str, suffix: str, where: str) -> ClassNames:
    """A CSV, with a header or not, with a column of names and perhaps one of numbers."""
    marks = "\t" if suffix == ".tsv" else max(",;\t", key=text.split("\n", 1)[0].count)
    rows = cells_of(text, marks, where)
    cells = [(row.line, [cell.strip() for cell in row.cells]) for row in rows]
    cells = [(line, [*row[:1], *filter(None, row[1:])]) for line, row in cells]
    if not cells:
        return _checked([], where)
    header = list(map(plain, cells[0][1]))
    known = any(cell in _NAME_HEADERS or cell in _NUMBER_HEADERS for cell in header) and not any(map(is_number, header))
    body = cells[1:] if known else cells
    width = len(cells[0][1])
    for line, row in body:
        if len(row) != width:
            raise DataError(f"{where}: line {line}: expected {width} cells as on line {cells[0][0]}, got {len(row)}: "
                            "quote names that contain the separator")  # fmt: skip
    if width == 1:
        return _of_lines([(line, row[0]) for line, row in body], where)
    numbers = [i for i in range(width) if body and all(is_number(row[i]) for _, row in body)]
    names = [i for i in range(width) if i not in numbers]
    if known and len(numbers) > 1:  # class_id besides, for example, the number of images
        numbers = [i for i in numbers if header[i] in _NUMBER_HEADERS]
    if known and len(names) > 1:  # class_name besides, for example, wnid: the header that comes first in the list
        names = sorted(names, key=lambda i: _NAME_HEADERS.index(header[i]) if header[i] in _NAME_HEADERS else 99)[:1]
    if len(names) != 1 or len(numbers) > 1:
        raise DataError(f"{where}: line {cells[0][0]}: expected a column of class names, and perhaps one of their "
                        f"numbers, got {width} columns: remove the others")  # fmt: skip
    if not numbers:
        return _checked([(line, row[names[0]]) for line, row in body], where)
    return _by_number([(line, int(row[numbers[0]]), row[names[0]]) for line, row in body], where)


def _of_json(value: Any, where: str) -> ClassNames:
    if isinstance(value, Mapping):
        holder = next((key for key in _HOLDERS if isinstance(value.get(key), list | Mapping)), None)
        if holder is not None:
            return _of_json(value[holder], where)
        return _by_number([(0, *pair) for pair in _pairs(value.items(), where)], where)
    if isinstance(value, list) and all(isinstance(one, Mapping) for one in value) and value:
        return _by_number([(0, *pair) for pair in _pairs([(one.get("id"), one.get("name")) for one in value], where)],
                          where)  # fmt: skip
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return _checked([(0, str(one)) for one in value], where)
    raise _no_names(where, value)


def _pairs(items: Iterable[tuple[Any, Any]], where: str) -> list[tuple[int, str]]:
    """(number, name), whichever comes first."""
    pairs = list(items)
    for key, value in pairs:
        if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in (key, value)):
            # {"0": ["n01440764", "tench"]}, Keras's imagenet_class_index.json, has the wnid first.
            if isinstance(value, list) and is_number(str(key)) and value and all(isinstance(v, str) for v in value):
                continue
            raise _no_names(where, {key: value})
    texts = [(str(key), str(value[0] if isinstance(value, list) else value)) for key, value in pairs]
    by_key, by_value = (all(is_number(pair[i]) for pair in texts) for i in (0, 1))
    if by_key and by_value and [v for _, v in pairs] != [str(v) for _, v in pairs]:
        by_key = False  # {"10": 0, "7": 1}: names that are numbers
    if not (by_key or by_value):
        raise _no_names(where, dict(texts[:1]))
    return [(int(key), name) if by_key else (int(name), key) for key, name in texts]


def _no_names(where: str, got: object) -> DataError:
    return DataError(f'{where}: expected class names as ["ant", "bee"], {{"ant": 0}} or {{"0": "ant"}}, got '
                     f"{str(got)[:60]}: correct the file")  # fmt: skip
