"""A target, its cases, and what is wrong with one."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import inceptionnet
from inceptionnet.errors import InceptionNetError, visible

from .mutate import Mutation

MOST_S, BYTES_PER_S = 2.0, 2**16
"""Processor time of a case, and the bytes for which it may be a second more."""
MOST_MEMORY_BYTES = 500 * 2**20
MOST_CHARACTERS = 4000
"""In a message; a line of more fills a terminal."""
PILLOW = f"{os.sep}PIL{os.sep}"
"""It warns of damaged tags of an image, whose pixels it reads all the same."""
SOURCE = os.path.dirname(inceptionnet.__file__) + os.sep


class Fault(Exception):
    """What an attempt does wrong; the first word says the kind, and where."""


Attempt: TypeAlias = Callable[..., Any]
"""Calls a function with arguments: its result, or None if it refuses them with a fit error. Raises: Fault."""


def attempt(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """An `Attempt`."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = function(*arguments, **options)
        for one in said:
            if PILLOW not in one.filename:
                raise Fault(f"{one.category.__name__} at {one.filename}:{one.lineno}: {str(one.message)[:300]!r}")
        return result
    except InceptionNetError as error:
        text = str(error)
        if visible(text) != text or not 5 <= len(text) <= MOST_CHARACTERS:
            raise Fault(f"message at {_place(error)}: {len(text)} characters: {text[:300]!r}") from None
    except Fault:
        raise
    except Exception as error:
        raise Fault(f"{type(error).__name__} at {_place(error)}: {str(error)[:300]!r}") from error
    return None


@dataclass(frozen=True)
class Target:
    """What reads files of one kind."""

    name: str
    make: Callable[[Path], Mapping[str, bytes]]
    """Small files by their names; the folder is for making them."""
    mutation: Callable[[str], Mutation]
    """By the name of the file."""
    read: Callable[[Path, Attempt], object]
    """Reads the file in one way or several, each of which is an attempt."""
    gate: int
    """Cases in the gate."""
    beside: Callable[[Path], object] = lambda folder: None
    """Makes other files in the folder that the file is put into."""

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            return dict(self.make(Path(folder)))

    def case(self, seed: int, number: int) -> tuple[str, bytes]:
        """Name and content of a case; the first ones are the files as they are."""
        names = list(self.files)
        if number < len(names):
            return names[number], self.files[names[number]]
        chance = Random(f"{self.name} {seed} {number}")
        name = chance.choice(names)
        others = [content for other, content in self.files.items() if other != name]
        return name, self.mutation(name)(chance, self.files[name], others)


@dataclass
class Bench:
    """A folder in which a target's cases are read, one after another."""

    target: Target
    folder: Path
    most_s: float = MOST_S
    _before: set[Path] = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "read").mkdir()
        (self.folder / "tmp").mkdir()
        self.target.beside(self.folder / "read")
        self._before = set(self.folder.rglob("*"))

    def fault(self, name: str, content: bytes) -> str:
        """What is wrong with the reading of a file; empty if nothing is."""
        path = self.folder / "read" / name
        before = path.read_bytes() if path in self._before else None
        path.write_bytes(content)
        _reset_peak()
        memory, began = _memory_bytes()[0], time.process_time()
        fault = self._read(path)
        took, most = time.process_time() - began, _memory_bytes()[1] - memory
        if not fault and took > self.most_s + len(content) / BYTES_PER_S:
            fault = f"slow: {took:.1f} s"
        if not fault and most > MOST_MEMORY_BYTES:
            fault = f"memory: {most >> 20} MiB more"
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        return fault or self._left()

    def _read(self, path: Path) -> str:
        tempfile.tempdir, usual = str(self.folder / "tmp"), tempfile.tempdir
        try:
            self.target.read(path, attempt)
        except Fault as fault:
            return str(fault)
        finally:
            tempfile.tempdir = usual
        return ""

    def _left(self) -> str:
        """What is left open, or in the folder."""
        if _open_below(self.folder):
            gc.collect()
            if still := _open_below(self.folder):
                return f"open: {still}"
        if left := set(self.folder.rglob("*")) - self._before:
            for one in sorted(left, reverse=True):
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            return f"left: {sorted(map(str, left))}"
        return ""


@contextmanager
def bench(target: Target, most_s: float = MOST_S) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(target, Path(folder), most_s)


def _place(error: BaseException) -> str:
    """The innermost place in the package."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(SOURCE)]
    return f"{frames[-1].filename.removeprefix(SOURCE)}:{frames[-1].lineno}" if frames else "nowhere"


def _open_below(folder: Path) -> list[str]:
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return []
    found = []
    for name in names:
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one of listdir
            continue
    return [one for one in found if one.startswith(str(folder))]


def _memory_bytes() -> tuple[int, int]:
    """Of this process, now and at most since the last reset."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return most, most
    kilobytes = {line.partition(":")[0]: line.split()[1] for line in text.splitlines() if line.startswith("Vm")}
    return int(kilobytes["VmRSS"]) * 1024, int(kilobytes["VmHWM"]) * 1024


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
