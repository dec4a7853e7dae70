"""What the README and the docs say is what the package does: every command and every line of Python in them runs."""

from __future__ import annotations

import json
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
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import analyse, multiply_adds, parameters
from inceptionnet.study.spec import read_study
from inceptionnet.weights import reading
from inceptionnet.weights.folder import RUN_WEIGHTS
from inceptionnet.weights.hub import Fetched
from inceptionnet.weights.known import PUBLISHED, published_at

from .conftest import as_if_on, write_images
from .documents import FOREIGN, LANGUAGES, NOT_RUN, PAGES, ROOT, blocks, cli_commands, commands, fences

README = (ROOT / "README.md").read_text(encoding="utf-8")
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
STUDIES = {"mine.toml": "docs/studies.md", "smoothing.toml": "docs/tutorials/reproduce_a_claim.md"}
BEFORE_PYTHON = {
    "docs/batch.md": (
        "predict runs/flowers flowers --out predictions --workers 0",
        "features runs/flowers flowers --out features --workers 0",
    ),
    "docs/tutorials/fid.md": ("features runs/flowers flowers --out features.parquet --workers 0",),
    "docs/tutorials/export_int8.md": ("export runs/flowers flowers.onnx",),
}
"""Commands of a page that its Python needs."""


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
    for name, kind in (("glass", "ivy"), ("paper", "rose"), ("trash", "cornflower")):
        shutil.copytree(flowers / kind, tmp_path / "refuse" / name)
    for name in ("bottle", "one", "two"):
        shutil.copy(tmp_path / "rose.jpg", tmp_path / f"{name}.jpg")
    model, record = load_model(run), read_record(run)
    provenance, prep = record.provenance, record.preprocessing
    for name in ("flowers", "other", "refuse"):
        folder = tmp_path / "runs" / name
        shutil.copytree(run, folder)
        save_weights(
            model, folder / RUN_WEIGHTS, classes=tuple(classes.values()), preprocessing=prep, provenance=provenance
        )
        as_if_on(folder, flowers)

    for name, page in STUDIES.items():
        (study,) = blocks(page, "toml")
        (tmp_path / name).write_text(study, encoding="utf-8")

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


@pytest.mark.parametrize(
    "page",
    [
        page if page == "README.md" else pytest.param(page, marks=pytest.mark.slow)
        for page in PAGES
        if any(not line.startswith(tuple(NOT_RUN)) for line in commands(page))
    ],
)
def test_every_command_runs(page: str, command, somewhere: Path, request: pytest.FixtureRequest) -> None:
    """One after another, as a reader would; with options that make them quick."""
    if page in ("docs/engines.md", "docs/tutorials/export_int8.md"):
        request.getfixturevalue("openvino_in_8_bits")
    for line in commands(page):
        if line.startswith(tuple(NOT_RUN)):
            continue
        line = line.replace("pt_inception-2015-12-05-6726825d.pth", "fid.safetensors").replace("auto", "fused")
        words = shlex.split(re.sub(r"--time \S+", "", line))  # whose shortest takes longer than a test may
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
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_every_line_of_python_runs(page: str, command, somewhere: Path) -> None:
    for line in BEFORE_PYTHON.get(page, ()):
        assert command(*line.split())[0] == 0
    quick = "epochs=1, size=32, width=0.125, workers=0, settings={'log.report': False}"
    found: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(block.replace("epochs=10", quick), found)
    if page == "README.md":
        shapes = {(2, 5): found["logits"].shape, (2, 16, 149, 149): found["features"]["stem_conv_1"].shape}
        assert all(shape == tuple(got) and str(shape) in README for shape, got in shapes.items())
        assert found["best"].label == "rose"
        assert found["vectors"].shape[0] == 2 and (somewhere / "flowers.onnx").is_file()
        assert found["clf"].source == "runs/again"
    if page == "docs/python.md":
        assert [bool(row.error) for row in found["rows"]] == [False, False, True]
    if page == "docs/batch.md":
        assert len(found["vectors"]) == 36
    if page == "docs/engines.md":
        assert found["fast"](torch.zeros(2, 3, 75, 75)).shape == (2, 5)
    if page == "docs/tutorials/fid.md":
        assert found["nearest"][0] == 0 and len(found["features"]) == 36


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_handled(page: str, tmp_path: Path) -> None:
    for language, text in fences(page):
        assert language in LANGUAGES, f"{page}: a block in {language!r}, which nothing checks"
        if language == "json":
            json.loads(text)
        if language == "py":
            compile(text, page, "exec")
        if language == "toml":
            (tmp_path / "study.toml").write_text(text, encoding="utf-8")
            assert read_study(str(tmp_path / "study.toml")).compare


def test_what_is_not_run_is_there() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    assert [start for start in NOT_RUN if not any(line.startswith(start) for line in lines)] == []


def test_documented_options_exist() -> None:
    """Those in a command are of this command; those in a sentence of any, or of another program."""
    known = {
        name: {option for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, one in cli_commands().items()
    }
    everywhere: set[str] = set()
    for page, path in PAGES.items():
        text = path.read_text(encoding="utf-8")
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))
        everywhere |= named
        unknown = named - set().union(*known.values(), *FOREIGN.values()) - {"--version", "--help"}
        assert not unknown, f"{page}: {sorted(unknown)}"
        for line in (line for line in commands(page) if line.startswith("inceptionnet ")):
            words = shlex.split(line)
            unknown = {word for word in words[2:] if word.startswith("--")} - known[words[1]] - {"--help"}
            assert not unknown, f"{page}: {line}"
    assert [one for program in FOREIGN.values() for one in program if one not in everywhere] == []


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


def test_links_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_decisions_are_short() -> None:
    for document in (ROOT / "docs" / "decisions").glob("*.md"):
        assert len(document.read_text(encoding="utf-8").splitlines()) <= 40, document.name
