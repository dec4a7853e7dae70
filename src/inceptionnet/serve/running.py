"""Running the service: one process, or several that share a socket, are watched, and are replaced when they die."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import Config
from uvicorn.server import HANDLED_SIGNALS, Server
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from inceptionnet.errors import ConfigurationError, ProcessError
from inceptionnet.serve.app import application
from inceptionnet.serve.connections import Connection
from inceptionnet.serve.guard import Guard
from inceptionnet.serve.settings import Settings
from inceptionnet.serve.worker import factory
from inceptionnet.system.printing import say

START_S = 600
"""The most time for a worker process to load its models, when it replaces another at SIGHUP."""
PING_S = 30
"""The most time for a worker process to tell that it lives."""
PAUSE_S = 0.05


def run(settings: Settings) -> None:
    """Serve until SIGTERM, Ctrl-C or, as a single process, SIGHUP; a second signal ends it at once.

    Raises:
        ConfigurationError: the address cannot be bound.
        InceptionNetError: a model cannot be loaded.
    """
    bound = bind(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    say(f"serving on http://{host}:{bound.getsockname()[1]}", error=True)
    if not settings.loopback and not settings.api_key:
        say(f"whoever reaches {host} can use the service; set a key with --api-key-file", error=True)
    if settings.workers == 1:
        app = application(settings)
        GracefulServer(config(settings, app)).run(sockets=[bound])
        if app.service.failed:
            raise app.service.failed
        return
    with tempfile.TemporaryDirectory(prefix="inceptionnet-serve-") as shared:
        settings = replace(settings, shared=shared)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # read when a worker imports prometheus_client
        workers = Workers(config(settings, partial(factory, settings)), [bound])
        workers.run()
        if any(one.exitcode == 3 for one in workers.processes):
            raise ProcessError("a worker process could not start; the line above says why")
    if workers.cut_off:
        end_by(workers.cut_off)


def config(settings: Settings, app: Guard | partial[Guard]) -> Config:
    """What uvicorn is told."""
    return Config(
        app, factory=isinstance(app, partial), http=Connection, ws="none", loop="asyncio", lifespan="on",
        log_config=None, log_level="critical", access_log=False, server_header=False, proxy_headers=False,
        workers=settings.workers, timeout_graceful_shutdown=settings.grace_s, timeout_worker_healthcheck=0,
        h11_max_incomplete_event_size=settings.limits.header_bytes,
    )  # fmt: skip


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises: ConfigurationError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"--host {host} --port {port}: cannot be used: {error.strerror}; choose another address"
        ) from None
    bound.set_inheritable(True)
    return bound


def end_by(number: int) -> None:
    """End this process as a signal does that nothing is set for: at once, and whoever started it is told by which."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def ending_signals() -> list[int]:
    """SIGINT, SIGTERM and, unless nohup has it ignored, SIGHUP, which a terminal sends that goes away."""
    gone = getattr(signal, "SIGHUP", None)
    return [*HANDLED_SIGNALS, *([] if gone is None or signal.getsignal(gone) is signal.SIG_IGN else [gone])]


class GracefulServer(Server):
    """A server that ends at a signal when all is answered, with exit code 0; at a second one at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the signal is not raised again at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in ending_signals()}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends it when all is answered; the second at once, as if nothing were set for it."""
        if self.should_exit:
            end_by(sig)
        self.should_exit = True


class Workers(Multiprocess):
    """Worker processes; a dead one no longer counts in the metrics. A second signal to end ends all of them at once."""

    cut_off: int = 0
    """The second signal."""

    def handle_int(self) -> None:
        """Ctrl-C."""
        self._end(signal.SIGINT)

    def handle_term(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.should_exit.is_set():
            self.cut_off = number
        self.should_exit.set()

    def join_all(self) -> None:
        """Wait until they have answered all, or for a second signal. Nobody can connect any more."""
        for one in self.sockets:
            one.close()
        while any(worker.process.is_alive() for worker in self.processes):
            self.signal_queue = [
                number for number in self.signal_queue if number in HANDLED_SIGNALS
            ]  # nothing else counts now
            self.handle_signals()
            if self.cut_off:
                for worker in self.processes:
                    worker.process.kill()
            time.sleep(PAUSE_S)
        super().join_all()

    def restart_all(self) -> None:
        """Replace one after another, each when its successor has loaded its models."""
        self.config.timeout_worker_healthcheck = START_S
        super().restart_all()
        self.config.timeout_worker_healthcheck = 0

    def keep_subprocess_alive(self) -> None:
        """Replace what has died, or does not answer."""
        for i, one in enumerate(self.processes):
            if not self.should_exit.is_set() and not self._answers(one):
                # uvicorn's own looks at all of them, and would ask those that are busy without waiting for the answer.
                everyone, self.processes = self.processes, [one]
                super().keep_subprocess_alive()
                everyone[i], self.processes = self.processes[0], everyone
                mark_process_dead(one.pid)  # type: ignore[no-untyped-call]

    def _answers(self, one: Process) -> bool:
        """Whether it tells that it lives; uvicorn alone would wait `PING_S` for one that dies after it was asked."""
        end = time.monotonic() + PING_S
        with contextlib.suppress(OSError, EOFError):
            one.parent_conn.send(b"ping")
            while one.process.is_alive() and time.monotonic() < end:
                if one.parent_conn.poll(PAUSE_S):
                    one.parent_conn.recv()
                    return True
                if self.signal_queue:
                    return True
        return False
