"""Copy the weights of one model into another whose names differ, layer by layer in the order of execution."""

from itertools import zip_longest
from typing import Any

import torch
from torch import nn

WEIGHTED = (nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Linear)


def executed_layers(model: nn.Module, size_px: int) -> list[tuple[str, nn.Module]]:
    """The convolutions, batch norms and linear layers of `model`, named, in the order one image passes them."""
    order: list[tuple[str, nn.Module]] = []
    names = {layer: name for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)}

    def record(layer: nn.Module, _inputs: Any, _output: Any) -> None:
        order.append((names[layer], layer))

    handles = [layer.register_forward_hook(record) for layer in names]
    was_training = model.training
    model.eval()
    dtype = next(model.parameters()).dtype
    try:
        with torch.no_grad():
            model(torch.rand(1, 3, size_px, size_px, dtype=dtype) * 2 - 1)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    assert len({name for name, _ in order}) == len(order), f"{type(model).__name__} runs a layer twice"
    return order


def _described(layer: nn.Module) -> str:
    kind = next(kind.__name__ for kind in WEIGHTED if isinstance(layer, kind))
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    shapes.pop("num_batches_tracked", None)
    return f"{kind} {shapes}"


def transfer(source: nn.Module, target: nn.Module, size_px: int) -> None:
    """Copy the source's weights and statistics into the target, pairing the layers by their order of execution.

    Raises: AssertionError, naming the first pair whose kinds or shapes differ, or the first layer that has no partner;
    nothing is copied then.
    """
    source_layers = executed_layers(source, size_px)
    target_layers = executed_layers(target, size_px)
    absent = ("(none)", None)
    for place, (left, right) in enumerate(zip_longest(source_layers, target_layers, fillvalue=absent)):
        wanted = "nothing" if left[1] is None else _described(left[1])
        got = "nothing" if right[1] is None else _described(right[1])
        message = f"layer {place} differs: source {left[0]!r} is {wanted}, target {right[0]!r} is {got}"
        assert wanted == got, message
    for (_, from_layer), (_, to_layer) in zip(source_layers, target_layers, strict=True):
        to_layer.load_state_dict(from_layer.state_dict())
