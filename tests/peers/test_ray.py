"""examples/ray_predict.py on a Ray of this machine, of which a worker is killed on the way: each image has one row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from inceptionnet import create_model, load, save_weights
from inceptionnet.data.preprocess import Preprocessing

ROOT = Path(__file__).parent.parent.parent
IMAGES, WORKERS = 5000, 2
CORRUPT = 1234
SCRIPT = """
import os, runpy, signal, sys, threading, time
from pathlib import Path
import ray

example, pids = sys.argv[1], Path(sys.argv[2])
sys.argv = sys.argv[2:]
found = runpy.run_path(example)


class Predict(found["Predict"]):
    def __call__(self, batch):
        with open(pids / str(os.getpid()), "a") as file:
            file.write("batch\\n")
        return super().__call__(batch)


def kill():
    "One of two workers, once both have had some batches."
    while len(had := [file for file in pids.iterdir() if file.read_text().count("batch") >= 5]) < 2:
        time.sleep(0.02)
    os.kill(int(had[0].name), signal.SIGKILL)
    (pids / "killed").touch()


found["main"].__globals__["Predict"] = Predict
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
threading.Thread(target=kill, daemon=True).start()
found["main"]()
ray.shutdown()
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    folder.mkdir()
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i:05}.png")
    (folder / f"{CORRUPT:05}.png").write_bytes(b"no image")
    return folder


def test_each_image_once_with_a_worker_killed(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32)
    for weight in (w for w in model.parameters() if w.ndim > 1):
        torch.nn.init.kaiming_normal_(weight)
    save_weights(model, weights := tmp_path / "w.safetensors", classes="abc", preprocessing=Preprocessing(32))
    (pids := tmp_path / "pids").mkdir()
    (script := tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(ROOT / "examples" / "ray_predict.py"), str(pids), str(weights), str(images),
         str(tmp_path / "out"), "--workers", str(WORKERS), "--batch-size", "64"],
        capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (pids / "killed").exists() and len(list(pids.iterdir())) > WORKERS + 1, "another worker took over"
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert sorted(Path(row["path"]).name for row in rows) == [f"{i:05}.png" for i in range(IMAGES)]
    assert [Path(row["path"]).stem for row in rows if row["error"]] == [f"{CORRUPT:05}"]
    assert "bytes" not in rows[0] and len({row["class_1"] for row in rows if not row["error"]}) > 1
    classifier = load(weights)
    for row in rows[::500]:
        found = classifier.predict(row["path"], top=1, skip_errors=True)
        assert row["class_1"] == found.label and row["probability_1"] == pytest.approx(found.probability, abs=1e-4)
