"""Optimisers and schedules against numbers worked out by hand, without torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from inceptionnet import create_model
from inceptionnet.train.optimizers import TensorFlowRMSprop, lr_factor, make_optimizer, peak_lr
from inceptionnet.train.setting_groups import Optimizer, Schedule


def test_first_two_steps_of_rmsprop_by_hand() -> None:
    """Weight 1, gradients 0.5 and -2, rate 0.1, decay 0.9, momentum 0.9, epsilon 1.

    mean square  0.9·1 + 0.1·0.25 = 0.925          0.9·0.925 + 0.1·4 = 1.2325
    buffer       0.1·0.5 / √1.925 = 0.0360375      0.9·0.0360375 - 0.1·2 / √2.2325 = -0.1014211
    weight       1 - 0.0360375    = 0.9639625      0.9639625 + 0.1014211 = 1.0653836
    """
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = TensorFlowRMSprop([weight], 0.1)
    for gradient, expected in ((0.5, 0.9639625), (-2.0, 1.0653836)):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert weight.item() == pytest.approx(expected, abs=1e-7)


def test_rmsprop_step_for_step_with_falling_rate_and_weight_decay() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(20, 3, generator=generator, dtype=torch.float64).tolist()
    weights = nn.Parameter(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64))
    optimizer = TensorFlowRMSprop([weights], 0.045, decay=0.9, momentum=0.8, eps=0.3, weight_decay=0.01)
    plain, squares, buffers = weights.tolist(), [1.0] * 3, [0.0] * 3
    for step, row in enumerate(gradients):
        rate = optimizer.param_groups[0]["lr"] = 0.045 * 0.94**step
        weights.grad = torch.tensor(row, dtype=torch.float64)
        optimizer.step()
        for i in range(3):
            g = row[i] + 0.01 * plain[i]
            squares[i] = 0.9 * squares[i] + 0.1 * g * g
            buffers[i] = 0.8 * buffers[i] + rate * g / math.sqrt(squares[i] + 0.3)
            plain[i] -= buffers[i]
        assert weights.tolist() == pytest.approx(plain, rel=1e-12)


def test_rmsprop_is_not_torchs() -> None:
    """The reason it is here: at epsilon 1 torch's first step is 2.2 times as long for a gradient of 0.5."""
    lengths = []
    for kind in (TensorFlowRMSprop, torch.optim.RMSprop):
        weight = nn.Parameter(torch.zeros(1))
        weight.grad = torch.tensor([0.5])
        kind([weight], lr=1.0, momentum=0.9, eps=1.0, **({"alpha": 0.9} if kind is torch.optim.RMSprop else {})).step()
        lengths.append(abs(weight.item()))
    assert lengths[0] == pytest.approx(0.5 / math.sqrt(1.925), rel=1e-6)
    assert lengths[1] == pytest.approx(0.5 / (math.sqrt(0.025) + 1), rel=1e-6)


def test_rmsprop_resumes_from_its_state() -> None:
    def steps(optimizer: TensorFlowRMSprop, weight: nn.Parameter, gradients: list[float]) -> None:
        for gradient in gradients:
            weight.grad = torch.tensor([gradient])
            optimizer.step()

    whole, first = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    steps(TensorFlowRMSprop([whole], 0.1), whole, [0.5, -1.0, 0.25])
    start = TensorFlowRMSprop([first], 0.1)
    steps(start, first, [0.5, -1.0])
    second = nn.Parameter(first.detach().clone())
    resumed = TensorFlowRMSprop([second], 0.7)
    resumed.load_state_dict(start.state_dict())
    steps(resumed, second, [0.25])
    assert torch.equal(second, whole)


def test_rmsprop_without_epsilon_is_torchs_but_for_its_start() -> None:
    """At epsilon 0 and a rate that stays, all that is left between the two is the mean square's start at 1."""
    generator = torch.Generator().manual_seed(1)
    weights = [nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64)) for _ in range(2)]
    weights[1].data = weights[0].data.clone()
    ours = TensorFlowRMSprop(weights[:1], 0.01, eps=0.0, weight_decay=0.1)
    theirs = torch.optim.RMSprop(weights[1:], 0.01, alpha=0.9, momentum=0.9, eps=0.0, weight_decay=0.1)
    theirs.state[weights[1]] = {
        "step": torch.tensor(0.0),
        "square_avg": torch.ones_like(weights[1]),
        "momentum_buffer": torch.zeros_like(weights[1]),
    }
    for _ in range(10):
        gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        for weight, optimizer in zip(weights, (ours, theirs), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-12, atol=0)


def test_rmsprop_takes_many_parameters_at_once() -> None:
    """Two groups with rates and decays of their own, other shapes, now and then no gradient; written out in numpy."""
    rng = np.random.default_rng(0)
    shapes = [(2, 3, 1, 1), (3,), (4, 2), (1,)]
    plain = [rng.normal(size=shape) for shape in shapes]
    weights = [nn.Parameter(torch.from_numpy(value.copy())) for value in plain]
    squares, buffers = [np.ones(shape) for shape in shapes], [np.zeros(shape) for shape in shapes]
    groups = [{"params": weights[:2], "weight_decay": 0.2}, {"params": weights[2:], "lr": 0.3, "eps": 0.1}]
    optimizer = TensorFlowRMSprop(groups, 0.05, momentum=0.7)
    for step in range(4):
        for i, weight in enumerate(weights):
            rate, eps, decay = ((0.05, 1.0, 0.2), (0.3, 0.1, 0.0))[i // 2]
            if i == 3 or (i == 1 and step == 2):
                weight.grad = None  # as of a head that was not in the pass
                continue
            gradient = rng.normal(size=shapes[i])
            weight.grad = torch.from_numpy(gradient.copy())
            gradient = gradient + decay * plain[i]
            squares[i] = 0.9 * squares[i] + 0.1 * gradient**2
            buffers[i] = 0.7 * buffers[i] + rate * gradient / np.sqrt(squares[i] + eps)
            plain[i] = plain[i] - buffers[i]
        optimizer.step()
        for weight, value in zip(weights, plain, strict=True):
            np.testing.assert_allclose(weight.detach().numpy(), value, rtol=1e-12)
    assert set(optimizer.state) == set(weights[:3]), "what never had a gradient has no state"


def test_rmsprop_calls_its_closure() -> None:
    """Gradient 2·3 = 6: mean square 0.9 + 3.6 = 4.5, weight 3 - 0.1·6 / √5.5."""
    weight = nn.Parameter(torch.tensor([3.0]))
    optimizer = TensorFlowRMSprop([weight], 0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert weight.item() == pytest.approx(3 - 0.6 / math.sqrt(5.5), rel=1e-6)


def test_rmsprop_keeps_what_it_loads() -> None:
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    first = TensorFlowRMSprop([{"params": weights[:1]}, {"params": weights[1:], "weight_decay": 0.5}], 0.1, eps=0.5)
    weights[0].grad = torch.tensor([1.0, -2.0])
    first.step()
    second = TensorFlowRMSprop([{"params": weights[:1]}, {"params": weights[1:]}], 0.9)
    second.load_state_dict(first.state_dict())
    settings = [(group["lr"], group["eps"], group["weight_decay"]) for group in second.param_groups]
    assert settings == [(0.1, 0.5, 0.0), (0.1, 0.5, 0.5)]
    assert set(second.state) == {weights[0]}
    assert second.state[weights[0]]["mean_square"].tolist() == pytest.approx([1.0, 1.3])
    assert second.state[weights[0]]["momentum"].tolist() == pytest.approx([0.1 / 1.5**0.5, -0.2 / 1.8**0.5])


def test_cosine_by_hand() -> None:
    """Ten steps, two of them warm-up: up by thirds, then half a cosine over eight steps."""
    settings = Schedule(epochs=5, warmup_epochs=1)
    rates = [lr_factor(step, 2, settings) for step in range(12)]
    assert rates[:2] == pytest.approx([1 / 3, 2 / 3])
    assert rates[2:11] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(9)])
    assert rates[10] == pytest.approx(0, abs=1e-12) and rates[11] == pytest.approx(0, abs=1e-12)
    assert lr_factor(0, 4, Schedule(epochs=1, warmup_epochs=0)) == 1.0


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for step in range(12):
        assert lr_factor(step, 3, Schedule(epochs=4, warmup_epochs=0)) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_exponential_by_hand() -> None:
    """Three steps an epoch: 0.94 from step 6 on, 0.8836 from step 12 on."""
    settings = Schedule(epochs=8, name="exponential", warmup_epochs=0)
    assert [lr_factor(step, 3, settings) for step in (0, 5, 6, 11, 12)] == pytest.approx([1, 1, 0.94, 0.94, 0.8836])
    assert lr_factor(23, 3, settings) == pytest.approx(0.94**3)


def test_exponential_is_torchs() -> None:
    """[v2]: 4 % off every 8/6 epochs, which are 16 of its steps where an epoch has 12."""
    settings = Schedule(epochs=10, name="exponential", decay=0.96, decay_epochs=8 / 6, warmup_epochs=0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 16, gamma=0.96)
    for step in range(120):
        assert lr_factor(step, 12, settings) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_exponential_after_a_warm_up_counts_from_the_start() -> None:
    """Ten epochs of one step, two of warm-up: 1/3, 2/3, then 0.5 to the power of step // 3."""
    settings = Schedule(epochs=10, name="exponential", decay=0.5, decay_epochs=3, warmup_epochs=2)
    assert [lr_factor(step, 1, settings) for step in (0, 1, 2, 3, 5, 6)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.5, 0.5, 0.25]
    )


def test_constant_stays() -> None:
    settings = Schedule(epochs=10, name="constant", warmup_epochs=0)
    assert {lr_factor(step, 3, settings) for step in range(30)} == {1.0}
    warmed = Schedule(epochs=10, name="constant", warmup_epochs=1)
    assert [lr_factor(step, 3, warmed) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1, 1])


@pytest.mark.parametrize("name", ["cosine", "exponential", "constant"])
def test_two_phase_warm_up_is_a_tenth_then_all(name: str) -> None:
    settings = Schedule(epochs=20, name=name, warmup="two-phase", warmup_epochs=1.5)
    assert [lr_factor(step, 4, settings) for step in range(7)] == [0.1] * 6 + [1.0]


def test_a_warm_up_is_at_most_a_fifth_of_the_run() -> None:
    """Of ten steps two: 1/3 and 2/3, or a tenth twice; of three steps 0.6, which only step 0 lies before."""
    long = Schedule(epochs=10, warmup_epochs=5)
    assert [lr_factor(step, 1, long) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    phases = long.model_copy(update={"warmup": "two-phase"})
    assert [lr_factor(step, 1, phases) for step in range(3)] == [0.1, 0.1, 1.0]
    short = Schedule(epochs=1, warmup_epochs=1, name="constant")
    assert [lr_factor(step, 3, short) for step in range(3)] == pytest.approx([1 / 1.6, 1, 1])


@pytest.mark.parametrize(
    ("scaling", "batch", "peak"),
    [
        ("none", 32, 0.045),
        ("none", 3200, 0.045),
        ("sqrt", 1600, 0.045),
        ("sqrt", 100, 0.01125),  # 0.045 · √(1/16)
        ("sqrt", 6400, 0.09),
        ("linear", 1600, 0.045),
        ("linear", 100, 0.0028125),  # 0.045 / 16
        ("linear", 6400, 0.18),
    ],
)
def test_peak_learning_rate_by_hand(scaling: str, batch: int, peak: float) -> None:
    settings = Optimizer.model_validate({"lr": 0.045, "lr_batch": 1600, "lr_scaling": scaling})
    assert peak_lr(settings, batch) == pytest.approx(peak, rel=1e-12)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop"])
def test_weight_decay_on_kernels_only(name: str) -> None:
    model = create_model("inception_resnet_v1.facenet", width=0.125, num_classes=3)
    optimizer = make_optimizer(model, Optimizer.model_validate({"name": name, "weight_decay": 0.3}))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    expected = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {id(p) for p in decayed["params"]} == expected
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))
    assert name != "sgd" or optimizer.defaults["nesterov"]


def test_sgd_and_adamw_are_torchs_with_the_settings() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    sgd = make_optimizer(model, Optimizer(name="sgd", lr=0.3, momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD) and (sgd.defaults["lr"], sgd.defaults["momentum"]) == (0.3, 0.8)
    still = make_optimizer(model, Optimizer(name="sgd", momentum=0))
    assert not still.defaults["nesterov"], "torch refuses it without momentum"
    plain = make_optimizer(model, Optimizer(name="sgd", nesterov=False))
    assert not plain.defaults["nesterov"] and plain.defaults["momentum"] == 0.9
    adamw = make_optimizer(model, Optimizer(lr=0.2, momentum=0.7))
    assert type(adamw) is torch.optim.AdamW and (adamw.defaults["lr"], adamw.defaults["betas"]) == (0.2, (0.7, 0.999))
    rmsprop = make_optimizer(model, Optimizer(name="rmsprop", decay=0.8, momentum=0.6, eps=0.5))
    assert [rmsprop.defaults[name] for name in ("decay", "momentum", "eps")] == [0.8, 0.6, 0.5]
