"""Processes that decode images: what happens if they die, hang, or have too little shared memory."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inceptionnet.data import loading, workers
from inceptionnet.data.loading import EvalLoader, TrainLoader
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.sources import open_source
from inceptionnet.errors import ConfigurationError, DataError

from .conftest import write_images

PREP = Preprocessing(size_px=32)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 12)


def loader(images: Path, workers: int = 1) -> TrainLoader:
    split = open_source(images, seed=0).splits["train"]
    return TrainLoader(split, PREP, Augment(), batch_size=4, seed=0, workers=workers, corrupt_images="fail")


def workers_of(made: TrainLoader | EvalLoader) -> list[int]:
    return [one.pid for one in made._batches.workers.loader._iterator._workers]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the workers every half second."""
    monkeypatch.setattr(workers, "LOOK_EVERY_S", 0.5)


@pytest.fixture
def slow_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One batch ready at most, so that a worker which dies after the first batch has not made the rest before."""
    monkeypatch.setattr(workers, "IN_ADVANCE", 1)
    yield


def test_a_killed_worker_is_replaced_and_no_image_is_lost(
    images: Path, quick: None, slow_images: None, caplog: pytest.LogCaptureFixture
) -> None:
    whole = [(batch.indices.tolist(), batch.images, batch.draws) for batch in loader(images, 0).epoch(3, 1)]
    made, found = loader(images), []
    handler = signal.getsignal(signal.SIGCHLD)
    with caplog.at_level(logging.WARNING):
        for number, batch in enumerate(made.epoch(3, 1)):
            found.append((batch.indices.tolist(), batch.images, batch.draws))
            if number == 1:
                os.kill(workers_of(made)[0], signal.SIGKILL)
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert len(found) == len(whole) > 4
    for one, other in zip(found, whole, strict=True):
        assert one[0] == other[0] and torch.equal(one[1], other[1]) and torch.equal(one[2], other[2])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("warning: a data worker died (DataLoader worker (pid") and line.endswith("; started again")


def test_workers_that_die_again_and_again_end_it_in_one_line(
    images: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RESTARTS", 1)
    monkeypatch.setattr(workers, "_ignore_ctrl_c", lambda worker: os._exit(1))
    with pytest.raises(DataError, match=r"the data workers died 2 times at the same batch .*fewer --workers, or 0"):
        list(loader(images).epoch(0))


def test_a_worker_that_hangs_ends_it_in_one_line(
    images: Path, quick: None, slow_images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STALLED_S", 1.0)
    made = loader(images)
    batches = made.epoch(0)
    next(batches)
    (worker,) = workers_of(made)
    os.kill(worker, signal.SIGSTOP)
    try:
        with pytest.raises(DataError, match="no batch of images came for 1 s: the data workers hang"):
            list(batches)
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("kind", [RuntimeError, EOFError, OSError])
def test_an_error_in_a_worker_is_not_taken_for_its_death(
    kind: type[Exception], images: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> None:
        raise kind("a fault of the package")

    monkeypatch.setattr(loading, "training_crop", broken)
    with pytest.raises(kind, match="a fault of the package"):
        list(loader(images).epoch(0))


def test_a_worker_that_dies_while_its_batch_is_received(
    images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The memory that it shares ends with it."""
    made, real, died = loader(images), workers._iterated, list[int]()

    def ending(loader: Any) -> Iterator[Any]:
        batches = real(loader)
        yield next(batches)
        if not died:
            died.append(1)
            raise EOFError
        yield from batches

    monkeypatch.setattr(workers, "_iterated", ending)
    whole = [batch.indices.tolist() for batch in loader(images, 0).epoch(0)]
    died.clear()
    assert [batch.indices.tolist() for batch in made.epoch(0)] == whole
    assert "a data worker died (EOFError); started again" in caplog.text


def test_too_little_shared_memory_is_said_before(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 images of 32 px in 2 batches of one worker are 24 576 bytes."""
    free = SimpleNamespace(f_bavail=24_575, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    monkeypatch.setattr(workers, "_cores", lambda: 4)
    with pytest.raises(ConfigurationError, match=r"1 data workers? need.* shared memory.*fewer --workers"):
        loader(images)
    loader(images, 0)
    free.f_bavail = 24_576
    loader(images)
