"""Text files that people bring: any Unicode encoding, lines and cells with their line numbers, JSON.

UTF-8, UTF-16 and UTF-32 are recognised by the byte-order mark, UTF-16 also by its zero bytes. Other encodings cannot be
told apart and are refused. Lines end with LF, CR LF or CR only: a file name may contain other separators of Unicode.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inceptionnet.errors import DataError
from inceptionnet.system.opening import TEXT_BYTES, contents

_MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_JSON = re.compile(r"""\s*(\[\s*["'\d{\[\]]|\{\s*["'\d}])""")
NOT_UTF8 = "is not in UTF-8: save the file as UTF-8 (in Excel: CSV UTF-8)"


@dataclass(frozen=True)
class Line:
    """A line of a file that is not blank, stripped."""

    number: int
    text: str


@dataclass(frozen=True)
class Row:
    """The cells of a line of a table."""

    line: int
    cells: tuple[str, ...]


def nfc(name: str) -> str:
    """A name in Unicode's composed form: macOS writes é as two characters, others as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def plain(header: str) -> str:
    """The header of a column as it is compared."""
    return re.sub(r"[\s-]+", "_", header.strip().lower())


def is_damaged(text: str) -> bool:
    """Whether a text contains bytes that are not UTF-8."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def read_text(file: Path, expected: str) -> str:
    """The content of a text file; bytes that are not UTF-8 are kept as in names of files. Raises: DataError."""
    try:
        data = contents(file, TEXT_BYTES)
    except OSError as error:
        raise DataError(f"{file}: expected {expected}, got {error.strerror}: give another") from None
    return decoded(data, str(file), expected)


def decoded(data: bytes, where: str, expected: str) -> str:
    """The text in the bytes of a file. Raises: DataError for binary data."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "")
    if not encoding:
        if data.startswith(b"\0\0") or (0 not in data[:2] and 0 in data):  # decided before it is decoded
            raise _binary(where, expected)
        if 0 in data[:2]:
            encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding or "utf-8", "surrogateescape" if encoding in ("", "utf-8-sig") else "strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise _binary(where, expected)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _binary(where: str, expected: str) -> DataError:
    return DataError(f"{where}: expected {expected}, got binary data: give a text file in UTF-8")


def lines_of(text: str) -> list[Line]:
    """The lines that are neither blank nor comments (`#` alone, or followed by a space)."""
    numbered = ((i, line.strip()) for i, line in enumerate(text.split("\n"), start=1))
    return [Line(i, line) for i, line in numbered if line and line != "#" and not line.startswith("# ")]


FIRST_SPACE, LAST_SPACE = "first space", "last space"


def cells_of(text: str, mark: str, where: str) -> list[Row]:
    """The rows of a table whose cells are separated by `mark`, or two cells by the first or last space of a line.

    Cells keep their spaces, which names of files may have. Raises: DataError for unbalanced quotes.
    """
    if mark in (FIRST_SPACE, LAST_SPACE):
        split = str.split if mark == FIRST_SPACE else str.rsplit
        return [Row(line.number, tuple(split(line.text, maxsplit=1))) for line in lines_of(text)]
    rows = []
    spaced = f'{mark} "' in text  # quotes after a space are not part of the cell
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True, skipinitialspace=spaced)
    start = 1
    try:
        for cells in reader:
            if cells and any(map(str.strip, cells)) and not (cells[0] == "#" or cells[0].startswith("# ")):
                rows.append(Row(start, tuple(cells)))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}: line {start}: expected cells separated by {mark!r}, got unbalanced quotes or too "
                        f"long a cell ({error}): correct the line") from None  # fmt: skip
    return rows


def json_of(text: str, where: str, *, is_json: bool) -> Any:
    """The list or object in a text in JSON, or printed by Python ({'ant': 0}); None for other text.

    Args:
        is_json: the file is called .json, so that nothing else is expected.

    Raises:
        DataError: it is JSON with a mistake, or one value alone.
    """
    if not is_json and not _JSON.match(text):
        return None
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
        if not isinstance(value, list | dict):
            raise DataError(
                f"{where}: expected a list or an object in JSON, got {text.strip()[:60]!r}: correct the file"
            )
        return value
    except json.JSONDecodeError as error:
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = None
        if isinstance(value, list | dict):
            return value
        raise DataError(f"{where}: line {error.lineno}: expected JSON, got a mistake in it ({error.msg}): correct the "
                        "line") from None  # fmt: skip
    except (RecursionError, ValueError) as error:
        what = "lists in lists too deep" if isinstance(error, RecursionError) else "a number of too many digits"
        raise DataError(f"{where}: expected JSON, got {what} to read: correct the file") from None


def json_lines(text: str, where: str) -> Iterator[tuple[int, Any]]:
    """The values of a file with one JSON value on each line. Raises: DataError."""
    for line in lines_of(text):
        try:
            yield line.number, json.loads(line.text)
        except (ValueError, RecursionError):
            raise DataError(
                f"{where}: line {line.number}: expected one JSON object, got {line.text[:60]!r}: correct the line"
            ) from None


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise DataError(f"{where}: expected every key once, got {key!r} twice: correct the file")
        values[key] = value
    return values
