"""Comparing the outputs of an exported file or engine with those of the network, on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import torch
from PIL import Image

from inceptionnet.data.augment import as_input
from inceptionnet.data.bands import Pixels
from inceptionnet.data.decode import pixels_of
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Split, evenly_spaced
from inceptionnet.data.unlabelled import open_images
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, split_calibration
from inceptionnet.engines.kinds import Runner
from inceptionnet.engines.sessions import Session
from inceptionnet.errors import DataError, DecodeError, listed, number_of, reason_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs

MAX_IMAGES = 64
"""Images to compare on, evenly spaced if more are given."""
SMALLEST = torch.finfo(torch.float32).tiny
RANDOM_IMAGES = 8
"""Random images to compare on if none are given."""
BATCHES = (1, 3)
"""Batch sizes tried with a dynamic batch size, one after another."""


@dataclass(frozen=True)
class Images:
    """The images to compare or calibrate on."""

    pixels: Sequence[Pixels]
    """Each (size_px, size_px, C)."""
    source: str
    """Where they come from; follows their number in messages."""
    decode_errors: tuple[tuple[str, str], ...] = ()
    """(name, reason) of the images that cannot be decoded."""

    def __str__(self) -> str:
        return f"{len(self.pixels)} {self.source}"

    def split(self) -> tuple[Images, Images]:
        """The images to calibrate on (with the decode errors) and those to compare on."""
        calibrating, others = split_calibration(self.pixels)
        return Images(calibrating, self.source, self.decode_errors), Images(others, self.source)


@dataclass(frozen=True)
class Embeddings:
    """Differences between the embeddings of a file and those of the network, over all images."""

    difference: float
    """The largest, relative to the largest absolute value."""
    explained_variance: float
    """As of `Agreement`; low as well where all images are alike."""
    kept: float
    """1 - squared differences / squared values, at least 0."""


@dataclass(frozen=True)
class Agreement:
    """Differences between the outputs of a file or engine and those of the network, over all images."""

    images: int
    batch_sizes: tuple[int, ...]
    logits: float
    """Largest difference, relative to the largest absolute logit or feature."""
    probabilities: float | None
    """Largest difference of the probabilities; None without a classifier, like `top1_agreement`."""
    top1_agreement: float | None
    """Share of images with the same predicted class, or with exactly the same predicted labels."""
    explained_variance: float
    """R² of the logits or features over the images: 1 - squared differences / variance, at least 0."""
    embedding: Embeddings | None = None
    """Of a file that gives the embeddings as well."""

    @property
    def share(self) -> float:
        """`top1_agreement`, or `explained_variance` without a classifier."""
        return self.explained_variance if self.top1_agreement is None else self.top1_agreement


def load_images(paths: Sequence[str], prep: Preprocessing, most: int = MAX_IMAGES) -> Images:
    """Load and preprocess the images at `paths`, anything that `open_images` opens.

    Args:
        most: maximum number of images, evenly spaced if there are more.

    Raises:
        DataError: there are no images, or none can be decoded.
    """
    _, split = open_images(paths).pick("all")
    assert isinstance(split, Split)
    total = len(split)
    split = split.take(evenly_spaced(total, most))
    pixels, errors = list[Pixels](), list[tuple[str, str]]()
    for i, name in enumerate(split.names):
        try:
            pixels.append(pixels_of(split.read(i), prep, name))
        except DecodeError as error:
            errors.append((name, reason_of(error, name)))
    where = listed(paths, ordered=True)
    if not pixels:
        name, why = errors[0]
        raise DataError(
            f"{where}: expected images, got {len(errors)} of which none can be decoded, such as {name} ({why})"
        )
    return Images(pixels, f"of {number_of('image', total)} of {where}", tuple(errors))


def random_images(prep: Preprocessing) -> Images:
    """Random colour noise from coarse to fine, always the same."""
    rng, size = np.random.default_rng(0), (prep.size_px, prep.size_px)

    def noise(cells: int) -> Pixels:
        coarse = rng.integers(0, 256, (prep.channels, cells, cells), np.uint8)
        return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in coarse], -1)

    return Images([noise(2 + 4 * i) for i in range(RANDOM_IMAGES)], "random images, since none were given")


def to_calibrate(paths: Sequence[str], prep: Preprocessing) -> torch.Tensor:
    """Load images to calibrate and compare int8 on. Shapes: → (N, C, H, W). Raises: as `load_images`."""
    return as_input(load_images(paths, prep, CALIBRATED + COMPARED).pixels, prep).contiguous()


def compare(
    model: InceptionNet,
    run: Runner,
    images: Images,
    prep: Preprocessing,
    *,
    raw: bool,
    batch_size: int | None,
) -> Agreement:
    """Compare the outputs of `run` with those of `model`; of a `Session` that embeds, both outputs.

    Args:
        raw: `run` takes uint8 (N, H, W, C), else the input of the model.
        batch_size: the fixed batch size of `run`; None: dynamic.
    """
    wanted, found, sizes = list[torch.Tensor](), list[torch.Tensor](), set[int]()
    embedded = list[tuple[torch.Tensor, torch.Tensor]]()  # as wanted, as found
    number = len(images.pixels)
    for batch, count in _batches(images.pixels, batch_size):
        x = as_input(batch, prep).contiguous()
        with torch.inference_mode():
            want = model(x).float()
        given = np.stack(batch) if raw else x.numpy()
        sizes.add(len(batch))
        if isinstance(run, Session) and run.embeds:
            got, pooled = map(torch.from_numpy, run.both(given))
            with torch.inference_mode():
                embedded.append((model.embed(x).float()[:count], pooled[:count]))
        else:
            got = torch.from_numpy(np.asarray(run(given)))
        if got.shape != want.shape:
            return Agreement(number, tuple(sorted(sizes)), inf, None, None, 0.0)
        wanted.append(want[:count])
        found.append(got[:count])
    whole = agreement(torch.cat(wanted), torch.cat(found), outputs=model.outputs, batch_sizes=sizes)
    if not embedded:
        return whole
    want, got = (torch.cat(each) for each in zip(*embedded, strict=True))
    if got.shape != want.shape:
        return replace(whole, embedding=Embeddings(inf, 0.0, 0.0))
    return replace(whole, embedding=Embeddings(*_apart(want, got), _share(got - want, want)))


def agreement(want: torch.Tensor, got: torch.Tensor, *, outputs: Outputs, batch_sizes: Iterable[int]) -> Agreement:
    """Compare outputs `got` with `want`. Shapes: both (N, logits), or (N, features) without a classifier."""
    logits, explained = _apart(want, got)
    probabilities = top1 = None
    if outputs.logits:
        of_got, of_want = outputs.probabilities(got), outputs.probabilities(want)
        probabilities = (of_got - of_want).abs().max().item()
        same = predicted(of_got, outputs) == predicted(of_want, outputs)
        top1 = same.reshape(len(want), -1).all(1).float().mean().item()
    return Agreement(len(want), tuple(sorted(batch_sizes)), logits, probabilities, top1, explained)


def _apart(want: torch.Tensor, got: torch.Tensor) -> tuple[float, float]:
    """The largest difference, relative to the largest value, and the explained variance."""
    difference = (got - want).abs().max().item() / max(want.abs().max().item(), SMALLEST)
    return difference, _share(got - want, want - want.mean(0))


def _share(differences: torch.Tensor, values: torch.Tensor) -> float:
    """1 - squared differences / squared values, at least 0, also where they are no numbers."""
    return max(0.0, 1 - differences.square().sum().item() / max(values.square().sum().item(), SMALLEST))


def predicted(probabilities: torch.Tensor, outputs: Outputs) -> torch.Tensor:
    """The predicted class or labels, at the default threshold. Shapes: as `Outputs.predicted`."""
    return outputs.predicted(probabilities, outputs.threshold(None))


def low_agreement(what: str, found: Agreement, minimum: float, precision: str = "int8") -> str:
    """The message for a network whose outputs differ too much in a lower precision."""
    measure = "explained variance of the features" if found.top1_agreement is None else "top-1 agreement"
    way = "calibrate on more images that are representative, or use fp32" if precision == "int8" else "use fp32"
    return (
        f"{what}: expected a {measure} of at least {minimum:.1%} in {precision}, got {found.share:.1%} on "
        f"{number_of('image', found.images)}; {way}"
    )


def _batches(pixels: Sequence[Pixels], size: int | None) -> Iterator[tuple[list[Pixels], int]]:
    """Batches with the number of images that count; a short batch is padded with the first images."""
    start, turn = 0, 0
    while start < len(pixels) or (size is None and turn < len(BATCHES)):
        length = size or BATCHES[turn % len(BATCHES)]
        batch = [*pixels[start : start + length]]
        count = len(batch)
        yield [*batch, *(pixels[i % len(pixels)] for i in range(length - count))], count
        start, turn = start + count, turn + 1
