"""The weights of a run folder: wherever a weights file is taken, the folder that a training made will do."""

from __future__ import annotations

from pathlib import Path

from inceptionnet.errors import WeightsError
from inceptionnet.weights.formats.foreign import of_folder

HUB_WEIGHTS = "model.safetensors"
"""The name of the weights in a folder that was downloaded from the Hugging Face Hub."""
RUN_WEIGHTS = "weights.safetensors"
"""The name of the weights in a run folder."""


def weights_of(source: str | Path) -> str:
    """The weights file of a run folder; anything else (a file, an address on the hub) as it is.

    Raises:
        WeightsError: a folder without weights.
    """
    path = Path(source)
    if not path.is_dir() or any(path.glob("*.index")):  # a folder may be a TensorFlow checkpoint's
        return str(source)
    weights = path / RUN_WEIGHTS
    if weights.is_file():
        return str(weights)
    if (hub := path / HUB_WEIGHTS).is_file() and not (path / "adapter_config.json").exists():
        return str(hub)
    what = of_folder(path) or f"got a folder without {RUN_WEIGHTS}"
    raise WeightsError(f"{path}: expected a run folder or a weights file, {what}")
