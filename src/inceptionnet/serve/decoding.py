"""Decoding in processes of their own: a decoder that crashes or does not return costs one image, not the service.

A thread cannot be ended, and an image may be made so that decoding takes seconds, or to crash a decoder. Each process
has a thread here that hands it one image at a time and waits for the answer, for as long as an image may take; then it
ends the process and starts another. Long JSON is read there too (values.py). The processes import neither torch nor the
HTTP server.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from inceptionnet.data.bands import Pixels
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.formats import formats_for
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.resizing import centre_crop
from inceptionnet.errors import DecodeError, InceptionNetError, reason_of

START_S = 60.0
"""The most time for a process to start and to send back its first image, beside that image's own."""
_T = TypeVar("_T")
Encoded = bytes | Pixels
"""An image file, or decoded pixels uint8 (H, W, C) that are still to be cropped and resized."""
_Job = tuple[Callable[..., Any], tuple[Any, ...], "Future[Any]"]


class DecodePool:
    """Decodes images; `decode` may be called from any thread.

    Args:
        processes: images that are decoded at the same time.
        limit_s: the most time for one image.
        pixels: the most pixels of one image.
    """

    def __init__(self, processes: int, limit_s: float, pixels: int) -> None:
        self._limit_s, self._pixels = limit_s, pixels
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(processes)]
        for thread in self._threads:
            thread.start()

    def decode(self, image: Encoded, prep: Preprocessing, name: str) -> Future[Pixels]:
        """What the network sees of an image. The future raises a DecodeError with the reason, without the name.

        Shapes: → uint8 (size_px, size_px, C).
        """
        return self.call(_pixels, image, prep, name, self._pixels)

    def call(self, function: Callable[..., _T], *arguments: Any) -> Future[_T]:
        """What a function of a module gives in one of the processes. The future raises a DecodeError."""
        answer: Future[_T] = Future()
        self._jobs.put((function, arguments, answer))
        return answer

    def close(self) -> None:
        """End the processes when what they were given is done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        process = _Process()
        while (job := self._jobs.get()) is not None:
            function, arguments, answer = job
            if not answer.set_running_or_notify_cancel():  # nobody waits for it any more
                continue
            try:
                answer.set_result(process.call(function, arguments, self._limit_s))
            except InceptionNetError as error:
                answer.set_exception(error)
            except Exception as error:  # this thread must go on
                answer.set_exception(error)
                process.end()
                process = _Process()
        process.end()


class _Process:
    """One process, which is started again after it was ended."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_work, args=(there,), daemon=True)
        self._process.start()
        # Before multiprocessing sends SIGTERM, which these ignore, and waits for them.
        self._at_exit = Finalize(self, self._process.kill, exitpriority=100)
        there.close()
        self._fresh = True

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], limit_s: float) -> Any:
        """Raises: DecodeError."""
        code: int | None = None
        for _ in range(2):  # it may have been killed before the image came
            try:
                self._here.send((function, arguments))
                if not self._here.poll(limit_s + (START_S if self._fresh else 0)):
                    self._restart()
                    raise DecodeError(f"takes more than {limit_s:g} s to decode")
                answer, reason = self._here.recv()
            except (EOFError, OSError):
                code = self._restart()
                continue
            self._fresh = False
            if reason is not None:
                raise DecodeError(reason)
            return answer
        raise DecodeError(f"the process that decoded it ended unexpectedly (exit code {code})")

    def _restart(self) -> int | None:
        self.end()
        code = self._process.exitcode
        self._start()
        return code

    def end(self) -> None:
        self._here.close()
        self._at_exit()
        self._process.join()


def _work(parent: Connection) -> None:
    """In the process: call what comes, until the other end is gone; sends (result, None) or (None, reason)."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the service ends it when the last request is answered
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    while True:
        try:
            function, arguments = parent.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            answer: tuple[Any, str | None] = function(*arguments), None
        except DecodeError as error:
            answer = None, str(error)
        except Exception as error:  # one image must not end the others
            answer = None, f"cannot be decoded ({type(error).__name__})"
        try:
            parent.send(answer)
        except OSError:
            os._exit(0)


def _pixels(image: Encoded, prep: Preprocessing, name: str, pixels: int) -> Pixels:
    """`seen`, whose errors do not repeat the name."""
    try:
        return seen(image, prep, name, pixels)
    except DecodeError as error:
        raise DecodeError(reason_of(error, name)) from None


def seen(image: Encoded, prep: Preprocessing, name: str, pixels: int) -> Pixels:
    """What a network sees of an image. Raises: DecodeError."""
    if isinstance(image, np.ndarray):
        return centre_crop(Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image), prep)
    if (size := _size(image)) and size[0] * size[1] > pixels:
        raise DecodeError(f"{name}: has {size[0]}×{size[1]} pixels, more than the limit of {pixels}")
    return pixels_of(image, prep, name)


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header says; None if that cannot be read, which `pixels_of` explains."""
    try:
        with Image.open(io.BytesIO(data), formats=formats_for(data)) as image:
            return image.size
    except Exception:
        return None
