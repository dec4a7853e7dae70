"""A network as what computes a classifier's logits, by one of the engines; needs torch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inceptionnet.classifier.base import Answers, Options
from inceptionnet.data.images import Seen, Values, together
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.agreement import to_calibrate
from inceptionnet.engines.choice import optimize
from inceptionnet.engines.runtimes import Run
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.devices import pick_device
from inceptionnet.system.settings import exact


class NetworkBackend:
    """A network by an engine, in tensors; see `Backend`.

    Eager networks answer several calls at a time, the other engines one after another.
    """

    def __init__(
        self, run: Run, about: Mapping[str, Any], device: torch.device, model: InceptionNet, prep: Preprocessing
    ) -> None:
        self.about: dict[str, Any] = dict(about)
        self.device = device
        self.model = model
        self.prep = prep
        self._run, self._turn = run, nullcontext() if run is model else threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, or features of a network without classifier. Shapes: float (N, C, H, W) → (N, classes)."""
        with torch.inference_mode(), exact(self.device), self._turn:
            return self._run(x.to(self.device)).float()

    def answer(self, seen: Sequence[Seen | Tensor], *, embedding: bool) -> Answers:
        """As `Backend.answer`; logits and embeddings together are by the network itself, whatever the engine is."""
        x = together(seen, self.prep, self.device)
        if not self.model.num_classes:
            return Answers(np.empty((len(seen), 0), np.float32), _array(self(x)) if embedding else None)
        if not embedding:
            return Answers(_array(self(x)))
        with torch.inference_mode(), exact(self.device):
            pooled = self.model.embed(x)
            return Answers(_array(self.model.head.get_submodule("logits")(pooled)), _array(pooled))

    def given(self, values: Values) -> Tensor:
        """The values as a tensor on the CPU."""
        return torch.from_numpy(values)


def _array(x: Tensor) -> Values:
    values: Values = x.float().cpu().numpy()
    return values


def network_backend(model: InceptionNet, prep: Preprocessing, options: Options) -> NetworkBackend:
    """The network by the engine that is asked for; if only a precision of auto is, by any. Raises: as `optimize`."""
    device = pick_device(options.device)
    model = model.to(device).eval()
    if options.engine == "eager" and options.precision == "fp32":
        about = {"engine": "eager", "precision": "fp32", "device": str(device)}
        return NetworkBackend(model, about, device, model, prep)
    images = to_calibrate(options.calibrate, prep) if options.calibrate else None
    engine = "auto" if (options.engine, options.precision) == ("eager", "auto") else options.engine
    made = optimize(
        model, engine, batch_size=options.batch_size, precision=options.precision, calibrate=images,
        device=str(device), threads=options.threads, size_px=prep.size_px,
    )  # fmt: skip
    return NetworkBackend(made, made.about, device, model, prep)
