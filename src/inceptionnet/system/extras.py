"""Importing optional packages: one that is missing or broken is an error in one line, and only where it is needed."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from inceptionnet.errors import MissingExtraError, missing_extra


def import_extra(module: str, extra: str, purpose: str, package: str | None = None) -> ModuleType:
    """Import a module of an optional package.

    Args:
        extra: the extra that installs it.
        purpose: what needs it, as the subject of a sentence.
        package: its name. Default: the first part of the module's.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported, with the reason.
    """
    top = module.partition(".")[0]
    try:
        import_module(top)
        return import_module(module)
    except Exception as error:  # built for another torch, a missing library, another version of a dependency …
        if isinstance(error, ModuleNotFoundError) and error.name in (top, module):
            raise missing_extra(package or top, extra, purpose) from None
        reason = " ".join(str(error).split())[:300]
        raise MissingExtraError(
            f"{purpose} needs {package or top}, which is installed but cannot be imported ({type(error).__name__}: "
            f"{reason}); repair it with: pip install --force-reinstall 'inceptionnet[{extra}]'"
        ) from None


@contextmanager
def without_broken_torchvision() -> Iterator[None]:
    """For the first import of torchmetrics, which imports torchvision if it is installed: hide one that is broken.

    A torchvision that was built for another torch raises RuntimeError; nothing of it is needed here.
    """
    if {"torchmetrics", "torchvision"} & sys.modules.keys() or find_spec("torchvision") is None:
        yield
        return
    try:
        import_module("torchvision")
    except Exception:
        with _hidden("torchvision"):
            yield
    else:
        yield


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make a package look as if it were not installed, to imports and to importlib.metadata."""
    from_name = importlib.metadata.Distribution.from_name

    def found(name: str) -> importlib.metadata.Distribution:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return from_name(name)

    importlib.metadata.Distribution.from_name = found  # type: ignore[method-assign]
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        importlib.metadata.Distribution.from_name = from_name  # type: ignore[method-assign]
