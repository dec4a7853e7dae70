"""TrivialAugment, RandAugment and random erasing: operations by hand, their draws, and what a loader makes of them.

tests/peers/test_augmentation.py compares the operations and their ranges with torchvision's.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data import Augment, Preprocessing
from inceptionnet.data.loading import TrainLoader
from inceptionnet.data.policies import erase, operate, rand_space, trivial_space, vary
from inceptionnet.errors import ConfigurationError

from .test_loading import assert_same, made_split

PREP = Preprocessing(8, mean=(0.5, 0.25, 1.0))


def noise(size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, channels)).astype(np.uint8)


def after(name: str, amount: float, values: list[list[int]], fill: int = 7) -> list[list[int]]:
    made = operate(Image.fromarray(np.array(values, np.uint8)), name, amount, fill)
    return np.asarray(made).tolist()


@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("identity", 0, [[0, 10, 20], [30, 40, 50], [60, 70, 200]]),
        ("translate_x", 1.9, [[7, 0, 10], [7, 30, 40], [7, 60, 70]]),  # whole pixels
        ("translate_x", -1, [[10, 20, 7], [40, 50, 7], [70, 200, 7]]),
        ("translate_y", 1, [[7, 7, 7], [0, 10, 20], [30, 40, 50]]),
        ("shear_x", 0.5, [[0, 10, 20], [40, 50, 7], [70, 200, 7]]),  # column x is read from x + (y + 1/2) / 2
        ("shear_y", -1, [[0, 7, 7], [30, 10, 7], [60, 40, 20]]),
        ("rotate", 90, [[20, 50, 200], [10, 40, 70], [0, 30, 60]]),  # against the clock
        ("brightness", -0.5, [[0, 5, 10], [15, 20, 25], [30, 35, 100]]),
        ("posterize", 2, [[0, 0, 0], [0, 0, 0], [0, 64, 192]]),
        ("solarize", 60, [[0, 10, 20], [30, 40, 50], [195, 185, 55]]),
        ("autocontrast", 0, [[0, 12, 25], [38, 51, 63], [76, 89, 254]]),  # 255 / 200 · 200, which Pillow rounds down
        ("color", 0.9, [[0, 10, 20], [30, 40, 50], [60, 70, 200]]),  # grey has none
    ],
)
def test_operations_by_hand(name: str, amount: float, expected: list[list[int]]) -> None:
    assert after(name, amount, [[0, 10, 20], [30, 40, 50], [60, 70, 200]]) == expected


def test_what_comes_into_the_image_has_the_mean_colour() -> None:
    """Of an image that is shifted by up to 32 of its 40 px, all that is not black is the fill."""
    prep, black = Preprocessing(40, mean=(0.5, 0.25, 1.0)), np.zeros((40, 40, 3), np.uint8)
    seen = set()
    for seed in range(40):
        found = vary(black, prep, Augment(policy="trivial"), np.random.default_rng(seed)).reshape(-1, 3)
        seen |= set(map(tuple, found.tolist()))
    assert {(0, 0, 0), (128, 64, 255)} <= seen <= {(0, 0, 0), (128, 64, 255), (255, 255, 255)}, "solarize is white"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_policy_is_its_operations_one_after_another(policy: Any, channels: int) -> None:
    prep = Preprocessing(40, channels=channels)
    pixels = noise(40, channels)
    fill = (128,) * channels if channels == 3 else 128
    augment, used = Augment(policy=policy, rand_operations=3, rand_magnitude=17), set()
    for seed in range(150):
        rng = np.random.default_rng(seed)
        image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
        space = trivial_space() if policy == "trivial" else rand_space(40)
        for _ in range(1 if policy == "trivial" else 3):
            name = list(space)[rng.integers(14)]
            level = rng.integers(31) if policy == "trivial" else 17
            sign = -1 if rng.integers(2) and space[name][1] else 1
            image = operate(image, name, sign * float(space[name][0][level]), fill)
            used.add(name)
        found = vary(pixels, prep, augment, np.random.default_rng(seed))
        assert found.shape == pixels.shape and found.dtype == np.uint8
        assert np.array_equal(found.squeeze(), np.asarray(image))
    assert used == set(trivial_space()) == set(rand_space(40)) and len(used) == 14


def test_without_a_policy_nothing_changes_and_nothing_is_drawn() -> None:
    rng, pixels = np.random.default_rng(0), noise()
    assert vary(pixels, PREP, Augment(), rng) is pixels
    assert rng.random() == np.random.default_rng(0).random()


def test_erasing_is_one_rectangle_of_the_mean_colour() -> None:
    """Areas are uniform from 2 % to a third, so 17.7 % on average; their logarithmic aspect is on average 0."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    areas, aspects, touched = [], [], np.zeros((64, 64))
    for seed in range(400):
        found = erase(pixels, (128, 64, 255), np.random.default_rng(seed))
        inside = found.any(2)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == (128, 64, 255)).all() and inside.sum() == box[..., 0].size
        areas.append(inside.mean())
        aspects.append(len(rows) / len(columns))
        touched += inside
    assert not pixels.any(), "not in place"
    assert 0.015 < min(areas) < 0.03 and 0.31 < max(areas) < 0.34 and np.mean(areas) == pytest.approx(0.177, abs=0.02)
    assert min(aspects) > 0.27 and max(aspects) < 3.7 and abs(np.mean(np.log(aspects))) < 0.15
    assert all(touched[edge].any() for edge in ([0], [-1], np.s_[:, 0], np.s_[:, -1])), "at the borders too"


def test_the_probability_of_erasing() -> None:
    pixels = noise()
    changed = {
        p: sum(not np.array_equal(pixels, vary(pixels, PREP, Augment(erase=p), np.random.default_rng(i))) for i in
               range(400))
        for p in (0.25, 1.0)
    }  # fmt: skip
    assert changed[1.0] == 400 and 60 < changed[0.25] < 140  # 100, standard deviation 8.7


def test_an_image_of_one_pixel() -> None:
    for seed, policy in itertools.product(range(30), ("trivial", "rand")):
        found = vary(noise(1), PREP, Augment(policy=policy, erase=1.0), np.random.default_rng(seed))  # type: ignore[arg-type]
        assert found.tolist() == [[[128, 64, 255]]]


def loader(workers: int = 0, sampler: Any = "shuffled", **augment: Any) -> TrainLoader:
    return TrainLoader(
        made_split(14), Preprocessing(8), Augment(**augment), batch_size=4, seed=3, workers=workers,
        corrupt_images="fail", sampler=sampler,
    )  # fmt: skip


def test_policies_depend_on_seed_epoch_and_image_alone() -> None:
    how: dict[str, Any] = {"policy": "rand", "erase": 0.5}
    one, other = loader(**how), loader(2, **how)
    for epoch in (1, 2):
        whole = list(one.epoch(epoch))
        assert_same(other.epoch(epoch), whole)
        assert_same(other.epoch(epoch, first_batch=2), whole[2:])
    plain = torch.cat([batch.images for batch in loader().epoch(1)])
    varied = torch.cat([batch.images for batch in one.epoch(1)])
    assert sum(not torch.equal(a, b) for a, b in zip(plain, varied, strict=True)) >= 9, "of 14"
    draws = [torch.cat([batch.draws for batch in each.epoch(1)]) for each in (loader(), one)]
    assert torch.equal(*draws), "crops and flips stay as they were"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"policy": "auto"}, "none or trivial or rand, got 'auto'"),
        ({"rand_operations": 0}, "a whole number from 1 up, got 0"),
        ({"rand_magnitude": 31}, "a whole number from 0 to 30, got 31"),
        ({"mixup": -0.1}, "a number from 0 up, got -0.1"),
        ({"cutmix": float("nan")}, "a number from 0 up, got nan"),
        ({"erase": 1.5}, r"a number in \[0, 1\], got 1.5"),
    ],
)
def test_augment_refuses_numbers_of_no_use(settings: dict[str, Any], expected: str) -> None:
    (name,) = settings
    with pytest.raises(ConfigurationError, match=rf"^augment {name}: expected {expected}: change {name}$"):
        Augment(**settings)
