"""All GPU benchmarks and tests of this package in one command, which takes minutes and needs no internet access:

    python benchmarks/gpu.py [--parts tests,inference,step,train,cifar] [--limit 9m] [--cifar cifar10]
        [--device cuda] [--out gpu-results] [--tiny] [--no-compile]

tests      `pytest -m cuda tests`.
inference  Inception-v3, -v4 and Inception-ResNet-v2 in bf16 and fp32, with batch sizes 1, 32 and 256, and in fp16 with
           32: this package's engines compared with timm's network with the same weights, compiled and not compiled.
step       A training step in bf16, with batch sizes 64 and 256, compared with timm's network in a bare loop.
train      `inceptionnet train` on synthetic photographs: images/s, and the share of time spent waiting for data.
cifar      Training on CIFAR-10 in the remaining time: accuracy by elapsed time. --cifar is a folder with train.parquet
           and test.parquet in Hugging Face's layout.

Results are printed as they are measured and written to OUT/results.json, OUT/results.md and OUT/log.txt, which are
replaced atomically. Each part has a share of the time limit and can use time that earlier parts did not need. Rows that
do not fit are listed as not measured. If a part fails, its error is reported, the other parts continue, and the exit
code is 1. --tiny runs the same code on any CPU with small inputs and, without timm, a narrow network for `inference`;
--no-compile skips everything that is compiled.

The script runs from a checkout; this package need not be installed. On a machine without internet access that has torch
>= 2.11, torchvision, timm, numpy, pillow, rich, safetensors, scipy, torchmetrics, pyarrow, pytest, shellingham and
annotated-doc, these wheels (3.4 MB) are missing. They are downloaded for CPython 3.12 with

    pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels \\
        "pydantic==2.14.4" "pydantic-core==2.50.5" "annotated-types==0.8.0" "typing-inspection==0.4.5" \\
        "typing-extensions==4.16.0" "typer==0.29.2" "simplejpeg==1.9.0"

and installed and used there by benchmarks/gpu.sh, which takes the same options. The engine `tensorrt` is measured where
tensorrt, onnx and onnxscript are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

NEEDED = {"numpy": "everything", "PIL": "everything", "pydantic": "everything", "rich": "everything",
          "safetensors": "everything", "scipy": "everything", "simplejpeg": "everything", "torch": "everything",
          "torchmetrics": "everything", "typer": "everything", "pytest": "tests", "pyarrow": "cifar",
          "timm": "rows of timm in inference and step", "tensorrt": "rows of tensorrt in inference"}  # fmt: skip
SHARES = {"tests": 14, "inference": 38, "step": 22, "train": 10, "cifar": 16}
"""Shares of the time limit in %, in the order of the parts."""
KEPT = (
    "torch",
    "torchvision",
    "timm",
    "triton",
    "tensorrt",
    "onnx",
    "numpy",
    "safetensors",
    "simplejpeg",
    "pydantic",
    "pyarrow",
)
"""Packages whose versions are recorded."""


def main() -> int:
    began = time.monotonic()
    given = arguments()
    missing = {name: what for name, what in NEEDED.items() if importlib.util.find_spec(name) is None}
    if missing:
        print("not installed: " + ", ".join(f"{name} (for {what})" for name, what in missing.items()), flush=True)
    if "everything" in missing.values():
        return 2
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --tiny goes the same way on the CPU")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no subprocess keeps running
    return measured(given, began + given.limit)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=parts_of, default=list(SHARES))
    parser.add_argument("--limit", type=seconds_of, default="9m", metavar="TIME")
    parser.add_argument("--cifar", type=Path, default=Path("cifar10"), metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda, or cpu with --tiny")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    given = parser.parse_args()
    given.device = given.device or ("cpu" if given.tiny else "cuda")
    return given


def parts_of(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in SHARES]:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; there are {', '.join(SHARES)}")
    return list(dict.fromkeys(parts))


def seconds_of(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([ms])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 9m or 90s")
    return float(match[1]) * (60 if match[2] == "m" else 1)


def measured(given: argparse.Namespace, until: float) -> int:
    """Run all parts, one after another; returns the exit code."""
    from gpu_parts import Parts
    from gpu_results import Results, say
    from gpu_workers import failure

    given.out.mkdir(parents=True, exist_ok=True)
    about = surroundings(given)
    for key, value in about.items():
        say(f"{key}: {value}")
    results = Results(given.out, about, given.parts)
    with ExitStack() as stack:
        log = stack.enter_context(open(given.out / "log.txt", "w", encoding="utf-8"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
        parts = stack.enter_context(closing(Parts(given, folder, log)))
        for position, name in enumerate(given.parts):
            left, share = until - time.monotonic(), SHARES[name] / sum(SHARES[part] for part in given.parts[position:])
            if left * share < (1 if given.tiny else 5):
                results.end(name, "left out: no time left", 0)
                continue
            say(f"{name}: {left * share:.0f} s")
            results.begin(name)
            begun, planned, seen, error = time.monotonic(), list[str](), set[str](), ""
            try:
                with closing(parts.run(name, begun + left * share)) as rows:
                    for row in rows:
                        planned += row.pop("planned", [])
                        if "note" in row:
                            results.note(name, row["note"])
                        elif "name" in row:
                            seen.add(row["name"])
                            results.add(name, row)
            except Exception as caught:  # the other parts continue after any error
                failed = failure(caught)
                log.write(failed["traceback"])
                error = failed["error"]
            for row_name in (one for one in planned if one not in seen):
                results.add(name, {"name": row_name, "left_out": "not measured: no time left"})
            bad = error or ("see the rows above" if any("error" in row for row in results.parts[name]["rows"]) else "")
            results.end(name, f"failed: {bad}" if bad else "done", time.monotonic() - begun)
    say(f"written: {given.out / 'results.json'}, {given.out / 'results.md'}")
    return int(results.failed)


def surroundings(given: argparse.Namespace) -> dict[str, Any]:
    """Device, driver and versions, for the head of the results."""
    import torch

    about: dict[str, Any] = {"device": given.device}
    if given.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        about |= {"card": f"{card.name}, {card.total_memory / 2**30:.0f} GiB", "driver": driver()}
        about |= {"CUDA": torch.version.cuda, "cuDNN": torch.backends.cudnn.version()}
    about |= {"cores": len(os.sched_getaffinity(0)), "Python": platform.python_version()}
    for package in KEPT:
        with suppress(metadata.PackageNotFoundError):
            about[package] = metadata.version(package)
    about |= {"limit": f"{given.limit:.0f} s", "date": time.strftime("%Y-%m-%d")}
    return about


def driver() -> str:
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
