"""JSON of clients. Lists of many numbers are read in a process of their own, since reading them stops all threads."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from inceptionnet.errors import DecodeError

MOST_VALUES = 50_000
"""In JSON that is read where requests are answered, and beside the numbers of tensors; takes some ms."""


def values_of(text: bytes) -> Any:
    """The values of a JSON text. Raises: DecodeError."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise DecodeError("the JSON is nested too deeply; send lists and objects as documented at /docs") from None
    except UnicodeDecodeError:
        raise DecodeError("expected JSON in UTF-8, got bytes that are not; send images in base64") from None
    except ValueError as error:
        raise DecodeError(f"expected JSON, got what is none: {' '.join(str(error).split())[:100]}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def tensors_of(text: bytes) -> Any:
    """The values of a request of the Open Inference Protocol, with numbers in float64 (shape as nested) as `data`.

    Raises: DecodeError: no JSON, or more than `MOST_VALUES` values that are no such numbers.
    """
    content = values_of(text)
    inputs = content.get("inputs") if isinstance(content, dict) else None
    for tensor in inputs if isinstance(inputs, list) else []:
        if isinstance(tensor, dict) and isinstance(tensor.get("data"), list):
            try:
                tensor["data"] = np.array(tensor["data"], np.float64)
            except (ValueError, TypeError, OverflowError):
                continue  # base64, or what the next function counts
    if _more_than(MOST_VALUES, content):
        raise DecodeError(
            f"expected at most {MOST_VALUES} values beside numbers as data, flat or nested like the shape"
        )
    return content


def _more_than(most: int, content: Any) -> bool:
    count, rest = 0, [content]
    while rest:
        value = rest.pop()
        held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += 1 + len(held)
        if count > most:
            return True
        rest += held
    return False
