"""Preprocessing and training augmentation as settings that are checked, and the random numbers of a training image.

Source: the released TensorFlow preprocessing ("squash") and its PyTorch ports ("keep-aspect"). A checkpoint's accuracy
depends on which of the two it gets. resizing.py does what a preprocessing says. The random numbers of a training image
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
RANDOM_INTERPOLATIONS: tuple[AnyInterpolation, ...] = ("bilinear", "nearest", "bicubic", "area")
LEVELS = 31  # magnitudes of a policy, from 0
CHANGES = ("mirror", "order", "brightness", "saturation", "hue", "contrast")  # the columns of `draw`


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


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _require(name: str, expected: str, got: object, usable: bool, what: str = "preprocessing") -> None:
    if not usable:
        raise ConfigurationError(f"{what} {name}: expected {expected}, got {got!r:.80}: change {name}")
