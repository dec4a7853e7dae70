"""Streamed data sets: from the Hugging Face Hub, or tar shards from a web server.

`hf:owner/name`, `hf:owner/name:config` and `hf:owner/name@revision` (or both, in that order) are streamed by the
datasets library, `hf:PATH` is a local folder in its layout. `https://host/train-{000..009}.tar` are shards as in
shards.py, compressed or not, next to classes.txt and sizes.json, which has the number of images of each shard:
{"train-000.tar": 1000, …}. `https://host/folder/` means all shards listed in sizes.json.

Shards are read by the standard library: the datasets library would add an asynchronous HTTP client with its own
threads, needs identical fields in every shard and integer labels, and groups and names images differently from
shards.py.
"""

from __future__ import annotations

import json
import logging
import lzma
import os
import re
import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterator
from gzip import GzipFile
from lzma import LZMAFile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from inceptionnet.data.assembly import make_stream_source
from inceptionnet.data.class_names import CLASSES_FILE, ClassNames, parse_bytes
from inceptionnet.data.decode import read_image
from inceptionnet.data.names import EXTENSIONS, expand, is_split_word, member_path, split_named
from inceptionnet.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, columns_not_used
from inceptionnet.data.shards import LABEL_FIELDS, MAX_LABEL_BYTES, labelled
from inceptionnet.data.splits import Encoded, Source, StreamSplit
from inceptionnet.data.tar import Readable, TarReader
from inceptionnet.data.web import Download, fetch
from inceptionnet.errors import DataError, InceptionNetError, listed, number_of
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import IMAGE_BYTES

SIZES_FILE = "sizes.json"


def open_stream(where: str, *, evaluating: bool = False) -> Source:
    """The data set at `where`, "hf:…" or "http…". Raises: DataError, MissingExtraError.

    Args:
        evaluating: for evaluation only: one split is enough.
    """
    if where.startswith("hf:"):
        return _open_hub(where, evaluating)
    return _open_shards(where, evaluating)


def _open_hub(where: str, evaluating: bool) -> Source:
    datasets = import_extra("datasets", "stream", f"streaming {where}")
    # Its progress bars would interfere with ours, and it logs retries through a handler of its own.
    datasets.disable_progress_bars()
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).propagate = False
    logging.getLogger("datasets.packaged_modules").setLevel(
        logging.CRITICAL
    )  # many lines about what is a single error here
    name, config, revision = where.removeprefix("hf:"), None, None
    if not (name and Path(name).is_dir()):
        match = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)?)(?::([^@]+))?(?:@(.+))?", name)
        if not match:
            raise DataError(f"{where}: expected hf:owner/name, optionally with :config and @revision: correct it")
        name, config, revision = match.groups()
    try:
        found = datasets.load_dataset(name, config, revision=revision, streaming=True)
    except Exception as error:  # of several libraries: not found, not permitted, not reachable, not a data set
        raise DataError(f"{where}: cannot be opened: {_one_line(error)}; check the name and the connection") from None
    splits: dict[str, StreamSplit] = {}
    ignored, lists, unused = [], [], set[str]()
    for own_name, data in sorted(found.items(), key=lambda one: not is_split_word(one[0])):
        split = split_named(own_name)
        if not split or split in splits:
            why = f"there is another {split} split" if split else "not the name of a split"
            ignored.append(f"{own_name} ignored: {why}")
            continue
        classes, opened, others = _hub_split(where, own_name, data)
        if split == "test" and not _is_labelled(opened):
            ignored.append(f"{own_name} ignored: its first label is -1 (unlabelled)")
            continue
        splits[split] = opened
        lists.append(classes)
        unused |= others
    ignored += columns_not_used(unused)
    if any(classes != lists[0] for classes in lists):
        raise DataError(
            f"{where}: expected the same class names in every split, got different lists: correct the data set"
        )
    title = Path(name).resolve().name if Path(name).is_dir() else name
    return make_stream_source(where, title, lists[0] if lists else [], splits, ignored, evaluating=evaluating)


def _hub_split(where: str, name: str, data: Any) -> tuple[list[str], StreamSplit, set[str]]:
    """Class names and images of a datasets.IterableDataset, and its columns that are neither."""
    import datasets

    features = data.features or {}
    columns = [column for column in features if isinstance(features[column], datasets.Image)]
    image = next((column for column in (*IMAGE_COLUMNS, *columns) if column in columns), None)
    label = next((column for column in (*LABEL_COLUMNS, "cls") if column in features), None)
    if image is None or label is None:
        raise DataError(
            f"{where}: expected images in {'/'.join(IMAGE_COLUMNS)} and labels in {'/'.join(LABEL_COLUMNS)}, "
            f"got {listed(features, ordered=True) or 'no columns'} in {name}: rename them"
        )
    if not isinstance(features[label], datasets.ClassLabel):
        raise DataError(
            f"{where}: expected {label} of type ClassLabel (with class names), got {type(features[label]).__name__}: "
            "declare it as class_label in the data set's README.md"
        )
    known = (data.info.splits or {}).get(name)
    if not (known and known.num_examples):
        raise DataError(
            f"{where}: expected the number of images in {name} in the data set's description, got none: add "
            "num_examples to dataset_info in its README.md"
        )
    data = data.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    count, classes = data.num_shards, list(features[label].names)

    def read(shard: int) -> Iterator[Encoded]:
        try:
            for row, example in enumerate(data.shard(count, shard)):
                stored, number = example[image] or {}, example[label]
                called = stored.get("path") or f"{name}-{shard}:{row}"
                encoded = stored.get("bytes")
                if encoded is None and stored.get("path"):
                    encoded = _read_beside(stored["path"])
                if number is None or not 0 <= number < len(classes):
                    raise _UnlabelledError(
                        f"{where}: expected a label from 0 to {len(classes) - 1} for every image, got {number} for "
                        f"{called} in {name}: remove these images"
                    )
                yield called, number, encoded or b""
        except InceptionNetError:
            raise
        except Exception as error:  # of several libraries
            raise DataError(f"{where}: cannot be read: {_one_line(error)}; try again, a run can be resumed") from None

    split = StreamSplit(f"{where}, {name}", known.num_examples, count, read)
    return classes, split, {*features} - {image, label}


def _read_beside(path: str) -> bytes:
    """An image stored next to the table, locally or on the Hub."""
    if os.path.lexists(path):
        return read_image(path)
    import fsspec

    with fsspec.open(path, "rb") as file:
        data: bytes = file.read(IMAGE_BYTES)
    return data


class _UnlabelledError(DataError):
    """An image without a label, or with one that is no class."""


def _is_labelled(split: StreamSplit) -> bool:
    """Whether the first image has a label."""
    try:
        next(split.read(0), None)
    except _UnlabelledError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _open_shards(where: str, evaluating: bool) -> Source:
    parts = urlsplit(where)
    folder = _beside(urlunsplit(parts._replace(path=parts.path.partition("{")[0])), "")
    file = _beside(folder, SIZES_FILE)
    sizes = _sizes(file)
    urls = expand(where) if not parts.path.endswith("/") else [_beside(folder, name) for name in sizes]
    groups: dict[str, list[tuple[str, int]]] = {}
    for url in urls:
        name = urlsplit(url).path.rpartition("/")[2]
        if name not in sizes or url != _beside(folder, name):
            raise DataError(
                f"{url}: expected a shard that is in {file}, got another: add its number of images to that file"
            )
        groups.setdefault(split_named(name), []).append((url, sizes[name]))
    ignored = [f"{number_of('shard', len(groups.pop('')))} ignored: not named after a split"] if "" in groups else []
    class_list = _beside(folder, CLASSES_FILE)
    text = fetch(class_list)
    if text is None:
        raise DataError(f"{class_list}: expected class names, one per line in label order, got no such file: add it")
    classes = parse_bytes(text, class_list)
    title = urlunsplit(urlsplit(folder)._replace(query=""))  # the query may contain a secret key
    splits = {
        split: StreamSplit(f"{title}, {split}", sum(size for _, size in shards), len(shards), _reader(shards, classes))
        for split, shards in groups.items()
    }
    return make_stream_source(where, title, classes.names, splits, ignored, evaluating=evaluating)


def _beside(url: str, name: str) -> str:
    """The URL of the file `name` in the folder of `url`, with the same query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rpartition("/")[0] + "/" + name))


def _sizes(url: str) -> dict[str, int]:
    text = fetch(url)
    got = "no such file"
    if text is not None:
        try:
            sizes = json.loads(text)
            if sizes and all(isinstance(name, str) and type(size) is int and size > 0 for name, size in sizes.items()):
                return dict(sizes)
            got = "other values"
        except (ValueError, AttributeError, RecursionError) as error:
            got = str(error)
    raise DataError(
        f'{url}: expected each shard\'s number of images, as {{"train-000.tar": 1000}}, got {got}: '
        "add it; count with: tar tf SHARD | grep -c '\\.cls$'"
    )


def _reader(shards: list[tuple[str, int]], classes: ClassNames) -> Callable[[int], Iterator[Encoded]]:
    def read(shard: int) -> Iterator[Encoded]:
        url, size = shards[shard]
        file = urlsplit(url).path.rpartition("/")[2]
        count = 0
        for name, label, data in labelled(_members(url), bytes, url):
            count += 1
            yield f"{file}/{name}", classes.number(label, f"{url}: {name}"), data
        if count != size:
            raise DataError(
                f"{url}: expected {size} images as {SIZES_FILE} says, got {count}: correct {SIZES_FILE} or the shard"
            )

    return read


def _members(url: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar; only images and labels are read."""
    with Download(url) as file:
        try:
            reader = TarReader(_unpacked(file), seekable=False)
            for member in reader.members():
                field = member.name.rpartition("/")[2].partition(".")[2].lower()
                wanted = field in LABEL_FIELDS or f".{field}" in EXTENSIONS
                limit = MAX_LABEL_BYTES if field in LABEL_FIELDS else IMAGE_BYTES
                if member.size < 0 or (wanted and member.size > limit):
                    raise DataError(f"{url}: expected {member.name} of at most {limit} bytes, got {member.size}")
                if member.is_file:
                    data = reader.read(member.size) if wanted else b""
                    if wanted and len(data) < member.size:
                        raise EOFError(f"it ends within {member.name}")
                    yield member_path(member.name), data
        except FileNotFoundError:
            raise DataError(f"{url}: expected a shard, got no such file: check the URL") from None
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
            raise DataError(f"{url}: expected a tar file, got a damaged one ({error}): create it again") from None


class _Whole:
    """A file whose first bytes were read already."""

    def __init__(self, head: bytes, file: Readable) -> None:
        self._head, self._file = head, file

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        head, self._head = self._head[:size], self._head[size:]
        return head or self._file.read(size)


def _unpacked(file: Readable) -> Readable:
    """A shard without its compression (gzip, bzip2 or xz), if it has one."""
    head = b""
    while len(head) < 6 and (part := file.read(6 - len(head))):
        head += part
    whole: Any = _Whole(head, file)
    if head.startswith(b"\x1f\x8b"):
        return GzipFile(fileobj=whole, mode="rb")
    if head.startswith(b"BZh"):
        return BZ2File(whole)
    return LZMAFile(whole) if head.startswith(b"\xfd7zXZ") else whole
