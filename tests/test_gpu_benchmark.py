"""benchmarks/gpu.py on the CPU with little of everything: what it measures, says and writes, and what it does not."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from .test_gpu_engines import stand_in

GPU = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"
PARTS = ("tests", "inference", "step", "train", "cifar")


def gpu(out: Path, *options: str, code: int = 0) -> tuple[str, dict[str, Any], str]:
    """Standard output, JSON and Markdown of a run that ends with that code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("INCEPTIONNET_TEST_DEVICE", None)
    done = subprocess.run(
        [sys.executable, str(GPU), "--tiny", "--no-compile", "--out", str(out), *options],
        capture_output=True, text=True, cwd=out.parent, env=environment,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, json.loads((out / "results.json").read_text()), (out / "results.md").read_text()


@pytest.mark.slow
def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    said, found, table = gpu(tmp_path / "whole", "--limit", "9m")
    about, parts = found["about"], found["parts"]
    assert about["device"] == "cpu" and about["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "numpy", "pydantic", "simplejpeg", "cores", "limit"} <= about.keys()
    assert tuple(parts) == PARTS and {part["state"] for part in parts.values()} == {"done"}
    for name, part in parts.items():
        assert part["rows"] and f"## {name}\n\ndone, " in table and f"{name}: done" in said
        assert not any("error" in row or "left_out" in row for row in part["rows"])
    for key, value in about.items():
        assert f"- {key}: {value}\n" in table and f"{key}: {value}\n" in said
    check_counts(parts["tests"])
    check_engines(parts["inference"])
    check_trainings(parts)


def check_counts(part: dict[str, Any]) -> None:
    """Without a CUDA device all are skipped."""
    (row,) = part["rows"]
    assert row["failed"] == row["broken"] == 0 and row["passed"] + row["skipped"] > 15
    assert (row["passed"] > 0) == torch.cuda.is_available()


def check_engines(part: dict[str, Any]) -> None:
    rows = {(row["precision"], row["batch"], row["by"]): row for row in part["rows"]}
    assert rows.keys() == {
        (precision, batch, f"ours, {engine}")
        for precision in ("bf16", "fp32")
        for batch in (1, 2)
        for engine in ("eager", "channels_last", "fused")
    }
    for (precision, batch, _), row in rows.items():
        speed = row["images/s"]
        assert 0 < speed["least"] <= speed["median"] <= speed["most"]
        assert 999 * batch / speed["most"] <= row["ms"] <= 1001 * batch / speed["least"]
        assert float(row["of the bf16 peak"].removesuffix("%")) > 0
        difference = float(row["difference"])
        assert 0 <= difference < 1e-4 if precision == "fp32" else 0 < difference < 3e-2
    assert any("bf16 matrix product" in note for note in part["notes"])
    assert "timm is not installed: its rows are left out" in part["notes"]


def check_trainings(parts: dict[str, Any]) -> None:
    assert [row["by"] for row in parts["step"]["rows"]] == ["ours"]
    *epochs, warm = parts["train"]["rows"]
    assert len(epochs) == 2 and warm["images/s"] == epochs[1]["images/s"] > 0 and 0 <= warm["data wait, %"] <= 100
    assert any("JPEGs made" in note for note in parts["train"]["notes"])
    assert [row["epoch"] for row in parts["cifar"]["rows"]] == ["1 of 2", "2 of 2"]
    assert all(row["top-1"].endswith("%") and float(row["minutes"]) >= 0 for row in parts["cifar"]["rows"])
    assert any("images/s after a start of" in note for note in parts["cifar"]["notes"])


@pytest.mark.slow
def test_a_part_that_fails_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    """Of a folder of .parquet files one is none."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.parquet").write_bytes(b"no parquet")
    said, found, table = gpu(tmp_path / "out", "--parts", "cifar,tests", "--cifar", str(broken), code=1)
    assert found["parts"]["cifar"]["state"].startswith("failed: RuntimeError: inceptionnet train")
    assert found["parts"]["tests"]["state"] == "done" and list(found["parts"]) == ["cifar", "tests"]
    assert "cifar: failed: RuntimeError" in said and "failed: RuntimeError" in table
    assert "train.parquet" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    said, found, table = gpu(tmp_path / "out", "--parts", "inference,tests", "--limit", "3s")
    rows = found["parts"]["inference"]["rows"]
    left_out = [row for row in rows if row.get("left_out") == "not measured: no time left"]
    assert found["parts"]["inference"]["state"] in ("done", "left out: no time left")
    assert "no time left" in said and "no time left" in table
    assert left_out or not rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(GPU)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "no CUDA device here; --tiny goes the same way" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--parts", "tests,steps"], "no part 'steps'; there are tests, inference, step, train, cifar"),
        (["--limit", "9"], "'9' is no time such as 9m or 90s"),
    ],
)
def test_options_are_checked(options: list[str], message: str) -> None:
    done = subprocess.run([sys.executable, str(GPU), *options], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


def script(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(GPU.with_suffix(".sh")), *options], capture_output=True, text=True, cwd=folder,
        env=os.environ | {"PYTHON": sys.executable, "OUT": "found", "PYTHONPATH": ""} | environment,
    )  # fmt: skip


def test_the_script_installs_wheels_and_passes_options_on(tmp_path: Path) -> None:
    """A wheel with a module that Python imports when it starts."""
    (tmp_path / "wheels").mkdir()
    about = "said-1.dist-info"
    with zipfile.ZipFile(tmp_path / "wheels" / "said-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sitecustomize.py", "import sys; print('from a wheel', file=sys.stderr)")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: said\nVersion: 1\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    done = script(tmp_path, "--parts", "tests,steps")
    assert done.returncode == 2 and "from a wheel" in done.stderr and "no part 'steps'" in done.stderr
    done = script(tmp_path, "--parts", "tests,steps", WHEELS="absent")
    assert done.returncode == 2 and "from a wheel" not in done.stderr and "no part 'steps'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


@pytest.mark.slow
def test_the_script_leaves_its_results_in_out(tmp_path: Path) -> None:
    done = script(tmp_path, "--tiny", "--parts", "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "found" / "results.json").read_text())["parts"]["tests"]["state"] == "done"
    assert json.loads((tmp_path / "found" / "results.json").read_text())["about"]["limit"] == "540 s"


@pytest.fixture
def inference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The part of that name, as a module."""
    monkeypatch.syspath_prepend(str(GPU.parent))
    return importlib.import_module("gpu_inference")


@pytest.mark.parametrize("installed", [True, False])
def test_what_is_prepared_for_a_batch_size(
    installed: bool, inference: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU every engine of this package that needs it, beside timm's compiled network, with the same input."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: (installed or None) if name == "tensorrt" else None)
    cells = inference.cells(False, True, ["--device", "cuda"])
    kinds = {(cell.columns["precision"], cell.images) for cell in cells}
    assert kinds == {(precision, batch) for precision in ("bf16", "fp32") for batch in (1, 32, 256)} | {("fp16", 32)}
    for cell in cells:
        sides = [side.arguments[5] for side in cell.sides]
        assert sides in (["tuned"], ["ours", "cudnn", *["tensorrt"] * installed, "timm"])
        assert all(side.arguments[-2:] == ["--device", "cuda"] for side in cell.sides)
    names = [side.name for cell in cells for side in cell.sides]
    assert len(set(names)) == len(names)
    assert {side.arguments[5] for cell in inference.cells(True, False, ["--device", "cpu"]) for side in cell.sides} == {
        "ours"
    }


def test_the_engine_cudnn_is_measured(inference: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, on the CPU."""
    stand_in(monkeypatch)
    monkeypatch.setattr(inference, "THREADS", torch.get_num_threads())
    what = ["compiled", "inception_v3.torchvision", "fp16", "2", "cudnn"]
    about, turn = inference.compiled(argparse.Namespace(what=what, device="cpu", tiny=True))
    assert 0 < about["difference"] < 4e-3 and turn() > 0
    row = inference.figures(about, [2.0, 4.0, 3.0], 2, 1e12)
    assert row["ms"] == 3.0 and row["layers"].startswith("cudnn ") and "separate" in row["layers"]
