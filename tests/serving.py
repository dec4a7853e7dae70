"""A service with a small network, run in a thread of the tests."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
from PIL import Image

from inceptionnet import Classifier, create_model, load
from inceptionnet.serve.app import application
from inceptionnet.serve.models import Answer, Model
from inceptionnet.serve.running import GracefulServer, bind, config
from inceptionnet.serve.service import Service
from inceptionnet.serve.settings import Limits, Settings

NAME = "colours"
CLASSES = ("blue", "green", "red")
SIZE_PX = 32
DEADLINE_S = 20.0
COMMAND_S = 120.0
"""Of the service as a process, which imports torch first."""


def small_classifier(classes: tuple[str, ...] = CLASSES, activation: str = "softmax", seed: int = 0) -> Classifier:
    import torch

    torch.manual_seed(seed)
    model = create_model(
        "inception_v1.slim", num_classes=len(classes), width=0.125, input_size=SIZE_PX, activation=activation
    )
    return load(model, classes=classes)


class Running:
    """A service that answers, and what to ask it with."""

    def __init__(self, service: Service, server: GracefulServer, port: int) -> None:
        self.service, self.server, self.port = service, server, port
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE_S)

    @property
    def model(self) -> Model:
        return self.service.get().model

    def predict(self, data: bytes, **options: Any) -> httpx.Response:
        """Ask about one image, as the raw body."""
        return self.client.post("/predict", content=data, params=options, headers={"Content-Type": "image/png"})

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextmanager
def running(*classifiers: Classifier, limits: dict[str, Any] | None = None, **options: Any) -> Iterator[Running]:
    """A service with models colours, colours-1, …"""
    names = [NAME, *(f"{NAME}-{i}" for i in range(1, len(classifiers)))]
    settings = Settings(dict.fromkeys(names, ""), decoders=1, port=0, **options)
    settings = replace(settings, limits=replace(Limits(), **(limits or {})))
    service = Service(settings)
    for name, classifier in zip(names, classifiers, strict=True):
        service.put(Model(name, classifier), time.time())
    with serving(service) as found:
        yield found


@contextmanager
def serving(service: Service) -> Iterator[Running]:
    """A service whose models may be loaded or not."""
    bound = bind("127.0.0.1", 0)
    server = GracefulServer(config(service.settings, application(service.settings, service)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    port = bound.getsockname()[1]
    thread.start()
    until(lambda: server.started)
    found = Running(service, server, port)
    try:
        yield found
    finally:
        found.client.close()
        server.should_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


class Gate:
    """Holds the engine until it is opened; `batches` are the numbers of images that came."""

    def __init__(self, found: Running, monkeypatch: Any) -> None:
        model = found.model
        self.batches: list[int] = []
        self._open = threading.Event()
        run: Callable[..., list[Answer]] = model.answer

        def held(seen: Any, embedding: bool) -> list[Answer]:
            self.batches.append(len(seen))
            assert self._open.wait(DEADLINE_S)
            return run(seen, embedding)

        monkeypatch.setattr(found.service.get().batcher, "_run", held)

    def open(self) -> None:
        self._open.set()

    def wait_for(self, batches: int) -> None:
        until(lambda: len(self.batches) >= batches)


def until(true: Callable[[], Any], most_s: float = DEADLINE_S) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def png(seed: int = 0, size: tuple[int, int] = (40, 32)) -> bytes:
    """A noisy image."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(into := io.BytesIO(), "PNG")
    return into.getvalue()


@contextmanager
def command_running(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """`inceptionnet serve` on a free port, ready; as from a terminal, though the tests may run under nohup."""
    line = [sys.executable, "-m", "inceptionnet", "serve", *map(str, arguments), "--port", "0", "--engine", "eager"]
    process = subprocess.Popen(
        line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("serving on http://127.0.0.1:"), said
        with httpx.Client(base_url=said.split()[-1], timeout=COMMAND_S) as client:
            until(lambda: is_ready(client), COMMAND_S)
            yield process, client
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=COMMAND_S)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False
