"""Inspecting images in worker processes: decoded as in training, with size, format and unusual properties.

A worker process that dies (a crash in a decoder, too little memory) is an error, never a hang; an image for which one
takes too long counts as corrupt (see time_limit.py). Ctrl-C ends all of them, and so does the end of the process that
they work for, however it comes.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from inceptionnet.data.conversion import DARK
from inceptionnet.data.decode import decode, decode_box
from inceptionnet.data.formats import formats_for
from inceptionnet.data.similar import signature
from inceptionnet.data.splits import Source, Split
from inceptionnet.data.time_limit import TimeLimit, too_slow
from inceptionnet.errors import DataError, DecodeError, reason_of

CHUNK = 16  # images
_ORIENTATION_TAG, _SAMPLES_TAG = 0x0112, 277


class Inspection(NamedTuple):
    """The properties of an image, or the `reason` why it cannot be decoded."""

    reason: str
    digest: bytes = b""
    signature: bytes = b""
    """How it looks, see similar.py; empty for a plain image."""
    bytes: int = 0
    size_px: tuple[int, int] = (0, 0)
    format: str = ""
    mode: str = ""
    unusual: tuple[str, ...] = ()


Look: TypeAlias = Callable[[Callable[[], bytes], str], Inspection]
_Items: TypeAlias = Sequence[int] | Sequence[bytes]  # positions in a split, or the images of a stream themselves
_Reads: TypeAlias = Mapping[str, Callable[[int], bytes]]


class Chunk(NamedTuple):
    """Images that are handed to one process together."""

    split: str
    names: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    """The classes of each: one, or in multi-label data any number."""
    items: _Items
    first: int
    """The number of the first, over all splits."""


def _chunks(source: Source) -> Iterator[Chunk]:
    first = 0
    for name, split in source.splits.items():
        if isinstance(split, Split):
            for start in range(0, len(split), CHUNK):
                items = range(start, min(start + CHUNK, len(split)))
                yield Chunk(name, [split.names[i] for i in items], split.classes_of(items), items, first)
                first += len(items)
        else:
            with closing(split.iterate(0, None)) as images:
                while some := list(islice(images, CHUNK)):
                    names, labels, data = zip(*some, strict=True)
                    yield Chunk(name, names, [(label,) for label in labels], data, first)
                    first += len(names)


def inspect_images(
    source: Source, workers: int, look: Look | None = None
) -> Generator[tuple[Chunk, list[Inspection]], None, None]:
    """Inspect all images, split by split in order, in `workers` processes (0: in this one).

    Args:
        look: what is done with each, `inspect` or `glance`. Default: `inspect`.

    Raises: DataError if a stream breaks off or a process dies.
    """
    reads = {name: split.read for name, split in source.splits.items() if isinstance(split, Split)}
    look = look or inspect
    if not workers:
        for chunk in _chunks(source):
            yield chunk, [look(read, name) for read, name in _images(chunk, reads)]
        return
    pool = _Pool(reads, workers, look)
    try:
        for chunk in _chunks(source):
            pool.submit(chunk)
            if len(pool.waiting) >= 4 * workers:
                yield pool.next()
        while pool.waiting:
            yield pool.next()
    except BrokenProcessPool:
        first, last = pool.waiting[0][0].names[0], pool.waiting[-1][0].names[-1]
        raise DataError(
            f"{source.title}: expected images that can be decoded, but a worker process died (a crash or too little "
            f"memory) between {first} and {last}: try fewer --workers, then without these images"
        ) from None
    finally:
        pool.stop()


class _Pool:
    """Processes that inspect chunks, in order; without an image for which one took too long they are started again."""

    def __init__(self, reads: _Reads, workers: int, look: Look) -> None:
        self.reads, self.workers, self.look = reads, workers, look
        self.waiting = deque[tuple[Chunk, Future[list[Inspection]]]]()
        self.slow: set[int] = set()
        self._start()

    def _start(self) -> None:
        self.limit = TimeLimit(self.workers)
        self.pool = ProcessPoolExecutor(
            self.workers, initializer=_prepare, initargs=(self.reads, self.look, self.limit, frozenset(self.slow))
        )

    def submit(self, chunk: Chunk) -> None:
        """Hand a chunk to a process. Raises: BrokenProcessPool, as `next`."""
        try:
            future = self.pool.submit(_work, chunk)
        except BrokenProcessPool as error:
            future = Future()
            future.set_exception(error)
        self.waiting.append((chunk, future))
        self.limit.watch()

    def next(self) -> tuple[Chunk, list[Inspection]]:
        """The first chunk that was not returned yet. Raises: BrokenProcessPool if a process died of something else."""
        while True:
            try:
                found = self.waiting[0][1].result()
            except BrokenProcessPool:
                self.stop()
                slow = self.limit.exceeded()
                if not slow:
                    raise
                self.slow.update(slow)
                self._start()
                chunks = [chunk for chunk, _ in self.waiting]
                self.waiting.clear()
                for chunk in chunks:
                    self.submit(chunk)
            else:
                return self.waiting.popleft()[0], found

    def stop(self) -> None:
        self.pool.shutdown(cancel_futures=True)


_task: tuple[_Reads, Look, TimeLimit, frozenset[int]]
"""Of a worker process."""


def _prepare(*task: Any) -> None:
    """Run at the start of each process."""
    global _task
    _task = task
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and silently


def _end_with_parent() -> None:
    """A pool waits for work for ever if the process that gives it was killed."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(chunk: Chunk) -> list[Inspection]:
    reads, look, limit, slow = _task
    found = []
    for number, (read, name) in enumerate(_images(chunk, reads), start=chunk.first):
        if number in slow:
            found.append(Inspection(too_slow()))
            continue
        with limit.within(number):
            found.append(look(read, name))
    return found


def _images(chunk: Chunk, reads: _Reads) -> Iterator[tuple[Callable[[], bytes], str]]:
    """What reads each image of a chunk, and its name."""
    with warnings.catch_warnings():
        # Pillow's warnings about images that it can read, and about decompression bombs
        warnings.simplefilter("ignore")
        for name, item in zip(chunk.names, chunk.items, strict=True):
            yield partial(reads[chunk.split], item) if isinstance(item, int) else partial(bytes, item), name


def glance(read: Callable[[], bytes], name: str) -> Inspection:
    """The hash, signature, format, mode and size of an image only; a JPEG is decoded at a fraction of its size."""
    try:
        data = read()
        grey = decode_box(data, lambda width, height: (0, 0, width, height), at_least_px=64, channels=1, name=name)
    except DecodeError as error:
        return Inspection(reason_of(error, name))
    with Image.open(io.BytesIO(data), formats=formats_for(data)) as image:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return Inspection("", digest, signature(grey), len(data), image.size, str(image.format), image.mode)


def inspect(read: Callable[[], bytes], name: str) -> Inspection:
    """Everything about an image; it is decoded whole."""
    try:
        data = read()
        whole = decode(data, name=name)
    except DecodeError as error:
        return Inspection(reason_of(error, name))
    looks, size = signature(whole), whole.size
    del whole  # before its pixels are read again
    with Image.open(io.BytesIO(data), formats=formats_for(data)) as image:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return Inspection("", digest, looks, len(data), size, str(image.format), image.mode, tuple(_unusual(image)))


def _unusual(image: Image.Image) -> Iterator[str]:
    modes = {"CMYK": "CMYK", "P": "palette", "PA": "palette", "1": "1-bit", "YCbCr": "YCbCr", "LAB": "LAB"}
    if image.mode in modes:
        yield modes[image.mode]
    if image.mode.startswith("I"):
        yield "16-bit"
        if np.asarray(image).max() <= DARK:
            yield f"16-bit without values above {DARK} (nearly black)"
    if getattr(image, "tag_v2", {}).get(_SAMPLES_TAG, 0) > len(image.getbands()):
        yield "extra channels, which are dropped"
    if image.has_transparency_data:
        yield "transparency"
    try:
        if getattr(image, "is_animated", False):
            yield "several frames"
        if image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9):
            yield "EXIF rotation"
    except Exception:  # the image itself was decoded
        yield "damaged metadata"
