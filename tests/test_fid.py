"""Fréchet distance and inception score against hand calculation, and the command against torchmetrics in Python."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from inceptionnet import create_model, load_model, save_weights
from inceptionnet.data import Preprocessing
from inceptionnet.data.resizing import resize
from inceptionnet.errors import ConfigurationError, InputError
from inceptionnet.evaluate.fid import FidFeatures, inception_score
from inceptionnet.weights.known import PUBLISHED

from .forked import Forked, met

Command = Callable[..., tuple[int, str, str]]
SIZE_PX, CLASSES = 75, 10
PREP = Preprocessing(SIZE_PX, crop=1.0, mean=(128 / 255,), std=(128 / 255,))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network whose answers differ from image to image."""
    torch.manual_seed(1)
    model = create_model("inception_v3.fid", width=0.125, num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(torch.rand(8, 3, 7, 7).repeat_interleave(11, 2).repeat_interleave(11, 3) * 2 - 1)
    logits = model.head.get_submodule("logits")
    torch.nn.init.normal_(logits.weight, 0, 0.2)
    torch.nn.init.normal_(logits.bias, 0, 5)
    path = tmp_path_factory.mktemp("weights") / "fid.safetensors"
    save_weights(model, path, preprocessing=PREP)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real and generated images of the network's size, at any depth."""
    rng = np.random.default_rng(0)
    made = {}
    for name, low, grain, count in (("real", 0, 5, 24), ("generated", 90, 25, 21)):
        made[name] = tmp_path_factory.mktemp(name)
        (made[name] / "some" / "more").mkdir(parents=True)
        for i in range(count):
            noise = Image.fromarray(rng.integers(low, 256, (grain, grain, 3), np.uint8))
            place = made[name] / ("some/more" if i % 3 else ".") / f"{i:02}.png"
            noise.resize((SIZE_PX, SIZE_PX), Image.Resampling.NEAREST).save(place)
    return made


@pytest.fixture(scope="module")
def images(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    """The same as uint8 (N, 3, H, W), in the order of their paths."""
    return {
        name: torch.from_numpy(
            np.stack([np.array(Image.open(folder / file)) for file in sorted(paths_in(folder))])
        ).permute(0, 3, 1, 2)
        for name, folder in folders.items()
    }


def paths_in(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*.png")]


def pooled(weights: Path, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return load_model(weights).eval().embed((x.float() - 128) / 128).double().numpy()


def distance_by_hand(a: np.ndarray, b: np.ndarray) -> float:
    """|μa - μb|² + tr Σa + tr Σb - 2 tr √(Σa Σb), the last as the singular values of what the samples' deviations are.

    With Σa = AᵀA and Σb = BᵀB, the square roots of the eigenvalues of Σa Σb are the singular values of A Bᵀ, which
    few images do not make less exact.
    """
    (x, y), gap = ((s - s.mean(0)) / math.sqrt(len(s) - 1) for s in (a, b)), a.mean(0) - b.mean(0)
    return float(gap @ gap + (x**2).sum() + (y**2).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum())


def score_by_hand(logits: np.ndarray, parts: int) -> tuple[float, float]:
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(0)).numpy()
    size = -(-len(logits) // parts)
    scores = []
    for start in range(0, len(logits), size):
        powers = np.exp(logits[order[start : start + size]])
        p = powers / powers.sum(1, keepdims=True)
        scores.append(math.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores, ddof=1))


def test_command_by_hand(
    command: Command, weights: Path, folders: dict[str, Path], images: dict[str, torch.Tensor]
) -> None:
    arguments = ("fid", folders["real"], folders["generated"], "--weights", weights, "--batch-size", 7, "--json")
    state = torch.get_rng_state()
    code, text, err = command(*arguments)
    assert code == 0 and not err and torch.equal(state, torch.get_rng_state())
    figures = json.loads(text)
    found = {name: pooled(weights, x) for name, x in images.items()}
    expected = distance_by_hand(found["real"], found["generated"])
    assert figures["fid"] == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    weight = load_model(weights).head.get_submodule("logits").weight.detach().double().numpy()
    for name, x in found.items():
        mean, deviation = score_by_hand(x @ weight.T, 10)
        score = figures[name]["inception_score"]
        assert score["mean"] == pytest.approx(mean, rel=1e-4) and mean > 1.01
        assert score["std"] == pytest.approx(deviation, rel=1e-3) and deviation > 1e-3
        assert figures[name]["images"] == len(x)
    assert figures["network"] == "inception_v3.fid" and len(figures["remarks"]) == 3
    torch.manual_seed(99)
    assert json.loads(command(*arguments)[1]) == figures


def test_in_parts(command: Command, weights: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """The same figures as without; a part that is lost is made again, and other weights are refused."""
    generated = tmp_path / "generated"
    shutil.copytree(folders["generated"], generated)
    (generated / "broken.png").write_bytes(b"x")
    words = ("fid", folders["real"], generated, "--weights", weights, "--batch-size", 7, "--json")
    in_parts = (*words, "--out", tmp_path / "out", "--part-size", 10)
    plain, (code, text, _) = json.loads(command(*words)[1]), command(*in_parts)
    figures = json.loads(text)
    assert code == 0 and figures["generated"]["decode_errors"] == plain["generated"]["decode_errors"] != []
    assert figures["fid"] == pytest.approx(plain["fid"], rel=1e-6)
    for side in ("real", "generated"):
        assert figures[side]["images"] == plain[side]["images"]
        assert figures[side]["inception_score"] == pytest.approx(plain[side]["inception_score"], rel=1e-5)
    parts = sorted((tmp_path / "out" / "generated").glob("part-*"))
    assert [pq.read_table(part).num_rows for part in parts] == [10, 10, 2]
    parts[1].unlink()
    assert json.loads(command(*in_parts)[1]) == figures and parts[1].exists()
    other = tmp_path / "other.safetensors"
    save_weights(create_model("inception_v3.fid", width=0.125, num_classes=CLASSES), other, preprocessing=PREP)
    code, _, err = command(*words[:3], "--weights", other, "--out", tmp_path / "out", "--part-size", 10)
    assert code == 2 and err.count("\n") == 1 and "its weights is" in err
    code, _, err = command(*words, "--out", tmp_path / "x.parquet")
    assert code == 2 and "expected a folder for the parts of real and generated images" in err


@pytest.mark.slow
def test_two_processes(
    command: Command, weights: Path, folders: dict[str, Path], tmp_path: Path, with_training: Forked
) -> None:
    """They write the files of one, and the first one says the distance; without a folder both are refused."""
    words = ("fid", folders["real"], folders["generated"], "--weights", weights, "--batch-size", 7, "--json")
    how = ("--part-size", 10)
    one = command(*words, *how, "--out", tmp_path / "one")[1]
    code = "import sys; from inceptionnet.cli import main; sys.argv[0] = 'inceptionnet'; main()"
    with met(2) as each:
        first, second = with_training.together(code, *words, *how, "--out", tmp_path / "two", each=each)
    assert first.stdout == one and not second.stdout and (first.returncode, second.returncode) == (0, 0)
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
    with met(2) as each:
        done = with_training.together(code, *words, each=each)
    assert all(one.returncode == 2 and "--out: expected a folder for the parts" in one.stderr for one in done)


def test_command_is_torchmetrics_in_python(
    command: Command, weights: Path, folders: dict[str, Path], images: dict[str, torch.Tensor]
) -> None:
    model = load_model(weights)
    code, text, _ = command("fid", folders["real"], folders["generated"], "--weights", weights, "--json")
    assert code == 0
    expected = json.loads(text)["fid"]
    for normalize in (False, True):
        metric = FrechetInceptionDistance(feature=FidFeatures(model, PREP), normalize=normalize)
        metric.train()
        for name, x in images.items():
            for some in x.split(10):
                metric.update(some.float() / 255 if normalize else some, real=name == "real")
        assert float(metric.compute()) == pytest.approx(expected, rel=1e-3)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="will save all extracted features"):
        kernel = KernelInceptionDistance(feature=FidFeatures(model, PREP), subsets=3, subset_size=20)
    for name, x in images.items():
        kernel.update(x, real=name == "real")
    assert float(kernel.compute()[0]) > 0


def test_score_of_torchmetrics_in_python(weights: Path, images: dict[str, torch.Tensor]) -> None:
    network = FidFeatures(load_model(weights), PREP, output="logits_unbiased")
    assert network.num_features == CLASSES
    with pytest.warns(UserWarning, match="will save all extracted features"):
        metric = InceptionScore(feature=network)
    metric.update(images["real"])
    torch.manual_seed(0)
    mean, deviation = metric.compute()
    logits = network(images["real"])
    assert inception_score(logits) == pytest.approx((float(mean), float(deviation)), rel=1e-4)


def test_logits_without_bias(weights: Path, images: dict[str, torch.Tensor]) -> None:
    model = load_model(weights).eval()
    x = images["real"][:4]
    with torch.no_grad():
        expected = model((x.float() - 128) / 128) - model.head.get_submodule("logits").bias
    assert torch.allclose(FidFeatures(model, PREP, "logits_unbiased")(x), expected, rtol=1e-3, atol=1e-2)


def test_the_same_images_are_at_no_distance(
    command: Command, weights: Path, folders: dict[str, Path], images: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    spread = pooled(weights, images["real"]).var(0).sum()
    packed = tmp_path / "real.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in paths_in(folders["real"]):
            archive.write(folders["real"] / name, name)
    code, text, _ = command("fid", folders["real"], packed, "--weights", weights, "--json")
    figures = json.loads(text)
    assert code == 0 and abs(figures["fid"]) < 1e-5 * spread and figures["real"]["images"] == 24
    assert figures["real"]["inception_score"] == figures["generated"]["inception_score"]


def test_statistics_in_a_file(
    command: Command, weights: Path, folders: dict[str, Path], images: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file, other = tmp_path / "real.npz", tmp_path / "generated.npz"
    arguments = ("--weights", weights, "--json")
    code, text, _ = command("fid", folders["real"], folders["generated"], *arguments, "--save-statistics", file)
    assert code == 0
    found = {name: pooled(weights, x) for name, x in images.items()}
    with np.load(file) as stored:
        assert np.allclose(stored["mu"], found["real"].mean(0), rtol=1e-3, atol=1e-3)
        assert np.allclose(stored["sigma"], np.cov(found["real"], rowvar=False), rtol=1e-3, atol=1e-3)
    np.savez(other, mu=found["generated"].mean(0), sigma=np.cov(found["generated"], rowvar=False))
    for real, generated in ((file, folders["generated"]), (folders["real"], other), (file, other)):
        code, again, _ = command("fid", real, generated, *arguments)
        assert code == 0 and json.loads(again)["fid"] == pytest.approx(json.loads(text)["fid"], rel=1e-3)
    assert json.loads(again)["real"]["images"] is None and len(json.loads(again)["remarks"]) == 1


def test_what_is_printed(command: Command, weights: Path, folders: dict[str, Path], tmp_path: Path) -> None:
    """Images of several sizes and modes, one of which is broken; a data set as for train."""
    rng = np.random.default_rng(2)
    for i, shape in enumerate(((20, 30, 3), (90, 40, 3), (75, 75))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    code, text, err = command("fid", folders["real"], tmp_path, "--weights", weights)
    assert code == 0 and not err
    assert "resized to 75 px (bilinear)" in text and "3 generated images, 256 features: the covariance is" in text
    assert "computed with inception_v3.fid and 256 features: not comparable with published FIDs" in text
    assert "corrupt image, not counted: broken.png: is not an image" in text


def test_a_network_without_classifier_has_no_score(command: Command, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "body.safetensors"
    model = create_model("inception_v1.slim", width=0.125, num_classes=0)
    save_weights(model, path, preprocessing=Preprocessing(64))
    code, text, _ = command("fid", folders["real"], folders["generated"], "--weights", path, "--json")
    figures = json.loads(text)
    assert code == 0 and figures["real"]["inception_score"] is None and figures["fid"] > 0
    with pytest.raises(ConfigurationError, match=r"inception_v1.slim has no classifier; use pooled"):
        FidFeatures(model, PREP, "logits_unbiased")


def test_where_the_weights_are(command: Command, folders: dict[str, Path]) -> None:
    code, _, err = command("fid", folders["real"], folders["generated"])
    assert code == 2 and err.count("\n") == 1
    published = [one.source for one in PUBLISHED if one.network == "inception_v3.fid"]
    assert len(published) == 2 and all(source in err for source in published)


def test_what_cannot_be_done_is_one_line(
    command: Command, weights: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    real, none, one, half = folders["real"], tmp_path / "none", tmp_path / "one", tmp_path / "half.npz"
    for folder in (none, one):
        folder.mkdir()
    Image.new("RGB", (9, 9)).save(one / "a.png")
    (one / "b.png").write_bytes(b"")
    np.savez(half, mu=np.zeros(256))
    np.savez(tmp_path / "small.npz", mu=np.zeros(8), sigma=np.zeros((8, 8)))
    (tmp_path / "text.npz").write_text("text")
    for arguments, said in (
        ((none, real), "expected images"),
        ((real, tmp_path / "nowhere"), "got no such file or folder"),
        (
            (one, real),
            "one: expected at least 2 images, got 1, and 1 corrupt, such as b.png (is empty",
        ),
        ((half, real), "half.npz: expected an .npz with mu and sigma"),
        ((tmp_path / "text.npz", real), "text.npz: expected an .npz with mu and sigma"),
        ((tmp_path / "gone.npz", real), "gone.npz: expected an .npz with mu and sigma"),
        ((tmp_path / "small.npz", real), "expected mu (256,) and sigma (256, 256), got (8,) and (8, 8)"),
        ((real, real, "--save-statistics", "f.txt"), "expected a file ending in .npz"),
        ((real, real, "--save-statistics", tmp_path / "text.npz" / "f.npz"), "f.npz: cannot be written"),
        ((real, real, "--weights", tmp_path / "text.npz"), "text.npz"),
    ):
        code, out, err = command("fid", "--weights", weights, *arguments)
        assert code == 2 and not out and err.count("\n") == 1 and said in err, err


def test_resizing_by_hand(weights: Path) -> None:
    """To grey values as `resize` gives them, but not rounded; enlarged as Pillow does, shrunk without smoothing."""
    rng = np.random.default_rng(4)
    model = load_model(weights)
    small = rng.integers(0, 256, (31, 52, 3), np.uint8)

    def squared(pixels: np.ndarray, interpolation: str) -> np.ndarray:
        prep = Preprocessing(SIZE_PX, interpolation=interpolation)  # type: ignore[arg-type]
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        return FidFeatures(model, prep).square(x)[0].permute(1, 2, 0).numpy()

    large = rng.integers(0, 256, (200, 131, 3), np.uint8)
    for pixels in (small, large):
        rounded = resize(Image.fromarray(pixels), SIZE_PX, "tf1-bilinear").astype(np.float32)
        assert np.abs(squared(pixels, "tf1-bilinear") - rounded).max() <= 0.501
    for interpolation in ("bilinear", "bicubic"):
        rounded = resize(Image.fromarray(small // 2 + 64), SIZE_PX, interpolation).astype(np.float32)  # type: ignore[arg-type]
        assert np.abs(squared(small // 2 + 64, interpolation) - rounded).max() < 1.1
    four = rng.integers(0, 256, (4 * SIZE_PX, 4 * SIZE_PX, 3), np.uint8)
    middle = sum(four[i::4, j::4].astype(np.float32) for i in (1, 2) for j in (1, 2)) / 4
    assert np.allclose(squared(four, "bilinear"), middle, atol=1e-2)


@pytest.mark.parametrize("shape", [(3, 75, 75), (2, 1, 75, 75)])
def test_other_tensors_are_refused(weights: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected images of shape \(N, 3, H, W\), got"):
        FidFeatures(load_model(weights), PREP)(torch.zeros(shape))
