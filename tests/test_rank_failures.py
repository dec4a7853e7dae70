"""Several processes of which one fails: all end soon, each says in one line what happened, and the run goes on later.

They meet as torchrun's do; a test with torchrun itself is at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed import HashStore, Store

from inceptionnet.data.fingerprint import description
from inceptionnet.errors import ConfigurationError, DataError, Interrupted, ProcessError, TrainingError
from inceptionnet.system import failures
from inceptionnet.system.failures import ending_together, is_lost, limit
from inceptionnet.train.resolve import resolve
from inceptionnet.train.together import check_same

from .conftest import differing, tiny_plan, write_images
from .forked import Done, Forked, met

COMMAND = """
import os, signal, subprocess, sys
from inceptionnet.cli import main
from inceptionnet.train import step

how, sys.argv = sys.argv[1], ["inceptionnet", *sys.argv[2:]]
plain = step.Stepper.step
def stepped(self, batch, number):
    if number == 5 and os.environ["RANK"] == how[-1]:
        if how.startswith("hangs"):
            subprocess.Popen(["sh", "-c", f"sleep 20; kill -9 {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
        if how.startswith("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if how.startswith("raises"):
            raise MemoryError("no room")
    return plain(self, batch, number)
step.Stepper.step = stepped
if "RANK" in os.environ:
    sys.argv = [word.replace("{rank}", os.environ["RANK"]) for word in sys.argv]
main()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("failures") / "data", 11)


def words(data: Path | str, out: Path, **changes: object) -> list[str]:
    """A training of two epochs of four steps."""
    options = {"model": "inception_v1.slim", "size": 32, "width": 0.125, "epochs": 2, "batch-size": 9, "workers": 0}
    settings = ["log.report=false", "checkpoint.every_steps=2", "log.every_steps=1"]
    return ["train", str(data), "--out", str(out), *(word for one in settings for word in ("--set", one)),
            *(str(word) for name, value in (options | changes).items() for word in (f"--{name}", value))]  # fmt: skip


def both(forked: Forked, how: str, *arguments: object, **env: str) -> tuple[list[Done], list[str]]:
    """What two processes did, and the last line of each."""
    with met(2) as each:
        done = forked.together(COMMAND, how, *arguments, each=[one | env for one in each])
    said = "\n".join(one.stderr for one in done)
    assert "Traceback" not in said, said
    return done, [(one.stderr.splitlines() or [""])[-1] for one in done]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory, with_training: Forked) -> Path:
    """The training of two processes without a failure."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done, _ = both(with_training, "plainly", *words(data, out))
    assert [one.returncode for one in done] == [0, 0] and len(list((out / "checkpoints").iterdir())) == 2
    return out


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing is soon given up."""
    monkeypatch.setattr(failures, "REPORT_S", 0.2)


def failing(error: BaseException, rank: int, store: Store) -> BaseException:
    """What becomes of an error in one of three processes."""
    with pytest.raises(BaseException) as caught, ending_together(rank, 3, store):
        raise error
    return caught.value


LOST = RuntimeError(
    "[/__w/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:15503: Connection reset by peer. This is typically "
    "caused by a remote worker hanging"
)


def test_the_first_failure_is_what_all_others_say(quick: None) -> None:
    store = HashStore()
    first = failing(DataError("red.png: is empty\x1b"), 1, store)
    assert isinstance(first, DataError) and str(first) == r"process 1 of 3: red.png: is empty\x1b"
    assert str(failing(TrainingError("no loss"), 2, store)) == "process 2 of 3: no loss", "its own"
    other = failing(LOST, 0, store)
    assert isinstance(other, ProcessError)
    assert str(other) == r"process 0 of 3: it ends, since process 1 failed: red.png: is empty\x1b"


def test_a_process_that_says_nothing_is_named(quick: None) -> None:
    store = HashStore()
    with ThreadPoolExecutor() as threads:  # handlers of signals are left alone outside the main thread
        found = threads.map(lambda rank: str(failing(LOST, rank, store)), (0, 2))
    ended = "process 1 ended without a word, killed or cut off (Read error: Connection reset by peer)"
    assert [*found] == [f"process {rank} of 3: {ended}; what was saved is kept" for rank in (0, 2)]
    late = RuntimeError("[/__w/gloo/transport/tcp/unbound_buffer.cc:116] Timed out waiting 5ms for recv operation")
    assert str(failing(late, 0, HashStore())) == (
        "process 0 of 3: no answer from processes 1, 2 within 1800 s, the limit that INCEPTIONNET_WAIT_S sets; what "
        "was saved is kept"
    )


def test_a_store_that_is_gone_changes_nothing_but_the_names(quick: None) -> None:
    class Gone(HashStore):
        def check(self, keys: list[str]) -> bool:
            raise dist.DistNetworkError("broken pipe")

        def compare_set(self, *given: str) -> bytes:
            raise dist.DistNetworkError("broken pipe")

    assert "processes 1, 2 ended without a word" in str(failing(LOST, 0, Gone()))
    assert str(failing(DataError("no images"), 0, Gone())) == "process 0 of 3: no images"


def test_other_errors_and_interruptions_stay_as_they_are(quick: None) -> None:
    for error in (RuntimeError("shapes do not fit"), Interrupted("interrupted"), KeyboardInterrupt()):
        assert failing(error, 0, store := HashStore()) is error
        assert store.check(["failed"]) == isinstance(error, RuntimeError)
    assert not is_lost(RuntimeError("shapes do not fit")) and is_lost(dist.DistBackendError("NCCL error"))


def test_sigterm_is_said_and_its_handler_put_back(quick: None) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for ending in (False, True):
            store = HashStore()
            if ending:
                store.set("failed", "process 2 failed: no images")
            with pytest.raises(ProcessError) as caught, ending_together(0, 3, store):
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # torchrun may say it again
            assert str(caught.value).startswith(
                "process 0 of 3: it ends, since process 2 failed: no images" if ending else
                "process 0 of 3: it was ended by SIGTERM, which torchrun sends if"
            )  # fmt: skip
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("stated", ["", "60", "0.5", "0", "-1", "nan", "inf", "1e99", "soon"])
def test_the_limit_is_stated_in_seconds(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCEPTIONNET_WAIT_S", stated)
    if stated in ("", "60", "0.5"):
        assert limit().total_seconds() == float(stated or 1800)
        return
    with pytest.raises(ConfigurationError, match=f"INCEPTIONNET_WAIT_S={stated}: expected a number of seconds above 0"):
        limit()


def test_images_and_options_are_the_same_everywhere(data: Path, tmp_path: Path) -> None:
    job = resolve(tiny_plan(data))
    others: list[dict[str, object]] = []
    world: Any = SimpleNamespace(size=2, gather=lambda value: [value, others.pop() or value])
    others[:] = [{}, {}]
    assert check_same(job, world) is job
    here = description(job.source)
    for name, value, said in (
        ("sizes", "", "the files of images do not have the same sizes"),
        ("fingerprint", "", "names or labels of images are not the same"),
        ("images", {"train": 9, "val": 1}, "9 train, 1 val instead of 28 train, 5 val images"),
        ("classes", ["blue", "green"], "the classes are not the same (without red)"),
        ("classes", ["green", "blue", "red"], "the classes are not the same (another order)"),
    ):
        others[:] = [here | {name: value}, {}]
        with pytest.raises(DataError) as caught:
            check_same(job, world)
        assert str(caught.value) == (
            f"data: process 1 has other images than process 0: {said}; give every process the same"
        )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_nothing_is_lost(
    rank: int, data: Path, whole: Path, tmp_path: Path, with_training: Forked
) -> None:
    began = time.monotonic()
    done, last = both(with_training, f"killed {rank}", *words(data, tmp_path / "run"))
    assert time.monotonic() - began < 30
    assert done[rank].returncode == -signal.SIGKILL and done[1 - rank].returncode == 2
    assert last[1 - rank] == (
        f"error: process {1 - rank} of 2: process {rank} ended without a word, killed or cut off "
        f"({reason(last[1 - rank])}); what was saved is kept"
    )
    assert ("resume with: inceptionnet train --resume" in done[0].stderr) == (rank == 1), "the main process says how"
    done, _ = both(with_training, "plainly", "train", "--resume", "--out", tmp_path / "run", "--workers", 0)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert differing(tmp_path / "run" / "weights.safetensors", whole / "weights.safetensors") == []


def reason(line: str) -> str:
    """The system's words of a connection that breaks, of which there are several."""
    found = line.partition("cut off (")[2].partition(")")[0]
    assert found.rpartition(": ")[2] in ("Connection reset by peer", "Connection closed by peer", "Broken pipe"), line
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_is_given_up_after_the_limit(
    rank: int, data: Path, tmp_path: Path, with_training: Forked
) -> None:
    done, last = both(with_training, f"hangs {rank}", *words(data, tmp_path / "run"), INCEPTIONNET_WAIT_S="8")
    assert done[1 - rank].returncode == 2 and done[rank].returncode == -signal.SIGKILL
    assert last[1 - rank] == (
        f"error: process {1 - rank} of 2: no answer from process {rank} within 8 s, the limit that "
        "INCEPTIONNET_WAIT_S sets; what was saved is kept"
    )
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_data_that_one_process_lacks(data: Path, tmp_path: Path, with_training: Forked) -> None:
    (tmp_path / "0").symlink_to(data)
    done, last = both(with_training, "plainly", *words(f"{tmp_path}/{{rank}}", tmp_path / "run"))
    assert [one.returncode for one in done] == [2, 2]
    assert last[1].startswith(f"error: process 1 of 2: {tmp_path}/1: ")
    assert last[0] == "error: process 0 of 2: it ends, since process 1 failed: " + last[1].partition("of 2: ")[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_data_that_is_not_the_same(command: str, data: Path, run: Path, tmp_path: Path, with_training: Forked) -> None:
    write_images(tmp_path / "0", 11)
    other = write_images(tmp_path / "1", 11)
    (other / "red" / "10.png").unlink()
    given: list[object] = ["evaluate", run, tmp_path / "{rank}", "--split", "all"]
    if command == "train":
        given = [*words(f"{tmp_path}/{{rank}}", tmp_path / "run")]
    done, last = both(with_training, "plainly", *given)
    assert [one.returncode for one in done] == [2, 2]
    for rank, line in enumerate(last):
        other = f"{rank}: process 1 has other images than process 0: "
        assert line.startswith(f"error: process {rank} of 2: {other}")
        assert line.endswith("; give every process the same")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_options_that_are_not_the_same(data: Path, tmp_path: Path, with_training: Forked) -> None:
    done, last = both(with_training, "plainly", *words(data, tmp_path / "run", seed="{rank}"))
    assert [one.returncode for one in done] == [2, 2]
    assert [line.partition("of 2: ")[2] for line in last] == [
        "seed is 1 in process 1 and 0 in process 0; start all processes with the same command"
    ] * 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_corrupt_image_of_one_process_names_it(data: Path, tmp_path: Path, with_training: Forked) -> None:
    """It fails in the middle of the training, where both write a checkpoint first."""
    folder = write_images(tmp_path / "data", 11)
    for file in sorted(folder.rglob("1*.png")):
        file.write_bytes(b"not an image")
    done, last = both(with_training, "plainly", *words(folder, tmp_path / "run"))
    assert [one.returncode for one in done] == [2, 2]
    own = [rank for rank, line in enumerate(last) if "since process" not in line]
    assert own and all("is not an image" in line for line in last), last
    for rank in {0, 1} - set(own):
        assert last[rank].startswith(f"error: process {rank} of 2: it ends, since process {1 - rank} failed: ")
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_is_known_to_the_others(data: Path, tmp_path: Path, with_training: Forked) -> None:
    with met(2) as each:
        done = with_training.together(COMMAND, "raises 1", *words(data, tmp_path / "run"), each=each)
    assert done[1].returncode == 1 and done[1].stderr.endswith("MemoryError: no room\n")
    assert done[0].stderr.splitlines()[-1] == (
        "error: process 0 of 2: it ends, since process 1 failed: MemoryError: no room"
    )


@pytest.mark.slow
def test_torchrun_says_it_too_and_starts_again(whole: Path, tmp_path: Path) -> None:
    """The same command is not refused because the run folder is there; --repeat neither."""
    script = tmp_path / "script.py"
    once = "number == 5 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'"
    script.write_text(COMMAND.replace("number == 5", once))
    given = ["train", "--repeat", whole, "--out", tmp_path / "again", "--workers", 0]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
         str(script), "killed 1", *map(str, given)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "error: process 0 of 2: process 1 ended without a word" in done.stderr
    assert "resuming in epoch 1 after 4 of its 4 steps" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert differing(tmp_path / "again" / "weights.safetensors", whole / "weights.safetensors") == []
