"""Names of files are bytes on Linux, up to 255 of them: every command reads, writes and prints them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from inceptionnet import create_model, save_weights
from inceptionnet.cli.tables import print_json, print_table
from inceptionnet.data import open_source
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.explain.files import names_for
from inceptionnet.system.files import PART, as_text, remove_leftovers, replacing, shortened

Command = Callable[..., tuple[int, str, str]]
ODD = b"caf\xe9.png"
CLASS, CLASS_AS_TEXT = b"ros\xe9", "ros\\udce9"
LONG = "ü" * 125 + "y.png"  # 255 bytes


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one with a name that is no UTF-8; images with such a name, with a long one and with a line break."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for folder in (b"daisy", CLASS):
        place = os.fsencode(root) + b"/" + folder
        try:
            os.mkdir(place)
        except OSError:
            pytest.skip("this file system knows no such names")
        for name in (ODD, os.fsencode(LONG), b"a\nb.png"):
            with open(place + b"/" + name, "wb") as file:
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = create_model("inception_v1.slim", width=0.125, num_classes=2, input_size=64)
    save_weights(model, path, preprocessing=Preprocessing(64, crop=1.0), classes=["daisy", CLASS_AS_TEXT])
    return path


def test_classes_are_text(images: Path) -> None:
    source = open_source(images)
    assert source.classes == ("daisy", CLASS_AS_TEXT)
    for split in source.splits.values():
        for i, name in enumerate(split.names):  # type: ignore[union-attr]
            assert split.read(i) == Path(os.path.join(images, name)).read_bytes()  # type: ignore[union-attr]


def test_predict_writes_and_prints_them(command: Command, weights: Path, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    code, out, _ = command("predict", weights, images, "--csv", table)
    assert code == 0 and "caf\\udce9.png" in out and "a\\nb.png" in out
    with table.open(encoding="utf-8", newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) == 6 and sum(name.endswith("/caf\\udce9.png") for name in names) == 2
    code, out, _ = command("predict", weights, images, "--json")
    found = [row["file"] for row in json.loads(out)["predictions"]]
    assert code == 0 and all(os.path.exists(name) for name in found), "JSON gives names back as they are"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_evaluate_writes_them(command: Command, weights: Path, images: Path, tmp_path: Path, kind: str) -> None:
    table = tmp_path / f"e.{kind}"
    code, out, _ = command("evaluate", weights, images, "--split", "all", "--predictions", table, "--workers", 0)
    assert code == 0 and CLASS_AS_TEXT in out
    if kind == "parquet":
        rows = pq.read_table(table).to_pylist()
    else:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} >= {f"{CLASS_AS_TEXT}/caf\\udce9.png", f"daisy/{LONG}", "daisy/a\nb.png"}
    assert {row["label"] for row in rows} == {"daisy", CLASS_AS_TEXT}


def test_features_writes_them(command: Command, weights: Path, images: Path, tmp_path: Path) -> None:
    code, _, _ = command("features", weights, images, "--out", tmp_path / "f.parquet", "--workers", 0)
    names = pq.read_table(tmp_path / "f.parquet")["image"].to_pylist()
    assert code == 0 and "daisy/caf\\udce9.png" in names and len(names) == 6


def test_explain_writes_files_with_such_names(command: Command, weights: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    out = tmp_path / "maps"
    code, _, err = command("explain", weights, images / "daisy", "--out", out)
    assert code == 0, err
    names = sorted(os.listdir(os.fsencode(out)))
    assert b"caf\xe9-gradcam.png" in names and len(names) == 3
    assert max(map(len, names)) == 254 and all(name.endswith(b"-gradcam.png") for name in names)


def test_long_names_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    files = [tmp_path / f"{'x' * 249}{i}.jpg" for i in range(3)]
    names = [path.name for path in names_for(files, "gradcam", tmp_path / "out")]
    assert len(set(names)) == 3 and all(len(name) <= 255 and name.endswith(".png") for name in names)


def test_a_name_is_shortened_between_characters() -> None:
    assert shortened("aé", 3) == "aé" and shortened("aé", 2) == "a" and shortened("é", 1) == ""
    odd = os.fsdecode(ODD)
    assert os.fsencode(shortened(odd, 4)) == b"caf\xe9"
    assert as_text(odd) == "caf\\udce9.png" and as_text("café") == "café"


def test_a_file_with_the_longest_name_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / LONG
    for text in ("one", "two"):
        with replacing(path) as temporary:
            assert PART in temporary.name
            temporary.write_text(text)
    assert path.read_text() == "two" and os.listdir(tmp_path) == [LONG]
    (tmp_path / f".{shortened(LONG, 60)}{PART}x").touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == [LONG]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_any_terminal_prints_them(
    command: Command, images: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["inceptionnet", "check", str(images), "--workers", "0"])
        from inceptionnet.cli import main

        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 0
    name = os.fsdecode(ODD)
    print_table(["file"], [[name]])
    print_json({"file": name})
    out.flush()
    text = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert text.count("caf\\udce9.png") == 2 and json.loads(text[text.rindex("{") :])["file"] == name
