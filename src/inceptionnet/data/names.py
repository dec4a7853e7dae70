"""Naming rules: image extensions, splits by file prefix, brace patterns of file names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePosixPath

from inceptionnet.data.splits import SPLIT_NAMES
from inceptionnet.errors import DataError, listed

# Which files count as images; the format is detected from the content.
EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
MAX_FILES = 100_000


def is_image(name: str) -> bool:
    """Whether a file name ends like an image."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def split_of_file(name: str) -> str:
    """The split named by a file's prefix (train-00000-of-00002.parquet), or ""."""
    match = re.match(f"({'|'.join(SPLIT_NAMES)})(?![a-z])", name.lower())
    return SPLIT_NAMES[match[1]] if match else ""


def by_split(files: Iterable[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """(files by split, or all under "" if there are no splits; notes on ignored files)."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(split_of_file(file.name), []).append(file)
    ignored = []
    if len(groups) > 1 and "" in groups:
        ignored.append(f"{listed(file.name for file in groups.pop(''))} ignored: not named after a split")
    return groups, ignored


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
