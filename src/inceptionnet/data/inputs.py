"""Images by name, from wherever people have them: files, folders, globs, archives, parquet files, a pipe, the web."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from inceptionnet.data.archives import is_archive, list_tree
from inceptionnet.data.bands import Pixels
from inceptionnet.data.containers import Tree, list_folder
from inceptionnet.data.decode import pixels_of, read_image
from inceptionnet.data.names import is_hidden, is_video
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.text import decoded, is_damaged
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, reason_of
from inceptionnet.system.opening import IMAGE_BYTES

STDIN = "-"


@dataclass(frozen=True)
class NamedImage:
    """An encoded image that is read when it is needed."""

    name: str
    read: Callable[[], bytes] = field(repr=False)
    """Raises: DecodeError."""

    def pixels(self, prep: Preprocessing) -> Pixels:
        """The image as a network sees it. Shapes: → (size_px, size_px, C). Raises: DecodeError, its name first."""
        return pixels_of(self.read(), prep, self.name)

    @classmethod
    def at(cls, path: str | Path) -> NamedImage:
        """The image file at a path."""
        return cls(str(path), partial(read_image, path))


class FoundImages(list[NamedImage]):
    """Images in order, and one-line notes on what was found beside them and ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []


def find_images(
    places: Sequence[str | Path], *, besides: Path | None = None, allow_urls: bool | None = False, videos: bool = False
) -> FoundImages:
    """The images at `places`, in their order; those of a folder or an archive sorted by path.

    A place is an image file, a folder, a .zip or a .tar (images at any depth), a .parquet file, a glob pattern (`**`
    for any depth), `-` (standard input: one encoded image, or paths, one a line), or an http(s) address.

    Args:
        besides: a folder inside one of them whose images are not meant, such as the one that results go into.
        allow_urls: fetch addresses; without it, nothing is fetched. None: whoever calls has no option to allow it.
        videos: the videos in a folder are found too, each as one image, for `video.frames_of`.

    Raises:
        ConfigurationError: an address without `allow_urls`.
        DataError: a folder, archive, pattern or standard input without images.
        MissingExtraError: a .parquet file without pyarrow.
    """
    found = FoundImages()
    for place in places:
        found += _at(str(place), allow_urls, besides, videos, found.notes)
    return found


def _at(
    place: str, allow_urls: bool | None, besides: Path | None, videos: bool, notes: list[str]
) -> Iterator[NamedImage]:
    path = Path(place)
    if place == STDIN:
        yield from _from_stdin(allow_urls, videos, notes)
    elif place.startswith(("https://", "http://")):
        if not allow_urls:
            raise ConfigurationError(
                f"{place}: expected images on this machine, got an address; download them"
                if allow_urls is None
                else f"{place}: is an address, and nothing is fetched unless --allow-urls is given"
            )
        yield NamedImage(place, partial(_fetch, place))
    elif path.is_dir() or is_archive(path):
        yield from _from_tree(place, list_tree(path), besides, videos and path.is_dir(), notes)
    elif path.suffix.lower() == ".parquet" and path.is_file():
        from inceptionnet.data.parquet import read_images

        names, read = read_images(path)
        yield from (NamedImage(name, partial(read, row)) for row, name in enumerate(names))
    elif glob.has_magic(place) and not path.exists():
        matches = [match for match in sorted(_matches(place)) if not _is_hidden(match, place)]
        if not matches:
            raise DataError(f"{place}: expected a pattern that images match, got one that matches nothing")
        for match in matches:
            yield from _at(match, allow_urls, besides, videos, notes)
    else:
        yield NamedImage.at(place)


def _matches(pattern: str) -> set[str]:
    """What a pattern matches. `**` enters each real folder once, however many links lead to it."""
    parts = pattern.split("/")
    if "**" not in parts:
        return set(glob.glob(pattern))
    at = parts.index("**")
    after = [part for i, part in enumerate(parts[at:], start=at) if part != "**" or parts[i - 1 : i] != ["**"]][1:]
    found = set[str]()
    for start in glob.glob("/".join([*parts[:at], ""])) if at else [""]:
        tree = list_folder(Path(start or "."))
        folders = [start, *(f"{start}{folder}/" for folder in tree.folders)]
        if after:
            found.update(*(_matches(glob.escape(folder) + "/".join(after)) for folder in folders))
        else:
            found |= {*filter(None, folders), *(f"{start}{file}" for file in tree.files)}
    return found


def _is_hidden(match: str, pattern: str) -> bool:
    """Whether a file is in a hidden folder, or hidden, that the pattern does not name."""
    named = Path(pattern).parts
    return any(is_hidden(part) and part not in named for part in Path(match).parts)


def _from_tree(place: str, tree: Tree, besides: Path | None, videos: bool, notes: list[str]) -> Iterator[NamedImage]:
    names = tree.images
    if videos and (shown := list(filter(is_video, tree.files))):
        names = sorted([*names, *shown])
        tree = replace(tree, files=[name for name in tree.files if not is_video(name)])
    if not names:
        raise DataError(f"{place}: expected images, got none: {'; '.join(tree.ignored(0)) or 'it is empty'}")
    out, folder = besides and besides.resolve(), Path(place).resolve()
    if out and folder in out.parents:
        names = [name for name in names if out not in (folder / name).resolve().parents]
        if not names:
            raise DataError(f"{place}: expected images, got none but those in {besides}, where the results go")
    notes += [f"{place}: {note}" for note in tree.ignored(len(tree.images))]
    read = tree.reader("")
    for name in names:
        full = str(Path(place) / name)
        yield NamedImage(full, partial(_renamed, read, name, full))


def _renamed(read: Callable[[str], bytes], name: str, full: str) -> bytes:
    """What `read` gives, whose errors begin with the full name."""
    try:
        return read(name)
    except DecodeError as error:
        raise DecodeError(f"{full}: {reason_of(error, name)}") from None


def _from_stdin(allow_urls: bool | None, videos: bool, notes: list[str]) -> Iterator[NamedImage]:
    data = sys.stdin.buffer.read(IMAGE_BYTES + 1)
    if len(data) > IMAGE_BYTES:
        raise DataError(f"standard input: expected an image or paths of at most {IMAGE_BYTES} bytes, got more")
    try:
        text = decoded(data, "standard input", "paths")
    except DataError:
        text = ""
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and is_damaged(text) and not os.path.exists(lines[0]):  # an image, or paths in another encoding
        lines = []
    if data and (not lines or data[:2] in (b"P1", b"P2", b"P3")):  # the last: an image written as text
        yield NamedImage(STDIN, partial(bytes, data))
        return
    if not data:
        raise DataError("standard input: expected an image, or paths of images one a line, got nothing")
    for line in lines:
        if line.strip() == STDIN:
            raise DataError("standard input: expected paths of images one a line, got '-'")
        yield from _at(line, allow_urls, None, videos, notes)


def _fetch(url: str) -> bytes:
    from inceptionnet.data.web import fetch  # here, since its imports take as long as NumPy's

    try:
        data = fetch(url, most=IMAGE_BYTES, advice="try again")
    except DataError as error:
        raise DecodeError(str(error)) from None
    if data is None:
        raise DecodeError(f"{url}: the server has no such file")
    return data
