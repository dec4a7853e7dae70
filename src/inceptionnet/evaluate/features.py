"""Features (embeddings) of images, one row per image, for retrieval and linear probes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.loading import Batch, EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.spec import Network
from inceptionnet.system.extras import import_extra
from inceptionnet.system.files import as_text, replacing
from inceptionnet.system.settings import exact

EMBED = "embed"
"""The pooled features before the classifier, `InceptionNet.embed`."""
GROUP_BYTES = 2**25
"""Features are written in row groups of about this size, so that no more of them are held."""

Values = npt.NDArray[np.float32]


class Embedder(Protocol):
    """An `InceptionNet`, or what embeds in its place and has no endpoints."""

    @property
    def network(self) -> Network:
        """What it is or was built from."""

    @property
    def device(self) -> torch.device:
        """Where it takes images."""

    def eval(self) -> Embedder:
        """Itself, in evaluation mode."""

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features. Shapes: (N, C, H, W) → (N, C)."""

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every endpoint, by name."""


def feature_shape(
    model: Embedder, prep: Preprocessing, endpoint: str = EMBED, *, grid: bool = False
) -> tuple[int, ...]:
    """The shape of one image's features: (C,), or (C, H, W) with `grid`.

    Raises:
        ConfigurationError: the network has no such endpoint, or `grid` with an endpoint that is pooled already.
        InputError: the image size of `prep` is too small for the network.
    """
    nothing = torch.zeros(1, prep.channels, prep.size_px, prep.size_px, device=model.device)
    with torch.inference_mode():
        found = {EMBED: model.eval().embed(nothing), **model.features(nothing)}
    if endpoint not in found:
        raise ConfigurationError(
            f"endpoint {endpoint!r}: expected {EMBED} or one of {model.network.name}; {nearest(endpoint, found)}"
        )
    shape = tuple(found[endpoint].shape[1:])
    if grid and len(shape) == 1:
        raise ConfigurationError(
            f"endpoint {endpoint} is pooled and has no grid; choose another endpoint, or do not ask for the grid"
        )
    return shape if grid else shape[:1]


def features(
    model: Embedder,
    loader: EvalLoader,
    prep: Preprocessing,
    endpoint: str = EMBED,
    *,
    grid: bool = False,
) -> Iterator[tuple[Batch, Values]]:
    """Yield each batch of a loader with the features of its images.

    Args:
        endpoint: `embed`, or a name of `InceptionNet.features`; the network runs only up to it.
        grid: the whole feature map; else its spatial mean.

    Shapes: → (N, C), or (N, C, H, W) with `grid`; `feature_shape` checks both arguments.
    """
    model.eval()
    with torch.inference_mode():
        for batch in loader:
            with exact(model.device):
                x = _output(model, normalise(batch.images.to(model.device, non_blocking=True), prep), endpoint)
            x = x if grid or x.dim() == 2 else x.mean((2, 3))
            yield batch, x.float().cpu().numpy()


def _output(model: Embedder, x: Tensor, endpoint: str) -> Tensor:
    if endpoint == EMBED:
        return model.embed(x)
    assert isinstance(model, InceptionNet)  # another has no endpoints
    for name, module in model.body.named_children():
        x = module(x)
        if name == endpoint:
            break
    return x


def check_file(path: Path) -> None:
    """Raises: ConfigurationError for a file that does not end in .parquet; MissingExtraError without pyarrow."""
    if path.suffix != ".parquet":
        raise ConfigurationError(f"--out {path}: expected a file ending in .parquet")
    import_extra("pyarrow.parquet", "parquet", f"writing {path}")


def write_features(
    path: Path,
    batches: Iterator[tuple[Batch, Values]],
    shape: Sequence[int],
    *,
    names: Sequence[str],
    splits: Sequence[str],
    classes: Sequence[str],
    about: Mapping[str, Any],
    advance: Callable[[int], None] = lambda images: None,
) -> tuple[int, list[tuple[str, str]]]:
    """Write a row for each image that can be decoded: image, split, label, features (flat, float32).

    Args:
        shape: of one image's features, from `feature_shape`.
        names, splits: of every image, by position.
        classes: by label; a label below 0 is written as null, several labels as a;b.
        about: metadata of the file's schema, each value as JSON.
        advance: called after each batch with its number of images.

    Returns: the number of rows, and (name, reason) of each decode error.

    Raises:
        ConfigurationError: the file cannot be written; an existing file is unchanged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    length = int(np.prod(shape))
    text = [pa.field(name, pa.string()) for name in ("image", "split", "label")]
    schema = pa.schema(
        [*text, pa.field("features", pa.list_(pa.float32(), length))],
        {key: json.dumps(value) for key, value in about.items()},
    )
    held: list[Any] = []  # tables
    rows, errors = 0, list[tuple[str, str]]()
    try:
        with (
            replacing(path) as temporary,
            pq.ParquetWriter(temporary, schema, use_dictionary=["split", "label"]) as file,
        ):
            for batch, values in batches:
                at = batch.indices.tolist()
                flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), length)
                columns = [
                    pa.array([as_text(names[i]) for i in at], pa.string()),
                    pa.array([splits[i] for i in at], pa.string()),
                    pa.array(_names_of(batch.labels, classes), pa.string()),
                    flat,
                ]
                held.append(pa.Table.from_arrays(columns, schema=schema))
                if sum(table.nbytes for table in held) >= GROUP_BYTES:
                    file.write_table(pa.concat_tables(held))
                    held.clear()
                rows, errors = rows + len(batch), errors + list(batch.decode_errors)
                advance(len(batch) + len(batch.decode_errors))
            if held:
                file.write_table(pa.concat_tables(held))
    except OSError as error:
        raise ConfigurationError(
            f"--out {path}: cannot be written: {error.strerror or error}; choose another file"
        ) from None
    return rows, errors


def _names_of(labels: Tensor, classes: Sequence[str]) -> list[str | None]:
    """The class of each image, several with ; between them; None without label."""
    if labels.dim() == 2:
        return [";".join(name for name, held in zip(classes, row, strict=True) if held) for row in labels.tolist()]
    return [classes[label] if label >= 0 else None for label in labels.tolist()]
