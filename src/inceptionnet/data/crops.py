"""Multi-crop evaluation as in the papers: 10 or 12 crops of the centre square, 144 of three squares at four scales.

Source: [v1] section 7 for 144 crops: the shorter side is resized to 256, 288, 320 and 352 px; at each scale the left,
centre and right square (top, centre and bottom of portrait images); of each square the four corner crops and the centre
crop of 224 px, and the whole square resized to 224 px; each of them mirrored too. 12 crops are those of the centre
square at 256 px, 10 the same without the whole square ([v4] section 5 names both; 10 crops are Krizhevsky et al., NIPS
2012, section 4.1). For another image size no paper gives the scales; here they are multiplied by size / 224: 342 to 470
px for 299 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from inceptionnet.data.bands import Pixels
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.resizing import centre_crop, resize
from inceptionnet.errors import ConfigurationError, listed

COUNTS = (1, 10, 12, 144)
SCALES = (256, 288, 320, 352)  # for 224 px
CORNERS = ("top left", "top right", "bottom left", "bottom right", "centre")
WHOLE = "whole square"
FONT = ImageFont.load_default()
CAPTION_PX = 80
"""Least width of a caption: more than that of its longest word."""


@dataclass(frozen=True)
class Crops:
    """The crops of an image for evaluation; size and interpolation are those of the preprocessing.

    Raises: ConfigurationError for another number of crops than the papers', or impossible scales.
    """

    prep: Preprocessing
    count: int = 1
    """1, 10, 12 or 144; 144 is 36 per scale."""
    scales: tuple[int, ...] = ()
    """Shorter sides in px; default: the papers', for this image size."""

    def __post_init__(self) -> None:
        size = self.prep.size_px
        if self.count not in COUNTS:
            raise ConfigurationError(
                f"--crops is {self.count}; expected {listed(map(str, COUNTS), ordered=True, last='or')}"
            )
        published = tuple(round(scale * size / 224) for scale in SCALES[: 4 if self.count == 144 else 1])
        scales = self.scales or published
        if self.scales and self.count != 144 and len(scales) != 1:
            raise ConfigurationError(f"--scales has {len(scales)} numbers; --crops {self.count} needs one")
        if self.scales and self.count == 1:
            raise ConfigurationError("--scales needs --crops 10, 12 or 144; a single crop is that of the preprocessing")
        if min(scales) < size:
            raise ConfigurationError(f"--scales has {min(scales)} px; expected {size} px, the crop size, or more")
        object.__setattr__(self, "scales", scales)

    @property
    def mirrored(self) -> bool:
        """Whether each crop is evaluated mirrored too; mirroring is done on the device, not in `of`."""
        return self.count > 1

    @property
    def shown(self) -> int:
        """Number of crops per image, mirrored ones included."""
        return len(self.names) * (1 + self.mirrored)

    @property
    def names(self) -> tuple[str, ...]:
        """Descriptions of the crops of `of`, in the same order."""
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
        """The squares along the longer side, with the shorter side resized to `scale` px. Shapes: (scale, scale, C).

        Only the squares are resized: the whole of a 1×2000 px image would be half a million pixels long.
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
    """A contact sheet of all crops with captions: a row per square, with the mirrored crops on the right."""
    made, names, size = crops.of(image), crops.names, crops.prep.size_px
    across = min(len(made), 5 if crops.count == 10 else 6)
    columns, rows = across * (2 if crops.mirrored else 1), -(-len(made) // across)
    gap, line, cell = 4, 14, max(size, CAPTION_PX)
    captions = {
        (i, mirrored): _wrapped(name + (", mirrored" if mirrored else ""), cell - gap)
        for i, name in enumerate(names)
        for mirrored in (False, True)[: 1 + crops.mirrored]
    }
    above = line * max(map(len, captions.values())) + 2
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (size + gap + above) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for (i, mirrored), lines in captions.items():
        left = gap + (i % across + across * mirrored) * (cell + gap)
        top = gap + (i // across) * (size + gap + above)
        for n, text in enumerate(lines):
            draw.text((left, top + n * line), text, fill="black", font=FONT)
        shown = made[i][:, ::-1] if mirrored else made[i]
        pixels = shown if shown.shape[2] == 3 else np.repeat(shown[:, :, :1], 3, 2)
        sheet.paste(Image.fromarray(pixels), (left, top + above))
    return sheet


def _wrapped(text: str, width_px: int) -> list[str]:
    """A caption in lines of at most that width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and FONT.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
