"""Images that many processes go through, cut into parts: the same ones for any number of processes.

A part is a range of a list of images, or a shard of a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inceptionnet.data.fingerprint import check_everywhere, description
from inceptionnet.data.sources import STREAMS, open_source
from inceptionnet.data.splits import AnySplit, Encoded, Source, Split
from inceptionnet.data.unlabelled import open_images
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.distributed import World
from inceptionnet.system.extras import import_extra
from inceptionnet.system.parts import Advance, Totals, open_parts, write_parquet
from inceptionnet.system.parts_queue import write_missing
from inceptionnet.system.progress import Bar

PARQUET, OTHERS = ".parquet", (".csv", ".json", ".jsonl", ".npz", ".npy", ".txt", ".h5", ".zip")
CHUNK_IMAGES, CHUNK_BYTES = 512, 2**27
"""As many of a stream's encoded images are held at once."""


class Chunk(NamedTuple):
    """Images that are at hand, and the split of each."""

    images: Split
    splits: Sequence[str]


@dataclass(frozen=True)
class Job:
    """Images in parts, each of which is read anew whenever it is called."""

    source: Source
    split: str
    """The one that was chosen; `all` for every image."""
    images: int
    parts: Sequence[Callable[[], Iterator[Chunk]]]
    part_size: int | None
    """The most images in a part; None for a stream, whose parts are its shards."""

    def about(self) -> dict[str, Any]:
        """What the parts depend on, as plain JSON."""
        found = description(self.source)
        images, names, sizes = (found[key] for key in ("images", "fingerprint", "sizes"))
        return {
            "data": self.source.title,
            "split": self.split,
            "images": images,
            "image_names": names,
            "image_sizes": sizes,
            "part_size": self.part_size,
        }


def is_stream(place: str) -> bool:
    """Whether images come one after another from there: hf:NAME, or addresses of shards."""
    path = place.partition("?")[0]
    return place.startswith(STREAMS) and (place.startswith("hf:") or path.endswith(("/", ".tar", ".gz", ".bz2", ".xz")))


def open_job(
    places: Sequence[str],
    split: str = "all",
    part_size: int = 4096,
    *,
    seed: int = 0,
    group_by: str | None = None,
    allow_urls: bool = False,
    allow_shards: bool = True,
) -> Job:
    """Open images as `open_images` does, or a stream as for training, in parts of at most `part_size`, or its shards.

    Args:
        allow_urls: fetch images given as addresses.
        allow_shards: fetch shards given as addresses.

    Raises: DataError for no images, or a split that there is not; ConfigurationError for addresses that may not be
        fetched, or a stream among others.
    """
    if streams := [place for place in places if is_stream(place)]:
        if len(places) > 1:
            raise ConfigurationError(f"{streams[0]}: expected a stream alone, got {len(places)} places; give one")
        if not (allow_shards or streams[0].startswith("hf:")):
            raise ConfigurationError(
                f"{streams[0]}: is an address, and nothing is fetched unless --allow-urls is given"
            )
        source = open_source(streams[0], seed=seed, evaluating=True)
    else:
        source = open_images(places, seed=seed, group_by=group_by, allow_urls=allow_urls)
    return in_parts(source, split, part_size)


def in_parts(source: Source, split: str, part_size: int) -> Job:
    """The images of a data set in parts. Raises: DataError for a split that there is not."""
    chosen, found = _chosen(source, split)
    parts: list[Callable[[], Iterator[Chunk]]] = []
    name, images = found[0]
    if isinstance(images, Split):
        splits = _splits(source) if name == "all" else [name] * len(images)
        for start in range(0, len(images), part_size):
            parts.append(partial(_range, images, splits, range(start, min(start + part_size, len(images)))))
        return Job(source, chosen, len(images), parts, part_size)
    for name, stream in found:
        assert not isinstance(stream, Split)
        parts += [partial(_shard, partial(stream.read, shard), name) for shard in range(stream.shards)]
    return Job(source, chosen, sum(len(stream) for _, stream in found), parts, None)


def check_out(out: Path, world: World) -> None:
    """Check where answers go to, before anything is loaded.

    Raises: ConfigurationError: a single file of several processes, or what is neither .parquet nor a folder's name;
        MissingExtraError without pyarrow.
    """
    if out.suffix == PARQUET and world.size > 1:
        raise ConfigurationError(f"--out {out}: expected a folder for the parts of {world.size} processes, got a file")
    if out.suffix in OTHERS or (out.suffix != PARQUET and out.exists() and not out.is_dir()):
        raise ConfigurationError(f"--out {out}: expected a file ending in {PARQUET}, or a folder for parts")
    import_extra("pyarrow.parquet", "parquet", f"writing {out}")


def write_job(
    job: Job,
    out: Path,
    about: Mapping[str, Any],
    schema: Any,
    tables: Callable[[Iterable[Chunk], Advance], Iterator[Any]],
    world: World,
    *,
    title: str,
) -> Totals:
    """Write a table of all images into a folder in parts, or into one file. All processes must call it.

    Args:
        about: what the rows depend on, as plain JSON.
        schema: a pyarrow.Schema with a column error.
        tables: the rows of images, as pyarrow.Tables; it calls its second argument with the number of images done.

    Raises:
        ConfigurationError: `out` cannot be written, or has something else or parts of another job.
        DataError: the processes have different images, a stream has another number of them than it states, or no image
            can be decoded, of which a folder has the reasons.
    """
    check_out(out, world)
    check_everywhere(job.source, world)
    if out.suffix != PARQUET:
        with open_parts(out, about, len(job.parts), world) as parts:
            return write_missing(
                parts, schema, lambda number, advance: tables(job.parts[number](), advance), world,
                images=job.images, title=title, exact=job.part_size is None,
            )  # fmt: skip
    totals = Totals()

    def rows(bar: Bar) -> Iterator[Any]:
        nonlocal totals
        for table in tables(chain.from_iterable(part() for part in job.parts), bar.advance):
            totals = totals.plus(table)
            yield table
        totals.check()

    with Bar(job.images, title) as bar:
        write_parquet(out, schema, rows(bar))
    return totals


def _chosen(source: Source, split: str) -> tuple[str, list[tuple[str, AnySplit]]]:
    """The split and what is in it; of a stream, `all` is one split after another."""
    if split == "all" and not any(isinstance(one, Split) for one in source.splits.values()):
        return split, list(source.splits.items())
    chosen, images = source.pick(split)
    return chosen, [(chosen, images)]


def _splits(source: Source) -> list[str]:
    return [name for name, split in source.splits.items() for _ in range(len(split))]


def _range(images: Split, splits: Sequence[str], rows: range) -> Iterator[Chunk]:
    yield Chunk(images.take(np.array(rows)), splits[rows.start : rows.stop])


def _shard(read: Callable[[], Iterator[Encoded]], split: str) -> Iterator[Chunk]:
    held, held_bytes = list[Encoded](), 0
    for name, label, data in read():
        held.append((name, label, data))
        held_bytes += len(data)
        if len(held) == CHUNK_IMAGES or held_bytes >= CHUNK_BYTES:
            yield _at_hand(held, split)
            held, held_bytes = [], 0
    if held:
        yield _at_hand(held, split)


def _at_hand(held: Sequence[Encoded], split: str) -> Chunk:
    names, labels, encoded = zip(*held, strict=True)
    return Chunk(Split(list(names), np.array(labels, np.int64), encoded.__getitem__), [split] * len(held))
