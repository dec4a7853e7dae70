"""The folder of a run, a search, a study or a comparison: files of JSON and CSV, each written atomically.

A sealed file has a checksum, by which it is known to be unchanged when it is read again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from inceptionnet.errors import RunError
from inceptionnet.system.checksum import checksum
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import from_json, text_of
from inceptionnet.train.recorded import recorded

CHECKSUM = "checksum"
"""The key of the checksum in JSON files."""


@dataclass(frozen=True)
class OutFolder:
    """A folder by its path, with files by their names."""

    path: Path

    def write_json(self, name: str, values: Mapping[str, Any], advice: str = "") -> None:
        """Write or replace a JSON file. Raises: RunError, which ends with `advice`: it cannot be written."""
        self.write_text(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n", advice)

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
        """Read a JSON file.

        Raises:
            RunError: it is missing or damaged.
        """
        file = self.path / name
        try:
            values = from_json(text_of(file))
        except FileNotFoundError:
            raise RunError(f"{self.path}: expected a run folder, got none with {name} in it; check the path") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{file}: cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise RunError(f"{file}: cannot be read: expected a JSON object, got {type(values).__name__}")
        return values

    def read_optional(self, name: str, form: type[BaseModel] | None = None) -> dict[str, Any]:
        """A JSON file that not every folder has; empty if it is not there.

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

    def write_table(self, name: str, columns: Iterable[str], rows: Sequence[Mapping[str, object]]) -> None:
        """Write or replace a CSV file, with six digits of each number; a value that a row lacks is empty."""
        table = io.StringIO()
        writer = csv.DictWriter(table, list(columns), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            values = {key: f"{value:.6g}" if isinstance(value, float | int) else value for key, value in row.items()}
            writer.writerow(values)
        self.write_text(name, table.getvalue())

    def write_text(self, name: str, text: str, advice: str = "") -> None:
        """Write or replace a file. Raises: RunError, which ends with `advice`: it cannot be written."""
        try:
            with replacing(self.path / name) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be written: {error.strerror}{advice}") from None


def _checksum(values: Mapping[str, Any]) -> str:
    """CRC-32 of JSON values other than a checksum, however they are written."""
    read = json.loads(json.dumps(values))  # as another process will read them: keys are texts, tuples lists
    read.pop(CHECKSUM, None)
    return checksum(json.dumps(read, sort_keys=True), {})
