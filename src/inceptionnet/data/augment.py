"""Training augmentation: the random crop in a worker process; flips and colour on whole batches, on the device.

Source: the released TensorFlow preprocessing, with its colour operations, ranges and orders. Colour runs on the batch
because in a worker it would take longer than decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from inceptionnet.data.bands import Box, Pixels
from inceptionnet.data.decode import decode_box
from inceptionnet.data.preprocess import CHANGES, RANDOM_INTERPOLATIONS, AnyInterpolation, Augment, Color, Preprocessing
from inceptionnet.data.resizing import random_box, resize
from inceptionnet.errors import ConfigurationError

BRIGHTNESS = 32 / 255  # maximum shift, in either direction
SATURATION = CONTRAST = (0.5, 1.5)  # factors
HUE = 0.2  # maximum shift as a share of a full turn, in either direction
ORDERS = {"fast": ("BS", "SB"), "full": ("BSHC", "SBCH", "CHBS", "HSCB")}  # first letters of the operations


def training_crop(
    data: bytes, prep: Preprocessing, augment: Augment, rng: np.random.Generator, *, name: str = "image"
) -> Pixels:
    """A random crop of the encoded image `data`, resized but not flipped; a function of `data` and `rng` alone.

    Unlike `random_crop` it decodes only what the crop needs. It resizes with torch in a third of Pillow's time; the
    results agree (for bicubic to one grey value, where it overshoots).
    Shapes: → (size_px, size_px, C).
    Raises: DecodeError as `decode`, for the same images.
    """

    def choose(width: int, height: int) -> Box:
        return random_box(width, height, rng, area_min=augment.area_min)

    pixels = decode_box(data, choose, at_least_px=prep.size_px, channels=prep.channels, name=name)
    interpolation: AnyInterpolation = prep.interpolation
    if augment.interpolation == "random":
        interpolation = RANDOM_INTERPOLATIONS[rng.integers(len(RANDOM_INTERPOLATIONS))]
    if interpolation == "bilinear" or interpolation == "bicubic":
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        size = (prep.size_px, prep.size_px)
        resized: Pixels = F.interpolate(x, size, mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
        return resized
    return resize(Image.fromarray(pixels.squeeze(2) if prep.channels == 1 else pixels), prep.size_px, interpolation)


def to_input(
    images: torch.Tensor, prep: Preprocessing, augment: Augment | None = None, draws: torch.Tensor | None = None
) -> torch.Tensor:
    """Images as network input: flipped and colour-distorted by `draws` if there is an `augment`, then normalised.

    Shapes: images uint8 (N, C, H, W), on any device; draws float32 (N, 6), on the CPU, one row of `draw` per
    image → float32 (N, C, H, W), same device and memory format.
    Raises: ConfigurationError for an `augment` without one row of draws per image.
    """
    if augment is None:
        return normalise(images, prep)
    if draws is None or draws.shape != (len(images), len(CHANGES)):
        got = "none" if draws is None else tuple(draws.shape)
        raise ConfigurationError(
            f"draws: expected ({len(images)}, {len(CHANGES)}), got {got}: stack one row of draw() per image"
        )
    if augment.flip:
        images = flip(images, draws)
    if augment.color == "none":
        return normalise(images, prep)
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (prep.mean, prep.std))
    return distort(images.float().div_(255), draws, augment.color).sub_(mean).div_(std)


def normalise(images: torch.Tensor, prep: Preprocessing) -> torch.Tensor:
    """(x / 255 - mean) / std. Shapes: uint8 (N, C, H, W) → float32 (N, C, H, W), same device and memory format."""
    mean, std = (torch.tensor(values, device=images.device).view(-1, 1, 1) * 255 for values in (prep.mean, prep.std))
    return images.float().sub_(mean).div_(std)


def as_input(pixels: Sequence[Pixels], prep: Preprocessing, device: torch.device | str = "cpu") -> torch.Tensor:
    """Single images as network input. Shapes: uint8 (H, W, C) each → float32 (N, C, H, W) on the device."""
    return normalise(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(device), prep)


def flip(x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Random horizontal flip of half of the images. Shapes: x of any type (N, C, H, W), draws (N, 6) on the CPU."""
    mirrored = (draws[:, CHANGES.index("mirror")] < 0.5).to(x.device, non_blocking=True)
    return torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)


def distort(x: torch.Tensor, draws: torch.Tensor, color: Color) -> torch.Tensor:
    """Colour jitter: brightness, saturation, hue and contrast, per image with the strengths and order in `draws`.

    As in TensorFlow, values may leave [0, 1] between the operations and are clipped once, at the end. Saturation and
    hue are skipped for images of one channel.
    Shapes: x float (N, 3 or 1, H, W) in [0, 1]; draws (N, 6) on the CPU, so that grouping images by their order of
    operations does not synchronise with the device → as x.
    """
    if color == "none":
        return x
    out = torch.empty_like(x)
    picked = (draws[:, CHANGES.index("order")] * len(ORDERS[color])).long()
    for number, order in enumerate(ORDERS[color]):
        rows = (picked == number).nonzero().flatten()
        if len(rows):
            amounts, rows = (values.to(x.device, non_blocking=True) for values in (draws[rows], rows))
            part = x.index_select(0, rows).contiguous()  # contiguous planes: the operations work channel by channel
            out.index_copy_(0, rows, _operate_(part, amounts, order).clamp_(0, 1))
    return out


def _operate_(x: torch.Tensor, draws: torch.Tensor, order: str) -> torch.Tensor:
    # In place: on a CPU, allocating memory costs more than the arithmetic.
    amounts = dict(zip(CHANGES, draws.view(-1, len(CHANGES), 1, 1, 1).unbind(1), strict=True))
    for letter in order:
        if letter == "B":
            x.add_((2 * amounts["brightness"] - 1) * BRIGHTNESS)
        elif letter == "C":
            torch.lerp(x.mean((2, 3), keepdim=True), x, _between(CONTRAST, amounts["contrast"]), out=x)
        elif letter == "S" and x.shape[1] == 3:
            _saturate_(x, _between(SATURATION, amounts["saturation"]))
        elif letter == "H" and x.shape[1] == 3:
            _turn_hue_(x, (2 * amounts["hue"] - 1) * HUE)
    return x


def _between(ends: tuple[float, float], draw: torch.Tensor) -> torch.Tensor:
    return ends[0] + (ends[1] - ends[0]) * draw


def _saturate_(x: torch.Tensor, factor: torch.Tensor) -> None:
    """HSV saturation, (high - low) / high or 0 where high is 0 or less, times `factor`, clipped to 1.

    Hue and value stay: each channel's distance from the highest one is scaled like the saturation.
    """
    high, low = _extremes(x)
    scale = torch.minimum(factor, high / (high - low)).masked_fill_(high <= 0, 0)
    torch.lerp(high, x, scale, out=x)


def _turn_hue_(x: torch.Tensor, turn: torch.Tensor) -> None:
    """HSV hue, in sixths of a full turn (red 0, green 2, blue 4); the highest and lowest values stay."""
    high, low = _extremes(x)
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    span = high - low
    sixths = torch.where(green == high, blue - red + 2 * span, red - green + 4 * span)
    sixths = torch.where(red == high, green - blue, sixths).div_(span).masked_fill_(span == 0, 0)
    sixths.add_(6 * turn).remainder_(6)
    low.copy_(torch.where(high > 0, low, high))
    for channel, middle in ((green, 2), (blue, 4)):
        torch.lerp(low, high, (2 - (sixths - middle).abs_()).clamp_(0, 1), out=channel)
    torch.lerp(low, high, ((sixths - 3).abs_() - 1).clamp_(0, 1), out=red)


def _extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    return torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
