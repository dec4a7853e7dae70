"""A table in parts: a folder of Parquet files that several processes write, and that a killed job goes on with.

The folder has _job.json, which says what the parts are of; part-00000-of-00012.parquet and so on; and _SUCCESS once all
parts are there, as Hadoop and Spark mark it. A part is a file that is whole or not there, so that those which are there
are finished, and nothing else needs to be kept. pyarrow, pandas and Spark pass over names that begin with _ or a dot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from inceptionnet.errors import ConfigurationError, DataError, none_read, one_line
from inceptionnet.system.distributed import World
from inceptionnet.system.extras import import_extra
from inceptionnet.system.files import FolderLock, Locked, remove_leftovers, replacing
from inceptionnet.system.opening import from_json, text_of

JOB, SUCCESS = "_job.json", "_SUCCESS"
ERROR = "error"
"""The column that says why an image could not be decoded; null where it could."""
GROUP_BYTES = 2**25
"""Rows are written in groups of about this size, so that no more of them are held."""
MOST_NAMED = 1000
_KEY = b"inceptionnet.part"
GOES_ON = "the same command goes on with the parts that are there"

Advance = Callable[[int], None]


class Totals(NamedTuple):
    """What a table in parts has."""

    rows: int = 0
    errors: int = 0
    named: tuple[tuple[str, str], ...] = ()
    """(image, reason) of up to `MOST_NAMED` of the errors."""

    def plus(self, table: Any) -> Totals:
        """With the rows of a pyarrow.Table that has the columns image and error."""
        import pyarrow.compute as pc

        column = table[ERROR]
        errors, named = len(column) - column.null_count, self.named
        if errors and len(named) < MOST_NAMED:
            bad = table.filter(pc.is_valid(column)).slice(0, MOST_NAMED - len(named))
            named += tuple(zip(bad["image"].to_pylist(), bad[ERROR].to_pylist(), strict=True))
        return Totals(self.rows + table.num_rows, self.errors + errors, named)

    def check(self) -> None:
        """Raises: DataError: no image could be decoded."""
        if self.rows == self.errors and self.named:
            name, reason = self.named[0]
            raise none_read(self.rows, name, reason)


@dataclass(frozen=True)
class Parts:
    """A folder of a table in `count` parts; made by `open_parts`."""

    folder: Path
    count: int
    job: str
    """What the parts are of, as a hash."""

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05}-of-{self.count:05}.parquet"

    def totals(self, number: int) -> Totals | None:
        """What a part has; None unless it is whole and of this job. Only the end of the file is read."""
        import pyarrow.parquet as pq

        path = self.path(number)
        try:
            footer = pq.read_metadata(path)
        except (OSError, ValueError):  # not there, or cut off where a disk lost it; pyarrow's errors are ValueErrors
            return None
        if (footer.metadata or {}).get(_KEY) != self._mark(number):
            return None
        column = footer.schema.to_arrow_schema().get_field_index(ERROR)
        groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
        errors = sum(group.num_rows - group.column(column).statistics.null_count for group in groups)
        return Totals(footer.num_rows, errors)

    def write(self, number: int, schema: Any, tables: Iterable[Any]) -> None:
        """Write the tables of a part. Raises: ConfigurationError: the file cannot be written, and is not there then."""
        marked = schema.with_metadata({**(schema.metadata or {}), _KEY: self._mark(number)})
        write_parquet(self.path(number), marked, tables, advice=f"make room or give another folder; {GOES_ON}")

    def _mark(self, number: int) -> bytes:
        return f"{number} of {self.count}, job {self.job}".encode()


def write_parquet(path: Path, schema: Any, tables: Iterable[Any], *, advice: str = "choose another file") -> None:
    """Write pyarrow tables of a schema to a .parquet file, with a checksum of each page, holding GROUP_BYTES of them.

    Raises:
        ConfigurationError: the file cannot be written; an existing file is unchanged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    repeated = [name for name in ("split", "label") if name in schema.names]
    held, held_bytes = list[Any](), 0
    try:
        with (
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, schema, use_dictionary=repeated, write_page_checksum=True) as file,
        ):
            for table in tables:
                held.append(table.replace_schema_metadata(schema.metadata))
                held_bytes += table.nbytes
                if held_bytes >= GROUP_BYTES:
                    file.write_table(pa.concat_tables(held))
                    held, held_bytes = [], 0
            if held:
                file.write_table(pa.concat_tables(held))
    except OSError as error:
        raise ConfigurationError(
            f"--out {path}: cannot be written: {error.strerror or one_line(error)}; {advice}"
        ) from None


def read_parts(folder: Path) -> Iterator[Any]:
    """The parts of a folder that is complete, as pyarrow.Tables, in order. Raises: DataError: one is damaged."""
    for path in sorted(folder.glob("part-*.parquet")):
        yield read_part(path, None)


def read_part(path: Path, columns: Sequence[str] | None) -> Any:
    """Columns (None: all) of a part as a pyarrow.Table. Raises: DataError: it is damaged."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({one_line(error)}); remove it, and {GOES_ON}") from None


@contextmanager
def open_parts(folder: Path, about: Mapping[str, Any], count: int, world: World) -> Iterator[Parts]:
    """The folder of a job, made now or left by one that was stopped. All processes must call it.

    Args:
        about: what the parts are of, as plain JSON; an existing folder must say the same.

    Raises:
        ConfigurationError: the folder cannot be written, has something else or parts of another job, or another job is
            at work in it.
        MissingExtraError: without pyarrow.
    """
    import_extra("pyarrow.parquet", "parquet", f"writing {folder}")
    described: dict[str, Any] = json.loads(json.dumps({**about, "parts": count}))
    job = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    lock = _enter(folder, described) if world.is_main else None
    try:
        world.gather(None)
        _check_same(folder, described)  # in a process that does not see the folder, or has other images
        yield Parts(folder, count, job)
    finally:
        if lock is not None:
            lock.release()


def _enter(folder: Path, described: Mapping[str, Any]) -> FolderLock:
    """Take a folder for this job; what a killed process left half written goes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except Locked as held:
        raise ConfigurationError(f"--out {folder}: process {held} is at work in it; wait for it or stop it") from None
    except OSError as error:
        raise ConfigurationError(
            f"--out {folder}: expected a folder that can be written, got {error.strerror}; give another one"
        ) from None
    try:
        remove_leftovers(folder)
        if not (folder / JOB).exists():
            if others := sorted(one.name for one in folder.iterdir() if not one.name.startswith(".")):
                raise ConfigurationError(
                    f"--out {folder}: expected a new or empty folder, or one of the same job, got one with "
                    f"{others[0]}; give another one"
                )
            write_whole(folder / JOB, json.dumps(described, indent=2) + "\n")
        _check_same(folder, described)
    except BaseException:
        lock.release()
        raise
    return lock


def _check_same(folder: Path, described: Mapping[str, Any]) -> None:
    """Raises: ConfigurationError: the folder has parts of another job."""
    try:
        before = from_json(text_of(folder / JOB))
        if not isinstance(before, dict):
            raise ValueError("other values")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ConfigurationError(
            f"{folder / JOB}: expected what the parts are of, got {reason}; all processes need the same folder, or "
            "give another one"
        ) from None
    for key in (*described, *before):
        if before.get(key) != described.get(key):
            old, new = (one_line(one.get(key, "not stated"), 60) for one in (before, described))
            raise ConfigurationError(
                f"--out {folder}: has parts of another job: its {key} is {old}, now {new}; give another folder, or the "
                "same weights, images and options"
            )


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is whole or not there. Raises: ConfigurationError."""
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; {GOES_ON}") from None
