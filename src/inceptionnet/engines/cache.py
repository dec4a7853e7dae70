"""Cache of the fastest engine, in a JSON file.

The file is $INCEPTIONNET_CACHE/engines.json; without that variable $XDG_CACHE_HOME/inceptionnet/engines.json, if that
is an absolute path, as its standard says, else ~/.cache/inceptionnet/engines.json. It can be deleted at any time: what
is missing or damaged is measured again. Of two processes that write at once the last one's file stays, whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inceptionnet.system.devices import cpu_says
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import from_json, text_of

if TYPE_CHECKING:
    import torch

log: logging.Logger = logging.getLogger("inceptionnet")
NAME = "engines.json"


@dataclass(frozen=True)
class Choice:
    """The result of measuring the engines."""

    engine: str
    latency_ms: Mapping[str, float]
    """Median latency of one batch, by engine."""
    skipped: Mapping[str, str]
    """Reasons why the others were not measured, by engine."""
    runs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The fastest number of threads and of streams, of the engines for which they were measured."""

    def __post_init__(self) -> None:
        if self.engine not in self.latency_ms or not all(map(_is_latency, self.latency_ms.values())):
            raise ValueError(f"no latency for {self.engine}")
        if not all(len(run) == 2 and all(type(n) is int and n > 0 for n in run) for run in self.runs.values()):
            raise ValueError("a number of threads or streams that is none")
        if not all(isinstance(reason, str) for reason in self.skipped.values()):
            raise ValueError("a reason that is not a string")

    @property
    def why(self) -> str:
        """The latencies in words, to three digits, fastest first."""
        order = sorted(self.latency_ms.items(), key=lambda item: item[1])
        return f"fastest of {len(order)}: " + ", ".join(f"{name} {float(f'{ms:.3g}'):g} ms" for name, ms in order)


def _is_latency(ms: object) -> bool:
    return isinstance(ms, float) and 0 <= ms < math.inf


def cache_file() -> Path:
    """The path of the cache. Raises: OSError: there is no folder to have it in."""
    if own := os.environ.get("INCEPTIONNET_CACHE"):
        return Path(own) / NAME
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "inceptionnet" / NAME
    except RuntimeError:  # a user without a home, as some containers have
        raise OSError(ENOENT, "there is no home folder; set INCEPTIONNET_CACHE to one") from None


def recall(key: Mapping[str, Any]) -> Choice | None:
    """The cached choice for this key, or None; warns if the file is damaged."""
    try:
        entry = _entries().get(_digest(key))
        return None if entry is None else Choice(**entry["choice"])
    except OSError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s: is damaged (%s); measuring the engines again", cache_file(), " ".join(str(error).split()))
        return None


def remember(key: Mapping[str, Any], choice: Choice) -> None:
    """Save the choice for this key; warns if that is not possible."""
    path = Path(NAME)
    try:
        entries = _entries()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        entries = {}
    entries[_digest(key)] = {"key": key, "choice": asdict(choice)}
    try:
        path = cache_file()
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"choices": entries}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("%s: cannot be written (%s); the engines will be measured again next time", path, error.strerror)


def device_name(device: torch.device) -> str:
    """The type and model of the device, as part of a key."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{device.type}: {processor()}"


def processor() -> str:
    """The CPU's model and number of cores."""
    name = cpu_says("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _entries() -> dict[str, Any]:
    entries = from_json(text_of(cache_file()))["choices"]
    if not isinstance(entries, dict):
        raise ValueError(f"expected choices by key, got {type(entries).__name__}")
    return entries


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
