"""What there is to compute with: the torch device, cores, worker processes and their shared memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from inceptionnet.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
"""Where batches are on their way from a data worker, on Linux."""


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name, such as `cuda:1`; `auto` is the accelerator that torch finds, else the CPU.

    Raises:
        ConfigurationError: an unknown device, or one that is not available.
    """
    import torch  # the rest of this file is needed where there is no torch

    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # raises if it is not available, or holds no data like `meta`
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        said = str(error).splitlines()[0]
        reason = "no such device" if said.startswith("Expected one of") else said  # a list of all that torch has
        raise ConfigurationError(f"--device {name}: not available ({reason}); use auto or cpu") from None
    return device


def default_workers(asked: int | None) -> int:
    """As many worker processes as asked for; default: half of the cores that this process may use, at most 4."""
    return min(4, max(1, cores_allowed() // 2)) if asked is None else asked


def cores_allowed() -> int:
    """The number of cores that this process may use, as by taskset; all where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_shared_memory() -> int | None:
    """Bytes of shared memory that data workers can use; None on Windows, or a system that has it elsewhere."""
    try:
        about = os.statvfs(SHARED_MEMORY)
    except (AttributeError, OSError):
        return None
    return about.f_bavail * about.f_frsize


def cpu_says(key: str) -> str:
    """The first processor's entry in /proc/cpuinfo for a key such as `model name` or `flags`; empty if absent."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in entries if name.strip() == key), "")
