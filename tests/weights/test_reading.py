"""Published files: recognised, told of in full, adapted by argument, and refused in one line where they are no use."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inceptionnet import Classifier, create_model, load_model, read_record, save_weights
from inceptionnet.classifier.backends import Options, network_backend
from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.weights import reading
from inceptionnet.weights.hub import Fetched
from inceptionnet.weights.known import PUBLISHED
from inceptionnet.weights.layouts import LAYOUTS
from inceptionnet.weights.layouts.cadene import BN_INCEPTION
from inceptionnet.weights.layouts.facenet import FACENET
from inceptionnet.weights.layouts.torchvision import GOOGLENET, INCEPTION_V3
from inceptionnet.weights.reading import read_weights

from .published import as_published, write

V1, V3 = "inception_v1.torchvision", "inception_v3.torchvision"
NARROW = {"width": 0.125}
PX = 96


@pytest.fixture(scope="module")
def googlenet() -> InceptionNet:
    return moved(create_model(V1, aux=True, **NARROW))


def moved(model: InceptionNet) -> InceptionNet:
    """The model with statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture
def file(googlenet: InceptionNet, tmp_path: Path) -> Path:
    return write(as_published(googlenet, GOOGLENET), tmp_path / "mine.pth")


def equal(a: InceptionNet, b: InceptionNet) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.slow
def test_every_layer_of_every_network_has_a_name() -> None:
    """Names pair with the tree's layers, none twice, and none is left over."""
    for layout in LAYOUTS:
        for name in layout.networks:
            aux = bool(layout.aux) and name != "inception_v3.fid" and name != "inception_v1.slim"
            model = create_model(name, aux=aux, **NARROW)
            names = as_published(model, layout)
            learned = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
            assert len(names) == len(learned)


def test_it_is_recognised_and_filled(googlenet: InceptionNet, file: Path) -> None:
    read = read_weights(file)
    assert read.record.configuration.name == V1 and read.record.configuration.aux
    assert read.record.classes == imagenet_classes() and read.record.preprocessing == GOOGLENET.preprocessing
    assert read.report.others == ("inception_v1.slim",) and not read.report.dropped
    assert equal(create_model(weights=file, **NARROW).eval(), googlenet)


def test_two_models_of_one_file_share_nothing(file: Path) -> None:
    read = read_weights(file)
    one, two = read.model(**NARROW), read.model(**NARROW)
    with torch.no_grad():
        for tensor in (*one.parameters(), *one.buffers()):
            tensor.zero_()
    assert equal(two, create_model(weights=file, **NARROW))


def test_the_name_chooses_another_network_that_fits(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "inceptionnet"):
        read_weights(file)
    assert "mine.pth: read as inception_v1.torchvision (torchvision's googlenet); it also fits inception_v1.slim" in (
        caplog.text
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, "inceptionnet"):
        assert create_model("inception_v1.slim", weights=file, **NARROW).network.name == "inception_v1.slim"
    assert "fits" not in caplog.text
    dropped = read_weights(file, name="inception_v1.slim").report.dropped
    assert dropped["aux1.fc2.bias"] == "auxiliary head, which the network does not have"
    with pytest.raises(WeightsError, match=r"which fits inception_v1\.torchvision or inception_v1\.slim, not inc"):
        create_model("inception_v4", weights=file)


def test_other_classes_no_top_and_no_heads(googlenet: InceptionNet, file: Path) -> None:
    x = torch.randn(2, 3, PX, PX)
    other = load_model(file, num_classes=7, **NARROW).eval()
    assert other(x).shape == (2, 7) and other.embed(x).equal(googlenet.embed(x))
    assert other.aux["inception_4a"].conv.conv.weight.equal(googlenet.aux["inception_4a"].conv.conv.weight)
    bare = load_model(file, num_classes=0, **NARROW).eval()
    assert bare(x).equal(googlenet.embed(x)) and not bare.aux
    plain = load_model(file, aux=False, **NARROW).eval()
    assert plain(x).equal(googlenet(x)) and not plain.aux


def test_1001_classes_lose_the_background_unless_asked_for(tmp_path: Path) -> None:
    model = moved(create_model(V1, num_classes=1001, **NARROW))
    file = write(as_published(model, GOOGLENET), tmp_path / "m.pth")
    x = torch.randn(1, 3, PX, PX)
    torch.testing.assert_close(load_model(file, **NARROW).eval()(x), model(x)[:, 1:])
    torch.testing.assert_close(load_model(file, num_classes=1001, **NARROW).eval()(x), model(x))
    assert read_weights(file, keep_background=True).record.classes[:2] == ("background", "tench")
    assert "class 0 of 1001, the background, removed" in read_weights(file).report.changed


@pytest.mark.parametrize("native", [False, True])
def test_a_grey_image_gives_what_equal_channels_gave(
    googlenet: InceptionNet, file: Path, native: bool, tmp_path: Path
) -> None:
    if native:
        file = tmp_path / "native.safetensors"
        save_weights(googlenet, file)
    grey = torch.randn(2, 1, PX, PX)
    model = load_model(file, in_channels=1, **({} if native else NARROW)).eval()
    torch.testing.assert_close(model(grey), googlenet(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


def test_more_channels_repeat_the_kernels_and_keep_their_size(googlenet: InceptionNet, file: Path) -> None:
    before = googlenet.state_dict()["body.conv_1.conv.weight"]
    after = load_model(file, in_channels=5, **NARROW).state_dict()["body.conv_1.conv.weight"]
    torch.testing.assert_close(after, before[:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_a_separable_first_layer_changes_channels_too(tmp_path: Path) -> None:
    model = moved(create_model("inception_v2.slim", num_classes=4, **NARROW))
    depthwise = model.body.conv_1.depthwise
    # Kernels of rank 8, so that the 8 that one channel leaves room for can say all of their sum.
    for channel in range(3):
        depthwise.weight.data[8 * channel : 8 * channel + 8] = depthwise.weight.data[:8]
    save_weights(model, tmp_path / "m.safetensors")
    grey, colours = torch.randn(2, 1, PX, PX), torch.randn(2, 3, PX, PX)
    one = load_model(tmp_path / "m.safetensors", in_channels=1).eval()
    torch.testing.assert_close(one(grey), model(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    six = load_model(tmp_path / "m.safetensors", in_channels=6).eval()
    torch.testing.assert_close(six(colours.repeat(1, 2, 1, 1)), model(colours), rtol=1e-3, atol=1e-4)


def test_convolutions_with_a_bias_and_batch_norm(tmp_path: Path) -> None:
    """The bias moves the mean; channels turn from BGR of 0 to 255. Checked in the first layer, by hand."""
    model = moved(create_model("inception_v2.caffe", **NARROW))
    tensors = as_published(model, BN_INCEPTION)
    biases = {
        name.replace("_bn.bias", ".bias"): torch.randn_like(t) for name, t in tensors.items() if "_bn.bias" in name
    }
    file = write({**tensors, **biases}, tmp_path / "bn.pth")
    read = read_weights(file)
    assert "69 convolutions' biases folded into the batch norm's mean" in read.report.changed
    first = read.model(**NARROW).eval().body.conv_1
    bgr = torch.randn(1, 3, 32, 32) * 50
    kernel, bias = (tensors | biases)["conv1_7x7_s2.weight"], biases["conv1_7x7_s2.bias"]
    expected = torch.nn.functional.conv2d(bgr, kernel, bias, 2, 3)
    norm = model.body.conv_1.bn
    torch.testing.assert_close(first(bgr.flip(1) / 127.5), norm(expected).relu(), rtol=1e-4, atol=1e-4)


def test_a_file_without_classifier_has_none(tmp_path: Path) -> None:
    model = moved(create_model("inception_resnet_v1.facenet", num_classes=0, **NARROW))
    read = read_weights(write(as_published(model, FACENET), tmp_path / "faces.pt"))
    assert read.record.classes == () and read.record.configuration.num_classes == 0
    x = torch.randn(2, 3, 160, 160)
    assert read.model(**NARROW).eval()(x).equal(model.embed(x))
    assert read.model(num_classes=4, **NARROW).eval()(x).shape == (2, 4)
    with pytest.raises(WeightsError, match=r"faces.pt: expected weights with a classifier, got none"):
        backend = network_backend(read.model(**NARROW), read.record.preprocessing, Options())
        Classifier(backend, read.record, Options(), str(read.path), "").check_classes()


def test_1008_classes_are_the_fid_graph_and_have_numbers_for_names(tmp_path: Path) -> None:
    model = moved(create_model("inception_v3.fid", **NARROW))
    read = read_weights(write(as_published(model, INCEPTION_V3), tmp_path / "fid.pth"))
    assert read.record.configuration.name == "inception_v3.fid" and read.record.classes[-1] == "1007"
    assert equal(read.model(**NARROW).eval(), model)


def spoilt(change: Callable[[dict[str, Tensor]], object]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def spoil(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        change(tensors)
        return tensors

    return spoil


def without_the_end(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("inception5")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoilt(lambda t: t.pop("conv2.conv.weight")),
            "torchvision's googlenet, but without conv2.conv.weight; get the complete file",
        ),
        (
            spoilt(without_the_end),
            r"torchvision's googlenet, but without inception5a\.branch1, .* … and \d+ more; get the complete",
        ),
        (
            spoilt(lambda t: t["conv1.bn.running_var"].fill_(torch.nan)),
            r"got NaN, infinite or negative values in body\.conv_1\.bn\.running_var; get the file again",
        ),
        (
            spoilt(lambda t: t["conv3.conv.weight"].view(-1)[5:6].fill_(torch.inf)),
            r"NaN, infinite .*body\.conv_2\.conv",
        ),
        (spoilt(lambda t: t["conv1.bn.running_var"].neg_()), r"negative values in body\.conv_1\.bn\.runn"),
        (
            spoilt(lambda t: t.update({"conv1.conv.weight": torch.zeros(8, 3, 5, 5)})),
            r"of another shape: body\.conv_1\.conv\.weight \(8, 3, 5, 5\) for \(8, 3, 7, 7\)",
        ),
        (
            spoilt(lambda t: t.update({"conv1.conv.weight": torch.zeros(8, 3, 7, 7, dtype=torch.int8)})),
            r"expected floating-point weights, got body\.conv_1\.conv\.weight \(torch\.int8\)",
        ),
        (
            spoilt(lambda t: t.update({"fc.weight": torch.zeros(10**9, 0)})),
            r"expected a classifier's matrix, got fc\.weight of shape \(1000000000, 0\)",
        ),
        (
            lambda t: {"encoder.weight": torch.zeros(3)},
            r"1 tensors \(encoder.weight …\) in an unknown layout; known: Cadene",
        ),
        (lambda t: {}, "expected a state dict|no known layout"),
    ],
)
def test_what_is_no_use_is_refused_in_one_line(
    googlenet: InceptionNet, tmp_path: Path, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    file = write(spoil(as_published(googlenet, GOOGLENET)), tmp_path / "spoilt.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(file, **NARROW)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize("seed", range(40))
def test_tensors_of_any_shape_are_filled_in_or_refused(googlenet: InceptionNet, tmp_path: Path, seed: int) -> None:
    """Some tensors of another shape, or none at all: one line, whatever is asked for."""
    rng = random.Random(seed)
    tensors = as_published(googlenet, GOOGLENET)
    names = [
        *rng.sample(sorted(tensors), 2),
        rng.choice(["conv1.conv.weight", "fc.weight", "fc.bias", "conv1.bn.weight"]),
    ]
    for name in names:
        tensors[name] = torch.zeros(
            rng.choice([(), (0,), (5,), (1, 1), (0, 3, 7, 7), (8, 3, 7), (10**9, 0), (2, 2, 2, 2, 2)])
        )
    tensors["conv2.conv.bias"] = torch.zeros(rng.choice([(8,), (9,), ()]))
    changes = rng.choice([{}, {"in_channels": 1}, {"in_channels": 5}, {"num_classes": 0}, {"num_classes": 3}])
    file = write(tensors, tmp_path / "m.pth")
    with pytest.raises(WeightsError) as caught:
        load_model(file, **NARROW, **changes)
    assert "\n" not in str(caught.value)


def test_what_is_left_over_is_named(googlenet: InceptionNet, tmp_path: Path) -> None:
    tensors = as_published(googlenet, GOOGLENET)
    tensors |= {"val_acc.hits": torch.zeros(3), "conv1.bn.num_batches_tracked": torch.tensor(5)}
    del tensors["aux2.fc2.bias"], tensors["aux2.fc2.weight"]
    report = read_weights(write(tensors, tmp_path / "m.pth")).report
    assert report.dropped["val_acc.hits"] == "of a loss or a metric, not a layer"
    assert report.dropped["aux1.conv.conv.weight"] == "incomplete auxiliary head"
    assert "conv1.bn.num_batches_tracked" not in report.dropped


def test_half_precision_becomes_single(googlenet: InceptionNet, tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in as_published(googlenet, GOOGLENET).items()}
    model = load_model(write(tensors, tmp_path / "m.safetensors"), **NARROW)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# Where the preprocessing comes from.


def test_a_published_file_by_name_brings_what_is_known_of_it(
    googlenet: InceptionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(as_published(googlenet, GOOGLENET), tmp_path / "googlenet-1378be20.pth")
    with pytest.raises(
        WeightsError, match=r"named like the published .*SHA-256 starts with 1378be20, but has .*rename it"
    ):
        read_weights(file)
    known = next(one for one in PUBLISHED if one.file == "googlenet-1378be20.pth")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(reading, "published_as", lambda name: replace(known, sha256=digest[:8]))
    read = read_weights(file)
    assert read.record.preprocessing == known.preprocessing and known.name in read.report.preprocessing
    published = read.record.provenance["published"]
    assert (published["name"], published["license"], published["top1"]) == (known.name, known.license, known.top1)
    monkeypatch.setattr(reading, "published_as", lambda name: replace(known, sha256="", classes=5))
    other = read_weights(file)  # somebody's own, under that name
    assert "published" not in other.record.provenance and other.report.published == ""


def test_a_repository_on_the_hub_states_its_own(
    googlenet: InceptionNet, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = {
        "input_size": [3, 240, 240], "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    config = {"architecture": "googlenet", "pretrained_cfg": stated}
    monkeypatch.setattr(reading, "fetch", lambda address: Fetched(file, f"{address}/mine.pth@abc", config))
    read = read_weights("hf:somebody/flowers")
    assert read.record.preprocessing == Preprocessing(
        240, 240 / 266, "keep-aspect", "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert read.record.provenance["source"] == "hf:somebody/flowers/mine.pth@abc"
    stated["interpolation"] = "sinc"
    assert read_weights("hf:somebody/flowers").record.preprocessing == GOOGLENET.preprocessing
    assert equal(create_model(weights="hf:somebody/flowers", **NARROW).eval(), googlenet)


def test_read_record_of_another_number_of_channels(tmp_path: Path) -> None:
    model = moved(create_model(V1, in_channels=4, num_classes=3, **NARROW))
    record = read_record(write(as_published(model, GOOGLENET), tmp_path / "m.pth"))
    assert record.configuration.in_channels == 4 and record.preprocessing.mean == (0.5,) * 4
    assert record.classes == ("0", "1", "2")


# State dicts of this package's own networks.


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (V1, {"width": 0.25, "num_classes": 5, "aux": True}),
        ("inception_v1", {"width": 0.5, "in_channels": 1}),
        ("inception_v2.slim", {"width": 0.75, "num_classes": 0, "in_channels": 4}),
        ("inception_v2.caffe", {"num_classes": 3}),
        ("inception_v3", {"width": 0.125, "num_classes": 2, "aux": True}),
        ("inception_v4", {"width": 0.25, "num_classes": 4}),
        ("inception_resnet_v1.facenet", {"width": 0.5, "num_classes": 0}),
        ("inception_resnet_v2", {"width": 0.2, "num_classes": 4, "aux": True}),
    ],
)
def test_a_state_dict_is_recognised_with_its_width(
    tmp_path: Path, name: str, changes: dict[str, object], ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = moved(create_model(name, **changes))  # type: ignore[arg-type]
    file = write(model.state_dict(), tmp_path / f"m.{ending}")
    with caplog.at_level(logging.INFO, "inceptionnet"):
        read = read_weights(file, name=name)
    held = read.record.configuration
    for argument in ("num_classes", "in_channels", "aux"):
        assert getattr(held, argument) == getattr(model.configuration, argument)
    assert equal(read.model().eval(), model)
    width = model.configuration.width
    line = f"width {held.width:g}, from the tensors' shapes"
    assert (line in read.report.changed) == (line in caplog.text) == (width != 1)


def test_the_roundest_width_that_gives_the_shapes_is_taken(tmp_path: Path) -> None:
    """Numbers of filters are multiples of 8, so that neighbouring widths give the same network."""
    for width, found in ((0.25, 0.25), (0.26, 0.25), (0.5, 0.5), (0.75, 0.75), (0.3, 0.3)):
        model = create_model("inception_v1.slim", num_classes=2, width=width)
        file = write(model.state_dict(), tmp_path / "m.pt")
        held = read_weights(file).record.configuration
        assert held.width == found
        assert load_model(file).state_dict().keys() == model.state_dict().keys()


def test_a_state_dict_without_a_common_width_is_refused(tmp_path: Path) -> None:
    tensors = create_model("inception_v1.slim", num_classes=2, width=0.25).state_dict()
    tensors["body.conv_1.conv.weight"] = torch.zeros(64, 3, 7, 7)
    file = write(tensors, tmp_path / "m.pt")
    for name in (None, "inception_v1.slim"):
        with pytest.raises(WeightsError, match=r"no width multiplier gives .*: at 0\.25, body\.conv_1 has 64, not 16;"):
            load_model(file, name=name)
    with pytest.raises(WeightsError, match=r"fits no network; expected inception_v4"):
        load_model(file, name="inception_v4")
