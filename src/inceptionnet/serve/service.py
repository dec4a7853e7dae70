"""The service without HTTP: models by name, one bounded queue, decoding, batches, answers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from inceptionnet.data.bands import Pixels
from inceptionnet.errors import DecodeError, InceptionNetError, listed
from inceptionnet.serve.batching import Batcher
from inceptionnet.serve.bodies import Memory
from inceptionnet.serve.decoding import DecodePool, Encoded
from inceptionnet.serve.images import Options, Upload
from inceptionnet.serve.metrics import Metrics
from inceptionnet.serve.models import Answer, Model, Seen
from inceptionnet.serve.refusals import Refused, busy
from inceptionnet.serve.rows import first_class, prediction_rows
from inceptionnet.serve.settings import Limits, Settings
from inceptionnet.serve.values import tensors_of

log: logging.Logger = logging.getLogger("inceptionnet")

RETIRE_S = 1.0
STUCK_S = 300.0
"""A batch that runs for longer will not end: the process should be started again."""


@dataclass
class Loaded:
    """A model that is ready, and the thread that runs it."""

    model: Model
    batcher: Batcher[Seen, Answer]
    since: float
    """When it was loaded, in seconds since 1970."""
    requests: int = 0
    """That it is answering."""


@dataclass(frozen=True)
class Result:
    """What became of one image."""

    answer: Answer | None = None
    pixels: Pixels | None = None
    error: str = ""


class Service:
    """Answers requests; its methods are called in the event loop's thread, but for `load`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits: Limits = settings.limits
        self.metrics: Metrics = Metrics(bool(settings.shared))
        self.memory: Memory = Memory(self.limits.held_bytes)
        self.queued: int = 0
        self.failed: InceptionNetError | None = None
        """Why a model could not be loaded at the start."""
        self._loaded: dict[str, Loaded] = {}
        self._loading, self._loading_since = threading.Lock(), time.monotonic()
        self._decoders = DecodePool(settings.decode_processes, self.limits.decode_s, self.limits.pixels)
        self._aside = ThreadPoolExecutor(1, "attribution")

    @property
    def ready(self) -> bool:
        """Whether every model is loaded and has run once."""
        return self._loaded.keys() >= self.settings.models.keys()

    @property
    def alive(self) -> bool:
        """Whether no engine hangs."""
        return all(one.batcher.busy_s() < STUCK_S for one in self._loaded.values())

    @property
    def names(self) -> list[str]:
        """Of the models, the default one first."""
        return list(self.settings.models)

    def has(self, name: str) -> bool:
        """Whether a model is ready."""
        return name in self._loaded

    def get(self, name: str | None = None) -> Loaded:
        """A model by name. Raises: Refused: 404 for an unknown one, 503 before it is ready."""
        name = name or self.names[0]
        if name not in self.settings.models:
            raise Refused(
                f"there is no model {name[:100]!r}; expected {listed(self.names, ordered=True, last='or')}", 404
            )
        if name not in self._loaded:
            raise self.loading(f"the model {name} is being loaded")
        return self._loaded[name]

    def loading(self, what: str) -> Refused:
        """Why a request must wait for a model: `what`, and since when."""
        since_s = time.monotonic() - self._loading_since
        return busy(f"{what}, for {since_s:.0f} s so far", since_s)

    def load(self, name: str) -> Loaded:
        """Load a model, or load it again, run it once, and put it in the place of the old one, which ends what it has.

        It takes seconds: call it in another thread.
        Raises: InceptionNetError: it cannot be loaded; the old one stays. Refused: 503 while one is being loaded.
        """
        if not self._loading.acquire(blocking=False):
            raise self.loading("a model is being loaded")
        try:
            since, self._loading_since = time.time(), time.monotonic()
            model = Model.load(name, self.settings)
            model.warm_up(self.settings.batch_size)
            return self.put(model, since)
        finally:
            self._loading.release()

    def put(self, model: Model, since: float) -> Loaded:
        """Serve a model, in the place of one with its name."""
        batcher: Batcher[Seen, Answer] = Batcher(
            model.answer, self.settings.batch_size, self.settings.max_wait_s, self.metrics.ran(model.name)
        )
        old = self._loaded.get(model.name)
        self._loaded[model.name] = new = Loaded(model, batcher, since)
        if old:
            threading.Thread(target=self._retire, args=(old,), daemon=True).start()
        return new

    def _retire(self, old: Loaded) -> None:
        """End the thread of an old model when the requests that began with it are answered."""
        time.sleep(RETIRE_S)  # those that have just taken it
        while old.requests:
            time.sleep(0.1)
        old.batcher.close()

    def close(self) -> None:
        """End threads and processes, when nothing is to be answered any more."""
        for one in self._loaded.values():
            one.batcher.close()
        self._decoders.close()
        self._aside.shutdown()

    @contextmanager
    def places(self, loaded: Loaded, count: int) -> Iterator[None]:
        """Places in the queue for the images of a request. Raises: Refused: 503 at once if there are not as many."""
        if self.queued + count > self.limits.queue:
            raise busy(f"{self.queued} images are waiting, and the queue takes {self.limits.queue}")
        self.queued += count
        loaded.requests += 1
        try:
            yield
        finally:
            self.queued -= count
            loaded.requests -= 1

    async def tensors_of(self, text: bytes) -> Any:
        """The values of JSON with many numbers, as `values.tensors_of` reads them. Raises: DecodeError."""
        try:
            return await asyncio.wrap_future(self._decoders.call(tensors_of, text))
        except DecodeError as error:
            raise DecodeError(f"JSON: {error}") from None

    async def results(self, loaded: Loaded, images: Sequence[Encoded | Seen | str], embedding: bool) -> list[Result]:
        """What the network says of each image: encoded, pixels (H, W, C), preprocessed (C, H, W), or an error already.

        Raises: Refused: the network cannot run.
        """
        tasks = [asyncio.ensure_future(self._result(loaded, image, embedding)) for image in images]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    async def _result(self, loaded: Loaded, image: Encoded | Seen | str, embedding: bool) -> Result:
        model = loaded.model
        self.metrics.images.labels(model.name).inc()
        if isinstance(image, str):
            self.metrics.errors.labels(model.name).inc()
            return Result(error=image)
        if isinstance(image, np.ndarray) and image.dtype == np.float32:
            seen: Seen = image
        else:
            start = time.monotonic()
            try:
                seen = await asyncio.wrap_future(self._decoders.decode(image, model.prep, "image"))  # type: ignore[arg-type]
            except DecodeError as error:
                self.metrics.errors.labels(model.name).inc()
                return Result(error=str(error))
            finally:
                self.metrics.decode.observe(time.monotonic() - start)
        try:
            answer = await asyncio.wrap_future(loaded.batcher.submit(seen, embedding))
        except InceptionNetError:
            raise
        except Exception as error:  # of the runtime
            log.error("%s: the network cannot run: %s", model.name, error)
            raise Refused(
                f"{model.name}: the network could not run ({type(error).__name__}); see the log", 500
            ) from error
        return Result(answer, seen if seen.dtype == np.uint8 else None)  # type: ignore[arg-type]

    async def predict(self, loaded: Loaded, uploads: Sequence[Upload], options: Options) -> dict[str, Any]:
        """The answer to a request to predict, as JSON values. Raises: Refused, ConfigurationError."""
        model = loaded.model
        threshold = self._checked(model, options)
        with self.places(loaded, len(uploads)):
            given = [one.error or one.data for one in uploads]
            wanted = options.embedding or not model.classes
            results = await self.results(loaded, given, wanted)
            rows = prediction_rows(model, uploads, [one.answer or one.error for one in results], options, threshold)
            if options.attribution:
                for row, result in zip(rows, results, strict=True):
                    if "error" not in row and result.pixels is not None:
                        name = first_class(row)
                        row["attribution"] = await self._attribution(model, result.pixels, name)
        decision = model.decision(threshold) if model.classes else ""
        return {
            "model": model.name,
            "network": model.network,
            "predictions": rows,
            "activation": model.activation,
            "threshold": threshold,
            "assumed": model.assumed,
            "notes": [decision] if decision else [],
        }

    def _checked(self, model: Model, options: Options) -> float | None:
        """The threshold that is used; refuses what the model cannot do."""
        if options.attribution and not model.classes:
            raise Refused(f"{model.name}: attribution needs a classifier, and this network has none")
        if options.attribution and not model.explained:
            raise Refused(f"{model.name}: attribution needs the weights, and an exported file is served")
        if options.attribution and not model.explains:
            raise Refused("attribution needs captum; install it with: pip install 'inceptionnet[explain]'")
        if options.embedding and not model.embedding_size:
            raise Refused(f"{model.name}: the file has no output for embeddings; export it again, as .onnx or .xml")
        if not model.classes and (options.probabilities or options.threshold is not None):
            raise Refused(f"{model.name}: the network has no classifier, and gives embeddings only")
        return model.threshold(options.threshold) if model.classes else None

    async def _attribution(self, model: Model, pixels: Pixels, class_name: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, model.attribution, pixels, class_name)
