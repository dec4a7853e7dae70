"""Crops against those of whole images, colour against the standard library's colorsys and by hand, mirroring."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data import Augment, Preprocessing, decode, random_crop
from inceptionnet.data.augment import distort, flip, normalise, to_input, training_crop
from inceptionnet.data.preprocess import CHANGES, draw
from inceptionnet.data.resizing import random_box
from inceptionnet.errors import ConfigurationError, DecodeError

from .made import encoded, png

STILL = 0.5  # the draw that leaves brightness, saturation, hue and contrast as they are
SMALL = Preprocessing(16)
Pixels64 = np.ndarray  # (H, W, 3), float64


def draws(count: int = 1, **changes: float) -> torch.Tensor:
    row = [changes.get(name, {"mirror": 0.9, "order": 0.0}.get(name, STILL)) for name in CHANGES]
    return torch.tensor([row] * count)


def noise(count: int, channels: int = 3, side: int = 6) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, side, side, channels)).astype(np.uint8)
    values[:, 0, 0] = 0  # black, white, grey and pure colours, where HSV has its corners
    values[:, 0, 1] = 255
    values[:, 0, 2] = 100
    for i in range(channels):
        values[:, 1, i] = np.eye(channels, dtype=np.uint8)[i] * 255
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def image(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 5, width // 5, 3)).astype(np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def each_pixel(x: Pixels64, change: Callable[[float, float, float], Iterable[float]]) -> Pixels64:
    changed = []
    for red, green, blue in x.reshape(-1, 3):
        if max(red, green, blue) > 0:
            changed.append(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(red, green, blue))))
        else:
            changed.append((max(red, green, blue),) * 3)
    return np.array(changed).reshape(x.shape)


def operate(x: Pixels64, letter: str, row: dict[str, float]) -> Pixels64:
    """One operation as TensorFlow defines it, with colorsys for the colours."""
    if letter == "B":
        return x + (row["brightness"] * 64 - 32) / 255
    if letter == "C":
        return (x - x.mean((0, 1))) * (0.5 + row["contrast"]) + x.mean((0, 1))
    if letter == "S":
        return each_pixel(x, lambda h, s, v: (h, min(s * (0.5 + row["saturation"]), 1), v))
    return each_pixel(x, lambda h, s, v: ((h + 0.4 * row["hue"] - 0.2) % 1, s, v))


@pytest.mark.parametrize(
    ("color", "orders"),
    [("fast", ["BS", "SB"]), ("full", ["BSHC", "SBCH", "CHBS", "HSCB"])],
)
def test_distortions_are_those_of_colorsys_in_the_released_orders(color: Any, orders: list[str]) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([draw(rng) for _ in range(24)])
    rows[:, 1] = (np.arange(24) % len(orders) + 0.5) / len(orders)  # every order, mixed
    rows[:4, 2:], rows[4:8, 2:] = 0, 1 - 2**-24  # both ends of every range
    x = noise(24).float() / 255
    found = distort(x, torch.from_numpy(rows), color).permute(0, 2, 3, 1).double().numpy()
    for i, row in enumerate(rows):
        expected = x[i].permute(1, 2, 0).double().numpy()
        for letter in orders[i % len(orders)]:
            expected = operate(expected, letter, dict(zip(CHANGES, map(float, row), strict=True)))
        assert np.abs(found[i] - expected.clip(0, 1)).max() < 2e-5
    assert found.min() == 0 and found.max() == 1


def test_distortions_by_hand() -> None:
    x = torch.tensor([0.4, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    shifted = distort(x, draws(brightness=0.75), "fast")  # + 16/255
    assert shifted[0, :, 0, 0].tolist() == pytest.approx([0.4 + 16 / 255, 0.2 + 16 / 255, 0.2 + 16 / 255])
    # Saturation 0.2/0.4 = 1/2, × 3/2 is 3/4: the lowest becomes 0.4 · 1/4.
    vivid = distort(x, draws(saturation=1.0), "fast")
    assert vivid[0, :, 1, 1].tolist() == pytest.approx([0.4, 0.1, 0.1])
    # A fifth of a turn from red is 1.2 sixths: yellow at 1 is passed, red falls to 0.8 of the way, green is highest.
    turned = distort(x, draws(hue=1.0), "full")
    assert turned[0, :, 0, 1].tolist() == pytest.approx([0.2 + 0.2 * 0.8, 0.4, 0.2])
    # Mean 0.5: 0.25 and 0.75 move to 0.375 and 0.625 at contrast 1/2, to 0.125 and 0.875 at 3/2.
    stripes = torch.tensor([0.25, 0.75]).expand(1, 3, 2, 2)
    assert distort(stripes, draws(contrast=0.0), "full")[0, 0, 0].tolist() == pytest.approx([0.375, 0.625])
    assert distort(stripes, draws(contrast=1.0), "full")[0, 2, 1].tolist() == pytest.approx([0.125, 0.875])


def test_clipped_only_at_the_end() -> None:
    # BSHC: 0.95 + 32/255 = 1.0755 is above 1, and contrast 1/2 about the mean 0.6 + 0.1255 brings it back below.
    x = torch.tensor([0.95, 0.25]).expand(1, 3, 1, 2)
    found = distort(x, draws(brightness=1.0, contrast=0.0), "full")[0, 1, 0].tolist()
    assert found == pytest.approx([0.6 + 32 / 255 + 0.175, 0.6 + 32 / 255 - 0.175])


@pytest.mark.parametrize("order", [0.1, 0.3, 0.6, 0.9])
def test_grey_images_have_brightness_and_contrast_only(order: float) -> None:
    x = torch.tensor([0.0, 0.5]).expand(2, 1, 3, 2)
    rows = draws(2, order=order, brightness=1.0, contrast=0.0, saturation=1.0, hue=0.0)
    # Brightness shifts the mean along with the image, so either order gives the same.
    assert distort(x, rows, "full")[1, 0, 2].tolist() == pytest.approx([0.125 + 32 / 255, 0.375 + 32 / 255])
    assert distort(x, rows, "fast")[0, 0, 0].tolist() == pytest.approx([32 / 255, 0.5 + 32 / 255])


def test_draws_in_the_middle_change_nothing() -> None:
    x = noise(8).float() / 255
    rows = draws(8)
    rows[:, 1] = torch.arange(8) / 8
    for color in ("fast", "full"):
        assert (distort(x, rows, color) - x).abs().max() < 1e-6  # type: ignore[arg-type]
    assert torch.equal(distort(x, rows, "none"), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_flip(channels: int) -> None:
    x = noise(4, channels)
    rows = draws(4)
    rows[:, 0] = torch.tensor([0.0, 0.49, 0.5, 0.99])
    for values in (x, x.float()):
        found = flip(values, rows)
        assert found.dtype == values.dtype and torch.equal(found[2:], values[2:])
        assert (found[:2].numpy() == values[:2].numpy()[..., ::-1]).all()


def test_draw_takes_as_much_every_time_and_is_even() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([draw(rng) for _ in range(1000)])
    assert rows.shape == (1000, 6) and rows.dtype == np.float32 and rows.min() >= 0 and rows.max() < 1
    assert (np.abs(rows.mean(0) - 0.5) < 0.04).all()  # standard deviation 0.009
    again = np.random.default_rng(0).random((1000, 6), np.float32)
    assert (rows == again).all()


def crop(data: bytes, seed: int = 0, prep: Preprocessing = SMALL, **how: Any) -> np.ndarray:
    return training_crop(data, prep, Augment(**how), np.random.default_rng(seed), name="x")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "tf1-bilinear"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_training_crop_is_the_random_crop_of_the_whole_image(interpolation: Any, channels: int, format: str) -> None:
    prep = Preprocessing(40, interpolation=interpolation, channels=channels)
    for size in ((90, 70), (30, 41)):  # some boxes of the first, and all of the second, are enlarged
        data = encoded(image(*size), format)
        for seed in range(8):
            found = crop(data, seed, prep, area_min=0.1)
            whole = decode(data, channels=channels)
            rng = np.random.default_rng(seed)
            expected = random_crop(whole, 40, rng, area_min=0.1, interpolation=interpolation)
            assert found.dtype == np.uint8 and found.shape == (40, 40, channels)
            # Two libjpegs and two roundings; a JPEG's own brightness, and that of its colours as far as they exist.
            assert np.abs(found - expected.astype(int)).max() <= (8 if (format, channels) == ("JPEG", 1) else 3)
            assert (found == crop(data, seed, prep, area_min=0.1)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_training_crop_of_turned_images(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(image(90, 50), "JPEG", exif=exif)
    for seed in range(3):
        expected = random_crop(decode(data), 40, np.random.default_rng(seed), area_min=0.4)
        assert np.abs(crop(data, seed, Preprocessing(40), area_min=0.4) - expected.astype(int)).max() <= 3


def test_random_interpolation_is_one_of_four_for_the_same_box() -> None:
    data, found = encoded(image(60, 50)), set()
    for seed in range(40):
        pixels = crop(data, seed, interpolation="random", area_min=0.2).astype(int)
        box = random_box(60, 50, np.random.default_rng(seed), area_min=0.2)
        cut = decode(data).crop(box)
        gaps = {filter: np.abs(pixels - np.asarray(cut.resize((16, 16), filter))).max() for filter in (0, 2, 3, 4)}
        best = min(gaps, key=lambda filter: gaps[filter])
        assert gaps[best] <= 1
        found.add(best)
    assert found == {0, 2, 3, 4}  # Pillow's numbers: nearest, bilinear, bicubic, box


def test_training_crop_of_damaged_images() -> None:
    for data in (encoded(image(60, 50), "JPEG")[:-30], b"", b"GIF"):
        with pytest.raises(DecodeError, match=r"^x: \w+"):
            crop(data)
    with pytest.raises(ConfigurationError, match=r"^expected a network with 1 or 3 input channels, got 4"):
        crop(png(), prep=Preprocessing(8, channels=4))


def test_to_input_flips_distorts_and_normalises() -> None:
    prep = Preprocessing(6, mean=(0.1, 0.2, 0.5), std=(0.5, 0.25, 2))
    x, rows = noise(12), torch.from_numpy(np.stack([draw(np.random.default_rng(i)) for i in range(12)]))
    found = to_input(x, prep, Augment(color="full"), rows)
    mean, std = torch.tensor(prep.mean).view(3, 1, 1), torch.tensor(prep.std).view(3, 1, 1)
    expected = (distort(flip(x, rows).float() / 255, rows, "full") - mean) / std
    assert found.dtype == torch.float32 and torch.allclose(found, expected)
    mirrored = [i for i in range(12) if rows[i, 0] < 0.5]
    assert 0 < len(mirrored) < 12
    still = to_input(x, prep, Augment(flip=False, color="full"), rows)
    assert torch.allclose(found[mirrored], still[mirrored].flip(-1), atol=1e-5)
    assert torch.equal(to_input(x, prep), normalise(x, prep))
    assert torch.equal(to_input(x, prep, Augment(), rows), normalise(flip(x, rows), prep))
    assert not to_input(x[:0], prep, Augment(color="full"), rows[:0]).numel()


@pytest.mark.parametrize("color", ["none", "fast", "full"])
@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last])
def test_memory_order_stays(color: Any, format: Any) -> None:
    x = noise(5).contiguous(memory_format=format)
    rows = draws(5)
    rows[:, :2] = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    found = to_input(x, Preprocessing(6), Augment(color=color), rows)
    assert found.is_contiguous(memory_format=format)


@pytest.mark.parametrize("rows", [None, draws(3)])
def test_every_image_needs_its_draws(rows: torch.Tensor | None) -> None:
    got = "none" if rows is None else r"\(3, 6\)"
    with pytest.raises(ConfigurationError, match=rf"^draws: expected \(4, 6\), got {got}: "):
        to_input(noise(4), Preprocessing(6), Augment(), rows)


@pytest.mark.parametrize("key", ["color", "interpolation"])
@pytest.mark.parametrize("value", ["vivid", None, ["full"]])
def test_augment_refuses_words_of_no_use(key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^augment {key}: expected \w+( or \w+)+, got .*: change {key}$"):
        Augment(**{key: value})
