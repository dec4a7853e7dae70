"""Fréchet inception distance and inception score of whole images, by torchmetrics on this package's networks.

Source: Heusel et al. 2017 (arXiv:1706.08500) and Salimans et al. 2016 (arXiv:1606.03498); published FIDs use the
network `inception_v3.fid`. FID depends on how images are resized, so images are resized as the weights' publisher does
and not rounded to integers: as in TensorFlow 1 for torch-fidelity's file, between pixel centres for pytorch-fid's.
Neither is antialiased, unlike the preprocessing of the other commands; and images are taken as they are stored, without
EXIF rotation and without alpha, as both packages take them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inceptionnet.data.decode import decode_stored
from inceptionnet.data.jobs import Chunk
from inceptionnet.data.preprocess import Interpolation, Preprocessing
from inceptionnet.data.splits import Split
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, InputError, message_of, reason_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.extras import importing_torchmetrics
from inceptionnet.system.files import replacing
from inceptionnet.system.opening import PART_BYTES
from inceptionnet.system.settings import exact
from inceptionnet.system.zips import Zip

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

SCORE_PARTS = 10
Output = Literal["pooled", "logits_unbiased"]
_Read = Tensor | tuple[str, str]  # an image, or its name and why it cannot be decoded


class FidFeatures(nn.Module):
    """A feature extractor for torchmetrics' image metrics: whole images of any size in, pooled features out.

    It uses size, interpolation, mean and std of `prep`; the whole image is resized to a square. "bilinear" is
    pytorch-fid's (between pixel centres, not antialiased), "tf1-bilinear" torch-fidelity's and the original's,
    "bicubic" is antialiased. torchmetrics' own network is antialiased by default, and differs for large images. The
    network is always in evaluation mode.

    Args:
        output: "pooled", for the Fréchet and kernel distances; "logits_unbiased", the logits without their bias, for
            the inception score.

    Shapes: images (N, 3, H, W), uint8 or float in [0, 1] → (N, `num_features`) float.

    Raises:
        ConfigurationError: "logits_unbiased" of a network without classifier.
        InputError: from `forward`, for images of another shape.

    Example:
        >>> from torchmetrics.image.fid import FrechetInceptionDistance
        >>> from inceptionnet import create_model
        >>> network = FidFeatures(create_model("inception_v3.fid", width=0.125), Preprocessing(75, crop=1.0))
        >>> metric = FrechetInceptionDistance(feature=network)
        >>> for real in (True, False):
        ...     metric.update(torch.randint(256, (4, 3, 32, 40), dtype=torch.uint8), real=real)
        >>> network.num_features, metric.compute().shape
        (256, torch.Size([]))
    """

    mean: Tensor
    std: Tensor  # both in pixel values, 0 to 255

    def __init__(self, model: InceptionNet, prep: Preprocessing, output: Output = "pooled") -> None:
        super().__init__()
        self.model = model
        self.prep = prep
        self.output = output
        for name, values in (("mean", prep.mean), ("std", prep.std)):
            self.register_buffer(name, 255 * torch.tensor(values, device=model.device).view(-1, 1, 1), persistent=False)
        if output == "logits_unbiased" and not model.num_classes:
            raise ConfigurationError(f"output {output}: {model.network.name} has no classifier; use pooled")
        self.num_features: int = self(torch.zeros(1, prep.channels, prep.size_px, prep.size_px)).shape[1]

    def forward(self, images: Tensor) -> Tensor:
        """Features of a batch of images."""
        pooled = self.pooled(self.square(images))
        return pooled if self.output == "pooled" else self.logits_unbiased(pooled)

    def square(self, images: Tensor) -> Tensor:
        """Resize images, as float pixel values from 0 to 255. Shapes: (N, C, H, W) → (N, C, size_px, size_px)."""
        if images.dim() != 4 or images.shape[1] != self.prep.channels:
            raise InputError(
                f"expected images of shape (N, {self.prep.channels}, H, W), got {tuple(images.shape)}; stack them"
            )
        pixels = images.float() if images.dtype == torch.uint8 else images.float() * 255
        return _resized(pixels, self.prep.size_px, self.prep.interpolation)

    def pooled(self, squares: Tensor) -> Tensor:
        """Pooled features of images from `square`. Shapes: (N, C, size_px, size_px) → (N, features)."""
        with torch.no_grad(), exact(self.mean.device):
            x = (squares.to(self.mean.device) - self.mean) / self.std
            return self.model.eval().embed(x)

    def logits_unbiased(self, pooled: Tensor) -> Tensor:
        """Logits of pooled features, without the bias. Shapes: (N, C) → (N, classes)."""
        weight = self.model.head.get_submodule("logits").get_parameter("weight")
        return F.linear(pooled, weight.detach())


def _resized(x: Tensor, size_px: int, interpolation: Interpolation) -> Tensor:
    """Shapes: x float (N, C, H, W) → (N, C, size_px, size_px)."""
    if x.shape[2:] == (size_px, size_px):
        return x
    if interpolation != "tf1-bilinear":
        return F.interpolate(x, (size_px, size_px), mode=interpolation, antialias=interpolation == "bicubic")
    for dim in (2, 3):
        side = x.shape[dim]
        at = torch.arange(size_px, device=x.device) * torch.tensor(side / size_px)  # in float32, as TensorFlow
        low = at.long()
        part = (at - low).view((-1, 1) if dim == 2 else (-1,))
        near, far = (x.index_select(dim, i) for i in (low, (low + 1).clamp_max(side - 1)))
        x = torch.lerp(near, far, part)
    return x


@dataclass(frozen=True)
class Measured:
    """One of two sets of images."""

    images: int | None
    """Number of decoded images; None for statistics from a file, which does not hold it."""
    inception_score: tuple[float, float] | None
    """Mean and std over ten splits of the set; None without images or without classifier."""
    decode_errors: tuple[tuple[str, str], ...] = ()
    """(name, reason) of the images that could not be decoded."""
    notes: tuple[str, ...] = ()
    """On files beside them that are ignored."""


class _Given(nn.Module):
    """An identity in place of the network, for a metric that is updated with features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def new_distance(features: FidFeatures) -> FrechetInceptionDistance:
    """The metric, updated with pooled features: the network runs once per image, for the inception score as well."""
    with importing_torchmetrics():
        from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=_Given(features.num_features))


class Side:
    """One of two sets of images, of which pooled features are added to `distance`."""

    def __init__(self, features: FidFeatures, distance: FrechetInceptionDistance, *, real: bool) -> None:
        self.features = features
        self._distance = distance
        self._real = real
        self._images, self._errors, self._logits = 0, list[tuple[str, str]](), list[Tensor]()

    def add(self, pooled: Tensor, errors: Iterable[tuple[str, str]]) -> None:
        """Count images by their features, and those that could not be decoded. Shapes: pooled (N, features)."""
        self._errors += errors
        if len(pooled):
            self._distance.update(pooled.cpu().double(), real=self._real)
            if self.features.model.num_classes:
                self._logits.append(self.features.logits_unbiased(pooled).cpu())
            self._images += len(pooled)

    def measured(self) -> Measured:
        """What was counted, with its inception score. Raises: DataError: fewer than two images."""
        if self._images < 2:
            first = f", such as {self._errors[0][0]} ({self._errors[0][1]})" if self._errors else ""
            why = f", and {len(self._errors)} corrupt{first}" if self._errors else ""
            raise DataError(f"expected at least 2 images, got {self._images}{why}; add images")
        score = inception_score(torch.cat(self._logits)) if self._logits else None
        return Measured(self._images, score, tuple(self._errors))


class FidBatch(NamedTuple):
    """Some images of a split, one after another."""

    names: Sequence[str]
    decoded: npt.NDArray[np.int64]
    """Those of them that have features, ascending."""
    pooled: Tensor
    """Of these. Shapes: (N, features)."""
    errors: Sequence[tuple[str, str]]
    """(name, reason) of the others."""


def fid_batches(features: FidFeatures, images: Split, *, batch_size: int, workers: int) -> Iterator[FidBatch]:
    """The features of images, in order.

    Args:
        workers: threads that read, decode and resize images.
    """
    first = 0
    for batch in _batches(partial(_read, images, features), len(images), batch_size, workers):
        good = [one for one in batch if isinstance(one, Tensor)]
        pooled = features.pooled(torch.cat(good)) if good else torch.empty(0, features.num_features)
        decoded = np.flatnonzero([isinstance(one, Tensor) for one in batch])
        errors = [one for one in batch if isinstance(one, tuple)]
        yield FidBatch(images.names[first : first + len(batch)], decoded, pooled, errors)
        first += len(batch)


def measure(
    features: FidFeatures,
    chunks: Iterable[Chunk],
    distance: FrechetInceptionDistance,
    *,
    real: bool,
    batch_size: int,
    workers: int,
    advance: Callable[[int], None] = lambda images: None,
) -> Measured:
    """Add a set of images to one side of `distance`, and compute its inception score.

    Args:
        workers: threads that read, decode and resize images.
        advance: called after each batch with its number of images.

    Raises:
        DataError: fewer than two images that can be decoded.
    """
    side = Side(features, distance, real=real)
    for images, _ in chunks:
        for batch in fid_batches(features, images, batch_size=batch_size, workers=workers):
            side.add(batch.pooled, batch.errors)
            advance(len(batch.names))
    return side.measured()


def _read(split: Split, features: FidFeatures, position: int) -> _Read:
    name, channels = split.names[position], features.prep.channels
    try:
        pixels = np.array(decode_stored(split.read(position), channels=channels, name=name))
    except DecodeError as error:
        return name, reason_of(error, name)
    return features.square(torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)[None])


def _batches(read: Callable[[int], _Read], count: int, batch_size: int, workers: int) -> Iterator[list[_Read]]:
    """`read(position)` of each position, in order; one batch is read while the previous one is processed.

    In threads: decoding and resizing release the GIL, and float images are costly to send between processes.
    """
    ranges = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead = pool.map(read, ranges[0])
        for following in [*ranges[1:], range(0)]:
            batch, ahead = list(ahead), pool.map(read, following)
            yield batch


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and sample std of the score over ten random splits of the images, with a fixed seed.

    Shapes: logits (N, classes), without bias, N at least 2.
    """
    with importing_torchmetrics():
        from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():  # that it keeps all logits: 4 bytes per class, less than an image
        warnings.filterwarnings("ignore", "Metric `InceptionScore` will save", UserWarning)
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=SCORE_PARTS)
    metric.update(logits.double())
    with torch.random.fork_rng(devices=()):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        mean, std = metric.compute()
    return float(mean), float(std)


def load_statistics(path: Path, distance: FrechetInceptionDistance, *, real: bool) -> Measured:
    """Load one side of `distance` from an .npz of pytorch-fid or of the original: mean `mu` and covariance `sigma`.

    Raises:
        DataError: no such file, or statistics of another number of features.
    """
    side = "real" if real else "fake"
    length = len(getattr(distance, f"{side}_features_sum"))
    try:
        with Zip(path) as archive:
            if (held := max((one.file_size for one in archive.infolist()), default=0)) > PART_BYTES:
                raise ValueError(f"an array of {held} bytes, more than the limit of {PART_BYTES}")
        with np.load(path) as file:
            mean, covariance = (torch.from_numpy(np.asarray(file[key], np.float64)) for key in ("mu", "sigma"))
    except Exception as error:  # numpy raises many types for damaged files
        raise DataError(
            f"{path}: expected an .npz with mu and sigma, got {message_of(error)}; compute it again"
        ) from None
    if mean.shape != (length,) or covariance.shape != (length, length):
        got = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise DataError(f"{path}: expected mu ({length},) and sigma ({length}, {length}), got {got}; compute it again")
    distance.update(mean.new_empty(0, length), real=real)
    # As if of two images: the distance does not depend on their number.
    setattr(distance, f"{side}_features_sum", 2 * mean)
    setattr(distance, f"{side}_features_cov_sum", covariance + 2 * torch.outer(mean, mean))
    setattr(distance, f"{side}_features_num_samples", torch.tensor(2))
    return Measured(None, None)


def save_statistics(path: Path, distance: FrechetInceptionDistance) -> None:
    """Write the real side's mean `mu` and covariance `sigma` as pytorch-fid does.

    Raises:
        ConfigurationError: the file cannot be written; an existing file is unchanged.
    """
    count = distance.real_features_num_samples
    mean = distance.real_features_sum / count
    covariance = (distance.real_features_cov_sum - count * torch.outer(mean, mean)) / (count - 1)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, mu=mean.numpy(), sigma=covariance.numpy())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; choose another file") from None
