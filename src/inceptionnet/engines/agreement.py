"""Whether an exported file gives what the network gives: both asked about the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from inceptionnet.data.augment import as_input
from inceptionnet.data.decode import decode
from inceptionnet.data.preprocess import Pixels, Preprocessing, centre_crop
from inceptionnet.data.splits import Split
from inceptionnet.data.unlabelled import open_images
from inceptionnet.engines.int8 import CALIBRATED, COMPARED, dealt
from inceptionnet.engines.kinds import Runner
from inceptionnet.errors import DataError, DecodeError
from inceptionnet.model import InceptionNet

MOST = 64
"""Images looked at where there are more, spread evenly over them."""
DRAWN = 8
"""Images drawn where none are given."""
BATCHES = (1, 3)
"""Batch sizes tried where any will do, in turn."""


@dataclass(frozen=True)
class Images:
    """What both are asked about."""

    pixels: Sequence[Pixels]
    """Each (size_px, size_px, C)."""
    of: str
    """Where they come from, for people, after their number."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(name, reason) of those that cannot be decoded."""

    def __str__(self) -> str:
        return f"{len(self.pixels)} {self.of}"

    def dealt(self) -> tuple[Images, Images]:
        """Those to calibrate on, with the ones left out, and those to compare on."""
        calibrating, others = dealt(self.pixels)
        return Images(calibrating, self.of, self.left_out), Images(others, self.of)


@dataclass(frozen=True)
class Agreement:
    """How far the file's numbers are from the network's, at most, over all images."""

    images: int
    batch_sizes: tuple[int, ...]
    logits: float
    """Largest difference, as a share of the largest logit or feature by size."""
    probabilities: float | None
    """Largest difference of the softmax; None without a classifier, as is `top1`."""
    top1: float | None
    """Share of images with the same most probable class."""
    explained: float
    """Share of the variance of logits or features over the images that is kept: 1 - squared differences / variance
    (the coefficient of determination); 0 where that would be less.
    """

    @property
    def share(self) -> float:
        """What of the network is kept: `top1`, or `explained` without a classifier."""
        return self.explained if self.top1 is None else self.top1


def given(paths: Sequence[str], prep: Preprocessing, most: int = MOST) -> Images:
    """The images at `paths`, in anything that `open_images` opens, as the network sees them.

    Args:
        most: where there are more, so many are taken, spread evenly over them.

    Raises:
        DataError: there are none, or none can be decoded.
    """
    _, split = open_images(paths).pick("all")
    assert isinstance(split, Split)
    every = len(split)
    split = split.take(spread(every, most))
    pixels, bad = list[Pixels](), list[tuple[str, str]]()
    for i, name in enumerate(split.names):
        try:
            pixels.append(centre_crop(decode(split.read(i), channels=prep.channels, name=name), prep))
        except DecodeError as error:
            bad.append((name, str(error).removeprefix(f"{name}: ")))
    where = ", ".join(paths)
    if not pixels:
        name, why = bad[0]
        raise DataError(f"{where}: expected images, got {len(bad)} of which none can be read, such as {name} ({why})")
    return Images(pixels, f"of {every} images of {where}", tuple(bad))


def spread(number: int, most: int) -> npt.NDArray[np.intp]:
    """Which of so many to take so that they are `most` at most, evenly from the first to the last."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).astype(np.intp))


def drawn(prep: Preprocessing) -> Images:
    """Coloured clouds from coarse to fine, the same ones always."""
    rng, size = np.random.default_rng(0), (prep.size_px, prep.size_px)

    def cloud(cells: int) -> Pixels:
        coarse = rng.integers(0, 256, (prep.channels, cells, cells), np.uint8)
        return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in coarse], -1)

    return Images([cloud(2 + 4 * i) for i in range(DRAWN)], "images drawn at random, since none were given")


def to_calibrate(paths: Sequence[str], prep: Preprocessing) -> torch.Tensor:
    """The images at `paths`, as many as int8 has use for. Shapes: → (N, C, H, W). Raises: as `given`."""
    return as_input(given(paths, prep, CALIBRATED + COMPARED).pixels, prep).contiguous()


def compare(
    model: InceptionNet,
    run: Runner,
    images: Images,
    prep: Preprocessing,
    *,
    raw: bool,
    batch_size: int | None,
) -> Agreement:
    """How far what `run` gives is from what `model` gives, for the same images.

    Args:
        raw: `run` takes uint8 (N, H, W, C), else what the model takes.
        batch_size: the number of images that `run` takes at once; None: any number.
    """
    wanted, found, sizes = list[torch.Tensor](), list[torch.Tensor](), set[int]()
    number = len(images.pixels)
    for batch, count in _batches(images.pixels, batch_size):
        x = as_input(batch, prep).contiguous()
        with torch.inference_mode():
            want = model(x).float()
        got = torch.from_numpy(np.asarray(run(np.stack(batch) if raw else x.numpy())))
        sizes.add(len(batch))
        if got.shape != want.shape:
            return Agreement(number, tuple(sorted(sizes)), inf, None, None, 0.0)
        wanted.append(want[:count])
        found.append(got[:count])
    return agreement(torch.cat(wanted), torch.cat(found), classes=model.num_classes > 0, batch_sizes=sizes)


def agreement(want: torch.Tensor, got: torch.Tensor, *, classes: bool, batch_sizes: Iterable[int]) -> Agreement:
    """How far `got` is from `want`. Shapes: both (N, classes), or (N, features) without a classifier."""
    smallest = torch.finfo(torch.float32).tiny
    logits = (got - want).abs().max().item() / max(want.abs().max().item(), smallest)
    spread = (want - want.mean(0)).square().sum().item()
    explained = max(0.0, 1 - (got - want).square().sum().item() / max(spread, smallest))
    probabilities = top1 = None
    if classes:
        probabilities = (got.softmax(1) - want.softmax(1)).abs().max().item()
        top1 = (got.argmax(1) == want.argmax(1)).float().mean().item()
    return Agreement(len(want), tuple(sorted(batch_sizes)), logits, probabilities, top1, explained)


def spoilt(what: str, found: Agreement, least: float) -> str:
    """What to say of a network in 8 bits of which too little is kept."""
    kept = "the features' variance" if found.top1 is None else "the first classes"
    return (
        f"{what} keeps {found.share:.1%} of {kept} in int8, on {found.images} images; expected {least:.1%} at "
        "least: calibrate on more images, such as it will see, or take fp32"
    )


def _batches(pixels: Sequence[Pixels], size: int | None) -> Iterator[tuple[list[Pixels], int]]:
    """Batches, and how many images of each count: a short one is filled up with the first images again."""
    start, turn = 0, 0
    while start < len(pixels) or (size is None and turn < len(BATCHES)):
        length = size or BATCHES[turn % len(BATCHES)]
        batch = [*pixels[start : start + length]]
        count = len(batch)
        yield [*batch, *(pixels[i % len(pixels)] for i in range(length - count))], count
        start, turn = start + count, turn + 1
