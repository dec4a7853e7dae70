"""What a weights file or an exported file says of its network; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.outputs import Outputs
from inceptionnet.nets.edits import Configuration, configure

NUMBERED = "numbered"
"""How the origin of class names begins that nobody gave."""
GIVEN = "given"
"""The origin of class names that the user gave."""


@dataclass(frozen=True)
class Record:
    """The metadata of a weights file."""

    configuration: Configuration
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """What is known about the training: package version, data, epochs, accuracy; of classes, where they come from."""

    @property
    def numbered(self) -> bool:
        """Whether the class names are only numbers that nobody gave."""
        numbers = tuple(map(str, range(len(self.classes))))
        return self.classes == numbers and str(self.provenance.get("classes", "")).startswith(NUMBERED)

    @property
    def outputs(self) -> Outputs:
        """What the logits mean."""
        return outputs_of(self.configuration)


def outputs_of(configuration: Configuration) -> Outputs:
    """What the logits of a network of that configuration mean."""
    return Outputs(configuration.activation, configuration.num_classes or 0)


def numbers(outputs: Outputs) -> tuple[str, ...]:
    """Class names where there are none: numbers from 0."""
    return tuple(map(str, range(outputs.classes)))


def checked_names(names: Sequence[str], outputs: Outputs) -> tuple[str, ...]:
    """Class names for these outputs. Raises: ConfigurationError: another number of names."""
    if len(names) != outputs.classes:
        two = " (the logit is the second against the first)" if outputs.binary else ""
        raise ConfigurationError(f"expected {outputs.classes} class names, one per class{two}, got {len(names)}")
    return tuple(names)


def with_activation(record: Record, activation: str) -> Record:
    """The record of the same weights whose logits mean something else; names stay if their number still fits.

    Raises:
        ConfigurationError: an unknown activation.
    """
    configuration = replace(record.configuration, activation=activation)
    configure(configuration)  # raises
    outputs = outputs_of(configuration)
    if len(record.classes) == outputs.classes:
        return replace(record, configuration=configuration)
    about = {**record.provenance, "classes": f"{NUMBERED}: the names do not fit {outputs}"}
    return replace(record, configuration=configuration, classes=numbers(outputs), provenance=about)
