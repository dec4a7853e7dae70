"""Augmentations: the operations, their ranges and random erasing of torchvision, mixup and CutMix of timm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data import Augment
from inceptionnet.data.policies import ERASED_AREA, ERASED_ASPECT, erase, operate, rand_space, trivial_space
from inceptionnet.train.targets import mix, one_hot, soft

from .conftest import Peer

NAMES = {
    "identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
    "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
    "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
    "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip


def image(mode: str, side: int = 41) -> Image.Image:
    rng = np.random.default_rng(0)
    small = rng.integers(20, 230, (7, 7, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side + 4), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_ranges_are_torchvisions(peer: Peer, policy: str) -> None:
    transforms = peer("torchvision").transforms
    if policy == "trivial":
        theirs, ours = transforms.TrivialAugmentWide()._augmentation_space(31), trivial_space()
    else:
        theirs, ours = transforms.RandAugment()._augmentation_space(31, (75, 75)), rand_space(75)
    assert [NAMES[name] for name in ours] == list(theirs), "in the same order"
    for name, (amounts, signed) in ours.items():
        expected, theirs_signed = theirs[NAMES[name]]
        assert signed == theirs_signed
        assert amounts == pytest.approx(np.broadcast_to(expected.double().numpy(), 31), abs=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_torchvisions(peer: Peer, name: str, mode: str) -> None:
    """Every magnitude of both policies and both signs, bit for bit."""
    autoaugment = peer("torchvision.transforms.autoaugment")
    nearest = peer("torchvision").transforms.InterpolationMode.NEAREST
    before, fill = image(mode), (128, 64, 255) if mode == "RGB" else 128
    changed = 0
    for space in (trivial_space(), rand_space(41)):
        amounts, signed = space[name]
        for amount in np.unique([*amounts, *(-amounts if signed else [])]).tolist():
            their_fill = list(fill) if isinstance(fill, tuple) else [fill]
            theirs = autoaugment._apply_op(before, NAMES[name], amount, nearest, their_fill)
            found = operate(before, name, amount, fill)
            assert np.array_equal(np.asarray(found), np.asarray(theirs)), amount
            changed += not np.array_equal(np.asarray(found), np.asarray(before))
    assert (changed == 0) == (name == "identity" or (name == "color" and mode == "L"))


def test_random_erasing_is_torchvisions(peer: Peer) -> None:
    """The same rectangles on average: heights, widths and places of 4000 of each; and their ranges."""
    erasing = peer("torchvision").transforms.RandomErasing()
    assert erasing.scale == (ERASED_AREA[0], 0.33) and erasing.ratio == ERASED_ASPECT  # timm has 1/3
    torch.manual_seed(0)
    blank, ours, theirs = np.zeros((64, 64, 1), np.uint8), [], []
    for seed in range(4000):
        inside = erase(blank, (1,), np.random.default_rng(seed))[..., 0]
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        ours.append((rows[0], columns[0], len(rows), len(columns)))
        theirs.append(erasing.get_params(torch.zeros(1, 64, 64), erasing.scale, erasing.ratio, [0.0])[:4])
    # A standard deviation of about 12 px gives each mean one of 0.2 px.
    assert np.mean(ours, 0) == pytest.approx(np.mean(theirs, 0), abs=0.9)
    assert np.std(ours, 0) == pytest.approx(np.std(theirs, 0), abs=0.6)


@pytest.mark.parametrize("how", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_is_timms(peer: Peer, how: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images, of which timm makes each the other's partner too; it is given the same random numbers."""
    timm = peer("timm.data.mixup")
    x = torch.randn(2, 3, 30, 34, generator=torch.Generator().manual_seed(0))
    labels, shares = torch.tensor([2, 0]), set()
    for key in range(40):
        rng = np.random.default_rng((0, key))
        # timm draws a number in any case, for the probability of mixing at all.
        first = iter([0.0, *([rng.random()] if len(how) == 2 else [])])
        draw: dict[str, Any] = {
            "rand": lambda: next(first),  # noqa: B023
            "beta": rng.beta,
            "randint": lambda low, high, size: rng.integers(low, high),  # noqa: B023
        }
        for name, value in draw.items():
            monkeypatch.setattr(timm.np.random, name, value)
        theirs = timm.Mixup(how.get("mixup", 0.0), how.get("cutmix", 0.0), label_smoothing=0.1, num_classes=4)
        # timm makes its targets on the device that is asked for, by default that of the labels.
        expected_x, expected = theirs(x.clone(), labels)
        found_x, targets = mix(x.clone(), one_hot(labels, 4), torch.arange(2), 2, Augment(**how), (0, key))
        torch.testing.assert_close(found_x, expected_x)
        torch.testing.assert_close(soft(targets, 0.1, None), expected)
        shares.add(round(float(targets[0, 2]), 3))
    assert len(shares) > 15
