"""The parts of benchmarks/gpu.py: each yields rows, notes and the names of planned rows."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import IO

import gpu_inference
import gpu_step
from gpu_results import Row
from gpu_training import cifar, train
from gpu_workers import HERE, Sides, Worker, environment, kill

ROUNDS = 15
OUTCOMES = {"PASSED": "passed", "FAILED": "failed", "ERROR": "broken", "SKIPPED": "skipped"}
OUTCOME = re.compile(r"^\S*?(test_\S+) (PASSED|FAILED|ERROR|SKIPPED)")


class Parts:
    """The parts by name. Compilation for `inference` starts during the tests, which are not timed."""

    def __init__(self, given: argparse.Namespace, folder: Path, log: IO[str]) -> None:
        self.given, self.folder, self.log = given, folder, log
        self.options = ["--device", given.device, *(["--tiny"] if given.tiny else [])]
        self.timm = importlib.util.find_spec("timm") is not None
        self.compiling: Sides | None = None
        if given.parts[:2] == ["tests", "inference"]:
            self.compiling = self._compiling(gpu_inference)

    def _compiling(self, script: ModuleType) -> Sides | None:
        if self.given.no_compile:
            return None
        cells = script.cells(self.given.tiny, self.timm, self.options)
        return Sides(cells, self.log, 2 if self.given.tiny else ROUNDS, script.THREADS)

    def close(self) -> None:
        """Stop the processes that still compile."""
        if self.compiling:
            self.compiling.close()
            self.compiling = None

    def run(self, name: str, until: float) -> Generator[Row]:
        """The rows of part `name`, which ends at `until`. Raises: any exception, if the part fails."""
        given = self.given
        match name:
            case "tests":
                return self.tests(until)
            case "inference":
                return self.compared(gpu_inference, until)
            case "step":
                return self.compared(gpu_step, until)
            case "train":
                return train(given.device, given.tiny, until, self.folder, self.log)
        compiling = not (given.no_compile or given.tiny)
        return cifar(given.device, given.tiny, given.cifar, until, self.folder, self.log, compiling=compiling)

    def compared(self, script: ModuleType, until: float) -> Generator[Row]:
        """Rows of this package's networks and of timm's: first those that are not compiled, then the compiled ones."""
        cells = [] if self.given.no_compile else script.cells(self.given.tiny, self.timm, self.options)
        names = [side.name for cell in cells for side in cell.sides]
        yield {"planned": [*script.planned(self.given.tiny, self.timm), *names]}
        if not self.timm:
            yield {"note": "timm is not installed: its rows are left out"}
        if script is gpu_inference and self.given.device == "cuda" and importlib.util.find_spec("tensorrt") is None:
            yield {"note": "tensorrt is not installed: its rows are left out"}
        if script is gpu_inference and not self.compiling:
            self.compiling = self._compiling(script)
        peak = 0.0
        with self.compiling.paused() if self.compiling else nullcontext():
            for row in Worker([f"{script.__name__}.py", "plain", *self.options], self.log).answers(until):
                peak = row.get("peak", peak)
                yield row
        if script is gpu_step:  # only now, since the training steps above need the memory of the GPU
            self.compiling = self._compiling(script)
        if self.compiling:
            yield from self.compiling.measured(until, lambda *said: script.figures(*said, peak))
            self.close()

    def tests(self, until: float) -> Generator[Row]:
        """The number of tests by outcome, and every test that did not pass."""
        command = [
            *(sys.executable, "-m", "pytest", "-m", "cuda", "tests/test_cuda.py", "-p", "no:cacheprovider"),
            *("-o", "addopts=--import-mode=importlib -v", "-rfEs", "-W", "default"),
        ]
        process = subprocess.Popen(
            command, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
            start_new_session=True, env=environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        )  # fmt: skip
        late = threading.Timer(until - time.monotonic(), kill, [process])
        late.start()
        counts, reasons = dict.fromkeys(OUTCOMES, 0), dict[str, str]()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                self.log.write(line)
                if found := OUTCOME.match(line):
                    counts[found[2]] += 1
                    if found[2] in ("FAILED", "ERROR"):
                        reasons[found[1]] = OUTCOMES[found[2]]
                elif found := re.match(r"(?:FAILED|ERROR) \S*?(test_\S+) - (.*)", line):
                    reasons[found[1]] = found[2]
            code = process.wait()
        finally:
            cut = not late.is_alive()
            late.cancel()
            kill(process)
        yield {"name": "pytest -m cuda tests", **{what: counts[key] for key, what in OUTCOMES.items()}}
        yield from ({"name": test, "error": why} for test, why in reasons.items())
        if cut:
            yield {"name": "remaining tests", "left_out": "not run: no time left"}
        elif code not in (0, 1):
            raise RuntimeError(f"pytest ended with code {code}; see the log")
