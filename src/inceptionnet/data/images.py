"""Whatever people hold an image in → what a network takes: paths, bytes, PIL images, arrays and tensors, or many."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from inceptionnet.data.augment import as_input
from inceptionnet.data.bands import Pixels
from inceptionnet.data.containers import ARCHIVES
from inceptionnet.data.decode import pixels_of, upright
from inceptionnet.data.inputs import NamedImage, find_images
from inceptionnet.data.preprocess import Preprocessing, centre_crop
from inceptionnet.errors import InputError

log = logging.getLogger("inceptionnet")

ImageLike: TypeAlias = Union[str, Path, bytes, Image.Image, npt.NDArray[np.uint8], Tensor, NamedImage]  # noqa: UP007
"""One image; see `listed_images`."""
EXPECTED = (
    "expected an image: a path, encoded bytes, a PIL image, a uint8 array (H, W, C), a uint8 tensor (C, H, W), a float "
    "tensor (C, H, W) that is preprocessed already, or a list of them"
)


@dataclass(frozen=True)
class Transform:
    """A preprocessing as a callable: a PIL image in, what the network takes out, as a Dataset's transform does."""

    settings: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Shapes: an image of any size and mode → float32 (C, size_px, size_px).

        Raises:
            DecodeError: its pixels cannot be read, or have a range that is not known.
        """
        return as_input([centre_crop(upright(image, channels=self.settings.channels), self.settings)], self.settings)[0]


@dataclass(frozen=True)
class Item:
    """One image and what it is called."""

    name: str
    image: ImageLike

    def seen(self, prep: Preprocessing) -> Pixels | Tensor:
        """What the network sees: pixels (size_px, size_px, C), or the tensor (C, H, W) of one who preprocesses.

        Raises:
            DecodeError: an image that cannot be read, its name first.
            InputError: what is no image.
        """
        image, channels = self.image, prep.channels
        if isinstance(image, Tensor) and image.is_floating_point():
            if image.dim() != 3 or image.shape[0] != channels:
                raise InputError(f"{self.name}: {EXPECTED}; got {image.dtype} {tuple(image.shape)}")
            return image
        if isinstance(image, bytes):
            return pixels_of(image, prep, self.name)
        if isinstance(image, NamedImage):
            return image.pixels(prep)
        return centre_crop(upright(_pillow(image, self.name), channels=channels, name=self.name), prep)


def listed_images(images: ImageLike | Sequence[ImageLike]) -> tuple[list[Item], bool]:
    """The images one after another, and whether it was a single one, not a list, a batch or a folder.

    A path may be a folder, a glob pattern, a .zip, .tar or .parquet file, as for `find_images`. Arrays are uint8
    (H, W), (H, W, C) or (N, H, W, C), channels RGB; tensors are (C, H, W) or (N, C, H, W), uint8 for images as they are
    and float for what `Preprocessing` gives.

    Raises:
        InputError: what is no image.
        DataError: a folder, archive or pattern without images.
    """
    if isinstance(images, str | Path):
        place = str(images)
        several = Path(place).is_dir() or Path(place).suffix.lower() in (*ARCHIVES, ".parquet") or glob.has_magic(place)
        inside = find_images([images])
        for note in inside.notes:
            log.info(note)
        return [Item(image.name, image) for image in inside], not several
    if isinstance(images, np.ndarray | Tensor):
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
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray | Tensor) and image.ndim == 4):
            raise InputError(f"{EXPECTED}; got a list with a {type(image).__name__} of several in it: join them")
        found, _ = listed_images(image)
        items += found if isinstance(image, str | Path) else [Item(_name(image, len(items)), found[0].image)]
    return items, False


def together(seen: Sequence[Pixels | Tensor], prep: Preprocessing, device: torch.device) -> Tensor:
    """A batch of what the network sees. Shapes: → float32 (N, C, H, W) on the device.

    Raises:
        InputError: tensors of different sizes.
    """
    arrays = [one for one in seen if not isinstance(one, Tensor)]
    if len(arrays) == len(seen):
        return as_input(arrays, prep, device)
    made = [one if isinstance(one, Tensor) else as_input([one], prep)[0] for one in seen]
    if len(shapes := {tuple(one.shape) for one in made}) > 1:
        raise InputError(f"expected images of one size in a batch, got {', '.join(map(str, sorted(shapes)))}")
    return torch.stack([one.to(device, torch.float32) for one in made])


def _name(image: Any, position: int) -> str:
    if isinstance(image, NamedImage):
        return image.name
    return str(getattr(image, "filename", "") or f"image {position}")


def _pillow(image: Any, name: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3, 4):
            raise InputError(f"{name}: {EXPECTED}; got {image.dtype} {tuple(image.shape)}")
        image = image.permute(1, 2, 0).cpu().numpy()
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not _has_image_shape(image):
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{name}: {EXPECTED}; got {got}")
    return Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _has_image_shape(array: npt.NDArray[Any]) -> bool:
    return 0 not in array.shape and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
