"""Entry points for torch.hub: every network by its name (a dot is an underscore), with `create_model`'s arguments.

torch.hub.load("owner/repository", "inception_v3_torchvision", pretrained=True)
"""

import functools as _functools
import importlib as _importlib
import sys as _sys
from pathlib import Path as _Path

dependencies = ["numpy", "PIL", "safetensors", "torch"]

_sys.path.insert(0, str(_Path(__file__).resolve().parent / "src"))
_names = _importlib.import_module("inceptionnet.registry.names")
_create = _importlib.import_module("inceptionnet.registry.create").create_model


def _entry(name):
    entry = _functools.partial(_create, name)
    entry.__name__ = name.replace(".", "_")
    entry.__doc__ = f"{name}: {_names.NETWORKS[name].summary}.\n\n{_create.__doc__}"
    return entry


for _name in _names.list_models():
    globals()[_name.replace(".", "_")] = _entry(_name)

googlenet = _entry("inception_v1.torchvision")
