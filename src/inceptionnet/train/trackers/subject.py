"""What a tracker is told of a run, and what every tracker can do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from inceptionnet.report.page import flat

PROJECT = "inceptionnet"
"""The experiment or project of a run, where the user's configuration of the tracker names none."""


@dataclass(frozen=True)
class Subject:
    """A run as a tracker is told of it."""

    folder: Path
    settings: Mapping[str, Any]
    """By dotted key: recipe, plan, data and environment."""
    changes: Mapping[str, str]
    """See `Run.changes`."""
    step: int
    """The next step to train; larger than 0 in a run that is resumed."""

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.folder.resolve().name


class Backend(Protocol):
    """A run that is open in a tracker. Every method may raise any exception of the tracker's library."""

    identity: Mapping[str, str]
    """What finds the same run of the tracker again when the training is resumed."""
    last_step: int
    """The last step whose metrics this run of the tracker has; -1 for none."""
    line: str
    """Where the run is, and how to look at it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""

    def finish(self, metrics: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        """Write the metrics of the final evaluation, and keep the files if that is usual."""

    def close(self, outcome: str) -> None:
        """Close the run: finished, interrupted or failed."""

    def abandon(self) -> None:
        """Release what is open here, after a failure."""


def settings_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in run.json by dotted key, with counts in place of the classes.

    User names, passwords and queries of addresses are removed, since a tracker may be a server that others read.
    """
    data = about["data"]
    plan = {key: value for key, value in about["plan"].items() if key != "settings"}  # the recipe has them
    told = {
        "plan": plan,
        "recipe": about["recipe"],
        "preprocessing": about["preprocessing"],
        "data": {
            "title": data["title"],
            "note": data["note"],
            "classes": len(data["classes"]),
            "images": data["images"],
        },
        "environment": about["environment"],
    }
    return {key: without_secrets(value) if isinstance(value, str) else value for key, value in flat(told)}


def without_secrets(text: str) -> str:
    """An address without user name, password and query; other text unchanged."""
    return without_password(text).partition("?")[0] if "://" in text else text


def without_password(text: str) -> str:
    """A text without user names and passwords in its addresses."""
    return re.sub(r"://[^/\s]*@", "://", text)


@contextmanager
def environment(**defaults: str) -> Iterator[None]:
    """Set environment variables that the user has not set, for as long as a library reads them."""
    missing = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
