"""What a training makes of the outputs: softmax or sigmoid, and the classifier of pretrained weights that is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.train.recipe import Recipe
from inceptionnet.weights import Record, read_record

log: logging.Logger = logging.getLogger("inceptionnet")


def with_activation(recipe: Recipe, source: Source, record: Record | None) -> Recipe:
    """The recipe with softmax or sigmoid in place of auto.

    Args:
        record: the metadata of the weights that training starts from.

    Raises:
        ConfigurationError: the stated activation does not suit the labels.
    """
    stated, classes = recipe.network.activation, source.classes
    if stated == "softmax" and source.multi_label:
        raise ConfigurationError(
            "network.activation is softmax, which is for one label an image; the data has several; use sigmoid, or auto"
        )
    if stated == "sigmoid" and not source.multi_label and len(classes) != 2:
        raise ConfigurationError(
            "network.activation is sigmoid: expected several labels an image, or two classes for its one logit, got "
            f"{len(classes)} classes with one label an image; use softmax, or auto"
        )
    if stated != "auto":
        return recipe
    one_logit = record is not None and record.outputs.binary and not record.numbered
    same_pair = record is not None and one_logit and sorted(record.classes) == sorted(classes)
    return recipe.changed({"network.activation": "sigmoid" if source.multi_label or same_pair else "softmax"})


def start_head(model: InceptionNet, outputs: Outputs, classes: Sequence[str], weights: str) -> None:
    """Give a model from pretrained weights the classifier that training starts with, and say what became of the old.

    Args:
        model: with as many logits as `outputs`, of the weights where their number is the same.
        classes: the data's. With sigmoid they must be those of the weights, in any order, to keep the classifier.
    """
    if model.outputs.activation != outputs.activation:
        log.info(
            "%s: its outputs are %s; training %s with a new classifier",
            weights, model.outputs.activation, outputs.activation,
        )  # fmt: skip
        model.reset_head(outputs.logits, outputs.activation)
        return
    if outputs.activation == "softmax":
        return
    record = read_record(weights)
    if record.outputs != outputs:
        return  # another number of logits: they are new already
    if record.numbered or sorted(record.classes) != sorted(classes):
        log.info("%s: its classes are not those of the data; training with a new classifier", weights)
        model.reset_head(outputs.logits)
        return
    if tuple(record.classes) == tuple(classes):
        log.info("%s: its classifier is kept, since its classes are those of the data", weights)
        return
    log.info("%s: its classifier is kept, in the order of the data's classes", weights)
    order = [record.classes.index(name) for name in classes]
    for head in (model.head, *model.aux.values()):
        _reorder(head.get_submodule("logits"), order, negated=outputs.binary)


@torch.no_grad()
def _reorder(logits: nn.Module, order: Sequence[int], *, negated: bool) -> None:
    """Put the logits in another order; one logit for two classes in the other order is the negative."""
    for values in logits.parameters():
        values.copy_(-values if negated else values[list(order)])
