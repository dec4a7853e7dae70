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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from inceptionnet.errors import RunError, one_line
from inceptionnet.system.checksum import checksum
from inceptionnet.system.files import LOCK, FolderLock, Locked, remove_leftovers, replacing
from inceptionnet.system.opening import from_json, text_of
from inceptionnet.train.recorded import Recorded, recorded
from inceptionnet.train.settings import value_text
from inceptionnet.weights.folder import RUN_WEIGHTS

REPORT, TRACKERS = "report.html", "trackers.json"
SEARCH, SEARCH_TABLE, TRIALS = "search.json", "search.csv", "trials"
"""What a search has in the folder of its last run."""
OF_DESCENT = ("images_per_s", "data_wait")
"""Columns of metrics.csv that every epoch of gradient descent has."""
CHECKSUM = "checksum"
"""The key of the checksum in JSON files."""


class TrainedOn(NamedTuple):
    """The data of a run, as its `Plan` has it."""

    data: str
    labels: str | None
    splits: str | None
    group_by: str | None

    def moved(self, data: str | None, labels: str | Path | None = None) -> TrainedOn:
        """The same data at another place; a file of labels that lies in it has moved with it, unless it is given."""
        at = None if labels is None else str(Path(labels).resolve())
        if at is None and data is not None and self.labels and Path(self.labels).is_relative_to(self.data):
            at = str(Path(data).resolve() / Path(self.labels).relative_to(self.data))
        return TrainedOn(self.data if data is None else data, at or self.labels, self.splits, self.group_by)


def _checksum(values: Mapping[str, Any]) -> str:
    """CRC-32 of JSON values other than a checksum, however they are written."""
    read = json.loads(json.dumps(values))  # as another process will read them: keys are texts, tuples lists
    read.pop(CHECKSUM, None)
    return checksum(json.dumps(read, sort_keys=True), {})


@dataclass(frozen=True)
class Run:
    """A run folder by its path."""

    path: Path

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
    def best_weights(self) -> Path:
        """The weights of the best epoch on the validation split, see `best_row`."""
        return self.path / "weights_best.safetensors"

    def write_json(self, name: str, values: Mapping[str, Any], advice: str = "") -> None:
        """Write or replace a JSON file of the run. Raises: RunError, which ends with `advice`: it cannot be written."""
        self._write(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n", advice)

    def write_sealed(self, name: str, values: Mapping[str, Any]) -> None:
        """`write_json` with a checksum, for `check_unchanged`. Raises: RunError: it cannot be written."""
        self.write_json(name, {**values, CHECKSUM: _checksum(values)})

    def check_unchanged(self, name: str) -> dict[str, Any]:
        """The values of a JSON file, which are still those that were written; one without a checksum passes.

        Raises:
            RunError: it has others; or it is missing or damaged.
        """
        values = self.read_json(name)
        if CHECKSUM in values and values[CHECKSUM] != (got := _checksum(values)):
            raise RunError(
                f"{self.path / name}: its content does not match its checksum: expected {values[CHECKSUM]!r:.20}, got "
                f"{got!r}: it was damaged or edited; restore it, or remove {CHECKSUM!r} from it to go on with what it "
                "says now"
            )
        return values

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the run.

        Raises:
            RunError: it is missing or damaged.
        """
        file = self.path / name
        try:
            values = from_json(text_of(file))
        except FileNotFoundError:
            raise RunError(f"{self.path}: expected a run folder, got none with {name} in it; check --out") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise RunError(f"{file}: cannot be read: expected a JSON object, got {type(values).__name__}")
        return values

    def about(self) -> dict[str, Any]:
        """The content of run.json. Raises: RunError: it is missing, damaged, or of another version."""
        about = self.read_json("run.json")
        about.pop(CHECKSUM, None)
        recorded(about, Recorded, self.path / "run.json", "start again with another --out")
        return about

    def evaluated_on(self) -> tuple[TrainedOn, str]:
        """The data of the run, and the split of its last evaluation.

        Raises:
            RunError: no epoch is finished yet, or run.json or evaluation.json is damaged.
        """
        data = self.data()
        try:
            return data, str(self.read_json("evaluation.json")["split"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{self.path / 'evaluation.json'}: is damaged: {error}") from None

    def data(self) -> TrainedOn:
        """The data of the run. Raises: RunError: run.json is damaged."""
        return TrainedOn(**Recorded.model_validate(self.about()).plan.model_dump())

    def device(self) -> str:
        """The type of device that the run was trained on, cpu or cuda; empty if it is not known."""
        return str(self.about()["environment"].get("device", "")).partition(":")[0]

    def changes(self) -> dict[str, str]:
        """The settings that changed while the run trained: `schedule.epochs from epoch 4` → `3 → 6`."""
        return {
            f"{one['setting']} from epoch {one['epoch']}": f"{value_text(one['before'])} → {value_text(one['after'])}"
            for one in self.about().get("changes", [])
        }

    def read_optional(self, name: str, form: type[BaseModel] | None = None) -> dict[str, Any]:
        """A JSON file that not every run has; empty if it is not there.

        Args:
            form: what it has to have.

        Raises:
            RunError: it is damaged, or of another form.
        """
        if not (self.path / name).is_file():
            return {}
        values = self.check_unchanged(name)
        if form:
            values |= recorded(values, form, self.path / name, "restore it, or remove it").model_dump()
        return values

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

    def write_table(self, name: str, columns: Iterable[str], rows: Sequence[Mapping[str, object]]) -> None:
        """Write or replace a CSV file of the run, with six digits of each number; a value that a row lacks is empty."""
        table = io.StringIO()
        writer = csv.DictWriter(table, list(columns), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = {key: f"{value:.6g}" if isinstance(value, float | int) else value for key, value in row.items()}
            writer.writerow(values)
        self._write(name, table.getvalue())

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

    def read_steps(self) -> list[dict[str, float]]:
        """The lines of steps.jsonl that can be read; a killed process leaves an incomplete last one."""
        return [row for row in self._steps() if row is not None]

    def forget_steps(self, first: int) -> int:
        """Remove the lines of steps.jsonl from step `first` on, which will be run again.

        Damaged lines are removed too; returns how many of them are not the last one.
        """
        found = self._steps()
        kept = [row for row in found if row is not None and row["step"] < first]
        self._write("steps.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
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
        self._write("decode_errors.txt", "".join(f"{name}\t{reason}\n" for name, reason in errors))

    def _write(self, name: str, text: str, advice: str = "") -> None:
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written: {error.strerror}{advice}") from None
