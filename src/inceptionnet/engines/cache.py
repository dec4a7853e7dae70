"""Which engine was the fastest, remembered in a JSON file from one process to the next.

The file is $INCEPTIONNET_CACHE/engines.json; without that variable $XDG_CACHE_HOME/inceptionnet/engines.json, else
~/.cache/inceptionnet/engines.json. It may be deleted at any time: what cannot be read is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from inceptionnet.devices import cpu_says
from inceptionnet.files import replacing

log = logging.getLogger("inceptionnet")


@dataclass(frozen=True)
class Choice:
    """What was measured."""

    engine: str
    latency_ms: Mapping[str, float]
    """Median time of one batch, by engine."""
    skipped: Mapping[str, str]
    """Why the others were not measured, by engine."""

    def __post_init__(self) -> None:
        if self.engine not in self.latency_ms or not all(isinstance(ms, float) for ms in self.latency_ms.values()):
            raise ValueError(f"no time for {self.engine}")
        if not all(isinstance(reason, str) for reason in self.skipped.values()):
            raise ValueError("a reason that is no text")

    @property
    def why(self) -> str:
        """The times in words, to three digits, the best first."""
        order = sorted(self.latency_ms.items(), key=lambda item: item[1])
        return f"fastest of {len(order)}: " + ", ".join(f"{name} {float(f'{ms:.3g}'):g} ms" for name, ms in order)


def cache_file() -> Path:
    """Where choices are remembered."""
    if own := os.environ.get("INCEPTIONNET_CACHE"):
        return Path(own) / "engines.json"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inceptionnet" / "engines.json"


def recall(key: Mapping[str, Any]) -> Choice | None:
    """The choice that was made for this key; None, with a warning where the file is damaged, if there is none."""
    try:
        entry = _entries().get(_digest(key))
        return None if entry is None else Choice(**entry["choice"])
    except OSError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s: is damaged (%s); the engines are measured anew", cache_file(), " ".join(str(error).split()))
        return None


def remember(key: Mapping[str, Any], choice: Choice) -> None:
    """Keep the choice for this key; where that is not possible, a warning."""
    path = cache_file()
    try:
        entries = _entries()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        entries = {}
    entries[_digest(key)] = {"key": key, "choice": asdict(choice)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"choices": entries}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("%s: cannot be written (%s); engines will be measured again next time", path, error.strerror)


def device_name(device: torch.device) -> str:
    """The device as a choice depends on it: its kind and model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}: {_processor()}"


def _processor() -> str:
    """The CPU's model, with how many of its cores are there."""
    name = cpu_says("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _entries() -> dict[str, Any]:
    entries = json.loads(cache_file().read_text(encoding="utf-8"))["choices"]
    if not isinstance(entries, dict):
        raise ValueError(f"expected choices by key, got {type(entries).__name__}")
    return entries


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
