"""What `create_model` gives, and what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import inceptionnet
from inceptionnet import create_model, list_models
from inceptionnet.errors import ConfigurationError, InputError
from inceptionnet.nets.analysis import analyse as rows_of
from inceptionnet.nets.analysis import parameters
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Conv, Residual, SeparableConv

NARROW = {"width": 0.125, "num_classes": 7}


def test_public_names_are_sorted_and_there() -> None:
    assert inceptionnet.__all__ == sorted(inceptionnet.__all__)
    assert all(getattr(inceptionnet, name) for name in inceptionnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        inceptionnet.nothing  # noqa: B018


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_one_tensor_in_training_too(training: bool) -> None:
    model = create_model("inception_v3", aux=True, input_size=128, **NARROW).train(training)
    logits = model(torch.randn(2, 3, 128, 128))
    assert isinstance(logits, torch.Tensor) and logits.shape == (2, 7)


def test_features_embed_and_logits_agree() -> None:
    model = create_model("inception_resnet_v2", input_size=96, **NARROW).eval()
    x = torch.randn(2, 3, 96, 120)
    features = model.features(x)
    assert list(features) == list(model.network.body)
    pooled = features["residual_c5"].mean((2, 3))
    torch.testing.assert_close(model.embed(x), pooled)
    logits = model.head.get_submodule("logits")
    torch.testing.assert_close(model(x), F.linear(pooled, logits.weight, logits.bias))


def test_embedding_does_not_drop_out_and_is_the_face_networks() -> None:
    model = create_model("inception_resnet_v1.facenet", width=0.5, num_classes=3).eval()
    x = torch.randn(2, 3, 160, 160)
    embedding = model.embed(x)
    assert embedding.shape == (2, 256)
    model.head.get_submodule("dropout").train()
    assert torch.equal(model.embed(x), embedding)


def test_auxiliary_heads_by_name_not_position() -> None:
    model = create_model("inception_v1", aux=True, **NARROW).eval()
    x = torch.randn(2, 3, 224, 224)
    outputs = model.all_logits(x)
    assert list(outputs) == ["logits", "inception_4a", "inception_4d"]
    assert torch.equal(outputs["logits"], model(x))
    for endpoint in ("inception_4a", "inception_4d"):
        alone = model.aux[endpoint](model.features(x)[endpoint])
        assert torch.equal(outputs[endpoint], alone)
    assert model.all_logits(torch.randn(1, 3, 260, 300))["inception_4a"].shape == (1, 7), "other sizes too"


def test_all_logits_without_auxiliary_heads_is_the_main_one() -> None:
    model = create_model("inception_v4", input_size=96, **NARROW).eval()
    assert list(model.all_logits(torch.randn(1, 3, 96, 96))) == ["logits"]


def test_auxiliary_head_shrinks_with_the_input_and_says_its_least() -> None:
    model = create_model("inception_v3", aux=True, input_size=128, **NARROW)
    assert model.all_logits(torch.randn(2, 3, 128, 128))["mixed_6e"].shape == (2, 7)
    large = create_model("inception_v3", aux=True, **NARROW)
    with pytest.raises(InputError, match="299 px or more on each side, got 128×128; give create_model the input_size"):
        large.all_logits(torch.randn(2, 3, 128, 128))
    with pytest.raises(ConfigurationError, match="with its auxiliary head takes images of 107 px or more"):
        create_model("inception_v3", aux=True, input_size=106)


def test_reset_head_changes_logits_only() -> None:
    model = create_model("inception_v3", aux=True, **NARROW).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_head(4)
    after = model.state_dict()
    assert list(before) == list(after) and model.num_classes == 4
    assert {key for key in before if not before[key].equal(after[key])} == {
        "head.logits.weight", "head.logits.bias", "aux.mixed_6e.logits.weight", "aux.mixed_6e.logits.bias",
    }  # fmt: skip
    assert model(torch.randn(1, 3, 299, 299)).shape == (1, 4)
    assert 0 < model.head.get_submodule("logits").weight.std() < 0.1
    with pytest.raises(ConfigurationError, match="num_classes is -1; expected a whole number, 0 or more"):
        model.reset_head(-1)


def test_no_classifier_gives_the_pooled_features_and_can_have_one_again() -> None:
    model = create_model("inception_v3", aux=True, **NARROW).eval()
    x = torch.randn(2, 3, 299, 299)
    with torch.no_grad():
        features = model.embed(x)
        model.reset_head(0)
        assert model(x).equal(features) and model.embed(x).equal(features)
        assert model.num_classes == 0 and not model.aux and list(model.all_logits(x)) == ["logits"]
    bare = create_model("inception_v3", num_classes=0, width=0.25)
    assert list(bare.state_dict()) == list(model.state_dict())
    model.reset_head(3)
    assert model(x).shape == (2, 3) and model.head.get_submodule("dropout").p == 0.2
    with pytest.raises(ConfigurationError, match="aux=True needs classes, but num_classes is 0"):
        create_model("inception_v3", num_classes=0, aux=True)


def test_the_face_networks_embedding_stays_without_classifier() -> None:
    faces = create_model("inception_resnet_v1.facenet", num_classes=0, width=0.25).eval()
    assert faces(torch.randn(2, 3, 160, 160)).shape == (2, 128)


def test_arguments_reach_the_network() -> None:
    model = create_model("inception_resnet_v1", in_channels=5, dropout=0.5, residual_scale=(0.1, 0.2, 0.3), **NARROW)
    scales = {block.scale for block in model.modules() if hasattr(block, "closing")}
    assert scales == {0.1, 0.2, 0.3}
    assert model.head.get_submodule("dropout").p == 0.5
    assert model(torch.randn(2, 5, 80, 80)).shape == (2, 7)


def test_default_scales_are_the_released_ones_and_the_last_block_stays_unscaled() -> None:
    def scales(model: inceptionnet.InceptionNet) -> list[float]:
        return [block.scale for block in model.modules() if hasattr(block, "closing")]

    assert scales(create_model("inception_resnet_v1", **NARROW)) == [0.17] * 5 + [0.10] * 10 + [0.20] * 5
    slim = create_model("inception_resnet_v2.slim", residual_scale=0.3, **NARROW)
    assert scales(slim) == [0.3] * 39 + [1.0]


@pytest.mark.parametrize("width", [0.1, 0.25, 0.5, 0.75, 1.5])
@pytest.mark.parametrize("name", list_models())
def test_width_keeps_multiples_of_eight(name: str, width: float) -> None:
    rows = rows_of(configure(Configuration(name, width=width, num_classes=3)))
    for row in rows:
        if isinstance(row.node, Conv | SeparableConv | Residual):
            assert row.output.channels % 8 == 0, row.path
    assert rows[-1].output.channels == 3
    if width == 0.5:
        assert parameters(rows) == pytest.approx(
            parameters(rows_of(configure(Configuration(name, num_classes=3)))) / 4, rel=0.1
        )


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v1", "inception_v2.rethinking"])
def test_width_narrows_the_low_resolution_stems_too(name: str) -> None:
    for size in (79, 151, 299):
        first = rows_of(configure(Configuration(name, width=0.25, input_size=size)))[0]
        assert first.output.channels == (16 if "rethinking" in name else 8)


def test_width_one_and_published_defaults() -> None:
    assert configure(Configuration("inception_v4", width=1.0)) == configure(Configuration("inception_v4"))
    assert create_model("inception_v3.fid", width=0.125).num_classes == 1008
    assert create_model("inception_v3", width=0.125).num_classes == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "inception_v5"}, r"unknown network 'inception_v5': did you mean inception_v4"),
        ({"name": "resnet"}, r"unknown network 'resnet': "),
        ({"name": None}, r"needs a name, or weights=FILE"),
        ({"width": 0}, r"width is 0; expected a finite number above 0"),
        ({"width": float("nan")}, r"width is nan; expected"),
        ({"num_classes": -1}, r"num_classes is -1; expected a whole number"),
        ({"num_classes": 2.5}, r"num_classes is 2\.5; expected a whole number"),
        ({"in_channels": 0}, r"in_channels is 0; expected"),
        ({"input_size": 74}, r"input_size is 74 px; inception_v3 takes images of 75 px or more"),
        ({"input_size": "big"}, r"input_size is 'big'; expected a whole number"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected a probability"),
        ({"residual_scale": 0.1}, r"residual_scale is 0\.1, but inception_v3 has no residual blocks"),
        ({"name": "inception_resnet_v2", "residual_scale": (0.1, 0.2)}, r"expected one number above 0, or 3 of them"),
        ({"name": "inception_resnet_v2", "residual_scale": -1.0}, r"expected one number above 0, or 3 of them"),
        ({"name": "inception_v2", "aux": True}, r"inception_v2 has no auxiliary head, got aux=True"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        create_model(**({"name": "inception_v3"} | arguments))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_bad_input_is_named_before_any_layer_sees_it() -> None:
    model = create_model("inception_v3", **NARROW)
    for x, message in (
        (torch.zeros(1, 1, 299, 299), r"expected images of shape \(N, 3, H, W\), got \(1, 1, 299, 299\)"),
        (torch.zeros(3, 299, 299), r"expected images of shape \(N, 3, H, W\), got \(3, 299, 299\)"),
        (torch.zeros(1, 3, 299, 74), r"takes images of 75 px or more on each side, got 299×74"),
        (torch.zeros(1, 3, 299, 299, dtype=torch.uint8), r"as float in \[-1, 1\], got torch.uint8"),
    ):
        for method in (model, model.features, model.embed, model.all_logits):
            with pytest.raises(InputError, match=message):
                method(x)
