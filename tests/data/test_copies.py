"""Images that look nearly the same, and what is said of them before a training."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from inceptionnet.data import open_source, similar
from inceptionnet.data.decode import decode
from inceptionnet.data.inspection import glance, inspect
from inceptionnet.data.leaks import find_leaks
from inceptionnet.data.similar import as_array, nearest, signature
from inceptionnet.data.splits import Source, StreamSplit

from .made import encoded, write_tree


def scene(seed: int, width: int = 240, height: int = 160, sizes: tuple[int, ...] = (4, 8, 16, 32)) -> Image.Image:
    """Coloured patches of many sizes, whose strength falls with their frequency as in photographs."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in sizes:
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float) / cells
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    return encoded(image, "JPEG", quality=quality)


def shape(red: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Image.Image:
    down, across = np.mgrid[0:1:160j, 0:1:240j]
    return Image.fromarray(red(across, down).clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again": lambda image: Image.open(io.BytesIO(jpeg(image, 50))),
    "half": lambda image: image.resize((120, 80), Image.Resampling.BICUBIC),
    "stretched": lambda image: image.resize((300, 300), Image.Resampling.BICUBIC),
    "darker": lambda image: image.point(lambda value: int(0.7 * value)),
    "grey": lambda image: image.convert("L"),
    "shifted by a pixel": lambda image: image.crop((1, 1, 240, 160)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_no_other_image(change: str) -> None:
    originals = as_array([signature(scene(seed)) for seed in range(60)])
    copies = as_array([signature(CHANGES[change](scene(seed))) for seed in range(0, 60, 3)])
    assert nearest(copies, originals).position.tolist() == list(range(0, 60, 3))
    assert not nearest(copies, originals).turned.any()
    assert (nearest(originals).position == -1).all()


@pytest.mark.parametrize("way", Image.Transpose)
@pytest.mark.parametrize("change", ["saved again", "half", "stretched", "grey"])
def test_a_mirrored_or_turned_copy_is_found(change: str, way: Image.Transpose) -> None:
    """As Pillow mirrors and turns it, on top of another change."""
    originals = [signature(scene(seed)) for seed in range(20)]
    copies = [signature(CHANGES[change](scene(seed).transpose(way))) for seed in range(0, 20, 3)]
    found = nearest(as_array(copies), as_array(originals))
    assert found.position.tolist() == list(range(0, 20, 3)) and found.turned.all()
    within = nearest(as_array(originals + copies))  # each is compared with those before it
    assert within.position.tolist() == [-1] * 20 + list(range(0, 20, 3))
    assert within.turned.tolist() == [False] * 20 + [True] * 7


def test_the_strength_of_frequencies_alone_is_no_copy() -> None:
    """The same numbers with signs that no mirror makes."""
    array = as_array([signature(scene(seed)) for seed in range(20)])
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), array.shape)
    assert (nearest(array * signs, array).position == -1).all()


@pytest.mark.parametrize("change", ["turned a little", "cropped"])
def test_what_is_not_found(change: str) -> None:
    """The limits that the documentation states."""
    image = scene(0)
    other = {"turned a little": image.rotate(5), "cropped": image.crop((30, 20, 210, 140))}[change]
    assert nearest(as_array([signature(other)]), as_array([signature(image)])).position.tolist() == [-1]


def test_plain_images_are_not_compared() -> None:
    rng = np.random.default_rng(0)
    plain = {
        "white": shape(lambda x, y: 255 + 0 * x),
        "gradient": shape(lambda x, y: 60 + 90 * x + 40 * y),
        "vignette": shape(lambda x, y: 200 - 150 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)),
        "two halves": shape(lambda x, y: 220.0 * (x > 0.5)),
        "noise": shape(lambda x, y: 128 + rng.normal(0, 5, x.shape)),
    }
    assert [kind for kind, image in plain.items() if signature(image)] == []
    assert len(signature(scene(0))) == 255
    assert signature(Image.new("RGB", (1, 1))) == b""


def test_the_same_layout_with_other_details_is_not_a_copy() -> None:
    """X-rays and printed pages: the lowest frequencies are the same in all of them."""
    layout = np.asarray(scene(0, sizes=(4, 6)).convert("L"), float)
    found = []
    for seed in range(20):
        cells = np.random.default_rng(seed).normal(0, 1, (32, 32)).astype(np.float32)
        details = np.asarray(Image.fromarray(cells).resize((240, 160), Image.Resampling.BOX))
        found.append(signature(Image.fromarray((layout + 6 * details).clip(0, 255).astype(np.uint8))))
    array = as_array(found)
    low = array[:, :63] / np.linalg.norm(array[:, :63].astype(float), axis=1, keepdims=True)
    alike = (low @ low.T)[np.triu_indices(20, 1)]
    assert np.mean(alike > similar.NEAR) > 0.5
    assert (nearest(array).position == -1).all()


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 120 images and 40 copies finds the first of its kind, in blocks of any size."""
    kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 4))
    array = as_array([signature(scene(int(kind))) for kind in range(40)])[kinds]
    array += np.random.default_rng(1).integers(-1, 2, array.shape).astype(np.int8) * (np.abs(array) < 100)
    exact = array[:, :63] / np.linalg.norm(array[:, :63].astype(float), axis=1, keepdims=True)
    alike = exact @ exact.T
    for rows, columns in ((1024, 8192), (7, 13), (64, 16)):
        monkeypatch.setattr(similar, "ROWS", rows)
        monkeypatch.setattr(similar, "COLUMNS", columns)
        before = nearest(array).position
        for i, j in enumerate(before):
            same = np.flatnonzero(kinds[:i] == kinds[i])
            assert (j == -1) == (not len(same))
            assert j == -1 or (kinds[j] == kinds[i] and alike[i, j] > alike[i, same].max() - 1e-5)
        among = nearest(array[:50], array[50:]).position
        assert all(kinds[50 + j] == kinds[i] for i, j in enumerate(among) if j >= 0)
        assert all((j >= 0) == (kinds[i] in kinds[50:]) for i, j in enumerate(among))


def test_a_glance_sees_what_an_inspection_sees() -> None:
    """Although it decodes a large JPEG at an eighth of its size."""
    data = jpeg(scene(3, 1600, 1200))
    quick, whole = (look(lambda: data, "x.jpg") for look in (glance, inspect))
    assert quick.digest == whole.digest and whole.size_px == (1600, 1200)
    a, b = (np.frombuffer(one.signature, np.int8).astype(float) for one in (quick, whole))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.995
    assert glance(lambda: b"", "y.jpg").reason == "is empty (0 bytes)"


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """Ten images of each class in train, three in val: a copy, a copy saved again, and neither."""
    files = {f"train/{kind}/{i}.jpg": jpeg(scene(10 * k + i)) for k, kind in enumerate("ab") for i in range(10)}
    for k, kind in enumerate("ab"):
        files[f"val/{kind}/same.jpg"] = files[f"train/{kind}/3.jpg"]
        files[f"val/{kind}/again.png"] = encoded(decode(files["train/a/7.jpg"]).resize((120, 80)), "PNG")
        files[f"val/{kind}/new.jpg"] = jpeg(scene(100 + k))
    files["val/a/broken.jpg"] = b""
    files["val/a/white.png"] = files["train/a/white.png"] = encoded(Image.new("L", (9, 9), 255))
    files["val/b/nearly_white.png"] = encoded(Image.new("L", (9, 9), 254))
    return write_tree(tmp_path / "leaky", files)


@pytest.mark.parametrize("workers", [0, 2])
def test_leaks(leaky: Path, workers: int) -> None:
    seen: list[int] = []
    exact, near = find_leaks(open_source(leaky), workers, advance=seen.append)
    assert exact == (
        "warning: 3 of 9 val images are copies of train images (val/a/same.jpg = train/a/3.jpg, val/a/white.png = "
        "train/a/white.png, val/b/same.jpg = train/b/3.jpg), so that the accuracy on val is too high; remove them from "
        "one of both (list: inceptionnet check)"
    )
    assert near.startswith(
        "warning: 2 of 9 val images look nearly the same as train images, perhaps mirrored or turned "
        "(val/a/again.png ≈ train/a/7.jpg, val/b/again.png ≈ train/a/7.jpg), so that the accuracy on val is too high; "
        "remove them from one of both, or state with --group-by "
    )
    assert sum(seen) == 30


def test_a_part_of_many_images(leaky: Path) -> None:
    *_, last = find_leaks(open_source(leaky), 0, most=20)
    assert last == "looked at 11 of 21 train, 9 of 9 val images only; inceptionnet check looks at all"
    *_, last = find_leaks(open_source(leaky), 0, most=10)
    assert last.startswith("looked at 5 of 21 train, 5 of 9 val images only")


def test_no_leaks_and_streams(tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": encoded(scene(10 * k + i)) for k, kind in enumerate("ab") for i in range(5)}
    assert find_leaks(open_source(write_tree(tmp_path, files)), 0) == []
    streams = {name: StreamSplit(name, 1, 1, lambda shard: iter([("x", 0, b"")])) for name in ("train", "val")}
    assert find_leaks(Source("x", ("a", "b"), streams, ""), 0) == []


def test_groups_in_two_splits_are_a_leak(tmp_path: Path) -> None:
    names = [f"{split}/{kind}/P{i}.png" for split in ("train", "test") for kind in "ab" for i in (1, 2)]
    files = {name: encoded(scene(i)) for i, name in enumerate(names)}
    assert find_leaks(open_source(write_tree(tmp_path, files), group_by="P."), 0) == [
        "warning: 2 groups are in both train and test (P.: P1, P2), so that the accuracy on test is too high for new "
        "groups; move each to one of both"
    ]
