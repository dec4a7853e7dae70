"""The images and options of a request to predict, from each kind of body."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from inceptionnet.errors import nearest
from inceptionnet.serve.bodies import Share, chunks, parsed, whole
from inceptionnet.serve.refusals import Refused
from inceptionnet.serve.settings import Limits

MOST_TOP = 1000
MOST_NAME = 200
"""Characters of an image's name."""
_ADDRESSES = ("http:", "https:", "ftp:", "file:", "//")
_FIELDS = 20
_FIELD_BYTES = 4096


@dataclass(frozen=True)
class Upload:
    """One image as it came, or why it cannot be one."""

    name: str
    data: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Options:
    """What is asked about the images."""

    top: int = 5
    threshold: float | None = None
    probabilities: bool = False
    embedding: bool = False
    attribution: str = ""


def _top(value: Any) -> int:
    found = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    if isinstance(found, bool) or not isinstance(found, int) or not 1 <= found <= MOST_TOP:
        raise Refused(f"top: expected a whole number from 1 to {MOST_TOP}, got {value!r:.40}")
    return found


def _threshold(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not 0 <= found <= 1:
        raise Refused(f"threshold: expected a probability from 0 to 1, got {value!r:.40}")
    return found


def _flag(name: str) -> Callable[[Any], bool]:
    known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

    def read(value: Any) -> bool:
        found = known.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(found, bool):
            raise Refused(f"{name}: expected true or false, got {value!r:.40}")
        return found

    return read


def _attribution(value: Any) -> str:
    if value in (None, False, "", "none"):
        return ""
    if value != "gradcam":
        raise Refused(f"attribution: expected gradcam, got {value!r:.40}")
    return "gradcam"


_READ: Mapping[str, Callable[[Any], Any]] = {
    "top": _top,
    "threshold": _threshold,
    "probabilities": _flag("probabilities"),
    "embedding": _flag("embedding"),
    "attribution": _attribution,
}
assert set(_READ) == {field.name for field in fields(Options)}


def options_of(stated: Mapping[str, Any]) -> Options:
    """Options by name, as text or JSON values. Raises: Refused: an unknown one, or a value that cannot be used."""
    if unknown := sorted(stated.keys() - _READ.keys()):
        raise Refused(f"unknown option {unknown[0][:40]!r}: {nearest(unknown[0][:40], _READ)}")
    return Options(**{name: _READ[name](value) for name, value in stated.items()})


async def read_request(request: Request, limits: Limits, share: Share) -> tuple[list[Upload], Options]:
    """The images of a request, and what is asked about them. Raises: Refused, Gone."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    stated: dict[str, Any] = dict(request.query_params)
    options_of(stated)  # before the body is read
    if kind == "multipart/form-data":
        uploads, more = await _multipart(request, limits, share)
    elif kind == "application/json":
        uploads, more = await _json(await whole(request, limits, share), limits, share)
    elif kind in ("", "application/octet-stream") or kind.startswith("image/"):
        data = await whole(request, limits, share)
        if not data:
            raise Refused("expected an image in the body, got an empty one; see /docs for the ways to send images")
        uploads, more = [_upload("image", data, limits)], {}
    else:
        raise Refused(
            f"expected Content-Type multipart/form-data, image/*, application/octet-stream or application/json, got "
            f"{kind[:60]!r}; state what the body is",
            415,
        )
    if not uploads:
        raise Refused("expected one image or more, got none; see /docs for the ways to send images")
    return uploads, options_of(stated | more)


def _upload(name: str, data: bytes, limits: Limits) -> Upload:
    if len(data) > limits.image_bytes:
        return Upload(name, error=f"has {len(data)} bytes, more than the limit of {limits.image_bytes}")
    return Upload(name, data)


def _too_many(limits: Limits) -> Refused:
    return Refused(f"the request has more images than the limit of {limits.images}; send several requests", 413)


class _InMemory(MultiPartParser):
    """Files are kept in memory, whose amount is bounded before; none is written to disk."""

    spool_max_size = 2**62


async def _multipart(request: Request, limits: Limits, share: Share) -> tuple[list[Upload], dict[str, Any]]:
    stream = cast(AsyncGenerator[bytes, None], chunks(request, limits, share))
    parser = _InMemory(request.headers, stream, max_files=limits.images, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise _too_many(limits) from None
        raise Refused(f"expected multipart/form-data with files, got what is none: {error.message}") from None
    uploads: list[Upload] = []
    stated: dict[str, Any] = {}
    for name, part in form.multi_items():
        if isinstance(part, UploadFile):
            with part.file as file:
                uploads.append(_upload((part.filename or f"image {len(uploads)}")[:MOST_NAME], file.read(), limits))
        else:
            stated[name] = part
    return uploads, stated


async def _json(text: bytes, limits: Limits, share: Share) -> tuple[list[Upload], dict[str, Any]]:
    content = await parsed(text, share)
    if not isinstance(content, dict):
        raise Refused(f'expected an object such as {{"images": ["…"]}}, got {_type(content)}')
    images = content.pop("images", None)
    if isinstance(images, str | dict):
        images = [images]
    if not isinstance(images, list):
        raise Refused(f'expected "images", a list of images in base64, got {_type(images)}')
    if len(images) > limits.images:
        raise _too_many(limits)
    return await asyncio.to_thread(_decoded, images, limits), content


def _decoded(images: Sequence[Any], limits: Limits) -> list[Upload]:
    return [_from_json(image, i, limits) for i, image in enumerate(images)]


def _from_json(image: Any, position: int, limits: Limits) -> Upload:
    name = f"image {position}"
    if isinstance(image, dict):
        if unknown := sorted(image.keys() - {"name", "data"}):
            return Upload(name, error=f"expected the keys name and data, got {unknown[0][:40]!r}")
        stated, image = image.get("name", name), image.get("data")
        if not isinstance(stated, str):
            return Upload(name, error=f"expected a name as text, got {_type(stated)}")
        name = stated[:MOST_NAME]
    if not isinstance(image, str):
        return Upload(name, error=f"expected an image in base64, got {_type(image)}")
    if image[:8].lower().startswith(_ADDRESSES):
        return Upload(name, error="is an address, and nothing is fetched; send the image itself in base64")
    if image[:5].lower() == "data:":
        head, comma, image = image.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            return Upload(name, error="expected a data: URL in base64, such as data:image/png;base64,…")
    try:
        data = base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        return Upload(name, error=f"is no base64 ({str(error)[:80]})")
    return _upload(name, data, limits)


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
