"""Judge: timm 1.0.31's own tests of models, run on every network here through timm's names for it.

`make peers` gets them from timm's source distribution. timm_functions.toml says which of them run, and which
do not and why; this file holds it to the run, and docs/timm.md to it.
"""

from __future__ import annotations

import importlib.util
import inspect
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from inceptionnet import create_model, list_models

from .conftest import Peer

HERE = Path(__file__).parent
WIDTH = 0.25  # a quarter of the filters, for time; what is tested does not depend on it
PLAN = tomllib.loads((HERE / "timm_functions.toml").read_text(encoding="utf-8"))
SMALL = ("inception_v1", "inception_v1.slim", "inception_v1.torchvision", "inception_v2", "inception_v2.slim")
"""Networks that take images of 64 px."""
GROUPS = {"all": tuple(list_models()), "small": SMALL}
VALUES = {"batch_size": 2, "cfg_device": "meta", "stop_early_final": True}
"""What timm's parametrisation gives beside the name."""


def ours(model_name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
    """timm's `create_model`; the class of `features_only` is one here, which needs no `feature_cls`."""
    arguments.pop("feature_cls", None)
    return create_model(model_name, pretrained, width=WIDTH, **arguments)


def value(model_name: str, key: str) -> Any:
    return create_model(model_name, device="meta").pretrained_cfg.get(key)


@pytest.fixture(scope="module")
def theirs(peer: Peer) -> Iterator[ModuleType]:
    """timm's test_models.py, whose `create_model` and `list_models` are this package's."""
    timm, _ = peer("timm"), peer("torchvision")
    path = Path(timm.__file__).parents[2] / "peers-timm" / "tests" / "test_models.py"
    executor = torch._C._get_graph_executor_optimize()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(timm, "create_model", ours)
        patch.setattr(timm, "list_models", lambda *_, **__: list_models())
        patch.setattr(timm, "get_pretrained_cfg_value", value)
        spec = importlib.util.spec_from_file_location("timm_test_models", path)
        assert spec and spec.loader, path
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    torch._C._set_graph_executor_optimize(executor)


@pytest.mark.parametrize(
    ("function", "name"), [(function, name) for function, group in PLAN["runs"].items() for name in GROUPS[group]]
)
@pytest.mark.filterwarnings("ignore")  # they are not this package's
def test_timms_own(theirs: ModuleType, function: str, name: str) -> None:
    test = getattr(theirs, function)
    values = {key: VALUES[key] for key in inspect.signature(test).parameters if key != "model_name"}
    torch.manual_seed(0)
    expected = PLAN["fails"].get(function, {})
    with torch.enable_grad():
        if name in expected.get("networks", ()):
            with pytest.raises(Exception, match=expected["message"]):
                test(model_name=name, **values)
        else:
            test(model_name=name, **values)
