"""Safetensors files, memory-mapped: nothing is copied until it is used."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from inceptionnet.weights.formats.stored import Stored, damaged


def read_safetensors(path: Path) -> Stored:
    """The tensors and metadata of a safetensors file. Raises: WeightsError if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return Stored(path, "safetensors", tensors, file.metadata() or {})
    except (OSError, SafetensorError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None
