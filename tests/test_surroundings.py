"""What happens around a training: streams that take nothing, signals, another training in the same folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inceptionnet.errors import RunError
from inceptionnet.system.files import LOCK
from inceptionnet.train.loop import resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.run import Run
from inceptionnet.train.stop import StopRequest

from .conftest import differing
from .forked import Done, Forked

OPTIONS = ["--model", "inception_v1.slim", "--size", 32, "--width", 0.125, "--epochs", 2, "--batch-size", 8,
           "--set", "log.report=false"]  # fmt: skip
COMMAND = """
import os, sys
%s
from inceptionnet.cli import main
sys.argv[0] = "inceptionnet"
main()
"""
STREAMS = {
    "full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "closed": "os.close(2)",
    "closed before Python began": "os.close(2); sys.stderr = None",
    "without reader": "there, here = os.pipe(); os.dup2(here, 2); os.close(there)",
}
needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full and the forks of this test are Linux's")


def trained(forked: Forked, what: str, data: Path, out: Path) -> Done:
    return forked(COMMAND % what, "train", data, "--out", out, "--workers", 0, *OPTIONS)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory, with_training: Forked) -> Path:
    """A training with ordinary streams."""
    out = tmp_path_factory.mktemp("surroundings") / "whole"
    done = trained(with_training, "", colours, out)
    assert done.returncode == 0, done.stderr
    return out


def assert_same(run: Path, whole: Path) -> None:
    assert differing(run / "weights.safetensors", whole / "weights.safetensors") == []
    assert len(Run(run).read_metrics()) == 2 and not list(run.glob(".*"))


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("stream", STREAMS)
def test_standard_error_that_takes_nothing(
    stream: str, colours: Path, whole: Path, tmp_path: Path, with_training: Forked
) -> None:
    done = trained(with_training, STREAMS[stream], colours, tmp_path / "run")
    assert done.returncode == 0
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
@needs_fork
def test_standard_output_that_takes_nothing_is_said_and_the_training_is_there(
    colours: Path, whole: Path, tmp_path: Path, with_training: Forked
) -> None:
    done = trained(with_training, STREAMS["full"].replace("2)", "1)"), colours, tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: standard output cannot be written: No space left on device; what was printed is incomplete"
    )
    assert_same(tmp_path / "run", whole)


@needs_fork
def test_a_closed_stream_s_number_is_not_given_to_a_file(tmp_path: Path, with_training: Forked) -> None:
    """Else what native libraries say on standard error would be written into it."""
    file = tmp_path / "file"
    code = "os.close(2); from inceptionnet.cli.streams import prepare_streams; prepare_streams()\n"
    code += "print(open(sys.argv[1], 'w').fileno() > 2, os.path.realpath('/proc/self/fd/2'))"
    done = with_training("import os, sys\n" + code, file)
    assert done.stdout == "True /dev/null\n"


def test_a_second_training_in_a_folder_is_refused(
    colours: Path, tmp_path: Path, with_training: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first one trains, in another process; after its end, or its kill, the folder is free."""
    plan = Plan(str(colours), "inception_v1.slim", size=32, width=0.125, epochs=2, batch_size=8, workers=0)
    child = """
import os, signal, sys
from pathlib import Path
from inceptionnet.train import step
from inceptionnet.train.loop import train
from inceptionnet.train.plan import Plan
def waiting(self, *given):
    print("training", flush=True)
    sys.stdin.read()
step.Stepper.step = waiting
plan = Plan(sys.argv[1], "inception_v1.slim", size=32, width=0.125, epochs=2, batch_size=8, workers=0)
train(plan, Path(sys.argv[2]))
"""
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", child, str(colours), str(out)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as first:  # fmt: skip
        assert first.stdout and first.stdout.readline() == "training\n"
        before = sorted(out.iterdir())
        with pytest.raises(RunError, match=rf"another training is writing into it \(process {first.pid}\)"):
            resume(out)
        with pytest.raises(RunError, match="exists and is not empty"):
            train(plan, out)
        assert sorted(out.iterdir()) == before
        first.kill()
    assert (out / LOCK).exists()
    resume(out)
    assert len(Run(out).read_metrics()) == 2 and not (out / LOCK).exists()


def test_a_folder_of_something_else_is_left_as_it_is(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match=r"exists and is not empty; choose another --out$"):
        train(Plan(str(colours), "inception_v1.slim", size=32, width=0.125, epochs=1, workers=0), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_nohup_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_cluster_ends_all_processes_of_a_training_twice(colours: Path, whole: Path, tmp_path: Path) -> None:
    """SIGTERM to the whole group, data workers too: a checkpoint is written, and the run resumes bit for bit."""
    child = (
        COMMAND
        % """
import time
from inceptionnet.train import step
plain = step.Stepper.step
def slow(self, *given):
    print("step", flush=True)
    time.sleep(0.5)
    return plain(self, *given)
step.Stepper.step = slow
"""
    )
    out = tmp_path / "run"
    words = [sys.executable, "-c", child, "train", colours, "--out", out, "--workers", 1, *OPTIONS]
    with subprocess.Popen(
        [*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdout and job.stderr and job.stdout.readline() == "step\n"
        os.killpg(job.pid, signal.SIGTERM)
        time.sleep(0.1)
        os.killpg(job.pid, signal.SIGTERM)
        said = job.stderr.read()
    assert job.returncode == 130 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("error: interrupted in epoch 1 after step "), said
    resume(out)
    assert_same(out, whole)
