"""A classifier's answers for any number of images, in parts that several processes write and a killed job resumes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

import inceptionnet
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.images import Item, Seen, Values, decoded
from inceptionnet.data.jobs import Chunk, Job, write_job
from inceptionnet.data.splits import Split
from inceptionnet.errors import ConfigurationError
from inceptionnet.evaluate.answers import answer_columns, answer_names, answers_schema, answers_table, names_of
from inceptionnet.evaluate.feature_rows import EMBED, feature_table, features_schema
from inceptionnet.system.distributed import World
from inceptionnet.system.opening import opened
from inceptionnet.system.parts import Advance, Totals

if TYPE_CHECKING:
    from torch import Tensor

    from inceptionnet.classifier.classifier import Classifier
    from inceptionnet.data.bands import Pixels
    from inceptionnet.data.preprocess import Preprocessing

IN_ADVANCE = 64
"""Images that are decoded, or being so, before the network asks for them."""
_READ_BYTES = 2**24


def fingerprint(classifier: Classifier) -> str:
    """A hash of the weights and class names, wherever they came from; of an exported file, of its bytes."""
    digest = hashlib.sha256("\0".join(classifier.classes).encode(errors="surrogateescape"))
    if classifier.run.model is not None:
        for name, tensor in sorted(classifier.run.model.state_dict().items()):
            values = tensor.detach().cpu().contiguous()
            digest.update(f"\1{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.numpy().tobytes())
        return digest.hexdigest()[:16]
    path = Path(classifier.source)
    for file in (path, path.with_suffix(".bin"), path.with_name(f"{path.name}.data")):
        if file == path or file.is_file():
            with opened(file) as data:
                while piece := data.read(_READ_BYTES):
                    digest.update(piece)
    return digest.hexdigest()[:16]


def described(classifier: Classifier, job: Job, **options: Any) -> dict[str, Any]:
    """What the answers depend on, as plain JSON: another one of these is another job."""
    return {
        "network": classifier.record.configuration.name,
        "weights": fingerprint(classifier),
        "preprocessing": classifier.preprocessing.to_dict(),
        **{key: classifier.about[key] for key in ("engine", "precision")},
        **options,
        **job.about(),
        "inceptionnet": inceptionnet.__version__,
    }


def predict_in_parts(
    classifier: Classifier,
    job: Job,
    out: Path,
    *,
    top: int = 5,
    threshold: float | None = None,
    batch_size: int = 16,
    threads: int = 1,
    world: World,
) -> tuple[Totals, dict[str, Any]]:
    """Write a row for each image: image, split, label, class_1, probability_1 …, error. All processes must call it.

    Args:
        out: a folder for parts, or for a single process a file that ends in .parquet.
        threads: that decode images.

    Returns: what was written, and what it depends on, as plain JSON.

    Raises: as `write_job` and `Classifier.stream`.
    """
    classifier.check_probabilities()
    outputs, classes = classifier.outputs, classifier.classes
    least = classifier.threshold(threshold)
    names = answer_names(classes, top=top, multi_label=outputs.multi_label)
    about = described(classifier, job, answers="predictions", top=top, threshold=least, activation=outputs.activation)
    schema = answers_schema(names, {b"weights": classifier.source.encode(errors="backslashreplace")})

    def tables(chunks: Iterable[Chunk], advance: Advance) -> Iterator[Any]:
        for batch in _batches(chunks, job.source.classes, classifier.preprocessing, batch_size, threads):
            predictions = list(classifier.stream(batch.items, top, threshold=threshold, batch_size=batch_size))
            columns = answer_columns(predictions, classes, top=top, multi_label=outputs.multi_label)
            yield answers_table(schema, batch.names, batch.splits, batch.labels, columns)
            advance(len(predictions))

    return write_job(job, out, about, schema, tables, world, title="predicting"), about


@dataclass(frozen=True)
class _Decoded:
    """What `Classifier.stream` asks of an Item, of an image that a thread decodes."""

    name: str
    pixels: Future[Pixels]

    def seen(self, prep: Preprocessing) -> Pixels:
        """As of an Item."""
        return self.pixels.result()


class _Batch(NamedTuple):
    """Images that are decoded together, and what is known of each."""

    names: Sequence[str]
    splits: Sequence[str]
    labels: Sequence[str | None]
    items: Sequence[Item]


def _batches(
    chunks: Iterable[Chunk], classes: Sequence[str], prep: Preprocessing, batch_size: int, threads: int
) -> Iterator[_Batch]:
    """The images of all chunks, in order, while threads decode the next ones."""
    with ThreadPoolExecutor(threads) as pool:
        for images, splits in chunks:
            items = cast(Sequence[Item], _Decoding(images, prep, pool))
            labels = names_of(images.labels, classes)
            for start in range(0, len(images), batch_size):
                rows = slice(start, start + batch_size)
                yield _Batch(images.names[rows], splits[rows], labels[rows], items[rows])


class _Decoding:
    """The images of a split, which are taken in order, and decoded by threads some time before."""

    def __init__(self, images: Split, prep: Preprocessing, pool: ThreadPoolExecutor) -> None:
        self._images, self._prep, self._pool = images, prep, pool
        self._begun, self._waiting = 0, deque[_Decoded]()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice) -> list[_Decoded]:
        start, stop, _ = rows.indices(len(self))
        for position in range(self._begun, min(stop + IN_ADVANCE, len(self))):
            self._waiting.append(_Decoded(self._images.names[position], self._pool.submit(self._pixels, position)))
            self._begun = position + 1
        return [self._waiting.popleft() for _ in range(start, stop)]

    def _pixels(self, position: int) -> Pixels:
        return pixels_of(self._images.read(position), self._prep, self._images.names[position])


def features_in_parts(
    classifier: Classifier,
    job: Job,
    out: Path,
    *,
    endpoint: str = EMBED,
    grid: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    world: World,
) -> tuple[Totals, dict[str, Any]]:
    """Write a row for each image: image, split, label, features, error. All processes must call it.

    Args:
        out: a folder for parts, or for a single process a file that ends in .parquet.
        workers: processes that decode images; threads, of an exported file, for which torch is not needed.

    Returns: what was written, and the schema's metadata: network, endpoint, shape, weights, preprocessing.

    Raises: as `write_job` and `feature_shape`. ConfigurationError: of an exported file something else than `embed`.
    """
    exported = classifier.run.model is None
    shape = (_of_file if exported else _of_network)(classifier, endpoint, grid)
    about = described(classifier, job, answers="features", endpoint=endpoint, shape=shape)
    said = {
        "network": about["network"],
        "endpoint": endpoint,
        "shape": shape,
        "weights": classifier.source,
        "preprocessing": about["preprocessing"],
        "inceptionnet": about["inceptionnet"],
    }
    schema = features_schema(shape, said)

    def tables(chunks: Iterable[Chunk], advance: Advance) -> Iterator[Any]:
        if exported:
            return _embeddings(classifier, chunks, schema, job.source.classes, batch_size, max(1, workers), advance)
        from inceptionnet.evaluate.features import feature_tables

        return feature_tables(
            classifier.model, chunks, classifier.preprocessing, endpoint, schema=schema, grid=grid,
            classes=job.source.classes, batch_size=batch_size, workers=workers, advance=advance,
        )  # fmt: skip

    return write_job(job, out, about, schema, tables, world, title="features"), said


def _of_network(classifier: Classifier, endpoint: str, grid: bool) -> tuple[int, ...]:
    from inceptionnet.evaluate.features import feature_shape

    return feature_shape(classifier.model, classifier.preprocessing, endpoint, grid=grid)


def _of_file(classifier: Classifier, endpoint: str, grid: bool) -> tuple[int, ...]:
    """The shape of an exported file's embeddings, which are all that it gives."""
    if endpoint != EMBED or grid:
        asked = f"endpoint {endpoint}" if endpoint != EMBED else "the grid"
        raise ConfigurationError(
            f"{classifier.source}: {asked}: an exported file gives only {EMBED}, which is pooled; name the weights "
            "that it was made from"
        )
    prep = classifier.preprocessing
    black = np.zeros((prep.size_px, prep.size_px, prep.channels), np.uint8)
    return _embedded(classifier, [black]).shape[1:]


def _embedded(classifier: Classifier, seen: Sequence[Seen | Tensor]) -> Values:
    found = classifier.answer(seen, embedding=True).embedding
    assert found is not None  # since it was asked for
    return found


def _embeddings(
    classifier: Classifier,
    chunks: Iterable[Chunk],
    schema: Any,
    classes: Sequence[str],
    batch_size: int,
    threads: int,
    advance: Advance,
) -> Iterator[Any]:
    """As `evaluate.features.feature_tables`, by an exported file."""
    prep = classifier.preprocessing
    for batch in _batches(chunks, classes, prep, batch_size, threads):
        seen, errors = decoded(batch.items, prep)
        good = np.array([position for position in range(len(batch.items)) if position not in errors], np.int64)
        yield feature_table(
            schema, batch.names, batch.splits, batch.labels, good, _embedded(classifier, seen), list(errors.values())
        )
        advance(len(batch.items))
