"""Training the head alone, from an endpoint on, or the whole, with rates that fall from the head down."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inceptionnet import create_model, load_model
from inceptionnet.cli import main
from inceptionnet.data.augment import to_input
from inceptionnet.errors import ConfigurationError, Interrupted
from inceptionnet.train import step as step_module
from inceptionnet.train.average import Average
from inceptionnet.train.batch_norm import batch_statistics, norms_of
from inceptionnet.train.layers import freeze, lr_factors, training_summary
from inceptionnet.train.loop import repeat, resume, train
from inceptionnet.train.plan import Plan
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper
from inceptionnet.train.watch import advice, batch_norm_gap
from inceptionnet.weights.folder import weights_of

from .conftest import DESCENT, tiny_plan
from .forked import Forked
from .test_distributed import two_processes
from .test_step import SGD, Compiler, batch, changed, state, with_nan

# Every endpoint of inception_v1.slim that has parameters, from the head down.
DOWN = ["inception_5b", "inception_5a", "inception_4e", "inception_4d", "inception_4c", "inception_4b", "inception_4a",
        "inception_3b", "inception_3a", "conv_2", "conv_2_reduce", "conv_1"]  # fmt: skip
FROM = {"inception_5b": DOWN[:1], "inception_4c": DOWN[:5], "all": DOWN}
"""What is trained besides the head; the head alone is not trained by steps, see test_head.py."""


def from_weights(data: Path, run: Path, settings: Mapping[str, Any], **changes: Any) -> Plan:
    """Without what else the recipe does before the first step."""
    start = {"model": None, "width": None, "size": None, "weights": str(weights_of(run))}
    alone = {"network.fit_head": False, "optimizer.range_test": False, **settings}
    return tiny_plan(data, **(start | {"settings": alone} | changes))


def stepper(data: Path, run: Path, settings: Mapping[str, Any], **changes: Any) -> Stepper:
    job = resolve(from_weights(data, run, settings, **changes))
    return Stepper(job.model(), job, steps_per_epoch=4)


def part(name: str) -> str:
    """The endpoint, or the head, of a tensor."""
    first, second, *_ = name.removeprefix("model.").split(".")
    return second if first == "body" else first


def is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors that are not the same bit for bit."""
    assert one.keys() == other.keys()
    return {name for name in one if one[name].numpy().tobytes() != other[name].numpy().tobytes()}


@pytest.mark.parametrize("mode", ["update", "freeze", "recalibrate"])
@pytest.mark.parametrize("train_from", FROM)
def test_what_is_frozen_stays_bit_for_bit(train_from: str, mode: str, colours: Path, run: Path, tmp_path: Path) -> None:
    """Weights, statistics and averages of a whole run; what is trained moves in every endpoint."""
    settings = {"network.train_from": train_from, "batch_norm.mode": mode, "average.decay": 0.5}
    train(from_weights(colours, run, settings, epochs=1), tmp_path / "run")
    before, trained = load_file(weights_of(run)), {"head", *FROM[train_from]}
    for file in ("weights.safetensors", "weights_raw.safetensors"):
        moved = differing(before, load_file(tmp_path / "run" / file))
        assert {part(name) for name in moved if not is_statistic(name)} == trained
        statistics = {name for name in before if is_statistic(name) and part(name) in trained}
        assert {name for name in moved if is_statistic(name)} == (set() if mode == "freeze" else statistics)
    tensors = load_file(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1])
    averaged = {part(name.removeprefix("average.")) for name in tensors if name.startswith("average.")}
    assert averaged == trained, "nothing is averaged that stays"


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"compute.precision": "bf16"}])
def test_frozen_layers_are_unchanged_with_accumulation_and_in_bfloat16(
    changes: dict[str, Any], colours: Path, run: Path
) -> None:
    settings = {"network.train_from": "inception_5a"} | {k: v for k, v in changes.items() if "." in k}
    one = stepper(colours, run, settings, **{k: v for k, v in changes.items() if "." not in k})
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    assert not one.step(batch(32), 0).skipped
    assert {part(name) for name in differing(before, one.model.state_dict())} == {
        "head",
        "inception_5a",
        "inception_5b",
    }


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_frozen_parts_have_no_gradient_and_no_state(optimizer: str, colours: Path, run: Path) -> None:
    one = stepper(colours, run, {"network.train_from": "inception_5b", "optimizer.name": optimizer})
    one.step(batch(32), 0)
    trained = {name for name, weight in one.model.named_parameters() if part(name) in ("head", "inception_5b")}
    names = {weight: name for name, weight in one.model.named_parameters()}
    assert {names[weight] for weight in one.optimizer.state} == trained
    assert {name for weight, name in names.items() if weight.grad is not None} == trained
    assert {names[weight] for group in one.optimizer.param_groups for weight in group["params"]} == trained


@pytest.mark.parametrize("train_from", FROM)
def test_the_backward_pass_ends_where_the_frozen_part_begins(train_from: str, colours: Path, run: Path) -> None:
    """What a frozen endpoint gives out has no history, so there is nothing to go back through."""
    one = stepper(colours, run, {"network.train_from": train_from})
    seen: dict[str, bool] = {}
    for name, module in one.model.body.named_children():
        module.register_forward_hook(lambda module, inputs, y, name=name: seen.update({name: y.requires_grad}))
    one.step(batch(32), 0)
    endpoints = [name for name, _ in one.model.body.named_children()]
    start = 0 if train_from == "all" else endpoints.index(train_from)
    assert seen == {name: i >= start for i, name in enumerate(endpoints)}


def test_auxiliary_heads_are_trained_on_frozen_endpoints_too(colours: Path, tmp_path: Path) -> None:
    start = tiny_plan(colours, model="inception_v1", size=72, epochs=1, settings={"network.aux": True})
    train(start, tmp_path / "start")
    settings = {"network.aux": True, "network.train_from": "inception_5b", "optimizer.layer_decay": 0.5}
    one = stepper(colours, tmp_path / "start", SGD | settings)
    before = {name: weight.detach().clone() for name, weight in one.model.named_parameters()}
    one.step(batch(72), 0)
    moved = differing(before, {name: weight.detach() for name, weight in one.model.named_parameters()})
    assert {part(name) for name in moved} == {"aux", "head", "inception_5b"}
    assert {name.split(".")[1] for name in moved if name.startswith("aux.")} == {"inception_4a", "inception_4d"}
    factors = lr_factors(one.model, 0.5)
    assert {factor for name, factor in factors.items() if name.startswith(("aux.", "head."))} == {1.0}
    (said, _) = training_summary(one.model, one.frozen, 1.0, 0.5)
    assert said.startswith("training head and auxiliary heads, inception_5b: ")


# The first step on a gradient g, as a factor on the rate; weight decay is none.
FIRST = {
    "sgd": lambda g: g,
    "adamw": lambda g: g / (g.abs() + 1e-8),
    "rmsprop": lambda g: g / (0.9 + 0.1 * g.square() + 1).sqrt(),
}


@pytest.mark.parametrize("optimizer", FIRST)
@pytest.mark.parametrize("train_from", ["all", "inception_5a"])
def test_layer_wise_rates_by_hand(optimizer: str, train_from: str, colours: Path, run: Path) -> None:
    """Half of the rate in the last endpoint, a quarter before it, … 1/4096 in the first; clipped to a norm of 3.

    Two-phase warm-up: a tenth of 800 in the first step, so much that rounding hides no layer's change.
    """
    settings = {"optimizer.layer_decay": 0.5, "optimizer.lr": 800, "schedule.warmup_epochs": 1,
                "optimizer.clip_norm": 3, "optimizer.name": optimizer, "schedule.warmup": "two-phase"}  # fmt: skip
    one = stepper(colours, run, SGD | settings | {"network.train_from": train_from})
    before = {name: weight.detach().double() for name, weight in one.model.named_parameters()}
    result = one.step(batch(32), 0)
    assert result.lr == pytest.approx(80) and result.gradient_norm > 3
    gradients = [weight.grad for weight in one.model.parameters() if weight.grad is not None]
    assert float(nn.utils.get_total_norm(gradients)) == pytest.approx(3, rel=1e-3)
    factor = {"head": 1.0} | {name: 0.5**i for i, name in enumerate(DOWN, 1)}
    for name, weight in one.model.named_parameters():
        if weight.grad is not None:
            expected = 80 * factor[part(name)] * FIRST[optimizer](weight.grad.double())
            torch.testing.assert_close(before[name] - weight.detach().double(), expected, rtol=1e-3, atol=2e-7)
    trained = {"head", *(DOWN if train_from == "all" else DOWN[:2])}
    assert {part(name) for name, weight in one.model.named_parameters() if weight.grad is not None} == trained


def test_endpoints_without_parameters_do_not_count() -> None:
    factors = lr_factors(create_model("inception_v1.slim", num_classes=3, width=0.125), 0.9)
    found = {part(name): factor for name, factor in factors.items()}
    assert found == pytest.approx({"head": 1.0} | {name: 0.9**i for i, name in enumerate(DOWN, 1)})
    assert set(lr_factors(nn.Sequential(nn.Linear(3, 2)), 0.5).values()) == {1.0}


@pytest.mark.parametrize("parts", [1, 2])
def test_a_skipped_step_changes_nothing(parts: int, colours: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"network.train_from": "inception_4e", "optimizer.layer_decay": 0.7, "average.decay": 0.9}
    one, other = (stepper(colours, run, settings, accumulate=parts) for _ in range(2))
    for each in (one, other):
        assert not each.step(batch(32), 0).skipped
    before = state(one)
    with monkeypatch.context() as patched:
        patched.setattr(step_module, "to_input", with_nan)
        assert one.step(batch(32, seed=1), 1).skipped
    assert changed(before, state(one)) == []
    for each in (one, other):
        assert not each.step(batch(32, seed=2), 2).skipped
    assert changed(state(one), state(other)) == [] and changed(before, state(one))


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("rmsprop", marks=pytest.mark.slow)])
def test_resumed_and_repeated_bit_for_bit(
    optimizer: str, colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"network.train_from": "inception_4d", "optimizer.layer_decay": 0.6, "optimizer.name": optimizer,
                "average.decay": 0.9, "batch_norm.mode": "recalibrate", "network.dropout": 0.3,
                "network.fit_head": True}  # fmt: skip
    plan = from_weights(colours, run, settings, epochs=2)
    train(plan, tmp_path / "whole")
    step = Stepper.step

    def stopped(self: Stepper, *arguments: Any) -> Any:
        if arguments[1] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "step", stopped)
        with pytest.raises(Interrupted):
            train(plan, tmp_path / "run")
    resume(tmp_path / "run")
    repeat(tmp_path / "whole", tmp_path / "again")
    files = ["weights.safetensors", "weights_raw.safetensors", "checkpoints/step-00000008.safetensors"]
    for file in files:
        whole, *others = (load_file(tmp_path / name / file) for name in ("whole", "run", "again"))
        assert [differing(whole, other) for other in others] == [set(), set()], file
    assert Run(tmp_path / "run").read_json("run.json")["recipe"]["network"]["train_from"] == "inception_4d"


@pytest.mark.slow
def test_two_processes_train_what_one_does(
    colours: Path, run: Path, tmp_path: Path, with_training: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where sums in another order make no difference; what is frozen stays in both."""
    settings = {"network.train_from": "inception_4e", "optimizer.layer_decay": 0.5, "log.every_steps": 1,
                "optimizer.name": "sgd", "optimizer.clip_norm": 1, **DESCENT}  # fmt: skip
    plan = from_weights(colours, run, settings, epochs=1, accumulate=2)
    two_processes(with_training, plan, tmp_path / "two", "double")
    for place in ("train.step.to_input", "train.validation.to_input", "evaluate.evaluation.normalise"):
        monkeypatch.setattr(f"inceptionnet.{place}", lambda *arguments: to_input(*arguments).double())
    torch.set_default_dtype(torch.float64)
    try:
        train(plan, tmp_path / "one")
    finally:
        torch.set_default_dtype(torch.float32)
    one, two = (load_file(weights_of(tmp_path / name)) for name in ("one", "two"))
    start = {name: tensor.to(one[name].dtype) for name, tensor in load_file(weights_of(run)).items()}
    trained = {"head", "inception_4e", "inception_5a", "inception_5b"}
    assert {part(name) for name in differing(start, two)} == {part(name) for name in differing(start, one)} == trained
    assert max(float((one[name] - two[name]).abs().max()) for name in one if one[name].is_floating_point()) < 1e-9


# dynamo looks at the gradients of tensors that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_once_and_the_same(colours: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the network its first two endpoints, since dynamo takes seconds for a whole one; conv_1 is frozen."""
    compiler, losses, graphs = Compiler(monkeypatch), [], []
    for compiled in (False, True):
        job = resolve(from_weights(colours, run, SGD | {"network.train_from": "pool_1", "compute.compile": compiled}))
        model = job.model()
        torch.manual_seed(0)
        model.body, model.head.logits = model.body[:2], nn.Linear(8, 3)
        one = Stepper(model, job, steps_per_epoch=4)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        losses.append([])
        for number in range(3):
            losses[-1].append(one.step(batch(32, seed=number), number).loss)
            graphs.append(compiler.graphs)
        assert {part(name) for name in differing(before, model.state_dict())} == {"head"}
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert graphs[:3] == [0] * 3 and graphs[3] > 0 and graphs[3:] == [graphs[3]] * 3


def test_freezing_is_for_the_named_parts_and_can_be_undone() -> None:
    model = create_model("inception_resnet_v1.facenet", num_classes=3, width=0.125).train()
    names = [name for name, _ in model.body.named_children()]
    for train_from, count in (("head", len(names)), (names[3], 3), ("all", 0)):
        model.train()
        assert list(freeze(model, train_from)) == names[:count]
        for i, module in enumerate([*model.body.children(), model.head]):
            assert {m.training for m in module.modules()} == {i >= count}
            assert {weight.requires_grad for weight in module.parameters()} <= {i >= count}


def test_batch_statistics_and_the_gap_are_for_the_named_norms_only(run: Path) -> None:
    model = load_model(weights_of(run)).train()
    norms, x = norms_of(model.body.get_submodule("inception_5b")), torch.randn(6, 3, 32, 32)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with batch_statistics(model, norms, remembered=True), torch.no_grad():
        model(x)
    assert {part(name) for name in differing(before, dict(model.named_buffers()))} == {"inception_5b"}
    labels = model.eval()(x).argmax(1)
    assert batch_norm_gap(model, [(x, labels)], []) == (6, 6, 6), "without any, the two are the same"


def test_an_average_is_of_what_moves() -> None:
    model = nn.ModuleDict({"kept": nn.Linear(2, 2), "moved": nn.BatchNorm1d(2)})
    average = Average(model, 0.5, without=("kept.",))
    nn.init.zeros_(model["kept"].weight)
    with average.in_place():
        assert not model["kept"].weight.any()
    assert {name.split(".")[0] for name in average.tensors} == {"moved"}


def test_what_is_trained_is_said() -> None:
    """Of 1024 features eighths, 128: the head has 3 × 129."""
    model = create_model("inception_v1.slim", num_classes=3, width=0.125)
    total = f"{sum(weight.numel() for weight in model.parameters()):,}"
    assert list(training_summary(model, freeze(model, "all"), 0.1, 1.0)) == [
        f"training the whole network: {total} parameters"
    ]
    assert list(training_summary(model, freeze(model, "head"), 0.1, 0.5)) == [
        f"training head: 387 of {total} parameters; frozen: conv_1 … inception_5b"
    ]
    first, second = training_summary(model, freeze(model, "pool_4"), 0.1, 0.5)
    assert first.startswith("training head, pool_4 … inception_5b: ")
    assert first.endswith(" parameters; frozen: conv_1 … inception_4e")
    assert second == "layer-wise learning rates: from 0.1 at the head down to 0.025 at inception_5a"
    first, _ = training_summary(model, freeze(model, "inception_5b"), 0.1, 0.5)
    assert first.startswith("training head, inception_5b: ")
    first, _ = training_summary(model, freeze(model, "pool_1"), 0.1, 0.5)
    assert first.endswith("; frozen: conv_1")


@pytest.mark.parametrize(
    ("train_from", "message"),
    [
        ("inception_5c", "an endpoint of inception_v1.slim: did you mean inception_5"),
        ("heads", "an endpoint of inception_v1.slim: did you mean head?"),
        ("xyz", "an endpoint of inception_v1.slim: known: all, conv_1, "),
        ("norm_1", "an endpoint of inception_v1.slim: did you mean "),
    ],
)
def test_an_unknown_endpoint_gets_the_nearest(
    train_from: str, message: str, colours: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        train(from_weights(colours, run, {"network.train_from": train_from}), tmp_path / "run")
    assert str(caught.value).startswith(f"network.train_from is {train_from!r}; expected all, head or {message}")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("train_from", ["head", "inception_4a"])
def test_without_weights_there_is_nothing_to_freeze(train_from: str, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^--train-from {train_from} freezes .*; give --weights, or .* all$"):
        train(tiny_plan(colours, settings={"network.train_from": train_from}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["0", "1.1", "-1", "none"])
def test_a_layer_decay_is_above_0_and_at_most_1(value: str, colours: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^setting optimizer\.layer_decay is '{value}': "):
        resolve(tiny_plan(colours, settings={"optimizer.layer_decay": value}))


def test_advice_on_dead_features_of_a_linear_probe() -> None:
    line = advice(create_model("inception_resnet_v2", width=0.125).network, head_alone=True)
    assert "--train-from" in line and "rate" not in line and "\n" not in line


def test_from_the_command_line(
    colours: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["inceptionnet", "train", colours, "--weights", run, "--out", tmp_path / "run", "--epochs", "1", "--workers",
            "0", "--batch-size", "8", "--train-from", "inception_5a", "--set", "optimizer.layer_decay=0.5",
            "--set", "log.report=false"]  # fmt: skip
    monkeypatch.setattr("sys.argv", [str(word) for word in line])
    with pytest.raises(SystemExit) as end:
        main()
    said = capsys.readouterr().err
    assert not end.value.code and "training head, inception_5a … inception_5b: " in said
    assert "layer-wise learning rates: from 0.00015 at the head down to 3.75e-05 at inception_5a" in said
    recipe = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert (recipe["network"]["train_from"], recipe["optimizer"]["layer_decay"]) == ("inception_5a", 0.5)
    monkeypatch.setattr(
        "sys.argv", ["inceptionnet", "train", "--resume", str(tmp_path / "run"), "--train-from", "head"]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "setting network.train_from cannot change from" in capsys.readouterr().err
