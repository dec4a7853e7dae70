"""Compiling kernels.cpp at first use, and loading it.

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
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from inceptionnet.engines.cache import cache_file, device_name
from inceptionnet.engines.winograd.transforms import header
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import contents

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno")
NATIVE = ("-march=native",)
TIMEOUT_S = 300
MOST_BYTES = 16 << 20
"""Of a library in the cache; it has less than half a megabyte."""
TILES: dict[tuple[int, int, int], tuple[tuple[int, int], ...]] = {
    (1, 3, 1): ((1, 4), (1, 6)),
    (3, 1, 1): ((4, 1), (6, 1)),
    (1, 7, 1): ((1, 4), (1, 6)),
    (7, 1, 1): ((4, 1), (6, 1)),
    (3, 3, 1): ((4, 4), (6, 6)),
    (5, 5, 1): ((2, 2), (4, 4)),
    (3, 3, 2): ((3, 3), (4, 4), (5, 5)),
}
"""The tiles that kernels.cpp has, in outputs along height and width, by height, width and stride of the kernel."""

DIGEST = 32
"""Bytes of SHA-256 at the end of a library in the cache, over what is before them."""

log: logging.Logger = logging.getLogger("inceptionnet")
_lock = threading.Lock()


class Step(ctypes.Structure):
    """A layer, as kernels.cpp reads it."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "kind", "relu", "images", "height", "width", "channels", "out_height", "out_width", "out_channels",
            "kernel_height", "kernel_width", "stride_height", "stride_width", "top", "left", "tile_height",
            "tile_width", "count_padding", "chunks", "groups",
        )),
        *((name, ctypes.c_int64) for name in ("distance", "out_distance", "residual_distance")),
        *((name, ctypes.c_void_p) for name in ("in", "weight", "bias", "residual", "out")),
    )  # fmt: skip


class Filters(ctypes.Structure):
    """The filters of a convolution and what transforms them, as kernels.cpp reads them."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in (
            "out_channels", "channels", "height", "width", "down_rows", "across_rows",
        )),
        *((name, ctypes.c_int64) for name in ("out_stride", "stride", "row", "step")),
        *((name, ctypes.c_void_p) for name in ("in", "down", "across")),
    )  # fmt: skip


@dataclass(frozen=True)
class Library:
    """The compiled kernels."""

    handle: ctypes.CDLL
    lanes: int
    """Floats of a vector."""
    rows: int
    """Pixels or tiles of a product."""

    @property
    def panel(self) -> int:
        """Output channels of a product."""
        return 2 * self.lanes

    def packed(self, filters: int, channels: int, down: Tensor, across: Tensor) -> int:
        """The number of floats that `pack` writes."""
        return len(down) * len(across) * channels * ceil(filters / self.lanes) * self.lanes

    def pack(
        self, weight: Tensor, down: Tensor, across: Tensor, threads: int, *, gradient: bool = False,
        into: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The filters of a convolution in the order of the products.

        Args:
            down, across: G of each side, see `Convolution.filters`.
            gradient: those of the convolution that gives the gradient of its input.
            into: memory for them, which may be larger. Default: new memory.

        Shapes: weight float32 (O, I, r, s); down float64 (R, r), across (S, s) → 1-D.
        """
        given = _filters(weight, down, across)
        if gradient:  # input and output channels changed over, and turned by half a turn
            given.out_channels, given.channels = given.channels, given.out_channels
            given.out_stride, given.stride = given.stride, given.out_stride
            address = weight.data_ptr() + 4 * ((given.height - 1) * given.row + (given.width - 1) * given.step)
            setattr(given, "in", address)
            given.row, given.step = -given.row, -given.step
        if into is None:
            into = torch.empty(self.packed(given.out_channels, given.channels, down, across))
        self.handle.pack(ctypes.byref(given), ctypes.c_void_p(into.data_ptr()), threads)
        return into

    def gradient(
        self, step: Step, weight: Tensor, down: Tensor, across: Tensor, threads: int, memory: Tensor
    ) -> Tensor:
        """The gradient of the filters: of a step by tiles at stride 1, with that of its output as its residual.

        Args:
            memory: at least `gradient_memory` floats.

        Shapes: weight (O, I, r, s) → the same, in its memory format.
        """
        made = torch.empty_like(weight)
        given, address = _filters(made, down, across), ctypes.c_void_p(made.data_ptr())
        self.handle.gradient(
            ctypes.byref(step), ctypes.byref(given), ctypes.c_void_p(memory.data_ptr()), address, threads
        )
        return made

    def gradient_memory(self, step: Step, points: int, tiles: int, threads: int) -> int:
        """The number of floats that `gradient` needs."""
        return int(self.handle.gradient_memory(ctypes.byref(step), points, ctypes.c_int64(tiles), threads))

    def run(self, steps: ctypes.Array[Step], threads: int, scratch: int, scratch_size: int) -> None:
        """Execute the steps; `scratch` is the address of `scratch_size` floats for each thread."""
        self.handle.run(steps, len(steps), threads, ctypes.c_void_p(scratch), ctypes.c_int64(scratch_size))


def _filters(weight: Tensor, down: Tensor, across: Tensor) -> Filters:
    """The tensors must outlive what is made."""
    assert down.is_contiguous() and across.is_contiguous()
    return Filters(
        *weight.shape, len(down), len(across), *weight.stride(),
        weight.data_ptr(), down.data_ptr(), across.data_ptr(),
    )  # fmt: skip


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
        texts = {
            "kernels.cpp": files("inceptionnet.engines.winograd").joinpath("kernels.cpp").read_text(encoding="utf-8"),
            "transforms.h": header(sorted({pair for kernel, tiles in TILES.items() for pair in _pairs(kernel, tiles)})),
        }
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
