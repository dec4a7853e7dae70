"""Crops against slices made by hand, of images whose resizing changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from inceptionnet.data.bands import Pixels
from inceptionnet.data.crops import CAPTION_PX, FONT, Crops, montage
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.resizing import centre_crop
from inceptionnet.errors import ConfigurationError

PREP = Preprocessing(14)  # the papers' 256 px for 224 are 16 px here


def noise(height: int, width: int, channels: int = 3) -> Pixels:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), np.uint8)


def six(square: Pixels) -> list[Pixels]:
    """The windows of [v1] in a square of 16 px: four corners, centre, and all of it made smaller."""
    corners = [square[:14, :14], square[:14, 2:], square[2:, :14], square[2:, 2:]]
    return [
        *corners,
        square[1:15, 1:15],
        np.asarray(Image.fromarray(square).resize((14, 14), Image.Resampling.BILINEAR)),
    ]


def test_ten_and_twelve_of_the_middle_square() -> None:
    image = noise(16, 24)
    expected = six(image[:, 4:20])
    for count, those in ((10, expected[:5]), (12, expected)):
        crops = Crops(PREP, count)
        assert np.array_equal(crops.of(Image.fromarray(image)), np.stack(those))
        assert crops.mirrored and crops.scales == (16,) and 2 * len(crops.names) == count


@pytest.mark.parametrize("upright", [False, True])
def test_three_squares_along_the_longer_side(upright: bool) -> None:
    image = noise(16, 24)
    squares = [image[:, :16], image[:, 4:20], image[:, 8:]]
    if upright:
        image, squares = image.transpose(1, 0, 2), [square.transpose(1, 0, 2) for square in squares]
    made = Crops(PREP, 144, (16,)).of(Image.fromarray(np.ascontiguousarray(image)))
    expected = [crop for square in squares for crop in six(np.ascontiguousarray(square))]
    assert np.array_equal(made, np.stack(expected))


def test_144_are_four_scales_times_three_squares_times_six_mirrored() -> None:
    crops = Crops(PREP, 144)
    assert crops.scales == (16, 18, 20, 22) and 2 * len(crops.names) == 144 == 2 * len(set(crops.names))
    image = Image.fromarray(noise(50, 40))
    made = crops.of(image)
    assert made.shape == (72, 14, 14, 3)
    for i, scale in enumerate(crops.scales):  # each scale as if it were alone
        assert np.array_equal(made[18 * i : 18 * i + 18], Crops(PREP, 144, (scale,)).of(image))
    assert Crops(Preprocessing(224), 144).scales == (256, 288, 320, 352)
    assert Crops(Preprocessing(299), 144).scales == (342, 384, 427, 470)
    assert Crops(Preprocessing(299), 12).scales == (342,)


def test_one_crop_is_the_preprocessings() -> None:
    image = Image.fromarray(noise(50, 40))
    crops = Crops(PREP)
    assert np.array_equal(crops.of(image), centre_crop(image, PREP)[None]) and not crops.mirrored


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (15, 15), (14, 300), (301, 7)], ids=str)
@pytest.mark.parametrize("count", [10, 12, 144])
def test_any_size_and_aspect(size: tuple[int, int], count: int) -> None:
    for prep in (PREP, Preprocessing(14, interpolation="tf1-bilinear"), Preprocessing(14, channels=1)):
        pixels = noise(*size, prep.channels)
        image = Image.fromarray(pixels if prep.channels == 3 else pixels[:, :, 0])
        made = Crops(prep, count).of(image)
        assert made.shape == (count // 2, 14, 14, prep.channels) and made.dtype == np.uint8
    flat = Crops(PREP, count).of(Image.new("RGB", size[::-1], (10, 20, 30)))
    assert (flat == np.array([10, 20, 30], np.uint8)).all(), "nothing from outside of the image"


@pytest.mark.parametrize(
    ("count", "scales", "message"),
    [
        (11, (), "--crops is 11; expected 1, 10, 12 or 144"),
        (12, (16, 18), "--scales has 2 numbers; --crops 12 needs one"),
        (1, (16,), "--scales needs --crops 10, 12 or 144"),
        (144, (16, 13), "--scales has 13 px; expected 14 px, the crop size, or more"),
    ],
)
def test_what_no_paper_has(count: int, scales: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Crops(PREP, count, scales)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (10, 10, 1), (12, 12, 1), (144, 12, 12)])
@pytest.mark.parametrize("size", [14, 100, 299])
def test_the_sheet_shows_each_crop_under_its_whole_caption(
    count: int, columns: int, rows: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[tuple[float, float], str]] = []
    text = ImageDraw.ImageDraw.text

    def recorded(self: ImageDraw.ImageDraw, xy: tuple[float, float], line: str, **options: object) -> None:
        drawn.append((xy, line))
        text(self, xy, line, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    image = Image.fromarray(noise(30, 40))
    crops = Crops(Preprocessing(size), count)
    sheet = np.asarray(montage(image, crops))
    cell = max(size, CAPTION_PX)
    above = (sheet.shape[0] - 4) // rows - size - 4
    assert sheet.shape[1] == columns * (cell + 4) + 4
    captions: dict[tuple[int, int], list[str]] = {}
    for (x, y), line in drawn:
        column, row = int(x - 4) // (cell + 4), int(y - 4) // (size + 4 + above)
        left, top, right, bottom = FONT.getbbox(line)
        assert x + right <= 4 + column * (cell + 4) + cell, f"{line} runs into the next cell"
        assert y + bottom <= 4 + row * (size + 4 + above) + above, f"{line} runs into the crop"
        captions.setdefault((row, column), []).append(line)
    half = columns // 2 if crops.mirrored else columns
    for i, (name, pixels) in enumerate(zip(crops.names, crops.of(image), strict=True)):
        for mirrored in (False, True)[: 1 + crops.mirrored]:
            row, column = i // half, i % half + half * mirrored
            assert " ".join(captions[row, column]) == name + ", mirrored" * mirrored
            top, left = 4 + row * (size + 4 + above) + above, 4 + column * (cell + 4)
            expected = pixels[:, ::-1] if mirrored else pixels
            assert np.array_equal(sheet[top : top + size, left : left + size], expected)
