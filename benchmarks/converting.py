"""Time and peak memory of converting published weights of Inception-v4 and Inception-ResNet-v2, by file format.

    python benchmarks/converting.py [RUNS]

Each conversion runs in a process of its own. `peak` is the highest resident memory of the process minus its memory
before it opens the file (interpreter, torch, this package), as a multiple of the file size. Memory-mapped pages of the
file count. The files of Keras and TensorFlow are created with those packages; without them these formats are skipped.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def converted(source: str, destination: str) -> dict[str, float]:
    """Time and memory of one conversion in this process."""
    import torch  # noqa: F401

    from inceptionnet.weights import convert

    before = kib("VmRSS")
    start = time.perf_counter()
    convert(source, destination)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "kib": kib("VmHWM") - before, "base_kib": before}


def kib(figure: str) -> int:
    """A value of /proc/self/status in KiB; getrusage would report the peak of the process this one was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{figure}:")[2].split()[0])


def make(folder: Path) -> dict[str, Path]:
    """Create the files to convert; returns their paths by format."""
    import torch
    from safetensors.torch import save_file

    from inceptionnet import create_model
    from inceptionnet.weights.layouts.cadene import INCEPTION_V4

    sys.path.insert(0, str(ROOT / "tests" / "weights"))
    from published import as_published

    tensors = as_published(create_model("inception_v4.slim"), INCEPTION_V4)
    files = {
        "v4 .safetensors": folder / "v4.safetensors",
        "v4 .pth": folder / "v4.pth",
        "v4 .pth, legacy": folder / "v4l.pth",
    }
    save_file(tensors, files["v4 .safetensors"])
    torch.save(tensors, files["v4 .pth"])
    torch.save(tensors, files["v4 .pth, legacy"], _use_new_zipfile_serialization=False)
    try:
        files["v4 .ckpt"] = checkpoint(folder)
    except ImportError:
        print("TensorFlow is not installed: .ckpt is skipped", file=sys.stderr)
    try:
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
    except ImportError:
        print("Keras is not installed: .h5 and .keras are skipped", file=sys.stderr)
        return files
    model = keras.applications.InceptionResNetV2(weights=None)
    for kind in (".h5", ".weights.h5", ".keras"):
        files[f"Inception-ResNet-v2 {kind}"] = folder / f"resnet{kind}"
    model.save(files["Inception-ResNet-v2 .h5"])
    model.save_weights(files["Inception-ResNet-v2 .weights.h5"])
    model.save(files["Inception-ResNet-v2 .keras"])
    return files


def checkpoint(folder: Path) -> Path:
    """A TF-slim checkpoint of Inception-v4, written by TensorFlow."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    from published import as_published

    from inceptionnet import create_model
    from inceptionnet.weights.layouts.slim import INCEPTION_V4

    tensors = as_published(create_model("inception_v4.slim", aux=True), INCEPTION_V4)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, tensor in tensors.items():
            value = tensor.permute(2, 3, 1, 0) if tensor.dim() == 4 else tensor.t() if tensor.dim() == 2 else tensor
            v1.get_variable(name, initializer=value.numpy())
        session.run(v1.global_variables_initializer())
        return Path(v1.train.Saver().save(session, str(folder / "inception_v4.ckpt"), write_meta_graph=False))


def size_of(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make(folder)
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in files}
        for _ in range(runs):
            for kind, file in files.items():
                command = [sys.executable, __file__, "--one", str(file), str(folder / "out.safetensors")]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[kind].append(json.loads(done.stdout))
        for kind, rows in found.items():
            seconds = sorted(row["seconds"] for row in rows)
            peak = max(row["kib"] for row in rows) * 1024 / size_of(files[kind])
            print(
                f"{kind:32} {size_of(files[kind]) / 1e6:6.0f} MB  {statistics.median(seconds):5.2f} s "
                f"({seconds[0]:.2f}–{seconds[-1]:.2f})  peak memory {peak:.2f} × file size"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(converted(*sys.argv[2:])))
    else:
        main()
