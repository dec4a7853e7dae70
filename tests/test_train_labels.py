"""Training and evaluation on images whose labels are in a file."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from inceptionnet import fit, read_record
from inceptionnet.train.changes import Changes
from inceptionnet.train.loop import repeat, train
from inceptionnet.train.reporting import next_commands
from inceptionnet.train.run import Run

from .conftest import COLOURS, tiny_plan

Command = Callable[..., tuple[int, str, str]]
QUICK = ("--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--epochs", 1, "--workers", 0,
         "--set", "log.report=false")  # fmt: skip


@pytest.fixture
def flat(colours: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The colours in one folder, and the file that labels them."""
    folder, file = tmp_path / "flat", tmp_path / "labels.csv"
    folder.mkdir()
    rows = [("image_id", "label")]
    for image in sorted(colours.rglob("*.png")):
        name = f"{image.parent.name}, {image.stem}"
        (folder / f"{name}.png").write_bytes(image.read_bytes())
        rows.append((name, image.parent.name))
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(rows)
    return folder, file


def test_a_run_with_labels(command: Command, run: Path, flat: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = flat
    out = tmp_path / "run"
    code, _, err = command("train", folder, "--labels", file, "--out", out, *QUICK)
    assert code == 0, err
    record, about = read_record(out / "weights.safetensors"), json.loads((out / "run.json").read_text())
    assert record.classes == tuple(COLOURS) and not record.numbered
    assert about["plan"]["labels"] == str(file) == record.provenance["labels"]
    held_out = about["data"]["images"]["val"]
    assert about["data"]["images"] == {"train": 36 - held_out, "val": held_out} and 3 <= held_out < 18
    first = next_commands(Run(out))[0]
    assert f"--labels {file}" in first
    # What it was trained on is not evaluated; another network has not seen any of the images.
    for given, images in (((out,), held_out), ((run,), 36)):
        code, text, _ = command("evaluate", *given, folder, "--labels", file, "--workers", 0, "--json")
        assert code == 0 and json.loads(text)["images"] == images
    assert command(*shlex.split(first)[1:], "--workers", 0)[0] == 0
    code, text, _ = command("report", out, "--workers", 0)
    assert code == 0 and f"on {held_out} images" in text
    repeat(out, tmp_path / "again", changes=Changes(machine={"workers": 0}))
    weights = [(path / "weights.safetensors").read_bytes() for path in (out, tmp_path / "again")]
    assert weights[0] == weights[1]
    code, text, _ = command("check", folder, "--labels", file, "--workers", 0, "--json")
    assert code == 0 and json.loads(text)["images"] == 36
    with file.open("a") as opened:
        opened.write("another,red\n")
    code, _, err = command("train", "--resume", "--out", out)
    assert code == 0, "a row without image changes nothing"


def test_the_same_held_out_images_as_from_folders(flat: tuple[Path, Path], tmp_path: Path) -> None:
    """By name and seed."""
    folder, file = flat
    found = []
    for seed in (1, 1, 2):
        train(tiny_plan(folder, labels=str(file), seed=seed, epochs=1), tmp_path / f"run{len(found)}")
        found.append(json.loads((tmp_path / f"run{len(found)}" / "run.json").read_text())["data"]["fingerprint"])
    assert found[0] == found[1] != found[2]


def test_fit_takes_labels(flat: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = flat
    clf = fit(folder, tmp_path / "run", labels=file, model="inception_v1.slim", width=0.125, size=32, epochs=1,
              workers=0, device="cpu", settings={"log.report": False})  # fmt: skip
    assert clf.classes == tuple(COLOURS)


def test_a_run_with_groups(command: Command, flat: tuple[Path, Path], tmp_path: Path) -> None:
    """What was held out together is so in every later command, and no other grouping is accepted."""
    folder, file = flat
    lines = file.read_text().splitlines()
    file.write_text("\n".join(["image_id,label,batch", *(f"{line},b{i % 9}" for i, line in enumerate(lines[1:]))]))
    out = tmp_path / "run"
    asked = ("--labels", file, "--group-by", "Batch")
    code, _, err = command("train", folder, *asked, "--out", out, *QUICK)
    assert code == 0 and "in whole groups (batch: 9 groups, " in err, err
    about, record = json.loads((out / "run.json").read_text()), read_record(out / "weights.safetensors")
    assert about["plan"]["group_by"] == record.provenance["group_by"] == "Batch" and "leaks" not in about
    held_out = about["data"]["images"]["val"]
    assert held_out % 4 == 0  # 36 images in 9 groups
    assert "--group-by Batch" in next_commands(Run(out))[0]
    for given in ((), ("--group-by", "batch")):
        code, text, _ = command("evaluate", out, folder, "--labels", file, *given, "--workers", 0, "--json")
        assert (
            code == 0 and json.loads(text)["images"] == held_out and "batch: 9 groups" in json.loads(text)["split_note"]
        )
    code, text, _ = command("report", out, "--workers", 0)
    assert code == 0 and f"on {held_out} images" in text
    code, _, err = command("evaluate", out, colours_of(folder, tmp_path / "tree"), "--workers", 0)
    assert code == 2 and "--group-by Batch: expected a column" in err and "or --group-by none" in err
    code, _, err = command("train", "--resume", "--out", out, "--group-by", "label")
    assert code == 2 and "--group-by label: cannot change in a run that is resumed, which has Batch" in err
    assert command("train", "--resume", "--out", out, "--workers", 0)[0] == 0
    code, text, _ = command("check", folder, *asked, "--workers", 0)
    assert code == 0 and "(batch)" in text and "groups    " in text


def colours_of(flat: Path, tree: Path) -> Path:
    """The images of the flat folder in folders of classes."""
    for image in flat.iterdir():
        kind, name = image.name.split(", ")
        (tree / kind).mkdir(parents=True, exist_ok=True)
        (tree / kind / name).write_bytes(image.read_bytes())
    return tree


def test_fit_with_groups_and_a_leak(
    flat: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = colours_of(flat[0], tmp_path / "tree")
    fit(tree, tmp_path / "run", model="inception_v1.slim", width=0.125, size=32, epochs=1, workers=0, device="cpu",
        group_by="([0-9])[.]png", settings={"log.report": False})  # fmt: skip
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["plan"]["group_by"] == "([0-9])[.]png" and ": 10 groups, " in about["data"]["note"]
    assert "warning" not in capsys.readouterr().err
    names = {image.relative_to(tree).as_posix() for image in tree.rglob("*.png")}
    for name in names:
        (tree / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).rename(tree / "train" / name)
    for kind in ("blue", "red"):
        (tree / "val" / kind).mkdir(parents=True)
        (tree / "val" / kind / "copy.png").write_bytes((tree / "train" / kind / "03.png").read_bytes())
        (tree / kind).rmdir()
    (tree / "green").rmdir()
    train(tiny_plan(tree, epochs=1), tmp_path / "leaky")
    (line,) = json.loads((tmp_path / "leaky" / "run.json").read_text())["leaks"]
    said = capsys.readouterr().err
    assert line.startswith(
        "warning: 2 of 2 val images are copies of train images (val/blue/copy.png = train/blue/03.png"
    )
    assert said.index(line[:60]) < said.index("epoch 1/1")
