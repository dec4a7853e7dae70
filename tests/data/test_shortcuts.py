"""Classes that the format, colour mode or size of the files tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ks_2samp

from inceptionnet.data import open_source
from inceptionnet.data.check import check
from inceptionnet.data.inspection import Inspection
from inceptionnet.data.leaks import find_leaks
from inceptionnet.data.shortcuts import Shortcut, Shortcuts, shortcut_lines

from .made import encoded, write_tree


def file(format: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (640, 480)) -> Inspection:
    return Inspection("", size_px=size, format=format, mode=mode)


def found(*classes: list[Inspection]) -> list[Shortcut]:
    shortcuts = Shortcuts("abcdef"[: len(classes)])
    for label, files in enumerate(classes):
        for one in files:
            shortcuts.add((label,), one)
    return shortcuts.found()


def test_a_class_of_another_format() -> None:
    shortcuts = found([file("PNG")] * 49 + [file()], [file()] * 40, [file()] * 57 + [file("PNG")] * 3)
    assert shortcuts == [Shortcut("file format", "a", "are PNG", 49, 50, 3, 100)]
    (line,) = shortcut_lines(shortcuts)
    assert line.startswith(
        "class a can be told by its file format: 49 of its 50 images are PNG, and 3 of the 100 others. "
    )


def test_every_property_has_one_line_and_names_the_other_classes() -> None:
    grey_png, plain = [file("PNG", "L")] * 60, [file()] * 60
    lines = list(shortcut_lines(found(grey_png, plain, grey_png, plain)))
    assert [line.partition(":")[0] for line in lines] == [
        "class a can be told by its file format", "class a can be told by its colour mode"
    ]  # fmt: skip
    assert "and 60 of the 180 others; so can b, c. A" in lines[0] and "are of mode L, and 60 of the 180" in lines[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "condition"),
    [
        ((1024, 1024), (512, 512), "have sides of 1024 and 1024 px"),
        ((480, 640), (640, 480), None),  # turned by a quarter
    ],
)
def test_one_size_against_another(ours: tuple[int, int], theirs: tuple[int, int], condition: str | None) -> None:
    shortcuts = found([file(size=ours)] * 50, [file(size=theirs)] * 50)
    assert [one.condition for one in shortcuts] == ([condition] if condition else [])


def test_a_threshold_is_that_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(600, 2000, 80), rng.integers(100, 900, 150)
    shortcuts = found([file(size=(int(px), 3000)) for px in ours], [file(size=(int(px), 3000)) for px in theirs])
    expected = ks_2samp(ours, theirs)
    first = next(one for one in shortcuts if one.class_name == "a")
    assert first.fulfilling / 80 - first.others_fulfilling / 150 == pytest.approx(expected.statistic)
    threshold = int(first.condition.removeprefix("have a shorter side of at least ").removesuffix(" px"))
    assert expected.statistic_location < threshold <= min(px for px in ours if px > expected.statistic_location)
    assert first.fulfilling == (ours >= threshold).sum() and first.others_fulfilling == (theirs >= threshold).sum()
    assert shortcuts == [first], "of two classes one says it all"


@pytest.mark.parametrize(("classes", "images"), [(2, 3), (2, 8), (30, 12), (200, 20)])
def test_few_images_with_random_properties_are_no_shortcut(classes: int, images: int) -> None:
    rng = np.random.default_rng(classes)
    shortcuts = Shortcuts([str(number) for number in range(classes)])
    for label in np.repeat(np.arange(classes), images).tolist():
        width, height = rng.integers(100, 2000, 2).tolist()
        shortcuts.add((label,), file(str(rng.choice(["JPEG", "PNG"])), str(rng.choice(["L", "RGB"])), (width, height)))
    assert shortcuts.found() == []


def test_several_labels_an_image() -> None:
    shortcuts = Shortcuts(["dog", "indoor", "none"])
    for number in range(120):
        labels = tuple(label for label, has in enumerate((number % 2, number % 3 == 0)) if has)
        shortcuts.add(labels, file("WEBP" if number % 2 else "JPEG"))
    (one,) = shortcuts.found()
    assert (one.class_name, one.condition, one.images, one.others, one.fulfilling) == ("dog", "are WEBP", 60, 60, 60)


@pytest.mark.parametrize("classes", [[], [[file()] * 50], [[file()] * 50, []]])
def test_nothing_to_compare(classes: list[list[Inspection]]) -> None:
    assert found(*classes) == []


@pytest.fixture
def by_format(tmp_path: Path) -> Path:
    """Train: class a as PNG, b as JPEG; val: both as PNG."""
    rng = np.random.default_rng(0)

    def noise(format: str) -> bytes:
        return encoded(Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)), format)

    files = {
        f"train/{kind}/{i}.img.jpg": noise(format) for kind, format in (("a", "PNG"), ("b", "JPEG")) for i in range(40)
    }
    files |= {f"val/{kind}/{i}.jpg": noise("PNG") for kind in "ab" for i in range(5)}
    return write_tree(tmp_path / "by_format", files)


def test_check_and_training_say_it(by_format: Path, command) -> None:
    source = open_source(by_format)
    report = check(source, workers=0)
    assert [(one.class_name, one.condition, one.others) for one in report.shortcuts] == [
        ("a", "are PNG", 40)
    ]  # fmt: skip
    said = [line for line in find_leaks(source, 0) if "can be told" in line]
    assert said == [f"warning: {line}" for line in shortcut_lines(report.shortcuts)] and len(said) == 1
    code, printed, _ = command("check", by_format, "--workers", "0")
    assert (
        code == 0
        and "class a can be told by its file format: 40 of its 40 images are PNG, and 0 of the 40 others"
        in " ".join(printed.split())
    )
