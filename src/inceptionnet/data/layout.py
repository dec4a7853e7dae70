"""Which folders of a data set are its splits and which its classes: CLASS/image.jpg, or SPLIT/CLASS/image.jpg.

A folder is a split if its name says so (see names.split_named) and it holds class folders. Folders that hold the same
class folders are splits whatever they are called, so those with unknown names are asked about.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath

from inceptionnet.data.containers import Tree
from inceptionnet.data.names import is_images_word, is_split_word, split_named, with_those_above
from inceptionnet.data.text import nfc
from inceptionnet.errors import ConfigurationError, DataError, listed, nearest
from inceptionnet.system.files import as_text

SPLITS = ("train", "val", "test")
NO_SPLITS = "none"
MOST_SPLITS = 20
"""More folders than this are classes, even if they hold the same folders, such as images and masks."""


def parse_splits(text: str | None) -> dict[str, str] | None:
    """The value of --splits: split → folder for `train=A,val=B`; {} for `none`; None if not given.

    Raises: ConfigurationError.
    """
    if text is None or text == NO_SPLITS:
        return None if text is None else {}
    pairs = [part.partition("=") for part in text.split(",")]
    found = {split.strip(): folder.strip().strip("/") for split, _, folder in pairs}
    if len(found) < len(pairs) or not set(found) <= set(SPLITS) or len(set(found.values()) - {""}) < len(pairs):
        raise ConfigurationError(
            f"--splits {text}: expected train=FOLDER,val=FOLDER,test=FOLDER (one or more of them), or {NO_SPLITS} if "
            "the folders are classes"
        )
    return found


@dataclass(frozen=True)
class Layout:
    """Where the class folders of each split are; all paths are relative to `root`."""

    root: str
    splits: dict[str, str]
    """Split → its top folder; "" → "" if the data set is not split."""
    classes: dict[str, dict[str, str]]
    """Split → path of a class folder → class: its name as text, in NFC, so that a name is one class in every split."""
    images: dict[str, list[str]]
    """Split → its images, sorted."""
    loose: dict[str, list[str]]
    """Split without class folders → the images directly in it, sorted."""
    notes: list[str]


def find_layout(where: str, tree: Tree, asked: Mapping[str, str] | None = None) -> Layout:
    """The layout of a container with images.

    Args:
        asked: of `parse_splits`.

    Raises:
        DataError: it is not clear which folders are splits, several folders are one split, or a folder in `asked` does
            not exist.
    """
    found = _Folders(tree)
    root, passed = found.start(split_named if asked is None else (lambda name: name in asked.values()))
    below = f"{root}/" if root else ""
    tops = sorted(found.inside[root])
    if asked is None:
        chosen = _named(where, found, below, tops)
    else:
        chosen = {split: _existing(where, folder, tops) for split, folder in asked.items()}
    bases = {split: found.base(below + top, split) for split, top in chosen.items()} or {"": root}
    classes: dict[str, dict[str, str]] = {}
    images: dict[str, list[str]] = {}
    everything = tree.images
    for split, base in bases.items():
        folders = {f"{base}/{name}".lstrip("/"): name for name in sorted(found.inside[base])}
        classes[split] = {path.removeprefix(below): as_text(nfc(name)) for path, name in folders.items()}
        inside = f"{base}/" if base else ""
        images[split] = [
            image.removeprefix(below)
            for image in everything
            if image.startswith(inside) and "/" in image[len(inside) :]
        ]
    loose = {
        split: [image.removeprefix(below) for image in everything if image.rpartition("/")[0] == base]
        for split, base in bases.items()
        if not classes[split]
    }
    with_images = {top for top in tops if below + top in found.filled}
    notes = [f"the images are in {root}: {listed(passed, last='and')} beside it ignored"] if passed else []
    if asked is None and not chosen and len(tops) > 1 and (odd := [top for top in tops if is_split_word(top)]):
        notes.append(f"{listed(odd, last='and')} taken as {'a class' if len(odd) == 1 else 'classes'}, not as a split")
    return Layout(root, chosen or {"": ""}, classes, images, loose, [*notes, *_notes(chosen, with_images)])


def class_folder(image: str, folders: Mapping[str, str]) -> str:
    """The path in `folders` that an image is below."""
    path = image
    while path not in folders:
        path = path.rpartition("/")[0]
    return path


def _notes(chosen: Mapping[str, str], tops: set[str]) -> Iterable[str]:
    if any(split != folder for split, folder in chosen.items()):
        yield "split folders: " + ", ".join(f"{split} = {folder}" for split, folder in chosen.items())
    if chosen and (others := tops.difference(chosen.values())):
        yield f"{'folder' if len(others) == 1 else 'folders'} {listed(others, last='and')} ignored: not used as a split"


def _existing(where: str, folder: str, tops: list[str]) -> str:
    if folder not in tops:
        raise DataError(f"{where}: expected the folder {folder} of --splits, got none: {nearest(folder, tops)}")
    return folder


class _Folders:
    """The folders of a container that lead to images or are empty."""

    def __init__(self, tree: Tree) -> None:
        self.inside: dict[str, set[str]] = defaultdict(set)  # folder → names of the folders in it
        self.loose = Counter(image.rpartition("/")[0] for image in tree.images)  # folder → images directly in it
        self.filled = set[str]()
        for folder in self.loose:
            with_those_above(folder, self.filled)
        for folder in tree.folders:
            above, _, name = folder.rpartition("/")
            self.inside[above].add(name)

    def start(self, is_split: Callable[[str], object]) -> tuple[str, list[str]]:
        """The folder that contains the classes or splits, and the folders without images that are passed on the way.

        It is below any chain of folders that are single, or called images beside folders without images.
        """
        root, passed = "", list[str]()
        while (only := self._only(root)) and not self.loose[root]:
            deeper = f"{root}/{only}".lstrip("/")
            flat = not self.inside[deeper] and is_images_word(only)  # images/ alone is no class
            if is_split(only) or (not flat and (self.loose[deeper] or not self.inside[deeper])):
                break
            passed += sorted(f"{root}/{name}".lstrip("/") for name in self.inside[root] - {only})
            root = deeper
        return root, passed

    def _only(self, root: str) -> str:
        """The folder in `root` that is single, or called images, with class folders, and alone has images; or ""."""
        names = self.inside[root]
        if len(names) == 1:
            return next(iter(names))
        paths = {name: f"{root}/{name}".lstrip("/") for name in names}
        filled = [name for name, path in paths.items() if path in self.filled]
        if len(filled) != 1 or not is_images_word(filled[0]):  # a class whose images are missing is an error
            return ""
        path = paths[filled[0]]
        return filled[0] if sum(f"{path}/{name}" in self.filled for name in self.inside[path]) > 1 else ""

    def base(self, folder: str, split: str) -> str:
        """The folder with the classes of a split: itself, seg_train/seg_train, or train/images."""
        names = self.inside[folder]
        if len(names) == 1 and not self.loose[folder]:
            (only,) = names
            again = only == PurePosixPath(folder).name or is_images_word(only)
            if again or (split_named(only) == split and self.inside[f"{folder}/{only}"]):
                return f"{folder}/{only}"
        return folder

    def held(self, folder: str) -> set[str]:
        """Names of the folders with images in a folder that could be a split: one without images beside them."""
        base = self.base(folder, split_named(PurePosixPath(folder).name))
        if self.loose[base]:
            return set()
        return {nfc(name) for name in self.inside[base] if f"{base}/{name}".lstrip("/") in self.filled}


def _named(where: str, found: _Folders, below: str, tops: list[str]) -> dict[str, str]:
    """Split → folder for the splits among the top folders; {} if these are classes."""
    names = {top: split for top in tops if (split := split_named(top))}
    held = {top: classes for top in tops if (classes := found.held(below + top))}
    alike: dict[str, set[str]] = {}  # folders with the same class folders as another, and these
    for a, b in combinations(held if len(held) <= MOST_SPLITS else (), 2):
        shared = held[a] & held[b]
        if len(shared) >= 2 and 2 * len(shared) >= min(len(held[a]), len(held[b])):
            alike |= {a: shared, b: shared}
    # A folder `train` with images directly in it, next to car and bus, is a class of trains; so is bullet_train.
    trained = any(split == "train" and top in held for top, split in names.items())
    divided = len(set(names.values())) > 1 or any(top in held for top in names)  # cars_train, cars_test
    all_named = len(names) == len(tops) and (divided or all(map(is_split_word, names)))
    if not (trained or all_named or alike):
        return {}
    if unknown := sorted(set(alike) - set(names)):
        inside = listed(alike[unknown[0]], 3)
        known = sorted(set(names) & set(held))
        others = f" beside {listed(known, last='and')}" if known else ""
        raise DataError(
            f"{where}: expected splits called train, val or test, or one folder per class, got "
            f"{listed(unknown, last='and')}{others} with the same folders in each ({inside})",
            f"say which is which with --splits train=FOLDER,val=FOLDER or --splits {NO_SPLITS} if they are classes, or "
            "rename them",
        )
    found_for = {}
    for split in SPLITS:
        folders = [top for top, its_split in names.items() if its_split == split]
        labelled = [top for top in folders if top in held]
        if len(labelled) > 1:
            raise DataError(
                f"{where}: expected one folder per split, got {listed(labelled, last='and')} for {split}",
                f"name the one to use with --splits {split}=FOLDER and those of the other splits, or merge them",
            )
        if folders:
            (found_for[split],) = labelled or sorted(folders, key=lambda top: (not is_split_word(top), top))[:1]
    return found_for
