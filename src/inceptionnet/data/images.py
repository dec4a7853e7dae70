"""Whatever people hold an image in → what a network takes: paths, bytes, PIL images, arrays and tensors, or many.

Without torch, unless tensors are given or asked for: a process that has none has not imported it.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np
import numpy.typing as npt
from PIL import Image

from inceptionnet.data.archives import ARCHIVES
from inceptionnet.data.bands import Pixels
from inceptionnet.data.decode import pixels_of, upright
from inceptionnet.data.inputs import NamedImage, find_images
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.resizing import centre_crop
from inceptionnet.errors import DecodeError, InputError, reason_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log: logging.Logger = logging.getLogger("inceptionnet")

Values: TypeAlias = npt.NDArray[np.float32]
Seen: TypeAlias = Pixels | Values
"""What a network sees of one image: pixels (size_px, size_px, C), or preprocessed values (C, H, W)."""
ImageLike: TypeAlias = Union[str, Path, bytes, Image.Image, Seen, "Tensor", NamedImage]
"""One image; see `listed_images`."""
EXPECTED = (
    "expected an image: a path, encoded bytes, a PIL image, a uint8 array (H, W, C), a uint8 tensor (C, H, W), a float "
    "tensor or array (C, H, W) that is preprocessed already, or a list of them"
)


@dataclass(frozen=True)
class Transform:
    """A preprocessing as a callable: a PIL image in, what the network takes out, as a Dataset's transform does."""

    settings: Preprocessing
    as_array: bool = False
    """Give an array, not a tensor."""

    def __call__(self, image: Image.Image) -> Any:
        """Shapes: an image of any size and mode → float32 (C, size_px, size_px), a tensor or an array.

        Raises:
            DecodeError: its pixels cannot be read, or have a range that is not known.
        """
        pixels = centre_crop(upright(image, channels=self.settings.channels), self.settings)
        if self.as_array:
            return normalised([pixels], self.settings)[0]
        from inceptionnet.data.augment import as_input

        return as_input([pixels], self.settings)[0]


@dataclass(frozen=True)
class Item:
    """One image and what it is called."""

    name: str
    image: ImageLike

    def seen(self, prep: Preprocessing) -> Seen | Tensor:
        """What the network sees: pixels (size_px, size_px, C), or what one who preprocesses gave, (C, H, W).

        Raises:
            DecodeError: an image that cannot be read, its name first.
            InputError: what is no image.
        """
        image, channels = self.image, prep.channels
        if is_preprocessed(image):
            if image.ndim != 3 or image.shape[0] != channels:
                raise InputError(f"{self.name}: {EXPECTED}; got {image.dtype} {tuple(image.shape)}")
            return image
        if isinstance(image, bytes):
            return pixels_of(image, prep, self.name)
        if isinstance(image, str | Path):
            return NamedImage.at(image).pixels(prep)
        if isinstance(image, NamedImage):
            return image.pixels(prep)
        return centre_crop(upright(_pillow(image, self.name), channels=channels, name=self.name), prep)


def decoded(items: Sequence[Item], prep: Preprocessing) -> tuple[list[Seen | Tensor], dict[int, str]]:
    """What the network sees of the images that can be decoded, in order, and why the others cannot, by position."""
    seen, errors = [], {}
    for position, item in enumerate(items):
        try:
            seen.append(item.seen(prep))
        except DecodeError as error:
            errors[position] = reason_of(error, item.name)
    return seen, errors


def listed_images(images: ImageLike | Sequence[ImageLike]) -> tuple[list[Item], bool]:
    """The images one after another, and whether it was a single one, not a list, a batch or a folder.

    A path may be a folder, a glob pattern, a .zip, .tar or .parquet file, as for `find_images`. Arrays are uint8
    (H, W), (H, W, C) or (N, H, W, C), channels RGB; tensors are (C, H, W) or (N, C, H, W), uint8 for images as they are
    and float for what `Preprocessing` gives, which may be an array as well.

    Raises:
        InputError: what is no image.
        DataError: a folder, archive or pattern without images.
    """
    if isinstance(images, str | Path):
        place = str(images)
        pattern = glob.has_magic(place) and not os.path.lexists(place)
        several = Path(place).is_dir() or Path(place).suffix.lower() in (*ARCHIVES, ".parquet") or pattern
        inside = find_images([images])
        for note in inside.notes:
            log.info(note)
        return [Item(image.name, image) for image in inside], not several
    if isinstance(images, np.ndarray) or is_tensor(images):
        single = images.ndim != 4
        return [Item(_name(images, i), image) for i, image in enumerate([images] if single else images)], single
    if isinstance(images, bytes | Image.Image | NamedImage):
        return [Item(_name(images, 0), images)], True
    if not isinstance(images, Sequence):
        raise InputError(f"{EXPECTED}; got {type(images).__name__}")
    items: list[Item] = []
    for image in images:
        if isinstance(image, int):  # of a bytearray
            raise InputError(f"{EXPECTED}; got {type(images).__name__}")
        if isinstance(image, list | tuple) or (hasattr(image, "ndim") and image.ndim == 4):
            raise InputError(f"{EXPECTED}; got a list with a {type(image).__name__} of several in it: join them")
        found, _ = listed_images(image)
        items += found if isinstance(image, str | Path) else [Item(_name(image, len(items)), found[0].image)]
    return items, False


def is_tensor(thing: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of torch; who has not imported torch has none."""
    torch: Any = sys.modules.get("torch")
    return bool(torch and isinstance(thing, torch.Tensor))


def is_preprocessed(image: object) -> TypeGuard[Values | Tensor]:
    """Whether it is what a `Transform` gives, or the like: a float array or tensor."""
    if isinstance(image, np.ndarray):
        return bool(image.dtype.kind == "f")
    return is_tensor(image) and image.is_floating_point()


def is_pixels(seen: object) -> TypeGuard[Pixels]:
    """Whether it is an image that is cropped, but not normalised yet."""
    return isinstance(seen, np.ndarray) and seen.dtype == np.uint8


def together(seen: Sequence[Seen | Tensor], prep: Preprocessing, device: torch.device) -> Tensor:
    """A batch of what the network sees. Shapes: → float32 (N, C, H, W) on the device.

    Raises:
        InputError: images of different sizes.
    """
    import torch

    from inceptionnet.data.augment import as_input

    pixels = [one for one in seen if is_pixels(one)]
    if len(pixels) == len(seen):
        return as_input(pixels, prep, device)
    made = [as_input([one], prep)[0] if is_pixels(one) else torch.as_tensor(one) for one in seen]
    _check_sizes([tuple(one.shape) for one in made])
    return torch.stack([one.to(device, torch.float32) for one in made])


def together_as_array(seen: Sequence[Seen | Tensor], prep: Preprocessing) -> Values:
    """As `together`, by NumPy and the same bits. Shapes: → float32 (N, C, H, W).

    Raises:
        InputError: images of different sizes.
    """
    made = [normalised([one], prep)[0] if is_pixels(one) else as_array(one) for one in seen]
    _check_sizes([one.shape for one in made])
    return np.stack(made)


def normalised(pixels: Sequence[Pixels], prep: Preprocessing) -> Values:
    """As `augment.as_input`, by NumPy and the same bits. Shapes: uint8 (H, W, C) each → float32 (N, C, H, W)."""
    mean, std = (np.array(values, np.float32)[:, None, None] * np.float32(255) for values in (prep.mean, prep.std))
    x = np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2), np.float32)
    x -= mean
    x /= std
    return x


def as_pixels(x: Values, prep: Preprocessing) -> Pixels:
    """The inverse of `normalised`, exact for what that gave. Shapes: (N, C, H, W) → uint8 (N, H, W, C)."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (prep.mean, prep.std))
    pixels = np.rint((x * std + mean) * np.float32(255)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def as_array(values: Seen | Tensor) -> Values:
    """An array or a tensor as a float32 array. Shapes: any."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.detach().cpu().float(), np.float32)


def _check_sizes(shapes: Sequence[tuple[int, ...]]) -> None:
    if len(each := set(shapes)) > 1:
        raise InputError(f"expected images of one size in a batch, got {', '.join(map(str, sorted(each)))}")


def _name(image: Any, position: int) -> str:
    if isinstance(image, NamedImage):
        return image.name
    return str(getattr(image, "filename", "") or f"image {position}")


def _pillow(image: Any, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if is_tensor(image):
        if str(image.dtype) != "torch.uint8" or image.dim() != 3 or image.shape[0] not in (1, 3, 4):
            raise InputError(f"{name}: {EXPECTED}; got {image.dtype} {tuple(image.shape)}")
        image = image.permute(1, 2, 0).cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _has_image_shape(image):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{name}: {EXPECTED}; got {got}")
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _has_image_shape(array: npt.NDArray[Any]) -> bool:
    return 0 not in array.shape and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
