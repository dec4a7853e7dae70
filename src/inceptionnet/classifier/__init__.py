"""The front door: a network with its weights, classes, preprocessing and engine as one object, and what makes it.

`load` opens whatever holds a network; `Classifier` answers questions about images; `evaluate_together` compares several
on labelled images. The commands are thin over these. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inceptionnet.classifier.classifier import Classifier as Classifier
    from inceptionnet.classifier.classifier import HeatMap as HeatMap
    from inceptionnet.classifier.evaluating import Evaluated as Evaluated
    from inceptionnet.classifier.evaluating import evaluate_together as evaluate_together
    from inceptionnet.classifier.loading import described as described
    from inceptionnet.classifier.loading import load as load

_HOME = {
    "Classifier": "classifier",
    "Evaluated": "evaluating",
    "HeatMap": "classifier",
    "described": "loading",
    "evaluate_together": "evaluating",
    "load": "loading",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
