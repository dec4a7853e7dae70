"""Judge: timm 1.0.31's own tests of models, run on every network here through timm's names for it.

`make peers` gets them from timm's source distribution. timm_functions.toml says which of them run, and which
do not and why; this file holds it to the run, and docs/timm.md to it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import tomllib
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from inceptionnet import create_model, list_models

from ..conftest import without_repeats
from .conftest import Peer

HERE = Path(__file__).parent
WIDTH = 0.25  # a quarter of the filters, for time; what is tested does not depend on it
PLAN = tomllib.loads((HERE / "timm_functions.toml").read_text(encoding="utf-8"))
SMALL = (
    "inception_v1",
    "inception_v1.slim",
    "inception_v1.torchvision",
    "inception_v2",
    "inception_v2.slim",
    "inception_v2.caffe",
)
"""Networks that take images of 64 px."""
SCRIPTED = ("test_model_forward_torchscript", "test_model_forward_fx_torchscript")
"""Functions that compile a network, which takes seconds for each of its blocks: repeated ones are compiled once."""
GROUPS = {"all": tuple(list_models()), "small": SMALL}
VALUES: dict[str, Any] = {"batch_size": 2, "cfg_device": "meta", "stop_early_final": True, "model_kwargs": {}}
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
        spec.loader.exec_module(module)  # which takes the names from timm here, once
    yield module
    torch._C._set_graph_executor_optimize(executor)


@pytest.mark.parametrize(
    ("function", "name"), [(function, name) for function, group in PLAN["runs"].items() for name in GROUPS[group]]
)
@pytest.mark.filterwarnings("ignore")  # they are not this package's
def test_timms_own(theirs: ModuleType, function: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test = getattr(theirs, function)
    if function in SCRIPTED:
        monkeypatch.setattr(theirs, "create_model", lambda *given, **options: without_repeats(ours(*given, **options)))
    values = {key: VALUES[key] for key in inspect.signature(test).parameters if key != "model_name"}
    torch.manual_seed(0)
    expected = PLAN["fails"].get(function, {})
    with torch.enable_grad():
        if name in expected.get("networks", ()):
            with pytest.raises(Exception, match=expected["message"]):
                test(model_name=name, **values)
        else:
            test(model_name=name, **values)


def table(functions: list[str]) -> list[str]:
    """The table of docs/timm.md, one row a function; those of other architectures are one row."""
    rows, elsewhere = [], 0
    for function in functions:
        if function in PLAN["runs"]:
            group, failing = GROUPS[PLAN["runs"][function]], PLAN["fails"].get(function)
            passes = len(group) - len(failing["networks"]) if failing else len(group)
            why = f"; not {', '.join(failing['networks'])}: {failing['reason']}" if failing else ""
            why += "; the others take no images of 64 px" if group is SMALL else ""
            rows.append(f"| {function} | passes on {passes} of {len(list_models())} networks{why} |")
        elif why_not(function) == "another architecture":
            elsewhere += 1
        else:
            rows.append(f"| {function} | does not apply: {why_not(function)} |")
    return [*rows, f"| {elsewhere} others | do not apply: they test another architecture by name |"]


def why_not(function: str) -> str:
    reasons = {reason for pattern, reason in PLAN["other"].items() if fnmatchcase(function, pattern)}
    assert len(reasons) == 1, f"{function}: expected one line in timm_functions.toml, got {reasons}"
    return str(reasons.pop())


def test_the_table_is_what_runs(theirs: ModuleType) -> None:
    """`test_timms_own` runs what timm_functions.toml says; the document has it, and nothing is missing."""
    found = [name for name, value in vars(theirs).items() if name.startswith("test_") and inspect.isfunction(value)]
    assert PLAN["runs"].keys() <= set(found) and PLAN["fails"].keys() <= PLAN["runs"].keys()
    for pattern in PLAN["other"]:
        assert any(fnmatchcase(function, pattern) for function in found), pattern
    document = (HERE.parents[1] / "docs" / "timm.md").read_text(encoding="utf-8")
    lines = [line for line in document.splitlines() if line.startswith("| test_") or " others |" in line]
    assert lines == table(found)


LOOP = """
from timm import create_model
from timm.data import create_transform, resolve_model_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
model = create_model("inception_v4", num_classes=2, drop_rate=0.1, in_chans=3).train()
transform = create_transform(**resolve_model_data_config(model), is_training=False)
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
loss_of, images = LabelSmoothingCrossEntropy(0.1), torch.stack([transform(image) for image in photos])
for step in range(2):
    loss = loss_of(model(images), torch.tensor([0, 1]))
    optimizer.zero_grad(), loss.backward(), optimizer.step()
"""


@pytest.mark.parametrize("package", ["timm", "inceptionnet"])
@pytest.mark.filterwarnings("ignore")
def test_a_fine_tuning_loop_differs_in_one_line(peer: Peer, package: str) -> None:
    peer("torchvision"), peer("timm")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 320, 400, 3), dtype=np.uint8)
    scope: dict[str, Any] = {"torch": torch, "photos": [Image.fromarray(one) for one in pixels]}
    torch.manual_seed(0)
    with torch.enable_grad():
        exec(LOOP.replace("from timm import create_model", f"from {package} import create_model"), scope)
    assert type(scope["model"]).__module__.partition(".")[0] == package
    assert scope["images"].shape == (2, 3, 299, 299) and torch.isfinite(scope["loss"])
    rates = {group["lr"] * group.get("lr_scale", 1.0) for group in scope["optimizer"].param_groups}
    assert len(rates) > 10 and max(rates) == 1e-3, "a rate for each layer, the highest for the head"
    held = {id(p) for group in scope["optimizer"].param_groups for p in group["params"]}
    assert held == {id(p) for p in scope["model"].parameters()}


@pytest.mark.parametrize("name", ["inception_v2.slim", "inception_v3", "inception_resnet_v1"])
def test_torchvisions_feature_extractor(peer: Peer, name: str) -> None:
    peer("torchvision")
    extraction = importlib.import_module("torchvision.models.feature_extraction")
    model = ours(name).eval()
    last = [info["module"] for info in model.feature_info]
    nodes = extraction.get_graph_node_names(model)[1]
    wanted = {next(node for node in reversed(nodes) if node.startswith(path)): path for path in last}
    x = torch.randn(1, 3, 107, 107)
    found = extraction.create_feature_extractor(model, wanted)(x)
    expected = model.forward_intermediates(x, intermediates_only=True)
    assert all(torch.equal(found[path], grid) for path, grid in zip(last, expected, strict=True))
