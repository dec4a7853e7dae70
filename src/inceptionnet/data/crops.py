"""Several crops of one image, as the papers evaluate: 10 or 12 of its middle square, 144 of three squares.

Source: [v1] section 7 for 144 crops: the shorter side to 256, 288, 320 and 352 px; of each the left, centre and right
square (top, centre and bottom where the image is high); of each square the four corners and the centre of 224 px, and
the whole square resized to 224 px; all of them mirrored too. 12 crops are the centre square's at 256 px, 10 the same
without the whole square ([v4] section 5 names both; the older 10 are Krizhevsky et al., NIPS 2012, section 4.1). For a
network of another size no paper gives the scales: here they are times size / 224, so that 299 px have 342 to 470.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from inceptionnet.data.preprocess import Pixels, Preprocessing, centre_crop, resize
from inceptionnet.errors import ConfigurationError

COUNTS = (1, 10, 12, 144)
SCALES = (256, 288, 320, 352)  # for 224 px
CORNERS = ("top left", "top right", "bottom left", "bottom right", "centre")
WHOLE = "whole square"


@dataclass(frozen=True)
class Crops:
    """Which crops of an image a network is shown; size and interpolation are the preprocessing's.

    Raises: ConfigurationError for a number of crops that no paper has, or scales that cannot be.
    """

    prep: Preprocessing
    count: int = 1
    """1, 10, 12 or 144; with other scales than four, 36 for each."""
    scales: tuple[int, ...] = ()
    """Shorter sides in px; left out, the paper's for this size."""

    def __post_init__(self) -> None:
        size = self.prep.size_px
        if self.count not in COUNTS:
            raise ConfigurationError(f"--crops is {self.count}; expected {', '.join(map(str, COUNTS))}")
        published = tuple(round(scale * size / 224) for scale in SCALES[: 4 if self.count == 144 else 1])
        scales = self.scales or published
        if self.scales and self.count != 144 and len(scales) != 1:
            raise ConfigurationError(f"--scales has {len(scales)} numbers; {self.count} crops are of one scale")
        if self.scales and self.count == 1:
            raise ConfigurationError("--scales goes with --crops 10, 12 or 144; the single crop is the preprocessing's")
        if min(scales) < size:
            raise ConfigurationError(f"--scales has {min(scales)} px; crops of {size} px need shorter sides of as many")
        object.__setattr__(self, "scales", scales)

    @property
    def mirrored(self) -> bool:
        """Whether each crop counts a second time, mirrored; `of` leaves that to the device."""
        return self.count > 1

    @property
    def shown(self) -> int:
        """How many crops an image is averaged over, mirrored ones included."""
        return len(self.names) * (1 + self.mirrored)

    @property
    def names(self) -> tuple[str, ...]:
        """What each crop of `of` is, in its order."""
        if self.count == 1:
            return ("centre",)
        squares = ("first", "centre", "last") if self.count == 144 else ("centre",)
        windows = CORNERS if self.count == 10 else (*CORNERS, WHOLE)
        return tuple(
            f"{scale} px, {square} square, {window}"
            for scale in self.scales
            for square in squares
            for window in windows
        )

    def of(self, image: Image.Image) -> Pixels:
        """The crops of an image. Shapes: image of any size → (K, size_px, size_px, C), K = len(names)."""
        if self.count == 1:
            return centre_crop(image, self.prep)[None]
        return np.stack(
            [crop for scale in self.scales for square in self._squares(image, scale) for crop in self._windows(square)]
        )

    def _squares(self, image: Image.Image, scale: int) -> list[Pixels]:
        """The squares of the image, its shorter side `scale` px, along its longer one. Shapes: (scale, scale, C).

        Only the squares are resized, so that a 1×2000 px image needs no strip of half a million.
        """
        width, height = image.size
        short, long = min(width, height), max(width, height)
        resized = int(scale * long / short)
        starts = (
            [0, round((resized - scale) / 2), resized - scale] if self.count == 144 else [round((resized - scale) / 2)]
        )
        squares = []
        for start in starts:
            low, high = start * long / resized, min((start + scale) * long / resized, long)
            box = (low, 0, high, height) if width >= height else (0, low, width, high)
            squares.append(resize(image, scale, self.prep.interpolation, box))
        return squares

    def _windows(self, square: Pixels) -> list[Pixels]:
        size, last = self.prep.size_px, len(square) - self.prep.size_px
        middle = round(last / 2)
        places = [(0, 0), (0, last), (last, 0), (last, last), (middle, middle)]
        crops = [square[top : top + size, left : left + size] for top, left in places]
        if self.count != 10:
            channels = square.shape[2]
            image = Image.fromarray(square if channels != 1 else square[:, :, 0])
            crops.append(resize(image, size, self.prep.interpolation))
        return crops


def montage(image: Image.Image, crops: Crops) -> Image.Image:
    """Every crop of an image with its name: a row for each square, and the mirrored ones at its right."""
    made, names, size = crops.of(image), crops.names, crops.prep.size_px
    across = min(len(made), 5 if crops.count == 10 else 6)
    columns, rows = across * (2 if crops.mirrored else 1), -(-len(made) // across)
    gap, line = 4, 16
    sheet = Image.new("RGB", (columns * (size + gap) + gap, rows * (size + gap + line) + gap), "white")
    for i, (pixels, name) in enumerate(zip(made, names, strict=True)):
        for mirrored in (False, True)[: 1 + crops.mirrored]:
            left = gap + (i % across + across * mirrored) * (size + gap)
            top = gap + (i // across) * (size + gap + line)
            shown = pixels[:, ::-1] if mirrored else pixels
            label = Image.new("RGB", (size, line), "white")  # cut at the crop's width, so that none runs into the next
            ImageDraw.Draw(label).text((0, 0), name + (", mirrored" if mirrored else ""), fill="black")
            sheet.paste(label, (left, top))
            sheet.paste(
                Image.fromarray(shown if shown.shape[2] == 3 else np.repeat(shown[:, :, :1], 3, 2)), (left, top + line)
            )
    return sheet
