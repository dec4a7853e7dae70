"""Worker processes of benchmarks/gpu.py: all work on the GPU runs in subprocesses, which can fail or be killed alone.

A worker prints one JSON object per line. Each compiled side has its own worker, since compilation takes minutes. The
workers compile in parallel, are paused while others are measured, and are measured interleaved once they are ready.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gpu_results import Row, ratios
from input_speed import import_torchvision

HERE = Path(__file__).resolve().parent
ALIVE = 18
"""Maximum number of workers, including those that are ready; each has a context and a network on the GPU."""
MEMORY = 0.6
"""Share of the GPU's memory for all workers that are not ready; the rest is for the one being measured."""


def environment(**more: str) -> dict[str, str]:
    """Environment of subprocesses: this checkout's package, and unbuffered output."""
    path = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def kill(process: subprocess.Popen[Any]) -> None:
    """Kill a process and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Worker:
    """A script of this folder that answers in JSON lines."""

    def __init__(self, arguments: Sequence[str], log: IO[str], threads: int = 1) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / arguments[0]), *arguments[1:]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            env=environment(TORCHINDUCTOR_COMPILE_THREADS=str(threads)),
        )  # fmt: skip
        self._answers: queue.Queue[Row | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):  # printed by a library during its import
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def answer(self, until: float) -> Row | None:
        """The next answer; None after the last. Raises: queue.Empty: no answer before `until`."""
        return self._answers.get(timeout=max(0.0, until - time.monotonic()))

    def answers(self, until: float) -> Iterator[Row]:
        """All answers, until the worker ends or `until`. Raises: RuntimeError: the worker died."""
        try:
            while (answer := self.answer(until)) is not None:
                yield answer
            if code := self.process.wait():
                raise RuntimeError(f"its process ended with code {code}; see the log")
        except queue.Empty:
            pass
        finally:
            kill(self.process)

    def turn(self, until: float) -> Row | None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("turn\n")
            self.process.stdin.flush()
        except OSError:
            return None
        return self.answer(until)


Columns = Callable[[Row, list[float], int], Row]
"""Table columns of a side, from its description, its times in ms and its batch size."""


@dataclass
class Side:
    """A compiled network or step, in a process of its own."""

    name: str
    by: str
    """Package and mode, for the table."""
    arguments: list[str]
    memory: float = 0.0
    """Share of the GPU's memory that it needs until it is ready; 0: little."""
    worker: Worker | None = None
    ready: Row | None = None
    """The worker's description of it, or its error."""


@dataclass
class Cell:
    """Sides that are compared with each other."""

    columns: Row
    images: int
    sides: list[Side]


class Sides:
    """Workers that compile in parallel and are then measured, cell by cell.

    Args:
        threads: threads of each worker's compilation; as many workers compile at once as the cores allow.
    """

    def __init__(self, cells: Sequence[Cell], log: IO[str], rounds: int, threads: int) -> None:
        self.cells, self.log, self.rounds, self.threads = list(cells), log, rounds, threads
        self.at_once = max(2, len(os.sched_getaffinity(0)) // threads)
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._advancing, daemon=True)
        self._thread.start()

    def _sides(self) -> list[Side]:
        return [side for cell in self.cells for side in cell.sides]

    def _busy(self) -> list[Side]:
        return [side for side in self._sides() if side.worker and side.ready is None]

    def _advancing(self) -> None:
        while not self._closed.wait(0.2):
            if self._lock.acquire(blocking=False):
                try:
                    self._advance()
                finally:
                    self._lock.release()

    def _advance(self) -> None:
        """Read the workers' answers, and start as many workers as fit, in the order of the cells."""
        for side in self._busy():
            assert side.worker
            with suppress(queue.Empty):
                side.ready = side.worker.answer(0) or {"error": "its process died; see the log"}
        for side in self._sides():
            busy, alive = self._busy(), [other for other in self._sides() if other.worker]
            if len(busy) >= self.at_once or len(alive) >= ALIVE or self._closed.is_set():
                return
            if side.worker is None and (not busy or sum(other.memory for other in (*busy, side)) <= MEMORY):
                side.worker = Worker(side.arguments, self.log, self.threads)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause all compilation."""
        with self._lock:
            busy = self._busy()
            self._signal(busy, signal.SIGSTOP)
            try:
                yield
            finally:
                self._signal(busy, signal.SIGCONT)

    @staticmethod
    def _signal(sides: Sequence[Side], number: int) -> None:
        for side in sides:
            assert side.worker
            with suppress(ProcessLookupError):
                os.killpg(side.worker.process.pid, number)

    def measured(self, until: float, columns: Columns) -> Iterator[Row]:
        """Rows of all cells that are ready before `until`."""
        while self.cells and time.monotonic() < until:
            cell = next((cell for cell in self.cells if all(side.ready for side in cell.sides)), None)
            if cell is None:
                time.sleep(0.1)
                continue
            with self.paused(), suppress(queue.Empty):
                yield from self._turns(cell, until, columns)
            with self._lock:
                self.cells.remove(cell)
                self._end(cell.sides)

    def _turns(self, cell: Cell, until: float, columns: Columns) -> Iterator[Row]:
        times: dict[str, list[float]] = {side.name: [] for side in cell.sides}
        for _ in range(self.rounds):
            for side in cell.sides:
                assert side.worker and side.ready
                if "error" not in side.ready:
                    answer = side.worker.turn(until) or {"error": "its process died; see the log"}
                    times[side.name] += [answer["ms"]] if "ms" in answer else []
                    side.ready |= {key: answer[key] for key in ("error", "traceback") if key in answer}
        theirs = next((side for side in cell.sides if side.by.startswith("timm") and "error" not in side.ready), None)
        for side in cell.sides:
            row = {"name": side.name, **cell.columns, "by": side.by}
            if "error" in side.ready:
                yield row | side.ready
                continue
            row |= columns(side.ready, times[side.name], cell.images)
            yield ratios(row, times[side.name], times[theirs.name]) if theirs and theirs is not side else row

    @staticmethod
    def _end(sides: Sequence[Side]) -> None:
        for side in sides:
            if side.worker:
                kill(side.worker.process)

    def close(self) -> None:
        """Stop all remaining workers."""
        self._closed.set()
        self._thread.join()
        self._end(self._sides())


class Answering:
    """The script's side of a worker: answers are JSON on stdout, all other output goes to the log."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, row: Row) -> None:
        print(json.dumps(row), file=self._out, flush=True)

    def serve(self, prepare: Callable[[], tuple[Row, Callable[[], float]]]) -> None:
        """Prepare a side, send its description, and send the time of a turn in ms for each line of stdin."""
        try:
            about, turn = prepare()
            self.say({"ready": True, **about})
            for _ in sys.stdin:
                self.say({"ms": turn()})
        except (Exception, SystemExit) as error:  # torch and compilers raise all kinds
            self.say(failure(error))


def asked_for(script: str, compiled: str) -> argparse.Namespace:
    """Parse the command line of a worker; `compiled` are the arguments of a compiled side."""
    parser = argparse.ArgumentParser(description=script.splitlines()[0])
    parser.add_argument("what", nargs="+", help=f"plain, or: compiled {compiled}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args()


def work(
    given: argparse.Namespace,
    plain: Callable[[argparse.Namespace, Answering], None],
    compiled: Callable[[argparse.Namespace], tuple[Row, Callable[[], float]]],
) -> None:
    """Run a worker as its command line says."""
    answering = Answering()
    if importlib.util.find_spec("timm") is not None:
        import_torchvision()  # timm imports it too, and would fail
    if given.what == ["plain"]:
        plain(given, answering)
    else:
        answering.serve(lambda: compiled(given))


def failure(error: BaseException) -> Row:
    """An error as the keys of a row."""
    said = " ".join(str(error).split())
    return {"error": f"{type(error).__name__}: {said[:300]}", "traceback": "".join(traceback.format_exception(error))}
