"""A request to stop from outside: Ctrl-C, SIGTERM of a cluster that ends a job, SIGHUP of a terminal that closes."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Windows has no SIGHUP."""


class StopRequest:
    """Within the block the first SIGINT, SIGTERM or SIGHUP sets `requested`; a second SIGINT interrupts at once.

    A SIGHUP that is ignored, as under nohup, stays so. Outside the main thread it does nothing, since Python allows no
    signal handlers there.
    """

    def __init__(self) -> None:
        self.requested: bool = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                before = signal.getsignal(number)
                if number == signal.SIGINT or before is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
