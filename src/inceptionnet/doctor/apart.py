"""Work in a process of its own, which may crash, or hang, without this one.

A library that was built for another processor or another Python ends its process when it is imported: illegal
instruction, segmentation fault. On Linux the work is done in a fork, unless torch is imported already, whose threads do
not survive one; elsewhere it is done in this process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Apart(Generic[T]):
    """Work that begins at once, and of which each result is given as JSON has it; what it prints is dropped."""

    def __init__(self, work: Callable[[], Iterable[T]]) -> None:
        self._work, self._pid = work, 0
        self.ended: str = ""
        """How the process ended, if it did not come to the end of its work: a phrase such as `was ended by SIGSEGV`."""
        self.crashed: bool = False
        """Whether it ended by itself then, and not since it took too long."""
        if sys.platform == "linux" and "torch" not in sys.modules:
            sys.stdout.flush()
            self._source, into = os.pipe()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
                self._pid = os.fork()
            if not self._pid:
                _do(work, into)
            os.close(into)

    def results(self, limit_s: float) -> Iterator[Any]:
        """The results as they come; sets `ended` if they take longer than the limit, or the process ends early."""
        if not self._pid:
            yield from self._work()
            return
        until, rest, done = time.monotonic() + limit_s, b"", False
        while True:
            left = until - time.monotonic()
            if left < 0 or not select.select([self._source], [], [], left)[0]:
                self.ended = f"took longer than {limit_s:g} s"
                break
            if not (came := os.read(self._source, 1 << 16)):
                break
            *lines, rest = (rest + came).split(b"\n")
            for line in lines:
                if line == b"done":
                    done = True
                else:
                    yield json.loads(line)
        code = self.end()
        if not (self.ended or done):
            self.crashed = True
            self.ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def end(self) -> int:
        """End the process, if it has not ended; returns its exit code, a negative one for a signal."""
        if not self._pid:
            return 0
        with suppress(ProcessLookupError):
            ended, status = os.waitpid(self._pid, 0 if self._at_end() else os.WNOHANG)
            if not ended:
                os.kill(self._pid, signal.SIGKILL)
                _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._source)
        return os.waitstatus_to_exitcode(status)

    def _at_end(self) -> bool:
        """Whether the process has closed its side, so that it is about to end."""
        return bool(select.select([self._source], [], [], 0)[0]) and not os.read(self._source, 1)


def _do(work: Callable[[], Iterable[Any]], into: int) -> None:
    """In the fork."""
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        for result in work():
            os.write(into, json.dumps(result).encode() + b"\n")
        os.write(into, b"done\n")
    finally:
        os._exit(1)
