"""A classifier as the service asks it: arrays in, arrays and text out. Only heat maps import torch here."""

from __future__ import annotations

import base64
import copy
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from inceptionnet.classifier import Classifier, load
from inceptionnet.classifier.files import is_graph
from inceptionnet.data.bands import Pixels
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError, InceptionNetError, WeightsError
from inceptionnet.evaluate.prediction import Prediction, predictions_of
from inceptionnet.serve.settings import Settings

Floats = npt.NDArray[np.float32]
Seen = Pixels | Floats
"""What a network sees of an image: uint8 (size_px, size_px, C), or float32 (C, size_px, size_px), preprocessed."""


@dataclass(frozen=True)
class Answer:
    """What a network says of one image. Shapes: logits (logits,), embedding (C,)."""

    logits: Floats | None
    """None without a classifier."""
    embedding: Floats | None


class Model:
    """A classifier with the name that clients know it by."""

    def __init__(self, name: str, classifier: Classifier) -> None:
        self.name = name
        self._classifier = classifier
        self._copy: Any = None
        self._explaining = threading.Lock()
        self.prep: Preprocessing = classifier.preprocessing
        self.classes: tuple[str, ...] = classifier.classes
        self.network: str = classifier.record.configuration.title
        self.logits: int = classifier.outputs.logits
        self.engine: str = str(classifier.about["engine"])
        self.embedding_size: int = self._probe()
        """0: it cannot give embeddings, as .pt2 files and older exports."""
        self.explained: bool = bool(self.classes) and classifier.run.model is not None
        """Whether there can be heat maps, which exported files do not give."""
        self.explains: bool = self.explained and explains()
        """Whether what they need is installed; importing it takes seconds, here and not at a request."""

    @classmethod
    def load(cls, name: str, settings: Settings) -> Model:
        """Load the model of that name. Raises: InceptionNetError, as `inceptionnet.load`."""
        source = settings.models[name]
        how: dict[str, Any] = {
            "engine": settings.engine, "precision": settings.precision, "calibrate": settings.calibrate or None,
            "device": settings.device,
        }  # fmt: skip
        if is_graph(source) and not all(map(is_graph, settings.models.values())):
            how = {}  # it has its own; what is asked for is for the other models
        classifier = load(source, batch_size=settings.batch_size, threads=settings.threads, **how)
        if classifier.classes:
            classifier.check_probabilities()
        return cls(name, classifier)

    def answer(self, seen: Sequence[Seen], embedding: bool) -> list[Answer]:
        """The network's answers to a batch; called from one thread at a time."""
        found, none = self._classifier.answer(seen, embedding=embedding), [None] * len(seen)
        logits = list(found.logits) if self.classes else none
        return [
            Answer(*both) for both in zip(logits, none if found.embedding is None else found.embedding, strict=True)
        ]

    def warm_up(self, batch_size: int) -> None:
        """Run batches of one image and of the usual number, so that the first request waits for nothing."""
        size = self.prep.size_px
        black = np.zeros((size, size, self.prep.channels), np.uint8)
        for count in {1, batch_size}:
            self.answer([black] * count, embedding=not self.classes)

    def probabilities(self, logits: Floats) -> Floats:
        """Shapes: (N, logits) → (N, classes)."""
        return self._classifier.outputs.probabilities(logits)

    def threshold(self, stated: float | None) -> float | None:
        """The threshold that is used. Raises: ConfigurationError: it cannot be used."""
        return self._classifier.threshold(stated)

    def predictions(self, files: Sequence[str], logits: Floats, top: int, threshold: float | None) -> list[Prediction]:
        """Shapes: logits (N, logits)."""
        return predictions_of(files, logits, self.classes, self._classifier.outputs, top, threshold)

    def attribution(self, pixels: Pixels, class_name: str) -> dict[str, Any]:
        """The evidence for a class by Grad-CAM, over the crop that the network sees, as a PNG in a data: URL.

        Raises:
            ConfigurationError: an exported file.
            MissingExtraError: captum is not installed.
        """
        if not self.explained:
            raise ConfigurationError(f"{self.name}: an exported file has no attribution; serve the weights instead")
        from inceptionnet.data.augment import as_input
        from inceptionnet.explain.files import heat_maps
        from inceptionnet.explain.images import overlay

        with self._explaining:
            if self._copy is None:  # it is given hooks that the engine shall not see
                self._copy = copy.deepcopy(self._classifier.model)
            x = as_input([pixels], self.prep, self._copy.device)
            number = self.classes.index(class_name)
            ((_, _, heat),) = heat_maps(self._copy, x, "gradcam", None, number)
        Image.fromarray(overlay(pixels, heat)).save(into := io.BytesIO(), "PNG")
        coded = base64.b64encode(into.getvalue()).decode()
        return {"method": "gradcam", "class": class_name, "overlay": f"data:image/png;base64,{coded}"}

    def card(self) -> dict[str, Any]:
        """What there is to know about the model, as JSON values."""
        classifier, record = self._classifier, self._classifier.record
        about = {key: value for key, value in classifier.about.items() if isinstance(value, str | int | float | bool)}
        about.pop("file", None)
        return {
            "name": self.name,
            "network": self.network,
            "classes": list(self.classes),
            "activation": classifier.outputs.activation,
            "multi_label": classifier.outputs.multi_label,
            "preprocessing": self.prep.to_dict(),
            **about,
            "embedding": self.embedding_size,
            "attribution": self.explains,
            "provenance": _plain(record.provenance),
            "assumed": classifier.assumed,
        }

    def decision(self, threshold: float | None) -> str:
        """How a threshold decides, in one line; empty without one."""
        return self._classifier.outputs.decision(self.classes, threshold)

    @property
    def activation(self) -> str:
        """What the logits mean."""
        return self._classifier.outputs.activation

    @property
    def assumed(self) -> str:
        """What was assumed about a file of another library, in one line; else empty."""
        return self._classifier.assumed

    def _probe(self) -> int:
        size = self.prep.size_px
        try:
            found = self._classifier.embed(np.zeros((size, size, self.prep.channels), np.uint8))
        except WeightsError:
            return 0
        return len(found)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Provenance without the paths of this machine."""
    return {key: value for key, value in values.items() if not (isinstance(value, str) and value.startswith("/"))}


@cache
def explains() -> bool:
    """Whether heat maps can be computed here. captum, which imports torch, is an extra."""
    from inceptionnet.system.extras import import_extra

    try:
        import_extra("captum", "explain", "attribution")
    except InceptionNetError:
        return False
    return True
