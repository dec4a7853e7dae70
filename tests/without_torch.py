"""Programs in a process where what only the extra `torch` brings cannot be imported, as if it were not installed."""

from __future__ import annotations

import os
import subprocess
import sys

DEADLINE_S = 300.0
MISSING = ("torch", "torchmetrics", "scipy", "safetensors", "matplotlib", "onnx", "onnxscript", "nncf", "h5py")
HOOK = f"""
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if (package := name.partition(".")[0]) in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{package!r}}", name=package)

sys.meta_path.insert(0, Missing())

def run(*line):
    "A command line; its exit code."
    from inceptionnet.cli import main
    sys.argv[1:] = map(str, line)
    try:
        main()
    except SystemExit as end:
        return end.code or 0
"""


def without_torch(program: str, *arguments: object) -> tuple[str, str]:
    """What a program prints, on standard output and on standard error; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HOOK + program, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=DEADLINE_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
