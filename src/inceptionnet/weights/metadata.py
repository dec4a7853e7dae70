"""What the metadata of weights and exported files may say: read strictly and within bounds, since files may be hostile.

The bounds are what a network of the family can be, with a wide margin. Relations between fields are checked by
`configure` and `Preprocessing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from inceptionnet.data.preprocess import MOST_CHANNELS, MOST_PX, Preprocessing
from inceptionnet.errors import InceptionNetError, nearest
from inceptionnet.model.outputs import Outputs
from inceptionnet.nets.analysis import analyse, parameters
from inceptionnet.nets.edits import Configuration, configure

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 60
"""Characters of a wrong value in a message."""

Name = Annotated[str, Field(max_length=1000)]
Scale = Annotated[float, Field(ge=0, le=100)]


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=_Strict)


class StoredConfiguration(_Strict):
    """The fields of `Configuration` in JSON."""

    name: Name
    num_classes: int = Field(ge=0, le=1_000_000)
    in_channels: int = Field(3, ge=1, le=MOST_CHANNELS)
    width: float = Field(1.0, gt=0, le=64)
    input_size: int | None = Field(None, ge=1, le=MOST_PX)
    residual_scale: Scale | list[Scale] | None = None
    dropout: float | None = Field(None, ge=0, lt=1)
    aux: bool = False
    global_pool: Name = "avg"
    last: Name | None = None
    hidden: list[dict[Name, bool | int | float | Name | None]] = Field([], max_length=100)
    logits_bias: bool = True
    activation: Name = "softmax"
    embedding: int | None = Field(None, ge=1, le=65_536)
    edits: list[Name] = Field([], max_length=100)


class StoredRecord(_Strict):
    """The metadata, without format and checksum."""

    configuration: StoredConfiguration
    classes: list[Name] = Field(max_length=1_000_000)
    preprocessing: dict[str, JsonValue]
    provenance: dict[str, JsonValue]


class StoredInput(_Strict):
    """What an exported file takes."""

    layout: Literal["NCHW", "NHWC"]
    type: Literal["float32", "uint8"]
    color: Literal["RGB"]
    batch: int | None = Field(ge=1, le=1_000_000)


class StoredQuantisation(_Strict):
    """How an int8 file was calibrated."""

    images: int = Field(ge=1)
    weight_bits: Literal[7, 8]


class StoredExport(_Strict):
    """What an exported file says beside the record of its network; see engines/kinds.py."""

    network: Name
    activation: Name
    input: StoredInput
    output: Literal["logits", "features"]
    embedding: int | None = Field(None, ge=1, le=1_000_000)
    precision: Literal["fp32", "int8"]
    quantisation: StoredQuantisation | None = None
    source: str = ""
    version: str = ""


RECORD = tuple(StoredRecord.model_fields)
"""The keys of the record."""


def check_export(stored: Mapping[str, Any]) -> None:
    """Check the metadata of an exported file. Raises: ValueError, as `record_fields`."""
    record_fields({key: stored[key] for key in RECORD if key in stored}, None)
    _validated(StoredExport, {key: value for key, value in stored.items() if key not in RECORD})


def record_fields(
    stored: Mapping[str, Any], tensors: Mapping[str, Tensor] | None
) -> tuple[Configuration, tuple[str, ...], Preprocessing, dict[str, Any]]:
    """Configuration, class names, preprocessing and provenance.

    Args:
        stored: from JSON.
        tensors: of the same file; they must have as many numbers as the network has parameters, before one is built.

    Raises:
        ValueError: a field is missing, unknown, of another type or out of bounds; the message says which.
    """
    record = _validated(StoredRecord, stored)
    try:
        configuration = Configuration(**record.configuration.model_dump())
        needed = _parameters(configuration)
        preprocessing = Preprocessing.from_dict(record.preprocessing)
    except InceptionNetError as error:
        raise ValueError(str(error)) from None
    if tensors is not None and needed > (held := sum(tensor.numel() for tensor in tensors.values())):
        raise ValueError(f"configuration: the network has {needed} parameters, the file only {held} numbers")
    expected = Outputs(configuration.activation, configuration.num_classes or 0).classes
    if len(record.classes) != expected:
        raise ValueError(f"classes: expected {expected} names, one for each class, got {len(record.classes)}")
    if preprocessing.channels != configuration.in_channels:
        raise ValueError(
            f"preprocessing.channels: expected {configuration.in_channels}, as the network takes, got "
            f"{preprocessing.channels}"
        )
    return configuration, tuple(record.classes), preprocessing, dict(record.provenance)


@cache
def _parameters(configuration: Configuration) -> int:
    """Number of parameters of the network. Raises: ConfigurationError: there is no such network."""
    return parameters(analyse(configure(configuration)))


def _validated(model: type[Model], stored: Mapping[str, Any]) -> Model:
    try:
        # In JSON, not in Python: there a list is also a tuple, but no text is a number.
        return model.model_validate_json(json.dumps(stored, allow_nan=False))
    except ValidationError as error:
        raise ValueError(_said(error, model)) from None
    except RecursionError:
        raise ValueError("lists in lists too deep to read") from None


def _said(error: ValidationError, model: type[_Strict]) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors()[0]
    where, got = ".".join(map(str, first["loc"])), repr(first["input"])
    if first["type"] == "extra_forbidden":
        inner = first["loc"][:1] == ("configuration",)
        known = [*(StoredConfiguration if inner else model).model_fields, *([] if inner else ["format", "checksum"])]
        return f"{where:.{SHOWN}}: unknown entry; {nearest(str(first['loc'][-1])[:SHOWN], known)}"
    if first["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {first['msg']}, got {got if len(got) <= SHOWN else got[:SHOWN] + '…'}"
