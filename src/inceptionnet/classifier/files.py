"""An exported file as what computes a classifier's logits, by its own runtime; .onnx and .xml without torch."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inceptionnet.classifier.base import Answers, Options
from inceptionnet.data.images import Seen, Values, as_array, as_pixels, is_pixels, together_as_array
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.kinds import KINDS, Runner, kind_of, read_metadata
from inceptionnet.engines.sessions import Session
from inceptionnet.errors import ConfigurationError, InceptionNetError, InputError, WeightsError
from inceptionnet.system.extras import needing_torch

if TYPE_CHECKING:
    from torch import Tensor, device

GRAPHS = tuple(ending for ending, kind in KINDS.items() if kind.write is not None)
"""Endings of exported files."""


def is_graph(source: object) -> bool:
    """Whether a path ends like an exported file."""
    return isinstance(source, str | Path) and str(source).endswith(GRAPHS)


class FileBackend:
    """An exported file by its runtime, in arrays; see `Backend`.

    ONNX Runtime answers several calls at a time, the others one after another.
    """

    model = None

    def __init__(self, path: Path, runner: Runner, about: Mapping[str, Any]) -> None:
        kind, self._path, self._runner = kind_of(path).name, path, runner
        precision = about["precision"]
        self.about: dict[str, Any] = {"engine": kind, "precision": precision, "device": "cpu", "file": str(path)}
        self.prep: Preprocessing = Preprocessing.from_dict(about["preprocessing"])
        self._pixels, self._batch = about["input"]["type"] == "uint8", about["input"]["batch"]
        self._classes = about["configuration"]["num_classes"]
        self._second = about.get("embedding") or 0
        """Length of the second output; 0: there is none."""
        if self._second and not (isinstance(runner, Session) and runner.embeds):
            raise WeightsError(
                f"{path}: expected the output embedding, as its metadata says, got none; export it again"
            )
        self._turn = nullcontext() if kind == "ONNX" else threading.Lock()

    @property
    def device(self) -> device:
        """The CPU."""
        from torch import device

        return device("cpu")

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, or features of a network without classifier. Shapes: float (N, C, H, W) → (N, classes)."""
        from torch import from_numpy

        values = as_array(x)
        return from_numpy(self._run(as_pixels(values, self.prep) if self._pixels else values, embedding=False)[0])

    def answer(self, seen: Sequence[Seen | Tensor], *, embedding: bool) -> Answers:
        """As `Backend.answer`. Raises: WeightsError: a file without embeddings, or with outputs of other shapes."""
        if embedding and self._classes and not self._second:
            raise WeightsError(
                f"{self._path}: expected an exported file with the output embedding, got one without; export it again, "
                "as .onnx or .xml"
            )
        first, second = self._run(self._input(seen), embedding=embedding and bool(self._second))
        if self._classes:
            return Answers(first, second)
        return Answers(np.empty((len(seen), 0), np.float32), first if embedding else None)

    def given(self, values: Values) -> Values:
        """The values as they are."""
        return values

    def _input(self, seen: Sequence[Seen | Tensor]) -> npt.NDArray[Any]:
        prep = self.prep
        for one in seen:
            expected = (prep.channels, prep.size_px, prep.size_px)
            if not is_pixels(one) and tuple(one.shape) != expected:
                raise InputError(f"expected preprocessed images of shape {expected}, got {tuple(one.shape)}")
        if not self._pixels:
            return together_as_array(seen, prep)
        # What is preprocessed goes back to the same 8 bits.
        return np.stack([one if is_pixels(one) else as_pixels(as_array(one)[None], prep)[0] for one in seen])

    def _run(self, x: npt.NDArray[Any], *, embedding: bool) -> tuple[Values, Values | None]:
        """Any number of images, by a file that takes a fixed number too: the last batch is filled up with zeros."""
        if self._batch is None:
            return self._once(x, embedding)
        found = []
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            filled = np.zeros((self._batch, *x.shape[1:]), x.dtype)
            filled[: len(part)] = part
            logits, pooled = self._once(filled, embedding)
            found.append((logits[: len(part)], None if pooled is None else pooled[: len(part)]))
        pooled_parts = [pooled for _, pooled in found if pooled is not None]
        return np.concatenate([one for one, _ in found]), np.concatenate(pooled_parts) if pooled_parts else None

    def _once(self, x: npt.NDArray[Any], embedding: bool) -> tuple[Values, Values | None]:
        with self._turn:
            if embedding:
                assert isinstance(self._runner, Session)
                logits, pooled = self._runner.both(x)
            else:
                logits, pooled = self._runner(x), None
        for name, values, length in (("logits", logits, self._classes), ("embedding", pooled, self._second)):
            if values is not None and (values.ndim != 2 or len(values) != len(x) or values.shape[1] != length > 0):
                raise WeightsError(
                    f"{self._path}: expected the output {name} of shape ({len(x)}, {length or 'C'}), got "
                    f"{values.shape}; export it again"
                )
        return np.asarray(logits, np.float32), None if pooled is None else np.asarray(pooled, np.float32)


def graph_backend(path: Path, options: Options) -> tuple[FileBackend, dict[str, Any]]:
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
        with needing_torch(f"running {path}"):
            runner = kind.run(path)
    except InceptionNetError:
        raise
    except Exception as error:  # each runtime raises its own
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path}: {kind.name} cannot load it ({reason}); export it again") from None
    return FileBackend(path, runner, about), about
