"""The package's own weights: a .safetensors file whose metadata says everything that a prediction needs.

Metadata key `inceptionnet` holds one JSON object: the format's number, the arguments of `create_model`, the class
names, the preprocessing and where the weights come from. Tensors have the module's own names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.edits import Configuration
from inceptionnet.errors import ConfigurationError, WeightsError
from inceptionnet.files import replacing
from inceptionnet.model import InceptionNet

FORMAT = 1
KEY = "inceptionnet"


@dataclass(frozen=True)
class Record:
    """What a weights file says of itself."""

    configuration: Configuration
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Whatever is known of the training: package version, data, epochs, accuracy."""


def save_weights(
    model: InceptionNet,
    path: str | Path,
    *,
    classes: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the model's weights with all that is needed to predict with them; an existing file is replaced whole.

    Args:
        classes: names in the order of the logits; left out, the classes are numbered from 0.
        preprocessing: how images were made into input; left out, the published one at the network's size.

    Raises:
        ConfigurationError: not one name for each class.
        WeightsError: the file cannot be written.
    """
    record = record_for(model, classes=classes, preprocessing=preprocessing, provenance=provenance)
    about = {
        "format": FORMAT,
        "configuration": asdict(record.configuration),
        "classes": record.classes,
        "preprocessing": record.preprocessing.to_dict(),
        "provenance": dict(record.provenance),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={KEY: json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot write the weights: {error}") from None


def record_for(
    model: InceptionNet,
    *,
    classes: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Record:
    """What a weights file would say of a model; the arguments and errors are those of `save_weights`."""
    c = model.configuration
    names = classes or tuple(str(i) for i in range(model.num_classes))
    if len(names) != model.num_classes:
        raise ConfigurationError(f"got {len(names)} class names for a network of {model.num_classes} classes")
    prep = preprocessing or Preprocessing(size_px=model.network.input_size, channels=c.in_channels)
    return Record(c, tuple(names), prep, dict(provenance or {}))


def is_native(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata is one of this package's."""
    return KEY in metadata


def record_of(metadata: Mapping[str, str], path: Path) -> Record:
    """What the weights file at `path` says of itself.

    Raises:
        WeightsError: the metadata is damaged, or of a format that this version does not know.
    """
    try:
        about = json.loads(metadata[KEY])
        if about["format"] != FORMAT:
            raise WeightsError(f"{path}: format {about['format']}, this version reads {FORMAT}; update the package")
        return Record(
            Configuration(**about["configuration"]),
            tuple(about["classes"]),
            Preprocessing.from_dict(about["preprocessing"]),
            about["provenance"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: damaged metadata ({error!r}); write the file anew") from None
