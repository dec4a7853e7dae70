"""Preprocessing: image → square uint8 array, by the centre crop for evaluation or the Inception training crop.

Source: the released TensorFlow preprocessing ("squash") and its PyTorch ports ("keep-aspect"). A checkpoint's accuracy
depends on which of the two it gets. Pillow's filters antialias when downscaling; TensorFlow 1's bilinear did not
("tf1-bilinear"), which changes accuracy by a few tenths of a percentage point. The random numbers of a training image
are drawn here, in the worker process; augment.py applies them.
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

from inceptionnet.data.bands import Box, Pixels, bands, pixels_at
from inceptionnet.errors import ConfigurationError, WeightsError, listed

Resize = Literal["squash", "keep-aspect"]
Interpolation = Literal["bilinear", "bicubic", "tf1-bilinear"]
AnyInterpolation = Literal[Interpolation, "nearest", "area"]
Color = Literal["none", "fast", "full"]
TrainInterpolation = Literal["same", "random"]
Policy = Literal["none", "trivial", "rand"]

MOST_PX = 8192
"""The largest size of a network's images."""
MOST_CHANNELS = 1024
VALUES = {"mean": (-1e4, 1e4), "std": (1e-4, 1e4)}
"""Bounds of these, for images in [0, 1]."""
TRIES = 100
ASPECT_MIN, ASPECT_MAX = 3 / 4, 4 / 3  # width / height
RANDOM_INTERPOLATIONS: tuple[AnyInterpolation, ...] = ("bilinear", "nearest", "bicubic", "area")
LEVELS = 31  # magnitudes of a policy, from 0
CHANGES = ("mirror", "order", "brightness", "saturation", "hue", "contrast")  # the columns of `draw`
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "area": Image.Resampling.BOX,
}


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing; saved with the weights, as JSON.

    squash: the central `crop` of each side, resized to a square regardless of aspect ratio (TensorFlow's release).
    keep-aspect: the short side resized to round(size_px / crop), then the central square (PyTorch ports).
    tf1-bilinear: TensorFlow 1's resize_bilinear, without half-pixel centres or antialiasing: pixel i of the result is
    interpolated at i · (source side / size), at most the last row or column; rounded to integers, unlike TensorFlow.
    mean, std: for images in [0, 1], per channel or one value for all; 0.5 and 0.5 give [-1, 1].
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
        whole = type(self.size_px) is int and 0 < self.size_px <= MOST_PX
        _require("size_px", f"a whole number of pixels from 1 to {MOST_PX}", self.size_px, whole)
        _require("crop", "a number from 0.01 to 1", self.crop, _is_number(self.crop) and 0.01 <= self.crop <= 1)
        _require("resize", " or ".join(get_args(Resize)), self.resize, self.resize in get_args(Resize))
        filters = get_args(Interpolation)
        _require("interpolation", " or ".join(filters), self.interpolation, self.interpolation in filters)
        usable = type(self.channels) is int and 0 < self.channels <= MOST_CHANNELS
        _require("channels", f"a whole number from 1 to {MOST_CHANNELS}", self.channels, usable)
        for name in ("mean", "std"):
            values = getattr(self, name)
            usable = isinstance(values, tuple) and len(values) in (1, self.channels) and all(map(_is_number, values))
            low, high = VALUES[name]
            usable = usable and all(low <= value <= high for value in values)
            _require(name, f"1 or {self.channels} numbers from {low:g} to {high:g}", values, usable)
            full = tuple(map(float, values)) * (self.channels if len(values) == 1 else 1)
            object.__setattr__(self, name, full)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`. Raises: WeightsError for missing or unknown keys, or values that cannot be used."""
        known = {field.name for field in dataclasses.fields(cls)}
        if stored.keys() != known:
            missing, unknown = known - stored.keys(), list(map(str, stored.keys() - known))
            raise WeightsError(
                f"preprocessing: expected the keys {listed(known)}; missing: {listed(missing) or 'none'}, unknown: "
                f"{listed(unknown) or 'none'}; save the weights again"
            )
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            return cls(**values)
        except ConfigurationError as error:
            raise WeightsError(str(error)) from None


@dataclass(frozen=True)
class Augment:
    """Training augmentation: a random crop of at least `area_min` of the image's area, and a random horizontal flip.

    color: the released colour distortions; "fast": brightness and saturation, "full": also hue and contrast.
    interpolation: "same" as the preprocessing, or "random": one of four per image, as released together with "full".
    policy: "trivial": TrivialAugment (wide), "rand": RandAugment with `rand_operations` of `rand_magnitude` (0 to 30).
    mixup, cutmix: alpha of the beta distribution of the mixing ratio, one per step; 0: off; with both, one at random.
    erase: probability of random erasing.
    Raises: ConfigurationError for values that cannot be used.
    """

    area_min: float = 0.4
    flip: bool = True
    color: Color = "none"
    interpolation: TrainInterpolation = "same"
    policy: Policy = "none"
    rand_operations: int = 2
    rand_magnitude: int = 9
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        usable = _is_number(self.area_min) and 0 < self.area_min <= 1
        _require("area_min", "a number in (0, 1]", self.area_min, usable, what="augment")
        words = {"color": get_args(Color), "interpolation": get_args(TrainInterpolation), "policy": get_args(Policy)}
        for name, known in words.items():
            value = getattr(self, name)
            _require(name, " or ".join(known), value, value in known, what="augment")
        value = self.rand_operations
        _require("rand_operations", "a whole number from 1 up", value, type(value) is int and value > 0, what="augment")
        usable = type(self.rand_magnitude) is int and 0 <= self.rand_magnitude < LEVELS
        expected = f"a whole number from 0 to {LEVELS - 1}"
        _require("rand_magnitude", expected, self.rand_magnitude, usable, what="augment")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            _require(name, "a number from 0 up", value, _is_number(value) and value >= 0, what="augment")
        usable = _is_number(self.erase) and 0 <= self.erase <= 1
        _require("erase", "a number in [0, 1]", self.erase, usable, what="augment")

    @property
    def mixes(self) -> bool:
        """Whether images of a step are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0


def draw(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Uniform random numbers in [0, 1) for one image, one for each of CHANGES, whether or not they are used."""
    return rng.random(len(CHANGES), np.float32)


def centre_crop(image: Image.Image, prep: Preprocessing) -> Pixels:
    """The centre crop for evaluation. Shapes: image of any size → (size_px, size_px, C)."""
    width, height = image.size
    size = prep.size_px
    if prep.resize == "squash":
        left, top = (
            int((side - side * prep.crop) / 2) for side in (width, height)
        )  # rounded as in tf.image.central_crop
        return resize_crop(image, (left, top, width - left, height - top), size, prep.interpolation)
    # Only the square is resized: all of a 1×2000 px image would become a strip of 684 000 px. The result is that of
    # resizing everything, except where bicubic overshoots pure black or white, which Pillow clips between two passes.
    short = round(size / prep.crop)
    resized = [int(short * side / min(width, height)) for side in (width, height)]
    starts = [round((side - size) / 2) for side in resized]
    (x0, x1), (y0, y1) = (
        (start * side / whole, (start + size) * side / whole)
        for start, side, whole in zip(starts, (width, height), resized, strict=True)
    )
    return resize(image, size, prep.interpolation, (x0, y0, min(x1, width), min(y1, height)))


def random_crop(
    image: Image.Image,
    size_px: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float = 1.0,
    aspect: tuple[float, float] = (ASPECT_MIN, ASPECT_MAX),
    interpolation: AnyInterpolation = "bilinear",
) -> Pixels:
    """The Inception training crop of a decoded image: a `random_box`, resized to a square.

    Shapes: image of any size → (size_px, size_px, C).
    """
    box = random_box(*image.size, rng, area_min=area_min, area_max=area_max, aspect=aspect)
    return resize(image.crop(box), size_px, interpolation)


def random_box(
    width: int,
    height: int,
    rng: np.random.Generator,
    *,
    area_min: float,
    area_max: float = 1.0,
    aspect: tuple[float, float] = (ASPECT_MIN, ASPECT_MAX),
) -> Box:
    """The box of a random training crop in an image of `width` × `height` px.

    Paper: [v1] section 6. The area is uniform in [area_min, area_max] times the image's, the aspect ratio (width /
    height) uniform in `aspect`. The first of 100 boxes that fits is used, else the whole image, as in TensorFlow's
    sample_distorted_bounding_box (where the height is uniform, not the area). Every call draws the same number of
    values from `rng`.
    """
    areas = width * height * (area_min + (area_max - area_min) * rng.random(TRIES))
    aspects = aspect[0] + (aspect[1] - aspect[0]) * rng.random(TRIES)
    right, down = rng.random(2)
    for area, ratio in zip(areas.tolist(), aspects.tolist(), strict=True):  # usually the first or second fits
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 1 <= box_width <= width and 1 <= box_height <= height:
            break
    else:
        box_width, box_height = width, height
    left, top = int(right * (width - box_width + 1)), int(down * (height - box_height + 1))
    return left, top, left + box_width, top + box_height


def resize(
    image: Image.Image,
    size_px: int,
    interpolation: AnyInterpolation,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Resize `box` (left, top, right, bottom in px; default: all) to a square. Shapes: → (size_px, size_px, C)."""
    if interpolation == "tf1-bilinear":
        whole = (0, 0, *image.size)
        return _tf1_bilinear(image, size_px, box or whole, whole)
    return _pixels(image.resize((size_px, size_px), _FILTERS[interpolation], box=box))


def resize_crop(image: Image.Image, crop: Box, size_px: int, interpolation: AnyInterpolation) -> Pixels:
    """As `resize` of the image that is cropped before, so that nothing outside counts, but without a copy of it.

    Shapes: → (size_px, size_px, C).
    """
    if interpolation == "tf1-bilinear":
        return _tf1_bilinear(image, size_px, crop, crop)
    narrow = Image.new(image.mode, (size_px, crop[3] - crop[1]))  # Pillow resizes rows first, each by itself
    for band in bands(crop):
        rows = image.crop(band).resize((size_px, band[3] - band[1]), _FILTERS[interpolation])
        narrow.paste(rows, (0, band[1] - crop[1]))
    return _pixels(narrow.resize((size_px, size_px), _FILTERS[interpolation]))


def _tf1_bilinear(image: Image.Image, size_px: int, box: tuple[float, float, float, float], crop: Box) -> Pixels:
    """Without an array of the whole image, which may be a strip of 100 000 pixels."""
    left, top, right, bottom = box
    (upper, lower, down), (near, far, across) = (
        _neighbours(start - first, end - first, size_px, last - 1 - first, first)
        for start, end, first, last in ((top, bottom, crop[1], crop[3]), (left, right, crop[0], crop[2]))
    )
    rows, columns = np.unique([upper, lower]), np.unique([near, far])
    values = pixels_at(image, rows, columns).astype(np.float32)
    above, below = (values[np.searchsorted(rows, at)] for at in (upper, lower))
    values = above + (below - above) * down[:, None, None]
    before, after = (values[:, np.searchsorted(columns, at)] for at in (near, far))
    values = before + (after - before) * across[:, None]
    rounded: Pixels = np.rint(values).astype(np.uint8)
    return rounded


def _neighbours(
    start: float, end: float, count: int, last: int, first: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """For each of `count` places from start to end, counted from `first`: the positions on both sides, and how far it
    is between them."""
    at = np.minimum(start + np.arange(count) * ((end - start) / count), last)
    low = at.astype(np.intp)
    return first + low, first + np.minimum(low + 1, last), (at - low).astype(np.float32)


def _pixels(image: Image.Image) -> Pixels:
    values = np.array(image)
    return values if values.ndim == 3 else values[:, :, None]


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _require(name: str, expected: str, got: object, usable: bool, what: str = "preprocessing") -> None:
    if not usable:
        raise ConfigurationError(f"{what} {name}: expected {expected}, got {got!r:.80}: change {name}")
