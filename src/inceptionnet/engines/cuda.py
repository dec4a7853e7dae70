"""The engine `cudnn`: each convolution with its bias and ReLU in one call of cuDNN, all calls in one CUDA graph.

The network is the fused one (see `fusion`) in channels-last memory. The closing convolution of a residual block, its
sum with the shortcut and its ReLU are one call too. Separate calls write and read each output once or twice more.
cuDNN's calls in torch have no variant that writes into a given tensor, so a concatenation copies its branches, once.

Which call is the fastest depends on layer, batch size and GPU, so each layer is timed when the engine is built:
cuDNN's call, torch's separate ones, and for 1×1 convolutions a matrix product with bias and ReLU.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from inceptionnet.engines.fusion import flat
from inceptionnet.model.modules import Concatenation, ResidualBlock

Returned = TypeVar("Returned")
CALLS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.cudnn_convolution_relu,
    "add_relu": torch.cudnn_convolution_add_relu,
}
"""The calls that are only on a GPU: (x, weight, bias, *window) and (x, weight, shortcut, alpha, bias, *window)."""
WARM_UP = 3
"""Calls before a capture, in which cuDNN finds its algorithms and libraries allocate their memory."""
REPEATS, TRIES = 10, 5
"""Calls in a graph whose replay is timed, and replays of which the fastest counts."""
SEARCH_S = 20.0
"""cuDNN compiles some of its algorithms before it can time them, which takes long where there are many."""
WITHIN = 0.03
"""Largest difference of a layer's output from that of separate calls, relative to the largest, in any precision."""


class Layer(nn.Module):
    """A convolution with its bias and what follows it: nothing, a ReLU, or the sum with a shortcut and a ReLU."""

    def __init__(self, conv: nn.Conv2d, relu: bool, shortcut: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.relu = relu
        dense = conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) and conv.groups == 1
        self.ways: list[str] = ["cudnn"] * relu + ["separate"]
        self.ways += ["product"] * (dense and conv.bias is not None and not shortcut)
        self.way: str = self.ways[0]

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """(N, C, H, W), and the shortcut like the output → (N, C', H', W')."""
        return WAYS[self.way](self, x, shortcut)

    def extra_repr(self) -> str:
        """The way it is computed, for the repr."""
        return self.way


def _cudnn(layer: Layer, x: Tensor, shortcut: Tensor | None) -> Tensor:
    conv = layer.conv
    window = conv.stride, conv.padding, conv.dilation, conv.groups
    if shortcut is None:
        return CALLS["relu"](x, conv.weight, conv.bias, *window)
    return CALLS["add_relu"](x, conv.weight, shortcut, 1.0, conv.bias, *window)


def _separate(layer: Layer, x: Tensor, shortcut: Tensor | None) -> Tensor:
    y: Tensor = layer.conv(x)
    if shortcut is not None:
        y += shortcut
    return y.relu_() if layer.relu else y


def _product(layer: Layer, x: Tensor, shortcut: Tensor | None) -> Tensor:
    """A 1×1 convolution as a matrix product of pixels, without a copy in channels-last memory."""
    count, channels, height, width = x.shape
    pixels, weight = x.permute(0, 2, 3, 1).reshape(-1, channels), layer.conv.weight.flatten(1).t()
    assert layer.conv.bias is not None
    # torch.addmm has no activation; this is the call that torch's own transformer layers use.
    multiply = torch._addmm_activation if layer.relu else torch.addmm
    return multiply(layer.conv.bias, pixels, weight).view(count, height, width, -1).permute(0, 3, 1, 2)


WAYS: dict[str, Callable[[Layer, Tensor, Tensor | None], Tensor]] = {
    "cudnn": _cudnn, "separate": _separate, "product": _product,
}  # fmt: skip
"""The ways to compute a layer."""


class Closed(nn.Module):
    """A residual block whose closing layer adds the shortcut."""

    def __init__(self, branches: nn.Module, closing: Layer) -> None:
        super().__init__()
        self.branches = branches
        self.closing = closing

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        y: Tensor = self.closing(self.branches(x), x)
        return y


def layered(module: nn.Module) -> nn.Module:
    """A module of a fused network with `Layer`s in the place of convolutions and what follows them."""
    match module:
        case nn.Sequential():
            return nn.Sequential(*_layers(list(flat(module))))
        case Concatenation():
            return Concatenation({name: layered(branch) for name, branch in module.items()})
        case ResidualBlock(relu=nn.ReLU(), scale=1.0):
            *parts, last = flat(nn.Sequential(module.branches, module.closing))
            assert isinstance(last, nn.Conv2d)
            return Closed(nn.Sequential(*_layers(parts)), Layer(last, relu=True, shortcut=True))
        case ResidualBlock():
            relu = isinstance(module.relu, nn.ReLU)
            return ResidualBlock(layered(module.branches), layered(module.closing), module.scale, relu)
        case nn.Conv2d():
            return Layer(module, relu=False)
    return module


def _layers(parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
    for before, part, following in zip([None, *parts], parts, [*parts[1:], None], strict=False):
        if isinstance(part, nn.Conv2d):
            yield Layer(part, relu=isinstance(following, nn.ReLU))
        elif not (isinstance(part, nn.ReLU) and isinstance(before, nn.Conv2d)):
            yield layered(part)


class Graph:
    """A network on a GPU whose layers are tuned for an input, and whose kernels are recorded for it.

    Other batch sizes run in pieces of that size. Calls from several threads wait for one another: all use the same
    memory.

    Shapes: float (N, C, H, W) → (N, logits), in the data type of the network.
    """

    def __init__(self, network: nn.Module, like: Tensor) -> None:
        self._lock, self._stream, self._input = threading.Lock(), new_stream(like.device), like.clone()

        def prepare() -> tuple[Counter[str], Callable[[], None], Tensor]:
            return tune(network, self._input), *capture(lambda: network(self._input))

        self.layers: Counter[str]
        self.layers, self._replay, self._output = in_stream(self._stream, prepare)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""

        def run() -> Tensor:
            answers = []
            for piece in torch.split(x, len(self._input)):
                self._input[: len(piece)].copy_(piece)
                self._replay()
                answers.append(self._output[: len(piece)].clone())
            return answers[0] if len(answers) == 1 else torch.cat(answers)

        with self._lock:
            return in_stream(self._stream, run)


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream for all work of an engine; None on a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def in_stream(stream: torch.cuda.Stream | None, run: Callable[[], Returned]) -> Returned:
    """Call `run` in a stream: after what the current stream has begun, and before what follows in it."""
    if stream is None:
        return run()
    before = torch.cuda.current_stream(stream.device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        made = run()
    before.wait_stream(stream)
    if isinstance(made, Tensor):
        made.record_stream(before)  # its memory is not used again before that stream has read it
    return made


def capture(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record the kernels of `run` as a CUDA graph: returns what replays them, and the output that a replay writes."""
    for _ in range(WARM_UP):
        run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        output = run()
    return graph.replay, output


def tune(network: nn.Module, x: Tensor, clock: Callable[[], float] = time.monotonic) -> Counter[str]:
    """Set the fastest way of each layer for an input; returns the number of layers by way.

    cuDNN times its algorithms for SEARCH_S seconds, and guesses the fastest for what is left. It remembers them.
    """
    layers = [module for module in network.modules() if isinstance(module, Layer)]
    known: dict[tuple[object, ...], str] = {}
    before, until = torch.backends.cudnn.benchmark, clock() + SEARCH_S

    def choose(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Layer)
        key = (repr(module.conv), module.relu, *((x.shape, x.stride()) for x in inputs))
        if key not in known:
            torch.backends.cudnn.benchmark = clock() < until
            known[key] = fastest(module, *inputs)
        module.way = known[key]

    hooks = [layer.register_forward_pre_hook(choose) for layer in layers]
    try:
        network(x)
    finally:
        torch.backends.cudnn.benchmark = before
        for hook in hooks:
            hook.remove()
    return Counter(layer.way for layer in layers)


def fastest(layer: Layer, x: Tensor, shortcut: Tensor | None = None) -> str:
    """The fastest way of a layer, of those that run here and agree with separate calls."""
    if len(layer.ways) == 1:
        return layer.way
    expected, times = _separate(layer, x, shortcut), dict[str, float]()
    for way in layer.ways:
        torch.full_like(expected, torch.nan)  # freed memory, which the output is likely to get: all must be written
        try:
            got = WAYS[way](layer, x, shortcut)
            if bool((got - expected).abs().max() <= WITHIN * expected.abs().max()):  # not NaN either
                times[way] = microseconds(lambda way=way: WAYS[way](layer, x, shortcut))  # type: ignore[misc]
        except RuntimeError:  # cuDNN has no algorithm for it on this GPU
            continue
    return min(times, key=times.__getitem__, default="separate")


def microseconds(run: Callable[[], Tensor]) -> float:
    """The time of a call in a CUDA graph, in which starting kernels takes less time than for single calls."""

    def several() -> Tensor:
        for _ in range(REPEATS - 1):
            run()
        return run()

    replay, _ = capture(several)
    event: Callable[..., torch.cuda.Event] = torch.cuda.Event
    start, end = event(enable_timing=True), event(enable_timing=True)
    times = list[float]()
    for _ in range(TRIES):
        start.record()
        replay()
        end.record()
        end.synchronize()
        times.append(1000 * start.elapsed_time(end) / REPEATS)
    return min(times)
