"""Data loaders: split → batches of uint8 images, the same for any number of workers and processes.

A training batch is a function of (seed, epoch, position): the order comes from a generator seeded with (seed, epoch),
the augmentation of an image from one seeded with (seed, epoch, index), and where an epoch has an image again, also with
the number of its repetition. A run that is resumed within an epoch therefore
neither skips nor repeats an image. An image that cannot be decoded is either raised as a DecodeError or skipped and
listed; it is never replaced by another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from inceptionnet.data.augment import training_crop
from inceptionnet.data.balance import Sampler
from inceptionnet.data.bands import Pixels
from inceptionnet.data.crops import Crops
from inceptionnet.data.decode import check_channels, decode
from inceptionnet.data.order import BatchOrder, Continued, Key
from inceptionnet.data.policies import vary
from inceptionnet.data.preprocess import CHANGES, Augment, Preprocessing, draw
from inceptionnet.data.resizing import centre_crop
from inceptionnet.data.splits import AnySplit, Split
from inceptionnet.data.workers import Workers
from inceptionnet.errors import DataError, DecodeError, reason_of
from inceptionnet.system.distributed import ALONE, World

CorruptImages = Literal["fail", "skip"]


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's share of the images of one step.

    Shapes: images (N, C, H, W) uint8 in channels-last memory, labels (N,) int64 or, with several an image,
    (N, classes) bool, draws (N, D) float32 for `augment.to_input`. N may be 0.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    """(N,) int64: positions in the split."""
    rows: torch.Tensor
    """(N,) int64: positions within the `planned` images of the step."""
    draws: torch.Tensor
    planned: int
    """Number of images of the step over all processes, corrupt ones included."""
    decode_errors: tuple[tuple[str, str], ...] = ()
    """(name, reason) of the skipped images."""
    views: tuple[torch.Tensor, ...] = ()
    """For an EvalLoader with `crops`, the crops of every image, one (N, K, C, H, W) uint8 tensor for each entry of
    `crops`; `images` is then empty."""

    def __len__(self) -> int:
        return len(self.labels)


class _Sample(NamedTuple):
    key: Key
    name: str
    label: int | npt.NDArray[np.int64 | np.bool_]
    pixels: tuple[Pixels, ...] | None  # (K, H, W, C) for each view
    draws: npt.NDArray[np.float32]
    why: str  # the reason, if there are no pixels


_Parts: TypeAlias = tuple[
    list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[str, str]]
]


class TrainLoader:
    """Training batches: shuffled random crops, epoch after epoch, from persistent workers.

    An image that would be alone in a batch is dropped, since batch normalisation cannot train on it. Every planned
    batch is yielded, so that step numbers, `len` and resuming agree, even if corrupt images leave it with one image or
    none: check `len(batch)` before training on it.

    Args:
        batch_size: effective (global) batch size: images per step, over all processes and gradient-accumulation steps.
        parts: number of gradient-accumulation steps per step, of nearly equal size (see `order.parts_of`).
        sampler: "shuffled": every image once in an epoch; "balanced": every class equally often.

    Raises: DecodeError if corrupt_images is "fail"; DataError if no image of an epoch can be decoded;
        ConfigurationError for a balanced stream.
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
        sampler: Sampler = "shuffled",
        world: World = ALONE,
    ) -> None:
        self._plan = BatchOrder(split, batch_size, seed, parts, world, sampler=sampler, pairs=augment.mixes)
        self._batches = _Batches(_Images(_here(split), prep, augment, seed), self._plan, workers, corrupt_images)

    def __len__(self) -> int:
        return self._plan.total

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, starting at `first_batch` (to resume a run within an epoch)."""
        return self._batches.run(epoch, first_batch)

    def continue_in(self, continued: Continued) -> None:
        """Batches of this size begin within an epoch, as `continue_after` found."""
        self._plan.continued = continued

    def continue_after(self, epoch: int, batch: int, batch_size: int, continued: Continued | None) -> Continued:
        """Continue an epoch whose batches before `batch` had another batch size (and began as `continued` says)."""
        order = self._plan
        other = BatchOrder(order.split, batch_size, order.seed, order.parts, order.world)
        other.continued = continued
        return order.continue_after(other, epoch, batch)


class EvalLoader:
    """Evaluation batches: centre crops in the split's order, every image once over all processes; can be re-iterated.

    Args:
        crops: crops to evaluate instead of `prep`'s centre crop; each image is decoded once for all of them.
        may_be_empty: no image needs to be decodable, since these are a part of those that are asked for.

    Raises: DecodeError if corrupt_images is "fail"; DataError if no image can be decoded.
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
        may_be_empty: bool = False,
    ) -> None:
        self._plan = BatchOrder(split, batch_size, None, 1, world)
        images = _Images(_here(split), prep, None, 0, tuple(crops))
        self._batches = _Batches(images, self._plan, workers, corrupt_images, may_be_empty=may_be_empty)

    def __len__(self) -> int:
        return self._plan.total

    def __iter__(self) -> Iterator[Batch]:
        return self._batches.run()


@dataclass(eq=False)
class _Images:
    """Key → one preprocessed image; runs in the workers."""

    split: Split | None  # None: the keys contain the images (a stream)
    prep: Preprocessing
    augment: Augment | None
    seed: int
    crops: tuple[Crops, ...] = ()

    def sample(self, key: Key) -> _Sample:
        name, label = self._described(key)
        draws = np.zeros(len(CHANGES), np.float32)
        try:
            data = self._split.read(key.position) if key.item is None else key.item[2]
            if self.augment is None:
                pixels = self._evaluated(data, name)
            else:
                rng = np.random.default_rng((self.seed, key.epoch, key.position, key.repetition))
                draws = draw(rng)
                crop = training_crop(data, self.prep, self.augment, rng, name=name)
                pixels = (vary(crop, self.prep, self.augment, rng)[None],)
        except DecodeError as error:
            return self.failed(key, reason_of(error, name))
        return _Sample(key._replace(item=None), name, label, pixels, draws, "")

    def failed(self, key: Key, why: str) -> _Sample:
        return _Sample(key._replace(item=None), *self._described(key), None, np.zeros(len(CHANGES), np.float32), why)

    def _described(self, key: Key) -> tuple[str, int | npt.NDArray[np.int64 | np.bool_]]:
        """Name and label."""
        return (self._split.names[key.position], self._split.labels[key.position]) if key.item is None else key.item[:2]

    @property
    def _split(self) -> Split:
        assert self.split is not None
        return self.split

    def _evaluated(self, data: bytes, name: str) -> tuple[Pixels, ...]:
        """The crops of one image, decoded once per number of channels."""
        preps = [crops.prep for crops in self.crops] or [self.prep]
        images = {n: decode(data, channels=n, name=name) for n in {prep.channels for prep in preps}}
        if not self.crops:
            return (centre_crop(images[self.prep.channels], self.prep)[None],)
        return tuple(crops.of(images[crops.prep.channels]) for crops in self.crops)

    @property
    def image_bytes(self) -> int:
        """Of one image with all its crops."""
        return sum(count * prep.size_px**2 * prep.channels for count, prep in self._shapes)

    @property
    def _shapes(self) -> list[tuple[int, Preprocessing]]:
        """Number and preprocessing of the crops of each view."""
        return [(len(crops.names), crops.prep) for crops in self.crops] or [(1, self.prep)]

    def collate(self, samples: list[_Sample]) -> _Parts:
        good = [sample for sample in samples if sample.pixels is not None]
        stacks = [
            np.empty((len(good), count, prep.size_px, prep.size_px, prep.channels), np.uint8)
            for count, prep in self._shapes
        ]
        for i, sample in enumerate(good):
            assert sample.pixels is not None
            for stack, pixels in zip(stacks, sample.pixels, strict=True):
                stack[i] = pixels
        labels = torch.from_numpy(np.array([sample.label for sample in good])) if good else torch.zeros(0).long()
        indices, rows = (
            torch.tensor(values, dtype=torch.int64)
            for values in (
                [sample.key.position for sample in good],
                [sample.key.row for sample in good],
            )
        )
        draws = np.stack([sample.draws for sample in good]) if good else np.zeros((0, len(CHANGES)), np.float32)
        errors = [(sample.name, sample.why) for sample in samples if sample.pixels is None]
        views = [torch.from_numpy(stack).permute(0, 1, 4, 2, 3) for stack in stacks]
        return views, labels, indices, rows, torch.from_numpy(draws), errors


class _Batches:
    """A batch order and its images behind persistent workers; one iteration at a time."""

    def __init__(
        self,
        images: _Images,
        plan: BatchOrder,
        workers: int,
        corrupt_images: CorruptImages,
        *,
        may_be_empty: bool = False,
    ) -> None:
        for prep in (images.prep, *(crops.prep for crops in images.crops)):
            check_channels(prep.channels)
        self.plan, self.corrupt_images, self.cropped = plan, corrupt_images, bool(images.crops)
        self.may_be_empty = may_be_empty
        self.workers = Workers[_Parts](images, plan, workers)

    def run(self, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        self.plan.epoch, self.plan.first = epoch, first
        decoded, skipped = 0, 0
        for number, (made, labels, indices, rows, draws, failures) in enumerate(self.workers.batches(), start=first):
            errors = tuple(failures)
            if errors and self.corrupt_images == "fail":
                name, why = errors[0]
                raise DecodeError(f"{name}: {why}; remove the file, or skip corrupt images with --corrupt-images skip")
            images = made[0][:0, 0] if self.cropped else made[0][:, 0]
            planned, views = self.plan.planned(number), tuple(made) if self.cropped else ()
            batch = Batch(images, labels, indices, rows, draws, planned, errors, views)
            decoded, skipped = decoded + len(batch), skipped + len(errors)
            yield batch
        if self.plan.error is not None:
            raise self.plan.error
        if skipped and not decoded and not first and self.plan.world.size == 1 and not self.may_be_empty:
            name, why = errors[-1]
            raise DataError(f"expected images, got {skipped} of which none can be decoded, such as {name} ({why})")


def _here(split: AnySplit) -> Split | None:
    """The split if workers can read from it; None for a stream, whose connections stay in the main process."""
    return split if isinstance(split, Split) else None
