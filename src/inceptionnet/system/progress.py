"""Progress: a bar with throughput and remaining time in a terminal, a plain line every few seconds elsewhere.

Everything is printed to standard error, so that standard output contains results only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from inceptionnet.errors import visible
from inceptionnet.system.printing import say

PLAIN_EVERY_S = 10.0
RATE_OVER_S = 30.0
"""The rate is that of the last so many seconds."""


class Bar:
    """Counts images towards a total; a context manager that restores the terminal.

    `shown`: False in all but one of several processes. `done`: images counted before, by a run that is resumed.
    """

    def __init__(self, total: int, title: str, *, shown: bool = True, done: int = 0) -> None:
        self._shown = shown
        self._console = Console(stderr=True, highlight=False)
        self._title = title
        self._done, self._total = done, total
        now = self._printed = time.monotonic()
        self._span: tuple[float, float] | None = None
        """When the whole began and when it ends, if that is known."""
        self._marks = deque([(now, done)])
        """Times and what was done then, since RATE_OVER_S ago."""
        self._progress: Progress | None = None
        if shown and self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self._console,
                expand=True,
            )
            self._task = self._progress.add_task(visible(title), total=total, completed=done, figures="")

    def __enter__(self) -> Bar:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def advance(self, images: int, figures: str = "", title: str | None = None, *, extra: bool = False) -> None:
        """Count `images` more, and show `figures`, such as `loss 0.41  accuracy 87.2 %`.

        `extra`: they are not among the total, which grows with them.
        """
        now = time.monotonic()
        self._title = title or self._title
        self._done += images
        self._total += images * extra
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_OVER_S:
            self._marks.popleft()
        if self._progress:
            over, whole = float(self._done), float(self._total)
            if self._span:
                over, whole = now - self._span[0], self._span[1] - self._span[0]
            shown = visible("  ".join(filter(None, (figures, *self._pace(now)))))
            self._progress.update(
                self._task, completed=over, total=whole, figures=shown, description=visible(self._title)
            )
        elif now - self._printed > PLAIN_EVERY_S:
            self._printed = now
            self.note("  ".join(filter(None, (self._title, figures, *self._pace(now)))))

    def _pace(self, now: float) -> Iterator[str]:
        """Images per second of late, and the time that is left, as far as they are known."""
        since, before = self._marks[0]
        rate = (self._done - before) / max(now - since, 1e-9)
        if rate:
            yield f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s"
        if self._span:
            yield f"{_clock(max(self._span[1] - now, 0.0))} left"
        elif rate:
            yield f"{_clock(max(self._total - self._done, 0) / rate)} left"

    def ends_in(self, seconds: float, whole_s: float) -> None:
        """Say how much time is left, and of how much, which then do not follow from the images."""
        ends = time.monotonic() + seconds
        self._span = ends - whole_s, ends

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        if self._progress:
            self._progress.console.print(visible(line), markup=False)
        elif self._shown:
            say(line, error=True)


class PartOf:
    """The bar of one of several tasks that share a bar: its images count there, its lines go to a log."""

    def __init__(self, whole: Bar, name: str, log: Callable[[str], None]) -> None:
        self._whole, self._name, self._log = whole, name, log

    def __enter__(self) -> PartOf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def advance(self, images: int, figures: str = "", title: str | None = None, *, extra: bool = False) -> None:
        """Count `images` more of the whole."""
        self._whole.advance(images, figures, ", ".join(filter(None, (self._name, title))), extra=extra)

    def ends_in(self, seconds: float, whole_s: float) -> None:
        """Nothing: the whole has no time of its own."""

    def note(self, line: str) -> None:
        """Write a line to the log."""
        self._log(line)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
