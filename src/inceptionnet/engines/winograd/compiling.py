"""Compiling kernels.cpp and its headers at first use, and loading what comes of it.

The compiler is $CXX, else c++ (g++ or clang++ with OpenMP). The library is made for this machine's processor and kept
in the cache folder (see `inceptionnet.engines.cache`), under a hash of the sources, the command, the compiler's version
and the processor's name. It shares torch's threads: the OpenMP that torch has loaded is found first.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import threading
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from inceptionnet.engines.cache import cache_file, device_name
from inceptionnet.engines.winograd.library import TILES, Filters, Library, Step
from inceptionnet.engines.winograd.transforms import header
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import contents

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno")
NATIVE = ("-march=native",)
TIMEOUT_S = 300
MOST_BYTES = 16 << 20
"""Of a library in the cache; it has less than half a megabyte."""

DIGEST = 32
"""Bytes of SHA-256 at the end of a library in the cache, over what is before them."""

log: logging.Logger = logging.getLogger("inceptionnet")
_lock = threading.Lock()


def compiler() -> list[str]:
    """The command of the compiler. Raises: ConfigurationError: it is not found."""
    words = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(words[0]) is None:
        raise ConfigurationError(
            f"engine winograd: expected a C++ compiler, got none ({words[0]} is not found); install g++, set CXX, or "
            "choose another engine"
        )
    return words


@cache
def library(options: tuple[str, ...] = NATIVE) -> Library:
    """The kernels for the processor that the compiler's `options` name, compiled unless they are in the cache.

    Raises: ConfigurationError: there is no compiler, or it fails.
    """
    with _lock, TemporaryDirectory(prefix="inceptionnet-") as folder:
        command = [*compiler(), *FLAGS, *options]
        texts = _sources()
        machine = device_name(torch.device("cpu"))
        parts = [*texts.values(), *command, _said([*compiler(), "--version"]), machine]
        name = f"kernels-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.so"
        made = Path(folder, "kernels.so")
        if not _from_cache(name, made):
            log.info("compiling the kernels of engine winograd; this is done once and takes some seconds")
            for file, text in texts.items():
                Path(folder, file).write_text(text, encoding="utf-8")
            _said([*command, str(Path(folder, "kernels.cpp")), "-o", str(made)])
            _to_cache(name, made)
        try:
            handle = ctypes.CDLL(str(made))
        except OSError as error:
            raise ConfigurationError(
                f"engine winograd: expected kernels that can be loaded, got {error}; set TMPDIR to a folder from which "
                "programs may run, or choose another engine"
            ) from None
    handle.run.restype = None
    handle.pack.restype = handle.gradient.restype = None
    handle.gradient_memory.restype = ctypes.c_int64
    assert (handle.step_size(), handle.filters_size()) == (ctypes.sizeof(Step), ctypes.sizeof(Filters))
    return Library(handle, handle.lanes(), handle.rows())


def _from_cache(name: str, path: Path) -> bool:
    """Copy a library from the cache, if it is there and whole."""
    try:
        kept = contents(cache_file().with_name(name), MOST_BYTES)
    except OSError:
        return False
    values, digest = kept[:-DIGEST], kept[-DIGEST:]
    if hashlib.sha256(values).digest() != digest:
        log.warning("%s: is damaged; compiling it again", name)
        return False
    path.write_bytes(values)
    return True


def _to_cache(name: str, path: Path) -> None:
    values = path.read_bytes()
    try:
        with replacing(cache_file().with_name(name)) as temporary:
            temporary.write_bytes(values + hashlib.sha256(values).digest())
    except OSError as error:
        log.warning("%s: cannot be written (%s); the kernels will be compiled again next time", name, error.strerror)


def _sources() -> dict[str, str]:
    """The texts that are compiled together, by name: what the package has, and the matrices of the transforms."""
    kept = sorted(files("inceptionnet.engines.winograd").iterdir(), key=lambda file: file.name)
    texts = {file.name: file.read_text(encoding="utf-8") for file in kept if file.name.endswith((".cpp", ".h"))}
    pairs = sorted({pair for kernel, tiles in TILES.items() for pair in _pairs(kernel, tiles)})
    return {**texts, "transforms.h": header(pairs)}


def _pairs(kernel: tuple[int, int, int], tiles: tuple[tuple[int, int], ...]) -> set[tuple[int, int]]:
    """The (m, r) whose matrices the kernels use."""
    *sides, stride = kernel
    return {(m, 2 if stride == 2 else r) for tile in tiles for m, r in zip(tile, sides, strict=True) if r > 1}


def _said(command: list[str], *, check: bool = True) -> str:
    """What a command prints. Raises: ConfigurationError: it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"engine winograd: {command[0]} cannot be run ({error}); set CXX to another") from None
    if check and done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        )
        raise ConfigurationError(
            f"engine winograd: {command[0]} cannot compile its kernels ({lines[0].strip()}); set CXX to another "
            "compiler, or choose another engine"
        )
    return done.stdout
