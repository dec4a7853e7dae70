"""Split → batches of uint8 images for the device, the same ones whatever the number of workers and processes.

A training batch is a function of (seed, epoch, position): the order comes from the generator (seed, epoch), what is
done to an image from the generator (seed, epoch, index). So a run resumed within an epoch misses and repeats nothing.
An image that cannot be decoded comes back from the workers as a value, not an exception: it is either raised here as
the one DecodeError it is, or left out and listed. It is never replaced by another.
"""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from inceptionnet.data.augment import training_crop
from inceptionnet.data.crops import Crops
from inceptionnet.data.decode import check_channels, decode
from inceptionnet.data.order import BatchOrder, Key
from inceptionnet.data.preprocess import CHANGES, Augment, Pixels, Preprocessing, centre_crop, draw
from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.distributed import ALONE, World
from inceptionnet.errors import DataError, DecodeError

CorruptImages = Literal["fail", "skip"]


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's share of the images of one step.

    Shapes: images (N, C, H, W) uint8 in channels-last memory, labels (N,) int64, draws (N, D) float32 for
    `augment.to_input`. N may be 0.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    """(N,) int64: positions in the split."""
    rows: torch.Tensor
    """(N,) int64: positions among the `planned` images of the step."""
    draws: torch.Tensor
    planned: int
    """Images of the step over all processes, those that turn out bad with them."""
    bad: tuple[tuple[str, str], ...] = ()
    """(name, reason) of the images left out."""
    views: tuple[torch.Tensor, ...] = ()
    """For an EvalLoader with `crops`, each one's crops of every image: (N, K, C, H, W) uint8; `images` is empty."""

    def __len__(self) -> int:
        return len(self.labels)


class _Sample(NamedTuple):
    key: Key
    name: str
    label: int
    pixels: tuple[Pixels, ...] | None  # (K, H, W, C) for each view
    draws: npt.NDArray[np.float32]
    why: str  # there are no pixels


_Parts: TypeAlias = tuple[
    list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[str, str]]
]


class TrainLoader:
    """Shuffled crops in batches, one epoch after the other, from workers that live as long as this does.

    The last batch is left out where it would hold one image, which batch normalisation cannot train on.
    Every planned batch is yielded, so that step numbers, `len` and resuming agree, even where corrupt images leave it
    with one image or none: check `len(batch)` before training on it.

    Args:
        batch_size: images of a step, over all processes and parts together.
        parts: each step is computed in so many parts of even size, one after the other (see `order.parts_of`).

    Raises: DecodeError where corrupt_images is "fail", DataError where a whole epoch has no image that can be decoded.
    """

    def __init__(
        self,
        split: AnySplit,
        prep: Preprocessing,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        corrupt_images: CorruptImages,
        parts: int = 1,
        world: World = ALONE,
    ) -> None:
        self._plan = BatchOrder(split, batch_size, seed, parts, world)
        self._batches = _Batches(_Images(_here(split), prep, augment, seed), self._plan, workers, corrupt_images)

    def __len__(self) -> int:
        return self._plan.total

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `first_batch` on (for a run that stopped within the epoch)."""
        return self._batches.run(epoch, first_batch)


class EvalLoader:
    """Centre crops in the split's order, every image once over all processes; iterate as often as needed.

    Args:
        crops: what is made of each image in place of `prep`'s centre crop, decoded once for all of them.

    Raises: DecodeError where corrupt_images is "fail", DataError where no image can be decoded.
    """

    def __init__(
        self,
        split: AnySplit,
        prep: Preprocessing,
        *,
        batch_size: int,
        workers: int,
        corrupt_images: CorruptImages,
        crops: Sequence[Crops] = (),
        world: World = ALONE,
    ) -> None:
        self._plan = BatchOrder(split, batch_size, None, 1, world)
        images = _Images(_here(split), prep, None, 0, tuple(crops))
        self._batches = _Batches(images, self._plan, workers, corrupt_images)

    def __len__(self) -> int:
        return self._plan.total

    def __iter__(self) -> Iterator[Batch]:
        return self._batches.run()


@dataclass(eq=False)
class _Images(Dataset[_Sample]):
    """Key → one image as the network is to see it; runs in the workers."""

    split: Split | None  # None: keys bring their images
    prep: Preprocessing
    augment: Augment | None
    seed: int
    crops: tuple[Crops, ...] = ()

    def __getitem__(self, key: Key) -> _Sample:
        draws, pixels, why = np.zeros(len(CHANGES), np.float32), None, ""
        if key.item is None:
            assert self.split is not None
            name, label, data = self.split.names[key.position], int(self.split.labels[key.position]), None
        else:
            name, label, data = key.item
        try:
            if self.split is not None:
                data = self.split.read(key.position)
            assert data is not None
            if self.augment is None:
                pixels = self._evaluated(data, name)
            else:
                rng = np.random.default_rng((self.seed, key.epoch, key.position))
                draws = draw(rng)
                pixels = (training_crop(data, self.prep, self.augment, rng, name=name)[None],)
        except DecodeError as error:
            why = str(error).removeprefix(f"{name}: ")
        return _Sample(key._replace(item=None), name, label, pixels, draws, why)

    def _evaluated(self, data: bytes, name: str) -> tuple[Pixels, ...]:
        """The crops of one image, which is decoded once for each number of channels."""
        preps = [crops.prep for crops in self.crops] or [self.prep]
        images = {n: decode(data, channels=n, name=name) for n in {prep.channels for prep in preps}}
        if not self.crops:
            return (centre_crop(images[self.prep.channels], self.prep)[None],)
        return tuple(crops.of(images[crops.prep.channels]) for crops in self.crops)

    def collate(self, samples: list[_Sample]) -> _Parts:
        good = [sample for sample in samples if sample.pixels is not None]
        shapes = [(len(crops.names), crops.prep) for crops in self.crops] or [(1, self.prep)]
        stacks = [
            np.empty((len(good), count, prep.size_px, prep.size_px, prep.channels), np.uint8) for count, prep in shapes
        ]
        for i, sample in enumerate(good):
            assert sample.pixels is not None
            for stack, pixels in zip(stacks, sample.pixels, strict=True):
                stack[i] = pixels
        labels, indices, rows = (
            torch.tensor(values, dtype=torch.int64)
            for values in (
                [sample.label for sample in good],
                [sample.key.position for sample in good],
                [sample.key.row for sample in good],
            )
        )
        draws = np.stack([sample.draws for sample in good]) if good else np.zeros((0, len(CHANGES)), np.float32)
        bad = [(sample.name, sample.why) for sample in samples if sample.pixels is None]
        views = [torch.from_numpy(stack).permute(0, 1, 4, 2, 3) for stack in stacks]
        return views, labels, indices, rows, torch.from_numpy(draws), bad


class _Batches:
    """Plan and images behind a DataLoader whose workers stay; one run at a time."""

    def __init__(self, images: _Images, plan: BatchOrder, workers: int, corrupt_images: CorruptImages) -> None:
        for prep in (images.prep, *(crops.prep for crops in images.crops)):
            check_channels(prep.channels)
        # More processes than cores or batches only take memory, and the batches are the same.
        workers = min(workers, _cores(), plan.total)
        self.plan, self.corrupt_images, self.cropped = plan, corrupt_images, bool(images.crops)
        self.loader: DataLoader[_Sample] = DataLoader(
            images,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=images.collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_deaf_to_ctrl_c,
            generator=torch.Generator(),  # else every pass takes a number from the generator that drives dropout
        )
        # The registered reference keeps the loader out of any dying cycle of references (a caught DecodeError's
        # traceback makes one): collected within a cycle, its queues end before its workers are told to, and it
        # waits 10 s for them.
        weakref.finalize(self, _let_go, self.loader)

    def run(self, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        self.plan.epoch, self.plan.first = epoch, first
        decoded, left_out = 0, 0
        for number, (made, labels, indices, rows, draws, failures) in enumerate(self.loader, start=first):
            bad = tuple(failures)
            if bad and self.corrupt_images == "fail":
                name, why = bad[0]
                raise DecodeError(
                    f"{name}: {why}; remove the file, or leave such images out with --corrupt-images skip"
                )
            images = made[0][:0, 0] if self.cropped else made[0][:, 0]
            planned, views = self.plan.planned(number), tuple(made) if self.cropped else ()
            batch = Batch(images, labels, indices, rows, draws, planned, bad, views)
            decoded, left_out = decoded + len(batch), left_out + len(bad)
            yield batch
        if self.plan.error is not None:
            raise self.plan.error
        if left_out and not decoded and not first and self.plan.world.size == 1:
            name, why = bad[-1]
            raise DataError(f"expected images, got {left_out} of which none can be decoded, such as {name} ({why})")


def _here(split: AnySplit) -> Split | None:
    """The split, if workers can read from it; a stream's connections stay in the main process."""
    return split if isinstance(split, Split) else None


def _deaf_to_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; it is for the main one, which still needs its images."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _let_go(loader: DataLoader[_Sample]) -> None:
    """Nothing: with this call the reference ends."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
