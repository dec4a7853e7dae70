"""What outputs mean: softmax, one logit with sigmoid, several labels; figures against scikit-learn and by hand."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, hamming_loss, precision_recall_fscore_support
from torch import Tensor, nn

from inceptionnet import InceptionNet, create_model, load, read_record, save_weights
from inceptionnet.classifier import evaluating
from inceptionnet.classifier.evaluating import Evaluated, evaluate_together
from inceptionnet.data import Preprocessing, Split
from inceptionnet.data.crops import Crops
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.splits import Source
from inceptionnet.engines.agreement import agreement
from inceptionnet.errors import ConfigurationError, DataError
from inceptionnet.evaluate.evaluation import Member
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation, evaluate_labels
from inceptionnet.evaluate.multi_label_metrics import MultiLabelMetrics, _Areas, measure_labels
from inceptionnet.evaluate.prediction import predictions_of, write_csv
from inceptionnet.evaluate.table import write_predictions
from inceptionnet.explain import attribute
from inceptionnet.model.outputs import Outputs, exponential
from inceptionnet.train.resolve import resolve

from .conftest import tiny_plan

CPU = torch.device("cpu")
BINARY, LABELS = Outputs("sigmoid", 1), Outputs("sigmoid", 3)


def network(logits: int, activation: str = "sigmoid") -> InceptionNet:
    """A small network whose probabilities differ between images."""
    torch.manual_seed(3)
    model = create_model(
        "inception_v1.slim", num_classes=logits, width=0.125, input_size=32, activation=activation
    ).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        model.get_classifier().weight.normal_(0, 0.5)  # type: ignore[union-attr,operator]
    return model


@pytest.fixture
def images(colours: Path) -> list[str]:
    return [str(path) for path in sorted(colours.rglob("*.png"))[::6]]


def several(labels: np.ndarray, classes: str, colours: Path) -> Source:
    """Images with several labels each."""
    files = sorted(colours.rglob("*.png"))[: len(labels)]
    split = Split([file.name for file in files], labels, [file.read_bytes() for file in files].__getitem__)
    return Source("several", tuple(classes), {"test": split}, "split as found")


def test_probabilities_by_torch_and_extreme_logits() -> None:
    z = torch.tensor([[-200.0], [-3.0], [0.0], [0.4], [200.0]])
    assert torch.allclose(BINARY.probabilities(z)[:, 1], z[:, 0].sigmoid(), atol=1e-7)
    assert torch.allclose(BINARY.probabilities(z).sum(1), torch.ones(5))
    logs = BINARY.log_probabilities(z)
    assert logs.isfinite().all() and logs[0, 1] == -200 and logs[4, 0] == -200
    two = Outputs("softmax", 2).log_probabilities(torch.cat([torch.zeros(5, 1), z], 1))
    assert torch.allclose(logs, two, atol=1e-6)
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(LABELS.probabilities(rows), rows.sigmoid(), atol=1e-7)
    assert torch.allclose(exponential(LABELS.log_probabilities(rows)).sum(2), torch.ones(4, 3))
    assert torch.allclose(Outputs("softmax", 3).probabilities(rows), rows.softmax(1), atol=1e-7)


def test_what_is_as_probable_as_the_threshold_is_predicted() -> None:
    zero = torch.zeros(1, 1)
    assert BINARY.probabilities(zero)[0, 1] == 0.5, "exactly"
    assert BINARY.predicted(BINARY.probabilities(zero), BINARY.threshold(None)).tolist() == [1]
    of = LABELS.probabilities(torch.tensor([[0.0, -1e-3, 5.0]]))
    assert LABELS.predicted(of, LABELS.threshold(None)).tolist() == [[True, False, True]]
    assert LABELS.predicted(of, 0.3).all() and not LABELS.predicted(of, 1.0).any()


@pytest.mark.parametrize("stated", [-0.1, 1.5, math.nan])
def test_thresholds_that_are_none(stated: float) -> None:
    with pytest.raises(ConfigurationError, match=r"threshold is .*; expected a probability, from 0 to 1"):
        BINARY.threshold(stated)


def test_threshold_needs_two_classes_or_labels() -> None:
    assert Outputs("softmax", 2).threshold(None) is None and Outputs("softmax", 2).threshold(0.3) == 0.3
    with pytest.raises(ConfigurationError, match=r"threshold is 0.3, but a.pt has 3 classes, .* omit it"):
        Outputs("softmax", 3).threshold(0.3, "a.pt")


def test_one_logit_is_the_second_of_two_classes(images: list[str], tmp_path: Path) -> None:
    model = network(1)
    save_weights(model, tmp_path / "a.safetensors", classes=("cat", "dog"))
    clf = load(tmp_path / "a.safetensors", device="cpu")
    dog = clf.logits(images).sigmoid()[:, 0].tolist()
    assert max(dog) - min(dog) > 0.05 and clf.logits(images).shape == (len(images), 1)
    for one, p in zip(clf.predict(images), dog, strict=True):
        assert dict(one.top) == pytest.approx({"dog": p, "cat": 1 - p}, abs=1e-6)
        assert one.label == ("dog" if p >= 0.5 else "cat") and one.labels is None
    middle = sum(sorted(dog)[2:4]) / 2
    rows = clf.predict(images, threshold=middle)
    assert [row.label for row in rows] == ["dog" if p > middle else "cat" for p in dog]
    assert all(row.top[0][0] == row.label and len(row.top) == 2 for row in rows)
    assert {row.label for row in rows} == {"cat", "dog"}
    assert clf.predict(images[0], top=1, threshold=0.0).top == (("dog", pytest.approx(dog[0], abs=1e-6)),)
    assert load(model).classes == ("0", "1") and load(model, classes=["no", "yes"]).classes == ("no", "yes")
    with pytest.raises(
        ConfigurationError, match=r"expected 2 class names, one per class .*the second against the first"
    ):
        load(model, classes=["yes"])


def test_one_logit_gives_what_two_with_softmax_give(images: list[str], colours: Path, tmp_path: Path) -> None:
    """Logits [0, z] with softmax: predictions, all figures, agreement and heat maps are the same."""
    one, two = network(1), network(1)
    two.reset_head(2, "softmax")
    new, old = two.get_classifier(), one.get_classifier()
    assert isinstance(new, nn.Linear) and isinstance(old, nn.Linear)
    with torch.no_grad():
        old.bias[0] = -old.weight[0] @ feature_mean(one, images)  # so that both classes are predicted
        new.weight.zero_(), new.bias.zero_()
        new.weight[1], new.bias[1] = old.weight[0], old.bias[0]
    a, b = (load(model, classes=["blue", "red"], device="cpu") for model in (one, two))
    for left, right in zip(a.predict(images), b.predict(images), strict=True):
        assert left.label == right.label and left.top[0][1] == pytest.approx(right.top[0][1], abs=1e-5)
    data = tmp_path / "two"
    for name in ("blue", "red"):
        (data / name).mkdir(parents=True)
        for file in (colours / name).iterdir():
            (data / name / file.name).write_bytes(file.read_bytes())
    found = [clf.evaluate(data, split="all").to_dict() for clf in (a, b)]
    assert found[0].pop("threshold") == 0.5
    assert len(found[0]["confused_pairs"]) > 0 or found[0]["top1"] == 1
    for key in ("top1", "loss", "macro_f1", "expected_calibration_error"):
        assert found[0][key] == pytest.approx(found[1][key], abs=1e-5)
    together = evaluate_together([a, b], data, split="all").metrics.to_dict()
    assert together["loss"] == pytest.approx(found[0]["loss"], abs=1e-5)
    x = torch.stack([a.preprocess(image) for image in opened(images)])
    assert torch.allclose(attribute(one, x, torch.ones(len(x)).long()), attribute(two, x, torch.ones(len(x)).long()))
    turned = attribute(one, x, torch.zeros(len(x)).long())
    with torch.no_grad():
        old.weight.neg_(), old.bias.neg_()
    assert torch.allclose(turned, attribute(one, x, torch.ones(len(x)).long()), atol=1e-5)


def opened(images: list[str]) -> list[object]:
    from PIL import Image

    return [Image.open(image) for image in images]


def feature_mean(model: InceptionNet, images: list[str]) -> Tensor:
    return load(model, device="cpu").embed(images).mean(0)


def test_labels_of_an_image(images: list[str], tmp_path: Path) -> None:
    model = network(3)
    save_weights(model, tmp_path / "a.safetensors", classes=("sea", "sky", "sun"))
    clf = load(tmp_path / "a.safetensors", device="cpu")
    probabilities = clf.logits(images).sigmoid()
    threshold = probabilities.flatten().sort().values[8:10].mean().item()
    rows = clf.predict(images, top=1, threshold=threshold)
    for row, of in zip(rows, probabilities.tolist(), strict=True):
        expected = sorted((p, name) for p, name in zip(of, clf.classes, strict=True) if p > threshold)
        assert row.labels == tuple(name for _, name in reversed(expected)) and row.label == ";".join(row.labels)
        assert dict(row.top) == pytest.approx(dict(zip(clf.classes, of, strict=True)), abs=1e-6), "all labels"
        assert row.to_dict() == {"file": row.file, "labels": list(row.labels), "probabilities": dict(row.top)}
    write_csv(tmp_path / "a.csv", rows, clf.classes)
    with open(tmp_path / "a.csv", newline="") as file:
        written = list(csv.reader(file))
    assert written[0] == ["file", "error", "labels", "probability_sea", "probability_sky", "probability_sun"]
    assert written[1][2] == rows[0].label and float(written[1][4]) == pytest.approx(
        probabilities[0, 1].item(), abs=1e-6
    )
    assert clf.predict(images[0], threshold=1.0).labels == ()


def test_no_label_and_a_tie_by_hand() -> None:
    rows = predictions_of(["a", "b"], torch.tensor([[-3.0, -2.0, -1.0], [0.0, 4.0, -1.0]]), "xyz", LABELS, 1, 0.5)
    assert [row.labels for row in rows] == [(), ("y", "x")]
    assert [name for name, _ in rows[0].top] == ["z", "y", "x"]


class Stripes(nn.Module):
    """Stands in for a network of three labels: the mean of each channel, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) * self.factor + x[:, :, :2].mean((2, 3))


@pytest.mark.parametrize("count", [1, 2])
def test_crops_and_ensembles_average_the_probability_of_each_label(count: int, colours: Path) -> None:
    truth = np.random.default_rng(0).random((9, 3)) < 0.5
    source = several(truth, "abc", colours)
    split = source.splits["test"]
    assert isinstance(split, Split)
    views = [Crops(Preprocessing(14), 10), Crops(Preprocessing(20), 1)][:count]
    order = np.array([2, 0, 1])
    members = [
        Member(Stripes(3.0), views[0], CPU, outputs=LABELS),
        *(Member(Stripes(-1.0), view, CPU, order, outputs=LABELS) for view in views[1:]),
    ]
    loader = EvalLoader(split, views[0].prep, batch_size=4, workers=0, corrupt_images="fail", crops=views)
    found = evaluate_labels(members, loader, "abc", labels_of=np.arange(3), threshold=0.45)
    each = []
    for member, view in zip(members, views, strict=True):
        own = []
        for i in range(9):
            pixels = view.of(opened([str(sorted(colours.rglob("*.png"))[i])])[0])  # type: ignore[arg-type]
            x = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 127.5 - 1
            x = torch.cat([x, x.flip(3)]) if view.mirrored else x
            own.append(member.run(x.float()).sigmoid().mean(0)[order if member.columns is not None else slice(None)])
        each.append(torch.stack(own))
    expected = torch.stack(each).mean(0).numpy()
    assert found.probabilities == pytest.approx(expected, abs=1e-5)
    assert (found.predicted == (expected >= 0.45)).all() and (found.labels == truth).all()
    wanted = -np.where(truth, np.log(expected), np.log(1 - expected)).mean(1)
    assert found.losses == pytest.approx(wanted, rel=1e-4)
    assert found.loss == pytest.approx(wanted.mean(), rel=1e-4)
    assert len(found.members) == (count if count > 1 else 0)
    for member, own in zip(found.members, each, strict=False):
        assert member.probabilities == pytest.approx(own.numpy(), abs=1e-5)


def made(truth: np.ndarray, probabilities: np.ndarray, threshold: float = 0.5, **more: object) -> MultiLabelEvaluation:
    p = probabilities.astype(np.float32)
    losses = -np.where(truth, np.log(p + 1e-6), np.log(1 - p + 1e-6)).mean(1).astype(np.float32)
    names = tuple("abcdefgh"[: truth.shape[1]])
    return MultiLabelEvaluation(
        names, np.arange(len(truth)), truth, p >= threshold, p, losses, threshold, (("x.jpg", "cut off"),), **more
    )  # type: ignore[arg-type]


def random_labels(images: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five labels, some probabilities equal; nobody has the fourth, and the fifth is never predicted."""
    rng = np.random.default_rng(seed)
    truth = rng.random((images, 5)) < [0.5, 0.2, 0.05, 0, 0.3]
    p = (0.25 * truth + 0.75 * rng.random((images, 5))).round(2)
    p[:, 4] *= 0.4
    return truth, p


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_figures_agree_with_scikit_learn(threshold: float) -> None:
    truth, p = random_labels()
    evaluation = made(truth, p, threshold)
    metrics = measure_labels(evaluation)
    said = evaluation.predicted
    expected = precision_recall_fscore_support(truth, said, average=None, zero_division=0.0)
    for i, one in enumerate(metrics.classes):
        figures = (one.precision or 0.0, one.recall or 0.0, one.f1, one.support)
        assert figures == pytest.approx([column[i] for column in expected], abs=1e-6)
        assert (one.recall is None) == (i == 3), "without support there is no recall"
    assert (metrics.classes[4].precision is None) == (threshold == 0.5)
    for average, found in (("macro", metrics.macro), ("micro", metrics.micro)):
        known = precision_recall_fscore_support(truth, said, average=average, zero_division=0.0)
        assert found == pytest.approx(known[:3], abs=1e-6)
    areas = [average_precision_score(truth[:, i], evaluation.probabilities[:, i]) for i in (0, 1, 2, 4)]
    assert [area for area in metrics.average_precision if area is not None] == pytest.approx(areas, abs=1e-6)
    assert metrics.average_precision[3] is None and metrics.average_precision_intervals[3] is None
    assert metrics.mean_average_precision == pytest.approx(np.mean(areas), abs=1e-6)
    assert metrics.subset_accuracy == pytest.approx(accuracy_score(truth, said))
    assert metrics.subset_accuracy == pytest.approx(evaluation.subset_accuracy)
    assert metrics.hamming_loss == pytest.approx(hamming_loss(truth, said))
    assert metrics.hamming_loss == pytest.approx(evaluation.hamming_losses.mean(), rel=1e-5)
    assert {"macro_f1", "micro_f1", "mean_average_precision", "subset_accuracy"} < metrics.intervals.keys()
    for name, value in (("macro_f1", metrics.macro.f1), ("mean_average_precision", metrics.mean_average_precision)):
        interval = metrics.intervals[name]
        assert interval is not None and value is not None and interval.low < value < interval.high
        assert interval.high - interval.low < 0.25
    json.dumps(metrics.to_dict(), allow_nan=False)


def test_bootstrap_samples_agree_with_scikit_learns_weights() -> None:
    truth, p = random_labels(80)
    rng = np.random.default_rng(1)
    chosen = [0, 1, 2, 4]
    areas = _Areas(truth[:, chosen], p[:, chosen].astype(np.float32))
    for _ in range(5):
        times = np.bincount(rng.integers(80, size=80), minlength=80).astype(np.float32)
        expected = [
            average_precision_score(truth[:, i], p[:, i].astype(np.float32), sample_weight=times) for i in chosen
        ]
        assert areas.of(times) == pytest.approx(expected, abs=1e-5)


def test_figures_by_hand_and_of_an_ensemble() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 0]], bool)
    first = made(truth, np.array([[0.9, 0.2], [0.8, 0.1], [0.6, 0.3]]), file="a", network="n")
    second = made(truth, np.array([[0.9, 0.2], [0.8, 0.7], [0.1, 0.3]]), file="b", network="n")
    whole = made(truth, np.array([[0.9, 0.2], [0.8, 0.4], [0.35, 0.3]]), members=(first, second))
    metrics = measure_labels(whole)
    assert metrics.subset_accuracy == pytest.approx(2 / 3) and metrics.hamming_loss == pytest.approx(1 / 6)
    assert metrics.micro.precision == 1 and metrics.micro.recall == pytest.approx(2 / 3)
    compared = metrics.paired[0, 1]
    assert (compared.only_first_correct, compared.only_second_correct, compared.images) == (0, 2, 3)
    told = metrics.to_dict()
    assert [one["subset_accuracy"] for one in told["members"]] == pytest.approx([1 / 3, 1.0])
    assert told["paired"][0]["second"] == "b" and told["threshold"] == 0.5
    assert told["classes"]["a"]["average_precision"] == 1.0 and told["decode_errors"][0]["name"] == "x.jpg"


def test_one_image_and_no_label_at_all() -> None:
    metrics = measure_labels(made(np.zeros((1, 3), bool), np.array([[0.1, 0.2, 0.7]])))
    assert metrics.mean_average_precision is None and metrics.intervals["macro_f1"] is None
    assert metrics.hamming_loss == pytest.approx(1 / 3)
    json.dumps(metrics.to_dict(), allow_nan=False)


TRUTH = np.random.default_rng(2).random((20, 2)) < 0.5


@pytest.fixture
def several_labels(colours: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Data that has several labels an image, under any name."""
    source = several(TRUTH, "ca", colours)
    monkeypatch.setattr(evaluating, "open_source", lambda *_, **__: source)
    return source


def test_evaluated_on_images_with_several_labels(several_labels: Source, tmp_path: Path) -> None:
    """The data's labels are matched by name; the network's third one is on no image, which is said."""
    clf = load(network(3), classes=list("abc"), device="cpu")
    table = tmp_path / "a.csv"
    found = evaluate_together([clf], "data", threshold=0.4, predictions=table)
    metrics = found.metrics
    assert isinstance(metrics, MultiLabelMetrics)
    assert metrics.evaluation.labels.tolist() == np.stack([TRUTH[:, 1], TRUTH[:, 0] & False, TRUTH[:, 0]], 1).tolist()
    assert found.labels_note == "labels that no image has, counted as absent: b"
    assert found.to_dict()["threshold"] == 0.4 and found.to_dict()["labels_note"]
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    expected = metrics.evaluation.probabilities
    assert [float(row["probability_b"]) for row in rows] == pytest.approx(expected[:, 1], abs=1e-6)
    by_hand = {(False, False): "", (True, False): "c", (False, True): "a", (True, True): "a;c"}
    assert [row["labels"] for row in rows] == [by_hand[c, a] for c, a in TRUTH.tolist()]
    assert {row["correct"] for row in rows} <= {"True", "False"}


def test_predictions_as_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet

    truth, p = random_labels(4)
    write_predictions(tmp_path / "a.parquet", made(truth, p), list("wxyz"))
    columns = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert list(columns)[:5] == ["image", "labels", "predicted", "correct", "loss"]
    assert columns["probability_e"] == pytest.approx(p[:, 4], abs=1e-6)


def test_one_label_an_image_for_several(colours: Path) -> None:
    clf = load(network(4), classes=["blue", "green", "pink", "red"], device="cpu")
    found: Evaluated = evaluate_together([clf, clf], colours, split="all")
    metrics = found.metrics
    assert isinstance(metrics, MultiLabelMetrics) and metrics.evaluation.labels.sum(1).tolist() == [1] * 36
    assert metrics.evaluation.labels.sum(0).tolist() == [12, 12, 0, 12]
    assert found.labels_note.startswith("the data has one label an image: all others count as absent; labels that no")
    assert metrics.paired[0, 1].p_value == 1


@pytest.mark.parametrize(
    ("logits", "activation", "message"),
    [
        (
            2,
            "softmax",
            "data: expected one label an image, for softmax of 2 logits, .* got several; evaluate a network",
        ),
        (1, "sigmoid", "data: expected one label an image, for sigmoid of one logit, .* got several"),
        (3, "sigmoid", r"expected 3 classes in the data, one for each output of the network, got 2 \(a, c\)"),
    ],
)
@pytest.mark.usefixtures("several_labels")
def test_labels_that_do_not_fit(logits: int, activation: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_together([load(network(logits, activation), device="cpu")], "data")


def test_what_cannot_be_evaluated_or_predicted(colours: Path, images: list[str]) -> None:
    single = load(network(1, "softmax"), device="cpu")
    for ask in (lambda: single.predict(images), lambda: single.evaluate(colours), lambda: single.explain(images[0])):
        with pytest.raises(ConfigurationError, match=r"expected two logits or more for softmax, got one, .* 100 %"):
            ask()
    assert single.logits(images).shape == (len(images), 1)
    assert load(network(1, "softmax"), activation="sigmoid").predict(images[0]).top, "stated"
    with pytest.raises(ConfigurationError, match=r"outputs of one kind, got sigmoid of one logit, .* and sigmoid of 3"):
        evaluate_together([load(network(1)), load(network(3))], colours)
    with pytest.raises(ConfigurationError, match="activation is 'tanh'; expected"):
        load(network(1), activation="tanh")


@pytest.mark.parametrize("logits", [1, 3])
def test_fine_tuning_trains_softmax_with_a_new_classifier(
    logits: int, colours: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = network(logits)
    save_weights(held, tmp_path / "a.safetensors")
    job = resolve(tiny_plan(colours, model=None, width=None, weights=str(tmp_path / "a.safetensors")))
    with caplog.at_level(logging.INFO, "inceptionnet"):
        model = job.model()
    assert model.outputs == Outputs("softmax", 3) and model.network.activation == "softmax"
    assert "its outputs are sigmoid; training softmax with a new classifier" in caplog.text
    assert not torch.equal(model.get_classifier().weight[:1], held.get_classifier().weight[:1])  # type: ignore[index,union-attr]
    assert torch.equal(model.body.conv_1.conv.weight, held.body.conv_1.conv.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "logits"),
    [
        (".safetensors", 1),
        (".safetensors", 2),
        (".pt2", 1),
        *(
            pytest.param(kind, logits, marks=pytest.mark.slow)
            for kind, logits in ((".onnx", 1), (".xml", 1), (".xml", 2))
        ),
    ],
)
def test_exports_hold_what_outputs_mean(kind: str, logits: int, images: list[str], tmp_path: Path) -> None:
    classes = ("no", "yes")
    clf = load(network(logits), classes=classes, device="cpu")
    done = clf.export(tmp_path / f"a{kind}")
    assert done.written and done.metadata["activation"] == "sigmoid" and done.metadata["classes"] == list(classes)
    assert done.agreement.top1_agreement == 1 and done.agreement.probabilities < 1e-4  # type: ignore[operator]
    again = load(tmp_path / f"a{kind}")
    assert again.outputs == clf.outputs and again.classes == classes
    assert again.record.configuration.width == 0.125
    for ours, theirs in zip(clf.predict(images), again.predict(images), strict=True):
        assert ours.labels == theirs.labels and dict(ours.top) == pytest.approx(dict(theirs.top), abs=1e-5)
    if kind == ".pt2":
        with pytest.raises(ConfigurationError, match="holds its classes, preprocessing and activation; omit them"):
            load(tmp_path / "a.pt2", activation="softmax")


def test_agreement_of_labels_by_hand() -> None:
    want, got = torch.tensor([[1.0, -1.0], [2.0, 3.0]]), torch.tensor([[1.0, 0.5], [9.0, 3.0]])
    found = agreement(want, got, outputs=Outputs("sigmoid", 2), batch_sizes=())
    assert found.top1_agreement == 0.5
    assert found.probabilities == pytest.approx(1 / (1 + math.exp(-0.5)) - 1 / (1 + math.e), abs=1e-6)
    one = agreement(want[:, 1:], got[:, 1:], outputs=BINARY, batch_sizes=())
    assert one.top1_agreement == 0.5


@pytest.mark.parametrize("logits", [1, 2])
def test_engines_agree(logits: int, images: list[str]) -> None:
    model = network(logits)
    a, b = load(model, device="cpu"), load(model, engine="fused", device="cpu")
    for ours, theirs in zip(a.predict(images), b.predict(images), strict=True):
        assert dict(ours.top) == pytest.approx(dict(theirs.top), abs=1e-4)


def test_hub_and_conversion_keep_both_names(tmp_path: Path) -> None:
    from inceptionnet import convert
    from inceptionnet.registry.hub import HubInceptionNet

    HubInceptionNet.of(network(1), classes=("no", "yes")).save_pretrained(tmp_path / "hub")
    assert HubInceptionNet.from_pretrained(tmp_path / "hub").classes == ("no", "yes")
    save_weights(network(1, "softmax"), tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", activation="sigmoid")
    record = read_record(tmp_path / "b.safetensors")
    assert record.outputs == BINARY and record.classes == ("0", "1")
    assert torch.equal(load(tmp_path / "b.safetensors").model.head.logits.weight, network(1).head.logits.weight)  # type: ignore[union-attr]


def test_commands(command, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for logits, names in ((1, ("blue", "red")), (3, ("blue", "green", "red"))):
        save_weights(network(logits), tmp_path / f"{logits}.safetensors", classes=names)
    one, three = tmp_path / "1.safetensors", tmp_path / "3.safetensors"
    image = colours / "red" / "00.png"
    code, out, _ = command("predict", one, image, "--threshold", 0.25)
    assert code == 0 and "threshold 0.25: red is predicted if its probability is 0.25 or more, else blue" in out
    code, out, _ = command("predict", three, image, "--json", "--csv", tmp_path / "a.csv")
    told = json.loads(out)
    assert told["activation"] == "sigmoid" and told["threshold"] == 0.5
    assert told["predictions"][0]["probabilities"].keys() == {"blue", "green", "red"}
    code, out, _ = command("predict", three, image, "--threshold", 1)
    assert "no label (most probable: " in out and "threshold 1: labels with a probability of 1 or more" in out
    code, out, _ = command("evaluate", three, colours, "--workers", 0, "--split", "all", "--threshold", 0.3)
    assert code == 0 and "mean average precision" in out and "threshold 0.3: labels" in out
    assert "the data has one label an image" in out and "true ↓" not in out
    code, out, _ = command("evaluate", three, three, colours, "--workers", 0, "--json")
    told = json.loads(out)
    assert told["activations"] == ["sigmoid", "sigmoid"] and len(told["members"]) == 2
    assert told["intervals"].keys() >= {"macro_f1", "micro_f1", "mean_average_precision", "hamming_loss"}
    code, out, _ = command("show", three, "--json")
    assert json.loads(out)["outputs"] == {"activation": "sigmoid", "logits": 3}
    code, _, err = command("predict", three, image, "--threshold", 2)
    assert code == 2 and err.startswith("error: --threshold is 2.0; expected a probability")
    report = tmp_path / "a.html"
    code, out, _ = command("report", three, "--data", colours, "--split", "all", "--out", report, "--workers", 0)
    page = report.read_text(encoding="utf-8")
    assert code == 0 and "subset accuracy" in out
    assert "Per-label metrics" in page and "precision-recall curves by label" in page and ">green: AP 0." in page
    assert 'id="confusion"' not in page and 'id="calibration"' not in page and "micro average" in page
    assert "Threshold 0.5: labels with a probability of 0.5 or more are predicted." in page
