"""Flat folders of images with their labels in a file, such as ImageNet's validation set; lists of images to exclude.

Source: ILSVRC2012_img_val.tar is one folder of images, from ILSVRC2012_val_00000001.JPEG on. Four label files for it
are in circulation: TF-slim's (one synset per line), the development kit's (ILSVRC2012 IDs, which meta.mat maps to
synsets; they do not follow the sorted synsets), Caffe's (file name and index among the sorted synsets) and Kaggle's
(file name, synset, boxes). The kind is detected from the content. Any other folder needs a list of names and classes.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.names import EXTENSIONS
from inceptionnet.errors import DataError, listed

SYNSETS_FILE = "imagenet_2012_validation_synset_labels.txt"  # TF-slim
SOLUTION_FILE = "LOC_val_solution.csv"  # Kaggle
# In order of preference: the last one needs meta.mat beside it.
LABEL_FILES = (SYNSETS_FILE, SOLUTION_FILE, "val.txt", "ILSVRC2012_validation_ground_truth.txt")
DEVKIT = "ILSVRC2012_devkit_t12/data"
# Of 2012; of 2014 and 2015, with the same numbers.
META_FILES = ("meta.mat", "meta_clsloc.mat")
HEADERS = frozenset(("file", "filename", "file_name", "id", "image", "image_id", "imageid", "name", "path", "image"))

_WNID = re.compile(r"n\d{8}")
_BOXES = re.compile(r"(n\d{8})(?: +[\d.]+){4}(?: +n\d{8}(?: +[\d.]+){4})*")
_VALIDATION = re.compile(r"ILSVRC\d{4}_val_\d{8}")
_NUMBERED = re.compile(r".*_(\d+)")


def find_labels(images: Path) -> Path | None:
    """A label file with a well-known name in the folder `images` or next to it, or None.

    Also searched: the development kit next to the folder and, for ILSVRC/Data/CLS-LOC/val, the top of Kaggle's archive.
    """
    folder = Path(os.path.abspath(images))
    places = (folder, folder.parent, folder.parent / DEVKIT)
    files = [place / name for place in places for name in LABEL_FILES]
    return next(filter(Path.is_file, [*files, *(above / SOLUTION_FILE for above in folder.parents[3:4])]), None)


def read_labels(file: Path, names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Read a label file: (sorted class names, the label of each image).

    Classes are wnids if the file has wnids or ImageNet's numbers; only those that occur are listed.
    Shapes: names of N image files in sorted order → (N,).
    Raises: DataError for an unknown kind of file, or one that does not match the names one to one.
    """
    lines = _lines(file)
    if all(map(_WNID.fullmatch, lines)):
        labels = _known(file, _one_each(file, lines, names))
    elif all(map(str.isdecimal, lines)):
        labels = _numbered(file, _one_each(file, lines, names), _devkit_wnids(file), first=1)
    else:
        labels = _by_name(file, lines, names)
    classes = sorted(set(labels))
    codes = {name: code for code, name in enumerate(classes)}
    return classes, np.array([codes[label] for label in labels], np.int64)


def excluded(
    names: Sequence[str], lines: Iterable[str], where: str = "the list of images to exclude"
) -> tuple[npt.NDArray[np.bool_], int]:
    """Match a list of images to exclude: (whether each image is on the list, number of lines that match no image).

    A line matches an image's full name, its file name, its file name without extension, or the number at its end (42
    for ILSVRC2012_val_00000042.JPEG), in this order, as in the lists of the development kits.
    Shapes: N names → (N,).
    Raises: DataError if no line matches, or a number matches several images.
    """
    wanted = [line for line in map(str.strip, lines) if line]
    texts, numbers = set(wanted), {int(line) for line in wanted if line.isdecimal()}
    found: dict[str | int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # line → kind → positions
    for position, name in enumerate(names):
        path = PurePosixPath(name)
        for kind, text in enumerate((name, path.name, path.stem)):
            if text in texts:
                found[text][kind].append(position)
        if (match := _NUMBERED.fullmatch(path.stem)) and int(match[1]) in numbers:
            found[int(match[1])][0].append(position)
    out, unmatched = np.zeros(len(names), np.bool_), 0
    for line in wanted:
        number = int(line) if line.isdecimal() else None
        if line in found:
            kinds = found[line]
            out[kinds[min(kinds)]] = True
        elif number in found:
            out[_only(found[number][0], names, line, where)] = True
        else:
            unmatched += 1
    if wanted and unmatched == len(wanted):
        such = f" such as {names[0]}" if names else ""
        raise DataError(f"{where}: expected names or numbers of images{such}, got none in {unmatched} lines, "
                        f"such as {wanted[0]}: correct the list")  # fmt: skip
    return out, unmatched


def _only(positions: Sequence[int], names: Sequence[str], line: str, where: str) -> int:
    if len(positions) > 1:
        raise DataError(
            f"{where}: expected one image with the number {line}, got {listed(names[i] for i in positions)}: "
            "give names instead"
        )
    return positions[0]


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected a text file with labels, got {_reason(error)}: give another") from None
    if lines := [line for line in map(str.strip, text.splitlines()) if line]:
        return lines
    raise DataError(f"{file}: expected a text file with labels, got an empty one: give another")


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


def _one_each(file: Path, lines: list[str], names: Sequence[str]) -> list[str]:
    if len(lines) == len(names):
        return lines
    raise DataError(
        f"{file}: expected one line for each of the {len(names)} images, in the order of their names, got "
        f"{len(lines)} lines: add the missing images, or use a list with file names (NAME LABEL)"
    )


def _known(file: Path, wnids: list[str]) -> list[str]:
    if unknown := set(wnids).difference(imagenet_wnids()):
        raise DataError(f"{file}: expected wnids of ImageNet's 1000 classes, got {listed(unknown)}: correct them")
    return wnids


def _numbered(file: Path, numbers: Sequence[str], wnids: Sequence[str], *, first: int) -> list[str]:
    """The wnid of each number, counting from `first`."""
    last = first + len(wnids) - 1
    if outside := {number for number in numbers if not first <= int(number) <= last}:
        raise DataError(f"{file}: expected numbers of classes from {first} to {last}, got {listed(outside)}: give "
                        "another label file")  # fmt: skip
    return [wnids[int(number) - first] for number in numbers]


def _devkit_wnids(file: Path) -> list[str]:
    """The wnids in the order of the development kit's IDs 1 to 1000, from the meta.mat next to the labels."""
    meta = next(filter(Path.is_file, map(file.with_name, META_FILES)), None)
    if meta is None:
        raise DataError(
            f"{file}: expected the development kit's meta.mat next to it, which maps these numbers to synsets, got "
            f"none: copy it there, or give a file of synsets such as {SYNSETS_FILE}"
        )
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"])
        (number,) = (field for field in synsets.dtype.names or () if re.fullmatch(r"ILSVRC\w*_ID", field))
        by_number = {int(n): str(wnid) for n, wnid in zip(synsets[number], synsets["WNID"], strict=True)}
    except Exception as error:  # scipy, zlib and Python raise many types for damaged files
        raise DataError(
            f"{meta}: expected the development kit's synsets, got {_reason(error)}: download it again"
        ) from None
    wnids = [
        by_number.get(n, "") for n in range(1, len(imagenet_wnids()) + 1)
    ]  # numbers above 1000 are inner nodes of WordNet
    if wrong := set(imagenet_wnids()).difference(wnids):
        raise DataError(
            f"{meta}: expected ImageNet's {len(wnids)} classes under the numbers 1 to {len(wnids)}, got none for "
            f"{listed(wrong)}: download it again"
        )
    return wnids


def _by_name(file: Path, lines: list[str], names: Sequence[str]) -> list[str]:
    """The label of each image, in the images' order, from lines with a file name each."""
    index = _index(names)
    rows = _rows(file, lines, index)
    places = [_place(index, name) for name, _ in rows]
    if strangers := {name for (name, _), place in zip(rows, places, strict=True) if place is None}:
        raise DataError(f"{file}: expected names of images in the folder, got also {listed(strangers)}: remove them")
    of = dict(zip(places, (label for _, label in rows), strict=True))
    if missing := [name for place, name in enumerate(names) if place not in of]:
        raise DataError(f"{file}: expected a label for every image, got none for {listed(missing)}: add them")
    if len(of) < len(rows):
        twice = [names[place] for place, times in Counter(places).items() if place is not None and times > 1]
        raise DataError(
            f"{file}: expected every image once, got {listed(twice)} more than once: remove the extra lines"
        )
    labels = [of[place] for place in range(len(names))]
    boxes = [match[1] for match in map(_BOXES.fullmatch, labels) if match]
    if len(boxes) == len(labels):
        return _known(file, boxes)
    if all(map(str.isdecimal, labels)) and all(_VALIDATION.fullmatch(PurePosixPath(name).stem) for name in names):
        return _numbered(file, labels, imagenet_wnids(), first=0)
    return labels


def _index(names: Sequence[str]) -> dict[str, int]:
    """The position of each image by file name, and by file name without extension if that is unique."""
    stems = [PurePosixPath(name).stem for name in names]
    times = Counter(stems)
    places = {stem: place for place, stem in enumerate(stems) if times[stem] == 1}
    return places | {name: place for place, name in enumerate(names)}


def _place(index: Mapping[str, int], name: str) -> int | None:
    """The position of the image `name`, ignoring its folder and, if needed, its image extension."""
    path = PurePosixPath(name)
    return index.get(path.name, index.get(path.stem) if path.suffix.lower() in EXTENSIONS else None)


def _rows(file: Path, lines: list[str], index: Mapping[str, int]) -> list[tuple[str, str]]:
    """(name, label) of each line, split at the separator (white space, comma or tab) that finds the most names."""
    ways = [[_cut(line, mark) for line in lines] for mark in (None, ",", "\t")]
    rows = max(ways, key=lambda rows: sum(_place(index, name) is not None for name, _ in rows))
    if rows[0][0].lower() in HEADERS and _place(index, rows[0][0]) is None:
        lines, rows = lines[1:], rows[1:]
    if bare := [line for line, (_, label) in zip(lines, rows, strict=True) if not label]:
        raise DataError(
            f"{file}: expected a wnid, a number, or NAME LABEL on every line, got {bare[0][:60]!r}: correct it"
        )
    return rows


def _cut(line: str, mark: str | None) -> tuple[str, str]:
    name, *label = line.split(mark, maxsplit=1)
    return name.strip().strip('"'), "".join(label).strip().strip('"')
