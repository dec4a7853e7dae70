"""The whole Inception family of image classifiers on PyTorch: every network as drawn and as released.

Nothing heavy is imported until it is used: the names below are looked up on first access.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from inceptionnet.system.extras import needing_torch
from inceptionnet.system.printing import LOGGER, VISIBLE

if TYPE_CHECKING:
    from inceptionnet.classifier import Classifier as Classifier
    from inceptionnet.classifier import load as load
    from inceptionnet.engines.choice import optimize as optimize
    from inceptionnet.errors import InceptionNetError as InceptionNetError
    from inceptionnet.model.network import InceptionNet as InceptionNet
    from inceptionnet.registry.create import create_model as create_model
    from inceptionnet.registry.names import list_models as list_models
    from inceptionnet.train.fit import fit as fit
    from inceptionnet.weights import convert as convert
    from inceptionnet.weights import load_model as load_model
    from inceptionnet.weights import read_record as read_record
    from inceptionnet.weights import save_weights as save_weights

__version__ = "0.2.0.dev0"

logging.getLogger(LOGGER).addFilter(VISIBLE)

_HOME = {
    "Classifier": "inceptionnet.classifier",
    "load": "inceptionnet.classifier",
    "InceptionNet": "inceptionnet.model.network",
    "InceptionNetError": "inceptionnet.errors",
    "convert": "inceptionnet.weights",
    "create_model": "inceptionnet.registry.create",
    "fit": "inceptionnet.train.fit",
    "list_models": "inceptionnet.registry.names",
    "load_model": "inceptionnet.weights",
    "optimize": "inceptionnet.engines.choice",
    "read_record": "inceptionnet.weights",
    "save_weights": "inceptionnet.weights",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needing_torch(f"inceptionnet.{name}"):
        home = import_module(_HOME[name])
    return getattr(home, name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
