"""The features of FID in parts, which several processes write and a killed job resumes, and the distance from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inceptionnet.data.jobs import Chunk, Job, write_job
from inceptionnet.evaluate.feature_rows import feature_table, features_schema
from inceptionnet.evaluate.fid import FidFeatures, Measured, Side, fid_batches
from inceptionnet.system.distributed import World
from inceptionnet.system.parts import ERROR, Advance, read_parts

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance


def write_fid_features(
    features: FidFeatures,
    job: Job,
    out: Path,
    about: Mapping[str, Any],
    *,
    batch_size: int,
    workers: int,
    world: World,
    title: str,
) -> None:
    """Write the features of images into a folder, in the form of `features_schema`. All processes must call it.

    Raises: as `write_job`.
    """
    schema = features_schema((features.num_features,), {key: about[key] for key in ("network", "weights")})

    def tables(chunks: Iterable[Chunk], advance: Advance) -> Iterator[Any]:
        for images, splits in chunks:
            first = 0
            for batch in fid_batches(features, images, batch_size=batch_size, workers=workers):
                stop = first + len(batch.names)
                reasons = [reason for _, reason in batch.errors]
                yield feature_table(
                    schema, batch.names, splits[first:stop], [None] * len(batch.names),
                    batch.decoded, batch.pooled.cpu().numpy(), reasons,
                )  # fmt: skip
                advance(len(batch.names))
                first = stop

    write_job(job, out, about, schema, tables, world, title=title)


def measure_parts(features: FidFeatures, folder: Path, distance: FrechetInceptionDistance, *, real: bool) -> Measured:
    """Add the images of a folder of `write_fid_features` to one side of `distance`, part after part.

    Raises:
        DataError: fewer than two images that can be decoded, or a part that is damaged.
    """
    side = Side(features, distance, real=real)
    for table in read_parts(folder):
        good, bad = table.filter(table[ERROR].is_null()), table.filter(table[ERROR].is_valid())
        values = good["features"].combine_chunks().values.to_numpy() if good.num_rows else np.empty(0, np.float32)
        pooled = torch.from_numpy(values.reshape(good.num_rows, features.num_features).copy())
        side.add(pooled, zip(bad["image"].to_pylist(), bad[ERROR].to_pylist(), strict=True))
    return side.measured()
