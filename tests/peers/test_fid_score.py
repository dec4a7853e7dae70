"""Judges: the figures of pytorch-fid 0.3.0 and torch-fidelity 0.4.0 themselves, each with its own way to resize."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from inceptionnet.data.jobs import in_parts
from inceptionnet.data.unlabelled import every_image
from inceptionnet.evaluate.fid import FidFeatures, Measured, load_statistics, measure, new_distance, save_statistics
from inceptionnet.weights import load_model
from inceptionnet.weights.known import PUBLISHED

from .conftest import Peer
from .test_fid import State, pytorch_fid, state  # noqa: F401

if TYPE_CHECKING:  # it imports torchvision, which needs `peer`
    from torchmetrics.image.fid import FrechetInceptionDistance

pytestmark = pytest.mark.filterwarnings("ignore")  # the judges call what numpy, scipy and torch have deprecated
TOLERANCE = 1e-4
SIZES_PX = [(40, 40), (90, 64), (299, 299), (400, 330), (640, 900)]  # height, width


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """The judges print and draw bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Ten real and twenty generated images of every size, which differ in colour and in grain."""
    rng = np.random.default_rng(3)
    made = []
    for name, count, low, grain in (("real", 10, 0, 6), ("generated", 20, 60, 24)):
        folder = tmp_path_factory.mktemp(name)
        for i in range(count):
            height, width = SIZES_PX[i % len(SIZES_PX)]
            noise = Image.fromarray(rng.integers(low, 256, (grain, grain, 3), np.uint8))
            image, exif = noise.resize((width, height), Image.Resampling.NEAREST), Image.Exif()
            if i % 4 == 1:  # both packages drop alpha and do not turn images
                image.putalpha(90)
            exif[274] = 6 if i % 4 == 2 else 1
            image.save(folder / f"{i:02}.png", exif=exif)
        made.append(folder)
    return made[0], made[1]


def features_of(state: State, folder: Path, published: str) -> FidFeatures:  # noqa: F811
    """The network with these weights, and images resized as for the published file of that name."""
    torch.save(state, folder / "ours.pth")
    (known,) = (one for one in PUBLISHED if one.name == published)
    return FidFeatures(load_model(folder / "ours.pth"), known.preprocessing)


def measured(features: FidFeatures, folders: tuple[Path, Path]) -> tuple[FrechetInceptionDistance, Measured]:
    """The distance, and what was found of the generated images."""
    distance = new_distance(features)
    for real, folder in zip((True, False), folders, strict=True):
        source, _ = every_image(str(folder))
        chunks = (chunk for part in in_parts(source, "all", 4096).parts for chunk in part())
        done = measure(features, chunks, distance, real=real, batch_size=10, workers=2)
    return distance, done


@pytest.mark.usefixtures("pytorch_fid")
def test_distance_and_statistics_of_pytorch_fid(
    peer: Peer,
    state: State,  # noqa: F811
    folder: Path,
    folders: tuple[Path, Path],
) -> None:
    score = peer("pytorch_fid.fid_score")
    theirs, ours = folder / "theirs.npz", folder / "ours.npz"
    score.save_fid_stats([str(folders[0]), str(theirs)], 1, "cpu", 2048)
    expected = score.calculate_fid_given_paths([str(theirs), str(folders[1])], 1, "cpu", 2048)
    distance, _ = measured(features_of(state, folder, "fid/pt_inception-2015-12-05"), folders)
    assert float(distance.compute()) == pytest.approx(expected, rel=TOLERANCE)

    save_statistics(ours, distance)
    with np.load(ours) as got, np.load(theirs) as wanted:
        assert sorted(got) == sorted(wanted) == ["mu", "sigma"]
        for key in wanted:
            assert np.linalg.norm(got[key] - wanted[key]) < 1e-4 * np.linalg.norm(wanted[key])
    load_statistics(theirs, distance, real=True)
    assert float(distance.compute()) == pytest.approx(expected, rel=TOLERANCE)


def test_distance_and_score_of_torch_fidelity(
    peer: Peer,
    state: State,  # noqa: F811
    folder: Path,
    folders: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.save(state, folder / "theirs.pth")
    expected = peer("torch_fidelity").calculate_metrics(
        input1=str(folders[1]), input2=str(folders[0]), fid=True, isc=True, samples_shuffle=False, cuda=False,
        batch_size=1, cache=False, verbose=False, feature_extractor_weights_path=str(folder / "theirs.pth"),
    )  # fmt: skip
    monkeypatch.setattr(torch, "randperm", torch.arange)  # parts of the images in order, as those
    distance, done = measured(features_of(state, folder, "fid/weights-inception-2015-12-05"), folders)
    assert done.inception_score is not None
    mean, deviation = done.inception_score
    assert float(distance.compute()) == pytest.approx(expected["frechet_inception_distance"], rel=TOLERANCE)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=TOLERANCE)
    # torchmetrics divides by one less than the number of parts, torch-fidelity by their number.
    assert deviation * math.sqrt(0.9) == pytest.approx(expected["inception_score_std"], rel=TOLERANCE)
