"""Versions, processor and cache folder; without torch."""

from __future__ import annotations

import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import inceptionnet
from inceptionnet.doctor.finding import Finding
from inceptionnet.engines.cache import cache_file
from inceptionnet.engines.cache import processor as processor_name
from inceptionnet.errors import message_of
from inceptionnet.system.devices import cores_allowed, cpu_says

SETS = {
    "x86": {"AVX2": "avx2", "AVX-512": "avx512f", "AVX512_VNNI": "avx512_vnni", "AVX512_BF16": "avx512_bf16",
            "AMX": "amx_tile"},
    "ARM": {"NEON": "asimd", "SVE": "sve", "BF16": "bf16", "I8MM": "i8mm"},
}  # fmt: skip
"""The instruction sets that speed depends on, by the names of /proc/cpuinfo."""
X86 = ("x86_64", "AMD64", "i686", "i386")


def versions() -> Iterator[Finding]:
    """Of the package, Python and the operating system."""
    version = inceptionnet.__version__
    yield Finding("versions", "inceptionnet", version, version)
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    yield Finding("versions", "python", python, python)
    system = operating_system()
    yield Finding("versions", "system", system, system)


def operating_system() -> str:
    """The system with its release, distribution and C library."""
    parts = [f"{platform.system()} {platform.release()} {platform.machine()}"]
    try:
        parts.append(platform.freedesktop_os_release()["PRETTY_NAME"])
    except (OSError, KeyError):
        parts += [f"macOS {platform.mac_ver()[0]}"] * bool(platform.mac_ver()[0])
    parts += [" ".join(platform.libc_ver())] * any(platform.libc_ver())
    return ", ".join(parts)


def processor() -> Iterator[Finding]:
    """Its model, the instruction sets that matter, and the cores."""
    yield Finding("processor", "model", processor_name(), processor_name())
    flags = {*cpu_says("flags").split(), *cpu_says("Features").split()}
    known = SETS["x86" if platform.machine() in X86 else "ARM"]
    sets = {name: flag in flags for name, flag in known.items()} if flags else {}
    text = ", ".join(name if there else f"no {name}" for name, there in sets.items())
    yield Finding("processor", "instruction sets", sets, text or "unknown: this system does not list them")
    allowed, all_of_them = cores_allowed(), os.cpu_count()
    value = {"allowed": allowed, "all": all_of_them}
    yield Finding("processor", "cores", value, f"{allowed} that this process may use, of {all_of_them}")


def cache() -> Iterator[Finding]:
    """The folder of measured engines and compiled kernels."""
    try:
        folder = cache_file().parent
    except OSError as error:
        yield Finding("cache", "folder", None, message_of(error), True)
        return
    yield Finding("cache", "folder", str(folder), str(folder))
    size = sum(_size(file) for file in _files(folder))
    yield Finding("cache", "size", size, f"{size / 1e6:.1f} MB")
    try:
        # A file without a name, in what there is of the folder.
        tempfile.TemporaryFile(dir=next(path for path in (folder, *folder.parents) if _exists(path))).close()
    except OSError as error:
        why = f"no: {message_of(error)}; engines are measured and kernels compiled again in every process; set " \
              "INCEPTIONNET_CACHE to a folder that can be written"  # fmt: skip
        yield Finding("cache", "writable", False, why, True)
    else:
        yield Finding("cache", "writable", True, "yes")


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a name that no file can have
        return False


def _files(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _size(file: Path) -> int:
    try:
        status = file.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
