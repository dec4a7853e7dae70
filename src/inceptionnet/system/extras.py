"""Importing optional packages: one that is missing or broken is an error in one line, and only where it is needed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from traceback import walk_tb
from types import ModuleType
from typing import TYPE_CHECKING

from inceptionnet.errors import MissingExtraError, missing_extra

if TYPE_CHECKING:
    from importlib.metadata import Distribution


def version_of(package: str) -> str | None:
    """The version of an installed package, without importing it; None if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
    if top in _FONTS:
        _say_nothing_of_fonts()
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


_FONTS = ("matplotlib", "captum")
"""What looks for the fonts of the machine, which is logged where some cannot be read or have another name."""


def _say_nothing_of_fonts() -> None:
    logger = logging.getLogger("matplotlib.font_manager")
    if logger.level == logging.NOTSET:  # else a program that uses this package wants to know it
        logger.setLevel(logging.ERROR)


TORCH = ("torch", "torchmetrics", "scipy", "safetensors")
"""The packages of the extra `torch`, which everything needs but prediction with exported files."""


@contextmanager
def needing_torch(purpose: str) -> Iterator[None]:
    """For imports of what needs torch.

    Args:
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: it is not installed, nor what comes with it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TORCH:
            raise
        raise missing_extra(package, "torch", purpose) from None


@contextmanager
def importing_torchmetrics() -> Iterator[None]:
    """For imports from torchmetrics, which itself imports optional packages that are installed: hide the broken ones.

    Nothing of them (matplotlib, torchvision and others) is needed here.
    """
    with ExitStack() as hidden:
        while "torchmetrics" not in sys.modules:
            try:
                import_module("torchmetrics")
            except Exception as error:  # whatever a broken package raises when it is imported
                package = _imported_by(_TORCHMETRICS, error)
                if package is None or (package in sys.modules and sys.modules[package] is None):
                    raise
                # Imported again, since they remember which packages there are.
                for name in [name for name in sys.modules if name.partition(".")[0] in (*_TORCHMETRICS, package)]:
                    del sys.modules[name]
                hidden.enter_context(_hidden(package))
        yield


_TORCHMETRICS = ("torchmetrics", "lightning_utilities")
"""It, and what it finds out with which packages there are."""


def _imported_by(importers: Sequence[str], error: Exception) -> str | None:
    """The package whose import by others failed; None if the failure is their own."""
    frames = (str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in walk_tb(error.__traceback__))
    names = [name for name in frames if name not in ("importlib", "_frozen_importlib", "_frozen_importlib_external")]
    last = max((place for place, name in enumerate(names) if name in importers), default=len(names))
    if names[last + 1 :]:
        return names[last + 1]
    # What has no frame of its own: a package that is not there, or is a shared library.
    return error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else None


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make a package look as if it were not installed, to imports and to importlib.metadata."""
    import importlib.metadata

    from_name = importlib.metadata.Distribution.from_name

    def found(name: str) -> Distribution:
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
