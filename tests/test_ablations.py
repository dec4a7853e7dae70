"""Edits of networks against the papers' arithmetic, torch's own count, and each other."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
import torch

from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.draw import svg
from inceptionnet.errors import ConfigurationError, WeightsError
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.ablations import EDITS, EditName, networks_changed_by, with_edits
from inceptionnet.nets.analysis import Row, analyse, endpoints, minimum_size, multiply_adds, parameters
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Branches, Conv, MaxPool, Network, V
from inceptionnet.system.distributed import ALONE
from inceptionnet.train import search
from inceptionnet.train.loop import train
from inceptionnet.train.plan import read_job
from inceptionnet.train.recipe import Recipe, choices_of
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run

from .conftest import tiny_plan

CHANGED = {name: networks_changed_by(name) for name in EDITS}
PAIRS = [(edit, name) for edit, names in CHANGED.items() for name in names]
FAMILIES = {"inception_v1", "inception_v2", "inception_v3", "inception_v4", "inception_resnet_v1"}
"""One network of each kind."""
V2 = {f"inception_v2{variant}" for variant in ("", ".slim", ".caffe")}
V1 = {f"inception_v1{variant}" for variant in ("", ".slim", ".torchvision")}
V3 = {"inception_v3", "inception_v3.torchvision", "inception_v3.fid", "inception_v2.rethinking"}
V4 = {name for name in NETWORKS if name.startswith(("inception_v4", "inception_resnet"))}
STEMS = {"conv_1a", "conv_2a", "conv_2b"}


def edited(name: str, *edits: str) -> Network:
    return with_edits(NETWORKS[name], edits)


def rows(network: Network, endpoint: str) -> dict[str, Row]:
    """The parts of an endpoint, by their path in it."""
    start = f"body.{endpoint}"
    return {row.path.removeprefix(start): row for row in analyse(network) if row.path.startswith(start)}


def test_which_networks_each_edit_changes() -> None:
    assert get_args(EditName) == tuple(EDITS) == choices_of("network.edits")
    expected = {
        "conv5x5": V2 | V3 | V4,
        "two_3x3": {"inception_v1", "inception_resnet_v2.slim"} | V3,
        "linear_between": V2 | V3 | V4,
        "square": V3 | V4,
        "factorize_a": set(NETWORKS),
        "factorize_b": V1 | V2,
        "factorize_c": V1 | V2 | V3,
        "aux_without_norm": {"inception_v1.torchvision"}
        | {name for name in V3 | V4 if NETWORKS[name].aux} - {"inception_v2.rethinking"},
        "aux_with_norm": {"inception_v2.rethinking"},
        "pool_first": V2 | V3 | V4,
        "convolve_first": V2 | V3 | V4,
        "stem_7x7": V3 - {"inception_v2.rethinking"},
        "stem_3x3": {"inception_v2.rethinking"},
    }
    assert {name: set(names) for name, names in CHANGED.items()} == expected
    numbers = [re.findall(r"\[v3\] sections? ([\d.]+)", edit.paper)[0] for edit in EDITS.values()]
    sections = [tuple(map(int, number.split("."))) for number in numbers]
    assert sections == sorted(sections)


def test_the_table_in_the_docs() -> None:
    page = (Path(__file__).parent.parent / "docs" / "looking_inside.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| (\w+) \| (.+?) \| ", page, re.MULTILINE)[1:] == [
        (name, edit.summary) for name, edit in EDITS.items()
    ]


@pytest.mark.parametrize(("edit", "name"), PAIRS)
def test_shapes_stay(edit: str, name: str) -> None:
    """Of every endpoint, at the network's own size and those of low resolution.

    The two stems differ inside, and at stride 1 in their grid, as the two published networks do.
    """
    for size in {NETWORKS[name].input_size, 299, 151, 79}:
        like = name
        if edit.startswith("stem") and size < 299:
            like = "inception_v2.rethinking" if edit == "stem_7x7" else "inception_v3"
        held, now = (
            {row.name: row.output for row in endpoints(analyse(configure(configuration))) if row.name != "logits"}
            for configuration in (
                Configuration(like, input_size=size), Configuration(name, input_size=size, edits=(edit,)),
            )
        )  # fmt: skip
        if edit.startswith("stem"):
            held, now = ({key: shape for key, shape in one.items() if key not in STEMS} for one in (held, now))
        assert held == now


@pytest.mark.parametrize("edit", ["pool_first", "convolve_first"])
def test_reductions_give_the_same_grid_at_every_image_size(edit: str) -> None:
    """Each reduction by itself on grids of 3×3 and more, as it may come at any image size."""
    for name in CHANGED[edit]:
        network, made = replace(NETWORKS[name], aux={}), edited(name, edit)
        for row in endpoints(analyse(network)):
            if row.path.startswith("body.") and row.node != made.body[row.name]:
                one, other = (
                    replace(network, in_channels=row.input.channels, body={"it": body[row.name]})
                    for body in (network.body, made.body)
                )
                for height in range(3, 20):
                    sides = height, 22 - height
                    assert analyse(one, sides)[0].output == analyse(other, sides)[0].output, (name, row.name, sides)
    assert minimum_size(configure(Configuration("inception_v3", edits=(edit,)))) == 75


def test_a_5x5_costs_25_18_of_two_3x3() -> None:
    """inception_v2 4c: 160 filters into, between and out of the two 3×3 behind a 1×1 of 128."""
    plain, other = NETWORKS["inception_v2"], edited("inception_v2", "conv5x5")
    two, one = rows(plain, "inception_4c"), rows(other, "inception_4c")
    cost = two[".b3x3dbl.1"].multiply_adds + two[".b3x3dbl.2"].multiply_adds
    assert cost == 14 * 14 * 9 * (128 * 160 + 160 * 160)
    assert one[".b3x3dbl.1"].multiply_adds == 14 * 14 * 25 * 128 * 160 and ".b3x3dbl.2" not in one
    assert other.body["inception_3c"] == plain.body["inception_3c"], "its second 3×3 reduces the grid"
    # At equal numbers of filters, as in [v3] section 3.1: 5b of inception_resnet_v1, 32 everywhere.
    two, one = (
        rows(network, "residual_a1")
        for network in (NETWORKS["inception_resnet_v1"], edited("inception_resnet_v1", "conv5x5"))
    )
    double = [two[f".branches.b3x3dbl.{i}"].multiply_adds for i in (1, 2)]
    assert 18 * one[".branches.b3x3dbl.1"].multiply_adds == 25 * sum(double)
    assert round(1 - 18 / 25, 2) == 0.28


def test_two_3x3_for_a_5x5() -> None:
    """inception_v1 5b: 5×5 with 128 filters on 48 channels."""
    parts = rows(edited("inception_v1", "two_3x3"), "inception_5b")
    assert [parts[f".b5x5.{i}"].parameters for i in (1, 2)] == [9 * 48 * 128 + 128, 9 * 128 * 128 + 128]
    seen = rows(NETWORKS["inception_v1"], "inception_5b")[".b5x5"].field
    assert parts[".b5x5"].field == seen, "they see what the 5×5 sees"


def test_a_square_costs_n_halves_of_a_cross() -> None:
    """[v3] section 3.2: 1×n and n×1 cost 2/n. mixed_6e has 192 filters everywhere, mixed_7b 384 twice side by side."""
    plain, other = NETWORKS["inception_v3"], edited("inception_v3", "square")
    cross, whole = rows(plain, "mixed_6e"), rows(other, "mixed_6e")
    assert 2 * whole[".b7x7.1"].multiply_adds == 7 * sum(cross[f".b7x7.{i}"].multiply_adds for i in (1, 2))
    assert whole[".b7x7dbl.2"].multiply_adds == 17 * 17 * 49 * 192 * 192 and ".b7x7dbl.3" not in whole
    opened, closed = rows(plain, "mixed_7b"), rows(other, "mixed_7b")
    assert closed[".b3x3.1"].node == Conv(768, 3)
    assert closed[".b3x3.1"].multiply_adds == 3 * opened[".b3x3.1"].multiply_adds == 8 * 8 * 9 * 384 * 768
    assert whole[".b7x7"].field == cross[".b7x7"].field


def test_factorized_grids() -> None:
    """inception_v2: 3a and 3b on grid A, 4a to 4d on B, 5a and 5b on C, without the reductions 3c and 4e."""
    for letter, names in {"a": ["3a", "3b"], "b": ["4a", "4b", "4c", "4d"], "c": ["5a", "5b"]}.items():
        network = edited("inception_v2", f"factorize_{letter}")
        changed = [name for name, node in network.body.items() if node != NETWORKS["inception_v2"].body[name]]
        assert changed == [f"inception_{name}" for name in names]
    parts = rows(edited("inception_v2", "factorize_b"), "inception_4c")
    assert [parts[f".b3x3dbl.{i}"].multiply_adds for i in range(1, 5)] == [
        14 * 14 * 3 * channels * 160 for channels in (128, 160, 160, 160)
    ]
    plain = rows(NETWORKS["inception_v2"], "inception_4c")
    assert 3 * sum(parts[f".b3x3dbl.{i}"].multiply_adds for i in (3, 4)) == 2 * plain[".b3x3dbl.2"].multiply_adds
    a = edited("inception_resnet_v2.slim", "factorize_a")
    changed = [name for name, node in a.body.items() if node != NETWORKS["inception_resnet_v2.slim"].body[name]]
    assert changed == ["mixed_5b", *(f"residual_a{i}" for i in range(1, 11))]


def test_linear_between_changes_no_count() -> None:
    for name in CHANGED["linear_between"]:
        one, other = analyse(NETWORKS[name]), analyse(edited(name, "linear_between"))
        assert (parameters(one), multiply_adds(one)) == (parameters(other), multiply_adds(other))
    made = analyse(edited("inception_v3", "linear_between"))
    linear = [row.path for row in made if isinstance(row.node, Conv) and not row.node.relu]
    assert linear == [  # by hand from [v3] figures 5, 6 and the released reduction
        "body.mixed_5b.b3x3dbl.1", "body.mixed_5c.b3x3dbl.1", "body.mixed_5d.b3x3dbl.1",
        *(f"body.mixed_6{i}.{part}" for i in "bcde" for part in ("b7x7.1", "b7x7dbl.1", "b7x7dbl.3")),
        "body.mixed_7a.b7x7x3.1",
    ]  # fmt: skip


def test_reductions_in_two_steps() -> None:
    """[v3] section 5 on mixed_6a, 35×35×288 → 17×17×768, by hand."""
    stride_1 = {"b3x3": [Conv(384, 3)], "b3x3dbl": [Conv(64), Conv(96, 3), Conv(96, 3)], "pool": [MaxPool(3)]}
    pool, module = MaxPool(3, 2, V), Branches(**stride_1)  # type: ignore[arg-type]
    plain = NETWORKS["inception_v3"]
    per_place = 9 * 288 * 384 + 288 * 64 + 9 * 64 * 96 + 9 * 96 * 96
    for edit, order, side in (("pool_first", ("pool", "branches"), 17), ("convolve_first", ("branches", "pool"), 35)):
        network = edited("inception_v3", edit)
        node = network.body["mixed_6a"]
        assert node == {"pool": pool, "branches": module} and tuple(node) == order  # type: ignore[arg-type]
        assert {name for name in plain.body if plain.body[name] != network.body[name]} == {"mixed_6a", "mixed_7a"}
        assert parameters(analyse(network)) == parameters(analyse(plain))
        assert rows(network, "mixed_6a")[""].multiply_adds == side**2 * per_place
    assert edited("inception_v4", "pool_first").body["stem_mixed_1"] == NETWORKS["inception_v4"].body["stem_mixed_1"]


INVERSE = [
    ("inception_v3", "stem_7x7", "stem_3x3"), ("inception_v3.fid", "stem_7x7", "stem_3x3"),
    ("inception_v2.rethinking", "stem_3x3", "stem_7x7"),
    ("inception_v2.rethinking", "aux_with_norm", "aux_without_norm"),
    ("inception_v4", "aux_without_norm", "aux_with_norm"), ("inception_v1", "two_3x3", "conv5x5"),
    ("inception_v2", "conv5x5", "two_3x3"), ("inception_resnet_v1", "conv5x5", "two_3x3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "inverse"), INVERSE)
def test_inverse_edits_give_the_published_tree(name: str, edit: str, inverse: str) -> None:
    assert EDITS[inverse].apply(EDITS[edit].apply(NETWORKS[name])) == NETWORKS[name]
    with pytest.raises(ConfigurationError, match=f"the edit {edit} changes nothing in {name} together with {inverse}"):
        edited(name, edit, inverse)


def test_v3_and_its_older_version_are_two_edits_apart() -> None:
    """[v3] table 3: they differ in the first convolution and in the batch norm of the auxiliary head."""
    made = edited("inception_v3", "stem_7x7", "aux_without_norm")
    rethinking = NETWORKS["inception_v2.rethinking"]
    assert replace(made, name="", summary="", paper="") == replace(rethinking, name="", summary="", paper="")
    assert list(made.body) == list(rethinking.body)
    back = edited("inception_v2.rethinking", "stem_3x3", "aux_with_norm")
    assert list(back.body) == list(NETWORKS["inception_v3"].body)


def test_auxiliary_heads_without_norm() -> None:
    """A convolution with batch norm has gamma and beta, without it one bias: 128 + 768 fewer parameters."""
    made = edited("inception_v3", "aux_without_norm")
    assert parameters(analyse(NETWORKS["inception_v3"])) - parameters(analyse(made)) == 128 + 768


@pytest.mark.parametrize(
    ("edit", "name"), [(edit, name) for edit, name in PAIRS if name in FAMILIES or len(CHANGED[edit]) == 1]
)
def test_torch_agrees(edit: str, name: str) -> None:
    """Its count of parameters, and the logits' shape; with auxiliary heads where there are any."""
    aux = bool(NETWORKS[name].aux)
    asked = {"num_classes": 3, "width": 0.125, "input_size": 79, "aux": aux}
    model = create_model(name, edits=[edit], **asked).eval()  # type: ignore[arg-type]
    counted = sum(parameter.numel() for parameter in model.parameters())
    figures = analyse(configure(Configuration(name, edits=(edit,), **asked)))  # type: ignore[arg-type]
    assert counted == parameters(figures)
    with torch.no_grad():
        features = model.features(torch.zeros(1, 3, 79, 79))
    shapes = {row.name: tuple(row.output) for row in endpoints(figures) if row.path.startswith("body.")}
    assert {endpoint: tuple(grid.shape[1:]) for endpoint, grid in features.items()} == shapes
    assert "ReLU" in str(model) and model(torch.zeros(1, 3, 79, 79)).shape == (1, 3)


def test_linear_means_linear() -> None:
    """torch's modules: the first of two 3×3 has its batch norm and no ReLU, the second has both."""
    chain = create_model("inception_v2", edits=["linear_between"], width=0.125).body.inception_3a.b3x3dbl
    assert [[name for name, _ in part.named_children()] for part in chain] == [
        ["conv", "bn", "relu"], ["conv", "bn"], ["conv", "bn", "relu"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("edit", "name"), [(edit, name) for edit, name in PAIRS if name in FAMILIES or len(CHANGED[edit]) == 1]
)
def test_every_drawing_works(edit: str, name: str) -> None:
    drawn = svg(edited(name, edit))
    assert ElementTree.fromstring(drawn) is not None and f"edited: {edit}" in drawn


def test_a_weights_file_keeps_its_edits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = {"num_classes": 3, "width": 0.125, "input_size": 79}
    model = create_model("inception_v3", edits=["pool_first", "linear_between"], **asked).eval()  # type: ignore[arg-type]
    save_weights(model, path := tmp_path / "edited.safetensors")
    assert read_record(path).configuration.edits == ("pool_first", "linear_between")
    again = load_model(path).eval()
    x = torch.rand(1, 3, 79, 79)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    again.reset_head(5)
    assert again.configuration.edits == ("pool_first", "linear_between") and again(x).shape == (1, 5)
    with pytest.raises(WeightsError, match=r"does not fit inception_v3 as configured; missing: .*mixed_6a\.b3x3\.0"):
        create_model(weights=path, edits=["linear_between"])
    with pytest.raises(ConfigurationError, match="unknown edit 'conv5'"):
        create_model(weights=path, edits=["conv5"])


def test_files_without_edits_are_read(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    model = create_model("inception_v1.slim", num_classes=2, width=0.125)
    save_weights(model, new := tmp_path / "new.safetensors")
    with safe_open(new, "pt") as file:  # type: ignore[no-untyped-call]
        about = json.loads(file.metadata()["inceptionnet"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del about["checksum"]
    assert about["configuration"].pop("edits") == []
    save_file(tensors, old := tmp_path / "old.safetensors", metadata={"inceptionnet": json.dumps(about)})
    assert load_model(old).configuration == model.configuration


def test_other_weights_whose_tensors_fit_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_weights(create_model("inception_v2", num_classes=2, width=0.125), path := tmp_path / "plain.safetensors")
    with caplog.at_level("INFO", "inceptionnet"):
        create_model(weights=path, edits=["linear_between"])
    assert "the weights of inception_v2, loaded into inception_v2 (edited: linear_between)" in caplog.text


def test_an_edited_auxiliary_head_may_go(tmp_path: Path) -> None:
    model = create_model("inception_v3", edits=["aux_without_norm"], aux=True, num_classes=3, width=0.125)
    save_weights(model, path := tmp_path / "aux.safetensors")
    assert "aux.mixed_6e.conv.conv.bias" in model.state_dict()
    assert create_model(weights=path, num_classes=0).num_classes == 0
    backbone = create_model(weights=path, features_only=True).eval()
    assert len(backbone(torch.zeros(1, 3, 79, 79))) == len(backbone.feature_info)


@pytest.mark.parametrize(
    ("name", "edits", "message"),
    [
        ("inception_v3", ["conv5"], r"unknown edit 'conv5': did you mean conv5x5\?"),
        ("inception_v3", ["square", "square"], "the edit square is given twice; give it once"),
        ("inception_v1", ["conv5x5"], r"the edit conv5x5 changes nothing in inception_v1; networks that it changes: "
         r"inception_v2, .*, inception_resnet_v2\.slim$"),
        ("inception_v3", ["factorize_b"], "the edit factorize_b changes nothing in inception_v3; networks"),
        ("inception_v2", ["linear_between", "square"], "the edit square changes nothing in inception_v2 together with"),
        ("inception_v2", ["conv5x5", "linear_between"], "the edit linear_between changes nothing in inception_v2 toge"),
        ("inception_v3", ["aux_without_norm"], "changes nothing in inception_v3 without auxiliary heads; set aux=True"),
        ("inception_v3", "square", r"edits is 'square'; expected a list of names, such as \['square'\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(name: str, edits: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        create_model(name, edits=edits, width=0.125)


def test_edits_come_before_classes_and_width() -> None:
    network = configure(Configuration("inception_v1", num_classes=7, width=0.5, edits=("two_3x3",)))
    assert rows(network, "inception_5b")[".b5x5.2"].node == Conv(64, 3)
    assert analyse(network)[-1].output.channels == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network.edits": "conv5x5,squar"}, r"setting network\.edits is 'conv5x5,squar': .*; did you mean square\?"),
        ({"network.edits": "conv5x5"}, "the edit conv5x5 changes nothing in inception_v1.slim; networks"),
        ({"network.edits": ["factorize_a"], "optimizer.lr": [0.1, "x"]}, "optimizer.lr"),
    ],
)
def test_a_recipe_that_cannot_be_writes_nothing(
    settings: dict[str, object], message: str, colours: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        search.train(tiny_plan(colours, settings=settings), tmp_path / "run", ALONE, 0.0)
    assert not list(tmp_path.iterdir())


def test_a_training_of_an_edited_network(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run folder says it, and a training from its weights keeps the edits."""
    recipe = Recipe().changed({"network.edits": "factorize_a,factorize_c"})
    assert recipe.network.edits == ("factorize_a", "factorize_c")
    assert recipe.changed({"network.edits": "none"}).network.edits == ()
    out = tmp_path / "run"
    train(tiny_plan(colours, epochs=1, settings={"network.edits": "factorize_a"}), out)
    assert json.loads((out / "run.json").read_text())["configuration"]["edits"] == ["factorize_a"]
    assert "the network is edited: factorize_a" in capsys.readouterr().err
    job = resolve(tiny_plan(colours, model=None, width=None, weights=str(out), recipe="default"))
    for model in (job.model(), job.empty_model(), read_job(Run(out)).empty_model()):
        assert model.configuration.edits == ("factorize_a",)


def test_the_command_line(command, tmp_path: Path) -> None:
    code, out, _ = command("show", "inception_v1", "--edit", "two_3x3", "--edit", "factorize_b", "--json")
    shown = json.loads(out)
    made = analyse(replace(edited("inception_v1", "two_3x3", "factorize_b"), aux={}))
    assert code == 0 and shown["edits"] == ["two_3x3", "factorize_b"] and shown["parameters"] == parameters(made)
    code, _, _ = command("show", "inception_v3", "--edit", "stem_7x7", "--svg", tmp_path / "v3.svg")
    assert code == 0 and "edited: stem_7x7" in (tmp_path / "v3.svg").read_text()
    code, _, err = command("show", "inception_v3", "--edit", "aux_without_norm")
    assert code == 2 and "without auxiliary heads" in err
    assert command("show", "inception_v3", "--edit", "aux_without_norm", "--aux")[0] == 0
    model = create_model("inception_v1", edits=["two_3x3"], num_classes=2, width=0.125)
    save_weights(model, path := tmp_path / "edited.safetensors")
    assert "edited: two_3x3" in command("show", path)[1]
    code, _, err = command("show", path, "--edit", "factorize_a")
    assert code == 2 and "--edit factorize_a: changes a network as published" in err and len(err.splitlines()) == 1
    code, out, _ = command("models", "--edits", "--json")
    assert code == 0 and {row["name"]: row["networks"] for row in json.loads(out)["edits"]} == CHANGED
    code, out, _ = command("models", "--edits")
    assert code == 0 and all(name in out and edit.summary in out for name, edit in EDITS.items())
    code, out, _ = command("train", "--settings")
    assert code == 0 and "network.edits=none" in out and "stem_7x7" in out
