"""Features (embeddings) of images, one row per image, for retrieval and linear probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.augment import normalise
from inceptionnet.data.jobs import Chunk
from inceptionnet.data.loading import Batch, EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.evaluate.answers import names_of
from inceptionnet.evaluate.feature_rows import EMBED, Values, feature_table
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.settings import exact


def feature_shape(
    model: InceptionNet, prep: Preprocessing, endpoint: str = EMBED, *, grid: bool = False
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
    model: InceptionNet,
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


def _output(model: InceptionNet, x: Tensor, endpoint: str) -> Tensor:
    if endpoint == EMBED:
        return model.embed(x)
    for name, module in model.body.named_children():
        x = module(x)
        if name == endpoint:
            break
    return x


def feature_tables(
    model: InceptionNet,
    chunks: Iterable[Chunk],
    prep: Preprocessing,
    endpoint: str = EMBED,
    *,
    schema: Any,
    grid: bool = False,
    classes: Sequence[str] = (),
    batch_size: int = 32,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Iterator[Any]:
    """The rows of images as pyarrow.Tables of `features_schema`, in order.

    An image that cannot be decoded has null for its features, and the reason in `error`.

    Args:
        classes: by label; a label below 0 is written as null, several labels as a;b.
        advance: called after each batch with its number of images.
    """
    for images, splits in chunks:
        loader = EvalLoader(
            images, prep, batch_size=batch_size, workers=workers, corrupt_images="skip", may_be_empty=True
        )
        first = 0
        for batch, values in features(model, loader, prep, endpoint, grid=grid):
            rows = range(first, first + batch.planned)
            first = rows.stop
            reasons = [reason for _, reason in batch.decode_errors]
            labels = names_of(images.labels[rows.start : rows.stop], classes)
            names = [images.names[i] for i in rows]
            yield feature_table(
                schema, names, splits[rows.start : rows.stop], labels,
                (batch.indices - rows.start).numpy(), values, reasons,
            )  # fmt: skip
            advance(batch.planned)
