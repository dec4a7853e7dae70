"""The running average of weights against the formula in plain numbers, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from inceptionnet.train.average import Average


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def disturb(network: nn.Module, generator: torch.Generator) -> None:
    """Other weights and, from a pass in training, other statistics and a count one higher."""
    network.train()(torch.randn(5, 2, generator=generator))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and [name for name in one if not torch.equal(one[name], other[name])] == []


def test_the_ramp_by_hand() -> None:
    """(1 + t) / (10 + t): 0.1, 2/11, 3/12, then 0.3 is the most. A weight of 1 becomes 2, 4, 8, 16, 32.

    0.1 · 1 + 0.9 · 2 = 1.9, then 2/11 · 1.9 + 9/11 · 4 = 3.6181818, 0.25 · 3.6181818 + 0.75 · 8 = 6.9045455,
    0.3 · 6.9045455 + 0.7 · 16 = 13.2713636, 0.3 · 13.2713636 + 0.7 · 32 = 26.3814091.
    """
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    average = Average(network, 0.3)
    for step, expected in enumerate((1.9, 3.6181818, 6.9045455, 13.2713636, 26.3814091)):
        with torch.no_grad():
            network.weight *= 2
        average.update(step)
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)
        assert network.weight.item() == 2.0 ** (step + 1), "training goes on from the weights themselves"


def test_statistics_are_averaged_and_counts_are_copied() -> None:
    network, generator = model(), torch.Generator().manual_seed(0)
    average = Average(network, 0.9999)
    expected = {name: tensor.double() for name, tensor in network.state_dict().items()}
    for step in range(6):
        disturb(network, generator)
        average.update(step)
        share = (1 + step) / (10 + step)
        for name, tensor in network.state_dict().items():
            expected[name] = share * expected[name] + (1 - share) * tensor.double()
    expected["1.num_batches_tracked"] = torch.tensor(6)
    assert average.tensors.keys() == expected.keys() and average.tensors["1.num_batches_tracked"].item() == 6
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor.double(), expected[name].double(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.tensors["1.running_mean"], network[1].running_mean)


def test_a_long_run_forgets_no_faster_than_its_decay() -> None:
    """At step 10^6 the ramp is 0.999991, above 0.9: a tenth of the new one."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.9)
    nn.init.ones_(network.weight)
    average.update(10**6)
    assert average.tensors["weight"].item() == pytest.approx(0.1)


def test_the_average_is_in_place_within_the_block_only() -> None:
    network, generator = model(), torch.Generator().manual_seed(0)
    average = Average(network, 0.5)
    disturb(network, generator)
    average.update(0)
    raw, averaged = state(network), {name: tensor.clone() for name, tensor in average.tensors.items()}
    parameters = list(network.parameters())
    with average.in_place():
        assert_equal(state(network), averaged)
        assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True)), "an optimiser keeps its own"
    assert_equal(state(network), raw)
    assert_equal(average.tensors, averaged)


def test_the_weights_come_back_after_an_error() -> None:
    network, generator = model(), torch.Generator().manual_seed(0)
    average = Average(network, 0.5)
    disturb(network, generator)
    raw, averaged = state(network), {name: tensor.clone() for name, tensor in average.tensors.items()}
    with pytest.raises(ZeroDivisionError), average.in_place():
        raise ZeroDivisionError
    assert_equal(state(network), raw)
    assert_equal(average.tensors, averaged)


def test_what_is_changed_within_the_block_stays_in_the_average() -> None:
    """As statistics that are recomputed for the averaged weights."""
    network, generator = model(), torch.Generator().manual_seed(0)
    average = Average(network, 0.5)
    disturb(network, generator)
    raw = state(network)
    with average.in_place():
        network[1].running_mean.fill_(7)
    assert_equal(state(network), raw)
    assert average.tensors["1.running_mean"].tolist() == [7, 7, 7]


def test_a_saved_average_goes_on_as_if_it_had_not_been_saved() -> None:
    networks = [model(), model()]
    generators = [torch.Generator().manual_seed(0) for _ in networks]
    whole, first = (Average(network, 0.9) for network in networks)
    for step in range(3):
        for network, generator, average in zip(networks, generators, (whole, first), strict=True):
            disturb(network, generator)
            average.update(step)
    second = Average(networks[1], 0.9)
    second.load(first.tensors)
    assert_equal(second.tensors, first.tensors)
    for network, generator, average in zip(networks, generators, (whole, second), strict=True):
        disturb(network, generator)
        average.update(3)
    assert_equal(second.tensors, whole.tensors)
    assert not torch.equal(first.tensors["0.weight"], second.tensors["0.weight"]), "a copy of what was loaded"
