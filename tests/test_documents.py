"""What the README says is what the package does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from inceptionnet.analysis import analyse, multiply_adds, parameters
from inceptionnet.draw import svg
from inceptionnet.edits import Configuration, configure
from inceptionnet.nets import NETWORKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_table_of_networks() -> None:
    rows = re.findall(r"^\| `(.+?)` \| .+? \| (\d+) \| ([\d,]+) \| ([\d.]+) G \|$", README, re.MULTILINE)
    figures = {name: analyse(replace(network, aux={})) for name, network in NETWORKS.items()}
    assert rows == [
        (name, str(NETWORKS[name].input_size), f"{parameters(found):,}", f"{multiply_adds(found) / 1e9:.2f}")
        for name, found in figures.items()
    ]


def test_lines_of_python_run_and_give_the_shapes_they_say() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["fast"](torch.zeros(2, 3, 75, 75)).shape == (2, 5)
    assert found["logits"].shape == (2, 5) and found["pooled"].shape == (2, 1072)
    assert found["features"]["stem_conv_1"].shape == (2, 16, 149, 149)
    assert all(shape in code for shape in ("(2, 5)", "(2, 1072)", "(2, 16, 149, 149)"))


def test_the_image_is_todays_drawing() -> None:
    drawn = svg(configure(Configuration("inception_v4", aux=True)))
    assert (ROOT / "docs" / "inception_v4.svg").read_text(encoding="utf-8") == drawn


def test_links_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_decisions_are_short() -> None:
    for document in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(document.read_text(encoding="utf-8").splitlines()) <= 40, document.name
