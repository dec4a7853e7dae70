"""Crops worked out by hand on small images, and preprocessing as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inceptionnet.data import Augment, Preprocessing, centre_crop, random_crop
from inceptionnet.data.resizing import TRIES, random_box
from inceptionnet.errors import ConfigurationError, WeightsError


def coordinates(width: int, height: int) -> Image.Image:
    """Pixel (x, y) is (x, y, 7): a crop tells where it was taken."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, np.full_like(x, 7)], -1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))


def test_squash_takes_the_middle_of_each_side() -> None:
    # 16×8 px, 0.5 per side: x from 4 to 11, y from 2 to 5. To 4×4 px, x is averaged in pairs (with a triangle's
    # weights 1 3 3 1, on a ramp the pair's middle), and y is kept.
    found = centre_crop(coordinates(16, 8), Preprocessing(4, crop=0.5))
    assert found.shape == (4, 4, 3) and found.dtype == np.uint8
    assert found[:, 0, 1].tolist() == [2, 3, 4, 5]
    # Inside, the triangle is whole: middles 6.5 and 8.5. At the ends its outer eighth is missing: (3·4+3·5+6)/7 = 4.71.
    assert found[0, :, 0].tolist() == [5, 7, 9, 10] and (found[..., 2] == 7).all()


def test_squash_rounds_the_crop_as_tensorflow_does() -> None:
    # 20 px · 0.875: the border is int(1.25) = 1, so 18 px remain and not 17.
    found = centre_crop(coordinates(20, 20), Preprocessing(18))
    assert found[0, :, 0].tolist() == list(range(1, 19))


def test_keep_aspect_is_resize_then_centre_crop() -> None:
    for size in ((60, 41), (41, 60), (50, 50), (33, 200)):
        for interpolation, resample in (("bilinear", 2), ("bicubic", 3)):
            prep = Preprocessing(28, resize="keep-aspect", interpolation=interpolation)  # type: ignore[arg-type]
            image = noise(*size).point(lambda value: 64 + value // 2)  # no overshoot to clip
            width, height = (int(32 * side / min(size)) for side in size)  # 28 / 0.875 = 32
            left, top = round((width - 28) / 2), round((height - 28) / 2)
            full = image.resize((width, height), resample).crop((left, top, left + 28, top + 28))
            assert np.abs(centre_crop(image, prep).astype(int) - np.asarray(full)).max() <= 1


def test_keep_aspect_by_hand() -> None:
    # 20×10 px at its own scale (5 / 0.5 = 10 px): the middle 5 px start at round(7.5) = 8 and round(2.5) = 2.
    found = centre_crop(coordinates(20, 10), Preprocessing(5, crop=0.5, resize="keep-aspect"))
    assert found[0, :, 0].tolist() == [8, 9, 10, 11, 12] and found[:, 0, 1].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (2, 3), (3000, 17)])
@pytest.mark.parametrize("resize", ["squash", "keep-aspect"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_size_and_channel_count_works(size: tuple[int, int], resize: Any, mode: str) -> None:
    image = Image.new(mode, size, "white")
    channels = len(mode) if mode == "RGB" else 1
    for crop in (0.875, 1.0, 0.01):
        for interpolation in ("bicubic", "tf1-bilinear"):
            prep = Preprocessing(75, crop=crop, resize=resize, interpolation=interpolation, channels=channels)  # type: ignore[arg-type]
            found = centre_crop(image, prep)
            assert found.shape == (75, 75, channels) and (found == 255).all() and found.flags.writeable
    found = random_crop(image, 75, np.random.default_rng(0), area_min=0.05)
    assert found.shape == (75, 75, channels) and (found == 255).all()


# For pixel i of n, TensorFlow 1 looks at i · side / n; Pillow's affine transform at (i + 1/2) · a + c, less half a
# pixel, so c = (1 - a) / 2. Pillow leaves what is beyond the middle of the last pixel black: a margin is added there.
def tf1_by_pillow(image: Image.Image, width: int, height: int) -> np.ndarray:
    wide, high = image.size
    padded = Image.fromarray(np.pad(np.asarray(image), ((1, 1), (1, 1), (0, 0)), mode="edge"))
    a, e = wide / width, high / height
    moved = (a, 0, (1 - a) / 2 + 1, 0, e, (1 - e) / 2 + 1)
    found = padded.transform((width, height), Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR)
    return np.asarray(found).astype(int)


@pytest.mark.parametrize("size", [(40, 40), (61, 40), (13, 97), (9, 5), (300, 171)])
def test_tf1_bilinear_is_pillows_affine_transform(size: tuple[int, int]) -> None:
    image = noise(*size)
    left, top = (int((side - side * 0.875) / 2) for side in size)
    middle = image.crop((left, top, size[0] - left, size[1] - top))
    found = centre_crop(image, Preprocessing(28, interpolation="tf1-bilinear"))
    assert np.abs(found - tf1_by_pillow(middle, 28, 28)).max() <= 1

    found = centre_crop(image, Preprocessing(28, resize="keep-aspect", interpolation="tf1-bilinear"))
    width, height = (int(32 * side / min(size)) for side in size)
    left, top = round((width - 28) / 2), round((height - 28) / 2)
    assert np.abs(found - tf1_by_pillow(image, width, height)[top : top + 28, left : left + 28]).max() <= 1

    found = random_crop(image, 28, np.random.default_rng(0), area_min=0.3, interpolation="tf1-bilinear")
    box = random_box(*size, np.random.default_rng(0), area_min=0.3)
    assert np.abs(found - tf1_by_pillow(image.crop(box), 28, 28)).max() <= 1


def test_tf1_bilinear_by_hand() -> None:
    ramp = Image.fromarray(np.array([[0, 30, 60, 90, 120, 150]], np.uint8).repeat(3, 0))
    prep = Preprocessing(4, crop=1, interpolation="tf1-bilinear", channels=1)
    # 6 → 4 px: looked at 0, 1.5, 3, 4.5, with no shift by half a pixel.
    assert centre_crop(ramp, prep)[:, :, 0].tolist() == [[0, 45, 90, 135]] * 4
    # 2 → 4 px: 0, 0.5, 1 and 1.5, where there is no more than the last pixel.
    pair = Image.fromarray(np.array([[10, 20], [50, 60]], np.uint8))
    assert centre_crop(pair, prep)[:, :, 0].tolist() == [
        [10, 15, 20, 20], [30, 35, 40, 40], [50, 55, 60, 60], [50, 55, 60, 60]
    ]  # fmt: skip
    # 8 → 2 px without antialiasing: pixels 0 and 4 as they are.
    stripes = Image.fromarray(np.array([[0, 255] * 4] * 8, np.uint8))
    assert not centre_crop(stripes, dataclasses.replace(prep, size_px=2)).any()


def boxes(width: int, height: int, count: int = 400, **how: Any) -> np.ndarray:
    """(left, top, width, height) of random crops, read off an image that tells where each pixel was."""
    rng = np.random.default_rng(0)
    found = []
    ramp = coordinates(width, height)

    def spy(box: tuple[int, ...]) -> Image.Image:
        found.append((box[0], box[1], box[2] - box[0], box[3] - box[1]))
        return ramp

    image = Image.new("RGB", (width, height))
    image.crop = spy  # type: ignore[assignment, method-assign]
    for _ in range(count):
        random_crop(image, 8, rng, **how)
    return np.array(found)


def test_random_boxes_have_the_area_and_aspect_asked_for_and_reach_everywhere() -> None:
    left, top, width, height = boxes(200, 200, area_min=0.1, area_max=0.5).T
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 200).all() and (top + height <= 200).all()
    area, aspect = width * height / 40000, width / height
    assert 0.095 < area.min() < 0.11 and 0.48 < area.max() < 0.505
    assert 0.28 < area.mean() < 0.32  # even from 0.1 to 0.5
    assert 0.73 < aspect.min() < 0.77 and 1.30 < aspect.max() < 1.36 and 1.02 < aspect.mean() < 1.06
    assert left.min() <= 2 and top.min() <= 2 and (left + width).max() >= 198 and (top + height).max() >= 198


def test_random_crop_takes_the_first_box_that_fits_else_the_whole() -> None:
    assert (boxes(1, 200, 5, area_min=0.05) == (0, 0, 1, 200)).all()  # no aspect of 3/4 or more fits
    assert (boxes(10, 10, 5, area_min=1.0, aspect=(1.0, 1.0)) == (0, 0, 10, 10)).all()
    rng = np.random.default_rng(0)
    areas, aspects = 200 * 100 * rng.uniform(0.3, 1.0, TRIES), rng.uniform(3 / 4, 4 / 3, TRIES)
    expected = next(
        (w, h)
        for a, r in zip(areas, aspects, strict=True)
        if (w := round(math.sqrt(a * r))) <= 200 and (h := round(math.sqrt(a / r))) <= 100
    )
    assert tuple(boxes(200, 100, 1, area_min=0.3)[0, 2:]) == expected


def test_random_crop_is_resized_from_its_box() -> None:
    found = random_crop(coordinates(100, 100), 10, np.random.default_rng(3), area_min=0.3).astype(int)
    left, top, width, height = np.array(boxes_of_one(3))
    # Pixel i's middle lies at (i + 1/2) tenths of the box, and the value there is half a pixel less.
    assert abs(found[2, 6, 0] - (left + width * 0.65 - 0.5)) <= 0.51
    assert abs(found[2, 6, 1] - (top + height * 0.25 - 0.5)) <= 0.51
    assert found[..., 0].min() >= left and found[..., 0].max() < left + width  # nothing from outside the box


def boxes_of_one(seed: int) -> tuple[int, int, int, int]:
    rng = np.random.default_rng(seed)
    areas, aspects, (right, down) = 1e4 * rng.uniform(0.3, 1, TRIES), rng.uniform(3 / 4, 4 / 3, TRIES), rng.random(2)
    sizes = zip(np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects)), strict=True)
    width, height = next((int(w), int(h)) for w, h in sizes if w <= 100 and h <= 100)
    return int(right * (101 - width)), int(down * (101 - height)), width, height


def test_preprocessing_travels_as_json() -> None:
    prep = Preprocessing(
        224, crop=1, resize="keep-aspect", interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(1, 2, 3)
    )
    assert Preprocessing.from_dict(json.loads(json.dumps(prep.to_dict()))) == prep
    assert Preprocessing(32).mean == (0.5, 0.5, 0.5) and Preprocessing(32, channels=1).std == (0.5,)
    assert Preprocessing(299).to_dict() == {
        "size_px": 299,
        "crop": 0.875,
        "resize": "squash",
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "channels": 3,
    }


BAD: list[tuple[str, Any]] = [
    ("size_px", 0),
    ("size_px", "299"),
    ("size_px", 299.0),
    ("size_px", True),
    ("crop", 0),
    ("crop", 1.01),
    ("crop", float("nan")),
    ("crop", None),
    ("resize", "stretch"),
    ("resize", ["squash"]),
    ("interpolation", "nearest"),
    ("channels", 0),
    ("channels", 3.0),
    ("mean", [0.5, 0.5]),
    ("mean", 0.5),
    ("mean", ["a", "b", "c"]),
    ("std", [0.5, 0.5, 0]),
    ("std", []),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_values_of_no_use_are_refused(key: str, value: Any) -> None:
    with pytest.raises(WeightsError, match=f"^preprocessing {key}: expected .*, got .*: change {key}$"):
        Preprocessing.from_dict(Preprocessing(299).to_dict() | {key: value})
    with pytest.raises(ConfigurationError, match=f"^preprocessing {key}: "):
        Preprocessing(**({"size_px": 299} | {key: tuple(value) if isinstance(value, list) else value}))


def test_missing_and_unknown_keys_are_all_named() -> None:
    stored = Preprocessing(299).to_dict() | {"zoom": 1, "blur": 2}
    del stored["std"], stored["crop"]
    with pytest.raises(WeightsError, match="missing: crop, std, unknown: blur, zoom; "):
        Preprocessing.from_dict(stored)


@pytest.mark.parametrize("area_min", [0, -0.1, 1.1, "0.3", None])
def test_augment_refuses_areas_of_no_use(area_min: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^augment area_min: expected a number in \(0, 1\]"):
        Augment(area_min)
