"""The first cases of every target, and that faults of each kind are noticed. `make fuzz` reads more of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from inceptionnet.errors import DataError

from .target import Attempt, Bench, Target, bench
from .targets import TARGETS

MOST_S = 10
"""Processor time of a case, on a busy machine."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_errors_of_one_line(name: str) -> None:
    target = TARGETS[name]
    with bench(target, MOST_S) as on:
        for number in range(len(target.files)):
            assert not on.fault(*target.case(0, number)), f"{name} as it is: {number}"
        for number in range(len(target.files), len(target.files) + target.gate):
            assert not (fault := on.fault(*target.case(0, number))), f"{name} {number}: {fault}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_number_is_the_same_case_each_time(name: str) -> None:
    target = TARGETS[name]
    first = len(target.files)
    found = [target.case(0, number) for number in range(first, first + 8)]
    assert found == [target.case(0, number) for number in range(first, first + 8)]
    assert len({content for _, content in found} - {*target.files.values()}) > 3


KEPT: list[object] = []


def raises(error: Exception) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        raise error

    return read


def works(path: Path) -> None:
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a fit error": (raises(DataError("x: expected y, got z")), ""),
    "another error": (raises(KeyError("x")), "KeyError at nowhere: "),
    "nothing said": (raises(DataError("")), "message at nowhere: 0 characters"),
    "a warning": (lambda path: warnings.warn("x", stacklevel=1), "UserWarning at "),
    "a file left behind": (lambda path: path.with_name("more").write_text("x"), "left: "),
    "a file left open": (lambda path: KEPT.append(path.open()), "open: "),
    "a long time": (works, "slow: 0."),
    "much memory": (lambda path: len(b"x" * (600 * 2**20)), "memory: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_are_noticed(kind: str, tmp_path: Path) -> None:
    read, fault = FAULTS[kind]

    def attempted(path: Path, attempt: Attempt) -> None:
        attempt(read, path)

    on = Bench(
        Target("x", lambda _: {}, lambda _: lambda *_: b"", attempted, 0), tmp_path, most_s=0.1 if "0." in fault else 60
    )
    try:
        assert on.fault("x.txt", b"x").startswith(fault) and (fault or not on.fault("x.txt", b"x"))
    finally:
        for one in KEPT:
            one.close()  # type: ignore[attr-defined]
        KEPT.clear()
    assert {path.name for path in tmp_path.rglob("*")} == {"read", "tmp"}
