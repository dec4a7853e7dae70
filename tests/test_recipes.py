"""The named recipes: the figures that the papers state, the words that settings take, and that each one trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from inceptionnet import create_model
from inceptionnet.errors import ConfigurationError
from inceptionnet.nets import NETWORKS, PAPERS
from inceptionnet.train.layers import lr_factors
from inceptionnet.train.loop import train
from inceptionnet.train.recipe import Recipe, parse_settings
from inceptionnet.train.recipes import (
    FINETUNE,
    PAPER,
    STEM_RATE,
    evaluation_interval,
    finetune,
    layer_decay,
    paper_of,
    recipe_named,
)
from inceptionnet.train.run import Run
from inceptionnet.train.settings import describe, value_text
from inceptionnet.weights.folder import weights_of

from .conftest import tiny_plan, write_images

# [v1] section 6, [v2] section 4.2, [v3] sections 7 and 8, [v4] section 4 and the released code.
PUBLISHED: dict[str, dict[str, object]] = {
    "v1": {
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "schedule.name": "exponential",
        "schedule.decay": 0.96,  # "decreasing the learning rate by 4 % every 8 epochs"
        "schedule.decay_epochs": 8,
        "schedule.warmup_epochs": 0,
        "loss.aux_weight": 0.3,
        "loss.label_smoothing": 0,
        "augment.area_min": 0.08,
        "network.dropout": None,  # as the network has it: 40 %, and 70 % in the auxiliary heads
    },
    "v2": {
        "optimizer.name": "sgd",
        "optimizer.lr": 0.045,  # ×30
        "schedule.name": "exponential",
        "schedule.decay": 0.96,
        "schedule.decay_epochs": pytest.approx(8 / 6),  # 6 times as fast as [v1]
        "network.dropout": 0,
        "loss.label_smoothing": 0,
    },
    "v3": {
        "optimizer.name": "rmsprop",
        "optimizer.decay": 0.9,
        "optimizer.momentum": 0.9,
        "optimizer.eps": 1.0,
        "optimizer.lr": 0.045,
        "optimizer.lr_batch": 50 * 32,
        "optimizer.clip_norm": 2.0,
        "optimizer.weight_decay": 4e-5,
        "schedule.name": "exponential",
        "schedule.epochs": 100,
        "schedule.decay": 0.94,
        "schedule.decay_epochs": 2,
        "loss.label_smoothing": 0.1,
        "loss.aux_weight": 0.4,
        "batch_norm.momentum": pytest.approx(1 - 0.9997),
        "average.decay": 0.9999,
        "network.dropout": None,
        "augment.area_min": 0.05,
        "augment.color": "full",
    },
    "v4": {
        "optimizer.name": "rmsprop",
        "optimizer.decay": 0.9,
        "optimizer.eps": 1.0,
        "optimizer.lr": 0.045,
        "optimizer.clip_norm": None,
        "optimizer.weight_decay": 4e-5,
        "schedule.name": "exponential",
        "schedule.decay": 0.94,
        "schedule.decay_epochs": 2,
        "loss.label_smoothing": 0.1,
        "loss.aux_weight": 0.4,
        "batch_norm.momentum": pytest.approx(1 - 0.9997),
        "average.decay": 0.9999,
    },
}


@pytest.mark.parametrize("paper", PAPERS)
def test_published_figures(paper: str) -> None:
    settings = dict(PAPER[paper].items())
    assert {key: settings[key] for key in PUBLISHED[paper]} == PUBLISHED[paper]


def test_what_the_papers_say_of_each_other() -> None:
    """[v2]: the weight decay of [v1] divided by 5, "reduce the photometric distortions"; all papers average."""
    assert PAPER["v1"].optimizer.weight_decay == pytest.approx(5 * PAPER["v2"].optimizer.weight_decay)
    assert (PAPER["v1"].augment.color, PAPER["v2"].augment.color) == ("full", "fast")
    assert {recipe.average.decay for recipe in PAPER.values()} == {0.9999}
    assert PAPER["v2"].optimizer.lr == pytest.approx(30 * PAPER["v1"].optimizer.lr)
    images = 1_281_167  # of ILSVRC-2012
    steps = {paper: images / 32 * PAPER[paper].schedule.epochs for paper in ("v1", "v2")}
    assert steps == {"v1": pytest.approx(31.0e6, rel=0.01), "v2": pytest.approx(6.0e6, rel=0.01)}  # [v2] figure 3


# Which paper each network is of, and whether it has an auxiliary head.
OF_PAPERS = {
    "inception_v1": ("v1", True),
    "inception_v1.slim": ("v1", False),
    "inception_v1.torchvision": ("v1", True),
    "inception_v2": ("v2", False),
    "inception_v2.slim": ("v2", False),
    "inception_v2.caffe": ("v2", False),
    "inception_v3": ("v3", True),
    "inception_v3.torchvision": ("v3", True),
    "inception_v3.fid": ("v3", False),
    "inception_v2.rethinking": ("v3", True),
    "inception_v4": ("v4", True),
    "inception_v4.slim": ("v4", True),
    "inception_resnet_v1": ("v4", True),
    "inception_resnet_v1.facenet": ("v4", False),
    "inception_resnet_v2": ("v4", True),
    "inception_resnet_v2.slim": ("v4", True),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_papers_recipe_is_for_the_network(network: str) -> None:
    paper, aux = OF_PAPERS[network]
    assert paper_of(network) == paper and recipe_named("paper", network).network.aux is aux
    assert recipe_named("paper", network).changed({"network.aux": False}) == PAPER[paper].changed(
        {"network.aux": False}
    )


def test_default_and_finetune_are_for_every_network() -> None:
    assert recipe_named("default", "inception_v4") == Recipe() == recipe_named("default", "inception_v1")
    assert recipe_named("finetune", "inception_v3") == FINETUNE == recipe_named("finetune")
    other = recipe_named("finetune", "inception_v1")
    assert {key for key, value in other.items() if value != dict(FINETUNE.items())[key]} == {"optimizer.layer_decay"}


@pytest.mark.parametrize("network", NETWORKS)
def test_fine_tuning_trains_the_first_layer_of_every_network(network: str) -> None:
    """As much of shallow networks as of deep ones, which have three times as many endpoints."""
    with torch.device("meta"):
        model = create_model(network, width=0.125)
    factors = lr_factors(model, recipe_named("finetune", network).optimizer.layer_decay)
    first = next(name for name, _ in model.named_parameters())
    assert factors[first] == min(factors.values()) == pytest.approx(STEM_RATE, rel=0.03)


def test_fine_tuning_is_longer_on_fewer_images() -> None:
    numbers = (0, 1, 400, 1000, 2000, 50_000, 50_001)
    found = [finetune("inception_resnet_v2", images) for images in numbers]
    assert [recipe.schedule.epochs for recipe in found] == [30, 30, 30, 20, 10, 5, 5]
    assert [recipe.network.fit_head for recipe in found] == [True] * 6 + [False]
    assert {recipe.optimizer.layer_decay for recipe in found} == {layer_decay("inception_resnet_v2")}
    assert [evaluation_interval(epochs) for epochs in (0, 1, 10, 14, 16, 30)] == [1, 1, 1, 1, 2, 3]


def test_recipes_are_frozen() -> None:
    for recipe in (recipe_named("paper", "inception_v3"), recipe_named("finetune", "inception_v3"), Recipe()):
        with pytest.raises(ValidationError, match="frozen"):
            recipe.optimizer = Recipe().optimizer  # type: ignore[misc]
        with pytest.raises(ValidationError, match="frozen"):
            recipe.optimizer.lr = 1.0  # type: ignore[misc]
    before = PAPER["v3"].model_dump()
    assert recipe_named("paper", "inception_v3.fid").changed({"optimizer.lr": 1}).optimizer.lr == 1
    assert PAPER["v3"].model_dump() == before


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("papr", "inception_v3", "--recipe is 'papr': did you mean paper?"),
        ("finetuned", "inception_v3", "--recipe is 'finetuned': did you mean finetune?"),
        ("x", "inception_v3", "--recipe is 'x': known: default, finetune, paper"),
        ("paper", "inception_v5", "unknown network 'inception_v5': did you mean inception_v"),
        ("default", "inceptionv4", "unknown network 'inceptionv4': did you mean inception_v4"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, network: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        recipe_named(name, network)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_every_setting_is_described() -> None:
    for recipe in (Recipe(), PAPER["v3"]):
        listed = [one for group in describe(recipe) for one in group.settings]
        assert [(one.key, one.value) for one in listed] == list(recipe.items())
        for one in listed:
            assert one.description.endswith(".") and "\n" not in one.description and len(one.description) < 130, one.key
            assert recipe.changed({one.key: value_text(one.value)}) == recipe, "the text is what --set takes"
            for choice in one.choices:
                assert dict(recipe.changed({one.key: choice}).items())[one.key] in (choice, (choice,))
        assert all(group.description.endswith(".") for group in describe(recipe))


def test_the_paper_recipe_needs_a_network() -> None:
    assert recipe_named("default") == Recipe() and recipe_named("finetune").schedule.epochs == 10
    with pytest.raises(ConfigurationError, match="--recipe paper depends on the network, got none; give --model"):
        recipe_named("paper")


def changed(*texts: str) -> Recipe:
    return PAPER["v3"].changed(parse_settings(texts))


def test_none_is_a_word_where_it_is_one_and_nothing_elsewhere() -> None:
    assert changed("augment.color=none").augment.color == "none"
    assert changed("optimizer.lr_scaling=none").optimizer.lr_scaling == "none"
    for text in ("none", "None", "NONE"):
        recipe = changed(f"optimizer.clip_norm={text}", f"average.decay={text}", f"network.dropout={text}")
        assert recipe.optimizer.clip_norm is recipe.average.decay is recipe.network.dropout is None
    assert changed("checkpoint.every_minutes=none", "checkpoint.every_steps=5").checkpoint.every_steps == 5
    with pytest.raises(ConfigurationError, match=r"setting optimizer\.lr is 'none': .*number"):
        changed("optimizer.lr=none")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("augment.color=ful", r"setting augment\.color is 'ful': .*; did you mean full\?$"),
        ("optimizer.lr_scaling=lineal", r"setting optimizer\.lr_scaling is 'lineal': .*; did you mean linear\?$"),
        ("optimizer.name=adam", r"setting optimizer\.name is 'adam': .*; did you mean adamw\?$"),
        (
            "batch_norm.mode=recalibrated",
            r"setting batch_norm\.mode is 'recalibrated': .*; did you mean recalibrate\?$",
        ),
        ("schedule.warmup=twophase", r"setting schedule\.warmup is 'twophase': .*; did you mean two-phase\?$"),
        ("compute.precision=bf61", r"setting compute\.precision is 'bf61': .*; did you mean bf16\?$"),
        ("preprocess.resize=squashed", r"setting preprocess\.resize is 'squashed': .*; did you mean squash\?$"),
        ("schedule.name=xyz", r"setting schedule\.name is 'xyz': .*'cosine', 'exponential' or 'constant'$"),
        ("schedul.name=cosine", r"unknown setting 'schedul\.name': did you mean schedule\.name"),
        ("average.decay=1", r"setting average\.decay is '1': .*less than 1$"),
        ("log.trackers=mlfow", r"setting log\.trackers is 'mlfow': .*; did you mean mlflow\?$"),
        ("schedule.epochs=2.5", r"setting schedule\.epochs is '2\.5': .*integer"),
    ],
)
def test_a_wrong_word_gets_the_nearest(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        changed(setting)
    assert "\n" not in str(caught.value)


def test_every_setting_can_be_set_to_what_it_is() -> None:
    """What a run folder holds is a recipe, from JSON's values and from text."""
    for recipe in (*PAPER.values(), recipe_named("finetune", "inception_v3")):
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
        as_text = {key: value_text(value) if isinstance(value, tuple) else str(value) for key, value in recipe.items()}
        assert Recipe().changed(as_text) == recipe


# The colours are told apart by hue, so colour distortion is off. The papers' rates are for batches 4 to 200 times as
# large and runs of millions of steps: what differs here, besides that and the epochs, is the peak learning rate.
TRAININGS: dict[str, dict[str, Any]] = {
    "default": {"recipe": "default", "epochs": 5},
    "v1": {"recipe": "paper", "model": "inception_v1", "size": 72, "epochs": 6, "settings": {"optimizer.lr": 0.045}},
    "v2": {"recipe": "paper", "model": "inception_v2", "epochs": 6},
    "v3": {"recipe": "paper", "model": "inception_v3", "size": 79, "epochs": 8, "settings": {"optimizer.lr": 2}},
    "v4": {
        "recipe": "paper", "model": "inception_resnet_v1", "size": 79, "epochs": 4, "settings": {"optimizer.lr": 0.15},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("v3", "v4") else name for name in TRAININGS]
)
def test_each_recipe_trains(name: str, colours: Path, tmp_path: Path) -> None:
    changes = TRAININGS[name]
    settings = {"augment.color": "none"} | changes.get("settings", {})
    data = write_images(tmp_path / "data", 7) if name == "v4" else colours
    train(tiny_plan(data, **(changes | {"settings": settings})), tmp_path / "run")
    recipe = Recipe.model_validate(Run(tmp_path / "run").read_json("run.json")["recipe"])
    expected = recipe_named(changes["recipe"], changes.get("model", "inception_v1.slim"))
    differ = {key for key, value in recipe.items() if dict(expected.items())[key] != value}
    assert differ <= settings.keys() | {"schedule.epochs", "log.report", "network.activation"}
    assert recipe.network.aux == (name in ("v1", "v3", "v4"))
    # The best epoch, since batches of one colour make some poor. From 8 other random weights each: 0.53 at most.
    losses = [row["train_loss"] for row in Run(tmp_path / "run").read_metrics()]
    assert min(losses) < 0.75 * losses[0]


def test_finetune_trains_from_weights(run: Path, colours: Path, tmp_path: Path) -> None:
    """It is chosen by itself where there are weights, and begins where they are."""
    plan = tiny_plan(colours, model=None, width=None, size=None, weights=str(weights_of(run)))
    train(plan, tmp_path / "run")
    assert Run(tmp_path / "run").read_json("run.json")["plan"]["recipe"] == "finetune"
    before, after = ([row["train_loss"] for row in Run(folder).read_metrics()] for folder in (run, tmp_path / "run"))
    assert after[0] < 0.8 * before[0] and min(after) < 0.5 * before[0]
    with pytest.raises(ConfigurationError, match="--recipe finetune starts from pretrained weights; give --weights"):
        train(tiny_plan(colours, recipe="finetune"), tmp_path / "none")
