"""The kernels in a training step: a network's convolutions within a block, and their gradients.

The gradient of a convolution's input is a convolution at stride 1 with the filters turned by half a turn, so the same
kernels compute it. That of the filters has the same transforms, with a sum over tiles in place of that over channels;
without a transform it is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from inceptionnet.engines.winograd.compiling import NATIVE, library
from inceptionnet.engines.winograd.convolution import ALIGNMENT, Convolution, Pair, is_plain
from inceptionnet.engines.winograd.library import Library, Step
from inceptionnet.engines.winograd.plan import CONVOLUTION, MOST_CHANNELS, WINOGRAD, step_fields

LEAST = 1 << 24
"""Multiplications of a convolution for which the kernels are called; of fewer, the call would take longer."""
PACKING = 75
"""The cost of a weight of a point, which is made anew in every step, in multiplications."""
GRADIENT = 4 << 20
"""Floats of transformed inputs and gradients of outputs that are kept together; more come in chunks."""
TORCH = 1.1
"""The cost of a multiplication in torch's convolution, beside one in the kernels' products."""


@dataclass(frozen=True)
class _Prepared:
    """A convolution of given sizes; the addresses of its step are those of the last call."""

    step: Step
    filters: tuple[Tensor, Tensor]
    packed: int
    """Floats of its filters."""
    scratch: int
    """Floats that each thread needs."""
    gradient: Step | None
    """For the gradient of its filters."""
    memory: int
    """Floats for that."""


class Convolutions:
    """A block in which the kernels compute a network's convolutions where that is faster; torch computes the others.

    The kernels are for float32 on the CPU in channels-last memory, without groups and dilation, for channels that are a
    multiple of a vector. One block at a time, in one thread.

    Raises:
        ConfigurationError: there is no C++ compiler, or it fails.
    """

    def __init__(self, network: nn.Module, options: Sequence[str] = NATIVE) -> None:
        self.library: Library = library(tuple(options))
        found = (module for module in network.modules() if type(module) is nn.Conv2d and self._has_kernel(module))
        self._forwards: list[tuple[nn.Conv2d, Callable[[Tensor], Tensor]]]
        self._forwards = [(conv, partial(self._forward, conv)) for conv in found]
        self._plans: dict[tuple[Any, ...], _Prepared | None] = {}
        self._scratch = self._packed = self._memory = torch.empty(0)
        self._zeros = torch.zeros(MOST_CHANNELS + self.library.panel)

    def __enter__(self) -> None:
        for conv, forward in self._forwards:
            conv.forward = forward  # type: ignore[assignment,method-assign]

    def __exit__(self, *_: object) -> None:
        for conv, _forward in self._forwards:
            del conv.forward

    def plan(self, x: Tensor, shape: tuple[int, ...], stride: Pair, padding: Pair) -> _Prepared | None:
        """The convolution of x with filters of that shape, if the kernels have it and it is worth it."""
        if x.dtype != torch.float32 or not x.is_contiguous(memory_format=torch.channels_last):
            return None
        key = (x.shape, shape, stride, padding, torch.get_num_threads())
        if key not in self._plans:
            self._plans[key] = self._planned(*key)
        return self._plans[key]

    def convolve(
        self, plan: _Prepared, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gradient: bool = False
    ) -> Tensor:
        """A convolution; `gradient`: with the filters of that which gives the gradient of the input of `weight`'s.

        Shapes: (N, I, H, W), channels last → (N, O, H', W'), channels last.
        """
        threads, step, filters = torch.get_num_threads(), plan.step, plan.step.out_channels
        if len(self._packed) < plan.packed:
            self._packed = torch.empty(plan.packed)
        if len(self._scratch) < plan.scratch * threads:
            self._scratch = torch.empty(plan.scratch * threads)
        self.library.pack(weight, *plan.filters, threads, gradient=gradient, into=self._packed)
        biases = self._zeros
        if bias is not None:
            biases = self.library.bias(bias, filters)
        out = torch.empty((len(x), filters, step.out_height, step.out_width), memory_format=torch.channels_last)
        setattr(step, "in", x.data_ptr())
        step.weight, step.bias, step.out = self._packed.data_ptr(), biases.data_ptr(), out.data_ptr()
        self.library.run((Step * 1)(step), threads, self._scratch.data_ptr(), plan.scratch)
        return out

    def filters_gradient(self, plan: _Prepared, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        """The gradient of the filters. Shapes: x (N, I, H, W), grad (N, O, H', W'), channels last → as the weight."""
        assert plan.gradient
        if len(self._memory) < plan.memory:
            self._memory = torch.empty(plan.memory)
        setattr(plan.gradient, "in", x.data_ptr())
        plan.gradient.residual = grad.data_ptr()
        return self.library.gradient(plan.gradient, weight, *plan.filters, torch.get_num_threads(), self._memory)

    def _has_kernel(self, conv: nn.Conv2d) -> bool:
        whole = not (conv.in_channels % self.library.lanes or conv.out_channels % self.library.lanes)
        few = max(conv.in_channels, conv.out_channels) <= MOST_CHANNELS
        on_cpu = conv.weight.dtype == torch.float32 and conv.weight.device.type == "cpu"
        return is_plain(conv) and whole and few and on_cpu

    def _forward(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        weight, stride, padding = conv.weight, conv.stride, conv.padding
        plan = self.plan(x, weight.shape, stride, padding)  # type: ignore[arg-type]  # pairs, and no text
        if plan is None or torch.is_autocast_enabled("cpu"):
            return nn.Conv2d.forward(conv, x)
        y: Tensor = _Convolve.apply(x, weight, conv.bias, stride, padding, self, plan)  # type: ignore[no-untyped-call]
        return y

    def _planned(
        self, x: tuple[int, ...], shape: tuple[int, ...], stride: Pair, padding: Pair, threads: int
    ) -> _Prepared | None:
        images, channels, height, width = x
        kernel = shape[2], shape[3]
        down, across = (
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
        )
        sizes = Convolution(images, channels, shape[0], kernel, stride, (down, across))
        if min(images, down, across) < 1 or channels != shape[1] or sizes.multiplications < LEAST:
            return None
        costs = sizes.costs(PACKING)
        if kernel != (1, 1) or stride != (1, 1) or padding != (0, 0):
            del costs[None]
        if not costs or min(costs.values()) > TORCH * sizes.multiplications:
            return None
        tile = min(costs, key=costs.__getitem__)
        tasks, scratch = sizes.tasks(tile, threads, self.library)
        step = Step(**step_fields(CONVOLUTION if tile is None else WINOGRAD, kernel, stride, padding, 1) | tasks)
        step.images, step.height, step.width, step.channels = images, height, width, channels
        step.out_height, step.out_width, step.out_channels = down, across, shape[0]
        step.distance, step.out_distance = channels, shape[0]
        filters = sizes.filters(tile)
        packed = self.library.packed(shape[0], channels, *filters)
        gradient, memory = None, 0
        if tile and stride == (1, 1):
            gradient, number, tiles = Step.from_buffer_copy(step), len(filters[0]) * len(filters[1]), sizes.tiles(tile)
            gradient.chunks = ceil(number * tiles * (channels + shape[0]) / GRADIENT)
            memory = self.library.gradient_memory(gradient, number, tiles, threads)
        return _Prepared(step, filters, packed, ceil(scratch / ALIGNMENT) * ALIGNMENT, gradient, memory)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Pair,
        padding: Pair,
        kernels: Convolutions,
        plan: _Prepared,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, kernels, plan, bias is not None  # type: ignore[attr-defined]
        return kernels.convolve(plan, x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, kernels, forward, has_bias = ctx.how
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        grad = grad.contiguous(memory_format=torch.channels_last)
        filters, channels, *kernel = weight.shape
        around = tuple(k - 1 - p for k, p in zip(kernel, padding, strict=True))
        plan = None
        if of_x and stride == (1, 1) and min(around) >= 0:
            plan = kernels.plan(grad, (channels, filters, *kernel), stride, around)
        from_torch = torch.ops.aten.convolution_backward(
            grad, x, weight, [filters] if has_bias else None, stride, padding, (1, 1), False, (0, 0), 1,
            (of_x and plan is None, of_weight and forward.gradient is None, of_bias),
        )  # fmt: skip
        first = kernels.convolve(plan, grad, weight, gradient=True) if plan else from_torch[0]
        second = from_torch[1]
        if of_weight and forward.gradient:
            second = kernels.filters_gradient(forward, x, weight, grad)
        return first, second, from_torch[2], None, None, None, None
