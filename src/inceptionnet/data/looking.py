"""Images read and decoded by processes, as training would, and looked at from outside: size, format, oddities.

Where a decoder's fault or the system ends a process, that is an error, not a wait; Ctrl-C ends them all at once.
"""

from __future__ import annotations

import hashlib
import io
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeAlias

from PIL import Image

from inceptionnet.data.decode import FORMATS, decode
from inceptionnet.data.splits import Source, Split
from inceptionnet.errors import DataError, DecodeError

CHUNK = 16  # images
_ORIENTATION_TAG = 0x0112


class Look(NamedTuple):
    """What a process finds out about an image; a `reason` why it cannot be read, or all else."""

    reason: str
    digest: bytes = b""
    bytes: int = 0
    size_px: tuple[int, int] = (0, 0)
    format: str = ""
    mode: str = ""
    odd: tuple[str, ...] = ()


_Items: TypeAlias = Sequence[int] | Sequence[bytes]  # positions in a split, or the images of a stream themselves
_Reads: TypeAlias = Mapping[str, Callable[[int], bytes]]


class Chunk(NamedTuple):
    """Images that one process is given at once."""

    split: str
    names: Sequence[str]
    labels: Sequence[int]
    items: _Items


def _chunks(source: Source) -> Iterator[Chunk]:
    for name, split in source.splits.items():
        if isinstance(split, Split):
            for start in range(0, len(split), CHUNK):
                items = range(start, min(start + CHUNK, len(split)))
                yield Chunk(name, [split.names[i] for i in items], split.labels[items].tolist(), items)
        else:
            with closing(split.iterate(0, None)) as images:
                while some := list(islice(images, CHUNK)):
                    names, labels, data = zip(*some, strict=True)
                    yield Chunk(name, names, labels, data)


def looked_at(source: Source, workers: int) -> Generator[tuple[Chunk, list[Look]], None, None]:
    """All images, split by split in their order, looked at by `workers` processes, or here where that is 0.

    Raises: DataError where a stream breaks off or a process dies.
    """
    reads = {name: split.read for name, split in source.splits.items() if isinstance(split, Split)}
    if not workers:
        for chunk in _chunks(source):
            yield chunk, _look_at_all(reads, chunk.split, chunk.names, chunk.items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(reads,))
    waiting = deque[tuple[Chunk, Future[list[Look]]]]()
    try:
        for chunk in _chunks(source):
            waiting.append((chunk, pool.submit(_work, chunk.split, chunk.names, chunk.items)))
            if len(waiting) >= 4 * workers:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool:
        first, last = waiting[0][0].names[0], waiting[-1][0].names[-1]
        raise DataError(
            f"{source.title}: expected images that can be decoded, got one that ended its process, or too little "
            f"memory, between {first} and {last}: try fewer --workers, then without these images"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_reads: _Reads = {}


def _prepare(reads: _Reads) -> None:
    """Run at the start of each process."""
    global _reads
    _reads = reads
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, without a word


def _work(split: str, names: Sequence[str], items: _Items) -> list[Look]:
    return _look_at_all(_reads, split, names, items)


def _look_at_all(reads: _Reads, split: str, names: Sequence[str], items: _Items) -> list[Look]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on images that it can read, and on bombs
        return [
            _look_at(partial(reads[split], item) if isinstance(item, int) else partial(bytes, item), name)
            for name, item in zip(names, items, strict=True)
        ]


def _look_at(read: Callable[[], bytes], name: str) -> Look:
    try:
        data = read()
        size = decode(data, name=name).size
    except DecodeError as error:
        return Look(str(error).removeprefix(f"{name}: "))
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return Look("", digest, len(data), size, str(image.format), image.mode, tuple(_oddities(image)))


def _oddities(image: Image.Image) -> Iterator[str]:
    modes = {"CMYK": "CMYK", "P": "palette", "PA": "palette", "1": "1-bit", "YCbCr": "YCbCr", "LAB": "LAB"}
    if image.mode in modes:
        yield modes[image.mode]
    if image.mode.startswith("I"):
        yield "16-bit"
    if image.has_transparency_data:
        yield "transparency"
    try:
        if getattr(image, "is_animated", False):
            yield "several frames"
        if image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9):
            yield "turned or mirrored by EXIF"
    except Exception:  # damage beside the image itself, which was decoded
        yield "damaged beside the image"
