"""What computes a classifier's logits: a network by one of the engines, or an exported file by its own runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.agreement import to_calibrate
from inceptionnet.engines.choice import check_engine, check_precision, optimize
from inceptionnet.engines.kinds import KINDS, Runner, kind_of, read_metadata
from inceptionnet.engines.runtimes import Run
from inceptionnet.errors import ConfigurationError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.devices import pick_device
from inceptionnet.system.settings import exact

GRAPHS = tuple(ending for ending, kind in KINDS.items() if kind.write is not None)
"""Endings of exported files."""


@dataclass(frozen=True)
class Options:
    """How a network shall run; see `load`."""

    engine: str = "eager"
    precision: str = "fp32"
    calibrate: tuple[str, ...] = ()
    device: str = "auto"
    batch_size: int = 16
    threads: int | None = None

    def check(self) -> None:
        """Raises: ConfigurationError for an engine, a precision or a combination that there is not."""
        check_engine(self.engine)
        check_precision(self.precision, bool(self.calibrate))


class Backend:
    """Something that gives logits; calls may come from several threads.

    Eager networks and ONNX Runtime answer several at a time, the others one after another.
    """

    def __init__(
        self, run: Run, about: Mapping[str, Any], device: torch.device, model: InceptionNet | None, at_once: bool
    ) -> None:
        self.about, self.device, self.model = dict(about), device, model
        self._run, self._turn = run, nullcontext() if at_once else threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, or features of a network without classifier. Shapes: float (N, C, H, W) → (N, classes)."""
        with torch.inference_mode(), exact(self.device), self._turn:
            return self._run(x.to(self.device)).float()


def network_backend(model: InceptionNet, prep: Preprocessing, options: Options) -> Backend:
    """The network by the engine that is asked for; if only a precision of auto is, by any. Raises: as `optimize`."""
    device = pick_device(options.device)
    model = model.to(device).eval()
    if options.engine == "eager" and options.precision == "fp32":
        about = {"engine": "eager", "precision": "fp32", "device": str(device)}
        return Backend(model, about, device, model, at_once=True)
    images = to_calibrate(options.calibrate, prep) if options.calibrate else None
    engine = "auto" if (options.engine, options.precision) == ("eager", "auto") else options.engine
    made = optimize(
        model, engine, batch_size=options.batch_size, precision=options.precision, calibrate=images,
        device=str(device), threads=options.threads, size_px=prep.size_px,
    )  # fmt: skip
    return Backend(made, made.about, device, model, at_once=False)


def graph_backend(path: Path, options: Options) -> tuple[Backend, dict[str, Any]]:
    """An exported file, and what it says of itself (see engines/kinds.py).

    Raises:
        ConfigurationError: an engine, precision or device that such a file does not have.
        WeightsError: no such file, or one that `export` did not write.
        MissingExtraError: its runtime is not installed.
    """
    if options.engine not in ("eager", "auto") or options.precision != "fp32" or options.calibrate:
        raise ConfigurationError(f"{path}: an exported file has an engine and a precision of its own; leave them out")
    if options.device not in ("auto", "cpu"):
        raise ConfigurationError(f"{path}: an exported file runs on the CPU, got device {options.device}; leave it out")
    kind, about = kind_of(path), read_metadata(path)
    try:
        runner = kind.run(path)
    except Exception as error:  # each runtime raises its own
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path}: {kind.name} cannot load it ({reason}); export it again") from None
    takes, prep = about["input"], Preprocessing.from_dict(about["preprocessing"])
    run = _in_batches(_from_input(runner, prep) if takes["type"] == "uint8" else _plain(runner), takes["batch"])
    said = {"engine": kind.name, "precision": about["precision"], "device": "cpu", "file": str(path)}
    return Backend(run, said, torch.device("cpu"), None, at_once=kind.name == "ONNX"), about


def _plain(runner: Runner) -> Run:
    return lambda x: torch.from_numpy(runner(x.float().contiguous().numpy()))


def _from_input(runner: Runner, prep: Preprocessing) -> Run:
    """A file that normalises pixels itself, asked about what is normalised: which goes back to the same 8 bits."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prep.mean, prep.std))

    def run(x: Tensor) -> Tensor:
        pixels = ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        return torch.from_numpy(runner(pixels.permute(0, 2, 3, 1).contiguous().numpy()))

    return run


def _in_batches(run: Run, size: int | None) -> Run:
    """Any number of images by a file that takes `size` at a time: the last batch is filled up with zeros."""
    if size is None:
        return run

    def pieces(x: Tensor) -> Tensor:
        answers = []
        for piece in torch.split(x, size):
            filled = x.new_zeros(size, *x.shape[1:])
            filled[: len(piece)] = piece
            answers.append(run(filled)[: len(piece)])
        return torch.cat(answers)

    return pieces


def is_graph(source: object) -> bool:
    """Whether a path ends like an exported file."""
    return isinstance(source, str | Path) and str(source).endswith(GRAPHS)


def texts(places: str | Path | Sequence[str | Path] | None) -> tuple[str, ...]:
    """One place or several, as text."""
    if places is None:
        return ()
    return (str(places),) if isinstance(places, str | Path) else tuple(map(str, places))
