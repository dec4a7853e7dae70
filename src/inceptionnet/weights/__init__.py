"""Weights files: this package's own format, which contains network, classes and preprocessing, and published ones.

Published files of other libraries are recognised by their tensor names and mapped. Heavy imports wait until they are
used: the table of published files needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inceptionnet.weights.conversion import convert as convert
    from inceptionnet.weights.native import save_weights as save_weights
    from inceptionnet.weights.reading import Report as Report
    from inceptionnet.weights.reading import WeightsFile as WeightsFile
    from inceptionnet.weights.reading import load_model as load_model
    from inceptionnet.weights.reading import read_record as read_record
    from inceptionnet.weights.reading import read_weights as read_weights
    from inceptionnet.weights.record import Record as Record

_HOME = {
    "Record": "record",
    "Report": "reading",
    "WeightsFile": "reading",
    "convert": "conversion",
    "load_model": "reading",
    "read_record": "reading",
    "read_weights": "reading",
    "save_weights": "native",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
