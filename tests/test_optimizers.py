"""Optimisers and schedules against numbers worked out by hand, without torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from inceptionnet import create_model
from inceptionnet.train.optimizers import TensorFlowRMSprop, make_optimizer, rate_at
from inceptionnet.train.recipe import Optimizer, Schedule


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


def test_cosine_by_hand() -> None:
    """Ten steps, two of them warm-up: up by thirds, then half a cosine over eight steps."""
    settings = Schedule(warmup_epochs=0.2)
    rates = [rate_at(step, 10, 1, settings) for step in range(11)]
    assert rates[:2] == pytest.approx([1 / 3, 2 / 3])
    assert rates[2:] == pytest.approx([0.5 + 0.5 * math.cos(math.pi * i / 8) for i in range(9)])
    assert rate_at(0, 4, 1, Schedule(warmup_epochs=0)) == 1.0
    assert rate_at(1, 10, 1, Schedule(warmup_epochs=5)) == pytest.approx(2 / 3), "at most a fifth of the run"


def test_exponential_by_hand() -> None:
    """Three steps an epoch: 0.94 from step 6 on, 0.8836 from step 12 on."""
    settings = Schedule(name="exponential", warmup_epochs=0)
    assert [rate_at(step, 3, 8, settings) for step in (0, 5, 6, 11, 12)] == pytest.approx([1, 1, 0.94, 0.94, 0.8836])


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
