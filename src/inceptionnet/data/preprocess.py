"""Picture → square uint8 array: the centre crop a checkpoint is evaluated with, and the Inception training crop.

Source: the released TensorFlow preprocessing ("squash") and its PyTorch ports ("keep-aspect"). Both are here by name
because a checkpoint's accuracy depends on which one it gets. Pillow's filters widen when they shrink a picture
(antialiasing); TensorFlow 1's did not, which costs or gains some tenths of a per cent either way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from inceptionnet.errors import ConfigurationError, WeightsError

Resize = Literal["squash", "keep-aspect"]
Interpolation = Literal["bilinear", "bicubic"]
Pixels = npt.NDArray[np.uint8]  # (H, W, C)

TRIES = 100
ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3  # width / height
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before a network sees it; travels with the weights as JSON.

    squash: the middle `crop` of each side, resized to a square whatever its aspect (released TensorFlow evaluation).
    keep-aspect: the short side resized to round(size_px / crop), then the middle square (PyTorch ports).
    mean, std: of pictures in [0, 1], per channel, or one value for all; 0.5 and 0.5 give [-1, 1].
    Raises: ConfigurationError for values that cannot be used.
    """

    size_px: int
    crop: float = 0.875
    resize: Resize = "squash"
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    channels: int = 3

    def __post_init__(self) -> None:
        whole = type(self.size_px) is int and self.size_px > 0
        _require("size_px", "a whole number of pixels from 1 up", self.size_px, whole)
        _require("crop", "a number in (0, 1]", self.crop, _is_number(self.crop) and 0 < self.crop <= 1)
        _require("resize", " or ".join(get_args(Resize)), self.resize, self.resize in get_args(Resize))
        filters = get_args(Interpolation)
        _require("interpolation", " or ".join(filters), self.interpolation, self.interpolation in filters)
        _require("channels", "a whole number", self.channels, type(self.channels) is int and self.channels > 0)
        for name in ("mean", "std"):
            values = getattr(self, name)
            usable = isinstance(values, tuple) and len(values) in (1, self.channels) and all(map(_is_number, values))
            usable = usable and (name == "mean" or min(values) > 0)
            _require(name, f"1 or {self.channels} numbers{' above 0' if name == 'std' else ''}", values, usable)
            full = tuple(map(float, values)) * (self.channels if len(values) == 1 else 1)
            object.__setattr__(self, name, full)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per field."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises: WeightsError for missing or unknown keys and for values of no use."""
        known = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != known:
            missing, unknown = sorted(known - stored.keys()), sorted(map(str, stored.keys() - known))
            raise WeightsError(
                f"preprocessing: expected the keys {', '.join(sorted(known))}, got "
                f"missing {', '.join(missing) or 'none'}, unknown {', '.join(unknown) or 'none'}: save the weights anew"
            )
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            return cls(**values)
        except ConfigurationError as error:
            raise WeightsError(str(error)) from None


@dataclass(frozen=True)
class Augment:
    """What training does to a picture: a random box of at least `area_min` of its area, mirrored half of the time."""

    area_min: float = 0.4
    flip: bool = True

    def __post_init__(self) -> None:
        usable = _is_number(self.area_min) and 0 < self.area_min <= 1
        _require("area_min", "a number in (0, 1]", self.area_min, usable, what="augment")


def centre_crop(image: Image.Image, prep: Preprocessing) -> Pixels:
    """The evaluation crop. Shapes: image of any size → (size_px, size_px, C)."""
    width, height = image.size
    size, resample = prep.size_px, _FILTERS[prep.interpolation]
    if prep.resize == "squash":
        left, top = (int((side - side * prep.crop) / 2) for side in (width, height))  # as tf.image.central_crop rounds
        cropped = image.crop((left, top, width - left, height - top))
        return _pixels(cropped.resize((size, size), resample))
    # Only the square is resized, so that a 1×2000 px picture needs no strip of 684 000 px. The numbers are those of
    # resizing the whole, but for bicubic overshoot at pure black and white, which Pillow clips between its two passes.
    short = round(size / prep.crop)
    resized = [int(short * side / min(width, height)) for side in (width, height)]
    starts = [round((side - size) / 2) for side in resized]
    (x0, x1), (y0, y1) = (
        (start * side / whole, (start + size) * side / whole)
        for start, side, whole in zip(starts, (width, height), resized, strict=True)
    )
    return _pixels(image.resize((size, size), resample, box=(x0, y0, min(x1, width), min(y1, height))))


def random_crop(
    image: Image.Image,
    size_px: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float = 1.0,
    aspect: tuple[float, float] = (ASPECT_MIN, ASPECT_MAX),
    interpolation: Interpolation = "bilinear",
) -> Pixels:
    """The Inception training crop: a random box of the picture, resized to a square.

    Paper: [v1] section 6, area spread evenly over [area_min, area_max] of the picture's; width / height is spread
    evenly over `aspect`, and the first of 100 boxes that fits is taken, else the whole picture, as in TensorFlow's
    sample_distorted_bounding_box (which spreads the height evenly, not the area). Every call takes as much from `rng`.
    Shapes: image of any size → (size_px, size_px, C).
    """
    width, height = image.size
    areas = width * height * rng.uniform(area_min, area_max, TRIES)
    aspects = rng.uniform(*aspect, TRIES)
    right, down = rng.random(2)
    widths, heights = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits = (widths >= 1) & (heights >= 1) & (widths <= width) & (heights <= height)
    first = int(fits.argmax())
    box_width, box_height = (int(widths[first]), int(heights[first])) if fits[first] else (width, height)
    left, top = int(right * (width - box_width + 1)), int(down * (height - box_height + 1))
    box = (left, top, left + box_width, top + box_height)
    return _pixels(image.resize((size_px, size_px), _FILTERS[interpolation], box=box))


def random_crop_source_px(size_px: int, area_min: float) -> int:
    """The short side from which on even the smallest training crop has `size_px` pixels: decode's `at_least_px`."""
    return math.ceil(size_px / math.sqrt(area_min * ASPECT_MIN))


def _pixels(image: Image.Image) -> Pixels:
    values = np.array(image)
    return values if values.ndim == 3 else values[:, :, None]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(name: str, expected: str, got: object, usable: bool, what: str = "preprocessing") -> None:
    if not usable:
        raise ConfigurationError(f"{what} {name}: expected {expected}, got {got!r}: change {name}")
