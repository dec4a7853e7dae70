"""An exported file where `evaluate.features` takes a network: for the endpoint `embed`; needs torch."""

from __future__ import annotations

import torch
from torch import Tensor

from inceptionnet.classifier.files import FileBackend
from inceptionnet.nets.edits import Configuration, configure


class FileNetwork:
    """What a table of embeddings asks of a network, answered by an exported file."""

    def __init__(self, backend: FileBackend, configuration: Configuration) -> None:
        self.network, self.device, self._backend = configure(configuration), torch.device("cpu"), backend

    def eval(self) -> FileNetwork:
        """Itself: it has no other mode."""
        return self

    def embed(self, x: Tensor) -> Tensor:
        """As `InceptionNet.embed`. Raises: WeightsError: a file without embeddings."""
        found = self._backend.answer(list(x), embedding=True).embedding
        assert found is not None  # since it was asked for
        return torch.from_numpy(found)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """None: the file gives no endpoints."""
        return {}
