"""`load`: whatever holds a network, as a `Classifier`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inceptionnet.classifier.base import Options, check_classes, texts
from inceptionnet.classifier.classifier import Classifier
from inceptionnet.classifier.files import graph_backend, is_graph
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.kinds import read_metadata
from inceptionnet.errors import ConfigurationError
from inceptionnet.system.extras import needing_torch
from inceptionnet.weights.metadata import RECORD, record_fields
from inceptionnet.weights.record import GIVEN, Record, checked_names, with_activation

if TYPE_CHECKING:
    from inceptionnet.model.network import InceptionNet

log: logging.Logger = logging.getLogger("inceptionnet")


def load(
    source: str | Path | InceptionNet,
    *,
    name: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    activation: str | None = None,
    head: str | None = None,
    engine: str = "eager",
    precision: str = "fp32",
    calibrate: str | Path | Sequence[str | Path] | None = None,
    device: str = "auto",
    batch_size: int = 16,
    threads: int | None = None,
) -> Classifier:
    """A classifier from a run folder, a weights file of any known layout, the hub, an exported file, or a network.

    What is assumed about a file of another library (preprocessing, class names) is logged, and is `.assumed`.

    Args:
        source: a run folder; a weights file as for `create_model`; `hf:owner/name`; an .onnx, .xml or .pt2 file that
            `export` wrote; or a network in memory, of which a copy is taken. Only .onnx and .xml files need no torch.
        name: the network, where a weights file fits several.
        classes: names in the order of the logits, a file of them (see docs/data.md), or imagenet. Default: the file's,
            else ImageNet's if there are 1000.
        preprocessing: how images become input, or some of its settings, such as `{"size_px": 331}`. Default: the
            file's, else as its layout was published.
        activation: what the logits mean: softmax; or sigmoid, of labels that do not exclude each other, or of one logit
            for two classes. Default: as the file says, else softmax.
        head: of a PyTorch file that does not tell it, the layers between the last grid and the logits, see
            `read_weights`.
        engine, precision, threads: as for `optimize`; exported files have their own. With precision auto and no other
            engine than eager, all engines are tried.
        calibrate: for int8 and auto, images like those it will see: paths, folders or a data set.
        device: as for `pick_device`.
        batch_size: the usual number of images in a batch, which engines are built for.

    Raises:
        ConfigurationError: an option that cannot be used, or not one name for each class.
        WeightsError: the file holds no weights, or they do not fit.
        MissingExtraError: the file or the engine needs an extra that is not installed, or torch is not.

    Example:
        >>> from inceptionnet import create_model
        >>> clf = load(create_model("inception_v1.slim", num_classes=2, width=0.25), classes=["ant", "bee"])
        >>> clf
        Classifier(inception_v1.slim, 2 classes, 224 px, eager fp32 on cpu)
    """
    options = Options(engine, precision, texts(calibrate), device, batch_size, threads)
    return made_classifier(
        source, options, name=name, classes=classes, preprocessing=preprocessing, activation=activation, head=head
    )


def made_classifier(
    source: str | Path | InceptionNet,
    options: Options,
    *,
    name: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    activation: str | None = None,
    head: str | None = None,
    predicts: bool = False,
) -> Classifier:
    """As `load`; with `predicts`, weights without classes are refused before an engine is built. Raises: as `load`."""
    if is_graph(source):
        return _exported(Path(str(source)), options, classes, preprocessing, activation)
    with needing_torch(f"loading {source if isinstance(source, str | Path) else 'a network'}"):
        from inceptionnet.classifier.backends import network_backend
        from inceptionnet.data.class_names import named_classes
        from inceptionnet.model.network import InceptionNet
        from inceptionnet.weights.native import record_for
        from inceptionnet.weights.reading import opened_weights
    options.check()
    read = None
    if isinstance(source, InceptionNet):
        model, record, assumed, where = copy.deepcopy(source), record_for(source), "", ""
        if activation is not None:
            model.set_activation(activation)
            record = with_activation(record, activation)
    else:
        read = opened_weights(source, name=name, head=head)
        if activation is not None:
            read = replace(read, record=with_activation(read.record, activation))
        model, record, assumed, where = read.model(), read.record, read.assumed, str(source)
    if classes is not None:
        names = checked_names(named_classes(classes), record.outputs)
        record = replace(record, classes=names, provenance={**record.provenance, "classes": GIVEN})
        assumed = replace(read, record=record).assumed if read else ""
    record = replace(record, preprocessing=_changed(record.preprocessing, preprocessing))
    if predicts:
        check_classes(record.classes, where)
    if assumed:
        log.info("%s: %s", where, assumed)
    return Classifier(network_backend(model, record.preprocessing, options), record, options, where, assumed)


def described(source: str | Path) -> tuple[Record, str]:
    """What a run folder or a file says of itself, and what is assumed about it; nothing is made ready to run.

    Raises:
        WeightsError: no such file, or one of no known format or layout.
        MissingExtraError: the file needs an extra that is not installed.
    """
    if is_graph(source):
        return _record(read_metadata(source)), ""
    with needing_torch(f"reading {source}"):
        from inceptionnet.weights.reading import opened_weights
    read = opened_weights(source)
    return read.record, read.assumed


def _exported(
    path: Path,
    options: Options,
    classes: str | Path | Sequence[str] | None,
    preprocessing: Preprocessing | Mapping[str, Any] | None,
    activation: str | None,
) -> Classifier:
    if classes is not None or preprocessing is not None or activation is not None:
        raise ConfigurationError(f"{path}: an exported file holds its classes, preprocessing and activation; omit them")
    backend, about = graph_backend(path, options)
    return Classifier(backend, _record(about), options, str(path), "")


def _record(about: Mapping[str, Any]) -> Record:
    """What an exported file says of its network, by `read_metadata`."""
    return Record(*record_fields({key: about[key] for key in RECORD}, None))


def _changed(prep: Preprocessing, changes: Preprocessing | Mapping[str, Any] | None) -> Preprocessing:
    if changes is None or isinstance(changes, Preprocessing):
        return changes or prep
    try:
        return replace(prep, **changes)
    except TypeError as error:
        raise ConfigurationError(f"preprocessing: {error}; its settings are {', '.join(prep.to_dict())}") from None
