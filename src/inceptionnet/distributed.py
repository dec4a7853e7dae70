"""The processes of one run: one alone, or as many as torchrun started, on one machine or several.

Control numbers and gathered results travel over gloo between CPUs, gradients over NCCL where they are on CUDA devices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and talks."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, in double precision; every process gets the same. All must call it."""
        if self.size == 1:
            return [float(value) for value in values]
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value (anything that pickles), by rank. All must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, rows: range) -> range:
        """This process's part of the rows: as even as can be, the parts in order of rank."""
        return range(
            rows.start + len(rows) * self.rank // self.size, rows.start + len(rows) * (self.rank + 1) // self.size
        )


ALONE = World()


@contextmanager
def joined_world() -> Iterator[World]:
    """The processes that torchrun started, by its environment variables; without them, this process alone."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # Processes started anew find the same store of addresses, with those of the dead in it: a prefix keeps them apart.
    store, rank, size = next(rendezvous("env://"))
    store = PrefixStore(f"attempt {_attempt()}", store)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
        dist.barrier()  # who leaves first would break off what the others still wait for
    finally:
        dist.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun started these processes anew after a failure."""
    return _attempt() > 0


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
