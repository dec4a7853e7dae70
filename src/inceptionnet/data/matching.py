"""Entries of lists that people bring, matched to images: by path, file name, or file name without extension.

An entry may be relative to the data, to its own list or to anything above, absolute, or Windows's. Its folders must
agree with those of the image as far as both have some; if all images lie in one folder, any folder will do.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from inceptionnet.data.names import EXTENSIONS
from inceptionnet.data.text import NOT_UTF8, Line, is_damaged, json_of, lines_of, nfc, read_text
from inceptionnet.errors import DataError, listed

_NUMBERED = re.compile(r".*_(\d{1,18})")


class Images:
    """Images by name, to find those that an entry of a list means."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._paths = [tuple(nfc(name).split("/")) for name in names]
        self._below = _common(self._paths)
        self._full = {path: i for i, path in reversed(list(enumerate(self._paths)))}
        self._by_file: dict[str, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for i, path in enumerate(self._paths):
            self._by_file[path[-1]].append(i)
            self._by_stem[_stem(path[-1])].append(i)

    def find(self, entry: str) -> list[int]:
        """The positions of the images that an entry means: several if it is ambiguous, none if there is no such."""
        texts = {entry: None, entry.strip(): None}
        if "\\" in entry:
            texts[entry.strip().replace("\\", "/")] = None
        for text in texts:
            parts = _parts(text)
            if not parts:
                continue
            if parts in self._full:
                return [self._full[parts]]
            for table, key in ((self._by_file, parts[-1]), (self._by_stem, _stem(parts[-1]))):
                if found := [i for i in table.get(key, ()) if self._agree(self._paths[i], parts)]:
                    return found
        return []

    def _agree(self, path: tuple[str, ...], parts: tuple[str, ...]) -> bool:
        folders = reversed(path[self._below : -1])
        return all(own == given for own, given in zip(folders, reversed(parts[:-1]), strict=False))


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """The number of folders that all images have in common."""
    if not paths:
        return 0
    low, high = min(paths), max(paths)
    most = min(len(low), len(high)) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def _parts(entry: str) -> tuple[str, ...]:
    if "/" not in entry and entry not in ("", ".", ".."):
        return (nfc(entry),)
    parts: list[str] = []
    for part in nfc(entry).split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def _stem(file: str) -> str:
    stem, _, extension = file.rpartition(".")
    return stem if stem and f".{extension.lower()}" in EXTENSIONS else file


def _firsts(line: str) -> Iterator[str]:
    """A line, and its first cell by any separator."""
    yield line
    for mark in "\t,;":
        with suppress(csv.Error, StopIteration, IndexError):  # the last: a blank line
            yield next(csv.reader([line], delimiter=mark))[0]


def read_exclude_list(file: Path, names: Sequence[str], option: str = "--exclude") -> tuple[npt.NDArray[np.bool_], int]:
    """Match a text file of images to exclude, one a line: (whether each image is on it, lines that match no image).

    A line is the name of an image (see above), or the number at its end (42 for ILSVRC2012_val_00000042.JPEG), as in
    the lists of the development kits. A file name that several images have means all of them. Of a table only the
    first column counts, as in decode_errors.txt. The file may be a JSON list.
    Shapes: N names → (N,).
    Raises: DataError if no line matches, or a number matches several images.
    """
    where, images = f"{option} {file}", Images(names)
    numbers: dict[int, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        if match := _NUMBERED.fullmatch(PurePosixPath(name).stem):
            numbers[int(match[1])].append(i)
    out, unmatched = np.zeros(len(names), np.bool_), []
    try:
        text = read_text(file, "a text file with names of images")
    except DataError as error:
        raise DataError(f"{option} {error}") from None
    entries = json_of(text, where, is_json=file.suffix.lower() == ".json")
    if isinstance(entries, Mapping):
        raise DataError(f"{where}: expected a list of images, got a JSON object: give the names one a line")
    for line in lines_of(text) if entries is None else [Line(i, str(one)) for i, one in enumerate(entries, start=1)]:
        found = next(filter(None, map(images.find, _firsts(line.text))), [])
        number = int(line.text) if line.text.isdecimal() and len(line.text) < 19 else -1
        if not found and (found := numbers.get(number, [])) and len(found) > 1:
            raise DataError(
                f"{where}: line {line.number}: expected one image with the number {line.text}, got "
                f"{listed(names[i] for i in found)}: give names instead"
            )
        if not found and is_damaged(line.text):
            raise DataError(f"{where}: line {line.number}: {NOT_UTF8}")
        if found:
            out[found] = True
        else:
            unmatched.append(line)
    if unmatched and not out.any():
        such = f" such as {names[0]}" if names else ""
        raise DataError(f"{where}: expected names or numbers of images{such}, got none in {len(unmatched)} lines, "
                        f"such as {unmatched[0].text} on line {unmatched[0].number}: correct the list")  # fmt: skip
    return out, len(unmatched)
