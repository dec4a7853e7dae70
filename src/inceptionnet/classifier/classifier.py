"""`Classifier`: what answers a question about an image; torch is imported only for what needs a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from inceptionnet.classifier.base import Answers, Backend, Options, check_classes
from inceptionnet.classifier.files import graph_backend
from inceptionnet.data.images import (
    ImageLike,
    Item,
    Seen,
    Transform,
    Values,
    decoded,
    is_pixels,
    listed_images,
    together,
)
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError, DecodeError, WeightsError
from inceptionnet.evaluate.prediction import Prediction, predictions_of
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.extras import needing_torch
from inceptionnet.weights.record import Record

if TYPE_CHECKING:
    from torch import Tensor

    from inceptionnet.engines.export import Exported
    from inceptionnet.evaluate.metrics import Metrics
    from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics
    from inceptionnet.model.network import InceptionNet
    from inceptionnet.weights import WeightsFile

MEMORY = "memory"


@dataclass(frozen=True)
class HeatMap:
    """The evidence for a class in one image."""

    label: str
    probability: float
    """Of that class."""
    values: Tensor
    """(size_px, size_px) in [0, 1], of the crop that the network sees; 0 everywhere if nothing raises the logit."""
    image: Image.Image
    """The crop, and beside it the map over it."""


class Classifier:
    """A network with its weights, classes, preprocessing and engine; made by `inceptionnet.load` and `fit`.

    Wherever an image is taken, these are: a path, encoded bytes, a PIL image, a uint8 array (H, W, C) or tensor
    (C, H, W), a float tensor or array (C, H, W) that `preprocess` or the like made; or a list or batch of them, a
    folder, a glob pattern, a .zip or a .parquet file, for which the answer is a list, or has a first axis N. Nothing is
    fetched.

    An exported .onnx or .xml file predicts and embeds without torch, which is not imported: `logits`, `embed` and
    `preprocess` give NumPy arrays where those of a network give tensors, and so do they for a .pt2 file. What needs the
    network itself (features, explain, save, export) is refused.

    Prediction is safe in several threads at once, and a classifier can be pickled: with its weights, or, of an
    exported file, with its path.
    """

    def __init__(self, backend: Backend, record: Record, options: Options, source: str, assumed: str) -> None:
        self.run = backend
        self._options = options
        self.record = record
        self.source = source
        """What it was loaded from; empty for a network in memory."""
        self.assumed = assumed
        """What was assumed about a file of another library, in one line; else empty."""

    def __repr__(self) -> str:
        about, count = self.run.about, len(self.classes)
        what = f"{count} classes" if count else "no classifier"
        size_px, source = self.preprocessing.size_px, f", from {self.source}" if self.source else ""
        name, by = self.record.configuration.title, f"{about['engine']} {about['precision']} on {about['device']}"
        return f"Classifier({name}, {what}, {size_px} px, {by}{source})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits, or of the two classes of a single logit; none without a classifier."""
        return self.record.classes

    @property
    def outputs(self) -> Outputs:
        """What the logits mean."""
        return self.record.outputs

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become input: size, crop, interpolation, mean and std."""
        return self.record.preprocessing

    @property
    def preprocess(self) -> Transform:
        """The preprocessing as a transform: from a PIL image to a tensor, or array, (C, size_px, size_px)."""
        return Transform(self.preprocessing, as_array=self.run.model is None)

    @property
    def about(self) -> dict[str, Any]:
        """The engine, its precision and device, and why it was chosen."""
        return dict(self.run.about)

    @property
    def model(self) -> InceptionNet:
        """The network. Raises: WeightsError: it is an exported file, which has none."""
        if self.run.model is None:
            raise WeightsError(
                f"{self.source}: an exported file gives logits and embeddings only; load the weights it was made from"
            )
        return self.run.model

    def __call__(self, batch: Any) -> dict[str, Any]:
        """`columns(batch)`: as map_batches of Ray Data, map of datasets and predict_batch_udf of Spark call it."""
        return self.columns(batch)

    def columns(
        self,
        batch: Any,
        *,
        image: str | None = None,
        top: int = 1,
        threshold: float | None = None,
        batch_size: int = 16,
    ) -> dict[str, Any]:
        """The answers for a batch of columns.

        Of a mapping from names to columns, the other columns are returned too. The answers are class_1, probability_1
        and so on up to `top`, and error; with several labels an image labels, probability_NAME of each, and error. A
        corrupt image has its reason in error, which is empty otherwise, and the others go on. See docs/batch.md.

        Args:
            batch: a mapping with a column of images, or an array or list of images. An image is encoded bytes, a path,
                a PIL image, an array, or {"bytes": …, "path": …}.
            image: the column of images. Default: image, img, bytes or content.
            top, threshold: as for `predict`.

        Shapes: each column (N,); arrays where the images are in an array, else lists.

        Raises:
            InputError: no such column, or something in it is no image.
        """
        from inceptionnet.classifier.columns import answer

        return answer(self, batch, image=image, top=top, threshold=threshold, batch_size=batch_size)

    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        top: int = 5,
        *,
        threshold: float | None = None,
        batch_size: int = 16,
        skip_errors: bool = False,
    ) -> Prediction | list[Prediction]:
        """The `top` most probable classes of each image, or its labels, with their probabilities.

        Args:
            threshold: probability from which a label is predicted, or of two classes the second. Default: 0.5 for
                sigmoid; for softmax the most probable class is predicted.
            skip_errors: an image that cannot be decoded gets a `Prediction` with its `error`, and the others go on.

        Raises:
            DecodeError: an image cannot be decoded.
            InputError: what is no image.
            ConfigurationError: a threshold that cannot be used, or softmax of a single logit.
            WeightsError: the network has no classifier.
        """
        items, single = listed_images(images)
        found = list(self.stream(items, top, threshold=threshold, batch_size=batch_size))
        if not skip_errors and (bad := [one for one in found if one.error]):
            raise DecodeError(f"{bad[0].file}: {bad[0].error}")
        return found[0] if single else found

    def stream(
        self, items: Sequence[Item], top: int = 5, *, threshold: float | None = None, batch_size: int = 16
    ) -> Iterator[Prediction]:
        """Predictions as they come; an image that cannot be decoded gets one with its `error`."""
        self.check_probabilities()
        least = self.threshold(threshold)
        for batch in _batches(items, batch_size):
            seen, errors = decoded(batch, self.preprocessing)
            logits = self.answer(seen).logits
            files = [item.name for position, item in enumerate(batch) if position not in errors]
            answers = iter(predictions_of(files, logits, self.classes, self.outputs, top, least))
            for position, item in enumerate(batch):
                error = errors.get(position, "")
                yield Prediction(item.name, error=error) if error else next(answers)

    def logits(self, images: ImageLike | Sequence[ImageLike], *, batch_size: int = 16) -> Any:
        """The logits: a tensor on the CPU, of an exported file an array.

        Shapes: → float32 (classes,) of a single image, else (N, classes). Raises: as `predict`.
        """
        self.check_classes()
        return self._each(images, lambda seen: self.answer(seen).logits, batch_size)

    def embed(self, images: ImageLike | Sequence[ImageLike], *, batch_size: int = 16) -> Any:
        """The pooled features before the classifier: a tensor on the CPU, of an exported file an array.

        Shapes: → float32 (C,) of a single image, else (N, C).

        Raises:
            DecodeError, InputError: as `predict`.
            WeightsError: an exported file without that output: a .pt2 file, or one of an older version.
        """
        return self._each(images, self._embedded, batch_size)

    def answer(self, seen: Sequence[Seen | Tensor], *, embedding: bool = False) -> Answers:
        """Logits, and embeddings if they are asked for, of what the network sees of images, in one batch, as arrays.

        Logits and embeddings together are computed by the network itself, whatever its engine is.

        Shapes: each uint8 (size_px, size_px, C), decoded and cropped; float32 (C, H, W) of what is preprocessed.

        Raises:
            InputError: preprocessed images of different sizes, or of one that an exported file does not take.
            WeightsError: embeddings of an exported file without that output.
        """
        if not seen:
            nothing = np.empty((0, self.outputs.logits), np.float32)
            return Answers(nothing, np.empty((0, 0), np.float32) if embedding else None)
        return self.run.answer(seen, embedding=embedding)

    def features(self, images: ImageLike | Sequence[ImageLike]) -> dict[str, Tensor]:
        """The output of every endpoint by name, on the CPU, of all images in one batch.

        Shapes: → {name: (C, H, W)} of a single image, else {name: (N, C, H, W)}.
        """
        model = self.model
        from torch import inference_mode

        from inceptionnet.system.settings import exact

        items, single = listed_images(images)
        seen = [item.seen(self.preprocessing) for item in items]
        with inference_mode(), exact(model.device):
            found = model.features(together(seen, self.preprocessing, model.device))
        return {name: (grid[0] if single else grid).float().cpu() for name, grid in found.items()}

    def evaluate(self, data: str | Path, **options: Any) -> Metrics | MultiLabelMetrics:
        """Accuracy and more on labelled images; the options are those of `classifier.evaluate_together`.

        Under torchrun every process takes its share, and every process gets the whole.
        """
        with needing_torch("evaluating"):
            from inceptionnet.classifier.evaluating import evaluate_together

        return evaluate_together([self], data, **options).metrics

    def explain(
        self, image: ImageLike, class_name: str | None = None, *, method: str = "gradcam", layer: str | None = None
    ) -> HeatMap:
        """The evidence for a class in an image, by captum, as a heat map.

        Args:
            class_name: name or number. Default: the predicted class.
            method, layer: as for `explain.attribute`.

        Raises:
            ConfigurationError: an unknown class, method or layer, or several images.
            MissingExtraError: captum is not installed.
        """
        self.check_probabilities()
        model = copy.deepcopy(self.model)  # it is given hooks and gradients, which predictions beside it shall not see
        from inceptionnet.data.augment import as_input
        from inceptionnet.explain.files import class_number, heat_maps
        from inceptionnet.explain.images import sheet

        items, _ = listed_images(image)
        if len(items) != 1:
            raise ConfigurationError(f"expected one image to explain, got {len(items)}; call explain for each")
        target = None if class_name is None else class_number(class_name, self.classes)
        pixels = items[0].seen(self.preprocessing)
        if not is_pixels(pixels):
            raise ConfigurationError("expected an image to explain, got a preprocessed tensor; give the image itself")
        x = as_input([pixels], self.preprocessing, model.device)
        ((probabilities, number, values),) = heat_maps(model, x, method, layer, target)
        probability = float(probabilities[number])
        drawn = sheet(pixels, values, f"{self.classes[number]} {probability:.1%}", method)
        return HeatMap(self.classes[number], probability, values, drawn)

    def export(self, path: str | Path, **options: Any) -> Exported:
        """Write the network as .onnx, OpenVINO's .xml, .pt2 or .safetensors, compared with it; see `engines.export`."""
        read = self._as_file()
        from inceptionnet.engines.export import export

        return export(read, path, **options)

    def save(self, path: str | Path) -> None:
        """Write the weights as .safetensors, with classes and preprocessing. Raises: WeightsError."""
        model, record = self.model, self.record
        from inceptionnet.weights import save_weights

        save_weights(
            model, path, classes=record.classes, preprocessing=record.preprocessing, provenance=record.provenance
        )

    def check_classes(self) -> None:
        """Raises: WeightsError: the network has no classifier."""
        check_classes(self.classes, self.source)

    def check_probabilities(self) -> None:
        """Raises: WeightsError as `check_classes`; ConfigurationError: softmax of a single logit."""
        self.check_classes()
        self.outputs.check(self.source or "the network")

    def threshold(self, stated: float | None = None) -> float | None:
        """The threshold of a prediction for which this one is stated. Raises: ConfigurationError: it cannot be used."""
        return self.outputs.threshold(stated, self.source or "the network")

    def _embedded(self, seen: Sequence[Seen | Tensor]) -> Values:
        embedding = self.answer(seen, embedding=True).embedding
        assert embedding is not None  # since it was asked for
        return embedding

    def _each(
        self,
        images: ImageLike | Sequence[ImageLike],
        run: Callable[[Sequence[Seen | Tensor]], Values],
        batch_size: int,
    ) -> Any:
        items, single = listed_images(images)
        found = [run([item.seen(self.preprocessing) for item in batch]) for batch in _batches(items, batch_size)]
        joined = np.concatenate(found) if found else np.empty((0, len(self.classes)), np.float32)
        return self.run.given(joined[0] if single else joined)

    def _as_file(self) -> WeightsFile:
        """The classifier as a weights file that was opened."""
        name, state = self.record.configuration.name, self.model.state_dict()
        from inceptionnet.weights import Report, WeightsFile

        tensors = {key: tensor.detach().cpu() for key, tensor in state.items()}
        source = self.source or MEMORY
        report = Report(source, MEMORY, "inceptionnet", name, (), len(tensors), {}, {}, (), MEMORY, MEMORY)
        return WeightsFile(Path(source), self.record, tensors, report)

    def __reduce__(self) -> tuple[Callable[..., Classifier], tuple[Any, ...]]:
        model = self.run.model
        kept = None if model is None else copy.deepcopy(model).cpu()
        return _unpickled, (kept, self.record, self._options, self.source, self.assumed)


def _unpickled(model: InceptionNet | None, record: Record, options: Options, source: str, assumed: str) -> Classifier:
    if model is None:
        backend: Backend = graph_backend(Path(source), options)[0]
    else:
        from inceptionnet.classifier.backends import network_backend

        backend = network_backend(model, record.preprocessing, options)
    return Classifier(backend, record, options, source, assumed)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
