"""A wish to stop that comes from outside: Ctrl-C, or the signal with which a cluster ends a job."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopWish:
    """Within the block the first SIGINT or SIGTERM is noted in `wished`; a second SIGINT interrupts at once.

    Outside the main thread, where Python lets no handler be set, nothing is changed.
    """

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wished and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.wished = True
