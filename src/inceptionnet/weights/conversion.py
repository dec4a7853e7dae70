"""Converting any known weights file into this package's own format, with a report of what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.fitting import describe_channels
from inceptionnet.weights.native import save_weights
from inceptionnet.weights.origins import with_channels
from inceptionnet.weights.reading import Report, opened_weights
from inceptionnet.weights.record import GIVEN, NUMBERED, with_activation


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    head: str | None = None,
    **changes: Any,
) -> Report:
    """Convert a weights file of another library to this package's format, which every command takes.

    Args:
        source: a file in any known format and layout, or an address on the hub (`hf:owner/name`).
        destination: the .safetensors file to write; an existing file is replaced.
        name: the network, where the file fits several.
        classes: class names in the order of the logits; default: the file's, or ImageNet's if there are 1000.
        preprocessing: the preprocessing, or only the settings that differ from the published one; default: as
            published.
        head: of a PyTorch file that does not tell it, see `read_weights`.
        changes: arguments of `create_model`, such as num_classes, in_channels, aux or activation.

    Raises:
        WeightsError: the source cannot be read, or the destination cannot be written.
        ConfigurationError: an argument that cannot be used, or a wrong number of class names.
    """
    keep = changes.get("num_classes") == 1001
    read = opened_weights(source, name=name, keep_background=keep, head=head)
    if (activation := changes.get("activation")) is not None:
        read = replace(read, record=with_activation(read.record, activation))
    held, report = read.record, read.report
    model, fresh = read.fit(**changes)
    if isinstance(preprocessing, Mapping):
        prep = replace(held.preprocessing, **preprocessing)
    else:
        prep = preprocessing or held.preprocessing
    done = list(report.changed)
    if prep.channels != model.network.in_channels:
        prep = with_channels(prep, model.network.in_channels)
    if model.network.in_channels != held.configuration.in_channels:
        done.append(f"first layer {describe_channels(held.configuration.in_channels, model.network.in_channels)}")
    if preprocessing is None and changes.get("input_size"):
        prep = replace(prep, size_px=changes["input_size"])
    same = model.outputs.classes == len(held.classes)
    names = tuple(classes) if classes is not None else held.classes if same else ()
    if not same:
        done.append(f"new classifier for {model.num_classes} classes" if model.num_classes else "classifier removed")
    origin = GIVEN if classes is not None else report.classes if same else f"{NUMBERED}: the classifier is new"
    told = {**held.provenance, "changed": done}
    if classes is not None or not same:
        told["classes"] = origin
    save_weights(model, destination, classes=names, preprocessing=prep, provenance=told)
    return replace(
        report,
        changed=tuple(done),
        initialised={**report.initialised, **dict.fromkeys(fresh, "randomly initialised")},
        classes=origin,
        preprocessing="given" if preprocessing else report.preprocessing,
    )
