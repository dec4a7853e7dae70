"""Rendering saliency maps: as an overlay, and next to the image with a caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inceptionnet.data.bands import Pixels
from inceptionnet.errors import InputError

LEAST_PX = 224  # smaller crops are enlarged by an integer factor to at least this
GAP_PX = 8
# From 0 to 1, increasingly light, so that they can be distinguished in greyscale.
COLOURS = np.array([[20, 10, 80], [110, 20, 120], [210, 55, 75], [250, 150, 30], [255, 250, 150]], np.float32)
OPAQUE = 0.7  # maximum


def overlay(pixels: Pixels, heat: Tensor | npt.NDArray[np.float32]) -> Pixels:
    """A saliency map over its greyscale image; transparent where the map is 0.

    Shapes: pixels (H, W, C), heat (H, W) in [0, 1] → (H, W, 3).

    Raises:
        InputError: a map of another size.
    """
    values = heat.detach().cpu().numpy() if isinstance(heat, Tensor) else heat
    if values.shape != pixels.shape[:2]:
        raise InputError(f"expected a map of the image's shape {pixels.shape[:2]}, got {values.shape}; resize it")
    places = np.linspace(0, 1, len(COLOURS))
    colours = np.stack([np.interp(values, places, channel) for channel in COLOURS.T], -1)
    cover = OPAQUE * np.minimum(1, 2 * values)[:, :, None]
    laid: Pixels = np.rint((1 - cover) * pixels.mean(2, keepdims=True) + cover * colours).astype(np.uint8)
    return laid


def sheet(pixels: Pixels, heat: Tensor, caption: str, note: str) -> Image.Image:
    """The preprocessed image, the overlay to its right, and caption and note above them."""
    height, width = pixels.shape[:2]
    size = [side * max(1, -(-LEAST_PX // min(height, width))) for side in (width, height)]
    colour = pixels if pixels.shape[2] == 3 else np.repeat(pixels[:, :, :1], 3, 2)
    left = Image.fromarray(colour).resize((size[0], size[1]), Image.Resampling.BICUBIC)
    map_ = Image.fromarray(heat.numpy()).resize((size[0], size[1]), Image.Resampling.BILINEAR)
    right = Image.fromarray(overlay(np.array(left), np.array(map_)))
    lines = [(text, 16, "black") for text in _wrapped(caption, _font(16), 2 * size[0] + GAP_PX)]
    lines += [(text, 12, "#555555") for text in _wrapped(note, _font(12), 2 * size[0] + GAP_PX)]
    top = GAP_PX + sum(px + 6 for _, px, _ in lines)
    drawn = Image.new("RGB", (2 * size[0] + 3 * GAP_PX, top + size[1] + GAP_PX), "white")
    y = GAP_PX
    for text, px, ink in lines:
        ImageDraw.Draw(drawn).text((GAP_PX, y), text, ink, _font(px))
        y += px + 6
    drawn.paste(left, (GAP_PX, top))
    drawn.paste(right, (2 * GAP_PX + size[0], top))
    return drawn


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> Iterator[str]:
    """The text wrapped to lines of that width, at spaces if possible."""
    text = " ".join(text.split())
    while text:
        fits = next((n for n in range(len(text), 1, -1) if font.getlength(text[:n]) <= width_px), 1)
        at = text.rfind(" ", 0, fits + 1) if fits < len(text) else fits
        at = at if at > 0 else fits
        yield text[:at]
        text = text[at:].strip()


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib (a dependency of captum), which has far more glyphs than Pillow's default font."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)
