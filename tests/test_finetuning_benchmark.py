"""benchmarks/finetuning: cells, samples, folders, what counts as correct, and the table, on constructed results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "finetuning"


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("cells")


def result(correct: int, seconds: float, images: int = 100) -> dict[str, Any]:
    return {"correct": correct, "held_out": 200, "images": images, "training_s": seconds, "note": ""}


def test_every_cell_once_and_seed_after_seed(cells: ModuleType) -> None:
    found = cells.all_cells(["a", "b"], [1.0, 0.05], ["timm", "keras"], 3)
    assert len(set(found)) == len(found) == 2 * 2 * 2 * 3
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)
    assert str(found[0]) == "a-100%-0-timm" and found[2].folder == "a-5%-0" == found[3].folder


def test_a_sample_has_the_same_share_of_every_class_and_depends_on_the_seed(cells: ModuleType) -> None:
    labels = np.repeat([0, 1, 2], [200, 60, 5])
    taken = [cells.subset(labels, 0.2, seed) for seed in (0, 0, 1)]
    assert np.array_equal(taken[0], taken[1]) and not np.array_equal(taken[0], taken[2])
    for one in taken:
        assert np.bincount(labels[one]).tolist() == [40, 12, 2] and np.all(np.diff(one) > 0)  # two at least, not 1
    assert np.array_equal(cells.subset(labels, 1.0, 3), np.arange(265))


def test_results_are_kept_and_failures_are_run_again(cells: ModuleType, tmp_path: Path) -> None:
    settings = {"size": 9, "minutes": {"1": 10.0}}
    results = cells.Results(tmp_path, settings)
    one, two, three = cells.all_cells(["a"], [1.0], ["timm", "keras", "fastai"], 1)
    results.save(one, result(150, 61))
    results.save(two, {"error": "no memory"})
    again = cells.Results(tmp_path, settings)
    assert again.pending([one, two, three]) == [two, three]
    stored = json.loads((tmp_path / "results" / "a-100%-0-timm.json").read_text())
    assert stored == result(150, 61) | {"data": "a", "fraction": 1.0, "method": "timm", "seed": 0}
    for change in ({"size": 8}, {"minutes": {"1": 5.0}}, {"minutes": {"1": 5.0, "0.2": 5.0}}):
        with pytest.raises(ValueError, match=r"has results with \{'size': 9, 'minutes': \{'1': 10.0\}\}, not with"):
            cells.Results(tmp_path, settings | change)
    cells.Results(tmp_path, settings | {"minutes": {"0.2": 5.0}})  # another fraction
    assert json.loads((tmp_path / "settings.json").read_text()) == {"size": 9, "minutes": {"0.2": 5.0, "1": 10.0}}


def test_table(cells: ModuleType, tmp_path: Path) -> None:
    """Wilson's interval of 150 of 200 is 68.6 to 80.5 %: its centre is (150 + z²/2) / (200 + z²), z = 1.96."""
    results = cells.Results(tmp_path)
    some = cells.all_cells(["a"], [1.0, 0.05], ["timm", "keras"], 2)
    numbers = {"a-100%-0-timm": (150, 600), "a-5%-0-timm": (100, 59.6), "a-5%-1-timm": (110, 62.4)}
    for cell in some:
        if str(cell) in numbers:
            results.save(cell, result(*numbers[str(cell)], images=1000 if cell.fraction == 1 else 50))
    results.save(some[1], {"error": "Keras has no inception_v1"})
    assert cells.table(results, some) == (
        "| data | images | timm | keras |\n"
        "|---|---|---|---|\n"
        "| a, 100 % | 1000 | 75.0 % (68.6–80.5), 10:00 | – |\n"
        "| a, 5 % | 50 | 52.5 % (50.0–55.0), 2 runs, 1:01 | – |\n"
        "\nFailed:\n\n- a-100%-0-keras: Keras has no inception_v1\n"
    )


def test_a_table_of_nothing(cells: ModuleType, tmp_path: Path) -> None:
    cell = cells.Cell("a", 0.2, "timm", 0)
    assert cells.table(cells.Results(tmp_path), [cell]).endswith("| a, 20 % | – | – |\n")


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    folder = tmp_path / "held-out"
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_correct_predictions_are_counted(cells: ModuleType, held_out: Path) -> None:
    file = held_out.parent / "p.csv"
    file.write_text("image,label,predicted\ndog/1.png,?,dog\ncat/1.png,?,dog\ncat/2.png,?,cat\n")
    assert cells.count_correct(file, held_out) == (2, 3)


@pytest.mark.parametrize(
    "rows",
    [
        "cat/1.png,cat\ncat/2.png,cat\n",
        "cat/1.png,cat\ncat/2.png,cat\ncat/2.png,cat\n",
        "cat/1.png,cat\ncat/2.png,cat\ndog/1.png,dog\ncat/2.png,cat\n",
        "cat/1.png,cat\ncat/2.png,cat\ndog/2.png,dog\n",
    ],
    ids=["missing", "twice for another", "twice", "unknown"],
)
def test_every_held_out_image_has_one_prediction(cells: ModuleType, held_out: Path, rows: str) -> None:
    file = held_out.parent / "p.csv"
    file.write_text("image,predicted\n" + rows)
    with pytest.raises(ValueError, match="expected one row for each of 3 images, got"):
        cells.count_correct(file, held_out)


def test_folders_share_no_image_with_the_held_out_ones(cells: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    folders = importlib.import_module("folders").Folders(tmp_path / "out", {"a": str(tmp_path / "data")})

    def contents(folder: Path) -> set[bytes]:
        return {file.read_bytes() for file in folder.rglob("*.png")}

    held_out = contents(folders.held_out("a"))
    whole, part = (folders.of(cells.Cell("a", fraction, "timm", 0)) for fraction in (1.0, 0.5))
    assert len(contents(whole)) + len(held_out) == 80 and not contents(whole) & held_out
    assert contents(part) < contents(whole) and len(contents(part)) == len(contents(whole)) / 2
    for folder in (whole, part):
        train, val = (contents(folder / name) for name in ("train", "val"))
        assert not train & val and 0.1 < len(val) / len(train | val) < 0.3
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.png")}
    assert folders.of(cells.Cell("a", 1.0, "keras", 0)) == whole and folders.held_out("a").exists()
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.png")}
