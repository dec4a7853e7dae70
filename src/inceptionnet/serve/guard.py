"""Around the application: who may ask, safe headers, metrics, and an answer in JSON whatever fails."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inceptionnet.errors import InceptionNetError
from inceptionnet.serve.refusals import Refused
from inceptionnet.serve.service import Service
from inceptionnet.serve.settings import LOOPBACK

log: logging.Logger = logging.getLogger("inceptionnet")

OPEN = ("/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
"""Without a key; so are the files of the pages."""
SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
FAILED = "the service has failed; see its log"


class Guard:
    """The application as the server runs it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self.service = service
        key = service.settings.api_key
        self._key = hashlib.sha256(key.encode()).digest() if key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._start_and_end(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers[name] = value
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, told)
        except Refused as error:
            await _say(told, str(error), error)
        except Exception:
            log.exception("a request could not be answered")
            if not status:
                await _say(told, FAILED, Refused("", 500))
        finally:
            route = getattr(scope.get("route"), "path", "other")
            metrics = self.service.metrics
            metrics.requests.labels(route, str(status)).inc()
            metrics.latency.labels(route).observe(time.monotonic() - start)

    async def _start_and_end(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The lifespan, whose failure is one line."""

        async def told(message: Message) -> None:
            await send({**message, "message": ""} if message["type"].endswith("failed") else message)

        try:
            await self._app(scope, receive, told)
        except InceptionNetError as error:
            log.error("error: %s", error)
            raise

    def _check(self, scope: Scope) -> None:
        """Raises: Refused: whoever asks may not."""
        headers, path = Headers(scope=scope), scope["path"]
        if self.service.settings.loopback:
            host = _host(headers.get("host", ""))
            if host not in LOOPBACK:  # a page elsewhere whose name was made to lead here
                raise Refused(
                    f"the service is for this machine alone, and was asked as {host[:100]!r}; start it with --host", 403
                )
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["method"] != "GET":
            raise Refused("pages of other sites may not use this service", 403)
        if self._key and path not in OPEN and not path.startswith("/assets/"):
            given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
            if not hmac.compare_digest(hashlib.sha256(given.encode("latin-1", "replace")).digest(), self._key):
                raise Refused("expected the API key in the header X-API-Key, or as a bearer token; it is missing or "
                              "not the one of this service", 401)  # fmt: skip


def _host(stated: str) -> str:
    try:
        return urlsplit(f"//{stated}").hostname or ""
    except ValueError:
        return stated


async def _say(send: Send, message: str, error: Refused) -> None:
    body = json.dumps({"error": message}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
