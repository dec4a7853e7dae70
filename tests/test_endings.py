"""However a command ends, no process of it stays, and nothing in the system's folders of temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from .conftest import write_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm"),
]
# Waits at its first image, or at its first step with `loss`, when its processes are at work.
COMMAND = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would this
from inceptionnet.cli import main
from inceptionnet.system import progress

sought = sys.argv.pop(1)
def advance(self, images, figures="", *more, **options):
    if sought in figures:
        print("at work", flush=True)
        time.sleep(60)
progress.Bar.advance = advance
main()
"""
SMALL = ["--model", "inception_v1.slim", "--size", 32, "--width", 0.125, "--epochs", 2, "--batch-size", 4]
SHARED = Path("/dev/shm")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("endings") / "data", 40)


def commands(data: Path, run: Path, out: Path) -> dict[str, tuple[str, list[object]]]:
    """What is waited for, and the command."""
    return {
        "train": ("loss", ["train", data, "--out", out / "run", *SMALL]),
        "copies": ("", ["train", data, "--out", out / "run", *SMALL]),
        "study": ("loss", ["study", "crops", data, "--out", out / "study", "--seeds", 2, *SMALL]),
        "check": ("", ["check", data]),
        "evaluate": ("", ["evaluate", run, data]),
        "features": ("", ["features", run, data, "--out", out / "features.parquet"]),
    }


def of_session(number: int) -> list[str]:
    """The processes of a session that are not at their end."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            about = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(about[3]) == number and about[0] != "Z":
            found.append(file.parent.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", commands(Path(), Path(), Path()))
def test_no_process_stays(name: str, number: int, data: Path, run: Path, tmp_path: Path) -> None:
    """The signal goes to the main process alone, so that its workers have to notice by themselves."""
    sought, words = commands(data, run, tmp_path / "out")[name]
    temporary = Path(tempfile.mkdtemp())  # the names of sockets in it are short
    shared = {file.name for file in SHARED.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, sought, *map(str, words), "--workers", "2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert line == "at work\n", process.stderr.read()
        assert len(of_session(process.pid)) >= 2, "it has workers"
        process.send_signal(number)
        if number != signal.SIGKILL and sought:  # a training ends with the step, and a second time at once
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            process.kill()
        since = time.monotonic()
        while left := of_session(process.pid):
            if time.monotonic() - since > 15:
                os.killpg(process.pid, signal.SIGKILL)
                raise AssertionError(f"processes {left} stay")
            time.sleep(0.1)
        said = process.stderr.read()
    assert "Traceback" not in said, said
    orderly = number == signal.SIGINT or (number == signal.SIGTERM and sought)
    assert process.returncode == (130 if orderly else -number), said
    if orderly:
        assert [*temporary.rglob("*")] == []
        temporary.rmdir()
        assert not [file for file in (tmp_path / "out").rglob("*") if file.name.startswith(".")]
    assert {file.name for file in SHARED.iterdir() if "torch" in file.name} <= shared
