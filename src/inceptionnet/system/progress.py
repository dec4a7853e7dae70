"""Progress: a bar with throughput and remaining time in a terminal, a plain line every few seconds elsewhere.

Everything is printed to standard error, so that standard output contains results only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from inceptionnet.errors import visible
from inceptionnet.system.printing import say

PLAIN_EVERY_S = 10.0


class Bar:
    """Counts images towards a total; a context manager that restores the terminal.

    `shown`: False in all but one of several processes. `done`: images counted before, by a run that is resumed.
    """

    def __init__(self, total: int, title: str, *, shown: bool = True, done: int = 0) -> None:
        self._shown = shown
        self._console = Console(stderr=True, highlight=False)
        self._title, self._figures = title, ""
        self._done, self._before, self._total = done, done, total
        self._start = self._last = time.monotonic()
        self._progress: Progress | None = None
        if shown and self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}", markup=False),
                _Rate(),
                TimeRemainingColumn(compact=True),
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

    def advance(self, images: int, figures: str = "", title: str | None = None) -> None:
        """Count `images` more, and show `figures`, such as `loss 0.41  accuracy 87.2 %`."""
        self._done += images
        self._figures, self._title = figures, title or self._title
        if self._progress:
            self._progress.update(
                self._task, advance=images, figures=visible(figures), description=visible(self._title)
            )
        elif time.monotonic() - self._last > PLAIN_EVERY_S:
            self._last = time.monotonic()
            rate = (self._done - self._before) / (self._last - self._start)
            left_s = (self._total - self._done) / rate if rate else 0
            self.note(f"{self._title}  {figures}  {rate:.0f} images/s  {_clock(left_s)} left")

    def ends_in(self, seconds: float) -> None:
        """Estimate the total again, from a time that is left."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        self._total = round(self._done + (self._done - self._before) * max(seconds, 0.0) / elapsed)
        if self._progress:
            self._progress.update(self._task, total=self._total)

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

    def advance(self, images: int, figures: str = "", title: str | None = None) -> None:
        """Count `images` more of the whole."""
        self._whole.advance(images, figures, ", ".join(filter(None, (self._name, title))))

    def ends_in(self, seconds: float) -> None:
        """Nothing: the whole has no time of its own."""

    def note(self, line: str) -> None:
        """Write a line to the log."""
        self._log(line)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} images/s" if task.speed else "")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
