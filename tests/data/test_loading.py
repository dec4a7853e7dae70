"""Batches: order, randomness, worker counts, bad pictures, normalisation."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data import Augment, Preprocessing, Split, centre_crop, decode
from inceptionnet.data.loading import Batch, EvalLoader, TrainLoader, normalise
from inceptionnet.errors import DataError, PictureError

from .made import encoded, png

PREP = Preprocessing(8)


def made_split(count: int, bad: Iterable[int] = ()) -> Split:
    rng = np.random.default_rng(0)
    pictures = [encoded(Image.fromarray(rng.integers(0, 256, (12, 14, 3)).astype(np.uint8))) for _ in range(count)]
    for i in bad:
        pictures[i] = pictures[i][:-60]
    return Split([f"{i}.png" for i in range(count)], np.arange(count) % 3, pictures.__getitem__)


def training(split: Split, batch_size: int = 4, **how: Any) -> TrainLoader:
    options: dict[str, Any] = {"seed": 0, "workers": 0, "bad_images": "fail"} | how
    return TrainLoader(split, PREP, options.pop("augment", Augment()), batch_size=batch_size, **options)


def assert_same(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a.pictures, b.pictures) and torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices) and a.bad == b.bad


def test_evaluation_sees_every_picture_once_in_order() -> None:
    split = made_split(10)
    loader = EvalLoader(split, PREP, batch_size=4, workers=0, bad_images="fail")
    for _ in range(2):
        batches = list(loader)
        assert [len(batch) for batch in batches] == [4, 4, 2] and len(loader) == 3
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))
        assert torch.cat([batch.labels for batch in batches]).tolist() == split.labels.tolist()
    first = batches[0].pictures
    assert first.shape == (4, 3, 8, 8) and first.dtype == torch.uint8 and batches[0].labels.dtype == torch.int64
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert (first[1].permute(1, 2, 0).numpy() == centre_crop(decode(split.read(1)), PREP)).all()


def test_training_order_is_that_of_seed_and_epoch() -> None:
    loader = training(made_split(10))
    for epoch in (0, 3, 0):
        found = torch.cat([batch.indices for batch in loader.epoch(epoch)]).tolist()
        assert found == np.random.default_rng((0, epoch)).permutation(10).tolist()
    other = torch.cat([batch.indices for batch in training(made_split(10), seed=1).epoch(0)]).tolist()
    assert other == np.random.default_rng((1, 0)).permutation(10).tolist()


def test_the_number_of_workers_changes_nothing() -> None:
    split = made_split(21, bad=[5, 6])
    alone, helped = (training(split, workers=workers, bad_images="skip") for workers in (0, 2))
    for epoch in (0, 1):  # the second epoch comes from the same workers
        assert_same(alone.epoch(epoch), helped.epoch(epoch))
    one, two = (EvalLoader(split, PREP, batch_size=4, workers=workers, bad_images="skip") for workers in (0, 2))
    assert_same(one, two)


def test_an_epoch_can_be_entered_in_its_middle_and_left() -> None:
    loader = training(made_split(14), workers=2)
    whole = list(loader.epoch(2))
    next(loader.epoch(1))  # left unfinished
    assert_same(loader.epoch(2, first_batch=2), whole[2:])
    assert_same(loader.epoch(2), whole)
    assert len(loader) == 4


def test_pictures_change_from_epoch_to_epoch_and_flips_are_half() -> None:
    split = made_split(2)
    loader = training(split, 2, augment=Augment(area_min=1.0))
    still = training(split, 2, augment=Augment(area_min=1.0, flip=False))
    mirrored = 0
    for epoch in range(40):
        (a,), (b,) = loader.epoch(epoch), still.epoch(epoch)
        for x, y in zip(a.pictures, b.pictures, strict=True):
            assert torch.equal(x, y) or torch.equal(x, y.flip(-1))
            mirrored += not torch.equal(x, y)
    assert 25 <= mirrored <= 55  # 40 of 80 expected, standard deviation 4.5
    crops = training(split, 2, augment=Augment(area_min=0.1, flip=False))
    (a,), (b,) = crops.epoch(0), crops.epoch(1)
    assert not torch.equal(a.pictures[a.indices.argsort()], b.pictures[b.indices.argsort()])


@pytest.mark.parametrize(("pictures", "batch_size", "sizes"), [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1])])
def test_a_last_batch_of_one_is_left_out_of_training(pictures: int, batch_size: int, sizes: list[int]) -> None:
    loader = training(made_split(pictures), batch_size)
    assert [len(batch) for batch in loader.epoch(0)] == sizes and len(loader) == len(sizes)
    evaluation = EvalLoader(made_split(pictures), PREP, batch_size=batch_size, workers=0, bad_images="fail")
    assert sum(map(len, evaluation)) == pictures


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_fails_by_name_in_one_line(workers: int) -> None:
    split = made_split(6, bad=[4])
    for batches in (
        iter(EvalLoader(split, PREP, batch_size=2, workers=workers, bad_images="fail")),
        training(split, 2, workers=workers).epoch(0),
    ):
        with pytest.raises(
            PictureError, match=r"^4\.png: is truncated or damaged \(.*\); .*--bad-images skip$"
        ) as caught:
            list(batches)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_pictures_are_left_out_and_listed(workers: int) -> None:
    split = made_split(7, bad=[1, 2, 3])
    loader = EvalLoader(split, PREP, batch_size=2, workers=workers, bad_images="skip")
    batches = list(loader)
    assert [batch.indices.tolist() for batch in batches] == [[0], [], [4, 5], [6]]
    assert [[name for name, _ in batch.bad] for batch in batches] == [["1.png"], ["2.png", "3.png"], [], []]
    assert batches[0].bad[0][1].startswith("is truncated or damaged (")
    assert batches[1].pictures.shape == (0, 3, 8, 8) and len(batches[1]) == 0


def test_an_epoch_of_bad_pictures_only_is_an_error() -> None:
    loader = EvalLoader(made_split(4, bad=range(4)), PREP, batch_size=2, workers=0, bad_images="skip")
    with pytest.raises(DataError, match=r"got 4 of which none can be decoded, such as 3\.png \(is truncated"):
        list(loader)


def test_grey_pictures() -> None:
    split = Split(["a", "b"], np.array([0, 1]), [png(10), png(20)].__getitem__)
    prep = Preprocessing(8, channels=1)
    (batch,) = EvalLoader(split, prep, batch_size=2, workers=0, bad_images="fail")
    assert batch.pictures.shape == (2, 1, 8, 8) and batch.pictures[:, 0, 0, 0].tolist() == [10, 20]
    assert normalise(batch.pictures, prep).shape == (2, 1, 8, 8)


def test_normalise() -> None:
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert normalise(pictures, PREP)[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    own = normalise(pictures, Preprocessing(8, mean=(0.1, 0.2, 0.5), std=(0.5, 0.25, 2)))
    assert own[1, :, 3, 3].tolist() == pytest.approx([-0.2, 0, 0.25], abs=1e-6) and own.dtype == torch.float32
    last = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert normalise(last, PREP).is_contiguous(memory_format=torch.channels_last)


def test_workers_end_at_once_even_in_a_cycle_of_references() -> None:
    cycle: list[Any] = [training(made_split(8), workers=2)]
    cycle.append(cycle)
    next(cycle[0].epoch(0))
    del cycle
    start = time.monotonic()
    gc.collect()
    assert time.monotonic() - start < 5 and not multiprocessing.active_children()


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    list(training(made_split(4)).epoch(0))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
