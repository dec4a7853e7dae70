"""The engine `tensorrt`: a network in NVIDIA's TensorRT, converted through ONNX.

Networks are strongly typed, so that TensorRT computes in the data types of the ONNX model; from version 11 on it knows
no other way. What it computes in float32 is float32, without TF32.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from inceptionnet.engines.cuda import in_stream, new_stream
from inceptionnet.engines.onnx import to_onnx
from inceptionnet.engines.sessions import INPUT, OUTPUT
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.extras import import_extra

ALIGNED = 256
"""Bytes: where a tensor begins for TensorRT. What torch allocates does; a part of a batch may not."""


def import_tensorrt() -> ModuleType:
    """Import tensorrt. Raises: MissingExtraError: it is not installed."""
    return import_extra("tensorrt", "tensorrt", "Engine tensorrt")


class TensorRT:
    """A fused network for any batch size; larger ones than that of the example run in pieces.

    Calls from several threads wait for one another: all use the same memory.

    Shapes: float (N, C, H, W) → (N, logits), in the data type of the network.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        trt: Any = import_tensorrt()
        self._most, self._dtype = len(example), example.dtype
        self._lock, self._stream = threading.Lock(), new_stream(example.device)
        self._logger = trt.Logger(trt.Logger.ERROR)
        model = to_onnx(network.cpu(), example.cpu()).SerializeToString()
        self._runtime = trt.Runtime(self._logger)
        with torch.cuda.device(example.device) if example.is_cuda else nullcontext():
            plan = build_plan(trt, self._logger, model, tuple(example.shape))
            self._engine = _given("an engine", self._runtime.deserialize_cuda_engine(plan))
            self._context = _given("memory to run it", self._engine.create_execution_context())

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""
        pieces = torch.split(x.to(self._dtype).contiguous(), self._most)
        with self._lock:
            return in_stream(self._stream, lambda: torch.cat([self._piece(piece) for piece in pieces]))

    def _piece(self, x: Tensor) -> Tensor:
        context, x = self._context, x if x.data_ptr() % ALIGNED == 0 else x.clone()
        _given("an input of that shape", context.set_input_shape(INPUT, tuple(x.shape)))
        y = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), dtype=self._dtype, device=x.device)
        for name, tensor in ((INPUT, x), (OUTPUT, y)):
            _given("an address", context.set_tensor_address(name, tensor.data_ptr()))
        _given("logits", context.execute_async_v3(stream_handle(x.device)))
        return y


def build_plan(trt: Any, logger: Any, model: bytes, shape: tuple[int, ...]) -> Any:
    """TensorRT's serialised engine for an ONNX model and batches of 1 to shape[0]. Raises: ConfigurationError."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = "; ".join(" ".join(str(parser.get_error(i)).split()) for i in range(parser.num_errors))
        raise ConfigurationError(f"engine tensorrt cannot read the network ({reasons}); choose cudnn")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, *shape[1:]), shape, shape)
    config.add_optimization_profile(profile)
    return _given("a plan", builder.build_serialized_network(network, config))


def stream_handle(device: torch.device) -> int:
    """The CUDA stream that is current, as TensorRT takes it."""
    return torch.cuda.current_stream(device).cuda_stream


def _given(what: str, got: Any) -> Any:
    """What TensorRT returned, unless that is None or false, its way to say that it failed."""
    if got is None or got is False:
        raise ConfigurationError(f"engine tensorrt: expected {what}, got none; see its messages above, or choose cudnn")
    return got
