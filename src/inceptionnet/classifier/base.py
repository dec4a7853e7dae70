"""What a classifier asks of whatever computes its logits, and how that shall run; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from inceptionnet.data.images import Seen, Values
from inceptionnet.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, device

    from inceptionnet.model.network import InceptionNet


@dataclass(frozen=True)
class Options:
    """How a network shall run; see `load`."""

    engine: str = "eager"
    precision: str = "fp32"
    calibrate: tuple[str, ...] = ()
    device: str = "auto"
    batch_size: int = 16
    threads: int | None = None

    def check(self) -> None:
        """Raises: ConfigurationError for an engine, a precision or a combination that there is not."""
        from inceptionnet.engines.choice import check_engine, check_precision

        check_engine(self.engine)
        check_precision(self.precision, bool(self.calibrate))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network gives for a batch of images."""

    logits: Values
    """(N, classes) float32; (N, 0) without a classifier."""
    embedding: Values | None = None
    """(N, C) float32, the pooled features before the classifier, where they were asked for."""


class Backend(Protocol):
    """Something that gives logits; calls may come from several threads."""

    about: dict[str, Any]
    """The engine, its precision and device."""

    @property
    def device(self) -> device:
        """Where it takes tensors."""

    @property
    def model(self) -> InceptionNet | None:
        """The network; an exported file has none."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, or features of a network without classifier. Shapes: float (N, C, H, W) → (N, classes)."""

    def answer(self, seen: Sequence[Seen | Tensor], *, embedding: bool) -> Answers:
        """Of at least one image. Raises: InputError: images of sizes that it does not take."""

    def given(self, values: Values) -> Any:
        """What is answered to people: the values as a tensor, or as they are."""


def check_classes(classes: Sequence[str], source: str) -> None:
    """Raises: WeightsError: the network has no classifier."""
    if not classes:
        where = source or "the network"
        raise WeightsError(f"{where}: expected weights with a classifier, got none; embed and features need none")


def texts(places: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """One place or several, as text."""
    if places is None:
        return ()
    return (str(places),) if isinstance(places, str | Path) else tuple(map(str, places))
