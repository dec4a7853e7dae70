"""Naming rules: image extensions, hidden files, splits, members of archives, brace patterns of file names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path

from inceptionnet.errors import DataError, listed

# Which files count as images; the format is detected from the content.
EXTENSIONS = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp",
        ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs",
        ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
    )
)  # fmt: skip
VIDEO_EXTENSIONS = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv",
        ".flv", ".ogv",
    )
)  # fmt: skip
MAX_FILES = 100_000
MAX_NAME = 4096
"""Characters in the name of an archive's member, as in a path on Linux."""
MAX_DEPTH = 64
"""Folders that a member is in; each of them is listed by its whole path."""

# What systems and file managers keep in folders, besides names that start with a dot.
_SYSTEM = frozenset(
    ("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "$recycle.bin", "lost+found")
) | {"system volume information"}  # fmt: skip
_SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "eval": "val", "test": "test", "testing": "test", "tests": "test", "holdout": "test",
}  # fmt: skip
_IMAGES = ("image", "images", "img", "imgs", "jpegimages", "photos", "pictures", "objectcategories")
_ANNOTATIONS = (
    "annotation", "annotations", "groundtruth", "gt", "label", "labels", "mask", "masks", "segmentation",
    "segmentations", "segmentationclass", "segmentationmasks",
)  # fmt: skip

_MASK = re.compile(r"(.+?)[ _.-](?:mask|masks|seg|segmentation|gt|groundtruth)(?:[ _.-]?\d+)?", re.IGNORECASE)
_PART = re.compile(
    r"(.*(?:part|batch|shard|chunk|fold|subset|images?|imgs?|photos|pictures|patient|study|scan)s?[ _.-]*)\d+",
    re.IGNORECASE,
)


def is_images_word(folder: str) -> bool:
    """Whether a folder is named images, 101_ObjectCategories or the like, which says nothing of what they show."""
    return re.sub("[^a-z]", "", folder.lower()) in _IMAGES


def are_parts(folders: Collection[str]) -> bool:
    """Whether folders are named as parts of a collection: images_001, images_002; data_part_1; patient00001."""
    starts = {match and match[1].lower() for match in map(_PART.fullmatch, folders)}
    return len(folders) > 1 and len(starts) == 1 and None not in starts


def images_and_annotations(folders: Iterable[str]) -> tuple[str, str] | None:
    """The folders of images and of their masks or boxes, which are no classes, if there are both."""
    plain = {re.sub("[^a-z]", "", folder.lower()): folder for folder in folders}
    images, annotations = ([plain[word] for word in words if word in plain] for words in (_IMAGES, _ANNOTATIONS))
    return (images[0], annotations[0]) if images and annotations else None


def is_annotations_word(folder: str) -> bool:
    """Whether a folder is named masks, ground_truth or the like."""
    return re.sub("[^a-z]", "", folder.lower()) in _ANNOTATIONS


def masks_among(images: Iterable[str]) -> list[str]:
    """The images that are called as masks of others: lesion (1)_mask.png beside lesion (1).png."""
    stems = {posixpath.splitext(name)[0]: name for name in images}
    matches = {name: _MASK.fullmatch(stem) for stem, name in stems.items()}
    return [name for name, match in matches.items() if match and match[1] in stems]


def with_those_above(folder: str, known: set[str]) -> None:
    """Add a folder and those that it is in to the known ones; of a folder that is known, those above are known too."""
    while folder and folder not in known:
        known.add(folder)
        folder = folder.rpartition("/")[0]


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return posixpath.splitext(name)[1].lower() in EXTENSIONS


def is_video(name: str) -> bool:
    """Whether a file name ends like a video."""
    return posixpath.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def is_camera(name: str) -> bool:
    """Whether a path is where Linux has a camera, such as /dev/video0 or /dev/v4l/by-id/…"""
    return re.match(r"/dev/(video\d+$|v4l/by-\w+/.)", name) is not None


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder starts with a dot or is one that systems keep for themselves."""
    return name.startswith(".") or name.lower() in _SYSTEM


def member_path(name: str) -> str:
    """The relative posix path of an archive's member, whichever separators its writer used."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def split_named(name: str) -> str:
    """The split that a folder or file is named after, or "" for none or several.

    One of the words in any case, alone or with a prefix or suffix: Training, test_set, seg_train, train2017, valSet.
    """
    found = {split for _, split in _words(name)} - {""}
    return found.pop() if len(found) == 1 else ""


def is_split_word(name: str) -> bool:
    """Whether a name says a split and of what, and nothing else: train, Test, train2017, test_images; not test_tube."""
    rest = {word for word, split in _words(name) if not split}
    return split_named(name) != "" and rest <= {*_IMAGES, "data", "dataset", "files", "jpeg", "jpg", "png", "set"}


def _words(name: str) -> list[tuple[str, str]]:
    """The words of a name in lower case, each with the split that it stands for, or ""."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = re.findall("[a-z]+", re.sub(r"(?<![a-z])hold[ _-]out", "holdout", spaced))
    return [(word, _SPLIT_WORDS.get(word.removesuffix("set"), "")) for word in words]


def by_split(files: Iterable[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """(files by split, or all under "" if there are no splits; notes on ignored files and on unusual names)."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(split_named(file.name), []).append(file)
    notes = []
    if len(groups) > 1 and "" in groups:
        notes.append(f"{listed(file.name for file in groups.pop(''))} ignored: not named after a split")
    for split, found in groups.items():
        if odd := [file.name for file in found if not file.name.lower().startswith(split)]:
            notes.append(f"split files: {split} = {listed(odd, 3)}")
    return groups, notes


def expand(pattern: str) -> list[str]:
    """Expand a brace pattern like a shell: {000..009} is a range, {a,b} a list; both can be nested.

    Raises: DataError for no names, or more than MAX_FILES.
    """
    start, depth, commas = pattern.find("{"), 0, []
    for end in range(start, len(pattern)) if start >= 0 else ():
        depth += {"{": 1, "}": -1}.get(pattern[end], 0)
        if depth == 1 and pattern[end] == ",":
            commas.append(end)
        if depth == 0:
            break
    else:
        return [pattern]
    before, body, after = pattern[:start], pattern[start + 1 : end], expand(pattern[end + 1 :])
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", body)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        # A shell also counts down; for shards that is a mistake, and gives no names here.
        middle: Iterable[str] = (f"{i:0{width}}" for i in range(first, min(last, first + MAX_FILES) + 1))
    elif commas:
        edges = [start, *commas, end]
        middle = [one for a, b in pairwise(edges) for one in expand(pattern[a + 1 : b])]
    else:
        middle = [f"{{{body}}}"]
    found = [f"{before}{one}{rest}" for one in middle for rest in after]
    if not 0 < len(found) <= MAX_FILES:
        raise DataError(f"{pattern}: expected 1 to {MAX_FILES} names, got {len(found) or 'none'}: correct the braces")
    return found
