"""Programs in fresh processes without the seconds that importing torch takes each: forks of one that did it once.

A fork starts with the imported modules and with nothing that a test did. On other systems than Linux, where libraries
do not survive a fork, each program is a new interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.distributed import TCPStore

FORKS = sys.platform == "linux"
SERVER = """
import importlib, json, os, sys, warnings

for name in sys.argv[1].split():
    importlib.import_module(name)


def forked():
    "Answers every request, a line of JSON, with the exit statuses of its processes; returns in those."
    for line in sys.stdin:
        request, pids = json.loads(line), []
        for process in request["processes"]:
            pids.append(os.fork())
            if not pids[-1]:
                return request, process
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
    os._exit(0)


request, process = forked()
WRITTEN = os.O_WRONLY | os.O_CREAT
for number, name, flags in (
    (0, os.devnull, os.O_RDONLY), (1, process["out"], WRITTEN), (2, process["err"], WRITTEN)
):
    os.dup2(os.open(name, flags), number)
os.chdir(request["cwd"])
os.environ.clear()
os.environ.update(process["env"])
known = [name for name in request["absent"] if name in sys.modules]
assert not known, f"{known} are imported before the program begins"
sys.path[:0] = process["env"].get("PYTHONPATH", "").split(os.pathsep)
sys.path_importer_cache.clear()
sys.argv = ["-c", *request["arguments"]]
if request["strict"]:
    warnings.simplefilter("error")
exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Done:
    """As of subprocess.run; a negative code is the signal that ended the process."""

    returncode: int
    stdout: str
    stderr: str


class Forked:
    """Runs programs in a process that has imported these modules and nothing else."""

    def __init__(self, *modules: str) -> None:
        self.modules = modules
        self.server: subprocess.Popen[str] | None = None

    def __call__(self, code: str, *arguments: object, **options: Any) -> Done:
        """One process; options as for `together`."""
        (done,) = self.together(code, *arguments, each=[{}], **options)
        return done

    def together(
        self,
        code: str,
        *arguments: object,
        each: Sequence[Mapping[str, str]],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        strict: bool = False,
        absent: Sequence[str] = (),
    ) -> list[Done]:
        """A process at the same time for each of the environments, all with the same program.

        Args:
            each: what is added to `env`, by default this process's.
            strict: warnings are errors.
            absent: modules that may not be imported before the program begins.
        """
        with TemporaryDirectory() as folder:
            processes = [
                {"out": f"{folder}/{i}.out", "err": f"{folder}/{i}.err", "env": {**(env or os.environ), **own}}
                for i, own in enumerate(each)
            ]
            request = {
                "code": code, "arguments": [*map(str, arguments)], "cwd": str(cwd or Path.cwd()), "strict": strict,
                "absent": [*absent], "processes": processes,
            }  # fmt: skip
            codes = self._answer(request) if FORKS else self._started(request)
            return [
                Done(code, Path(one["out"]).read_text("utf-8"), Path(one["err"]).read_text("utf-8"))
                for code, one in zip(codes, processes, strict=True)
            ]

    def _answer(self, request: dict[str, Any]) -> list[int]:
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-c", SERVER, " ".join(self.modules)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self.server.stdin and self.server.stdout
        print(json.dumps(request), file=self.server.stdin, flush=True)
        codes: list[int] = json.loads(self.server.stdout.readline())
        return codes

    @staticmethod
    def _started(request: dict[str, Any]) -> list[int]:
        strict = ["-W", "error"] if request["strict"] else []
        running = []
        for one in request["processes"]:
            with open(one["out"], "w") as out, open(one["err"], "w") as err:
                running.append(
                    subprocess.Popen(
                        [sys.executable, *strict, "-c", request["code"], *request["arguments"]],
                        stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=request["cwd"], env=one["env"],
                    )
                )  # fmt: skip
        return [process.wait() for process in running]

    def close(self) -> None:
        """End the process that forks."""
        if self.server is not None:
            assert self.server.stdin and self.server.stdout
            self.server.stdin.close()
            self.server.stdout.close()
            self.server.wait()


@contextmanager
def met(size: int) -> Iterator[list[dict[str, str]]]:
    """Environments of processes that meet as torchrun's do: it has the store, and says in variables where."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    world = {"WORLD_SIZE": str(size), "MASTER_ADDR": store.host, "MASTER_PORT": str(store.port),
             "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    yield [world | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    del store
