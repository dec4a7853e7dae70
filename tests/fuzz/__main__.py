"""`python -m tests.fuzz`: cases without end, in a process that may be killed or may crash; findings become files.

`python -m tests.fuzz --read FILE` reads one of them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

STILL_S = 30
"""After so long without a word a process hangs, which a busy machine alone does not explain."""
ADDRESSES_BYTES = 6 * 2**30
"""Beyond what the process has when all is imported."""
MOST_OF_A_KIND = 3
"""Findings of one kind at one place that are kept."""


def _child(name: str, seed: int, first: int, folder: Path) -> None:
    """Read case after case; says the number of each, and what is wrong with it."""
    from .target import Bench
    from .targets import TARGETS

    faulthandler.enable()
    target = TARGETS[name]
    target.case(seed, 0)
    bench = Bench(target, folder)
    unraisable: list[str] = []
    sys.unraisablehook = lambda it: unraisable.append(f"unraisable: {it.exc_value!r} in {it.object!r}")
    warnings.simplefilter("error", ResourceWarning)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES_BYTES,) * 2)
    out, number = sys.stdout, first
    sys.stdout = sys.stderr
    while True:
        print(number, file=out, flush=True)
        file, content = target.case(seed, number)
        fault = bench.fault(file, content) or "; ".join(unraisable)
        unraisable.clear()
        if fault:
            print(number, "\t", fault.replace("\n", " "), file=out, flush=True, sep="")
        number += 1


class _Watched:
    """A child, what it said last, and whether it still says something."""

    def __init__(self, name: str, seed: int, first: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        command = [sys.executable, "-m", "tests.fuzz", "--child", name, "--seed", str(seed), "--first", str(first)]
        self.process = subprocess.Popen(
            [*command, "--folder", self.folder.name], stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        assert self.process.stdout
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(self.process.stdout, selectors.EVENT_READ)

    def line(self, most_s: float) -> str | None:
        """The next line; empty at its end, None for a hang."""
        assert self.process.stdout
        return self.process.stdout.readline() if self._waiting.select(most_s) else None

    def end(self) -> str:
        self.process.kill()
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode("utf-8", "replace")
        assert self.process.stdout
        self.process.stdout.close()
        self._waiting.close()
        self.errors.close()
        self.folder.cleanup()
        return f"exit code {code}: {said[-1500:]}"


def _fuzz(name: str, seed: int, first: int, seconds: float, out: Path) -> int:
    """Cases of a target for some seconds; returns the number of findings."""
    from .targets import TARGETS

    target, kinds, number, began = TARGETS[name], Counter[str](), first - 1, time.monotonic()

    def found(fault: str) -> None:
        kind = fault.partition(": ")[0]
        kinds[kind] += 1
        if kinds[kind] <= MOST_OF_A_KIND:
            file, content = target.case(seed, number)
            place = out / name / f"{seed}-{number}" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            (place.parent / "finding.txt").write_text(fault)
            print(f"\n{name} {number}: {fault[:600]}\n  python -m tests.fuzz --read {place}", flush=True)

    while time.monotonic() - began < seconds:
        watched = _Watched(name, seed, number + 1)
        wait_s = 120.0  # for the imports
        while time.monotonic() - began < seconds:
            line = watched.line(wait_s)
            wait_s = STILL_S
            if not line:
                what = "crash" if line == "" else f"hang: more than {STILL_S} s"
                found(f"{what}: {watched.end()}")
                break
            count, _, fault = line.partition("\t")
            number = int(count)
            if fault:
                found(fault.strip())
            elif number % 100 == 0:
                rate = (number - first) / (time.monotonic() - began)
                print(
                    f"\r{name}: {number - first} cases, {rate:.0f}/s, {sum(kinds.values())} findings ",
                    end="",
                    flush=True,
                )
        else:
            watched.end()
    print(f"\r{name}: {number - first + 1} cases from {first} on, {dict(kinds) or 'no findings'}")
    return sum(kinds.values())


def _again(file: Path) -> None:
    from .target import Bench
    from .targets import TARGETS

    warnings.simplefilter("error", ResourceWarning)
    with tempfile.TemporaryDirectory() as folder:
        print(Bench(TARGETS[file.parent.parent.name], Path(folder)).fault(file.name, file.read_bytes()) or "no fault")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", default="", help="default: all, one after another")
    parser.add_argument("--seconds", type=float, default=60, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--read", type=Path, help="read this file again")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return _child(asked.child, asked.seed, asked.first, asked.folder)
    if asked.read:
        return _again(asked.read)
    from .targets import TARGETS

    names = asked.target.split() or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        sys.exit(f"expected targets among {', '.join(TARGETS)}, got {', '.join(unknown)}")
    found = sum(_fuzz(name, asked.seed, asked.first, asked.seconds, asked.out) for name in names)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
