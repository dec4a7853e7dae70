"""Dynamic batching: images of different requests run as one batch, in the one thread that runs the engine.

The first image that waits sets the time: after `max_wait_s` the batch runs with what has come, earlier if it is full.
While the engine is busy, batches fill by themselves, so that under load nothing waits for nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Seen = TypeVar("Seen")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Waiting(Generic[Seen, Answer]):
    seen: Seen
    embedding: bool
    answer: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher(Generic[Seen, Answer]):
    """Runs images in batches; `submit` may be called from any thread.

    Args:
        run: a batch and whether its embeddings are wanted → an answer for each image. What it raises, all of the batch
            get.
        batch_size: the most images in a batch.
        max_wait_s: how long the first image waits for others.
        ran: told of each batch: its number of images, and seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Seen], bool], Sequence[Answer]],
        batch_size: int,
        max_wait_s: float,
        ran: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._run, self._size, self._max_wait_s, self._ran = run, batch_size, max_wait_s, ran
        self._waiting: deque[_Waiting[Seen, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._running_since: float | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, seen: Seen, embedding: bool = False) -> Future[Answer]:
        """Put an image into the next batch. A future that is cancelled before that leaves it out."""
        waiting: _Waiting[Seen, Answer] = _Waiting(seen, embedding)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.answer

    def close(self) -> None:
        """Run what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def busy_s(self) -> float:
        """For how long the batch that runs now has been running; 0 if none does."""
        since = self._running_since
        return 0.0 if since is None else time.monotonic() - since

    def _work(self) -> None:
        while batch := self._next():
            for embedding in (False, True):
                if some := [one for one in batch if one.embedding == embedding]:
                    self._answer(some, embedding)

    def _next(self) -> list[_Waiting[Seen, Answer]]:
        """The next batch; empty when all is done."""
        with self._changed:
            while True:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return []
                end = self._waiting[0].since + self._max_wait_s
                while len(self._waiting) < self._size and not self._closed and (left := end - time.monotonic()) > 0:
                    self._changed.wait(left)
                count = min(self._size, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                if batch := [one for one in batch if one.answer.set_running_or_notify_cancel()]:
                    return batch

    def _answer(self, batch: Sequence[_Waiting[Seen, Answer]], embedding: bool) -> None:
        self._running_since = start = time.monotonic()
        try:
            answers = self._run([one.seen for one in batch], embedding)
            for one, answer in zip(batch, answers, strict=True):
                one.answer.set_result(answer)
        except Exception as error:  # out of memory, say: these get no answer, the next ones may
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
        finally:
            self._running_since = None
            self._ran(len(batch), time.monotonic() - start)
