"""Which output stands for which class of the data, where names say it and where they do not."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inceptionnet import convert, create_model, load, read_record, save_weights
from inceptionnet.data.imagenet import imagenet_classes, imagenet_wnids
from inceptionnet.errors import ConfigurationError, DataError
from inceptionnet.evaluate.classes import matched_classes, matched_labels, same_classes
from inceptionnet.weights import read_weights

from .data.made import png, write_tree

Command = Callable[..., tuple[int, str, str]]
NUMBERS = [str(i) for i in range(12)]
TEXT_ORDER = sorted(NUMBERS)
ALWAYS = 2
"""What the network of these tests answers to every image."""


@pytest.fixture(scope="module")
def unnamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of a network with 12 classes, saved by torch alone."""
    model = create_model("inception_v1.slim", num_classes=12, width=0.125, input_size=32, aux=False)
    with torch.no_grad():
        model.state_dict()["head.logits.bias"].copy_(torch.eye(12)[ALWAYS] * 1000)
    file = tmp_path_factory.mktemp("weights") / "own.pth"
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "numbers", {f"{k}/{i}.png": png(10 * i, (32, 32)) for k in NUMBERS for i in range(2)})


def correct(command: Command, *arguments: object) -> tuple[str, str]:
    """The class that is always predicted, and what is said of the order of the classes."""
    code, out, err = command("evaluate", *arguments, "--workers", 0, "--json")
    assert code == 0, err
    figures = json.loads(out)
    (name,) = (one for one, figure in figures["classes"].items() if figure["correct"])
    return name, figures["class_order"]


def test_weights_without_names(command: Command, unnamed: Path, folders: Path, tmp_path: Path) -> None:
    name, said = correct(command, unnamed, folders)
    assert name == TEXT_ORDER[ALWAYS] == "10" and "no class names, assumed" in said
    assert "sorted as text (0, 1, 10, 11 … and 8 more); --classes text, numeric, imagenet or FILE" in said
    assert correct(command, unnamed, folders, "--classes", "text")[0] == "10"
    name, said = correct(command, unnamed, folders, "--classes", "numeric")
    assert name == "2" and said == "--classes numeric: class k of the data is output k of the network, from 0"
    (tmp_path / "names.txt").write_text("\n".join(reversed(NUMBERS)))
    name, said = correct(command, unnamed, folders, "--classes", tmp_path / "names.txt")
    assert name == "9" and said.endswith("names.txt: 12 names in place of those of the weights")
    code, out, _ = command("evaluate", unnamed, folders, "--workers", 0)
    assert (
        code == 0 and "\nclass order: the weights have no class names, assumed the data's classes sorted as text" in out
    )
    flat, rows = tmp_path / "flat", ["image,label"]
    for k in NUMBERS:
        write_tree(flat, {f"{k}_{i}.png": png(i, (32, 32)) for i in range(2)})
        rows += [f"{k}_{i}.png,{k}" for i in range(2)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    name, said = correct(command, unnamed, flat, "--labels", tmp_path / "labels.csv")
    assert name == "2" and "assumed class k of the data is output k" in said, "a label is a number of a class"
    words = folders.rename(tmp_path / "words")
    for k in NUMBERS:
        (words / k).rename(words / f"class {chr(ord('l') - int(k))}")
    assert correct(command, unnamed, words)[0] == "class c"
    code, _, err = command("evaluate", unnamed, words, "--classes", "numeric", "--workers", 0)
    assert code == 2 and "--classes numeric: expected classes of the data that are numbers, got class a, " in err


def test_weights_without_names_in_this_packages_format(command: Command, unnamed: Path, folders: Path) -> None:
    own = folders.parent / "own.safetensors"
    convert(unnamed, own)
    assert read_record(own).numbered and correct(command, own, folders)[0] == "10"
    again = folders.parent / "again.safetensors"
    load(own, device="cpu").save(again)
    assert read_record(again).numbered and correct(command, again, folders)[0] == "10"
    convert(unnamed, own, classes=NUMBERS)
    assert not read_record(own).numbered and correct(command, own, folders) == ("2", "")
    code, _, err = command("evaluate", own, write_tree(folders.parent / "few", ["a/1.png", "b/2.png"]), "--workers", 0)
    assert code == 2 and "the network does not have the data's classes a, b; it has 0, 1, 2," in err
    assert "state which they are with --classes text or --classes FILE" in err


def test_whether_names_were_given(tmp_path: Path) -> None:
    model = create_model("inception_v1.slim", num_classes=3, width=0.125, input_size=32)
    file = tmp_path / "w.safetensors"
    save_weights(model, file)
    assert read_record(file).numbered
    save_weights(model, file, classes=("0", "1", "2"))
    assert not read_record(file).numbered, "digits are names"
    assert load(model, device="cpu").record.numbered
    assert not load(model, classes=["0", "1", "2"], device="cpu").record.numbered
    convert(file, file, num_classes=5)
    assert read_record(file).numbered and read_record(file).provenance["classes"] == "numbered: the classifier is new"
    convert(file, file, classes=list("abcde"))
    assert read_record(file).provenance["classes"] == "given"


def test_a_file_of_names_wherever_names_are_given(
    command: Command, unnamed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = tmp_path / "class_indices.json"
    names.write_text(json.dumps({f"class {i}": i for i in range(12)}))
    clf = load(unnamed, classes=names, device="cpu")
    assert clf.classes[11] == "class 11" and "class names: given" in clf.assumed
    image = write_tree(tmp_path, {"x.png": png(0, (32, 32))}) / "x.png"
    with caplog.at_level("INFO", "inceptionnet"):
        code, out, _ = command("predict", unnamed, image, "--classes", names)
    assert code == 0 and f"class {ALWAYS} 100.0%" in out and "class names: given" in caplog.text
    code, _, _ = command("convert", unnamed, tmp_path / "c.safetensors", "--classes", names)
    assert code == 0 and read_record(tmp_path / "c.safetensors").classes[11] == "class 11"
    names.write_text('["one"]')
    for arguments in (("predict", unnamed, image), ("convert", unnamed, tmp_path / "c.safetensors")):
        code, _, err = command(*arguments, "--classes", names)
        assert code == 2 and "expected 12 class names, one per class, got 1" in err
    assert "class names: numbered: the file has no names" in read_weights(unnamed).assumed


def test_imagenets_numbers() -> None:
    """ImageNetV2's folders 0 to 999."""
    names, numbers = imagenet_classes(), [str(i) for i in range(1000)]
    data = sorted(numbers)
    found = matched_classes(data, names)
    assert found.labels_of.tolist() == [int(name) for name in data] and found.names == names
    assert "class k of the data, 0 to 999, is the k-th of ImageNet's" in found.order and "--classes text" in found.order
    assert matched_classes(data, imagenet_wnids()[::-1] + names).labels_of.tolist() == [1000 + int(k) for k in data]
    assert matched_classes(data, ("background", *names)).labels_of.tolist() == [1 + int(name) for name in data]
    text = matched_classes(data, names, given="text")
    assert text.labels_of.tolist() == list(range(1000)) and text.names == tuple(data)
    some = matched_classes(["7", "10"], names, given="numeric")
    assert some.labels_of.tolist() == [7, 10] and some.names == names
    assert matched_classes(["7", "10"], names, given="imagenet").labels_of.tolist() == [7, 10]
    assert matched_classes(["7", "10"], ["x"] * 1001, given="imagenet").labels_of.tolist() == [8, 11]
    assert matched_classes(["n02123045", "tench"], numbers, given="imagenet", numbered=True).labels_of.tolist() == [
        281,
        0,
    ]
    with pytest.raises(
        DataError, match=r"does not have the data's classes 10, 7; .* state .* with --classes numeric or"
    ):
        matched_classes(["7", "10"], names)


def test_orders() -> None:
    network = NUMBERS[:3]
    order = matched_classes(["10", "9", "8"], network, given="numeric", numbered=True)
    assert (order.labels_of.tolist(), order.names) == ([2, 1, 0], ("8", "9", "10")), "sorted, since 10 is no output"
    order = matched_classes(["2", "0"], network, given="numeric", numbered=True)
    assert (order.labels_of.tolist(), order.names) == ([2, 0], ("0", "1", "2"))
    order = matched_classes(["1", "10", "2"], list("abc"), given="text")
    assert (order.labels_of.tolist(), order.names) == ([0, 1, 2], ("1", "10", "2")), "in place of names in the weights"
    order = matched_classes(["c", "a"], network, given=["c", "b", "a"])
    assert (order.labels_of.tolist(), order.names) == ([0, 2], ("c", "b", "a"))
    order = matched_classes(["b", "a", "c"], network, numbered=True)
    assert order.names == ("b", "a", "c") and "assumed the data's classes in their order (b, a, c); " in order.order
    for given, data, reason in (
        (
            None,
            "ab",
            "expected 3 classes in the data, one for each output of the network, got 2 .a, b.; give the names",
        ),
        (None, "02", "or --classes numeric if class k is output k"),
        ("numeric", ["7", "10"], "expected 3 classes in the data"),
    ):
        with pytest.raises(DataError, match=reason):
            matched_classes(list(data), network, given=given, numbered=True)
    with pytest.raises(ConfigurationError, match=r"--classes: expected 3 class names, .*, got 2"):
        matched_classes(["a"], network, given=["a", "b"])


def test_names_are_compared_as_composed() -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert matched_labels([decomposed, "b"], ["b", composed]).tolist() == [1, 0]
    assert matched_labels([composed], ["b", decomposed]).tolist() == [1]
    assert same_classes(["b", composed], ["b", decomposed], "x") is None
    assert matched_classes([decomposed], ["b", composed]).labels_of.tolist() == [1]


def test_lines_of_synset_words() -> None:
    assert matched_labels(["n01443537"], ["n01440764 tench, Tinca tinca", "n01443537 goldfish"]).tolist() == [1]
