"""A limit of time for what a data worker does with one image, which ends the process where a decoder does not return.

The time is that of the processor, so that neither a slow disk nor a busy machine counts. The system ends the process,
whatever it does; which image it had is in memory that is shared with the main process. Not on Windows.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

IMAGE_S = 30.0
"""The most time for one image; the slowest of those within the limits of memory take some 5 s."""
_POSSIBLE = hasattr(signal, "setitimer")
_NONE = -1


class TimeLimit:
    """Ends a worker that takes too long for an image. The workers inherit the object.

    Args:
        workers: the most that are ever started with it.
    """

    def __init__(self, workers: int) -> None:
        self._started = multiprocessing.Value("q", 0)
        self._pids = multiprocessing.RawArray("q", workers)
        self._images = multiprocessing.RawArray("q", [_NONE] * workers)
        self._here: tuple[int, int] | None = None  # this process, and its place in the arrays
        self._children: dict[int, BaseProcess] = {}

    @contextmanager
    def within(self, image: int) -> Iterator[None]:
        """In a worker: what is done for an image, by its number."""
        place = self._place()
        self._images[place] = image
        _alarm(IMAGE_S)
        try:
            yield
        finally:
            _alarm(0)
            self._images[place] = _NONE

    def _place(self) -> int:
        if self._here is None or self._here[0] != os.getpid():  # it may have been inherited by a fork
            with self._started.get_lock():
                place = self._started.value
                self._started.value += 1
            self._here, self._pids[place] = (os.getpid(), place), os.getpid()
        return self._here[1]

    def watch(self) -> None:
        """In the main process, after workers were started: `exceeded` can tell how these end."""
        self._children |= {child.pid: child for child in multiprocessing.active_children() if child.pid}

    def exceeded(self) -> list[int]:
        """In the main process, after a worker died: the images that took too long."""
        if not _POSSIBLE:
            return []
        return [
            image
            for pid, image in zip(self._pids, self._images, strict=True)
            if image != _NONE and pid in self._children and self._children[pid].exitcode == -signal.SIGPROF
        ]


def too_slow() -> str:
    """Why an image that took too long has no pixels."""
    return f"takes more than {IMAGE_S:.0f} s to decode"


def _alarm(seconds: float) -> None:
    if _POSSIBLE:
        signal.setitimer(signal.ITIMER_PROF, seconds)
