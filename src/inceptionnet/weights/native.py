"""The package's own weights: a .safetensors file whose metadata says everything that a prediction needs.

Metadata key `inceptionnet` holds one JSON object: the format's number, the arguments of `create_model`, the class
names, the preprocessing and where the weights come from. Tensors have the module's own names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from inceptionnet.build import initialise
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.edits import Configuration
from inceptionnet.errors import ConfigurationError, WeightsError
from inceptionnet.files import replacing
from inceptionnet.model import InceptionNet

log = logging.getLogger("inceptionnet")

FORMAT = 1


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
        preprocessing: how pictures were made into input; left out, the published one at the network's size.

    Raises:
        ConfigurationError: not one name for each class.
        WeightsError: the file cannot be written.
    """
    c = model.configuration
    names = classes or tuple(str(i) for i in range(model.num_classes))
    if len(names) != model.num_classes:
        raise ConfigurationError(f"got {len(names)} class names for a network of {model.num_classes} classes")
    prep = preprocessing or Preprocessing(size_px=model.network.input_size, channels=c.in_channels)
    about = {
        "format": FORMAT,
        "configuration": asdict(c),
        "classes": names,
        "preprocessing": prep.to_dict(),
        "provenance": dict(provenance or {}),
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"inceptionnet": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot write the weights: {error}") from None


def read_record(path: str | Path) -> Record:
    """What the weights file says of itself, without reading its tensors.

    Raises:
        WeightsError: there is no such file, or it is no weights file of this package.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; expected a .safetensors weights file") from None
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: not a weights file that can be read ({error}); expected .safetensors") from None
    if "inceptionnet" not in metadata:
        raise WeightsError(f"{path}: a .safetensors file without this package's metadata; it cannot say its network")
    try:
        about = json.loads(metadata["inceptionnet"])
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


def load_model(path: str | Path, *, name: str | None = None, **changes: Any) -> InceptionNet:
    """The network that a weights file describes, with its weights.

    Args:
        name: the network expected; left out, the file says it.
        changes: arguments of `create_model` that shall differ from the file's. What the file cannot fill then (logits
            for other classes, auxiliary heads it lacks) starts anew, and a line in the log says so.

    Raises:
        WeightsError: no weights file, one of another network, or tensors that do not fit.
    """
    record = read_record(path)
    if name is not None and name != record.configuration.name:
        raise WeightsError(f"{path}: holds {record.configuration.name}, not {name}; leave the name out or change it")
    model = InceptionNet(replace(record.configuration, **changes))
    state, wanted = {}, model.state_dict()
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  not a dict
            if key in wanted or not key.startswith("aux."):
                state[key] = file.get_tensor(key)
    fresh = [key for key in wanted if _starts_anew(key, record.configuration, model.configuration, key in state)]
    for key in fresh:
        state.pop(key, None)
    missing = sorted(wanted.keys() - state.keys() - set(fresh))
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = sorted(
        f"{key} {tuple(tensor.shape)} for {tuple(wanted[key].shape)}"
        for key, tensor in state.items()
        if key in wanted and tensor.shape != wanted[key].shape
    )
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    if any(wrong.values()):
        listed = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in wrong.items() if keys)
        raise WeightsError(f"{path}: does not fit {model.network.name} as asked for; {listed}")
    model.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in state.items()}, False, assign=True)
    initialise(model, model.network)
    if fresh:
        log.info("%s: started anew: %s", path, ", ".join(sorted({key.rpartition(".")[0] for key in fresh})))
    return model


def _starts_anew(key: str, file: Configuration, asked: Configuration, held: bool) -> bool:
    """Whether a tensor is initialised although a file was given: other classes, or a head that the file lacks."""
    if key.startswith("aux.") and not held:
        return True
    return ".logits." in key and file.num_classes != asked.num_classes
