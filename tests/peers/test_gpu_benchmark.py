"""benchmarks/gpu.py beside timm: the same weights give the same logits, and both are timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
PLAIN = {"ours, eager", "ours, channels_last", "ours, fused"}
TIMMS = {
    "bf16": {"timm, channels last"},
    "fp32": {"timm, channels last, true fp32", "timm, channels last, TF32 (as it comes)"},
}


def test_timm_has_the_same_numbers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--no-compile", "--parts", "inference,step", "--out", str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert "timm" in found["about"]
    rows = found["parts"]["inference"]["rows"]
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 3e-2)):
        of_it = {(row["batch"], row["by"]): row for row in rows if row["precision"] == precision}
        assert of_it.keys() == {(batch, by) for batch in (1, 2) for by in PLAIN | TIMMS[precision]}
        for (_, by), row in of_it.items():
            difference = float(row["difference"])
            assert difference < tolerance and row["ms"] > 0
            assert difference > 0 or precision == "fp32", "fp32 may have every bit of the network's own logits"
            assert ("× timm" in row) == (by not in ("timm, channels last", "timm, channels last, true fp32"))
    assert [row["by"] for row in found["parts"]["step"]["rows"]] == ["ours", "timm, channels last"]
