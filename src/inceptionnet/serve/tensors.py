"""Tensors of the Open Inference Protocol: in JSON, or as bytes behind it."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.data.preprocess import MOST_PX, Preprocessing
from inceptionnet.errors import listed, nearest
from inceptionnet.serve.refusals import Refused

HEADER = "Inference-Header-Content-Length"
_Data = memoryview | list[Any] | npt.NDArray[np.float64]
_SIDE = 4 * MOST_PX
"""The most pixels along one side of an image in UINT8."""


@dataclass(frozen=True)
class Tensor:
    """The input of a request: images as the service takes them."""

    name: str
    images: Sequence[Any]
    """bytes, uint8 (H, W, C), or float32 (C, S, S)."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Wanted:
    """An output that is asked for."""

    name: str
    binary: bool | None
    """None: as the request says of all."""
    classes: int
    """Of the classification extension: the number of most probable classes; 0: the tensor itself."""


def tensor_of(stated: Any, rest: memoryview, prep: Preprocessing) -> Tensor:
    """The input, checked against the model. Raises: Refused."""
    if not isinstance(stated, dict):
        raise Refused("inputs: expected an object with name, datatype, shape and data")
    name, datatype, shape = (stated.get(key) for key in ("name", "datatype", "shape"))
    if (name, datatype) not in (("input", "FP32"), ("image", "BYTES"), ("image", "UINT8")):
        raise Refused(
            f"inputs: expected input of FP32, or image of BYTES or UINT8, got {name!r:.40} of {datatype!r:.40}"
        )
    assert isinstance(name, str)
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side <= 2**31 for side in shape):
        raise Refused(f"{name}: expected a shape, a list of whole numbers, got {shape!r:.80}")
    data = _data(name, stated, rest)
    if datatype == "BYTES":
        if len(shape) == 2 and shape[1] == 1:  # as clients with a batch axis send it
            shape = shape[:1]
        if len(shape) != 1:
            raise Refused(f"{name}: expected the shape (N) for BYTES, got {shape}")
        return Tensor(name, _texts(name, data, shape[0]))
    channels, size = prep.channels, prep.size_px
    if datatype == "FP32":
        if len(shape) != 4 or shape[1:] != [channels, size, size]:
            raise Refused(f"{name}: expected the shape (N, {channels}, {size}, {size}), got {shape}")
        floats = _numbers(name, data, shape, np.dtype("<f4"))
        if not np.isfinite(floats).all():
            raise Refused(f"{name}: expected finite numbers")
        return Tensor(name, list(floats))
    if len(shape) != 4 or shape[3] != channels or not all(1 <= side <= _SIDE for side in shape[1:3]):
        raise Refused(f"{name}: expected the shape (N, H, W, {channels}), with sides up to {_SIDE} px, got {shape}")
    return Tensor(name, list(_numbers(name, data, shape, np.dtype(np.uint8))))


def _data(name: str, stated: Mapping[str, Any], rest: memoryview) -> _Data:
    """What the tensor holds: the bytes behind the JSON, a list, or the numbers of a long one."""
    parameters = stated.get("parameters", {})
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is not None:
        if type(size) is not int or size != len(rest):
            raise Refused(
                f"{name}: expected {len(rest)} as binary_data_size, the bytes behind the JSON, got {size!r:.40}"
            )
        return rest
    data = stated.get("data")
    if not isinstance(data, list | np.ndarray):
        raise Refused(f"{name}: expected data, a list, or binary_data_size with the header {HEADER}")
    return data


def _numbers(name: str, data: _Data, shape: list[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    count = int(np.prod([int(side) for side in shape], dtype=object))
    if isinstance(data, memoryview):
        if len(data) != count * dtype.itemsize:
            raise Refused(f"{name}: expected {count * dtype.itemsize} bytes for the shape {shape}, got {len(data)}")
        # Copied, since torch takes no memory that cannot be written.
        found: npt.NDArray[Any] = np.frombuffer(data, dtype).reshape(shape).copy()
        return found
    try:
        wide = np.array(data, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise Refused(f"{name}: expected numbers as data, flat or nested like the shape") from None
    if wide.size != count or wide.dtype == object:
        raise Refused(f"{name}: expected {count} numbers for the shape {shape}, got {wide.size}")
    if dtype == np.uint8 and not ((wide >= 0) & (wide <= 255) & (wide == np.rint(wide))).all():
        raise Refused(f"{name}: expected whole numbers from 0 to 255 for UINT8")
    with np.errstate(over="ignore"):
        return wide.astype(dtype).reshape(shape)


def _texts(name: str, data: _Data, count: int) -> list[bytes]:
    """BYTES: each with its length before it, in 4 bytes; in JSON base64, since an image is no text."""
    if isinstance(data, np.ndarray):
        raise Refused(f"{name}: expected base64 for BYTES in JSON, got numbers; or send binary tensors")
    if isinstance(data, list):
        flat = [one for part in data for one in (part if isinstance(part, list) else [part])]
        try:
            found = [base64.b64decode(one, validate=True) for one in flat if isinstance(one, str)]
        except ValueError:
            raise Refused(f"{name}: expected base64 for BYTES in JSON; or send binary tensors") from None
        if len(found) != len(flat):
            raise Refused(f"{name}: expected base64 for BYTES in JSON; or send binary tensors")
    else:
        found, at = [], 0
        while at < len(data) and len(found) <= count:
            length = int.from_bytes(data[at : at + 4], "little") if at + 4 <= len(data) else len(data)
            if at + 4 + length > len(data):
                raise Refused(f"{name}: expected a length and as many bytes for each of BYTES, got fewer at {at}")
            found.append(bytes(data[at + 4 : at + 4 + length]))
            at += 4 + length
    if len(found) != count:
        raise Refused(f"{name}: expected {count} elements for the shape, got {len(found)}")
    return found


def requested(content: Mapping[str, Any], known: Mapping[str, int]) -> list[Wanted]:
    """The outputs that are asked for; empty: those by default. Raises: Refused."""
    stated = content.get("outputs", [])
    if not isinstance(stated, list) or len(stated) > 2 * len(known):
        raise Refused("outputs: expected a list of objects with a name")
    return [_wanted(one, known) for one in stated]


def _wanted(stated: Any, known: Mapping[str, int]) -> Wanted:
    name = stated.get("name") if isinstance(stated, dict) else None
    if not isinstance(name, str) or name not in known:
        what = nearest(name[:40], known) if isinstance(name, str) else f"known: {listed(known)}"
        raise Refused(f"outputs: unknown output {name!r:.40}: {what}")
    parameters = stated.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refused(f"outputs: {name}: expected an object as parameters")
    binary, classes = parameters.get("binary_data"), parameters.get("classification", 0)
    if not isinstance(binary, bool | None) or type(classes) is not int or not 0 <= classes <= known[name]:
        raise Refused(f"outputs: {name}: expected binary_data true or false, and classification up to {known[name]}")
    if classes and name == "embedding":
        raise Refused("outputs: embedding: an embedding has no classes; omit classification")
    return Wanted(name, binary, classes)


def encoded(
    answer: dict[str, Any], found: Mapping[str, npt.NDArray[np.float32]], wanted: Sequence[Wanted],
    classes: Sequence[str], binary: bool,
) -> tuple[bytes, bytes]:  # fmt: skip
    """The JSON of an answer, and the binary tensors behind it."""
    outputs, tail = [], []
    for one in wanted or [Wanted(name, None, 0) for name in found]:
        values = found[one.name]
        stated: dict[str, Any] = {"name": one.name, "datatype": "FP32", "shape": list(values.shape)}
        texts = _labelled(values, classes, one.classes) if one.classes else []
        if texts:
            stated |= {"datatype": "BYTES", "shape": [len(values), one.classes]}
        if binary if one.binary is None else one.binary:
            raw = b"".join(struct.pack("<I", len(t)) + t for t in texts) if texts else values.astype("<f4").tobytes()
            tail.append(raw)
            stated["parameters"] = {"binary_data_size": len(raw)}
        else:
            stated["data"] = [t.decode() for t in texts] if texts else values.ravel().tolist()
        outputs.append(stated)
    text = json.dumps(answer | {"outputs": outputs}, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace"), b"".join(tail)


def _labelled(values: npt.NDArray[np.float32], classes: Sequence[str], count: int) -> list[bytes]:
    """VALUE:NUMBER:CLASS of the highest values of each image, as Triton writes them."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    names = classes if len(classes) == values.shape[1] else [""] * values.shape[1]
    return [
        f"{values[i, j]:.6f}:{j}:{names[j]}".encode("utf-8", "backslashreplace")
        for i, row in enumerate(order)
        for j in row
    ]
