"""The cache of the fastest engine in odd places and damaged: measured again, with at most one line, never an error."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inceptionnet.engines.cache import Choice, cache_file, recall, remember

from .forked import Forked

CHOICE = Choice("a", {"a": 1.5, "b": 2.0}, {"c": "is not installed"})
KEY = {"network": "x"}


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return cache_file()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    def lines() -> list[str]:
        found = caplog.messages.copy()
        caplog.clear()
        assert not any("\n" in line for line in found)
        return found

    caplog.set_level(logging.WARNING)
    return lines


def whole(place: Path) -> bool:
    """Whether the folder has nothing but a cache that can be read."""
    return (
        isinstance(json.loads((place / "engines.json").read_text())["choices"], dict) and len([*place.iterdir()]) == 1
    )


def test_truncated_and_with_flipped_bits(file: Path, said: Callable[[], list[str]]) -> None:
    remember(KEY, CHOICE)
    good, rng = file.read_bytes(), random.Random(0)
    for length in range(0, len(good) - 2, 4):  # the last line break may be missing
        file.write_bytes(good[:length])
        assert recall(KEY) is None and len(said()) == 1
    for _ in range(150):
        bad, at = bytearray(good), rng.randrange(len(good))
        bad[at] ^= 1 << rng.randrange(8)
        file.write_bytes(bad)
        found = recall(KEY)
        assert len(said()) <= (found is None), "a number or a reason may be another one, which harms nobody"
        assert found is None or found.engine == "a"
    remember(KEY, CHOICE)
    assert recall(KEY) == CHOICE and whole(file.parent) and not said()


@pytest.mark.parametrize("ms", ["NaN", "Infinity", "-1.5", "true", '"1"', "null", "1e400"])
def test_a_latency_that_is_none(ms: str, file: Path, said: Callable[[], list[str]]) -> None:
    remember(KEY, CHOICE)
    file.write_text(file.read_text().replace("1.5", ms))
    assert recall(KEY) is None
    (line,) = said()
    assert "is damaged (no latency for a)" in line


@pytest.mark.parametrize("thing", ["a folder", "a full folder", "a pipe", "a link to itself", "a link to nothing"])
@pytest.mark.skipif(os.name != "posix", reason="makes pipes and links")
def test_what_is_no_file(thing: str, file: Path, said: Callable[[], list[str]]) -> None:
    make: dict[str, Callable[[], object]] = {
        "a folder": file.mkdir,
        "a full folder": lambda: (file / "x").mkdir(parents=True),
        "a pipe": lambda: os.mkfifo(file),
        "a link to itself": lambda: file.symlink_to(file),
        "a link to nothing": lambda: file.symlink_to(file.parent / "none" / "engines.json"),
    }
    make[thing]()
    assert recall(KEY) is None and not said()
    remember(KEY, CHOICE)
    if "folder" in thing:
        assert said() == [f"{file}: cannot be written (Is a directory); the engines will be measured again next time"]
        assert [one.name for one in file.parent.iterdir()] == ["engines.json"]
    else:
        assert recall(KEY) == CHOICE and whole(file.parent) and not said()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_disk_that_takes_nothing(
    operation: str, number: int, file: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    remember(KEY, CHOICE)
    before = file.read_bytes()

    def full(*given: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, full)
        remember({"network": "y"}, CHOICE)
    assert said() == [
        f"{file}: cannot be written ({os.strerror(number)}); the engines will be measured again next time"
    ]
    assert file.read_bytes() == before and whole(file.parent) and recall(KEY) == CHOICE


def test_where_it_is_in_odd_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.delenv("INCEPTIONNET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    at_home = tmp_path / "home" / ".cache" / "inceptionnet" / "engines.json"
    for odd in ("", "relative/folder", "~/cache"):  # the standard has relative ones ignored
        monkeypatch.setenv("XDG_CACHE_HOME", odd)
        assert cache_file() == at_home
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert recall(KEY) is None and not said()
    remember(KEY, CHOICE)
    (line,) = said()
    assert line.startswith(f"{tmp_path / 'file'}") and "cannot be written (Not a directory)" in line


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]) -> None:
    """As a container has it whose user is a number that nobody knows."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("INCEPTIONNET_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert recall(KEY) is None and not said()
    remember(KEY, CHOICE)
    assert said() == [
        "engines.json: cannot be written (there is no home folder; set INCEPTIONNET_CACHE to one); the engines will be "
        "measured again next time"
    ]


def test_threads_that_write_at_once(file: Path, said: Callable[[], list[str]]) -> None:
    def work(number: int) -> None:
        for i in range(20):
            remember({"network": f"{number} {i}"}, CHOICE)
            recall(KEY)

    with ThreadPoolExecutor(4) as threads:
        [*threads.map(work, range(4))]
    assert not said() and whole(file.parent)
    assert any(recall({"network": f"{number} 19"}) for number in range(4)), "that of the last one"


@pytest.mark.slow
def test_processes_that_write_at_once(file: Path, with_torch: Forked) -> None:
    """Each finds a whole file at any time; nothing is said, and no temporary file stays."""
    code = """
import logging, sys
from inceptionnet.engines.cache import Choice, recall, remember
logging.basicConfig(level=logging.WARNING)
for i in range(60):
    remember({"network": i}, Choice("a", {"a": 1.5}, {}))
    recall({"network": i})
"""
    done = with_torch.together(code, each=[{}, {}])
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 2
    assert whole(file.parent) and recall({"network": 59})
