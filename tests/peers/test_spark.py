"""examples/spark_predict.py on a Spark of this machine: each image has one row, a corrupt one has its reason."""

from __future__ import annotations

import os
import shutil
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
IMAGES, CORRUPT = 150, 70


@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java; apt-get install openjdk-17-jre-headless")
def test_each_image_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32)
    for weight in (w for w in model.parameters() if w.ndim > 1):
        torch.nn.init.kaiming_normal_(weight)
    save_weights(model, weights := tmp_path / "w.safetensors", classes="abc", preprocessing=Preprocessing(32))
    rng = np.random.default_rng(0)
    (images := tmp_path / "images" / "deep").mkdir(parents=True)
    for i in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(images / f"{i:03}.png")
    (images / f"{CORRUPT:03}.png").write_bytes(b"no image")
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "spark_predict.py"), str(weights), str(images.parent),
         str(tmp_path / "out")],
        capture_output=True, text=True, timeout=600,
        env=os.environ | {"PYTHONPATH": path, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1",
                          "PYSPARK_SUBMIT_ARGS": "--master local[2] --conf spark.ui.enabled=false pyspark-shell"},
    )  # fmt: skip
    assert done.returncode == 0 and f"{IMAGES} rows" in done.stdout, done.stderr[-3000:]
    rows = sorted(pq.read_table(tmp_path / "out").to_pylist(), key=lambda row: row["path"])
    assert [Path(row["path"]).name for row in rows] == [f"{i:03}.png" for i in range(IMAGES)]
    assert [i for i, row in enumerate(rows) if row["error"]] == [CORRUPT]
    classifier = load(weights)
    for i in range(0, 60, 20):
        found = classifier.predict(images / f"{i:03}.png", top=1)
        assert rows[i]["class_1"] == found.label
        assert rows[i]["probability_1"] == pytest.approx(found.probability, abs=1e-4)
