"""Receiving a body within bounds of bytes, memory and time, whatever the client sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from inceptionnet.errors import DecodeError
from inceptionnet.serve.refusals import Refused, busy
from inceptionnet.serve.settings import Limits
from inceptionnet.serve.values import MOST_VALUES, values_of

_COPIES = 3
"""How often the bytes of a body are in memory at most: as it came, in parts, and decoded from base64."""
_PER_VALUE, _PER_LIST = 32, 88
"""Memory of a number and of a list or object in parsed JSON, in bytes."""


class Memory:
    """Memory for bodies, of all requests together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: int = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """What one request takes, which is given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.taken


class Share:
    """The memory that one request has taken."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.taken: int = 0

    def take(self, count: int) -> None:
        """Take bytes. Raises: Refused: with 413 if there would never be as many, else 503."""
        memory = self._memory
        if self.taken + count > memory.most:
            raise Refused(f"the request takes more than {_mib(memory.most)} of memory; send less in one request", 413)
        if memory.held + count > memory.most:
            raise busy("other requests hold the memory that is set aside for bodies")
        memory.held += count
        self.taken += count


def _mib(count: int) -> str:
    return f"{count / 2**20:g} MiB"


def check_length(request: Request, limits: Limits) -> None:
    """Refuse what is too long, or compressed, before any of it is read. Raises: Refused."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.request_bytes:
        raise _too_long(limits)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise Refused(f"expected a body that is not compressed, got Content-Encoding {coding[:40]}; send it plain", 415)


def _too_long(limits: Limits) -> Refused:
    return Refused(
        f"the body has more than the limit of {_mib(limits.request_bytes)}; send fewer or smaller images", 413
    )


async def chunks(request: Request, limits: Limits, share: Share) -> AsyncIterator[bytes]:
    """The body as it comes. Raises: Refused: too long, too slow, or no memory for it."""
    check_length(request, limits)
    count = 0
    deadline = asyncio.get_running_loop().time() + limits.timeout_s
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise Refused(
                f"the request did not arrive within {limits.timeout_s:g} s; send less at a time", 408
            ) from None
        except ClientDisconnect:
            raise Gone from None
        if chunk is None:
            return
        count += len(chunk)
        if count > limits.request_bytes:
            raise _too_long(limits)
        share.take(_COPIES * len(chunk))
        yield chunk


class Gone(Exception):
    """The client has closed the connection: nobody waits for an answer."""


async def whole(request: Request, limits: Limits, share: Share) -> bytes:
    """The whole body. Raises: as `chunks`."""
    return b"".join([chunk async for chunk in chunks(request, limits, share)])


async def parsed(text: bytes, share: Share, tensors: Callable[[bytes], Awaitable[Any]] | None = None) -> Any:
    """JSON, whose values have taken their memory before they are made. Raises: Refused.

    `tensors` reads what has more than `MOST_VALUES` values; without it that is refused.
    """
    values = sum(map(text.count, (b",", b":")))
    share.take(values * _PER_VALUE + sum(map(text.count, (b"[", b"{"))) * _PER_LIST)
    read = tensors if values > MOST_VALUES else _short_values
    if read is None:
        raise Refused(f"expected JSON of at most {MOST_VALUES} values; send images in base64", 413)
    try:
        return await read(text)
    except DecodeError as error:
        raise Refused(str(error)) from None


async def _short_values(text: bytes) -> Any:
    return await asyncio.to_thread(values_of, text)
