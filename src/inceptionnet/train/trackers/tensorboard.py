"""TensorBoard: event files in RUN/tensorboard."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inceptionnet.system.extras import import_extra
from inceptionnet.train.settings import value_text
from inceptionnet.train.trackers.subject import Subject


class TensorBoard:
    """Metrics as scalars, settings in the tab for hyperparameters."""

    def __init__(self, subject: Subject, known: Mapping[str, Any], metrics: Sequence[str]) -> None:
        folder, step = subject.folder / "tensorboard", subject.step
        self.identity: Mapping[str, str] = {"folder": folder.name}
        again = folder.is_dir()
        # TensorBoard discards what earlier files have after the step that the run goes on from; it is written again.
        self.last_step: int = min(int(known.get("step", -1)), step) if again else -1
        self.line: str = f"metrics in {folder}; show them with: tensorboard --logdir {folder}"
        self._writer: Any = None
        _quiet_writer_threads()
        self._writer = summary_writer()(str(folder), purge_step=step + 1 if again else None)
        hparams = import_extra(
            "torch.utils.tensorboard.summary", "track", "log.trackers", package="tensorboard"
        ).hparams
        plain = {
            key: value if isinstance(value, (bool, int, float, str)) else value_text(value)
            for key, value in subject.settings.items()
        }
        for summary in hparams(plain, dict.fromkeys(metrics, 0.0)):
            self._writer.file_writer.add_summary(summary)
        for when, how in subject.changes.items():
            self._writer.add_text("changes", f"{when}: {how}", step)
        self._writer.flush()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the metrics of an epoch."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, metrics: Mapping[str, float], step: int, files: Sequence[Path]) -> None:
        """Write the metrics of the final evaluation; files lie beside the events already."""
        self.log(metrics, step)

    def close(self, outcome: str) -> None:
        """Close the event file."""
        self._writer.close()

    def abandon(self) -> None:
        """Close the event file."""
        self._writer.close()


def summary_writer() -> Any:
    """torch's TensorBoard writer.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    import_extra("tensorboard", "track", "log.trackers=tensorboard")
    module = import_extra("torch.utils.tensorboard", "track", "log.trackers=tensorboard", package="tensorboard")
    return module.SummaryWriter


def _quiet_writer_threads() -> None:
    """Keep a thread of TensorBoard from printing a traceback when it cannot write; `flush` raises the same error."""
    usual = threading.excepthook
    if getattr(usual, "quiet", False):
        return

    def hook(error: threading.ExceptHookArgs) -> None:
        if type(error.thread).__name__ != "_AsyncWriterThread":
            usual(error)

    hook.quiet = True  # type: ignore[attr-defined]
    threading.excepthook = hook
