"""The settings of the service: which models, how they run, and its limits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from inceptionnet.data.limits import MAX_PIXELS
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.devices import default_workers

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s)")
_GENERIC = ("best", "last", "model", "weights", "checkpoint")
"""Names of files that say nothing; their folder's does."""
MOST_WAIT_S = 1.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take."""

    request_bytes: int = 64 * 2**20
    """Of one body."""
    image_bytes: int = 32 * 2**20
    """Of one encoded image."""
    pixels: int = MAX_PIXELS
    """Of one image."""
    images: int = 64
    """In one request."""
    queue: int = 256
    """Images that are waiting or being worked on, of all requests."""
    held_bytes: int = 512 * 2**20
    """Memory for bodies of requests that are being received or answered, all together, as it is estimated."""
    connections: int = 1000
    timeout_s: float = 30.0
    """To receive a request, and again to answer it."""
    decode_s: float = 10.0
    """To decode one image."""
    header_s: float = 10.0
    """To receive the headers of a request."""
    header_bytes: int = 32 * 2**10


@dataclass(frozen=True)
class Settings:
    """All that the service is started with; it can be pickled, so that worker processes get it."""

    models: Mapping[str, str]
    """Sources by name; the first is the default model."""
    engine: str = "auto"
    precision: str = "fp32"
    calibrate: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    batch_size: int = 16
    max_wait_s: float = 0.005
    """How long the first image of a batch waits for others."""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    decoders: int = 0
    """Processes that decode images, of each worker; 0: half of the cores, at most 4, shared by the workers."""
    grace_s: int = 30
    """After SIGTERM, the most time for requests that are being answered."""
    limits: Limits = field(default_factory=Limits)
    api_key: str = field(default="", repr=False)
    shared: str = ""
    """A folder that the worker processes share; empty with one process."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in LOOPBACK

    @property
    def decode_processes(self) -> int:
        """The number of processes that decode images in one worker."""
        return self.decoders or max(1, default_workers(None) // self.workers)


def named_models(places: Sequence[str]) -> dict[str, str]:
    """Sources by the name that clients use: `NAME=SOURCE`, or the name of the run folder or the file.

    Raises:
        ConfigurationError: a name that is used twice, or that does not fit into a URL.

    Example:
        >>> named_models(["runs/flowers", "v2=runs/flowers-2/best.safetensors"])
        {'flowers': 'runs/flowers', 'v2': 'runs/flowers-2/best.safetensors'}
    """
    found: dict[str, str] = {}
    for place in places:
        stated, equals, source = place.partition("=")
        if equals and not Path(place).exists():
            name = stated
        else:
            name, source = _usable(place), place
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{place}: expected a name of letters, digits, '.', '_' and '-' for the model, got {name!r}; "
                "state another as NAME=SOURCE"
            )
        if name in found:
            raise ConfigurationError(
                f"{place}: the name {name} is already that of {found[name]}; state another as NAME=SOURCE"
            )
        found[name] = source
    return found


def _usable(place: str) -> str:
    path = PurePath(place.removeprefix("hf:"))
    name = path.name if not path.suffix or Path(place).is_dir() else path.stem
    if name in _GENERIC and path.parent.name:
        name = path.parent.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def seconds(text: str, option: str, most: float = MOST_WAIT_S) -> float:
    """A time such as 5ms or 0.1s. Raises: ConfigurationError.

    Example:
        >>> seconds("5ms", "--max-wait")
        0.005
    """
    found = _TIME.fullmatch(text.strip())
    value = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else -1.0
    if not 0 <= value <= most:
        raise ConfigurationError(f"{option}: expected a time from 0ms to {most:g}s, such as 5ms, got {text!r}")
    return value
