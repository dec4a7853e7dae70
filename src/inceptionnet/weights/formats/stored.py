"""What every reader of weights files gives: named tensors as they are in the file, and what was left out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from inceptionnet.errors import WeightsError


@dataclass(frozen=True)
class Stored:
    """The tensors of a weights file by the names that they have there."""

    path: Path
    format: str
    """For people: safetensors, PyTorch, Keras or TensorFlow checkpoint."""
    tensors: Mapping[str, Tensor]
    """On the CPU, in the file's own shapes."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a safetensors file says of itself; else nothing."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Names in the file that are not among the tensors, each with a short reason."""
    notes: tuple[str, ...] = ()
    """One short line for each thing decided in reading."""


def damaged(path: Path, what: object) -> WeightsError:
    """The error for a file that is cut short or altered: `what` is not as it must be."""
    return WeightsError(f"{path}: damaged or cut short ({one_line(what)}); get the file anew")


def one_line(error: object, most: int = 200) -> str:
    """An exception's text, or any other, in one line of at most `most` characters; its type where it has no text."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 1] + "…"
