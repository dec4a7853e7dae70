"""What the routes share: JSON, errors, and work that ends with its time or its client."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from inceptionnet.serve.bodies import Gone
from inceptionnet.serve.refusals import Refused
from inceptionnet.serve.service import Service

T = TypeVar("T")


class Json(JSONResponse):
    """JSON in UTF-8 that every parser reads: without NaN."""

    def render(self, content: Any) -> bytes:
        """The body."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def error_response(message: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """What every failure looks like: `{"error": "one line"}`."""
    return Json({"error": message}, status, headers=headers)


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    found: Service = request.app.state.service
    return found


async def answered(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of work for a request, within its time, unless the client goes. Raises: Refused, Gone."""
    limits = service_of(request).limits
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, timeout=limits.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Gone
        raise Refused(f"the answer took more than {limits.timeout_s:g} s; send fewer images, or try again later", 503)
    finally:
        for one in (task, gone):
            one.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def aside(work: Callable[[str], T], name: str) -> T:
    """The result of work that takes long, from a thread of its own, which nobody waits for at the end."""
    loop, found = asyncio.get_running_loop(), Future[T]()

    def run() -> None:
        try:
            found.set_result(work(name))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(found, loop=loop)


async def live(request: Request) -> Response:
    """Whether the process works; it should be started again if not."""
    if not service_of(request).alive:
        raise Refused("a batch does not end", 503)
    return Json({"status": "live"})


async def ready(request: Request) -> Response:
    """Whether requests are answered: every model is loaded, and has run once."""
    service = service_of(request)
    if not service.ready:
        raise service.loading("models are being loaded")
    if not service.alive:
        raise Refused("a batch does not end", 503)
    return Json({"status": "ready"})
