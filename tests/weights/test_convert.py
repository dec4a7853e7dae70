"""`convert` and the other commands on a file of another library, as a person gives it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inceptionnet import create_model, read_record
from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.errors import ConfigurationError
from inceptionnet.weights import convert
from inceptionnet.weights.layouts.facenet import FACENET
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from .published import as_published, write


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A googlenet of full width, with a tensor too many."""
    torch.manual_seed(0)
    tensors = as_published(create_model("inception_v1.torchvision", aux=True), GOOGLENET)
    return write(
        {**tensors, "extra": torch.zeros(2, dtype=torch.int64)}, tmp_path_factory.mktemp("w") / "googlenet.pth"
    )


@pytest.mark.slow
def test_convert_reports_and_the_result_predicts_the_same(command, file: Path, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    code, printed, _ = command("convert", file, out)
    assert code == 0 and "it also fits inception_v1.slim: choose with --model" in printed
    # 57 convolutions with batch norm, logits, and two heads of a convolution with batch norm and two linear layers.
    assert f"{57 * 5 + 2 + 2 * (5 + 2 + 2)} tensors" in printed
    assert "1 tensor (a count, not a layer): extra" in printed
    assert "1000: ImageNet's, since there are 1000" in printed and "224 px, keep-aspect 0.875, bilinear" in printed
    image = next(colours.rglob("*.png"))
    rows = [json.loads(command("predict", weights, image, "--json")[1]) for weights in (file, out)]
    assert rows[0]["predictions"] == rows[1]["predictions"]
    assert rows[0]["predictions"][0]["top"][0]["class"] in imagenet_classes()
    record = read_record(out)
    assert record.provenance["layout"] == "torchvision's googlenet" and record.provenance["source"] == "googlenet.pth"


def test_convert_to_json_with_everything_stated(command, file: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out.safetensors", tmp_path / "names.txt"
    names.write_text("ant\nbee\n")
    code, printed, _ = command(
        "convert", file, out, "--model", "inception_v1.slim", "--num-classes", 2, "--in-channels", 1, "--no-aux",
        "--classes", names, "--preprocess", "size_px=64", "--preprocess", "mean=0.1,0.2,0.3", "--json",
    )  # fmt: skip
    about = json.loads(printed)
    assert code == 0 and about["network"] == "inception_v1.slim" and about["written"] == str(out)
    assert any("summed over its 3 channels" in line for line in about["changed"])
    assert any("new classifier for 2 classes" in line for line in about["changed"])
    record = read_record(out)
    assert record.classes == ("ant", "bee") and record.configuration.in_channels == 1
    assert record.preprocessing.size_px == 64 and record.preprocessing.mean == (pytest.approx(0.2),)
    assert create_model(weights=out)(torch.zeros(2, 1, 64, 64)).shape == (2, 2)


def test_no_top(command, tmp_path: Path, colours: Path) -> None:
    model = create_model("inception_resnet_v1.facenet", num_classes=0)
    file = write(as_published(model, FACENET), tmp_path / "faces.pt")
    code, printed, _ = command("convert", file, tmp_path / "out.safetensors")
    assert code == 0 and "0: none: no classifier" in printed
    for name, arguments in (("predict", [colours]), ("evaluate", [colours])):
        code, _, told = command(name, tmp_path / "out.safetensors", *arguments)
        assert code == 2 and "expected weights with a classifier, got none" in told and told.count("\n") == 1


def test_what_cannot_be_done_is_one_line_and_writes_nothing(command, file: Path, tmp_path: Path) -> None:
    out, missing = tmp_path / "out.safetensors", tmp_path / "none.txt"
    two = tmp_path / "two.txt"
    two.write_text("ant\nbee\n")
    for arguments, message in (
        ((tmp_path / "none.pth", out), "no such file"),
        (
            (file, out, "--model", "inception_v4"),
            "fits inception_v1.torchvision or inception_v1.slim, not inception_v4",
        ),
        ((file, out, "--model", "inception_v9"), "not inception_v9"),
        ((file, out, "--classes", missing), "expected a file with class names or imagenet, got no such file"),
        ((file, out, "--classes", two), "expected 1000 class names, one per class, got 2"),
        ((file, out, "--preprocess", "sise=3"), "expected KEY=VALUE; did you mean resize or size_px"),
        ((file, out, "--preprocess", "crop=wide"), "expected a number"),
        ((file, out, "--preprocess", "crop=7"), r"crop: expected a number from 0.01 to 1, got 7"),
        ((file, out, "--num-classes", "-3"), "--num-classes is -3"),
        ((file, out, "--in-channels", "0"), "--in-channels is 0"),
        ((file, two / "folder" / "out.safetensors"), "cannot write the weights"),
        (("hf:nobody", out), "expected hf:owner/name"),
    ):
        code, _, told = command("convert", *arguments)
        assert code == 2 and message in told.splitlines()[-1] and "Traceback" not in told, told
        assert told.splitlines()[-1].startswith("error: ") and not out.exists()


def test_an_existing_file_stays_if_the_conversion_fails(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(ConfigurationError):
        convert(file, out, classes=["one"])
    assert out.read_bytes() == b"precious" and list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_training_starts_from_another_librarys_file(command, file: Path, colours: Path, tmp_path: Path) -> None:
    code, printed, told = command(
        "train", colours, "--weights", file, "--train-from", "head", "--size", 64, "--out",
        tmp_path / "run", "--batch-size", 12, "--workers", 0,
    )  # fmt: skip
    assert code == 0, told
    assert "fitting the classifier alone" in told + printed
    record = read_record(tmp_path / "run" / "weights.safetensors")
    assert record.classes == ("blue", "green", "red") and record.configuration.name == "inception_v1.torchvision"
    assert command("convert", tmp_path / "run", tmp_path / "kept.safetensors", "--no-aux")[0] == 0
    assert read_record(tmp_path / "kept.safetensors").classes == record.classes
    tuned = create_model(weights=tmp_path / "run" / "weights.safetensors").state_dict()
    start = create_model(weights=file, aux=False).state_dict()
    assert all(tuned[name].equal(start[name]) for name in start if name.startswith("body."))
