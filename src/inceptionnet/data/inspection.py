"""Inspecting images in worker processes: decoded as in training, with size, format and unusual properties.

A worker process that dies (a crash in a decoder, too little memory) is an error, never a hang; Ctrl-C ends all of them.
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

import numpy as np
from PIL import Image

from inceptionnet.data.decode import DARK, decode, decode_box
from inceptionnet.data.formats import formats_for
from inceptionnet.data.similar import signature
from inceptionnet.data.splits import Source, Split
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


def _chunks(source: Source) -> Iterator[Chunk]:
    for name, split in source.splits.items():
        if isinstance(split, Split):
            for start in range(0, len(split), CHUNK):
                items = range(start, min(start + CHUNK, len(split)))
                yield Chunk(name, [split.names[i] for i in items], split.classes_of(items), items)
        else:
            with closing(split.iterate(0, None)) as images:
                while some := list(islice(images, CHUNK)):
                    names, labels, data = zip(*some, strict=True)
                    yield Chunk(name, names, [(label,) for label in labels], data)


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
            yield chunk, _inspect_all(look, reads, chunk.split, chunk.names, chunk.items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_prepare, initargs=(reads,))
    waiting = deque[tuple[Chunk, Future[list[Inspection]]]]()
    try:
        for chunk in _chunks(source):
            waiting.append((chunk, pool.submit(_work, look, chunk.split, chunk.names, chunk.items)))
            if len(waiting) >= 4 * workers:
                yield waiting[0][0], waiting[0][1].result()
                waiting.popleft()
        while waiting:
            yield waiting[0][0], waiting[0][1].result()
            waiting.popleft()
    except BrokenProcessPool:
        first, last = waiting[0][0].names[0], waiting[-1][0].names[-1]
        raise DataError(
            f"{source.title}: expected images that can be decoded, but a worker process died (a crash or too little "
            f"memory) between {first} and {last}: try fewer --workers, then without these images"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_reads: _Reads = {}


def _prepare(reads: _Reads) -> None:
    """Run at the start of each process."""
    global _reads
    _reads = reads
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and silently


def _work(look: Look, split: str, names: Sequence[str], items: _Items) -> list[Inspection]:
    return _inspect_all(look, _reads, split, names, items)


def _inspect_all(look: Look, reads: _Reads, split: str, names: Sequence[str], items: _Items) -> list[Inspection]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Pillow's warnings about images that it can read, and about decompression bombs
        return [
            look(partial(reads[split], item) if isinstance(item, int) else partial(bytes, item), name)
            for name, item in zip(names, items, strict=True)
        ]


def glance(read: Callable[[], bytes], name: str) -> Inspection:
    """The hash and the signature of an image only; a JPEG is decoded at a fraction of its size."""
    try:
        data = read()
        grey = decode_box(data, lambda width, height: (0, 0, width, height), at_least_px=64, channels=1, name=name)
    except DecodeError as error:
        return Inspection(reason_of(error, name))
    return Inspection("", hashlib.blake2b(data, digest_size=16).digest(), signature(grey))


def inspect(read: Callable[[], bytes], name: str) -> Inspection:
    """Everything about an image; it is decoded whole."""
    try:
        data = read()
        whole = decode(data, name=name)
    except DecodeError as error:
        return Inspection(reason_of(error, name))
    with Image.open(io.BytesIO(data), formats=formats_for(data)) as image:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        seen = len(data), whole.size, str(image.format), image.mode, tuple(_unusual(image))
        return Inspection("", digest, signature(whole), *seen)


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
