"""What the README and the docs say is what the package does: every command and every line of Python in them runs."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.draw import svg
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import analyse, multiply_adds, parameters
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.weights import reading
from inceptionnet.weights.folder import RUN_WEIGHTS
from inceptionnet.weights.hub import Fetched
from inceptionnet.weights.known import PUBLISHED, published_at

from .conftest import as_if_on, write_images

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = ("pip ", "make ", "torchrun ")
"""Commands in sh blocks that have tests of their own, or install."""
QUICK = {
    "train": ["--epochs", "1", "--size", "96", "--workers", "0", "--set", "log.report=false"],
    "bench": ["--rounds", "1", "--batch", "1", "--engines", "eager,fused"],
    "evaluate": ["--workers", "0"],
    "report": ["--workers", "0"],
    "compare": ["--workers", "0"],
    "study": ["--epochs", "1", "--seeds", "1", "--width", "0.125", "--size", "75", "--workers", "0"],
    "check": ["--workers", "0"],
    "features": ["--workers", "0"],
    "fid": ["--workers", "0"],
    "predict": ["--batch-size", "4"],
}
"""Options that make an example quick; a later one overrides that of the example."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def somewhere(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name, and a hub whose networks are narrow."""
    classes = {"blue": "cornflower", "green": "ivy", "red": "rose"}
    flowers = write_images(tmp_path / "flowers", 12)
    for colour, name in classes.items():
        (flowers / colour).rename(flowers / name)
    for name, kind in (("rose", "rose"), ("tulip", "cornflower")):
        shutil.copy(flowers / kind / "00.png", tmp_path / f"{name}.jpg")
    rows = ["image,label"]
    (tmp_path / "photos").mkdir()
    for image in sorted(flowers.rglob("*.png")):
        rows.append(f"{image.parent.name}_{image.name},{image.parent.name}")
        shutil.copy(image, tmp_path / "photos" / f"{image.parent.name}_{image.name}")
    (tmp_path / "photos.csv").write_text("\n".join(rows))
    for folder in ("holiday", "real", "generated", "imagenet/val/n01440764", "imagenet/val/n01443537"):
        shutil.copytree(flowers / "rose", tmp_path / folder)
    model, record = load_model(run), read_record(run)
    provenance, prep = record.provenance, record.preprocessing
    for name in ("flowers", "other"):
        folder = tmp_path / "runs" / name
        shutil.copytree(run, folder)
        save_weights(
            model, folder / RUN_WEIGHTS, classes=tuple(classes.values()), preprocessing=prep, provenance=provenance
        )
        as_if_on(folder, flowers)

    (study,) = blocks(ROOT / "docs" / "studies.md", "toml")
    (tmp_path / "mine.toml").write_text(study, encoding="utf-8")

    def narrow(name: str, file: str) -> Path:
        classes = imagenet_classes() if NETWORKS[name].head["logits"].filters == 1000 else ()
        save_weights(create_model(name, width=0.125), tmp_path / file, classes=classes)
        return tmp_path / file

    narrow("inception_v3.fid", "fid.safetensors")
    narrow("inception_v1.torchvision", "googlenet-1378be20.pth")

    def fetch(address: str) -> Fetched:
        known = published_at(address)
        assert known, f"{address} is not published"
        return Fetched(narrow(known.network, f"{known.name.partition('/')[2]}.safetensors"), address, {})

    with av.open(str(tmp_path / "clip.mp4"), "w") as clip:
        stream = clip.add_stream("mpeg4", rate=5)
        for _ in range(10):
            clip.mux(stream.encode(av.VideoFrame(stream.width, stream.height, "yuv420p")))
        clip.mux(stream.encode())

    monkeypatch.setattr(reading, "fetch", fetch)
    monkeypatch.setattr(reading, "_check_hash", lambda path, known: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    f"{page.name} {i}": line.partition("    #")[0]
    for page in PAGES
    for i, line in enumerate(line for block in blocks(page, "sh") for line in block.splitlines() if line.strip())
    if not line.startswith(NOT_RUN)
}


@pytest.mark.parametrize(
    "page",
    [page.name if page.name == "README.md" else pytest.param(page.name, marks=pytest.mark.slow) for page in PAGES],
)
def test_every_command_runs(page: str, command, somewhere: Path, request: pytest.FixtureRequest) -> None:
    """One after another, as a reader would; with options that make them quick."""
    if page == "engines.md":
        request.getfixturevalue("openvino_in_8_bits")
    for line in (line for where, line in COMMANDS.items() if where.startswith(page)):
        line = line.replace("pt_inception-2015-12-05-6726825d.pth", "fid.safetensors").replace("auto", "fused")
        words = shlex.split(line)
        assert words[0] == "inceptionnet", line
        if words[1] == "train" and "--out" in words and "--resume" not in words:
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        quick = [] if {"--settings", "--resume", "--repeat"} & set(words) else QUICK.get(words[1], [])
        if "head" in words:  # the classifier alone has no epochs
            quick = quick[quick.index("--size") :]
        code, printed, told = command(*words[1:], *quick)
        assert code == 0, f"{line}: {told}"
        assert printed, line


@pytest.mark.slow
@pytest.mark.parametrize("page", [page.name for page in PAGES if blocks(page, "python")])
def test_every_line_of_python_runs(page: str, command, somewhere: Path) -> None:
    (path,) = (path for path in PAGES if path.name == page)
    if page == "batch.md":
        for name in ("predict", "features"):
            out = {"predict": "predictions", "features": "features"}[name]
            assert command(name, "runs/flowers", "flowers", "--out", out, "--workers", 0)[0] == 0
    quick = "epochs=1, size=32, width=0.125, workers=0, settings={'log.report': False}"
    found: dict[str, Any] = {}
    for block in blocks(path, "python"):
        exec(block.replace("epochs=10", quick), found)
    if page == "README.md":
        shapes = {"logits": (2, 5), "pooled": (2, 1072)}
        assert {name: tuple(found[name].shape) for name in shapes} == shapes
        assert found["features"]["stem_conv_1"].shape == (2, 16, 149, 149) and found["best"].label == "rose"
        assert all(str(shape) in README for shape in (*shapes.values(), (2, 16, 149, 149)))
        assert found["vectors"].shape[0] == 2 and (somewhere / "flowers.onnx").is_file()
        assert found["clf"].source == "runs/again"
    if page == "python.md":
        assert [bool(row.error) for row in found["rows"]] == [False, False, True]
    if page == "batch.md":
        assert len(found["vectors"]) == 36
    if page == "engines.md":
        assert found["fast"](torch.zeros(2, 3, 75, 75)).shape == (2, 5)


def test_table_of_networks() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (\d+) \| ([\d.]+ %|faces) \| ([\d.]+) M \| ([\d.]+) G \| ", README, re.MULTILINE)
    assert len(rows) == 7
    for name, px, accuracy, millions, billions in rows:
        figures = analyse(replace(NETWORKS[name], aux={}))
        assert (px, billions) == (str(NETWORKS[name].input_size), f"{multiply_adds(figures) / 1e9:.2f}")
        assert millions == f"{parameters(figures) / 1e6:.1f}"
        best = max((one.top1 or 0 for one in PUBLISHED if one.network == name), default=0)
        assert accuracy == (f"{best:.1f} %" if best else "faces")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_drawing_is_todays() -> None:
    drawn = svg(configure(Configuration("inception_v4", aux=True)))
    assert (ROOT / "docs" / "inception_v4.svg").read_text(encoding="utf-8") == drawn


def test_links_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_decisions_are_short() -> None:
    for document in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(document.read_text(encoding="utf-8").splitlines()) <= 40, document.name
