"""One step of the optimiser, with torch's own losses and the arithmetic of its parts written out beside it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inceptionnet import create_model
from inceptionnet.data.augment import normalise
from inceptionnet.data.loading import Batch
from inceptionnet.model.network import InceptionNet
from inceptionnet.train import step as step_module
from inceptionnet.train.batch_norm import norms_of
from inceptionnet.train.dropout import SeededDropout, seeded
from inceptionnet.train.resolve import resolve
from inceptionnet.train.step import Stepper
from inceptionnet.weights.folder import weights_of

from .conftest import tiny_plan

SGD = {"optimizer.name": "sgd", "optimizer.momentum": 0, "optimizer.weight_decay": 0, "optimizer.lr_scaling": "none",
       "schedule.name": "constant", "schedule.warmup_epochs": 0, "augment.flip": False}  # fmt: skip


def stepper(data: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Stepper:
    """A training of the colours before its first step."""
    job = resolve(tiny_plan(data, settings=settings or {}, **changes))
    return Stepper(job.model(), job, steps_per_epoch=4)


def no_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, SeededDropout):
            module.p = 0.0


def batch(size_px: int, planned: int = 8, rows: list[int] | None = None, seed: int = 0) -> Batch:
    """Noise with labels 0, 1, 2, 0, …; of the planned images only those of `rows` could be decoded."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (planned, 3, size_px, size_px), dtype=torch.uint8, generator=generator)
    draws = torch.rand(planned, 6, generator=generator)
    kept = torch.tensor(range(planned) if rows is None else rows, dtype=torch.int64)
    return Batch(
        images=images[kept].contiguous(memory_format=torch.channels_last),
        labels=torch.arange(planned)[kept] % 3,
        indices=kept,
        rows=kept,
        draws=draws[kept],
        planned=planned,
    )


def state(one: Stepper) -> dict[str, Tensor]:
    """Copies of all that a step may change."""
    found = {f"model.{name}": tensor for name, tensor in one.model.state_dict().items()}
    for number, values in one.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": tensor for name, tensor in values.items()}
    found |= {f"average.{name}": tensor for name, tensor in one.average.tensors.items()} if one.average else {}
    return {name: tensor.clone() for name, tensor in found.items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name in before if not torch.equal(before[name], after[name])]


def gradients(one: Stepper) -> list[Tensor]:
    found = [parameter.grad for parameter in one.model.parameters()]
    assert all(gradient is not None for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


V1 = {"model": "inception_v1", "size": 65}


@pytest.mark.parametrize("rows", [None, [0, 1, 2, 4, 6, 7]])
def test_parts_give_the_gradients_of_the_whole(colours: Path, rows: list[int] | None) -> None:
    """[v1] has no batch norm, and masks follow from rows; broken images leave parts of different size."""
    results, found = [], []
    for parts in (1, 2, 3):
        one = stepper(colours, SGD | {"network.aux": True}, accumulate=parts, **V1)
        results.append(one.step(batch(65, rows=rows), 0))
        found.append(gradients(one))
    for result, some in zip(results[1:], found[1:], strict=True):
        assert result.loss == pytest.approx(results[0].loss, abs=1e-6)
        assert result.gradient_norm == pytest.approx(results[0].gradient_norm, rel=1e-4)
        assert (
            (result.correct, result.images)
            == (results[0].correct, results[0].images)
            == (result.correct, len(rows or range(8)))
        )
        for a, b in zip(some, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_loss_and_gradients_are_torchs(colours: Path, in_double: None) -> None:
    """Mean cross-entropy with label smoothing, and 0.3 times that of each auxiliary head."""
    settings = SGD | {"network.aux": True, "loss.label_smoothing": 0.2, "loss.aux_weight": 0.3}
    one = stepper(colours, settings, **V1)
    no_dropout(one.model)
    plain = copy.deepcopy(one.model.double()).train()
    data = batch(65)
    logits = plain.all_logits(data.images.double() / 127.5 - 1)
    losses = {head: F.cross_entropy(values, data.labels, label_smoothing=0.2) for head, values in logits.items()}
    assert list(losses) == ["logits", "inception_4a", "inception_4d"]
    (losses["logits"] + 0.3 * losses["inception_4a"] + 0.3 * losses["inception_4d"]).backward()
    result = one.step(data, 0)
    assert result.loss == pytest.approx(losses["logits"].item(), abs=1e-6), "the main head's alone"
    assert result.correct == int((logits["logits"].argmax(1) == data.labels).sum()) and result.images == 8
    for a, b in zip(gradients(one), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-3, atol=1e-6)
    norm = sum(float(p.grad.square().sum()) for p in plain.parameters() if p.grad is not None) ** 0.5
    assert result.gradient_norm == pytest.approx(norm, rel=1e-4)


def test_the_rate_is_that_of_the_step(colours: Path) -> None:
    """Batches of 8 where the recipe says 4e-3 for 32: half of it by the square root; warm-up over a fifth of 12."""
    one = stepper(colours, {"optimizer.lr": 4e-3, "optimizer.lr_scaling": "sqrt", "schedule.warmup_epochs": 1})
    assert one.peak_lr == pytest.approx(2e-3)
    for number, share in ((0, 1 / 3.4), (1, 2 / 3.4), (2, 3 / 3.4)):
        assert one.step(batch(32), number).lr == pytest.approx(2e-3 * share)
        assert [group["lr"] for group in one.optimizer.param_groups] == pytest.approx([2e-3 * share] * 2)
    assert one.step(batch(32), 3).lr > one.step(batch(32), 4).lr > one.step(batch(32), 11).lr > 0


@pytest.mark.parametrize("clip", [0.01, 1e6])
def test_a_step_is_clipped_to_the_norm(colours: Path, clip: float) -> None:
    """Without momentum and decay a step at rate 0.5 is half of the gradient, or of what is left of it."""
    one = stepper(colours, SGD | {"optimizer.lr": 0.5, "optimizer.clip_norm": clip})
    before = torch.cat([p.detach().flatten() for p in one.model.parameters()])
    result = one.step(batch(32), 0)
    after = torch.cat([p.detach().flatten() for p in one.model.parameters()])
    assert 0.01 < result.gradient_norm < 1e6, "said as it was before clipping"
    assert float((before - after).norm()) == pytest.approx(0.5 * min(clip, result.gradient_norm), rel=1e-3)


def with_nan(*arguments: Any) -> Tensor:
    x = normalise(arguments[0], arguments[1])
    x[0, 0, 0, 0] = float("nan")
    return x


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_loss_that_is_no_number_changes_nothing(
    colours: Path, parts: int, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer.name": optimizer, "average.decay": 0.9}
    one, other = (stepper(colours, settings, accumulate=parts) for _ in range(2))
    for each in (one, other):
        assert not each.step(batch(32), 0).skipped
    before = state(one)
    with monkeypatch.context() as patched:
        patched.setattr(step_module, "to_input", with_nan)
        result = one.step(batch(32, seed=1), 1)
    assert result.skipped and result.loss != result.loss and result.images == 8
    assert changed(before, state(one)) == []
    for each in (one, other):
        assert not each.step(batch(32, seed=2), 2).skipped
    assert changed(state(one), state(other)) == [], "as if it had not been"
    assert "model.body.conv_1.bn.running_mean" in changed(before, state(one))


def test_a_gradient_that_is_no_number_changes_nothing(colours: Path) -> None:
    one = stepper(colours, SGD)
    before = state(one)
    weight = one.model.head.get_submodule("logits").weight
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    result = one.step(batch(32), 0)
    handle.remove()
    assert result.skipped and abs(result.loss) < 10 and not abs(result.gradient_norm) < float("inf")
    assert changed(before, state(one)) == []
    assert not one.step(batch(32), 1).skipped and len(changed(before, state(one))) > 10


@pytest.mark.parametrize("rows", [[], [5]])
def test_a_batch_that_is_too_small_is_left_out(colours: Path, rows: list[int]) -> None:
    one = stepper(colours, {"average.decay": 0.9})
    before = state(one)
    result = one.step(batch(32, rows=rows), 0)
    assert (result.images, result.correct, result.loss, result.skipped) == (0, 0, 0.0, False)
    assert changed(before, state(one)) == []


def test_a_part_of_one_image_is_left_out(colours: Path) -> None:
    """Rows 0 to 3 are the first part, of which one is good; what is left is a step on rows 4 to 7 alone."""
    both = stepper(colours, SGD, accumulate=2)
    alone = stepper(colours, SGD, accumulate=2)
    result = both.step(batch(32, rows=[1, 4, 5, 6, 7]), 0)
    expected = alone.step(batch(32, rows=[4, 5, 6, 7]), 0)
    assert result == expected and result.images == 4
    assert changed(state(both), state(alone)) == []


@pytest.mark.parametrize("changes", [{}, V1])
def test_bfloat16_is_nearly_float32(colours: Path, changes: dict[str, Any]) -> None:
    """Logits of some tenths with 8 bits. Batch norm over few pixels makes more of it: there only the types are seen."""
    losses = {}
    for precision in ("fp32", "bf16"):
        one = stepper(colours, SGD | {"compute.precision": precision, "optimizer.momentum": 0.9}, **changes)
        seen: list[torch.dtype] = []
        one.model.head.register_forward_hook(lambda head, inputs, logits, seen=seen: seen.append(logits.dtype))
        result = one.step(batch(65), 0)
        losses[precision] = result.loss
        assert seen == [torch.float32 if precision == "fp32" else torch.bfloat16] and not result.skipped
        assert {tensor.dtype for tensor in state(one).values()} <= {torch.float32, torch.int64}
    assert 0 < abs(losses["bf16"] - losses["fp32"]) < (0.02 if changes else 0.5)


@pytest.mark.parametrize("last", [True, False])
def test_memory_order_of_the_input(colours: Path, last: bool) -> None:
    one = stepper(colours, SGD | {"compute.channels_last": last})
    seen: list[tuple[bool, bool]] = []

    def look(body: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        seen.append((x.is_contiguous(memory_format=torch.channels_last), x.is_contiguous()))

    one.model.body.register_forward_pre_hook(look)
    one.step(batch(32), 0)
    assert seen == [(last, not last)]


def test_memory_order_changes_no_number(colours: Path) -> None:
    losses = [stepper(colours, SGD | {"compute.channels_last": last}).step(batch(32), 0).loss for last in (True, False)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"network.aux": True, "network.dropout": 0.4}, V1),
        ({"average.decay": 0.9}, {"model": "inception_resnet_v1", "size": 75, "width": 0.0625}),
        ({"batch_norm.mode": "freeze"}, {"weights": True}),
        ({"network.train_from": "inception_4b", "batch_norm.momentum": 0.2}, {"weights": True}),
        ({"compute.precision": "bf16"}, {}),
    ],
    ids=["aux", "residual", "frozen statistics", "frozen endpoints", "bf16"],
)
def test_gradient_checkpointing_changes_no_bit(
    settings: dict[str, Any], changes: dict[str, Any], colours: Path, run: Path
) -> None:
    """Two steps of two accumulated parts: weights, statistics, their counters, optimiser and weight average."""
    if "weights" in changes:
        changes = {"weights": str(weights_of(run)), "model": None, "width": None}
    plain, saving = (
        stepper(
            colours,
            {"network.dropout": 0.3, **settings, "compute.gradient_checkpointing": on},
            **{"accumulate": 2, **changes},
        )
        for on in (False, True)
    )
    before = saving.model.head.logits.weight.detach().clone()
    for number in range(2):
        data = batch(plain.job.prep.size_px, seed=number)
        assert plain.step(data, number) == saving.step(data, number)
    assert changed(state(plain), state(saving)) == []
    assert not torch.equal(before, saving.model.head.logits.weight)


def kept_bytes(one: Stepper) -> int:
    """Bytes that autograd keeps for the backward pass of a step; a tensor that is kept twice counts twice."""
    found = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal found
        found += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one.step(batch(one.job.prep.size_px), 0)
    return found


def test_gradient_checkpointing_keeps_less(colours: Path) -> None:
    plain, saving = (
        kept_bytes(stepper(colours, {"compute.gradient_checkpointing": on}, size=65, width=0.25))
        for on in (False, True)
    )
    assert 0 < saving < 0.4 * plain


def test_frozen_endpoints_are_computed_once(colours: Path, run: Path) -> None:
    """The forward pass computes every endpoint; the backward pass computes the trained ones again."""
    settings = {"network.train_from": "inception_5b", "compute.gradient_checkpointing": True}
    one = stepper(colours, settings, weights=str(weights_of(run)), model=None, width=None)
    passes: dict[str, int] = dict.fromkeys((name for name, _ in one.model.body.named_children()), 0)

    def counted(name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor]) -> None:
            passes[name] += 1

        return count

    for name, module in one.model.body.named_children():
        module.register_forward_pre_hook(counted(name))
    one.step(batch(32), 0)
    assert passes == {name: 1 if name in one.frozen else 2 for name in passes}


class Compiler:
    """Stands for the compiler of a network: runs what dynamo makes of it as it is, and counts it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs = 0
        plain = nn.Module.compile
        monkeypatch.setattr(nn.Module, "compile", lambda module: plain(module, backend=self))

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


def short_stepper(data: Path, settings: dict[str, Any]) -> Stepper:
    """On the first layers of a network, since dynamo takes seconds for a whole one."""
    job = resolve(tiny_plan(data, settings=SGD | {"network.dropout": 0.4} | settings))
    model = job.model()
    model.body = model.body[:2]
    model.head.logits = nn.Linear(8, 3)
    return Stepper(model, job, steps_per_epoch=4)


# dynamo looks at the gradients of tensors that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_steps_are_the_same(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, losses = Compiler(monkeypatch), []
    for compiled in (False, True):
        torch.manual_seed(0)
        one = short_stepper(colours, {"compute.compile": compiled})
        losses.append([one.step(batch(32, seed=number), number).loss for number in range(3)])
        assert (compiler.graphs > 0) == compiled
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_steps_with_gradient_checkpointing(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics are counted once. The backend is torch's own without code generation, which takes a minute."""
    plain = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: plain(module, backend="aot_eager"))
    found = []
    for on in (False, True):
        torch.manual_seed(0)
        one = short_stepper(colours, {"compute.compile": on, "compute.gradient_checkpointing": on})
        assert not one.step(batch(32), 0).skipped
        found.append(one.model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_network_is_compiled_once(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(monkeypatch)
    one = short_stepper(colours, {"compute.compile": True})
    graphs = []
    for number in range(4):
        one.step(batch(32), number)
        graphs.append(compiler.graphs)
    assert graphs == [graphs[0]] * 4


def drop(x: Tensor, key: tuple[int, ...], planned: int, rows: list[int] | range, p: float = 0.3) -> Tensor:
    dropout = SeededDropout(p)
    dropout.set_rows(key, planned, torch.tensor(list(rows), dtype=torch.int64))
    dropped: Tensor = dropout(x)
    return dropped


def test_dropout_has_the_same_masks_however_a_batch_is_split() -> None:
    x = torch.randn(9, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = drop(x, (0, 3, 1), 9, range(9))
    parts = [drop(x[a:b], (0, 3, 1), 9, range(a, b)) for a, b in ((0, 4), (4, 4), (4, 9))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(drop(x[[7, 2]], (0, 3, 1), 9, [7, 2]), whole[[7, 2]])


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """Of 60 000 ones 30 %, standard deviation 112; the others become 1 / 0.7."""
    y = drop(torch.ones(60, 1000), (0, 0, 0), 60, range(60))
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert abs(int((y == 0).sum()) - 18000) < 500
    rows = (y == 0).float()
    assert not torch.equal(rows[0], rows[1]) and 0.2 < rows[0].mean() < 0.4


def test_dropout_differs_from_step_to_step_and_place_to_place() -> None:
    x = torch.ones(4, 50)
    masks = [drop(x, key, 4, range(4)) for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    assert torch.equal(drop(x, (0, 1, 0), 4, range(4)), masks[2])


def test_dropout_passes_on_in_evaluation_and_leaves_the_global_generator_alone() -> None:
    x = torch.randn(3, 4)
    dropout = SeededDropout(0.5).eval()
    dropout.set_rows((0,), 3, torch.arange(3))
    assert torch.equal(dropout(x), x) and "p=0.5" in repr(dropout)
    assert torch.equal(drop(x, (0,), 3, range(3), p=0.0), x)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    drop(x, (0,), 3, range(3))
    assert torch.equal(torch.rand(1), expected)


def test_dropout_passes_gradients_of_what_it_keeps() -> None:
    x = torch.ones(4, 20, requires_grad=True)
    y = drop(x, (0,), 4, range(4))
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_every_dropout_of_a_network_is_found() -> None:
    model = create_model("inception_v1", num_classes=3, width=0.125, input_size=65, aux=True)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    found = seeded(model)
    assert sorted(dropout.p for dropout in found) == pytest.approx([0.4, 0.7, 0.7]) and len(names) == 3
    assert [model.get_submodule(name) for name in names] == found
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_steps_have_other_masks_and_heads_too(colours: Path) -> None:
    """The same images twice, at a rate too small to matter: only the masks differ."""
    one = stepper(colours, SGD | {"network.aux": True, "optimizer.lr": 1e-30}, **V1)
    first, again, other = (one.step(batch(65), number) for number in (0, 0, 1))
    assert first == again and first.loss != other.loss
    no_dropout(one.model)
    assert isinstance(one.model, InceptionNet) and one.step(batch(65), 0).loss == one.step(batch(65), 1).loss


def test_each_dropout_has_masks_of_its_own(colours: Path) -> None:
    one = stepper(colours, SGD | {"network.aux": True, "network.dropout": 0.7}, **V1)
    one.step(batch(65), 3)
    masks = [dropout(torch.ones(8, 100)) for dropout in one.dropouts]
    assert len(masks) == 3 and all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])
    assert torch.equal(masks[1], drop(torch.ones(8, 100), (0, 3, 1), 8, range(8), p=0.7))


def test_the_average_takes_in_each_step_by_its_number(colours: Path) -> None:
    """At step 5 the ramp is 6 / 15."""
    one = stepper(colours, SGD | {"average.decay": 0.9999})
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    one.step(batch(32), 5)
    assert one.average is not None
    for name, tensor in one.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(one.average.tensors[name], 0.4 * before[name] + 0.6 * tensor)
    assert not torch.equal(before["head.logits.weight"], one.model.state_dict()["head.logits.weight"])


@pytest.mark.parametrize("weights", [False, True])
def test_running_statistics_are_torchs_part_by_part(colours: Path, run: Path, weights: bool) -> None:
    """With a momentum of 9/10, 9/11, … in a fresh network, and 0.2 from weights on; at a rate of nearly 0."""
    settings = SGD | {"optimizer.lr": 1e-30, "batch_norm.mode": "update", "batch_norm.momentum": 0.2}
    start = {"weights": str(weights_of(run)), "model": None, "width": None} if weights else {}
    one = stepper(colours, settings, accumulate=2, **start)
    plain = copy.deepcopy(one.model).train()
    no_dropout(plain)
    for number in range(3):
        data = batch(32, seed=number)
        one.step(data, number)
        for norm in norms_of(plain):
            norm.momentum = 0.2 if weights else 9 / (10 + number)
        with torch.no_grad():
            for half in data.images.chunk(2):
                plain(half.float() / 127.5 - 1)
    expected = dict(plain.named_buffers())
    for name, buffer in one.model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=1e-3, atol=1e-4)
