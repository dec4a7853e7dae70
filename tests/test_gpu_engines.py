"""The engines for NVIDIA GPUs, as far as a CPU goes: torch's own calls in the place of cuDNN's, an imitated TensorRT.

tests/test_cuda.py has the real ones.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inceptionnet import optimize
from inceptionnet.engines import builders, cuda, tensorrt
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.sessions import import_onnxruntime
from inceptionnet.errors import ConfigurationError, MissingExtraError
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.extras import version_of

from .test_engines import close, images, network

NETWORKS = ["inception_v1.slim", "inception_v3", "inception_v4", "inception_resnet_v1", "inception_resnet_v2.slim"]


class OnCpu:
    """In the place of what needs a GPU; counts the calls, and times a way as `slowness` says."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.slowness: Callable[[], float] = lambda: 1.0

    def relu(self, x: Tensor, weight: Tensor, bias: Tensor, *window: Any) -> Tensor:
        self.calls.append("relu")
        return F.conv2d(x, weight, bias, *window).relu()

    def add_relu(self, x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *window: Any) -> Tensor:
        self.calls.append("add_relu")
        return (F.conv2d(x, weight, bias, *window) + alpha * z).relu()

    def capture(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        output = run()

        def replay() -> None:
            output.copy_(run())

        return replay, output

    def microseconds(self, run: Callable[[], Tensor]) -> float:
        run()
        return self.slowness()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> OnCpu:
    return stand_in(monkeypatch)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> OnCpu:
    """Make the engine `cudnn` run on a CPU."""
    made = OnCpu()
    monkeypatch.setattr(builders, "ONLY_ON", {})
    monkeypatch.setattr(cuda, "CALLS", {"relu": made.relu, "add_relu": made.add_relu})
    monkeypatch.setattr(cuda, "capture", made.capture)
    monkeypatch.setattr(cuda, "microseconds", made.microseconds)
    return made


def small(name: str, width: float = 0.125) -> InceptionNet:
    return network(name, 64 if name == "inception_v1.slim" else 79, width)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_call_for_each_convolution_gives_the_networks_numbers(name: str, on_cpu: OnCpu) -> None:
    model = small(name)
    made = optimize(model, "cudnn", batch_size=2)
    size = made.about["shape"][1]
    parts = fused(model).modules()
    convolutions = sum(isinstance(part, nn.Conv2d) for part in parts)
    assert sum(made.about["layers"].values()) == convolutions and made.about["layers"]["cudnn"] > 0.9 * convolutions
    for count in (2, 3, 5, 1, 0):
        on_cpu.calls.clear()
        x = images(count, size=size)
        assert made(x).shape == (count, 7) and (not count or close(made(x), model, x)), "larger in pieces, padded"
    on_cpu.calls.clear()
    made(images(2, size=size))
    blocks = sum(isinstance(part, cuda.ResidualBlock) and isinstance(part.relu, nn.ReLU) for part in model.modules())
    assert on_cpu.calls.count("add_relu") == blocks
    assert len(on_cpu.calls) == made.about["layers"]["cudnn"]


def test_answers_are_not_overwritten_by_the_next_call(on_cpu: OnCpu) -> None:
    """A graph writes into the same memory each time."""
    model = small("inception_v1.slim")
    made = optimize(model, "cudnn", batch_size=2)
    first, second = images(2), images(2)
    answer = made(first)
    made(second)
    assert close(answer, model, first)


def test_threads_take_turns(on_cpu: OnCpu) -> None:
    model = small("inception_v1.slim")
    made = optimize(model, "cudnn", batch_size=2)
    inputs, answers = [images(2) for _ in range(4)], dict[int, Tensor]()

    def work(number: int) -> None:
        for _ in range(5):
            answers[number] = made(inputs[number])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(close(answers[i], model, x) for i, x in enumerate(inputs))


@pytest.mark.parametrize(("precision", "least", "most"), [("bf16", 1e-3, 3e-2), ("fp16", 1e-4, 4e-3)])
def test_low_precision_is_what_its_digits_allow(on_cpu: OnCpu, precision: str, least: float, most: float) -> None:
    model, x = small("inception_v3"), images(3, size=79)
    made = optimize(model, "cudnn", batch_size=3, precision=precision)
    assert least < made.about["difference"] < most and close(made(x), model, x, most)


class Block(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.network = cuda.layered(nn.Sequential(*parts))

    @property
    def layers(self) -> list[cuda.Layer]:
        return [part for part in self.network.modules() if isinstance(part, cuda.Layer)]


WAYS = {
    "1×1": (nn.Conv2d(6, 4, 1), True, ["cudnn", "separate", "product"]),
    "1×1 without ReLU": (nn.Conv2d(6, 4, 1), False, ["separate", "product"]),
    "1×1 without bias": (nn.Conv2d(6, 4, 1, bias=False), True, ["cudnn", "separate"]),
    "strided": (nn.Conv2d(6, 4, 1, 2), True, ["cudnn", "separate"]),
    "3×3": (nn.Conv2d(6, 4, 3, padding=1), True, ["cudnn", "separate"]),
    "grouped": (nn.Conv2d(6, 6, 1, groups=2), True, ["cudnn", "separate"]),
}


@pytest.mark.parametrize("what", WAYS)
@torch.no_grad()
def test_every_way_of_a_layer_gives_the_same(what: str, on_cpu: OnCpu) -> None:
    conv, relu, ways = WAYS[what]
    layer = cuda.Layer(conv, relu)
    x = torch.randn(2, 6, 5, 7).to(memory_format=torch.channels_last)
    expected = conv(x).relu() if relu else conv(x)
    assert layer.ways == ways
    for layer.way in ways:
        got = layer(x)
        torch.testing.assert_close(got, expected)
        assert got.is_contiguous(memory_format=torch.channels_last), layer.way


@torch.no_grad()
def test_the_fastest_way_of_those_that_run_and_agree(on_cpu: OnCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal layers are timed once; what raises, differs or leaves out part of its output is not taken."""
    times = iter([3.0, 2.0, 1.0])
    on_cpu.slowness = lambda: next(times)
    block = Block(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
    x = torch.randn(2, 4, 5, 5).to(memory_format=torch.channels_last)
    assert cuda.tune(block.network, x) == {"product": 2} and next(times, None) is None
    assert [layer.way for layer in block.layers] == ["product"] * 2

    def raises(*_: Any) -> Tensor:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    def unwritten(x: Tensor, weight: Tensor, bias: Tensor, *window: Any) -> Tensor:
        return on_cpu.relu(x, weight, bias, *window).index_fill_(1, torch.tensor(0), torch.nan)

    on_cpu.slowness = lambda: 1.0
    for broken in (raises, unwritten, lambda *given: on_cpu.relu(*given) * 1.1):
        monkeypatch.setitem(cuda.CALLS, "relu", broken)
        block = Block(nn.Conv2d(4, 8, 3), nn.ReLU())
        assert cuda.tune(block.network, x) == {"separate": 1}


def test_cudnns_search_is_on_for_some_time_of_the_building_alone(on_cpu: OnCpu) -> None:
    seen: list[bool] = []
    on_cpu.slowness = lambda: seen.append(torch.backends.cudnn.benchmark) or 1.0
    assert not torch.backends.cudnn.benchmark
    optimize(small("inception_v1.slim"), "cudnn")
    assert seen and all(seen) and not torch.backends.cudnn.benchmark
    seen.clear()
    now = iter([0.0, 0.0, cuda.SEARCH_S - 1, cuda.SEARCH_S])
    block = Block(*(nn.Conv2d(3, 3, side, padding=side // 2) for side in (1, 3, 5)))
    for layer in block.layers:
        layer.ways = ["separate"] * 2
    cuda.tune(block.network, images(1), lambda: next(now))
    assert seen == [True, True, True, True, False, False] and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("name", ["cudnn", "tensorrt"])
def test_on_a_cpu_they_say_so_without_preparing_anything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "fused", None)  # the first thing that costs
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    message = f"^engine {name}: expected device cuda, got cpu; choose fused, or device cuda$"
    with pytest.raises(ConfigurationError, match=message):
        optimize(small("inception_v1.slim"), name, device="cpu")
    with pytest.raises(ConfigurationError, match=f"engine {name} does not support int8; choose onnxruntime or open"):
        optimize(small("inception_v1.slim"), name, device="cpu", precision="int8", calibrate=images(12))


@pytest.mark.parametrize("engine", ["eager", "channels_last", "fused"])
def test_fp16_on_a_cpu(engine: str) -> None:
    model, x = small("inception_v3"), images(3, size=79)
    made = optimize(model, engine, batch_size=3, precision="fp16", device="cpu")
    assert made.precision == made.about["precision"] == "fp16"
    assert 1e-4 < made.about["difference"] < 4e-3 and close(made(x), model, x, 4e-3)


@pytest.mark.parametrize("engine", ["fused", "cudnn"])
def test_values_beyond_fp16_are_refused_by_that_reason(engine: str, on_cpu: OnCpu) -> None:
    """The next layer brings them back, so that the logits are as before, in fp32 and in bf16."""
    model = small("inception_v1.slim")
    first, second = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)][:2]
    following = [part for part in model.modules() if isinstance(part, nn.Conv2d)][1]
    with torch.no_grad():
        first.weight *= 1e6
        first.bias *= 1e6
        following.weight /= 1e6
    assert second.running_mean is not None
    for precision in ("fp32", "bf16"):
        assert optimize(model, engine, precision=precision, device="cpu").precision == precision
    with pytest.raises(ConfigurationError, match="expected finite logits, got infinity or NaN: this network has") as e:
        optimize(model, engine, precision="fp16", device="cpu")
    assert "65504, the largest of fp16; choose bf16 or fp32" in str(e.value) and "\n" not in str(e.value)


class Runtime:
    """An imitation of the package `tensorrt` that computes with ONNX Runtime, on the addresses that it is given.

    Only what is documented for TensorRT 11 is here, with its names and arguments.
    """

    def __init__(self, refuse: str = "") -> None:
        self.refuse, self.log = refuse, list[tuple[Any, ...]]()
        self.BuilderFlag = IntEnum("BuilderFlag", ["TF32"])
        self.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})

    def module(self) -> Any:
        outer = self
        severities = SimpleNamespace(ERROR="error")
        log = outer.log

        class Logger:
            ERROR = "error"
            Severity = severities

            def __init__(self, min_severity: str) -> None:
                assert min_severity == "error"

        class Profile:
            def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
                log.append(("profile", input, min, opt, max))

        class Config:
            def __init__(self) -> None:
                self.profiles: list[Profile] = []

            def clear_flag(self, flag: object) -> None:
                log.append(("clear", flag))

            def add_optimization_profile(self, profile: Profile) -> int:
                self.profiles.append(profile)
                return 0

        class Network:
            model = b""

        class Builder:
            def __init__(self, logger: Logger) -> None:
                assert isinstance(logger, Logger)

            def create_network(self, flags: int = 0) -> Network:
                assert flags == 1 << 1, "strongly typed, and nothing else"
                return Network()

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
                assert len(config.profiles) == 1 and isinstance(network, Network)
                return None if outer.refuse == "build" else network.model

        class OnnxParser:
            def __init__(self, network: Network, logger: Logger) -> None:
                self.network = network

            def parse(self, model: bytes) -> bool:
                self.network.model = model
                return outer.refuse != "parse"

            num_errors = 1

            def get_error(self, index: int) -> str:
                assert index == 0
                return "In node 3\n(importConv): UNSUPPORTED_NODE"

        class Context:
            def __init__(self, session: Any) -> None:
                self.session, self.shape, self.at = session, (), dict[str, int]()

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                log.append(("shape", name, shape))
                self.shape = shape
                return True

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                assert name == "logits"
                return (self.shape[0], 7)

            def set_tensor_address(self, name: str, memory: int) -> bool:
                assert memory % tensorrt.ALIGNED == 0
                self.at[name] = memory
                return True

            def execute_async_v3(self, stream_handle: int) -> bool:
                assert stream_handle == 7
                half = self.session.get_inputs()[0].type == "tensor(float16)"
                kind, size = (np.float16, 2) if half else (np.float32, 4)
                count = size * int(np.prod(self.shape))
                x = np.frombuffer(ctypes.string_at(self.at["images"], count), kind).reshape(self.shape)
                y = self.session.run(["logits"], {"images": x})[0]
                assert y.dtype == kind
                ctypes.memmove(self.at["logits"], np.ascontiguousarray(y).ctypes.data, y.nbytes)
                return outer.refuse != "execute"

        class Engine:
            def __init__(self, plan: bytes) -> None:
                self.plan = plan

            def create_execution_context(self) -> Context:
                onnxruntime = import_onnxruntime()
                return Context(onnxruntime.InferenceSession(self.plan, providers=["CPUExecutionProvider"]))

        class RuntimeOf:
            def __init__(self, logger: Logger) -> None:
                assert isinstance(logger, Logger)

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine:
                return Engine(serialized_engine)

        return SimpleNamespace(
            Logger=Logger, Builder=Builder, OnnxParser=OnnxParser, Runtime=RuntimeOf, BuilderFlag=outer.BuilderFlag,
            NetworkDefinitionCreationFlag=outer.NetworkDefinitionCreationFlag,
        )  # fmt: skip


@pytest.fixture
def imitated(on_cpu: OnCpu, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime()
    monkeypatch.setitem(sys.modules, "tensorrt", made.module())
    monkeypatch.setattr(tensorrt, "stream_handle", lambda device: 7)
    return made


@pytest.mark.slow
@pytest.mark.skipif(version_of("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 4e-3)])
def test_tensorrts_calls(precision: str, tolerance: float, imitated: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of this size are no multiple of the alignment."""
    monkeypatch.setattr(tensorrt, "ALIGNED", 64)  # as torch allocates on a CPU
    model = network(size=65)
    made = optimize(model, "tensorrt", batch_size=4, precision=precision)
    assert ("profile", "images", (1, 3, 65, 65), (4, 3, 65, 65), (4, 3, 65, 65)) in imitated.log
    assert ("clear", imitated.BuilderFlag.TF32) in imitated.log
    for count in (4, 1, 3, 9):
        imitated.log.clear()
        x = images(count, size=65).to(memory_format=torch.channels_last)
        assert close(made(x), model, x, tolerance)
        sizes = [4] * (count // 4) + [count % 4] * (count % 4 > 0)
        assert imitated.log == [("shape", "images", (size, 3, 65, 65)) for size in sizes]
    assert made(images(0, size=65)).shape == (0, 7)
    imitated.refuse = "execute"
    with pytest.raises(ConfigurationError, match="engine tensorrt: expected logits, got none; see its messages above"):
        made(images(1, size=65))


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ("parse", r"engine tensorrt cannot read the network \(In node 3 \(importConv\): UNSUPPORTED_NODE\); choose"),
        ("build", "engine tensorrt: expected a plan, got none; see its messages above, or choose cudnn"),
    ],
)
def test_what_tensorrt_cannot_do(refuse: str, message: str, imitated: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = SimpleNamespace(SerializeToString=lambda: b"a model")
    monkeypatch.setattr(tensorrt, "to_onnx", lambda *_: converted)
    imitated.refuse = refuse
    with pytest.raises(ConfigurationError, match=message) as caught:
        optimize(small("inception_v1.slim"), "tensorrt")
    assert "\n" not in str(caught.value)


def test_without_tensorrt(on_cpu: OnCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        MissingExtraError, match=r"needs tensorrt; install it with: pip install 'inceptionnet\[tensorrt"
    ):
        optimize(small("inception_v1.slim"), "tensorrt")
