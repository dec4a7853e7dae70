"""Results of benchmarks/gpu.py: a JSON file and Markdown tables, written again after every row.

A row is a dictionary. `name` is unique within its part, `error` is the error if it failed, and `left_out` is the reason
if it was not measured. Every other key is a column of the table.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inceptionnet.system.files import replacing

Row = dict[str, Any]
SPECIAL = ("name", "error", "left_out", "traceback")
"""Keys of a row that are not columns."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range of measurements, as the value of a column."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def speed(times_ms: Sequence[float], images: int) -> Row:
    """Throughput and latency columns, from the times in ms of batches of `images` images."""
    return {"images/s": spread([1000 * images / ms for ms in times_ms]), "ms": statistics.median(times_ms)}


def ratios(row: Row, times_ms: Sequence[float], theirs_ms: Sequence[float]) -> Row:
    """The row with a column for its speed relative to timm, computed per round."""
    return row | {"× timm": spread([b / a for a, b in zip(times_ms, theirs_ms, strict=True)])}


def shown(value: Any) -> str:
    """A value as text for a table."""
    match value:
        case {"median": middle, "least": least, "most": most}:
            return f"{shown(middle)} ({shown(least)}–{shown(most)})"
        case float():
            return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


class Results:
    """All results; the files are replaced atomically."""

    def __init__(self, folder: Path, about: Row, parts: Sequence[str]) -> None:
        self.folder = folder
        self.about = about
        self.parts: dict[str, Row] = {name: {"state": "not started", "rows": [], "notes": []} for name in parts}
        self.write()

    def begin(self, part: str) -> None:
        self.parts[part]["state"] = "not finished"
        self.write()

    def add(self, part: str, row: Row) -> None:
        self.parts[part]["rows"].append(row)
        new = {key: shown(value) for key, value in row.items() if key not in SPECIAL and str(value) not in row["name"]}
        columns = ", ".join(f"{key} {value}" for key, value in new.items())
        told = f"FAILED: {row['error']}" if "error" in row else row.get("left_out", "")
        say(f"  {row['name']}: {'; '.join(text for text in (columns, told) if text)}")
        self.write()

    def note(self, part: str, line: str) -> None:
        self.parts[part]["notes"].append(line)
        say(f"  {line}")
        self.write()

    def end(self, part: str, state: str, seconds: float, **details: Any) -> None:
        self.parts[part] |= {"state": state, "seconds": round(seconds, 1), **details}
        say(f"{part}: {state} ({seconds:.0f} s)")
        self.write()

    @property
    def failed(self) -> bool:
        """Whether a part or a row failed."""
        return any(
            part["state"].startswith("failed") or any("error" in row for row in part["rows"])
            for part in self.parts.values()
        )

    def write(self) -> None:
        content = {"about": self.about, "parts": self.parts}
        for name, text in (("results.json", json.dumps(content, indent=1) + "\n"), ("results.md", self._markdown())):
            with replacing(self.folder / name) as file:
                file.write_text(text, encoding="utf-8")

    def _markdown(self) -> str:
        lines = ["# GPU benchmarks", "", *(f"- {key}: {shown(value)}" for key, value in self.about.items())]
        for name, part in self.parts.items():
            lines += ["", f"## {name}", "", f"{part['state']}{self._seconds(part)}"]
            rows = [row for row in part["rows"] if "error" not in row and "left_out" not in row]
            columns = list(dict.fromkeys(key for row in rows for key in row if key not in SPECIAL))
            if rows:
                lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
                lines += [f"| {' | '.join(shown(row.get(key, '')) for key in columns)} |" for row in rows]
            told = [f"- failed: {row['name']}: {row['error']}" for row in part["rows"] if "error" in row]
            told += [f"- {row['left_out']}: {row['name']}" for row in part["rows"] if "left_out" in row]
            lines += ["", *(f"- {note}" for note in part["notes"]), *told] if told or part["notes"] else []
        return "\n".join(lines) + "\n"

    @staticmethod
    def _seconds(part: Row) -> str:
        return f", {part['seconds']:.0f} s" if "seconds" in part else ""


def say(line: str) -> None:
    print(line, flush=True)
