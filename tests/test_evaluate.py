"""Figures against hand calculation, and predictions that go on whatever an image holds."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from inceptionnet import load, load_model, read_record
from inceptionnet.data import Preprocessing, Split, open_source
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import Batch, EvalLoader
from inceptionnet.errors import DataError, WeightsError
from inceptionnet.evaluate.classes import matched_labels, same_classes
from inceptionnet.evaluate.evaluation import Member, evaluate, evaluate_together
from inceptionnet.evaluate.metrics import measure
from inceptionnet.model.outputs import Outputs
from inceptionnet.train.loop import train
from inceptionnet.train.run import Run
from inceptionnet.weights.folder import weights_of

from .conftest import tiny_plan

CPU = torch.device("cpu")
CLASSES = tuple("abcdefg")


class Brightness(nn.Module):
    """Stands in for a network: its logits are 10 for class `round(mean grey / 10)`, 5 for the next, else 0."""

    device = torch.device("cpu")
    outputs = Outputs()

    def forward(self, x: Tensor) -> Tensor:
        first = ((x.mean((1, 2, 3)) + 1) * 127.5 / 10).round().long() % 7
        logits = torch.zeros(len(x), 7)
        logits[torch.arange(len(x)), first] = 10.0
        logits[torch.arange(len(x)), (first + 1) % 7] = 5.0
        return logits


def grey_images(values: list[int], labels: list[int], broken: tuple[int, ...] = ()) -> Split:
    files = []
    for value in values:
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), (value,) * 3).save(stream, "PNG")
        files.append(stream.getvalue())
    for i in broken:
        files[i] = b"not an image"
    return Split([f"{i}.png" for i in range(len(files))], np.array(labels, np.int64), files.__getitem__)


def test_figures_by_hand() -> None:
    """Seven images; the network says 0 1 2 3 4 and the last is broken: 3 of 6 correct, one more in the top 2."""
    split = grey_images([0, 10, 20, 30, 40, 40, 0], [0, 1, 2, 4, 0, 1, 0], broken=(6,))
    loader = EvalLoader(split, Preprocessing(4), batch_size=2, workers=0, corrupt_images="skip")
    seen = []
    result = evaluate(
        Brightness(),  # type: ignore[arg-type]
        loader,
        Preprocessing(4),
        CLASSES,
        advance=lambda images, figures: seen.append((images, figures)),
    )
    total = math.exp(10) + math.exp(5) + 5
    losses = [math.log(total) - logit for logit in (10, 10, 10, 5, 0, 0)]
    assert result.predicted.tolist() == [0, 1, 2, 3, 4, 4]
    assert result.top1 == 0.5
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-6)
    assert result.confidence == pytest.approx(math.exp(10) / total, rel=1e-6)
    assert result.k == 5 and result.topk >= 4 / 6
    assert [name for name, _ in result.decode_errors] == ["6.png"]
    assert sum(images for images, _ in seen) == 7 and seen[-1][1] == "accuracy 50.0%"


class Corner(nn.Module):
    """Stands in for a network: logits that tell the left from the right half, so that mirroring changes them."""

    device = torch.device("cpu")

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        halves = x[:, 0, :, : x.shape[3] // 2].mean((1, 2)), x[:, 0, :, x.shape[3] // 2 :].mean((1, 2))
        return torch.stack([*halves, torch.zeros(len(x))], 1) * self.factor


def noisy_images(count: int) -> tuple[Split, list[np.ndarray]]:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (16 + i, 20, 3), np.uint8) for i in range(count)]
    files = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        files.append(stream.getvalue())
    return Split([f"{i}.png" for i in range(count)], np.arange(count, dtype=np.int64) % 3, files.__getitem__), images


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("at_once", [1, 5, 1000])
def test_crops_and_an_ensemble_by_hand(at_once: int) -> None:
    """Two networks of other sizes and protocols, worked out with numpy; the second has its classes in another order."""
    split, images = noisy_images(5)
    views = [Crops(Preprocessing(14), 12), Crops(Preprocessing(7, mean=(0.2,), std=(0.4,)), 144)]
    factors, order = (8.0, 5.0), np.array([2, 0, 1])
    own = np.zeros((2, 5, 3))
    for one, view, factor, columns in zip(own, views, factors, (np.arange(3), order), strict=True):
        for i, image in enumerate(images):
            made = view.of(Image.fromarray(image))
            both = np.concatenate([made, made[:, :, ::-1]])
            x = (both[..., 0] / 255 - view.prep.mean[0]) / view.prep.std[0]
            half = view.prep.size_px // 2
            logits = np.stack([x[:, :, :half].mean((1, 2)), x[:, :, half:].mean((1, 2)), np.zeros(len(x))], 1) * factor
            one[i] = softmax(logits).mean(0)[columns]
    expected = own.mean(0)
    members = [
        Member(Corner(8.0), views[0], CPU, file="a"),  # type: ignore[arg-type]
        Member(Corner(5.0), views[1], CPU, order, file="b", network="corner"),  # type: ignore[arg-type]
    ]
    loader = EvalLoader(split, views[0].prep, batch_size=2, workers=0, corrupt_images="fail", crops=views)
    result = evaluate_together(members, loader, "abc", at_once=at_once)
    assert result.predicted.tolist() == expected.argmax(1).tolist()
    assert result.confidence == pytest.approx(expected.max(1), rel=1e-5)
    assert result.losses == pytest.approx(-np.log(expected[np.arange(5), split.labels]), rel=1e-5)
    assert [(one.file, one.network) for one in result.members] == [("a", ""), ("b", "corner")]
    for one, probabilities in zip(result.members, own, strict=True):
        # Mirrored crops make two classes of `Corner` equal but for rounding, so the class itself is not compared.
        assert probabilities[np.arange(5), one.predicted] == pytest.approx(probabilities.max(1), rel=1e-5)
        assert one.confidence == pytest.approx(probabilities.max(1), rel=1e-5)
        assert np.array_equal(one.labels, result.labels)
        assert one.losses == pytest.approx(-np.log(probabilities[np.arange(5), split.labels]), rel=1e-5)
    assert sum(members[0].run.seen) == 5 * 12 and sum(members[1].run.seen) == 5 * 144  # type: ignore[arg-type]
    assert max(members[1].run.seen) <= at_once  # type: ignore[operator]


def test_one_crop_of_one_network_is_what_it_was(run: Path, colours: Path) -> None:
    model, record = load_model(weights_of(run)), read_record(weights_of(run))
    split = open_source(colours).splits["val"]
    options = {"batch_size": 3, "workers": 0, "corrupt_images": "fail"}
    alone = evaluate(model, EvalLoader(split, record.preprocessing, **options), record.preprocessing, record.classes)
    crops = Crops(record.preprocessing)
    loader = EvalLoader(split, record.preprocessing, crops=[crops], **options)
    together = evaluate_together([Member(model.eval(), crops, CPU)] * 2, _twice(loader), record.classes)
    assert np.array_equal(alone.predicted, together.predicted) and alone.members == ()
    assert together.losses == pytest.approx(alone.losses, rel=1e-5)


def _twice(loader: EvalLoader) -> list[Batch]:
    return [replace(batch, views=batch.views * 2) for batch in loader]


def test_networks_with_other_classes_do_not_go_together() -> None:
    assert same_classes("abc", "abc", "x") is None
    assert same_classes("abc", "cab", "x").tolist() == [1, 2, 0]
    with pytest.raises(DataError, match="x: the networks of an ensemble need the same classes, got one without a"):
        same_classes("ab", "bz", "x")


def test_classes_are_matched_by_name() -> None:
    assert matched_labels(["c", "a"], CLASSES).tolist() == [2, 0]
    with pytest.raises(DataError, match=r"does not have the data's classes x, y; it has a, b, c, d, e, f, g"):
        matched_labels(["x", "a", "y"], CLASSES)
    split = grey_images([20, 0], [0, 1])
    loader = EvalLoader(split, Preprocessing(4), batch_size=2, workers=0, corrupt_images="fail")
    labels_of = matched_labels(["c", "a"], CLASSES)
    result = evaluate(Brightness(), loader, Preprocessing(4), CLASSES, labels_of=labels_of)  # type: ignore[arg-type]
    assert result.labels.tolist() == [2, 0] and result.top1 == 1.0


def test_evaluation_leaves_the_network_in_its_mode(run: Path, colours: Path) -> None:
    model = load_model(weights_of(run))
    record = read_record(weights_of(run))
    split = open_source(colours).splits["val"]
    loader = EvalLoader(split, record.preprocessing, batch_size=3, workers=0, corrupt_images="fail")
    for mode in (True, False):
        model.train(mode)
        evaluate(model, loader, record.preprocessing, record.classes)
        assert model.training is mode


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"got a folder without weights\.safetensors"):
        weights_of(tmp_path)


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logits of every other image of a batch become NaN, as after activations that are infinite."""

    def broken(real: Callable[[Outputs, Any], Any]) -> Callable[[Outputs, Any], Any]:
        def call(self: Outputs, logits: Any) -> Any:
            logits = logits.copy() if isinstance(logits, np.ndarray) else logits.clone()
            logits[::2] = math.nan
            return real(self, logits)

        return call

    for name in ("log_probabilities", "probabilities"):  # of an evaluation and of a prediction
        monkeypatch.setattr(Outputs, name, broken(getattr(Outputs, name)))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_outputs_that_are_not_finite_are_incorrect(classes: int, overflowing: None) -> None:
    """Not the first class, which the largest of NaN would be."""
    split, prep = grey_images([0] * 8, [0] * 8), Preprocessing(4)
    loader = EvalLoader(split, prep, batch_size=4, workers=0, corrupt_images="fail")
    member = Member(lambda x: torch.eye(classes)[[0] * len(x)], Crops(prep), CPU)
    found = evaluate_together([member], loader, [f"c{i}" for i in range(classes)])
    assert found.correct.tolist() == [False, True] * 4 and found.in_top.tolist() == [False, True] * 4
    assert found.not_finite == 4 and found.confidence[::2].tolist() == [0] * 4 and math.isnan(found.loss)
    assert measure(found).ece >= 0, "every metric can be computed"


def test_a_network_that_overflows_is_not_evaluated(run: Path, colours: Path, overflowing: None) -> None:
    with pytest.raises(
        WeightsError, match=r"colours: the outputs are not finite for \d of 5 images, so there is nothing"
    ):
        load(run).evaluate(colours)
    error = "the outputs of the network are not finite"
    predictions = load(run).predict(sorted((colours / "red").iterdir())[:3], skip_errors=True)
    assert [one.error for one in predictions] == [error, "", error]


def test_a_training_says_that_it_diverges(
    colours: Path, tmp_path: Path, overflowing: None, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = train(tiny_plan(colours, epochs=1), tmp_path / "run")
    assert evaluation.not_finite > 0
    assert f"not finite for {evaluation.not_finite} of 5 val images, which count as" in capsys.readouterr().err
    assert not math.isnan(Run(tmp_path / "run").read_metrics()[0]["val_top1"])
