"""What a worker process starts with. It imports nothing heavy: until then it cannot tell the parent that it lives."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from inceptionnet.serve.settings import Settings

if TYPE_CHECKING:
    from inceptionnet.serve.guard import Guard


def factory(settings: Settings) -> Guard:
    """The application of a worker process."""
    if hasattr(signal, "SIGHUP"):  # it reaches every process of a terminal; the parent replaces one after another
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from inceptionnet.serve.app import application

    return application(settings)
