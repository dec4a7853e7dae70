"""Processes that decode images: what happens if they die, hang, or have too little shared memory."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inceptionnet.data import inspection, loading, time_limit, workers
from inceptionnet.data.check import check
from inceptionnet.data.loading import EvalLoader, TrainLoader
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.sources import open_source
from inceptionnet.data.time_limit import too_slow
from inceptionnet.errors import ConfigurationError, DataError, DecodeError

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


@pytest.fixture
def endless(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the images, two of which take for ever, but for the limit."""
    monkeypatch.setattr(time_limit, "IMAGE_S", 0.5)
    where = tmp_path / "endless"
    shutil.copytree(images, where)
    slow = {file.read_bytes() for file in sorted(where.rglob("*.png"))[3:5]}

    def slowed(real: Callable[..., Any]) -> Callable[..., Any]:
        def decode(data: bytes, *given: Any, **named: Any) -> Any:
            while data in slow and multiprocessing.parent_process() is not None:
                pass
            return real(data, *given, **named)

        return decode

    for module, name in ((loading, "training_crop"), (loading, "decode"), (inspection, "decode")):
        monkeypatch.setattr(module, name, slowed(getattr(module, name)))
    return where


@pytest.mark.skipif(sys.platform == "win32", reason="no limit there")
@pytest.mark.parametrize("corrupt_images", ["skip", "fail"])
def test_an_image_that_takes_too_long_is_corrupt(
    corrupt_images: Any, endless: Path, quick: None, slow_images: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker ends; no other image is lost, and in the next epoch it is not tried again."""
    split = open_source(endless, seed=0).splits["train"]
    names = {str(file.relative_to(endless)) for file in sorted(endless.rglob("*.png"))[3:5]} & set(split.names)
    assert names
    made = TrainLoader(split, PREP, Augment(), batch_size=4, seed=0, workers=1, corrupt_images=corrupt_images)
    if corrupt_images == "fail":
        with pytest.raises(DecodeError, match=r"\.png: takes more than 0 s to decode; remove the file, or skip"):
            list(made.epoch(0))
        return
    for epoch in range(2):
        batches = list(made.epoch(epoch))
        errors = [error for batch in batches for error in batch.decode_errors]
        assert {name for name, _ in errors} == names and {why for _, why in errors} == {too_slow()}
        seen = [index for batch in batches for index in batch.indices.tolist()]
        assert sorted(seen) == [i for i, name in enumerate(split.names) if name not in names]
    assert not caplog.records  # the images are said as other corrupt ones are


@pytest.mark.skipif(sys.platform == "win32", reason="no limit there")
def test_check_names_images_that_take_too_long(endless: Path) -> None:
    found = check(open_source(endless, seed=0), workers=1)
    slow = [str(file.relative_to(endless)) for file in sorted(endless.rglob("*.png"))[3:5]]
    assert sorted((one.name, one.reason) for one in found.decode_errors) == [(name, too_slow()) for name in slow]


@pytest.mark.skipif(sys.platform != "linux", reason="batches are handed over in another way elsewhere")
def test_a_long_folder_of_temporary_files_is_said_before(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers' batches would never arrive."""
    longest = Path("/tmp") / ("t" * (workers.MOST_FOLDER - 5))
    try:
        for folder in (longest, Path(f"{longest}t")):
            folder.mkdir(exist_ok=True)
            monkeypatch.setattr(tempfile, "tempdir", str(folder))
            if folder == longest:
                assert len(list(loader(images).epoch(0))) > 1
            else:
                with pytest.raises(ConfigurationError, match=r"too long for the sockets .* 75 bytes: set TMPDIR"):
                    loader(images)
                loader(images, 0)
    finally:
        for folder in (longest, Path(f"{longest}t")):
            shutil.rmtree(folder, ignore_errors=True)


def test_too_little_shared_memory_is_said_before(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 images of 32 px in 2 batches of one worker are 24 576 bytes."""
    free = SimpleNamespace(f_bavail=24_575, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    monkeypatch.setattr(workers, "cores_allowed", lambda: 4)
    with pytest.raises(ConfigurationError, match=r"1 data workers? need.* shared memory.*fewer --workers"):
        loader(images)
    loader(images, 0)
    free.f_bavail = 24_576
    loader(images)
