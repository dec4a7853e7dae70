"""The class names that Hugging Face's datasets writes into the schema of a parquet file, read strictly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inceptionnet.errors import DataError, listed
from inceptionnet.system.opening import from_json

KEY = b"huggingface"
FEATURES_BYTES = 2**23
"""The most bytes of that entry of the schema: 8 MiB."""
_SHOWN = 60


class ClassLabel(BaseModel):
    """The feature of a column of labels; what else it says is not used."""

    model_config: ClassVar[ConfigDict] = ConfigDict(strict=True)

    names: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(min_length=1, max_length=1_000_000)


def class_names(path: Path, schema: Any, column: str | None = None) -> list[str] | None:
    """The class names in a pyarrow.Schema; None if it states none.

    Args:
        column: whose names; default: the first that has any.

    Raises:
        DataError: the names are something else than different texts; the message says which field.
    """
    text = (schema.metadata or {}).get(KEY)
    if text is None:
        return None
    if len(text) > FEATURES_BYTES:
        raise _error(path, f"at most {FEATURES_BYTES} bytes in the entry {KEY.decode()}", str(len(text)))
    try:
        value = from_json(text)
    except ValueError as error:
        raise _error(path, f"JSON in the entry {KEY.decode()}", str(error)) from None
    for key in ("info", "features"):
        value = value.get(key) if isinstance(value, dict) else None
    features = value if isinstance(value, dict) else {}
    labels = [name for name, one in features.items() if isinstance(one, dict) and "names" in one]
    chosen = next((name for name in labels if column in (None, name)), None)
    if chosen is None:
        return None
    try:
        names = ClassLabel.model_validate(features[chosen]).names
    except ValidationError as error:
        first = error.errors()[0]
        where, got = ".".join(map(str, first["loc"])), repr(first["input"])
        got = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}…"
        raise _error(path, f"class names in info.features.{chosen}.{where}", f"{got} ({first['msg']})") from None
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise _error(path, f"every name once in info.features.{chosen}.names", f"{listed(twice)} more than once")
    return names


def _error(path: Path, expected: str, got: str) -> DataError:
    return DataError(f"{path}: expected {expected}, got {got}, in the schema: write the file again")
