"""Fréchet inception distance and inception score of whole images, by torchmetrics on this package's networks.

Source: Heusel et al. 2017 (arXiv:1706.08500) and Salimans et al. 2016 (arXiv:1606.03498); the network of published
figures is `inception_v3.fid`. They depend on how images are resized, so that is done as by whoever published the
weights, and not rounded to grey values: as TensorFlow 1 does for torch-fidelity's file, between pixel centres for
pytorch-fid's. Neither smooths what it shrinks, which the preprocessing of other commands does.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inceptionnet.data.decode import decode
from inceptionnet.data.preprocess import Interpolation, Preprocessing
from inceptionnet.data.splits import Split
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, InputError
from inceptionnet.files import replacing
from inceptionnet.model import InceptionNet

if TYPE_CHECKING:
    from torchmetrics.image.fid import FrechetInceptionDistance

SCORE_PARTS = 10
Output = Literal["pooled", "logits_unbiased"]
_Read = Tensor | tuple[str, str]  # an image, or its name and why there is none


class FidFeatures(nn.Module):
    """A network as torchmetrics' image metrics take it: whole images of any size in, pooled features out.

    Of `prep` it uses size, interpolation, mean and deviation: a metric sees the whole image, made square. "bilinear"
    is pytorch-fid's (between pixel centres, not smoothed), "tf1-bilinear" torch-fidelity's and the original's,
    "bicubic" smooths. torchmetrics' own network smooths by default, and so gives other figures for large images.
    The network is always in evaluation mode.

    Args:
        output: "pooled", for the Fréchet and kernel distances; "logits_unbiased", the logits without their bias, which
            the inception score is computed from.

    Shapes: images (N, 3, H, W), uint8 or float in [0, 1] → (N, `num_features`) float.

    Raises:
        ConfigurationError: an output that the network does not have.
        InputError: from `forward`, for other than such images.

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
    std: Tensor  # both in grey values

    def __init__(self, model: InceptionNet, prep: Preprocessing, output: Output = "pooled") -> None:
        super().__init__()
        self.model, self.prep, self.output = model, prep, output
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
        """Images as float grey values from 0 to 255, resized. Shapes: (N, C, H, W) → (N, C, size_px, size_px)."""
        if images.dim() != 4 or images.shape[1] != self.prep.channels:
            raise InputError(
                f"expected images of shape (N, {self.prep.channels}, H, W), got {tuple(images.shape)}: stack them"
            )
        grey = images.float() if images.dtype == torch.uint8 else images.float() * 255
        return _resized(grey, self.prep.size_px, self.prep.interpolation)

    def pooled(self, squares: Tensor) -> Tensor:
        """What the network makes of `square`s. Shapes: (N, C, size_px, size_px) → (N, features)."""
        with torch.no_grad():
            x = (squares.to(self.mean.device) - self.mean) / self.std
            return self.model.eval().embed(x)

    def logits_unbiased(self, pooled: Tensor) -> Tensor:
        """What the classifier makes of pooled features, less its bias. Shapes: (N, C) → (N, classes)."""
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
    """How many were counted; None for statistics from a file, which does not say."""
    inception_score: tuple[float, float] | None
    """Mean and deviation over ten parts of the set; None without images or without classifier."""
    bad: tuple[tuple[str, str], ...] = ()
    """(name, reason) of the images that could not be decoded."""


class _Given(nn.Module):
    """Stands in for a network where its output is what a metric is given."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def new_distance(features: FidFeatures) -> FrechetInceptionDistance:
    """The metric, to be given pooled features: the network runs once an image, for the inception score as well."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    return FrechetInceptionDistance(feature=_Given(features.num_features))


def measure(
    features: FidFeatures,
    split: Split,
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
    count, bad = 0, list[tuple[str, str]]()
    logits: list[Tensor] = []
    for batch in _batches(partial(_read, split, features), len(split), batch_size, workers):
        good = [one for one in batch if isinstance(one, Tensor)]
        bad += [one for one in batch if isinstance(one, tuple)]
        if good:
            pooled = features.pooled(torch.cat(good))
            distance.update(pooled.cpu().double(), real=real)
            if features.model.num_classes:
                logits.append(features.logits_unbiased(pooled).cpu())
            count += len(good)
        advance(len(batch))
    if count < 2:
        why = f", and {len(bad)} that cannot be decoded, such as {bad[0][0]} ({bad[0][1]})" if bad else ""
        raise DataError(f"expected at least 2 images, got {count}{why}: add some")
    return Measured(count, inception_score(torch.cat(logits)) if logits else None, tuple(bad))


def _read(split: Split, features: FidFeatures, position: int) -> _Read:
    name, channels = split.names[position], features.prep.channels
    try:
        pixels = np.array(decode(split.read(position), channels=channels, name=name))
    except DecodeError as error:
        return name, str(error).removeprefix(f"{name}: ")
    return features.square(torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)[None])


def _batches(read: Callable[[int], _Read], count: int, batch_size: int, workers: int) -> Iterator[list[_Read]]:
    """What `read` makes of each position, in order; one batch is read while another is worked on.

    By threads, since decoding and resizing let others run, and squares as float are costly to send between processes.
    """
    ranges = [range(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        ahead = pool.map(read, ranges[0])
        for following in [*ranges[1:], range(0)]:
            batch, ahead = list(ahead), pool.map(read, following)
            yield batch


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Mean and sample deviation of the score over ten parts of the images, drawn by lot, always the same.

    Shapes: logits (N, classes), without bias, N of at least 2.
    """
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():  # that it holds all logits: 4 bytes a class, less than what is read of an image
        warnings.filterwarnings("ignore", "Metric `InceptionScore` will save", UserWarning)
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=SCORE_PARTS)
    metric.update(logits.double())
    with torch.random.fork_rng(devices=()):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def load_statistics(path: Path, distance: FrechetInceptionDistance, *, real: bool) -> Measured:
    """Take one side of `distance` from an .npz of pytorch-fid or of the original: mean `mu` and covariance `sigma`.

    Raises:
        DataError: no such file, or statistics of other features.
    """
    side = "real" if real else "fake"
    length = len(getattr(distance, f"{side}_features_sum"))
    try:
        with np.load(path) as file:
            mean, covariance = (torch.from_numpy(np.asarray(file[key], np.float64)) for key in ("mu", "sigma"))
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise DataError(f"{path}: expected an .npz with mu and sigma, got {error}: make it anew") from None
    if mean.shape != (length,) or covariance.shape != (length, length):
        got = f"{tuple(mean.shape)} and {tuple(covariance.shape)}"
        raise DataError(f"{path}: expected mu ({length},) and sigma ({length}, {length}), got {got}: make it anew")
    distance.update(mean.new_empty(0, length), real=real)
    setattr(distance, f"{side}_features_sum", 2 * mean)  # as of two images; the distance does not depend on that
    setattr(distance, f"{side}_features_cov_sum", covariance + 2 * torch.outer(mean, mean))
    setattr(distance, f"{side}_features_num_samples", torch.tensor(2))
    return Measured(None, None)


def save_statistics(path: Path, distance: FrechetInceptionDistance) -> None:
    """Write the real side's mean `mu` and covariance `sigma` as pytorch-fid does.

    Raises:
        ConfigurationError: the file cannot be written; one that was there is as it was.
    """
    count = distance.real_features_num_samples
    mean = distance.real_features_sum / count
    covariance = (distance.real_features_cov_sum - count * torch.outer(mean, mean)) / (count - 1)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, mu=mean.numpy(), sigma=covariance.numpy())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}; name another file") from None
