"""Building the engines, each by its name.

torch (eager, channels_last, fused, compile), this package's own kernels (winograd), two CPU runtimes, ONNX Runtime and
OpenVINO, and two for NVIDIA GPUs, cuDNN by torch and TensorRT. All of them compute in exactly the requested precision,
whatever the default on the machine is.
"""

from __future__ import annotations

import copy
import os
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.engines.cuda import Graph, layered
from inceptionnet.engines.fusion import Fused, fused
from inceptionnet.engines.int8 import quantised_onnx, quantised_openvino
from inceptionnet.engines.onnx import import_onnx, to_onnx
from inceptionnet.engines.openvino import to_openvino
from inceptionnet.engines.program import quietly, to_program
from inceptionnet.engines.runtimes import DTYPES, Engine, Run, Target, reason
from inceptionnet.engines.sessions import INPUT, import_onnxruntime, import_openvino, openvino_core
from inceptionnet.engines.tensorrt import TensorRT, import_tensorrt
from inceptionnet.engines.winograd.compiling import compiler
from inceptionnet.engines.winograd.engine import Winograd
from inceptionnet.errors import ConfigurationError, InceptionNetError, listed
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.settings import exact, threads

WITH_STREAMS = ("winograd", "onnxruntime", "openvino")
"""Engines that can run beside themselves; torch's number of threads is one for the process."""
LACKS = {
    "bf16": ("winograd", "onnxruntime"),
    "fp16": ("winograd", "onnxruntime", "openvino"),
    "int8": ("eager", "channels_last", "fused", "compile", "winograd", "cudnn", "tensorrt"),
}
"""Engines that do not support a precision."""

ONLY_ON = {"winograd": "cpu", "onnxruntime": "cpu", "openvino": "cpu", "cudnn": "cuda", "tensorrt": "cuda"}
"""Engines that run on one type of device."""
NEEDS: dict[str, Callable[[], object]] = {
    "winograd": compiler,
    "onnxruntime": lambda: (import_onnxruntime(), import_onnx()),
    "openvino": import_openvino,
    "tensorrt": lambda: (import_tensorrt(), import_onnx()),
}
"""What raises an error where something that an engine needs is not there."""

CXX = ("g++", "clang++", "c++", "cl")
"""Compilers of which torch.compile takes one, unless the variable CXX names another."""


def check_usable(name: str, device: torch.device) -> None:
    """Check that what an engine needs is there, without building it.

    Raises:
        ConfigurationError: it does not run on that device, or there is no compiler.
        MissingExtraError: it needs a package that is not installed, or cannot be imported.
    """
    only = ONLY_ON.get(name, device.type)
    if device.type != only:
        other = "compile" if only == "cpu" else "fused"
        raise ConfigurationError(
            f"engine {name}: expected device {only}, got {device}; choose {other}, or device {only}"
        )
    if name in NEEDS:
        NEEDS[name]()
    compilers = shlex.split(os.environ.get("CXX", ""))[:1] or CXX
    if name == "compile" and device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise ConfigurationError(
            f"engine compile: expected a C++ compiler, got none ({listed(compilers, last='or')} is not found); install "
            "g++, set CXX, or choose another engine"
        )


def build_engine(name: str, model: InceptionNet, target: Target) -> Engine:
    """Build the engine of that name from a model in evaluation mode, on the device of the target's example.

    Raises:
        ConfigurationError: the precision is not supported, or the engine cannot run here; with the reason.
        MissingExtraError: it needs a package that is not installed.
    """
    if name in (lacking := LACKS.get(target.precision, ())):
        able = " or ".join(other for other in BUILDERS if other not in lacking)
        raise ConfigurationError(f"engine {name} does not support {target.precision}; choose {able}")
    try:
        with torch.inference_mode(False), torch.no_grad(), threads(target.threads), exact(target.example.device):
            check_usable(name, target.example.device)
            return BUILDERS[name](model, target) if target.streams == 1 else _streams(name, model, target)
    except InceptionNetError:
        raise
    except Exception as error:  # compilers and converters raise many types
        raise ConfigurationError(f"engine {name} cannot run here ({reason(error)}); choose another, or auto") from error


def _eager(model: InceptionNet, target: Target) -> Engine:
    return _torch("eager", _cast(model, target.precision), target)


def _channels_last(model: InceptionNet, target: Target) -> Engine:
    module = copy.deepcopy(_cast(model, target.precision))
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's type stubs
    return _torch("channels_last", module, target)


def _fused(model: InceptionNet, target: Target) -> Engine:
    return _torch("fused", _cast(fused(model), target.precision), target)


def _compile(model: InceptionNet, target: Target) -> Engine:
    """Compiled once, for a fixed shape: other batch sizes are split and padded to it."""
    example, precision = target.example, target.precision
    options: dict[str, Any] = {"freezing": True}
    options |= {"cpp.threads": target.threads} if example.device.type == "cpu" else {"triton.cudagraphs": True}
    like = example.to(DTYPES[precision], memory_format=torch.channels_last)
    with quietly():
        # A captured program has its own code: networks of the same class would count as recompilations of one another.
        program = to_program(_cast(fused(model), precision), like, dynamic_batch=False).module(check_guards=False)
        run = _in_pieces(torch.compile(program, dynamic=False, options=options), like)
        run(like)
    return Engine("compile", run, target, "torch")


def _winograd(model: InceptionNet, target: Target) -> Engine:
    module = fused(model)
    run = Winograd(module.body, module.head, target.threads)
    run(target.example)
    return Engine("winograd", run, target, "inceptionnet")


def _cudnn(model: InceptionNet, target: Target) -> Engine:
    network = _cast(fused(model), target.precision)
    assert isinstance(network, Fused)
    network.body, network.head = layered(network.body), layered(network.head)
    run = Graph(network, target.example.to(DTYPES[target.precision], memory_format=torch.channels_last))
    made = Engine("cudnn", run, target, "torch")
    made.about["layers"] = dict(run.layers)
    return made


def _tensorrt(model: InceptionNet, target: Target) -> Engine:
    network = _cast(fused(model), target.precision)
    return Engine("tensorrt", TensorRT(network, target.example.to(DTYPES[target.precision])), target, "tensorrt")


def _onnxruntime(model: InceptionNet, target: Target) -> Engine:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = target.threads
    options.log_severity_level = 3  # errors
    made = to_onnx(fused(model), target.example)
    if target.calibration is not None:
        made = quantised_onnx(made, target.calibration)
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {INPUT: x.contiguous().numpy()})[0])

    return Engine("onnxruntime", run, target, "onnxruntime")


def _openvino(model: InceptionNet, target: Target) -> Engine:
    made = to_openvino(fused(model), target.example)
    if target.calibration is not None:
        made = quantised_openvino(made, target.calibration)
    # Explicit precision: the default is bf16 on a CPU that supports it. Quantisation is part of the model.
    kind = "bf16" if target.precision == "bf16" else "f32"
    hints = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": target.threads, "INFERENCE_PRECISION_HINT": kind,
        "ENABLE_CPU_PINNING": False,  # else engines beside one another would share the first cores
    }  # fmt: skip
    compiled = openvino_core().compile_model(made, "CPU", hints)
    got = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if got != kind:
        raise ConfigurationError(f"engine openvino: expected {kind}, got {got} on this CPU; choose fp32")

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled(x.contiguous().numpy())[0])

    return Engine("openvino", run, target, "openvino")


def _streams(name: str, model: InceptionNet, target: Target) -> Engine:
    """Engines of one kind beside one another, each for its part of a batch."""
    if name not in WITH_STREAMS:
        able = " or ".join(WITH_STREAMS)
        raise ConfigurationError(f"engine {name}: expected 1 stream, got {target.streams}; choose {able}")
    part = target.example[: -(-len(target.example) // target.streams)]
    one = replace(target, example=part, threads=max(1, target.threads // target.streams), streams=1)
    made = [BUILDERS[name](model, one) for _ in range(target.streams)]
    pool = ThreadPoolExecutor(target.streams, thread_name_prefix="inceptionnet-stream")

    def part_of(engine: Engine, x: Tensor) -> Tensor:
        with torch.inference_mode():  # a thread has a mode of its own
            return engine._run(x)

    def run(x: Tensor) -> Tensor:
        parts = torch.tensor_split(x, target.streams)
        running = [pool.submit(part_of, *each) for each in zip(made, parts, strict=True) if len(each[1])]
        return torch.cat([each.result() for each in running])

    return Engine(name, run, target, made[0].package)


Builder = Callable[[InceptionNet, Target], Engine]
BUILDERS: dict[str, Builder] = {
    "eager": _eager,
    "channels_last": _channels_last,
    "fused": _fused,
    "compile": _compile,
    "winograd": _winograd,
    "cudnn": _cudnn,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
"""Engines by name."""


def _torch(name: str, module: nn.Module, target: Target) -> Engine:
    dtype = DTYPES[target.precision]
    layout = torch.contiguous_format if name == "eager" else torch.channels_last

    def run(x: Tensor) -> Tensor:
        y: Tensor = module(x.to(dtype, memory_format=layout))
        return y

    return Engine(name, run, target, "torch")


def _cast(module: nn.Module, precision: str) -> nn.Module:
    """The module in that precision; batch norm stays in float32, as in torch's mixed precision."""
    if precision == "fp32":
        return module
    module = copy.deepcopy(module).to(DTYPES[precision])
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
            part.float()
    return module


def _in_pieces(run: Run, like: Tensor) -> Run:
    """Run any batch size in calls with exactly the shape, type and layout of `like`."""

    def pieces(x: Tensor) -> Tensor:
        answers = []
        for piece in torch.split(x, len(like)):
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode would cause recompilation
                filled = torch.zeros_like(like)
                filled[: len(piece)] = piece
                answers.append(run(filled)[: len(piece)].clone())  # a CUDA graph reuses its output memory
        return torch.cat(answers)

    return pieces
