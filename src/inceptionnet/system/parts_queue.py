"""The missing parts of a table, written by all processes from one queue, with one bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from inceptionnet.errors import ConfigurationError, DataError, Interrupted, ProcessError
from inceptionnet.system.distributed import World
from inceptionnet.system.parts import (
    ERROR,
    GOES_ON,
    MOST_NAMED,
    SUCCESS,
    Advance,
    Parts,
    Totals,
    read_part,
    write_whole,
)
from inceptionnet.system.progress import Bar

LOOK_EVERY_S = 0.2


def write_missing(
    parts: Parts,
    schema: Any,
    tables: Callable[[int, Advance], Iterable[Any]],
    world: World,
    *,
    images: int,
    title: str,
    exact: bool = False,
) -> Totals:
    """Write the parts that are missing, each by the process that is ready for it; returns what all of them have.

    All processes must call it, and return together.

    Args:
        tables: the tables of a part, which calls its second argument with the number of images that are done.
        images: expected in all parts.
        exact: whether other than `images` rows in the end are an error.

    Raises:
        ConfigurationError: a part cannot be written.
        DataError: `exact`, and other than `images` rows.
        Interrupted: Ctrl-C; the finished parts are kept.
        ProcessError: the others do nothing any more.
    """
    found = [parts.totals(i) for i in range(parts.count)] if world.is_main else []
    todo: list[int] = world.gather([i for i, part in enumerate(found) if part is None])[0]
    done = sum(part.rows for part in found if part)
    queue = _Shared(world, parts.job, len(todo))
    try:
        with Bar(images, title, shown=world.is_main, done=done) as bar:
            for i in world.taken(len(todo), f"parts of {parts.job}"):
                number = todo[i]
                parts.write(number, schema, tables(number, lambda images: bar.advance(queue.images(images))))
                queue.part()
            queue.wait(bar.advance)
    except KeyboardInterrupt:
        ready = sum(parts.path(i).exists() for i in range(parts.count))
        raise Interrupted(f"stopped: {ready} of {parts.count} parts are in {parts.folder}; {GOES_ON}") from None
    if not world.is_main:
        return Totals(0, 0)
    return _finished(parts, images if exact else None)


def _finished(parts: Parts, expected: int | None) -> Totals:
    """What all parts have; marks the folder as complete."""
    found = [parts.totals(i) for i in range(parts.count)]
    if missing := [parts.path(i).name for i, part in enumerate(found) if part is None]:
        raise ConfigurationError(
            f"--out {parts.folder}: {missing[0]} was written and is not there whole: check the disk; {GOES_ON}"
        )
    totals = Totals()
    for number, part in enumerate(found):
        assert part is not None
        if part.errors and len(totals.named) < MOST_NAMED:
            totals = totals.plus(read_part(parts.path(number), ["image", ERROR]))
        else:
            totals = Totals(totals.rows + part.rows, totals.errors + part.errors, totals.named)
    if expected is not None and totals.rows != expected:
        raise DataError(
            f"{parts.folder}: expected {expected} images as the stream states, got {totals.rows}: correct its number"
        )
    write_whole(parts.folder / SUCCESS, "")
    totals.check()
    return totals


class _Shared:
    """Images and parts that all processes have done, counted in their store."""

    def __init__(self, world: World, job: str, todo: int) -> None:
        self._store, self._job, self._todo, self._seen = world.store, job, todo, 0

    def images(self, number: int) -> int:
        """Count images done here; returns how many more there are of all processes."""
        if self._store is None:
            return number
        before, self._seen = self._seen, self._store.add(f"images of {self._job}", number)
        return self._seen - before

    def part(self) -> None:
        """Count a part done here."""
        if self._store is not None:
            self._store.add(f"done of {self._job}", 1)

    def wait(self, advance: Advance) -> None:
        """Until all parts are done, however long others take, as long as they do something.

        Not by a collective, whose time is limited.
        """
        if self._store is None:
            return
        from inceptionnet.system.failures import failure, limit

        since = time.monotonic()
        while self._store.add(f"done of {self._job}", 0) < self._todo:
            if more := self.images(0):
                advance(more)
                since = time.monotonic()
            if said := failure(self._store):
                raise ProcessError(f"it ends, since {said}")
            if time.monotonic() - since > limit().total_seconds():
                raise ProcessError(
                    f"the others did nothing for {limit().total_seconds():g} s, and parts are missing; {GOES_ON}"
                )
            time.sleep(LOOK_EVERY_S)
