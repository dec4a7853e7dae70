"""Settings of torch, of the whole process, for the time in which a network runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Set torch's number of threads (a process-wide setting) and restore it."""
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


TF32_ON = "cuda"
"""The type of device on which torch's convolutions are not in float32 by default."""
_lock, _before = threading.Lock(), list[list[str]]()


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """On CUDA, float32 convolutions in float32: torch's default is TF32, which has three digits; products too.

    A process-wide setting: of several threads, the last one restores it.
    """
    if device.type != TF32_ON:
        yield
        return
    backends: Any = torch.backends
    operations = (backends.cudnn.conv, backends.cuda.matmul)
    with _lock:
        _before.append([operation.fp32_precision for operation in operations])
        for operation in operations:
            operation.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _lock:
            # What is taken is the newest; the oldest, from before all of them, is restored by the last.
            precisions = _before.pop()
            if not _before:
                for operation, precision in zip(operations, precisions, strict=True):
                    operation.fp32_precision = precision
