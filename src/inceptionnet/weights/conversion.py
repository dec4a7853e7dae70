"""Any known weights file into this package's own format, with a report of what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.weights.fitting import told_of_channels
from inceptionnet.weights.native import save_weights
from inceptionnet.weights.reading import Report, read_weights, with_channels


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Report:
    """Write a weights file of another library as one of this package's, which any command takes.

    Args:
        source: a file in any known format and layout, or an address on the hub (`hf:owner/name`).
        destination: the .safetensors file to write; one that is there is replaced whole.
        name: the network, where the file fits several.
        classes: names in the order of the logits; left out, the file's, or ImageNet's where there are 1000.
        preprocessing: how images become input, or only what of it is not as published; left out, as published.
        changes: arguments of `create_model`, such as num_classes, in_channels or aux.

    Raises:
        WeightsError: the file cannot be read, or the other cannot be written.
        ConfigurationError: a change that cannot be made, or not one name for each class.
    """
    read = read_weights(source, name=name, keep_background=changes.get("num_classes") == 1001)
    held, report = read.record, read.report
    model = read.model(**changes)
    if isinstance(preprocessing, Mapping):
        prep = replace(held.preprocessing, **preprocessing)
    else:
        prep = preprocessing or held.preprocessing
    done = list(report.changed)
    if prep.channels != model.network.in_channels:
        prep = with_channels(prep, model.network.in_channels)
    if model.network.in_channels != held.configuration.in_channels:
        done.append(f"first layer {told_of_channels(held.configuration.in_channels, model.network.in_channels)}")
    if preprocessing is None and changes.get("input_size"):
        prep = replace(prep, size_px=changes["input_size"])
    same = model.num_classes == len(held.classes)
    names = tuple(classes) if classes is not None else held.classes if same else ()
    if not same:
        done.append(
            f"classifier for {model.num_classes} classes started anew" if model.num_classes else "classifier left out"
        )
    save_weights(model, destination, classes=names, preprocessing=prep, provenance={**held.provenance, "changed": done})
    return replace(
        report,
        changed=tuple(done),
        classes="given" if classes is not None else report.classes if same else "numbers: the classifier is new",
        preprocessing="given" if preprocessing else report.preprocessing,
    )
