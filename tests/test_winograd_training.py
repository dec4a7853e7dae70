"""The kernels of winograd in a training step: against float64 and torch, where they are left out, and their setting."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import create_model
from inceptionnet.data.loading import Batch
from inceptionnet.data.preprocess import CHANGES, Preprocessing
from inceptionnet.data.splits import Source
from inceptionnet.engines.winograd import compiling, training
from inceptionnet.engines.winograd.compiling import library
from inceptionnet.engines.winograd.convolution import Convolution
from inceptionnet.engines.winograd.library import TILES
from inceptionnet.engines.winograd.training import Convolutions
from inceptionnet.errors import ConfigurationError
from inceptionnet.train.convolutions import convolutions
from inceptionnet.train.plan import Job, Plan
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.step import Stepper


@pytest.fixture(autouse=True)
def _small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels are used for every size, and there is a compiler."""
    try:
        library()
    except ConfigurationError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(training, "LEAST", 0)
    monkeypatch.setattr(training, "PACKING", 0)


def gradients(conv: nn.Conv2d, x: Tensor, grad: Tensor) -> list[Tensor]:
    """The output, and the gradients of input and parameters."""
    x = x.detach().requires_grad_()
    y = conv(x)
    return [y.detach(), *torch.autograd.grad(y, (x, *conv.parameters()), grad)]


def images(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


KERNELS = [*((kernel, tile) for kernel, tiles in TILES.items() for tile in tiles), ((1, 1, 1), None)]


@pytest.mark.parametrize(("kernel", "tile"), KERNELS, ids=lambda value: "x".join(map(str, value or ("direct",))))
def test_each_kernel_and_its_gradients(
    kernel: tuple[int, int, int], tile: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes, several images, with and without padding and bias; filters in both memory formats."""
    costs = Convolution.costs
    monkeypatch.setattr(
        Convolution, "costs", lambda self, loading: {key: 0 for key in costs(self, loading) if key == tile or not key}
    )
    torch.manual_seed(0)
    for padded, bias, layout in ((True, False, torch.channels_last), (False, True, torch.contiguous_format)):
        monkeypatch.setattr(training, "GRADIENT", 1 << 22 if padded else 20_000)  # in one chunk, and in several
        around = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        conv = nn.Conv2d(32, 48, kernel[:2], kernel[2], around, bias=bias).to(memory_format=layout)
        x = images(3, 32, 17, 13)
        kernels = Convolutions(conv)
        plan = kernels.plan(x, conv.weight.shape, (kernel[2],) * 2, around)
        assert plan and bool(plan.gradient) == (tile is not None and kernel[2] == 1)
        assert not plan.gradient or (plan.gradient.chunks == 1) == padded
        kernels._memory, kernels._scratch, kernels._packed = (torch.full((1 << 22,), torch.nan) for _ in range(3))
        with kernels:
            y = conv(x)
            grad = torch.randn_like(y)
            found = gradients(conv, x, grad)
        assert y.is_contiguous(memory_format=torch.channels_last)
        expected = gradients(conv.double(), x.double(), grad.double())
        for got, right in zip(found, expected, strict=True):
            assert (got - right).abs().max() <= 3e-5 * right.abs().max()


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(32, 32, 3, groups=2),
        nn.Conv2d(32, 32, 3, dilation=2),
        nn.Conv2d(32, 32, 3, padding="same"),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(32, 32, 3, stride=(1, 2)),
        nn.Conv2d(32, 32, 3, stride=3),
        nn.Conv2d(32, 20, 3),
        nn.Conv2d(3, 32, 3),
        nn.Conv2d(32, 32, 7),
        nn.Conv2d(32, 32, 1, padding=1),
        nn.Conv2d(32, 32, 3).double(),
    ],
    ids=str,
)
def test_what_the_kernels_do_not_have_is_torchs(conv: nn.Conv2d) -> None:
    x = images(2, conv.in_channels, 9, 11).to(conv.weight.dtype)
    grad = torch.randn_like(conv(x))
    expected = gradients(conv, x, grad)
    with Convolutions(conv):
        found = gradients(conv, x, grad)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_other_inputs_are_torchs() -> None:
    """Planes one after another in memory, an image without a batch, none at all, and autocast."""
    conv = nn.Conv2d(32, 32, 3, padding=1)
    for x in (torch.randn(2, 32, 9, 9), torch.randn(32, 9, 9), images(0, 32, 9, 9)):
        with Convolutions(conv):
            found = conv(x)
        assert torch.equal(found, conv(x))
    with torch.autocast("cpu", torch.bfloat16):
        with Convolutions(conv):
            found = conv(images(2, 32, 9, 9))
        assert found.dtype == torch.bfloat16


def test_too_small_an_image_is_torchs_error() -> None:
    conv = nn.Conv2d(32, 32, 7)
    with Convolutions(conv), pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        conv(images(1, 32, 5, 5))
    with Convolutions(conv), pytest.raises(RuntimeError, match="expected input"):
        conv(images(1, 16, 9, 9))


def test_gradients_that_nobody_needs() -> None:
    conv = nn.Conv2d(32, 32, 3, padding=1)
    x = images(2, 32, 9, 9)
    with Convolutions(conv):
        conv(x).sum().backward()
        assert x.grad is None and conv.weight.grad is not None
        conv.requires_grad_(False)
        assert not conv(x).requires_grad
        conv(x.requires_grad_()).sum().backward()
    assert x.grad is not None


def test_the_kernels_end_with_their_block() -> None:
    model = nn.Sequential(nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 1))
    kernels, keys = Convolutions(model), set(model.state_dict())
    with pytest.raises(ValueError, match="ours"), kernels:
        assert "forward" in vars(model[0])
        raise ValueError("ours")
    assert "forward" not in vars(model[0]) and set(model.state_dict()) == keys
    copy.deepcopy(model)


def test_threads_give_the_same_bits() -> None:
    torch.manual_seed(0)
    conv, x, before = nn.Conv2d(64, 96, 3, padding=1, bias=False), images(4, 64, 19, 19), torch.get_num_threads()
    grad, found = torch.randn_like(conv(x)), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with Convolutions(conv):
                found.append(gradients(conv, x, grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_weights_are_those_of_the_step() -> None:
    """Nothing of the filters is kept from one call to the next."""
    conv, x = nn.Conv2d(32, 32, 3), images(2, 32, 9, 9)
    with Convolutions(conv):
        first = conv(x)
        with torch.no_grad():
            conv.weight.mul_(2)
            conv.bias.mul_(2)  # type: ignore[union-attr]
        assert torch.allclose(conv(x), 2 * first, rtol=1e-5, atol=1e-5)


def stepper(**compute: object) -> Stepper:
    changes = {"optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.lr_scaling": "none"}
    changes["batch_norm.mode"] = "freeze"  # that of random weights enlarges rounding: float32 is off by 2 %
    recipe = Recipe().changed(changes | {f"compute.{name}": value for name, value in compute.items()})
    source = Source("random", ("a", "b", "c"), {}, "random images")
    job = Job(Plan("random", "inception_v3", batch_size=4, device="cpu"), source, recipe, Preprocessing(75))
    torch.manual_seed(0)
    model = create_model("inception_v3", num_classes=3, input_size=75, width=0.5)
    return Stepper(job.placed(model), job, steps_per_epoch=10)


def losses(made: Stepper) -> Iterator[float]:
    torch.manual_seed(1)
    pixels = torch.randint(256, (4, 3, 75, 75), dtype=torch.uint8).to(memory_format=torch.channels_last)
    batch = Batch(pixels, torch.tensor([0, 1, 2, 0]), torch.arange(4), torch.arange(4), torch.rand(4, len(CHANGES)), 4)
    for number in itertools.count():
        yield made.step(batch, number).loss


def test_steps_are_those_of_torch() -> None:
    """The same losses but for rounding; with gradient checkpointing, which computes forward again, too."""
    with_torch, with_kernels, with_less_memory = (
        stepper(convolutions=which, gradient_checkpointing=less)
        for which, less in (("torch", False), ("winograd", False), ("winograd", True))
    )
    assert isinstance(with_kernels.kernels, Convolutions)
    expected = list(itertools.islice(losses(with_torch), 3))
    found = list(itertools.islice(losses(with_kernels), 3))
    assert found == pytest.approx(expected, rel=1e-4) and found != expected
    used = [plan for plan in with_kernels.kernels._plans.values() if plan]
    assert len(used) > 10
    assert list(itertools.islice(losses(with_less_memory), 3)) == found


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "bf16"}, "expected compute.precision=fp32, got bf16"),
        ({"channels_last": False}, "expected compute.channels_last=true, got false"),
        ({"compile": True}, "expected compute.compile=false, got true"),
    ],
)
def test_where_they_cannot_be_used(settings: dict[str, object], said: str) -> None:
    model = create_model("inception_v1.slim", num_classes=2, width=0.25)
    for which in ("auto", "winograd"):
        compute = Recipe().changed({f"compute.{name}": value for name, value in settings.items()}).compute
        compute = compute.model_copy(update={"convolutions": which})
        if which == "auto":
            kernels, note = convolutions(compute, model)
            assert not isinstance(kernels, Convolutions) and not note
        else:
            with pytest.raises(ConfigurationError, match=said):
                convolutions(compute, model)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiling.library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    model = create_model("inception_v1.slim", num_classes=2, width=0.25)
    kernels, note = convolutions(Recipe().compute, model)
    assert not isinstance(kernels, Convolutions)
    assert note.startswith("convolutions: torch, which is slower here (engine winograd: expected a C++ compiler")
    with pytest.raises(ConfigurationError, match="expected a C\\+\\+ compiler"):
        convolutions(Recipe().changed({"compute.convolutions": "winograd"}).compute, model)
    assert convolutions(Recipe().changed({"compute.convolutions": "torch"}).compute, model)[1] == ""


def test_on_another_device() -> None:
    model = SimpleNamespace(device=torch.device("meta"))
    assert convolutions(Recipe().compute, model)[1] == ""  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected the device cpu, got meta"):
        convolutions(Recipe().changed({"compute.convolutions": "winograd"}).compute, model)  # type: ignore[arg-type]
