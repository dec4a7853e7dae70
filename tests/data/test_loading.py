"""Batches: order, randomness, worker counts, corrupt images, normalisation."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data import Augment, Preprocessing, Split, centre_crop, decode
from inceptionnet.data.augment import normalise, to_input
from inceptionnet.data.loading import Batch, EvalLoader, TrainLoader
from inceptionnet.data.order import parts_of
from inceptionnet.data.splits import Encoded, StreamSplit
from inceptionnet.errors import DataError, DecodeError
from inceptionnet.system.distributed import World

from .made import encoded, png

PREP = Preprocessing(8)


def made_split(count: int, bad: Iterable[int] = ()) -> Split:
    rng = np.random.default_rng(0)
    images = [encoded(Image.fromarray(rng.integers(0, 256, (12, 14, 3)).astype(np.uint8))) for _ in range(count)]
    for i in bad:
        images[i] = images[i][:-60]
    return Split([f"{i}.png" for i in range(count)], np.arange(count) % 3, images.__getitem__)


def made_stream(count: int, states: int | None = None, bad: Iterable[int] = ()) -> StreamSplit:
    """The images of `made_split` in shards of five; `states` is how many it says there are."""
    split = made_split(count, bad)

    def read(shard: int) -> Iterator[Encoded]:
        for i in range(5 * shard, min(5 * shard + 5, count)):
            yield split.names[i], int(split.labels[i]), split.read(i)

    return StreamSplit("made", count if states is None else states, -(-count // 5), read)


def training(split: Split | StreamSplit, batch_size: int = 4, **how: Any) -> TrainLoader:
    options: dict[str, Any] = {"seed": 0, "workers": 0, "corrupt_images": "fail"} | how
    return TrainLoader(split, PREP, options.pop("augment", Augment()), batch_size=batch_size, **options)


def assert_same(left: Iterable[Batch], right: Iterable[Batch]) -> None:
    for a, b in zip(left, right, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices) and a.decode_errors == b.decode_errors
        assert torch.equal(a.rows, b.rows) and torch.equal(a.draws, b.draws) and a.planned == b.planned


def joined(shares: list[Batch]) -> Batch:
    """The shares of several processes as one batch, in order of rows."""
    rows = torch.cat([share.rows for share in shares])
    tensors = {
        name: torch.cat([getattr(share, name) for share in shares])[rows.argsort()]
        for name in ("images", "labels", "indices", "rows", "draws")
    }
    (planned,) = {share.planned for share in shares}
    return Batch(
        planned=planned, decode_errors=tuple(one for share in shares for one in share.decode_errors), **tensors
    )


def test_evaluation_sees_every_image_once_in_order() -> None:
    split = made_split(10)
    loader = EvalLoader(split, PREP, batch_size=4, workers=0, corrupt_images="fail")
    for _ in range(2):
        batches = list(loader)
        assert [len(batch) for batch in batches] == [4, 4, 2] and len(loader) == 3
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))
        assert torch.cat([batch.labels for batch in batches]).tolist() == split.labels.tolist()
    first = batches[0].images
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
    alone, helped = (training(split, workers=workers, corrupt_images="skip") for workers in (0, 2))
    for epoch in (0, 1):  # the second epoch comes from the same workers
        assert_same(alone.epoch(epoch), helped.epoch(epoch))
    one, two = (EvalLoader(split, PREP, batch_size=4, workers=workers, corrupt_images="skip") for workers in (0, 2))
    assert_same(one, two)


def test_an_epoch_can_be_entered_in_its_middle_and_left() -> None:
    loader = training(made_split(14), workers=2)
    whole = list(loader.epoch(2))
    next(loader.epoch(1))  # left unfinished
    assert_same(loader.epoch(2, first_batch=2), whole[2:])
    assert_same(loader.epoch(2), whole)
    assert len(loader) == 4


def test_images_change_from_epoch_to_epoch_and_flips_are_half() -> None:
    """The loader leaves images as they lie; `to_input` mirrors them as their draws say."""
    split, upright = made_split(2), Augment(area_min=1.0, flip=False)
    loader, still = training(split, 2, augment=Augment(area_min=1.0)), training(split, 2, augment=upright)
    mirrored = 0
    for epoch in range(40):
        (a,), (b,) = loader.epoch(epoch), still.epoch(epoch)
        assert torch.equal(a.images, b.images) and torch.equal(a.draws, b.draws)
        as_is = normalise(a.images, PREP)
        assert torch.equal(to_input(b.images, PREP, upright, b.draws), as_is)
        for x, y in zip(to_input(a.images, PREP, Augment(), a.draws), as_is, strict=True):
            assert torch.equal(x, y) or torch.equal(x, y.flip(-1))
            mirrored += not torch.equal(x, y)
    assert 25 <= mirrored <= 55  # 40 of 80 expected, standard deviation 4.5
    crops = training(split, 2, augment=Augment(area_min=0.1, flip=False))
    (a,), (b,) = crops.epoch(0), crops.epoch(1)
    assert not torch.equal(a.images[a.indices.argsort()], b.images[b.indices.argsort()])


def test_draws_are_those_of_seed_epoch_and_image() -> None:
    for batch in training(made_split(10), seed=5).epoch(3):
        expected = [np.random.default_rng((5, 3, int(i))).random(6, np.float32) for i in batch.indices]
        assert batch.draws.dtype == torch.float32 and (batch.draws.numpy() == expected).all()
    for batch in EvalLoader(made_split(3), PREP, batch_size=2, workers=0, corrupt_images="fail"):
        assert batch.draws.shape == (len(batch), 6) and not batch.draws.any(), "nothing by chance in evaluation"


def test_rows_are_places_in_the_planned_step() -> None:
    """Of 10 images in batches of 3, 3 and 4 those called 3, 6 and 7 are corrupt: their rows are missing, none moves."""
    order = np.random.default_rng((0, 1)).permutation(10)
    batches = list(training(made_split(10, bad=[3, 6, 7]), corrupt_images="skip").epoch(1))
    assert [batch.planned for batch in batches] == [3, 3, 4]
    for batch, (start, stop) in zip(batches, ((0, 3), (3, 6), (6, 10)), strict=True):
        chosen = order[start:stop]
        good = [(row, i) for row, i in enumerate(chosen.tolist()) if i not in (3, 6, 7)]
        assert list(zip(batch.rows.tolist(), batch.indices.tolist(), strict=True)) == good
        assert sorted(name for name, _ in batch.decode_errors) == sorted(f"{i}.png" for i in chosen if i in (3, 6, 7))
        assert batch.images.shape == (len(good), 3, 8, 8) and batch.rows.dtype == torch.int64


def test_parts_of_a_step_by_hand() -> None:
    assert parts_of(8, 1) == [range(8)]
    assert parts_of(8, 2) == [range(4), range(4, 8)]
    assert parts_of(9, 2) == [range(4), range(4, 9)]
    assert parts_of(10, 3) == [range(3), range(3, 6), range(6, 10)]
    assert parts_of(5, 4) == [range(2), range(2, 5)], "no part of one image"
    assert parts_of(3, 2) == [range(3)] and parts_of(1, 4) == [range(1)]
    for planned in range(1, 40):
        for parts in range(1, 9):
            found = parts_of(planned, parts)
            assert [row for part in found for row in part] == list(range(planned))
            assert min(map(len, found)) >= min(2, planned) and max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("parts", [1, 2])
def test_shares_of_several_processes_are_the_batches_of_one(size: int, parts: int) -> None:
    """Also with broken images, with a last batch of 3 for 5 processes, and each part shared as evenly as can be."""
    split = made_split(19, bad=[4, 11])
    alone = list(training(split, 8, corrupt_images="skip").epoch(2))
    shares = [
        list(training(split, 8, corrupt_images="skip", parts=parts, world=World(rank, size)).epoch(2))
        for rank in range(size)
    ]
    for number, whole in enumerate(alone):
        mine = [share[number] for share in shares]
        whole = replace(whole, decode_errors=tuple(sorted(whole.decode_errors)))
        together = joined(mine)
        assert_same([replace(together, decode_errors=tuple(sorted(together.decode_errors)))], [whole])
    full = [list(training(made_split(16), 8, parts=parts, world=World(rank, size)).epoch(0)) for rank in range(size)]
    for part in parts_of(8, parts):
        counts = [int(((share[0].rows >= part.start) & (share[0].rows < part.stop)).sum()) for share in full]
        assert sum(counts) == len(part) and max(counts) - min(counts) <= 1


def test_several_processes_evaluate_every_image_once() -> None:
    split = made_split(10, bad=[2])
    options: dict[str, Any] = {"batch_size": 4, "workers": 0, "corrupt_images": "skip"}
    alone = list(EvalLoader(split, PREP, **options))
    shares = [list(EvalLoader(split, PREP, **options, world=World(rank, 3))) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3], "as many batches, so that all wait for each other"
    assert_same([joined(list(batches)) for batches in zip(*shares, strict=True)], alone)
    assert torch.cat([batch.indices for batch in alone]).tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (9, 4, [3, 3, 3]),
        (10, 4, [3, 3, 4]),
        (50, 8, [7, 7, 7, 7, 7, 7, 8]),
        (16, 8, [8, 8]),
        (5, 2, [2, 2]),  # one of them would be alone in its batch, which batch norm cannot train on
        (1, 4, []),
        (3, 1, [1, 1, 1]),
    ],
)
def test_batches_of_training_are_of_one_size(images: int, batch_size: int, sizes: list[int]) -> None:
    loader = training(made_split(images), batch_size)
    assert [len(batch) for batch in loader.epoch(0)] == sizes and len(loader) == len(sizes)
    assert [batch.planned for batch in loader.epoch(0)] == sizes
    evaluation = EvalLoader(made_split(images), PREP, batch_size=batch_size, workers=0, corrupt_images="fail")
    assert sum(map(len, evaluation)) == images


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_fails_by_name_in_one_line(workers: int) -> None:
    split = made_split(6, bad=[4])
    for batches in (
        iter(EvalLoader(split, PREP, batch_size=2, workers=workers, corrupt_images="fail")),
        training(split, 2, workers=workers).epoch(0),
    ):
        with pytest.raises(
            DecodeError, match=r"^4\.png: is truncated or damaged \(.*\); .*--corrupt-images skip$"
        ) as caught:
            list(batches)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_decode_errors_are_left_out_and_listed(workers: int) -> None:
    split = made_split(7, bad=[1, 2, 3])
    loader = EvalLoader(split, PREP, batch_size=2, workers=workers, corrupt_images="skip")
    batches = list(loader)
    assert [batch.indices.tolist() for batch in batches] == [[0], [], [4, 5], [6]]
    assert [[name for name, _ in batch.decode_errors] for batch in batches] == [["1.png"], ["2.png", "3.png"], [], []]
    assert batches[0].decode_errors[0][1].startswith("is truncated or damaged (")
    assert batches[1].images.shape == (0, 3, 8, 8) and len(batches[1]) == 0


def test_an_epoch_of_decode_errors_only_is_an_error() -> None:
    loader = EvalLoader(made_split(4, bad=range(4)), PREP, batch_size=2, workers=0, corrupt_images="skip")
    with pytest.raises(DataError, match=r"got 4 of which none can be decoded, such as 3\.png \(is truncated"):
        list(loader)


def test_grey_images() -> None:
    split = Split(["a", "b"], np.array([0, 1]), [png(10), png(20)].__getitem__)
    prep = Preprocessing(8, channels=1)
    (batch,) = EvalLoader(split, prep, batch_size=2, workers=0, corrupt_images="fail")
    assert batch.images.shape == (2, 1, 8, 8) and batch.images[:, 0, 0, 0].tolist() == [10, 20]
    assert normalise(batch.images, prep).shape == (2, 1, 8, 8)


def test_normalise() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert normalise(images, PREP)[0, :, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])
    own = normalise(images, Preprocessing(8, mean=(0.1, 0.2, 0.5), std=(0.5, 0.25, 2)))
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


def test_a_stream_is_batched_in_the_order_in_which_it_comes() -> None:
    stream = made_stream(13)
    for epoch in (0, 2):
        names = [name for name, _, _ in stream.iterate(epoch, 0)]
        assert sorted(names) == sorted(f"{i}.png" for i in range(13)) and names != [f"{i}.png" for i in range(13)]
        batches = list(training(stream, seed=0).epoch(epoch))
        assert [len(batch) for batch in batches] == [3, 3, 3, 4]
        labels = [int(name.removesuffix(".png")) % 3 for name in names]
        assert torch.cat([batch.labels for batch in batches]).tolist() == labels
        assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(13))
        assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2]] * 3 + [[0, 1, 2, 3]]
    loader = EvalLoader(stream, PREP, batch_size=5, workers=0, corrupt_images="fail")
    for _ in range(2):
        same = EvalLoader(made_split(13), PREP, batch_size=5, workers=0, corrupt_images="fail")
        assert_same(loader, same)


def test_streams_are_the_same_with_workers_and_processes() -> None:
    stream = made_stream(23, bad=[8, 9])
    alone, helped = (training(stream, workers=workers, corrupt_images="skip") for workers in (0, 2))
    for epoch in (0, 1):
        assert_same(alone.epoch(epoch), helped.epoch(epoch))
    one, two = (EvalLoader(stream, PREP, batch_size=4, workers=workers, corrupt_images="skip") for workers in (0, 2))
    assert_same(one, two)
    shares = [list(training(stream, corrupt_images="skip", world=World(rank, 2)).epoch(1)) for rank in range(2)]
    assert_same([joined(list(batches)) for batches in zip(*shares, strict=True)], alone.epoch(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_of_a_stream_can_be_entered_in_its_middle_and_left(workers: int) -> None:
    loader = training(made_stream(14), workers=workers)
    whole = list(loader.epoch(2))
    next(loader.epoch(1))  # left unfinished
    assert_same(loader.epoch(2, first_batch=2), whole[2:])
    assert_same(loader.epoch(2), whole)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("states", "got"), [(14, "9"), (8, "more"), (5, "more")])
def test_a_stream_that_holds_other_than_it_states_says_so(states: int, got: str, workers: int) -> None:
    stream = made_stream(9, states=states)
    for batches in (
        training(stream, workers=workers).epoch(0),
        iter(EvalLoader(stream, PREP, batch_size=4, workers=workers, corrupt_images="skip")),
    ):
        with pytest.raises(DataError, match=rf"^made: expected {states} images, got {got}: ") as caught:
            list(batches)
        assert "\n" not in str(caught.value)
