"""Augmentation policies on a training crop, in a worker process: TrivialAugment, RandAugment and random erasing.

Source: Müller and Hutter, TrivialAugment, ICCV 2021 (the wide space); Cubuk et al., RandAugment, NeurIPS 2020; Zhong et
al., Random Erasing, AAAI 2020. Operations, ranges and the numbering of magnitudes are those of torchvision's
TrivialAugmentWide, RandAugment and RandomErasing; the operations themselves are Pillow's. What a geometric operation
uncovers, and what is erased, has the mean colour of the preprocessing, as in timm; torchvision leaves it black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from inceptionnet.data.bands import Pixels
from inceptionnet.data.preprocess import LEVELS, Augment, Preprocessing

Fill: TypeAlias = int | tuple[int, ...]
Space: TypeAlias = Mapping[str, tuple[npt.NDArray[np.float64], bool]]

ERASED_AREA = (0.02, 1 / 3)  # relative to the image's
ERASED_ASPECT = (0.3, 3.3)  # height / width


def vary(pixels: Pixels, prep: Preprocessing, augment: Augment, rng: np.random.Generator) -> Pixels:
    """The crop after the policy of `augment` and random erasing; a function of the crop and `rng` alone.

    Colour saturation leaves images of one channel as they are, as in Pillow.
    Shapes: (H, W, C), C is 1 or 3 → the same.
    """
    fill = tuple(min(max(round(255 * value), 0), 255) for value in prep.mean)
    if augment.policy != "none":
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
        count = augment.rand_operations if augment.policy == "rand" else 1
        space = trivial_space() if augment.policy == "trivial" else rand_space(pixels.shape[1])
        names = list(space)
        for _ in range(count):
            name = names[rng.integers(len(names))]
            level = int(rng.integers(LEVELS)) if augment.policy == "trivial" else augment.rand_magnitude
            mirrored = bool(rng.integers(2))
            amounts, signed = space[name]
            amount = float(amounts[level])
            image = operate(
                image, name, -amount if signed and mirrored else amount, fill[0] if len(fill) == 1 else fill
            )
        pixels = np.array(image).reshape(pixels.shape)
    return erase(pixels, fill, rng) if augment.erase and rng.random() < augment.erase else pixels


@cache
def trivial_space() -> Space:
    """Operation → (its amount at each of the LEVELS magnitudes, whether a random sign applies), of TrivialAugment."""
    return _space(shear=0.99, translate_px=32.0, degrees=135.0, factor=0.99, bits=6)


@cache
def rand_space(size_px: int) -> Space:
    """The same for RandAugment, whose translations grow with the image."""
    return _space(shear=0.3, translate_px=150 / 331 * size_px, degrees=30.0, factor=0.9, bits=4)


def _space(*, shear: float, translate_px: float, degrees: float, factor: float, bits: int) -> Space:
    steps = np.arange(LEVELS) / (LEVELS - 1)
    none = np.zeros(LEVELS)
    return {
        "identity": (none, False),
        "shear_x": (shear * steps, True),
        "shear_y": (shear * steps, True),
        "translate_x": (translate_px * steps, True),
        "translate_y": (translate_px * steps, True),
        "rotate": (degrees * steps, True),
        "brightness": (factor * steps, True),
        "color": (factor * steps, True),
        "contrast": (factor * steps, True),
        "sharpness": (factor * steps, True),
        "posterize": (8 - np.rint(bits * steps), False),
        "solarize": (255 * (1 - steps), False),
        "autocontrast": (none, False),
        "equalize": (none, False),
    }


ENHANCERS: Mapping[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def operate(image: Image.Image, name: str, amount: float, fill: Fill) -> Image.Image:
    """One operation on an image of mode L or RGB.

    Units of `amount`: pixels for translate, degrees for rotate, remaining bits for posterize, grey values for solarize;
    the slope for shear; the factor less 1 for brightness, color, contrast and sharpness.
    """
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(1 + amount)
    match name:
        case "shear_x":
            return _affine(image, (1, amount, 0, 0, 1, 0), fill)
        case "shear_y":
            return _affine(image, (1, 0, 0, amount, 1, 0), fill)
        case "translate_x":
            return _affine(image, (1, 0, -int(amount), 0, 1, 0), fill)
        case "translate_y":
            return _affine(image, (1, 0, 0, 0, 1, -int(amount)), fill)
        case "rotate":
            return image.rotate(amount, Image.Resampling.NEAREST, fillcolor=fill)
        case "posterize":
            return ImageOps.posterize(image, int(amount))
        case "solarize":
            return ImageOps.solarize(image, amount)  # type: ignore[arg-type]
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    return image


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    # Bilinear takes twelve times as long as nearest in Pillow, and both torchvision and the papers use nearest.
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill)


def erase(pixels: Pixels, fill: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """Random erasing of a rectangle. Shapes: (H, W, C), one value of `fill` per channel → the same.

    A side that is longer than the image is cut to it; torchvision draws such a rectangle again.
    """
    height, width = pixels.shape[:2]
    area, aspect, down, right = rng.random(4)
    area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area)
    low, high = map(math.log, ERASED_ASPECT)
    aspect = math.exp(low + (high - low) * aspect)
    tall = min(max(round(math.sqrt(area * aspect)), 1), height)
    wide = min(max(round(math.sqrt(area / aspect)), 1), width)
    top, left = int(down * (height - tall + 1)), int(right * (width - wide + 1))
    erased = pixels.copy()
    erased[top : top + tall, left : left + wide] = fill
    return erased
