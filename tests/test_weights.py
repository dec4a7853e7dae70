"""Weights files: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.data import Preprocessing
from inceptionnet.errors import ConfigurationError, WeightsError
from inceptionnet.model.network import InceptionNet

ARGUMENTS = {"num_classes": 3, "width": 0.125, "input_size": 79, "residual_scale": (0.1, 0.2, 0.3), "dropout": 0.5}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[InceptionNet, Path]:
    torch.manual_seed(0)
    model = create_model("inception_resnet_v1", **ARGUMENTS)
    model(torch.randn(2, 3, 79, 79))  # moves the running statistics
    prep = Preprocessing(79, crop=0.9, resize="keep-aspect", interpolation="bicubic")
    path = tmp_path / "weights.safetensors"
    save_weights(model, path, classes=("ant", "bee", "wasp"), preprocessing=prep, provenance={"data": "insects"})
    return model, path


def test_everything_comes_back(saved: tuple[InceptionNet, Path]) -> None:
    model, path = saved
    loaded = create_model(weights=path)
    assert loaded.configuration == model.configuration
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    x = torch.randn(2, 3, 79, 79)
    assert torch.equal(model.eval()(x), loaded.eval()(x))
    record = read_record(path)
    assert record.classes == ("ant", "bee", "wasp") and record.provenance == {"data": "insects"}
    assert (record.preprocessing.crop, record.preprocessing.resize) == (0.9, "keep-aspect")
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_other_classes_start_the_logits_anew_and_say_so(
    saved: tuple[InceptionNet, Path], caplog: pytest.LogCaptureFixture
) -> None:
    model, path = saved
    with caplog.at_level(logging.INFO, "inceptionnet"):
        other = load_model(path, num_classes=5)
    assert "randomly initialised: head.logits" in caplog.text
    assert other.head.get_submodule("logits").weight.shape == (5, 224)
    before, after = model.state_dict(), other.state_dict()
    kept = [key for key in before if not key.startswith("head.logits")]
    assert kept and all(torch.equal(before[key], after[key]) for key in kept)


def test_auxiliary_heads_that_the_file_lacks_start_anew_and_those_not_wanted_are_left(tmp_path: Path) -> None:
    plain, path = create_model("inception_v3", width=0.125, num_classes=3), tmp_path / "w.safetensors"
    save_weights(plain, path)
    with_aux = load_model(path, aux=True)
    assert with_aux.aux and not any(p.is_meta for p in with_aux.parameters())
    save_weights(with_aux, path)
    assert not load_model(path, aux=False).aux
    assert torch.equal(load_model(path).aux["mixed_6e"].logits.weight, with_aux.aux["mixed_6e"].logits.weight)


def test_a_trained_network_keeps_training_after_loading(saved: tuple[InceptionNet, Path]) -> None:
    _, path = saved
    model = load_model(path)
    model(torch.randn(2, 3, 79, 79)).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(model.state_dict()["head.logits.bias"], load_model(path).state_dict()["head.logits.bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "inception_v4"}, r"expected inception_v4, got inception_resnet_v1"),
        (
            {"width": 0.25},
            r"does not fit inception_resnet_v1 as configured; of another shape: body\.reduction_a\.b3x3\.0",
        ),
    ],
)
def test_what_does_not_fit_is_listed(saved: tuple[InceptionNet, Path], change: dict[str, object], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        create_model(weights=saved[1], **change)  # type: ignore[arg-type]


def test_files_that_are_no_weights(saved: tuple[InceptionNet, Path], tmp_path: Path) -> None:
    model, path = saved
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(path.read_bytes()[:5000])
    text = tmp_path / "text.safetensors"
    text.write_text("not weights at all")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    future = tmp_path / "future.safetensors"
    save_file(model.state_dict(), future, {"inceptionnet": json.dumps({"format": 99})})
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    damaged = tmp_path / "damaged.safetensors"
    save_file(model.state_dict(), damaged, {"inceptionnet": "{"})
    for file, message in (
        (tmp_path / "none.safetensors", "no such file"),
        (nothing, "got a folder without weights.safetensors"),
        (truncated, "damaged or truncated"),
        (text, "of an unknown format"),
        (empty, "an empty file"),
        (future, "expected format 1, got 99"),
        (damaged, "damaged metadata"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            create_model(weights=file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "inception_v1",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("inception_v2.slim", "inception_v3.torchvision", "inception_v4.slim")
        ),
    ],
)
def test_a_bare_state_dict_is_enough_for_a_network_of_that_name(name: str, tmp_path: Path) -> None:
    model = create_model(name, num_classes=4, width=0.125, in_channels=2)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "bare.pth")
    loaded = create_model(name, weights=tmp_path / "bare.pth", width=0.125)
    assert loaded.network == model.network
    assert all(a.equal(b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    guessed = read_record(tmp_path / "bare.pth").configuration.name
    assert guessed == name.removesuffix(".torchvision")  # the first of those that it fits
    with pytest.raises(
        WeightsError, match=rf"a state dict of this package that fits .*{guessed}.*; expected inception_r"
    ):
        create_model("inception_resnet_v1", weights=tmp_path / "bare.pth")


def test_missing_and_unexpected_tensors_are_listed_sorted(saved: tuple[InceptionNet, Path], tmp_path: Path) -> None:
    model, path = saved
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["zzz"] = state.pop("head.logits.bias")
    state["extra"] = state.pop("body.stem_conv_1.bn.bias")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["inceptionnet"])
    del about["checksum"]
    save_file(state, tmp_path / "other.safetensors", {"inceptionnet": json.dumps(about)})
    message = r"missing: body\.stem_conv_1\.bn\.bias, head\.logits\.bias; unexpected: extra, zzz$"
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / "other.safetensors")


def test_saving_is_whole_or_not_at_all(saved: tuple[InceptionNet, Path], tmp_path: Path) -> None:
    model, path = saved
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="expected 3 class names, one per class, got 2"):
        save_weights(model, path, classes=("ant", "bee"))
    with pytest.raises(WeightsError, match="cannot write the weights"):
        save_weights(model, path / "w.safetensors")
    assert path.read_bytes() == before
