"""Cells of the fine-tuning benchmark: data × fraction × method × seed, their results on disk, and the table."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inceptionnet.evaluate.intervals import share_interval
from inceptionnet.system.files import replacing

METHODS = ("inceptionnet", "sklearn", "timm", "fastai", "keras")
Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One training: `fraction` is the share of the training images, `seed` draws them and is the training's seed."""

    data: str
    fraction: float
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.folder}-{self.method}"

    @property
    def folder(self) -> str:
        """The name of the folder with its images, which is the same for all methods."""
        return f"{self.data}-{100 * self.fraction:g}%-{self.seed}"


def all_cells(data: Sequence[str], fractions: Sequence[float], methods: Sequence[str], seeds: int) -> list[Cell]:
    """Seed after seed, so that an interrupted benchmark has every cell of its first seeds."""
    return [
        Cell(name, fraction, method, seed)
        for seed in range(seeds)
        for name in data
        for fraction in fractions
        for method in methods
    ]


def subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of a random sample of that fraction of each class, at least two of each, in increasing order."""
    if fraction == 1:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    taken = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.sort(np.concatenate([one[: max(2, round(fraction * len(one)))] for one in taken]))


def count_correct(predictions: Path, held_out: Path) -> tuple[int, int]:
    """Correct predictions, and all images of the folder `held_out`; every image must have one prediction.

    `predictions` is a .csv file with the columns image (CLASS/FILE) and predicted.
    """
    with open(predictions, newline="", encoding="utf-8") as file:
        rows = [(row["image"], row["predicted"]) for row in csv.DictReader(file)]
    expected = {f"{path.parent.name}/{path.name}" for path in held_out.glob("*/*")}
    names = [name for name, _ in rows]
    if len(names) != len(expected) or set(names) != expected:
        odd = sorted(set(names) ^ expected)[:1] or ["an image twice"]
        raise ValueError(
            f"{predictions}: expected one row for each of {len(expected)} images, got {len(names)}: {odd[0]}"
        )
    return sum(name.split("/")[0] == predicted for name, predicted in rows), len(rows)


class Results:
    """A folder with one JSON file for each cell that has been run; all have the same settings."""

    def __init__(self, folder: Path, settings: dict[str, Any] | None = None) -> None:
        """Raises: ValueError if the folder has results of other settings, or of other minutes for a fraction."""
        self.folder = folder
        if settings is None:
            return
        file, minutes = folder / "settings.json", settings["minutes"]
        there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else settings
        both = {**minutes, **there["minutes"]}
        if {**settings, "minutes": both} != {**there, "minutes": {**both, **minutes}}:
            raise ValueError(f"{folder} has results with {there}, not with {settings}: choose another --out")
        self._write(file, {**settings, "minutes": both})

    def _file(self, cell: Cell) -> Path:
        return self.folder / "results" / f"{cell}.json"

    def of(self, cell: Cell) -> Result | None:
        file = self._file(cell)
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def pending(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those that have not been run, or failed."""
        return [cell for cell in cells if "correct" not in (self.of(cell) or {})]

    def save(self, cell: Cell, result: Result) -> None:
        self._write(self._file(cell), asdict(cell) | result)

    @staticmethod
    def _write(file: Path, content: dict[str, Any]) -> None:
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(results: Results, cells: Sequence[Cell]) -> str:
    """A Markdown table with a row for each data set and fraction, a column for each method; failures are below it."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    lines = [f"| data | images | {' | '.join(methods)} |", "|---" * (len(methods) + 2) + "|"]
    failed: dict[str, None] = {}
    rows: dict[tuple[str, float], dict[str, list[Result]]] = {}
    for cell in cells:
        columns = rows.setdefault((cell.data, cell.fraction), {method: [] for method in methods})
        result = results.of(cell)
        if result is not None and "error" in result:
            failed[f"- {cell}: {result['error']}"] = None
        elif result is not None:
            columns[cell.method].append(result)
    for (data, fraction), columns in rows.items():
        images = next((str(found[0]["images"]) for found in columns.values() if found), "–")
        shown = " | ".join(summary(found) for found in columns.values())
        lines.append(f"| {data}, {100 * fraction:g} % | {images} | {shown} |")
    return "\n".join([*lines, *(["", "Failed:", "", *failed] if failed else [])]) + "\n"


def summary(found: Sequence[Result]) -> str:
    """Accuracy and training time: Wilson's 95 % interval of one run, the range of several."""
    if not found:
        return "–"
    shares = [result["correct"] / result["held_out"] for result in found]
    if len(found) == 1:
        interval = share_interval(found[0]["correct"], found[0]["held_out"])
        low, high, runs = interval.low, interval.high, ""
    else:
        low, high, runs = min(shares), max(shares), f"{len(found)} runs, "
    seconds = round(statistics.mean(result["training_s"] for result in found))
    took = f"{seconds // 60}:{seconds % 60:02}"
    return f"{statistics.mean(shares):.1%} ({low * 100:.1f}–{high * 100:.1f}), {runs}{took}".replace("%", " %")
