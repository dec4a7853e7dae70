"""The processes of a run: a single one, or those started by torchrun, on one machine or several.

Counts and gathered results are communicated over gloo on the CPU, gradients on CUDA devices over NCCL. What happens
when one of the processes fails is in failures.py. torch is imported where there are several processes, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inceptionnet.errors import ConfigurationError, ProcessError, one_line

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


@dataclass(frozen=True)
class World:
    """The rank of this process and the number of processes."""

    rank: int = 0
    size: int = 1
    store: Store | None = None
    """What all processes can read and write at any time; None for a single process."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in double precision, in every process. All processes must call it."""
        if self.size == 1:
            return [float(value) for value in values]
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes (anything that pickles), by rank. All processes must call it."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def taken(self, number: int, queue: str) -> Iterator[int]:
        """Of the numbers from 0 below `number` those that this process takes from a queue that all processes share.

        A process takes one whenever it is ready for it; the processes need not call it at the same time.
        """
        if self.store is None:
            yield from range(number)
            return
        while (taken := self.store.add(queue, 1) - 1) < number:
            yield taken

    def share(self, rows: range, *, pairs: bool = False) -> range:
        """This process's share of the rows: contiguous, in order of rank, and as equal as possible.

        Args:
            pairs: the first and second row stay together, the third and fourth, and so on.
        """
        return cut(rows, self.rank, self.size, pairs=pairs)


def cut(rows: range, number: int, count: int, *, pairs: bool = False) -> range:
    """Piece `number` of `count` pieces of the rows, as equal as possible; with `pairs` every piece begins at a pair."""
    step, units = (2, (len(rows) + 1) // 2) if pairs else (1, len(rows))
    start, stop = (rows.start + step * (units * i // count) for i in (number, number + 1))
    return range(start, rows.stop if number + 1 == count else stop)


ALONE = World()


def processes() -> int:
    """The number of processes that torchrun started; 1 without it. Raises: ConfigurationError: it is no number."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """An environment variable of torchrun."""
    value = os.environ.get(name, str(default))
    if not value.isascii() or not value.isdecimal():
        raise ConfigurationError(f"{name}={value!r}: expected a number; start the processes with torchrun")
    return int(value)


@contextmanager
def joined_world() -> Iterator[World]:
    """Join the processes started by torchrun, by its environment variables; without them, this process alone.

    Raises:
        ConfigurationError: one of them is no number.
        ProcessError: another process has not come, has failed, is gone, or does not answer within `failures.limit`.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        yield ALONE
        return
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        _number(name, 0)
    import torch
    import torch.distributed as dist

    from inceptionnet.system.failures import ending_together

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    world = _join("cpu:gloo,cuda:nccl" if cuda else "gloo")
    assert world.store is not None
    try:
        with ending_together(world.rank, world.size, world.store):
            yield world
            dist.barrier()  # a process that leaves early would break off collectives of the others
    finally:
        dist.destroy_process_group()


def _join(backend: str) -> World:
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    from inceptionnet.system.failures import is_lost, limit

    patience = limit()
    try:
        # Restarted processes get the same store, which still has the addresses of dead ones: a prefix separates them.
        store, rank, size = next(rendezvous("env://", timeout=patience))
        store = PrefixStore(f"attempt {_attempt()}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    except RuntimeError as error:
        if not is_lost(error):
            raise
        rank, size = (os.environ[name] for name in ("RANK", "WORLD_SIZE"))
        raise ProcessError(
            f"process {rank} of {size}: the processes did not find one another within {patience.total_seconds():g} s "
            f"({one_line(error, 100)}); start all of them again"
        ) from None
    return World(rank, size, store)


def share_cores() -> None:
    """Give this process its share of the cores, where torchrun started several on the machine.

    torchrun allows each a single thread unless OMP_NUM_THREADS says otherwise, and engines with threads of their own
    would each take all cores.
    """
    processes = _number("LOCAL_WORLD_SIZE", 1)
    if processes < 2 or os.environ.get("OMP_NUM_THREADS", "1") != "1" or not hasattr(os, "sched_setaffinity"):
        return
    import torch

    cores = sorted(os.sched_getaffinity(0))
    mine = cut(range(len(cores)), _number("LOCAL_RANK", 0), processes)
    if mine:  # else there are more processes than cores
        os.sched_setaffinity(0, [cores[i] for i in mine])
        torch.set_num_threads(len(mine))


def restarted() -> bool:
    """Whether torchrun restarted these processes after a failure."""
    return _attempt() > 0


def _attempt() -> int:
    return _number("TORCHELASTIC_RESTART_COUNT", 0)
