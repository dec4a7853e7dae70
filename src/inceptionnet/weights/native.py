"""This package's weights format: a .safetensors file whose metadata contains everything needed to predict.

The metadata key `inceptionnet` holds one JSON object: format number, arguments of `create_model`, class names,
preprocessing, provenance of the weights, and the checksum of all that and of the tensors, which a reader verifies; of a
file without it nothing is verified. It is in the same object since safetensors writes several keys in random order, and
equal weights are equal files. Tensors have the names of the module's state dict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError, message_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.checksum import ChecksumError, check, checksum
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import from_json
from inceptionnet.weights.formats.stored import Stored
from inceptionnet.weights.metadata import record_fields
from inceptionnet.weights.record import NUMBERED, Record, checked_names, numbers

FORMAT = 1
KEY = "inceptionnet"
START = '{"format": '
"""How the text under KEY begins; a text of another key is one whose key is damaged."""


def save_weights(
    model: InceptionNet,
    path: str | Path,
    *,
    classes: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Save the model's weights with everything needed to predict; an existing file is replaced.

    Args:
        classes: class names in the order of the logits, or of the two that one logit with sigmoid tells apart;
            default: numbers from 0, which are no names: data is not matched with them by name.
        preprocessing: the preprocessing of the training images; default: the model's, of its weights or as published.

    Raises:
        ConfigurationError: the number of class names is not the number of classes.
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
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    text = json.dumps(about | {"checksum": checksum(json.dumps(about), tensors)})
    try:
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={KEY: text})
            with safe_open(temporary, framework="pt") as file:
                _record(file.metadata() or {}, Path(path))  # raises: what is left behind can be read
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot write the weights: {message_of(error)}") from None


def record_for(
    model: InceptionNet,
    *,
    classes: tuple[str, ...] = (),
    preprocessing: Preprocessing | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Record:
    """What a weights file would say of a model; the arguments and errors are those of `save_weights`."""
    c = model.configuration
    about = dict(provenance or {})
    names = checked_names(classes or numbers(model.outputs), model.outputs)
    if not classes and names and not str(about.get("classes", "")).startswith(NUMBERED):
        about["classes"] = f"{NUMBERED}: no names were given"
    return Record(c, names, preprocessing or model.preprocessing, about)


def is_native(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata is in this package's format, or was before it was damaged."""
    return KEY in metadata or any(text.startswith(START) for text in metadata.values())


def record_of(stored: Stored) -> Record:
    """The record in the metadata of a weights file, after its checksum is verified, if it has one.

    Raises:
        WeightsError: the file is damaged, or of a newer format.
    """
    return _record(stored.metadata, stored.path, stored.tensors)


def _record(metadata: Mapping[str, str], path: Path, tensors: Mapping[str, Tensor] | None = None) -> Record:
    """Without `tensors` the checksum is not verified."""
    try:
        if KEY not in metadata:
            raise ValueError(f"it has no entry {KEY!r}")
        about = from_json(metadata[KEY])
        if not isinstance(about, dict):
            raise ValueError(f"expected an object, got {type(about).__name__}")
        if (version := about.pop("format", None)) != FORMAT:
            raise WeightsError(f"{path}: expected format {FORMAT}, got {version!r:.40}; update the package")
        expected = about.pop("checksum", None)
        if expected is not None and tensors is not None:
            check(expected, json.dumps({"format": version, **about}), tensors)
        return Record(*record_fields(about, tensors))
    except ChecksumError as error:
        raise WeightsError(
            f"{path}: {error}, so it was damaged or edited; get the file again, or save edited weights with "
            "save_weights"
        ) from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: damaged metadata ({error}); save the file again") from None
