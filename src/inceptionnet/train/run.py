"""The run folder: the files of a training, each written atomically.

run.json                arguments, recipe, data and environment; enough to repeat the run
weights.safetensors     the weights of the last finished epoch (their average, if the recipe has one), with everything
                        for prediction; weights_raw.safetensors: the raw weights beside an average;
                        weights_best.safetensors: those of the epoch with the best accuracy on the validation split,
                        with several labels an image the best mean average precision
metrics.csv             one row per evaluation, with the epoch
steps.jsonl             one line every log.every_steps steps
evaluation.json         the last evaluation with per-class metrics
curves.png              loss and accuracy (or mean average precision) by epoch
predictions.png         held-out images with their predicted classes
report.html             all of this on one page, for a browser
decode_errors.txt       the corrupt images, if any
features/               the features of the training images, if the classifier was fitted to them
range_test.json         the loss at each learning rate of the range test, if there was one
head.json               the penalty of that fit, and the cross-validation it was chosen by
checkpoints/            the state of the training, to resume from
search.csv, trials/     the results and the other runs of a search that ended in this run; search.json to resume it
trackers.json           the runs of experiment trackers that this run continues in, with log.trackers
tensorboard/, mlflow/,  what the trackers write, unless it goes to a server
wandb/
"""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inceptionnet.errors import RunError, one_line
from inceptionnet.system.files import LOCK, FolderLock, Locked, remove_leftovers, replacing
from inceptionnet.system.opening import from_json, text_of
from inceptionnet.train.out_folder import CHECKSUM, OutFolder
from inceptionnet.train.recorded import Recorded, RecordedPlan, recorded
from inceptionnet.train.settings import value_text
from inceptionnet.weights.folder import RUN_WEIGHTS

REPORT, TRACKERS = "report.html", "trackers.json"
SEARCH, SEARCH_TABLE, TRIALS = "search.json", "search.csv", "trials"
"""What a search has in the folder of its last run."""
OF_DESCENT = ("images_per_s", "data_wait")
"""Columns of metrics.csv that every epoch of gradient descent has."""


class Run(OutFolder):
    """A run folder by its path."""

    def create(self) -> None:
        """Create the folder; it may exist if it is empty but for a killed process's temporary files, or for a search.

        Raises:
            RunError: it is not empty, or cannot be created or written.
        """
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path)
            if {file.name for file in path.iterdir()} - {SEARCH, SEARCH_TABLE, TRIALS, LOCK}:
                resume = f", or resume the run in it with --resume --out {path}" if self.exists else ""
                raise RunError(f"{path}: exists and is not empty; choose another --out{resume}")
        except OSError as error:
            raise RunError(f"{path}: cannot create the run folder: {error.strerror}; choose another --out") from None

    def lock(self) -> FolderLock:
        """Keep other trainings out of the folder.

        Raises:
            RunError: one is at work there, or the folder cannot be written.
        """
        try:
            return FolderLock(self.path)
        except Locked as holder:
            raise RunError(
                f"{self.path}: another training is writing into it (process {holder}); wait for its end, or choose "
                "another --out"
            ) from None
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}; choose another --out") from None

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "run.json").is_file()

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.path / RUN_WEIGHTS

    @property
    def raw_weights(self) -> Path:
        """The raw weights, if `weights` are a running average."""
        return self.path / "weights_raw.safetensors"

    @property
    def features(self) -> Path:
        """The folder of the features of the training images."""
        return self.path / "features"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def remove_large(self) -> None:
        """Remove the checkpoints and the features, which are several times the size of the weights, if possible."""
        for folder in (self.checkpoints, self.features):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def best_weights(self) -> Path:
        """The weights of the best epoch on the validation split, see `best_row`."""
        return self.path / "weights_best.safetensors"

    def about(self) -> dict[str, Any]:
        """The content of run.json. Raises: RunError: it is missing, damaged, or of another version."""
        about = self.read_json("run.json")
        about.pop(CHECKSUM, None)
        self._recorded(about)
        return about

    def _recorded(self, about: Mapping[str, Any]) -> Recorded:
        return recorded(about, Recorded, self.path / "run.json", "train again into another folder")

    def evaluated_on(self) -> tuple[RecordedPlan, str]:
        """The data of the run, and the split of its last evaluation.

        Raises:
            RunError: no epoch is finished yet, or run.json or evaluation.json is damaged.
        """
        data = self.data()
        try:
            return data, str(self.read_json("evaluation.json")["split"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path / 'evaluation.json'}: is damaged: {error}") from None

    def data(self) -> RecordedPlan:
        """The data of the run. Raises: RunError: run.json is damaged."""
        return self._recorded(self.read_json("run.json")).plan

    def device(self) -> str:
        """The type of device that the run was trained on, cpu or cuda; empty if it is not known."""
        return str(self.about()["environment"].get("device", "")).partition(":")[0]

    def changes(self) -> dict[str, str]:
        """The settings that changed while the run trained: `schedule.epochs from epoch 4` → `3 → 6`."""
        return {
            f"{one['setting']} from epoch {one['epoch']}": f"{value_text(one['before'])} → {value_text(one['after'])}"
            for one in self.about().get("changes", [])
        }

    def keep_best(self) -> None:
        """Copy `weights` to `best_weights`. Raises: RunError: they cannot be written."""
        try:
            with replacing(self.best_weights) as temporary:
                shutil.copyfile(self.weights, temporary)
        except OSError as error:
            raise RunError(f"{self.best_weights}: cannot be written: {error.strerror}") from None

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write metrics.csv again: one row for each finished epoch."""
        self.write_table("metrics.csv", rows[0], rows)

    def read_metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one for each finished epoch, of which there is one or more.

        Raises:
            RunError: it is missing or damaged.
        """
        file = self.path / "metrics.csv"
        try:
            table = csv.DictReader(io.StringIO(text_of(file), newline=""))
            rows = [{key: float(value) for key, value in row.items()} for row in table]
            if not rows:
                raise ValueError("it has no rows")
            for row in rows:
                for column in ("epoch", "elapsed_s", *(OF_DESCENT if row.get("epoch") else ())):
                    if not math.isfinite(row.get(column, math.nan)):
                        raise ValueError(f"expected a number in column {column}, got {row.get(column, 'none')}")
            return rows
        except (OSError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"{file}: cannot be read: {one_line(error)}") from None

    def log_step(self, row: Mapping[str, float]) -> None:
        """Append a line to steps.jsonl."""
        file = self.path / "steps.jsonl"
        try:
            with open(file, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunError(f"{file}: cannot be written: {error.strerror}") from None

    def forget_steps(self, first: int) -> int:
        """Remove the lines of steps.jsonl from step `first` on, which will be run again.

        Damaged lines are removed too; returns how many of them are not the last one.
        """
        found = self._steps()
        kept = [row for row in found if row is not None and row["step"] < first]
        self.write_text("steps.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        return sum(row is None for row in found[:-1])

    def _steps(self) -> list[dict[str, float] | None]:
        """The lines of steps.jsonl; None for one that cannot be read."""
        rows: list[dict[str, float] | None] = []
        file = self.path / "steps.jsonl"
        for line in file.read_bytes().splitlines() if file.is_file() else []:
            try:
                row = from_json(line)
                rows.append(row if isinstance(row["step"], int) else None)
            except (ValueError, LookupError, TypeError):
                rows.append(None)
        return rows

    def write_decode_errors(self, errors: Sequence[tuple[str, str]]) -> None:
        """Write decode_errors.txt: name and reason, one line per corrupt image."""
        self.write_text("decode_errors.txt", "".join(f"{name}\t{reason}\n" for name, reason in errors))
