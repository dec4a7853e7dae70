"""Running a plan: the engine `winograd`."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from math import ceil

import torch
from torch import Tensor, nn

from inceptionnet.engines.winograd.compiling import NATIVE, library
from inceptionnet.engines.winograd.convolution import ALIGNMENT
from inceptionnet.engines.winograd.library import Library, Step
from inceptionnet.engines.winograd.memory import View, Weights
from inceptionnet.engines.winograd.plan import Layer, Plan

PLANS = 4
"""Batch sizes whose plans are kept, the latest ones."""


class Winograd:
    """A fused network's logits, by the kernels for its body and torch for its head.

    Calls from several threads wait for one another: all use the same memory.

    Shapes: float32 (N, C, H, W) → (N, logits).
    """

    def __init__(self, body: nn.Module, head: nn.Module, threads: int, options: Sequence[str] = NATIVE) -> None:
        self.body = body
        self.head = head
        self.threads = threads
        self.library: Library = library(tuple(options))
        self.weights: Weights = Weights(self.library)
        self._prepared: OrderedDict[tuple[int, ...], Prepared] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, as a tensor of inference mode."""
        with self._lock, torch.inference_mode():
            shape = tuple(x.shape)
            if shape not in self._prepared:
                plan = Plan(self.body, shape, self.threads, self.library, self.weights)
                self._prepared[shape] = Prepared(plan, self.library)
                if len(self._prepared) > PLANS:
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(shape)
            y: Tensor = self.head(self._prepared[shape](x))
            return y.clone()


class Prepared:
    """A plan with its memory: calls of the library for stretches of steps, and modules of torch between them."""

    def __init__(self, plan: Plan, library: Library) -> None:
        self.plan = plan
        self.library = library
        self.arena: Tensor = torch.zeros(plan.size)
        most = max((layer.scratch for layer in plan.layers), default=0)
        self.scratch_size: int = ceil(most / ALIGNMENT) * ALIGNMENT  # so that every thread's begins at a line of cache
        self.scratch: Tensor = torch.zeros(max(1, self.scratch_size * plan.threads))
        self._input = plan.source.tensor(self.arena, plan.images)
        self._output = plan.target.tensor(self.arena, plan.images)
        self._parts: list[ctypes.Array[Step] | Layer] = []
        for by_torch, layers in groupby(plan.layers, key=lambda layer: layer.module is not None):
            if by_torch:
                self._parts.extend(layers)
            else:
                steps = [self._step(layer) for layer in layers]
                self._parts.append((Step * len(steps))(*steps))

    def __call__(self, x: Tensor) -> Tensor:
        """The body's output, which the next call overwrites."""
        self._input.copy_(x)
        for part in self._parts:
            if isinstance(part, Layer):
                assert part.module is not None
                source, target = (view.tensor(self.arena, self.plan.images) for view in (part.source, part.target))
                target.copy_(part.module(source))
            else:
                self.library.run(part, self.plan.threads, self.scratch.data_ptr(), self.scratch_size)
        return self._output

    def _step(self, layer: Layer) -> Step:
        source, target = layer.source, layer.target
        step = Step(**layer.fields)
        step.images = self.plan.images
        step.height, step.width, step.channels = *source.grid, source.channels
        step.out_height, step.out_width, step.out_channels = *target.grid, target.channels
        step.distance, step.out_distance = source.buffer.distance, target.buffer.distance
        setattr(step, "in", self._address(source))
        step.out = self._address(target)
        if layer.residual is not None:
            step.residual, step.residual_distance = self._address(layer.residual), layer.residual.buffer.distance
        for name, values in (("weight", layer.weight), ("bias", layer.bias)):
            if values is not None:
                setattr(step, name, values.data_ptr())
        return step

    def _address(self, view: View) -> int:
        return self.arena.data_ptr() + 4 * (view.buffer.start + view.offset)
