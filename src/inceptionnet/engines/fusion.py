"""Fusion for inference: exact rewrites of a trained network that save computation.

Batch norm is folded into the convolution before it, the scale of a residual block into its closing convolution. A 1×1
convolution after an average pool is moved before it if it reduces the number of channels, so that less is pooled; the
two commute, since a mean acts within channels and a 1×1 convolution within positions. 1×1 convolutions on the same
input can be merged. Dropout and auxiliary heads are removed. The result is an ordinary module.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inceptionnet.model.modules import Concatenation, ResidualBlock
from inceptionnet.model.network import InceptionNet, check_images
from inceptionnet.nets.spec import Network


class Fused(nn.Module):
    """A network for inference, with `body` and `head`; created by `fused`.

    Shapes: float (N, C, H, W) → (N, num_classes), or pooled features (N, C) where there are no classes.
    """

    def __init__(self, model: InceptionNet, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head
        self.network: Network = model.network
        self.minimum_size: int = model.minimum_size

    def forward(self, x: Tensor) -> Tensor:
        """Logits. Raises: InputError: as `InceptionNet.forward`."""
        check_images(x, self.network, self.minimum_size)
        logits: Tensor = self.head(self.body(x))
        return logits


class SiblingBranches(nn.Module):
    """Branches that start with 1×1 convolutions of the same input, merged into one convolution, `shared`.

    `parts`: the range of its output channels that each branch continues from; None: from the input. Channels followed
    by a ReLU come first.
    """

    def __init__(
        self, shared: nn.Conv2d, activated: int, parts: Sequence[tuple[int, int] | None], branches: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.shared = shared
        self.activated = activated
        self.parts: tuple[tuple[int, int] | None, ...] = tuple(parts)
        self.branches: nn.ModuleList = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, sum of the branches' channels, H', W')."""
        y = self.shared(x)
        active = torch.relu(y[:, : self.activated])  # not in place: that would be exported as a scatter
        inputs = [
            x if part is None else (active if part[1] <= self.activated else y)[:, slice(*part)] for part in self.parts
        ]
        return torch.cat([branch(z) for branch, z in zip(self.branches, inputs, strict=True)], 1)


class ChannelBias(nn.Module):
    """The bias of a convolution moved before its pool: an average that counts padding would reduce it at the border."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias: nn.Parameter = nn.Parameter(bias[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return x + self.bias


@dataclass(frozen=True)
class _Rewrites:
    batch_norm: bool
    residual_scale: bool
    siblings: bool
    pools: bool


def fused(
    model: InceptionNet,
    *,
    batch_norm: bool = True,
    residual_scale: bool = True,
    siblings: bool = False,
    pools: bool = True,
    channels_last: bool = True,
) -> Fused:
    """A faster network with the outputs of `model` in evaluation mode; weights are copied, `model` is not modified.

    Args:
        batch_norm: fold batch norm into the convolution or linear layer before it.
        residual_scale: fold the scale of residual blocks into their closing convolution.
        siblings: merge 1×1 convolutions on the same input. Needs batch_norm. Off by default: no engine is faster with
            it on a CPU (benchmarks/), since the merged output must be split again.
        pools: move a 1×1 convolution before the average pool that it follows. Needs batch_norm.
        channels_last: use channels-last memory format.

    Shapes: as `Fused`.
    """
    rewrites = _Rewrites(batch_norm, residual_scale, siblings and batch_norm, pools and batch_norm)
    with torch.no_grad():
        source = copy.deepcopy(model)
        body, head = (_endpoints(whole, rewrites) for whole in (source.body, source.head))
    made = Fused(model, body, head).eval().requires_grad_(False)
    if channels_last:
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def flat(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a sequence, and of the sequences in it; another module is its only part."""
    if isinstance(module, nn.Sequential):
        for part in module:
            yield from flat(part)
    else:
        yield module


def _endpoints(whole: nn.Module, rewrites: _Rewrites) -> nn.Sequential:
    """The rewritten body or head; its parts keep their names."""
    chain = nn.Sequential()
    for name, part in whole.named_children():
        chain.add_module(name, _joined(_rewritten(part, rewrites)))
    return chain


def _rewritten(module: nn.Module, rewrites: _Rewrites) -> list[nn.Module]:
    """A module rewritten as a sequence of modules."""
    match module:
        case Concatenation():
            branches = [_rewritten(branch, rewrites) for branch in module.values()]
            return [_siblings(branches) if rewrites.siblings else _beside(branches)]
        case ResidualBlock():
            closing, scale = _rewritten(module.closing, rewrites), module.scale
            if rewrites.residual_scale:
                _scale(closing, scale)
                scale = 1.0
            relu = isinstance(module.relu, nn.ReLU)
            return [ResidualBlock(_joined(_rewritten(module.branches, rewrites)), _joined(closing), scale, relu)]
        case nn.Sequential():
            parts = [part for child in module for part in _rewritten(child, rewrites)]
            parts = list(_without_norm(parts)) if rewrites.batch_norm else parts
            return _pool_last(parts) if rewrites.pools else parts
        case nn.Dropout() | nn.Identity():
            return []
    return [module]


def _without_norm(parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """The modules, with each batch norm folded into the convolution or linear layer just before it."""
    for before, part, following in zip([None, *parts], parts, [*parts[1:], None], strict=False):
        if isinstance(part, nn.Conv2d | nn.Linear) and isinstance(following, nn.BatchNorm2d | nn.BatchNorm1d):
            _fold(part, following)
        if not (isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) and isinstance(before, nn.Conv2d | nn.Linear)):
            yield part


def _fold(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> None:
    """Fold the scale and shift of batch norm into weight and bias; in double precision, rounded once."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * factor
    if layer.bias is not None:
        shift = shift + layer.bias.double() * factor
    dtype = layer.weight.dtype
    weight = layer.weight.double() * factor.view(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight = nn.Parameter(weight.to(dtype))
    layer.bias = nn.Parameter(shift.to(dtype))


def _scale(closing: Sequence[nn.Module], scale: float) -> None:
    """Fold the scale into the last convolution, which only the sum with the shortcut follows."""
    last = closing[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    last.weight.mul_(scale)
    last.bias.mul_(scale)


def _pool_last(parts: list[nn.Module]) -> list[nn.Module]:
    """If the chain starts with an average pool and a 1×1 convolution, the chain with the two swapped."""
    match parts:
        case [nn.AvgPool2d() as pool, nn.Conv2d() as conv, *rest] if _is_1x1(conv) and conv.bias is not None:
            if conv.out_channels < conv.in_channels:
                if not pool.count_include_pad or pool.padding in (0, (0, 0)):
                    return [conv, pool, *rest]  # the mean of x + b is the mean of x, + b
                bias, conv.bias = conv.bias, None
                return [conv, pool, ChannelBias(bias), *rest]
    return parts


def _siblings(branches: Sequence[list[nn.Module]]) -> nn.Module:
    """The branches, with the 1×1 convolutions at their start merged."""
    first = {i: branch[0] for i, branch in enumerate(branches) if branch and _is_1x1(branch[0])}
    if len(first) < 2:
        return _beside(branches)
    activated = {i for i in first if len(branches[i]) > 1 and isinstance(branches[i][1], nn.ReLU)}
    order = [*sorted(activated), *sorted(first.keys() - activated)]
    convolutions = [conv for i in order if isinstance(conv := first[i], nn.Conv2d)]
    parts, at = dict[int, tuple[int, int]](), 0
    for i, conv in zip(order, convolutions, strict=True):
        parts[i] = (at, at + conv.out_channels)
        at += conv.out_channels
    shared = nn.Conv2d(convolutions[0].in_channels, at, 1, device="meta")
    shared.weight = nn.Parameter(torch.cat([conv.weight for conv in convolutions]))
    shared.bias = nn.Parameter(
        torch.cat(
            [conv.weight.new_zeros(len(conv.weight)) if conv.bias is None else conv.bias for conv in convolutions]
        )
    )
    rest = [_joined(branch[1 + (i in activated) :] if i in first else branch) for i, branch in enumerate(branches)]
    ends = [parts[i][1] for i in activated]
    return SiblingBranches(shared, max(ends, default=0), [parts.get(i) for i in range(len(branches))], rest)


def _is_1x1(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride, module.padding, module.groups) == (
        (1, 1), (1, 1), (0, 0), 1,
    )  # fmt: skip


def _beside(branches: Sequence[list[nn.Module]]) -> nn.Module:
    return Concatenation({str(i): _joined(branch) for i, branch in enumerate(branches)})


def _joined(parts: Sequence[nn.Module]) -> nn.Module:
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
