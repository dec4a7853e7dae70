"""One HTTP connection, with what uvicorn leaves to a proxy: limits of time, of connections, and errors in JSON.

uvicorn waits without end for headers, for the rest of a body that nobody reads any more, and for clients that do not
read; asyncio buffers what they do not read. Here each of these has a time, after which the connection is cut off.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from inceptionnet.serve.refusals import Refused, busy

LINGER_S = 5.0
"""How long the rest of a body is read and dropped after the request was refused, so that the client can read why."""
WRITE_S = 30.0
"""How long a client may read nothing of an answer."""
NO_HTTP_S = 0.5
"""How long the answer to what is no HTTP is delayed: who sends such takes a connection, and little of the processor."""
IDLE_AT_END_S = 0.5
"""How long a connection without a request stays open after SIGTERM: its request may be on the way."""


class Connection(H11Protocol):
    """A connection of the service; `config.loaded_app` is its Guard."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = self.app.service.limits
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._closing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept it, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(busy("there are too many connections"))
        else:
            self._start("headers", self._limits.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all timers."""
        for name in list(self._timers):
            self._stop(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._between_requests():
            self._start("headers", self._limits.header_s)
        else:
            self._stop("headers")
        if self.conn.their_state is not h11.SEND_BODY:
            self._stop("rest")

    def handle_events(self) -> None:
        """Handle what has been received; connections that are to be closed take one request more."""
        super().handle_events()
        if self._closing and self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Wait for another request, and for what is left of the body of this one."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.conn.their_state is h11.SEND_BODY and not self._active():
            self._start("rest", LINGER_S)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._start("write", WRITE_S)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop("write")
        super().resume_writing()

    def shutdown(self) -> None:
        """Close it at the end of the request that is being answered, or that is on the way."""
        self._closing = True
        if self._active():
            self.cycle.keep_alive = False
        else:
            self._start("idle", IDLE_AT_END_S)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self.flow.pause_reading()
        self._start("no http", NO_HTTP_S)

    def _active(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _between_requests(self) -> bool:
        """Whether part of the headers of a request, or nothing, has come."""
        return not self._active() and self.conn.their_state is h11.IDLE

    def _refuse(self, error: Refused) -> None:
        """Answer in place of the application, unless it has begun to, and close."""
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
            return
        body = json.dumps({"error": str(error)}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
        lines += [f"{name.lower()}: {value}" for name, value in {**headers, **error.headers}.items()]
        self.transport.write("".join(f"{line}\r\n" for line in (*lines, "")).encode() + body)
        self.transport.close()
        self._start("close", LINGER_S)

    def _start(self, name: str, seconds: float) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, self._ended, name)

    def _stop(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def _ended(self, name: str) -> None:
        """The time is over."""
        self._timers.pop(name, None)
        if name == "headers" and not self.transport.is_closing():
            if self._between_requests():
                self._refuse(Refused(f"the headers did not arrive within {self._limits.header_s:g} s", 408))
        elif name == "no http":
            most = f"headers of at most {self._limits.header_bytes} bytes"
            self._refuse(Refused(f"expected an HTTP/1.1 request with {most}, got what is none"))
        elif name == "idle":
            if not self._active():
                self.transport.close()
                self._start("close", LINGER_S)
        else:
            self.transport.abort()
