"""Every operation on files that a training does may fail or be the last: it resumes bit for bit, or says what it lost.

faults.c, built here, makes the faults. Some of them run as slow tests, and all of them, about 900 of a few seconds
each, with FAULTS=all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inceptionnet.errors import InceptionNetError
from inceptionnet.train.loop import resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.run import Run

from .conftest import differing
from .forked import Done, Forked, met

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler, to make the faults"
    ),
]
KINDS = {
    "kill": "", "kill-after": "", "kill-short": "", "full-once": "No space left on device",
    "full": "No space left on device", "broken-once": "Input/output error", "read-only": "Read-only file system",
}  # fmt: skip
"""With what is said of the failure."""
SETTINGS = {
    "log.report": False, "log.every_steps": 4, "checkpoint.every_steps": 2, "checkpoint.keep": 1, "average.decay": 0.9,
}  # fmt: skip
COMMAND = 'import sys; from inceptionnet.cli import main; sys.argv[0] = "inceptionnet"; main()'
EPOCHS = 2
OPERATIONS = 130
"""At least so many are there."""


def plan(data: Path) -> Plan:
    return Plan(
        str(data), "inception_v1.slim", size=32, width=0.125, epochs=EPOCHS, batch_size=8, workers=0, settings=SETTINGS
    )


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training without a fault."""
    out = tmp_path_factory.mktemp("faults") / "whole"
    train(plan(colours), out)
    return out


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    """Runs programs in a process with the faults."""
    library = tmp_path_factory.mktemp("library") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    forked = Forked("inceptionnet.train.loop", "inceptionnet.evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        forked("pass")  # the process that forks starts here
    yield forked
    forked.close()


def command(data: Path, out: Path) -> list[object]:
    options = ["--model", "inception_v1.slim", "--size", 32, "--width", 0.125, "--epochs", EPOCHS, "--batch-size", 8]
    options += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={str(value).lower()}")]
    return ["train", data, "--out", out, "--workers", 0, *options]


def trained(faulty: Forked, data: Path, out: Path, **faults: object) -> Done:
    env = {f"FAULTS_{key.upper()}": str(value) for key, value in faults.items()}
    return faulty(COMMAND, *command(data, out), env={**os.environ, **env})


def files(run: Path) -> set[str]:
    return {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}


def assert_same(run: Path, whole: Path, said: str = "") -> None:
    """The same weights and files, but for those that are said to be lost."""
    for name in files(whole):
        if Path(name).name in said:
            continue
        assert (run / name).exists(), name
        if name.endswith(".safetensors"):
            assert differing(run / name, whole / name) == [], name
    more = [name for name in files(run) - files(whole) if Path(name).name not in said]
    # One that is not written leaves the one before it.
    assert [name for name in more if not (name.startswith("checkpoints") and "checkpoints" in said)] == []


def check(kind: str, at: int, data: Path, whole: Path, out: Path, faulty: Forked) -> None:
    log = out.with_name("operations")
    done = trained(faulty, data, out, under=out, at=at, kind=kind, log=log)
    faults = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith(" fault")]
    said = f"{kind}, exit status {done.returncode}, of {len(faults)} faults the first is {faults[:1]}:\n{done.stderr}"
    assert "Traceback" not in done.stderr, said
    if faults and kind.startswith("kill"):
        assert done.returncode == -signal.SIGKILL, said
    else:
        assert done.returncode in (0, 2), said
        # After an error of sendfile Python copies the file in another way.
        unsaid = not faults or (kind == "broken-once" and faults[0].split()[1] == "sendfile")
        assert unsaid or KINDS[kind] in done.stderr, said
    if done.returncode == 0:
        # Where nothing can be removed, temporary files and the lock stay, until a resume.
        hidden = [file.name for file in out.rglob(".*")] if kind == "read-only" else []
        assert_same(out, whole, " ".join([done.stderr, *hidden]))
        return
    try:
        resume(out) if Run(out).exists else train(plan(data), out)
    except InceptionNetError as error:
        raise AssertionError(f"cannot go on: {error}; after {said}") from error
    assert_same(out, whole)


def test_the_operations_are_seen(colours: Path, whole: Path, tmp_path: Path, faulty: Forked) -> None:
    done = trained(faulty, colours, tmp_path / "run", under=tmp_path / "run", log=tmp_path / "log")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "run", whole)
    seen = [line.split()[1] for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert len(seen) >= OPERATIONS
    assert {"mkdir", "open", "write", "fsync", "ftruncate", "rename", "unlink", "chmod", "sendfile"} <= {*seen}


def chosen() -> Iterator[object]:
    """Which faults are tried: those of each kind at different operations, unless all are wanted."""
    everything = os.environ.get("FAULTS") == "all"
    for number, kind in enumerate(KINDS):
        for at in range(1, OPERATIONS + 1):
            turn = at * len(KINDS) + number
            if everything or turn % 37 == 0:
                yield pytest.param(kind, at, id=f"{kind}-{at}")


@pytest.mark.parametrize(("kind", "at"), [*chosen()])
def test_a_fault_is_survived_or_said(
    kind: str, at: int, colours: Path, whole: Path, tmp_path: Path, faulty: Forked
) -> None:
    check(kind, at, colours, whole, tmp_path / "run", faulty)


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_a_full_disk_of_the_main_process_alone(
    kind: str, colours: Path, whole: Path, tmp_path: Path, faulty: Forked
) -> None:
    """From its second epoch on: both processes end, and what was saved before is there to go on from."""
    out = tmp_path / "run"
    faults = {"FAULTS_UNDER": str(out), "FAULTS_KIND": kind, "FAULTS_AT": str(OPERATIONS // 2)}
    with met(2) as (first, second):
        done = faulty.together(COMMAND, *command(colours, out), each=[first | faults, second])
    said = "\n".join(one.stderr for one in done)
    assert [one.returncode for one in done] == [2, 2] and "Traceback" not in said, said
    last = [one.stderr.splitlines()[-1] for one in done]
    assert last[0].startswith(f"error: process 0 of 2: {out / 'weights_raw.safetensors'}: cannot write the weights: ")
    assert KINDS[kind] in last[0] and ".part-" not in last[0]
    assert last[1] == "error: process 1 of 2: it ends, since process 0 failed: " + last[0].partition("of 2: ")[2]
    resume(out)
    assert files(out) == files(whole) and len(Run(out).read_metrics()) == EPOCHS
