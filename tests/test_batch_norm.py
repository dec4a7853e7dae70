"""Batch norm's statistics against numpy and torch's own batch norm, and what its modes do to a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from inceptionnet import load_model, read_record, save_weights
from inceptionnet.errors import ConfigurationError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.train.batch_norm import (
    _SyncBatchNorm,
    batch_statistics,
    blend,
    momentum_at,
    norms_of,
    snapshot,
    synchronise,
)
from inceptionnet.train.loop import train
from inceptionnet.weights.folder import weights_of

from .conftest import DESCENT, tiny_plan


def test_momentum_by_hand() -> None:
    """9 / 10, 9 / 11, 9 / 12; 9 / 90 = 0.1 at step 80, and at step 29 990 the published 0.0003."""
    assert [momentum_at(step, 0.1, fresh=True) for step in (0, 1, 2)] == pytest.approx([0.9, 9 / 11, 0.75])
    assert momentum_at(79, 0.1, fresh=True) == pytest.approx(9 / 89)
    assert momentum_at(80, 0.1, fresh=True) == momentum_at(1000, 0.1, fresh=True) == 0.1
    assert momentum_at(990, 3e-4, fresh=True) == pytest.approx(0.009)
    assert momentum_at(30_000, 3e-4, fresh=True) == 3e-4
    assert {momentum_at(step, 3e-4, fresh=False) for step in range(100)} == {3e-4}


def test_a_fresh_networks_statistics_remember_the_last_ninth() -> None:
    """In step t a share of 9 / (10 + t): 0 and 1, with which they begin, have a weight of 1e-8 after 45 steps."""
    norm = nn.BatchNorm1d(1)
    nn.init.constant_(norm.running_mean, 1e6)
    for step in range(45):
        norm.momentum = momentum_at(step, 3e-4, fresh=True)
        norm(torch.tensor([[2.9], [3.1]]))
    assert norm.running_mean.item() == pytest.approx(3, abs=0.05)


def test_blended_statistics_are_those_of_a_momentum() -> None:
    """A pass with a momentum of 1, blended, against torch's own pass with 0.3; counts go on, parameters stay."""
    blended, plain = nn.BatchNorm1d(3, momentum=1.0), nn.BatchNorm1d(3, momentum=0.3)
    x = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    for part in x:
        before = snapshot([blended])
        blended(part)
        blend(before, 0.3)
        plain(part)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(blended.state_dict()[name], tensor)
    assert blended.num_batches_tracked.item() == 4
    blend([], 0.3)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2),
                         nn.BatchNorm1d(2, momentum=0.3), nn.Dropout(0.5))  # fmt: skip


def batches(count: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 + (i + 1) * torch.randn(6, 3, 5, 5, generator=generator) for i in range(count)]


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_remembered_statistics_are_the_plain_mean_over_the_batches() -> None:
    model = net()
    model.train()(batches()[0])
    with batch_statistics(model, remembered=True), torch.no_grad():
        for x in batches():
            model(x)
    inputs = [model[0](x).detach().double().numpy() for x in batches()]
    np.testing.assert_allclose(model[1].running_mean, np.mean([x.mean((0, 2, 3)) for x in inputs], 0), rtol=1e-4)
    variances = [x.var((0, 2, 3), ddof=1) for x in inputs]
    np.testing.assert_allclose(model[1].running_var, np.mean(variances, 0), rtol=1e-4)
    assert model[1].num_batches_tracked.item() == model[5].num_batches_tracked.item() == 5
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert all(module.training for module in model.modules())


def test_only_batch_norm_is_as_in_training() -> None:
    model = net().eval()
    x = batches()[0]
    with batch_statistics(model, remembered=True):
        assert [module.training for module in model] == [False, True, False, False, False, True, False]
        y = model(x)
    normalised = y.detach().double().numpy()
    np.testing.assert_allclose(normalised.mean(0), 0, atol=1e-5)  # dropout is off, weight 1 and bias 0
    np.testing.assert_allclose(normalised.var(0), 1, rtol=0.01)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_statistics_that_are_not_remembered_leave_no_trace(fails: bool) -> None:
    model = net()
    model.train()(batches()[0])
    before = buffers(model)
    try:
        with batch_statistics(model, remembered=False):
            y = model(batches()[1])
            assert y.detach().mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
            assert not fails, "left by an exception"
    except AssertionError:
        assert fails
    after = buffers(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3) and model.training and model[6].training


@pytest.fixture
def group() -> Iterator[None]:
    """This process as the only one of a group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


NORMS = [
    (nn.BatchNorm2d, {}, (6, 4, 5, 3)),
    (nn.BatchNorm2d, {"momentum": None}, (6, 4, 1, 1)),
    (nn.BatchNorm2d, {"momentum": 0.5, "eps": 0.3}, (2, 4, 2, 2)),
    (nn.BatchNorm1d, {}, (7, 4)),
    (nn.BatchNorm1d, {"momentum": None}, (7, 4)),
]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(("kind", "options", "shape"), NORMS)
def test_synchronised_batch_norm_is_torchs(kind: Any, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    plain = kind(4, **options).double()
    with torch.no_grad():
        plain.weight.copy_(torch.randn(4, generator=generator))
        plain.bias.copy_(torch.randn(4, generator=generator))
    synchronised = _SyncBatchNorm(copy.deepcopy(plain))
    for _ in range(3):
        x = 5 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(one) for norm, one in zip((plain, synchronised), inputs, strict=True)]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
        for output in outputs:
            output.backward(gradient)
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-9, atol=1e-9)
    for a, b in zip(synchronised.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
    assert synchronised.state_dict().keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(synchronised.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(synchronised.eval()(x), plain.eval()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("group")
def test_synchronising_replaces_every_norm_and_keeps_its_tensors() -> None:
    model, plain = net(), net()
    tensors = dict(model.state_dict(keep_vars=True))
    synchronise(model, torch.device("cpu"))
    assert [type(norm) for norm in norms_of(model)] == [_SyncBatchNorm, _SyncBatchNorm]
    assert all(tensors[name] is tensor for name, tensor in model.state_dict(keep_vars=True).items())
    assert len(tensors) == len(plain.state_dict()) and model[5].momentum == 0.3
    model[6].p = plain[6].p = 0.0
    torch.testing.assert_close(model(batches()[0]), plain(batches()[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("group")
def test_synchronised_batch_norm_under_autocast_keeps_float32_statistics() -> None:
    norms = [nn.BatchNorm2d(4), _SyncBatchNorm(nn.BatchNorm2d(4))]
    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    outputs = [norm(x) for norm in norms]
    assert [output.dtype for output in outputs] == [torch.bfloat16] * 2
    torch.testing.assert_close(*outputs, rtol=0.01, atol=0.02)
    torch.testing.assert_close(norms[1].running_mean, norms[0].running_mean, rtol=1e-4, atol=1e-5)
    assert norms[1].running_var.dtype == torch.float32


@pytest.fixture(scope="module")
def spoilt(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a trained network with statistics of nothing, as a memory that is too long leaves them."""
    file = tmp_path_factory.mktemp("weights") / "spoilt.safetensors"
    model, record = load_model(weights_of(run)), read_record(weights_of(run))
    for norm in norms_of(model):
        norm.reset_running_stats()
        norm.running_mean.add_(1)
    save_weights(model, file, classes=record.classes, preprocessing=record.preprocessing)
    return file


def tuned(data: Path, weights: Path, out: Path, mode: str, **settings: object) -> Evaluation:
    """An epoch from weights, with a memory of a million steps."""
    settings = DESCENT | {"batch_norm.mode": mode, "batch_norm.momentum": 1e-6} | settings
    plan = tiny_plan(data, model=None, width=None, size=None, weights=str(weights), epochs=1, settings=settings)
    return train(plan, out)


@pytest.mark.slow
def test_recalibration_mends_what_a_long_memory_spoils(colours: Path, spoilt: Path, tmp_path: Path) -> None:
    found = {mode: tuned(colours, spoilt, tmp_path / mode, mode) for mode in ("update", "recalibrate")}
    assert found["recalibrate"].top1 >= found["update"].top1 + 0.4
    assert found["recalibrate"].loss < 0.7 * found["update"].loss
    saved = load_file(tmp_path / "recalibrate" / "weights.safetensors")
    counts = {int(tensor) for name, tensor in saved.items() if name.endswith("num_batches_tracked")}
    assert counts <= {4}, "31 training images are four batches"
    means = [name for name in saved if name.endswith("running_mean")]
    assert means and not any(torch.equal(saved[name], load_file(spoilt)[name]) for name in means)


@pytest.mark.slow
def test_recalibration_is_for_the_average_and_the_raw_weights(colours: Path, spoilt: Path, tmp_path: Path) -> None:
    found = tuned(colours, spoilt, tmp_path / "run", "recalibrate", **{"average.decay": 0.5})
    assert found.top1 >= 0.8
    both = [load_file(tmp_path / "run" / name) for name in ("weights.safetensors", "weights_raw.safetensors")]
    means = [name for name in both[0] if name.endswith("running_mean")]
    assert means and not any(torch.equal(both[0][name], both[1][name]) for name in means)


def test_frozen_statistics_stay_and_weights_are_trained(colours: Path, run: Path, tmp_path: Path) -> None:
    tuned(colours, weights_of(run), tmp_path / "run", "freeze")
    before, after = load_file(weights_of(run)), load_file(weights_of(tmp_path / "run"))
    kept = {name for name in before if torch.equal(before[name], after[name])}
    statistics = {
        name for name in before if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert statistics <= kept and len(statistics) > 100
    trained = {name for name in before if ".bn." in name} - statistics
    assert trained and not trained & kept


def test_recalibration_is_for_auxiliary_heads_too(colours: Path, tmp_path: Path) -> None:
    """They are no part of an evaluation, but of the file; the last epoch's four batches are what is remembered."""
    settings = {"network.aux": True, "batch_norm.mode": "recalibrate"}
    train(tiny_plan(colours, model="inception_v1.torchvision", size=72, epochs=2, settings=settings), tmp_path / "run")
    tensors = load_file(weights_of(tmp_path / "run"))
    assert {int(tensor) for name, tensor in tensors.items() if name.endswith("num_batches_tracked")} == {4}
    means = [tensor for name, tensor in tensors.items() if name.startswith("aux.") and name.endswith("running_mean")]
    assert len(means) == 2 and all(mean.any() for mean in means)


def test_freezing_needs_statistics_to_freeze(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="--bn freeze keeps the statistics of pretrained weights; give --weights"
    ):
        train(tiny_plan(colours, settings={"batch_norm.mode": "freeze"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
