"""TensorBoard logging of a run's metrics, with log.tensorboard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from inceptionnet.system.extras import import_extra


class Tracker:
    """Writes to RUN/tensorboard; does nothing without a run folder."""

    def __init__(self, run: Path | None = None, step: int = 0) -> None:
        self._writer: Any = None
        if run is not None:
            self._writer = summary_writer()(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.close()

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Write the metrics of a step, each under its name in metrics.csv."""
        if self._writer:
            for name, value in figures.items():
                if name not in ("epoch", "step"):
                    self._writer.add_scalar(name, value, step)
            self._writer.flush()


def summary_writer() -> Any:
    """torch's TensorBoard writer.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """
    import_extra("tensorboard", "track", "log.tensorboard")
    return import_extra("torch.utils.tensorboard", "track", "log.tensorboard", package="tensorboard").SummaryWriter
