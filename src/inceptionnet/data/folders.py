"""Images in folders, of which a .zip is one too: class folders, perhaps in folders of splits, or a file of labels.

The layouts are CLASS/image.jpg, or SPLIT/CLASS/image.jpg (see layout.py), or any folders with a label file (see
flat.py). Names of images are relative to the folder that contains the splits or classes.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inceptionnet.data.containers import Tree
from inceptionnet.data.flat import find_labels, metadata_above, metadata_of, read_labels, read_metadata_labels
from inceptionnet.data.groups import GroupBy
from inceptionnet.data.imagenet import imagenet_wnids
from inceptionnet.data.layout import NO_SPLITS, Layout, class_folder, find_layout
from inceptionnet.data.names import (
    EXTENSIONS,
    are_parts,
    images_and_annotations,
    is_annotations_word,
    masks_among,
    split_named,
)
from inceptionnet.data.splits import Split
from inceptionnet.data.table_labels import Labelled
from inceptionnet.errors import DataError, listed, number_of


def read_tree(
    where: str,
    tree: Tree,
    *,
    labels: Path | None,
    splits: Mapping[str, str] | None,
    evaluating: bool,
    group_by: GroupBy,
) -> tuple[list[str], dict[str, Split], list[str], GroupBy]:
    """(classes; splits by name, or all images under ""; notes; `group_by`, with what the labels say of groups).

    Args:
        labels: the label file that is asked for; else one with a well-known name is looked for.
        splits: of `parse_splits`.
        evaluating: as for `open_source`.

    Raises:
        DataError: the images have no labels, or it is not clear which.
    """
    if not tree.images:
        packed = sorted({_parent(file) for file in tree.files if file.lower().endswith((".parquet", ".tar"))} - {""})
        advice = f"give the folder of one data set, such as {listed((str(Path(where, one)) for one in packed), 2)}"
        raise DataError(
            f"{where}: expected images ({' '.join(sorted(EXTENSIONS))}), got "
            f"{number_of('other file', len(tree.files)) if tree.files else 'an empty one'}{_endings(tree.files)}",
            advice if packed and Path(where).is_dir() else "",
        )
    loose = Counter(map(_parent, tree.images))  # folder → images directly in it
    if files := {"": labels} if labels else _find_labels(where, tree, loose, evaluating=evaluating):
        return _labelled(where, tree, files, splits, group_by, evaluating=evaluating)
    return *_in_class_folders(where, tree, splits, evaluating=evaluating), group_by


def _in_class_folders(
    where: str, tree: Tree, asked: Mapping[str, str] | None, *, evaluating: bool
) -> tuple[list[str], dict[str, Split], list[str]]:
    """(classes, splits, notes) of images whose folder is their label; those of a flat val or test are in a list."""
    layout = find_layout(where, tree, asked)
    if "" in layout.splits and not layout.classes[""]:
        raise DataError(
            f"{where}: expected one folder per class, got {number_of('image', len(layout.loose['']))} in one folder",
            f"sort them into class folders, or give {_a_label_file(where, tree)}",
        )
    folders, files, notes = _labelled_splits(where, tree, layout, evaluating=evaluating)
    lists = {split: _read_list(file, layout.loose[split]) for split, file in files.items()}
    held = {split: set(paths.values()) for split, paths in folders.items()}
    held |= {split: set(read.classes) for split, read in lists.items()}
    as_trained = "train" in folders and not evaluating
    classes = sorted(held["train"] if as_trained else set().union(*held.values()))
    _check_names(where, folders)
    _check_classes(where, tree, classes)

    filled = {class_folder(image, folders[split]) for split in folders for image in layout.images[split]}
    empty = [path for paths in folders.values() for path in paths if path not in filled]
    if empty:
        raise DataError(
            f"{where}: expected images in every class folder, got none in {listed(empty)}: add images or remove them"
        )
    for split, its_classes in held.items():
        if extra := its_classes.difference(classes):
            top = layout.splits[split]
            raise DataError(
                f"{where}: expected the classes of train, got also {listed(extra)} in {top}: add them to train"
            )

    label = {c: i for i, c in enumerate(classes)}
    read, found = tree.reader(layout.root), {}
    for split, paths in folders.items():
        images_of = layout.images[split]
        if masks := masks_among(images_of):
            raise DataError(
                f"{where}: expected images, got {number_of('mask', len(masks))} beside them ({listed(masks, 3)})",
                "remove them, or rename them if they are images",
            )
        labels = np.array([label[paths[class_folder(image, paths)]] for image in images_of], np.int64)
        found[split] = Split(images_of, labels, _ByName(read, images_of))
    for split, listing in lists.items():
        images_of = [layout.loose[split][i] for i in listing.positions]
        labels = np.array([label[c] for c in listing.classes], np.int64)[listing.labels]
        found[split] = Split(images_of, labels, _ByName(read, images_of))
        notes += listing.notes
    deeper = [image for split in folders for image in layout.images[split]
              if _parent(image) != class_folder(image, folders[split])]  # fmt: skip
    if deeper:
        _check_inside(where, folders, deeper)
        inner = listed({_parent(image) for image in deeper}, 3)
        are = "is" if len(deeper) == 1 else "are"
        notes.append(f"{number_of('image', len(deeper))} in folders inside class folders {are} of that class ({inner})")
    used = sum(len(found[split]) for split in folders) + sum(map(len, layout.loose.values()))
    found = {split: found[split] for split in layout.splits if split in found}
    return classes, found, [*layout.notes, *notes, *_without(tree, where, files.values()).ignored(used)]


def _read_list(file: Path, images: Sequence[str]) -> Labelled:
    """The labels of images beside class folders. Raises: DataError."""
    found = read_labels(file, images)
    if found.labels.ndim > 1:
        raise DataError(f"{file}: expected one label an image, as class folders give, got several")
    return found


def _check_classes(where: str, tree: Tree, classes: Sequence[str]) -> None:
    """Raises: DataError if folders are named as something else than classes."""
    if found := images_and_annotations(classes):
        got = f"{' and '.join(found)}, as in data for segmentation or detection"
    elif are_parts(classes):
        got = f"parts of one collection ({listed(classes, 3)})"
    else:
        return
    raise DataError(
        f"{where}: expected one folder per class, got {got}",
        f"sort the images into class folders, give {_a_label_file(where, tree)}, or rename the folders if they are "
        "classes",
    )


def _check_inside(where: str, folders: Mapping[str, Mapping[str, str]], deeper: Sequence[str]) -> None:
    """Raises: DataError if a class folder has folders of masks, or ones with the names of all other classes.

    The latter are a second copy of the data.

    Args:
        deeper: the images in folders inside class folders.
    """
    known = {path: name for paths in folders.values() for path, name in paths.items()}
    inside: dict[str, set[str]] = defaultdict(set)
    for folder in {_parent(image) for image in deeper}:
        path = class_folder(folder, known)
        inside[path].add(folder[len(path) + 1 :].partition("/")[0])
    if masks := [f"{path}/{one}" for path, inner in inside.items() for one in inner if is_annotations_word(one)]:
        raise DataError(
            f"{where}: expected images in class folders, got {listed(masks, 3)} for segmentation or detection",
            "remove or rename these folders",
        )
    for paths in folders.values():
        for path, name in paths.items():
            others = set(paths.values()) - {name}
            if len(others) > 1 and others <= inside[path]:
                raise DataError(
                    f"{where}: expected one folder per class, got {path} with the folders of all other classes in it "
                    f"({listed(others, 3)})",
                    f"remove it if it is a copy of the data, or give {Path(where, path)}",
                )


def _check_names(where: str, folders: Mapping[str, Mapping[str, str]]) -> None:
    """Raises: DataError if two class folders of a split are the same name in two forms of Unicode."""
    for paths in folders.values():
        if twice := [name for name, count in Counter(paths.values()).items() if count > 1]:
            raise DataError(
                f"{where}: expected one folder per class, got {listed(twice)} in two forms of Unicode: merge them"
            )


def _labelled_splits(
    where: str, tree: Tree, layout: Layout, *, evaluating: bool
) -> tuple[dict[str, dict[str, str]], dict[str, Path], list[str]]:
    """(class folders of the splits that have some, label files with a well-known name of others, notes).

    ImageNet's and competitions' test images have no labels; val can be evaluated without them. But train does not
    replace an unlabelled or empty val.
    """
    folders = {split: paths for split, paths in layout.classes.items() if split not in layout.loose}
    files, notes = dict[str, Path](), list[str]()
    for split, images in layout.loose.items():
        top, count = layout.splits[split], len(images)
        if folders and (file := _list_of(where, layout, split)):
            files[split] = file
            notes.append(f"labels of {top} from {file}")
            continue
        got = f"{number_of('image', count)} in one folder" if count else "an empty folder"
        if split == "train" and not evaluating:
            given = f", or give {Path(where, layout.root, top)} with {_a_label_file(where, tree)}" if count else ""
            raise DataError(
                f"{where}: expected class folders in {top}, got {got}", f"sort the images into class folders{given}"
            )
        if split == "val" and not evaluating:
            raise DataError(
                f"{where}: expected class folders in {top}, got {got}: sort the images into classes, or remove {top} "
                "to hold out a fifth of train"
            )
        if not folders or (split == "val" and "test" not in {**folders, **files}):
            advice = f"evaluate the folder {top} itself with {_a_label_file(where, tree)}"
            raise DataError(f"{where}: expected class folders in {top}, got {got}", f"sort them, or {advice}")
        notes.append(f"{top} ignored: {number_of('image', count) + ' without labels' if count else 'no images'}")
    return folders, files, notes


def _list_of(where: str, layout: Layout, split: str) -> Path | None:
    """The label file with a well-known name of a val or test in one folder: one in it, of val also one beside it."""
    images = layout.loose[split]
    if split == "train" or not images or not Path(where).is_dir():
        return None
    return find_labels(Path(where, layout.root, _parent(images[0])), evaluating=split == "val")


def _a_label_file(where: str, tree: Tree) -> str:
    """What to give to images without class folders, with the tables that lie among them, likely ones first."""
    found = sorted(file for file in tree.files if file.lower().endswith((".csv", ".tsv")))
    found.sort(key=lambda file: not any(word in file.lower() for word in ("train", "label", "annotation")))
    tables = [str(Path(where, file)) for file in found]
    such = f", such as {listed(tables, 3, ordered=True)}" if tables and Path(where).is_dir() else ""
    return f"a label file (--labels FILE{such})"


def _find_labels(where: str, tree: Tree, loose: Counter[str], *, evaluating: bool) -> dict[str, Path]:
    """The label files that the folders of images have; `loose`: number of images by folder."""
    if len(loose) != 1:
        if files := metadata_of(loose, Path(where)):
            return files
        above = metadata_above(Path(where), tree.images)
        return {"": above} if above else {}
    images = Path(where, *loose) if Path(where).is_dir() else Path(where)
    file = find_labels(images, evaluating=evaluating)
    return {"": file} if file else {}


def _labelled(
    where: str,
    tree: Tree,
    files: Mapping[str, Path],
    asked: Mapping[str, str] | None,
    by: GroupBy,
    *,
    evaluating: bool,
) -> tuple[list[str], dict[str, Split], list[str], GroupBy]:
    """Images in any folders, with their labels in a file; splits are the file's, else folders with names of splits."""
    folder = os.path.commonpath(list(map(_parent, tree.images)))
    below = f"{folder}/" if folder else ""
    names = sorted(image.removeprefix(below) for image in tree.images)
    if len(files) == 1:
        read = read_labels(next(iter(files.values())), names, by.asked)
    else:
        at = {folder.removeprefix(below): file for folder, file in files.items()}
        read = read_metadata_labels(at, names, by.asked)
    used = [names[i] for i in read.positions]
    splits = read.splits or _split_by_folder(where, used, asked)
    if not all(splits):
        # ImageNet's validation set is one split, whatever else is evaluated on its images.
        whole = "val" if evaluating and set(read.classes) <= set(imagenet_wnids()) else ""
        splits = (whole,) * len(used)
    found = {}
    for split in sorted(set(splits)):
        places = np.flatnonzero(np.array(splits) == split)
        part = [used[i] for i in places]
        groups = [read.groups[i] for i in places] if read.groups else ()
        found[split] = Split(part, read.labels[places], _ByName(tree.reader(folder), part), groups)
    others = _without(tree, where, files.values()).ignored(len(tree.images))
    notes = [f"labels from {listed(map(str, files.values()))}", *read.notes, *others]
    return list(read.classes), found, notes, replace(by, column=read.group_column, columns=read.columns)


def _without(tree: Tree, where: str, files: Iterable[Path]) -> Tree:
    """The container, less some of its files."""
    paths = {file.resolve() for file in files}
    called = {path.name for path in paths}
    own = {name for name in tree.files if name.rpartition("/")[2] in called and Path(where, name).resolve() in paths}
    return replace(tree, files=[name for name in tree.files if name not in own])


def _split_by_folder(where: str, images: Sequence[str], asked: Mapping[str, str] | None) -> tuple[str, ...]:
    """The split of each image of a list by its first folder, "" if none is one. Raises: DataError for some alone."""
    tops = [name.partition("/")[0] if "/" in name else "" for name in images]
    if asked is None:
        named = {top: split_named(top) for top in tops}
    else:
        named = {folder: split for split, folder in asked.items()}
        if unknown := named.keys() - set(tops):
            raise DataError(f"{where}: expected the folders of --splits to hold images of the list, got none in "
                            f"{listed(unknown)}: known: {listed(set(tops) - {''}) or 'none'}")  # fmt: skip
    found = tuple(named.get(top, "") for top in tops)
    if any(found) and not all(found):
        some, others = ({top or "no folder" for top, split in zip(tops, found, strict=True) if bool(split) is known}
                        for known in (True, False))  # fmt: skip
        raise DataError(
            f"{where}: expected every image of the list in a folder of a split, got images in {listed(others)} beside "
            f"{listed(some)}",
            f"add a column split to the list, remove those rows, or give --splits {NO_SPLITS}",
        )
    return found


@dataclass(frozen=True)
class _ByName:
    """Reads from a container, by position in a split."""

    read: Callable[[str], bytes]
    names: Sequence[str]

    def __call__(self, index: int) -> bytes:
        return self.read(self.names[index])


def _endings(files: Sequence[str]) -> str:
    endings = sorted({Path(file).suffix.lower() for file in files} - {""})
    return f" ({' '.join(endings[:5])})" if endings else ""


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
