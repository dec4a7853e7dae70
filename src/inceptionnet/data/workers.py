"""Processes that decode images: started again where they die, given up where they hang.

An image for which one takes too long counts as corrupt, see time_limit.py.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from inceptionnet.data.order import BatchOrder, Key
from inceptionnet.data.splits import Split
from inceptionnet.data.time_limit import TimeLimit, too_slow
from inceptionnet.errors import ConfigurationError, DataError, one_line
from inceptionnet.system.devices import SHARED_MEMORY, cores_allowed, free_shared_memory

Parts = TypeVar("Parts", covariant=True)
"""What is made of a batch."""
log: logging.Logger = logging.getLogger(__name__)

LOOK_EVERY_S = 5
"""How long a missing batch is waited for before the workers are looked at."""
STALLED_S = 300.0
"""Without a batch for so long the workers are given up, which hang then, or what they read from does."""
RESTARTS = 3
"""Times that workers which died are started again for the same batch."""
IN_ADVANCE = 2
"""Batches that each worker has ready."""
MOST_FOLDER = 107 - len("/pymp-12345678/listener-12345678")
"""Bytes of the folder in which Python has a worker's socket, whose whole name has 107."""


class Images(Protocol[Parts]):
    """Makes samples of images by their keys, and batches of samples."""

    @property
    def image_bytes(self) -> int:
        """Of a sample."""

    def sample(self, key: Key) -> Any:
        """The sample of an image."""

    def failed(self, key: Key, why: str) -> Any:
        """The sample of an image without pixels."""

    def collate(self, samples: list[Any]) -> Parts:
        """A batch."""


@dataclass(eq=False)
class _Timed(Dataset[Any]):
    """Samples of images within the limit of time; those that took too long before have no pixels."""

    images: Images[Any]
    limit: TimeLimit
    slow: set[int]
    """Positions."""

    def __getitem__(self, key: Key) -> Any:
        if get_worker_info() is None:  # nothing could be done about it in the main process
            return self.images.sample(key)
        if key.position in self.slow:
            return self.images.failed(key, too_slow())
        with self.limit.within(key.position):
            return self.images.sample(key)


class Workers(Generic[Parts]):
    """A DataLoader with persistent workers for the batches of an order; without any they are made in this process.

    Args:
        count: number of processes. More than cores or batches would only take memory; the batches are the same.

    Raises:
        ConfigurationError: too little shared memory.
    """

    def __init__(self, images: Images[Parts], order: BatchOrder, count: int) -> None:
        self.images = images
        self.order = order
        self.count: int = min(count, cores_allowed(), order.total)
        self.slow: set[int] = set()
        if self.count:
            check_temporary_folder()
            batch = images.image_bytes * min(order.batch_size, order.used)
            _check_shared_memory(batch * self.count * IN_ADVANCE, self.count)
        self._start()

    def _start(self) -> None:
        """Make a loader; its workers start with its first batch."""
        self.limit: TimeLimit = TimeLimit(self.count)
        self.loader: DataLoader[Any] = DataLoader(
            _Timed(self.images, self.limit, self.slow),
            batch_sampler=self.order,
            num_workers=self.count,
            collate_fn=self.images.collate,
            persistent_workers=self.count > 0,
            prefetch_factor=IN_ADVANCE if self.count else None,
            timeout=LOOK_EVERY_S if self.count else 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_ctrl_c,
            generator=torch.Generator(),  # else every epoch draws from the global generator of dropout
        )
        # Keeps the loader out of reference cycles, such as that of a caught DecodeError's traceback: garbage-collected
        # as part of a cycle, it closes its queues before it stops its workers, and waits 10 s for them.
        weakref.finalize(self, _let_go, self.loader)

    def _iterate(self) -> Iterator[Parts]:
        batches = _iterated(self.loader)
        self.limit.watch()
        return batches

    def batches(self) -> Iterator[Parts]:
        """The batches from `order.first` on, which moves on with them; workers that die are started again.

        Raises:
            DataError: they die again and again, or no batch comes.
        """
        if not isinstance(self.order.split, Split):  # a stream may have other images at these positions by now
            self.slow.clear()
        died, since = 0, time.monotonic()
        batches = self._iterate()
        while True:
            try:
                parts = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:
                if "DataLoader timed out" in str(error):  # so torch says that a batch is not there yet
                    if time.monotonic() - since < STALLED_S:
                        continue
                    raise DataError(
                        f"no batch of images came for {STALLED_S:.0f} s: the data workers hang, or what they read "
                        "from does; check the disk or network, or read in the main process with --workers 0"
                    ) from None
                if not _says_that_a_worker_died(error):
                    raise
                if slow := self.limit.exceeded():
                    self.slow.update(slow)
                else:
                    died += 1
                    log.warning("warning: a data worker died (%s); started again", one_line(error))
                if died > RESTARTS:
                    raise DataError(
                        f"the data workers died {died} times at the same batch ({one_line(error)}); they may have too "
                        "little memory: try fewer --workers, or 0"
                    ) from None
                self._start()
                batches = self._iterate()
                continue
            yield parts
            died, since = 0, time.monotonic()
            self.order.first += 1


def _says_that_a_worker_died(error: Exception) -> bool:
    """Not of an error within a worker, which torch raises here again. The shared memory of a batch may end with its
    worker while the batch is received."""
    said = str(error)
    return "DataLoader worker (pid" in said or not (isinstance(error, RuntimeError) or "DataLoader worker" in said)


def _iterated(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches. torch would raise a worker's death in the middle of a step; without its handler it is said
    where the next batch is waited for."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    signal.signal(signal.SIGCHLD, before)
    return batches


def check_temporary_folder() -> None:
    """Check that the sockets by which workers hand batches over can have their names. Raises: ConfigurationError."""
    folder = tempfile.gettempdir()
    if sys.platform == "linux" and len(os.fsencode(folder)) > MOST_FOLDER:
        raise ConfigurationError(
            f"the folder of temporary files, {folder}, is too long for the sockets of data workers, which allow "
            f"{MOST_FOLDER} bytes: set TMPDIR to a shorter one, or give --workers 0"
        )


def _check_shared_memory(needed: int, workers: int) -> None:
    """Check that what the workers have ready fits. Raises: ConfigurationError."""
    free = free_shared_memory()
    if free is not None and needed > free:
        raise ConfigurationError(
            f"{workers} data workers need {needed / 1e6:.0f} MB of shared memory, and {SHARED_MEMORY} has "
            f"{free / 1e6:.0f} MB free; give fewer --workers or a smaller --batch-size, or more shared memory (docker "
            "run --shm-size 1g)"
        )


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main one handles it, and it still needs its images."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _let_go(loader: DataLoader[Any]) -> None:
    """Does nothing: the reference that is its argument ends here."""
