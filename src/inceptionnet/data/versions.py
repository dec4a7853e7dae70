"""Augmented versions of one image, known by their names: they are a group, which no split may divide.

Roboflow's exports have NAME_jpg.rf.HASH.jpg for every version. Others, such as the augmented PlantVillage, have
NAME_flipLR.JPG, NAME_90deg.JPG or NAME_aug_3.jpg beside NAME.JPG; without it, nothing is assumed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from inceptionnet.data.names import split_named

VERSIONS = "augmented versions by name"
"""What such groups are from, as a column or an expression is."""
_ROBOFLOW = re.compile(r"(.+)\.rf\.[0-9a-z]{20,}\.[a-z]+", re.IGNORECASE)
_CHANGES = (
    "aug", "blur", "bright", "contrast", "crop", "dark", "deg", "flip", "gamma", "mirror", "nois", "rot", "shear",
    "shift", "transpos", "zoom",
)  # fmt: skip
_SEPARATORS = " _.-"
_WORDS = 8
"""Words at the end of a name that are looked at."""


def versions(names: Sequence[str]) -> list[str]:
    """The group of each image that has versions beside it, or "".

    The images of one group are in one class folder, or in that of the same class in another split.
    """
    whole = "\n".join(names).lower()
    if not any(part in whole for part in (*_CHANGES, ".rf.")):
        return [""] * len(names)
    files, stems = list[tuple[str, str]](), defaultdict[str, set[str]](set)
    for name in names:
        above, _, file = name.rpartition("/")
        folder = above.rpartition("/")[2]
        files.append(("" if split_named(folder) else folder, file))
        stems[files[-1][0]].add(_stem(file))
    groups = [f"{folder}/{_original(file, stems[folder])}" for folder, file in files]
    times = Counter(groups)
    return [group if times[group] > 1 else "" for group in groups]


def _original(file: str, stems: set[str]) -> str:
    """The stem of the image that a file is a version of, among those in its folder; else its own."""
    if exported := _ROBOFLOW.fullmatch(file):
        return exported[1]
    found = left = _stem(file)
    changed = False
    for _ in range(_WORDS):
        end = max(map(left.rfind, _SEPARATORS))
        word, left = left[end + 1 :].lower(), left[: max(end, 0)].rstrip(_SEPARATORS)
        changes = any(change in word for change in _CHANGES)
        if not left or not (changes or word.isdecimal()):
            break
        changed = changed or changes
        if changed and left in stems:
            found = left
    return found


def _stem(file: str) -> str:
    return file.rpartition(".")[0] or file
