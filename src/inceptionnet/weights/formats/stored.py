"""The result of every reader of weights files: named tensors as stored, and what was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.errors import WeightsError, one_line


@dataclass(frozen=True)
class Module:
    """A module of a file that holds the modules themselves, not only their tensors."""

    kind: str
    """Module and name of its class."""
    attributes: Mapping[str, Any]
    """Those that are plain data, such as `p` and `eps`; a TorchScript archive has few of them."""

    @property
    def name(self) -> str:
        """The name of its class alone."""
        return self.kind.rpartition(".")[2]


@dataclass(frozen=True)
class Stored:
    """The tensors of a weights file, under the file's own names."""

    path: Path
    format: str
    """Display name: safetensors, PyTorch, Keras or TensorFlow checkpoint."""
    tensors: Mapping[str, Tensor]
    """On the CPU, in the file's own shapes."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Of a safetensors file; empty for the others."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Entries of the file that are not in `tensors`, each with a short reason."""
    notes: tuple[str, ...] = ()
    """One short line for each decision made while reading."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """Keras's own description of the whole model, as JSON: class_name, config, compile_config; else empty."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the place in the file, every list of class names that was found beside the weights."""
    modules: Mapping[str, Module] = field(default_factory=dict)
    """By path, in order of definition, the modules of a file that holds them; empty for a state dict."""


def damaged(path: Path, what: object) -> WeightsError:
    """The error for a truncated or altered file; `what` is the reason."""
    return WeightsError(f"{path}: damaged or truncated ({one_line(what)}); get the file again")
