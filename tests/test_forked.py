"""Processes that are forked and processes that are started show a test the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import forked
from .forked import Forked

PROGRAM = """
import os, signal, sys, warnings
from a_module import answer
print(answer, sys.argv[1:], os.getcwd(), os.environ.get("MINE"), sys.stdin.read() == "")
print("said", file=sys.stderr)
warnings.warn("no error")
if os.environ["RANK"] == "1":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(3)
"""


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.skipif(not forked.FORKS, reason="no forks here")), False])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forked]:
    monkeypatch.setattr(forked, "FORKS", request.param)
    yield (made := Forked("json"))
    made.close()


def test_what_a_program_sees_and_says(processes: Forked, tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "a_module.py").write_text("answer = 42")
    env = {"PYTHONPATH": str(tmp_path / "packages"), "PATH": os.environ["PATH"]}
    for _ in range(2):
        first, second = processes.together(
            PROGRAM, "a b", 1, each=[{"RANK": "0", "MINE": "é"}, {"RANK": "1"}], env=env, cwd=tmp_path
        )
        assert (first.returncode, second.returncode) == (3, -signal.SIGKILL)
        assert first.stdout == f"42 ['a b', '1'] {tmp_path} é True\n"
        assert first.stderr.startswith("said\n") and "UserWarning: no error" in first.stderr


def test_warnings_are_errors_where_that_is_asked_for(processes: Forked) -> None:
    done = processes("import warnings; warnings.warn('of this kind')", strict=True)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "UserWarning: of this kind"


@pytest.mark.skipif(not forked.FORKS, reason="no forks here")
def test_what_is_imported_already_is_no_test_of_its_import() -> None:
    made = Forked("json")
    done = made("print('no')", absent=["json"])
    made.close()
    assert done.returncode == 1 and not done.stdout and "['json'] are imported before the program begins" in done.stderr
