"""Split → batches of uint8 pictures for the device, the same ones whatever the number of worker processes.

A training batch is a function of (seed, epoch, position): the order comes from the generator (seed, epoch), what is
done to a picture from the generator (seed, epoch, index). So a run resumed within an epoch misses and repeats nothing.
A picture that cannot be decoded comes back from the workers as a value, not an exception: it is either raised here as
the one PictureError it is, or left out and listed. It is never replaced by another.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from inceptionnet.data.decode import check_channels, decode
from inceptionnet.data.preprocess import (
    Augment,
    Pixels,
    Preprocessing,
    centre_crop,
    random_crop,
    random_crop_source_px,
)
from inceptionnet.data.splits import Split
from inceptionnet.errors import DataError, PictureError

BadImages = Literal["fail", "skip"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Shapes: pictures (N, C, H, W) uint8 in channels-last memory, labels (N,) int64, indices (N,) int64.

    `indices` are positions in the split; `bad` lists (name, reason) of the pictures left out, so N may be 0.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    bad: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


_Key: TypeAlias = tuple[int, int]  # epoch, index
_Sample: TypeAlias = tuple[Pixels | None, int, int, str]  # pixels, label, index, why there are no pixels
_Parts: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[int, str]]]


class TrainLoader:
    """Shuffled, cropped and mirrored batches, one epoch after the other, from workers that live as long as this does.

    The last batch is left out where it would hold one picture, which batch normalisation cannot train on.
    Every planned batch is yielded, so that step numbers, `len` and resuming agree, even where bad pictures leave it
    with one picture or none: check `len(batch)` before training on it.
    Raises: PictureError where bad_images is "fail", DataError where a whole epoch has no picture that can be decoded.
    """

    def __init__(
        self,
        split: Split,
        prep: Preprocessing,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        bad_images: BadImages,
    ) -> None:
        self._plan = _Plan(len(split), batch_size, seed)
        self._batches = _Batches(_Pictures(split, prep, augment, seed), self._plan, workers, bad_images)

    def __len__(self) -> int:
        return self._plan.total

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `first_batch` on (for a run that stopped within the epoch)."""
        return self._batches.run(epoch, first_batch)


class EvalLoader:
    """Centre crops in the split's order, every picture once; iterate as often as needed.

    Raises: PictureError where bad_images is "fail", DataError where no picture can be decoded.
    """

    def __init__(
        self, split: Split, prep: Preprocessing, *, batch_size: int, workers: int, bad_images: BadImages
    ) -> None:
        self._plan = _Plan(len(split), batch_size, seed=None)
        self._batches = _Batches(_Pictures(split, prep, None, 0), self._plan, workers, bad_images)

    def __len__(self) -> int:
        return self._plan.total

    def __iter__(self) -> Iterator[Batch]:
        return self._batches.run()


def normalise(pictures: torch.Tensor, prep: Preprocessing) -> torch.Tensor:
    """(x / 255 - mean) / std. Shapes: uint8 (N, C, H, W) → float32 (N, C, H, W), same device and memory order."""
    mean, std = (torch.tensor(values, device=pictures.device).view(-1, 1, 1) * 255 for values in (prep.mean, prep.std))
    return (pictures.float() - mean) / std


class _Plan(Sampler[list[_Key]]):
    """Which pictures make up which batch: shuffled by (seed, epoch), or in order where there is no seed."""

    def __init__(self, pictures: int, batch_size: int, seed: int | None) -> None:
        self.pictures, self.batch_size, self.seed = pictures, batch_size, seed
        self.epoch = self.first = 0
        lonely = seed is not None and batch_size > 1 and pictures % batch_size == 1
        self.total = -(-pictures // batch_size) - lonely

    def __len__(self) -> int:
        return self.total - self.first

    def __iter__(self) -> Iterator[list[_Key]]:
        epoch, order = self.epoch, np.arange(self.pictures)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.pictures)
        for batch in range(self.first, self.total):
            yield [(epoch, int(i)) for i in order[batch * self.batch_size : (batch + 1) * self.batch_size]]


@dataclass(eq=False)
class _Pictures(Dataset[_Sample]):
    """(epoch, index) → one picture as the network is to see it; runs in the workers."""

    split: Split
    prep: Preprocessing
    augment: Augment | None
    seed: int

    def __getitem__(self, key: _Key) -> _Sample:
        epoch, index = key
        name, label, pixels, why = self.split.names[index], int(self.split.labels[index]), None, ""
        try:
            data = self.split.read(index)
            if self.augment is None:
                pixels = centre_crop(decode(data, channels=self.prep.channels, name=name), self.prep)
            else:
                rng = np.random.default_rng((self.seed, epoch, index))
                pixels = self._augmented(data, name, self.augment, rng)
        except PictureError as error:
            why = str(error).removeprefix(f"{name}: ")
        return pixels, label, index, why

    def _augmented(self, data: bytes, name: str, augment: Augment, rng: np.random.Generator) -> Pixels:
        prep, area_min = self.prep, augment.area_min
        image = decode(
            data, channels=prep.channels, name=name, at_least_px=random_crop_source_px(prep.size_px, area_min)
        )
        mirrored = rng.random() < 0.5  # drawn even where it is not used: the boxes stay the same without flips
        pixels = random_crop(image, prep.size_px, rng, area_min=area_min, interpolation=prep.interpolation)
        return pixels[:, ::-1] if augment.flip and mirrored else pixels

    def collate(self, samples: list[_Sample]) -> _Parts:
        good = [(pixels, label, index) for pixels, label, index, _ in samples if pixels is not None]
        stacked = np.empty((len(good), self.prep.size_px, self.prep.size_px, self.prep.channels), np.uint8)
        for row, (pixels, *_) in zip(stacked, good, strict=True):
            row[:] = pixels
        labels = torch.tensor([label for _, label, _ in good], dtype=torch.int64)
        indices = torch.tensor([index for _, _, index in good], dtype=torch.int64)
        bad = [(index, why) for pixels, _, index, why in samples if pixels is None]
        return torch.from_numpy(stacked).permute(0, 3, 1, 2), labels, indices, bad


class _Batches:
    """Plan and pictures behind a DataLoader whose workers stay; one run at a time."""

    def __init__(self, pictures: _Pictures, plan: _Plan, workers: int, bad_images: BadImages) -> None:
        check_channels(pictures.prep.channels)
        # More processes than cores or batches only take memory, and the batches are the same.
        workers = min(workers, _cores(), plan.total)
        self.names, self.plan, self.bad_images = pictures.split.names, plan, bad_images
        self.loader: DataLoader[_Sample] = DataLoader(
            pictures,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=pictures.collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else every pass takes a number from the generator that drives dropout
        )
        # The registered reference keeps the loader out of any dying cycle of references (a caught PictureError's
        # traceback makes one): collected within a cycle, its queues end before its workers are told to, and it
        # waits 10 s for them.
        weakref.finalize(self, _let_go, self.loader)

    def run(self, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        self.plan.epoch, self.plan.first = epoch, first
        decoded, left_out = 0, 0
        for pictures, labels, indices, failures in self.loader:
            bad = tuple((self.names[index], why) for index, why in failures)
            if bad and self.bad_images == "fail":
                name, why = bad[0]
                raise PictureError(f"{name}: {why}; remove the file, or leave such pictures out with --bad-images skip")
            decoded, left_out = decoded + len(labels), left_out + len(bad)
            yield Batch(pictures, labels, indices, bad)
        if left_out and not decoded and not first:
            name, why = bad[-1]
            raise DataError(f"expected pictures, got {left_out} of which none can be decoded, such as {name} ({why})")


def _let_go(loader: DataLoader[_Sample]) -> None:
    """Nothing: with this call the reference ends."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
