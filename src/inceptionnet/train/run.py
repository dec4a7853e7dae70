"""The run folder: everything that a training leaves, and nothing that is only half written.

run.json              what was asked for and what it was run with; enough to run it again
weights.safetensors   the weights of the last finished epoch, with all that a prediction needs
metrics.csv           one line an epoch
evaluation.json       the last evaluation, class by class
curves.png            loss and accuracy over the epochs
predictions.png       held-out pictures with what the network says of them
bad_pictures.txt      the pictures that could not be decoded, if any
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inceptionnet.errors import RunError
from inceptionnet.files import replacing


@dataclass(frozen=True)
class Run:
    """A run folder by its path."""

    path: Path

    def create(self) -> None:
        """Make the folder, new and empty.

        Raises:
            RunError: something is there already, or the folder cannot be made.
        """
        path = self.path
        try:
            if path.is_dir() and any(path.iterdir()):
                raise RunError(f"{path}: exists and is not empty; name another folder with --out, nothing was changed")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot make the run folder: {error.strerror}") from None

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / "weights.safetensors"

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Write or replace a JSON file of the run."""
        self._write(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def log_metrics(self, row: Mapping[str, float]) -> None:
        """Add a line to metrics.csv; the first one gives the columns."""
        file = self.path / "metrics.csv"
        try:
            with open(file, "a", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, row.keys())
                if not stream.tell():
                    writer.writeheader()
                writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}; the weights so far are whole") from None

    def read_metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.csv, one for each finished epoch."""
        with open(self.path / "metrics.csv", newline="", encoding="utf-8") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

    def write_bad_pictures(self, bad: Sequence[tuple[str, str]]) -> None:
        """Write bad_pictures.txt: name and reason, a line each."""
        self._write("bad_pictures.txt", "".join(f"{name}\t{reason}\n" for name, reason in bad))

    def _write(self, name: str, text: str) -> None:
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written: {error.strerror}") from None


def weights_of(path: Path) -> Path:
    """The weights file of a run folder, or the path itself if it is a file.

    Raises:
        RunError: a folder without weights.
    """
    if not path.is_dir():
        return path
    weights = Run(path).weights
    if not weights.is_file():
        raise RunError(f"{path}: expected a run folder or a weights file, got a folder without {weights.name}")
    return weights
