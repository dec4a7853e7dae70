"""The trackers of a run: none of them stops a training, and each has every epoch as soon as it can be reached again."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from inceptionnet.errors import Interrupted, RunError
from inceptionnet.train.run import TRACKERS, Run
from inceptionnet.train.trackers.mlflow import MLflow, mlflow
from inceptionnet.train.trackers.subject import Backend, Subject, without_password
from inceptionnet.train.trackers.tensorboard import TensorBoard, summary_writer
from inceptionnet.train.trackers.wandb import WandB, wandb

BACKENDS: dict[str, Callable[[Subject, Mapping[str, Any], Sequence[str]], Backend]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
PACKAGES: dict[str, Callable[[], Any]] = {"tensorboard": summary_writer, "mlflow": mlflow, "wandb": wandb}
PAUSE = 20
"""A tracker that failed is left alone for this many times as long as the failure took, so that it costs 5 % at most."""
NOT_METRICS = ("epoch", "step")
FINAL = "final/"
"""Before the names of the final evaluation's metrics."""


def check_installed(names: Sequence[str]) -> None:
    """Check that the packages of the trackers can be imported. Raises: MissingExtraError."""
    for name in names:
        PACKAGES[name]()


class Trackers:
    """The trackers of a run, by name; none in all processes but the main one."""

    def __init__(self, names: Sequence[str] = (), subject: Subject | None = None, note: Callable[[str], None] = print):
        self._each = [_Tracker(name, subject, note) for name in names] if subject else []

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and issubclass(kind, (Interrupted, KeyboardInterrupt))
        outcome = "finished" if kind is None else "interrupted" if stopped else "failed"
        for one in self._each:
            one.close(outcome)

    def open(self, rows: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> None:
        """Open or continue each tracker's run, with the rows of metrics.csv so far.

        Args:
            metrics: the names of the metrics that a run is judged by.
        """
        for one in self._each:
            one.metrics = metrics
            one.log(rows)

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write those rows of metrics.csv that a tracker does not have yet, each under the step of its epoch's end."""
        for one in self._each:
            one.log(rows)

    def finish(self, rows: Sequence[Mapping[str, float]], final: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the metrics of the final evaluation, and hand over the report; last chance for rows that failed."""
        for one in self._each:
            one.finish(rows, {FINAL + name: value for name, value in final.items()}, files)


class _Tracker:
    """One tracker: opened when first used, and again some time after it failed."""

    def __init__(self, name: str, subject: Subject, note: Callable[[str], None]) -> None:
        self.name, self.subject, self.note = name, subject, note
        self.metrics: Sequence[str] = ()
        self._run = Run(subject.folder)
        self._backend: Backend | None = None
        self._last = -1
        self._warned, self._again_s = False, 0.0

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        if time.monotonic() >= self._again_s:
            self._try(lambda: self._write(rows))

    def finish(self, rows: Sequence[Mapping[str, float]], final: Mapping[str, float], files: Sequence[Path]) -> None:
        def write() -> None:
            self._write(rows)
            assert self._backend
            self._backend.finish(final, self._last, [file for file in files if file.is_file()])

        self._try(write)

    def close(self, outcome: str) -> None:
        backend, self._backend = self._backend, None

        def end() -> None:
            assert backend
            backend.close(outcome)
            self._remember(backend, closed=True)

        if backend:
            self._try(end)

    def _write(self, rows: Sequence[Mapping[str, float]]) -> None:
        if self._backend is None:
            self._open()
        assert self._backend
        for row in rows:
            if row["step"] > self._last:
                step = int(row["step"])
                self._backend.log({name: value for name, value in row.items() if name not in NOT_METRICS}, step)
                self._last = step
                self._remember(self._backend)

    def _open(self) -> None:
        known = self._known().get(self.name, {})
        self._backend = BACKENDS[self.name](self.subject, known, self.metrics)
        self._last = self._backend.last_step
        self.note(f"{self.name}: {self._backend.line}")
        if self._last > self.subject.step and not self._warned:
            self.note(
                f"warning: {self.name} has metrics up to step {self._last} already, and the run goes on from step "
                f"{self.subject.step}; those of the steps between are not sent again"
            )
        self._remember(self._backend)

    def _known(self) -> dict[str, Any]:
        return self._run.read_json(TRACKERS) if (self._run.path / TRACKERS).is_file() else {}

    def _remember(self, backend: Backend, *, closed: bool = False) -> None:
        """Write to the run folder which run of the tracker this is, and what it has."""
        known = self._known() | {self.name: {**backend.identity, "step": self._last, "closed": closed}}
        self._run.write_json(TRACKERS, known)

    def _try(self, action: Callable[[], None]) -> None:
        """Call a tracker's library; whatever it raises is a warning, once."""
        start = time.monotonic()
        try:
            action()
        except Exception as error:
            backend, self._backend = self._backend, None
            took_s = time.monotonic() - start
            self._again_s = time.monotonic() + PAUSE * took_s
            if not self._warned:
                self._warned = True
                reason = textwrap.shorten(without_password(str(error)), 240, placeholder=" …")
                reason = reason if isinstance(error, RunError) else f"{type(error).__name__}: {reason}"
                self.note(
                    f"warning: {self.name} failed ({reason}); training continues, metrics.csv has every epoch, and "
                    f"{self.name} gets them as soon as it works again, at the latest by --resume"
                )
            if backend:
                with suppress(Exception):
                    backend.abandon()
