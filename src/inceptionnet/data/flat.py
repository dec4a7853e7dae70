"""Images with their labels in a file: a table of images and labels, or ImageNet's published lists.

Source: ILSVRC2012_img_val.tar is one folder of images, from ILSVRC2012_val_00000001.JPEG on. Four label files for it
are in circulation: TF-slim's (one synset per line), the development kit's (ILSVRC2012 IDs, which meta.mat maps to
synsets; they do not follow the sorted synsets), Caffe's (file name and index among the sorted synsets) and Kaggle's
(file name, synset, boxes). The kind is detected from the content. Any other data needs a table (tables.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.matching import Images
from inceptionnet.data.names import split_named
from inceptionnet.data.table_labels import Labelled, labels_in
from inceptionnet.data.tables import EXPECTED, LABEL_HEADERS, METADATA_NAME, read_metadata, read_table
from inceptionnet.data.text import Line, lines_of, plain, read_text
from inceptionnet.errors import DataError, listed, message_of

SYNSETS_FILE = "imagenet_2012_validation_synset_labels.txt"  # TF-slim
SOLUTION_FILE = "LOC_val_solution.csv"  # Kaggle
# In order of preference: the last one needs meta.mat beside it; the one before it is Tiny ImageNet's.
LABEL_FILES = (
    SYNSETS_FILE, SOLUTION_FILE, "val.txt", "val_annotations.txt", "ILSVRC2012_validation_ground_truth.txt",
)  # fmt: skip
DEVKIT = "ILSVRC2012_devkit_t12/data"
# Of 2012; of 2014 and 2015, with the same numbers.
META_FILES = ("meta.mat", "meta_clsloc.mat")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "_classes.csv")  # Hugging Face's, Roboflow's

_WNID = re.compile(r"n\d{8}")
_BOXES = re.compile(r"(n\d{8})(?: +[\d.]+){4}(?: +n\d{8}(?: +[\d.]+){4})*")
_VALIDATION = re.compile(r"ILSVRC\d{4}_val_\d{8}")


def find_labels(images: Path, *, evaluating: bool) -> Path | None:
    """A label file with a well-known name in the folder `images` or, for evaluation, next to it; or None.

    Also searched: the development kit next to the folder and, for ILSVRC/Data/CLS-LOC/val, the top of Kaggle's archive.
    """
    own = next(filter(Path.is_file, (images / name for name in METADATA_FILES)), None)
    if own or not evaluating:
        return own
    folder = Path(os.path.abspath(images))
    files = [folder / name for name in LABEL_FILES]
    if split_named(folder.name) in ("", "val"):  # they are lists of validation images
        files += [place / name for place in (folder.parent, folder.parent / DEVKIT) for name in LABEL_FILES]
        files += [above / SOLUTION_FILE for above in folder.parents[3:4]]
    return next(filter(Path.is_file, files), None)


def read_labels(file: Path, names: Sequence[str], group_by: str | None = None) -> Labelled:
    """Read a label file of any kind for images of these names, sorted; `group_by` as for `labels_in`.

    Of ImageNet's files, classes are wnids; only those that occur are listed.
    Raises: DataError for an unknown kind of file, or one that does not match the images.
    """
    lines = [] if file.suffix.lower() == ".parquet" else lines_of(read_text(file, EXPECTED))
    texts = [line.text for line in lines]
    if lines and all(map(_WNID.fullmatch, texts)):
        return _in_order(_known(file, _one_each(file, lines, names)))
    if lines and all(map(str.isdecimal, texts)):
        return _in_order(_numbered(file, _one_each(file, lines, names), _devkit_wnids(file), first=1))
    images = Images(names)
    table = read_table(file, images)
    if file.stem == "metadata" and len(table.header) == 2 and not any(plain(h) in LABEL_HEADERS for h in table.header):
        raise DataError(f"{file}: expected a column label, got {listed(table.header, ordered=True)}: add it")
    found = labels_in(table, images, group_by)
    return found if found.labels.ndim > 1 else _of_imagenet(file, found, names)


def metadata_of(folders: Iterable[str], root: Path) -> dict[str, Path]:
    """Hugging Face's table of labels in each of several folders of images; empty unless all of them have one."""
    files: dict[str, Path] = {}
    for folder in sorted(folders):
        file = next(filter(Path.is_file, (root / folder / name for name in METADATA_FILES)), None)
        if file is None:
            return {}
        files[folder] = file
    return files if len(files) > 1 else {}


def metadata_above(root: Path, names: Sequence[str]) -> Path | None:
    """Hugging Face's table at the top, whose column file_name has paths of the images below, and one of labels."""
    for file in (root / name for name in METADATA_FILES):
        with suppress(DataError):
            header = set(map(plain, read_table(file, Images(names)).header)) if file.is_file() else set[str]()
            if METADATA_NAME in header and header & LABEL_HEADERS:
                return file
    return None


def read_metadata_labels(files: Mapping[str, Path], names: Sequence[str], group_by: str | None = None) -> Labelled:
    """The labels of images in several folders, each with a table of its own. Raises: as `read_labels`."""
    images = Images(names)
    return labels_in(read_metadata(files, images), images, group_by)


def _of_imagenet(file: Path, found: Labelled, names: Sequence[str]) -> Labelled:
    """The same with wnids, if the labels are Kaggle's, with boxes, or Caffe's numbers of ImageNet's validation set."""
    boxes = [match[1] for match in map(_BOXES.fullmatch, found.classes) if match]
    if len(boxes) == len(found.classes):
        return _renamed(found, _known(file, boxes))
    held = (PurePosixPath(names[i]).stem for i in found.positions)
    if all(map(str.isdecimal, found.classes)) and all(map(_VALIDATION.fullmatch, held)):
        return _renamed(found, _numbered(file, found.classes, imagenet_wnids(), first=0))
    return found


def _renamed(found: Labelled, wnids: Sequence[str]) -> Labelled:
    classes, codes = np.unique(np.array(wnids), return_inverse=True)
    return replace(found, classes=tuple(classes.tolist()), labels=codes[found.labels].astype(np.int64))


def _in_order(wnids: Sequence[str]) -> Labelled:
    """The labels of all images, in the order of their names."""
    classes, labels = np.unique(np.array(wnids), return_inverse=True)
    positions = np.arange(len(wnids), dtype=np.int64)
    return Labelled(tuple(classes.tolist()), positions, labels.astype(np.int64))


def _reason(error: Exception) -> str:
    return " ".join((message_of(error) or type(error).__name__).split())


def _one_each(file: Path, lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    if len(lines) == len(names):
        return [line.text for line in lines]
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
    if outside := {number for number in numbers if len(number) > 9 or not first <= int(number) <= last}:
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
    wnids = [by_number.get(n, "") for n in range(1, len(imagenet_wnids()) + 1)]  # above are inner nodes of WordNet
    if wrong := set(imagenet_wnids()).difference(wnids):
        raise DataError(
            f"{meta}: expected ImageNet's {len(wnids)} classes under the numbers 1 to {len(wnids)}, got none for "
            f"{listed(wrong)}: download it again"
        )
    return wnids
