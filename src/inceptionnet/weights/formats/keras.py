"""Keras's weights files: .h5 of a whole model or of weights, .weights.h5, and the .keras archive.

A variable is named `<layer>/<variable>`, without the names of enclosing models: `conv2d_3/kernel`,
`batch_normalization_3/moving_mean`. Values keep Keras's shapes. If the file has no layer names, they come from the
model's configuration, which is read but never built or executed. Without either, as before Keras 3.6, `conv2d@3` is
the fourth layer of its type in `model.layers`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.errors import WeightsError, listed, one_line
from inceptionnet.system.opening import from_json
from inceptionnet.system.zips import Zip
from inceptionnet.weights.formats.hdf5 import Hdf5, opened
from inceptionnet.weights.formats.stored import Stored, damaged

WEIGHTS, CONFIG = "model.weights.h5", "config.json"
# Weights hardly compress: a member that unpacks to far more than the archive is not weights.
MAX_RATIO, RATIO_FROM_BYTES = 4, 2**20
KERNEL_BIAS = {1: ("kernel",), 2: ("kernel", "bias")}
# Native files number the variables of a layer: trainable ones first, each in order of creation. A batch norm with
# three variables has no gamma, as in Keras's Inception models.
VARIABLES: dict[str, dict[int, tuple[str, ...]]] = {
    "conv2d": KERNEL_BIAS,
    "depthwise_conv2d": KERNEL_BIAS,
    "dense": KERNEL_BIAS,
    "separable_conv2d": {
        2: ("depthwise_kernel", "pointwise_kernel"),
        3: ("depthwise_kernel", "pointwise_kernel", "bias"),
    },
    "batch_normalization": {
        2: ("moving_mean", "moving_variance"),
        3: ("beta", "moving_mean", "moving_variance"),
        4: ("gamma", "beta", "moving_mean", "moving_variance"),
    },
    "normalization": {3: ("mean", "variance", "count")},
}
# Names of layer classes in the paths of a native file; other classes have no relevant variables.
IN_PATHS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "Dense": "dense",
    "SeparableConv2D": "separable_conv2d",
    "Normalization": "normalization",
    "BatchNormalization": "batch_normalization",
    "Functional": "functional",
    "Model": "model",
    "Sequential": "sequential",
}
NOT_WEIGHTS = {
    "optimizer": "optimiser state",
    "optimizer_weights": "optimiser state",
    "metrics": "metrics",
    "top_level_model_weights": "not part of a layer",
}


def read_keras_h5(path: Path) -> Stored:
    """The variables of a Keras HDF5 file.

    Raises:
        WeightsError: not Keras weights, a damaged file, or one that refers to other files.
        MissingExtraError: h5py is not installed.
    """
    return _read(path, path, {})


def read_keras_archive(path: Path) -> Stored:
    """The variables of a .keras archive. Raises: as read_keras_h5."""
    most = max(RATIO_FROM_BYTES, MAX_RATIO * path.stat().st_size)
    try:
        with Zip(path) as archive, tempfile.TemporaryDirectory() as folder:
            for member in (archive.getinfo(CONFIG), archive.getinfo(WEIGHTS)):
                if member.file_size > most:
                    raise WeightsError(
                        f"{path}: expected weights, got {member.filename} that unpacks from {member.compress_size} to "
                        f"{member.file_size} bytes; get the file again"
                    )
            description = from_json(archive.read(CONFIG))
            unpacked = Path(folder) / WEIGHTS
            with archive.open(WEIGHTS) as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            return _read(unpacked, path, description if isinstance(description, dict) else {})
    except (KeyError, ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from None


def _read(file: Path, path: Path, description: Mapping[str, Any]) -> Stored:
    with opened(file, path) as content:
        description = description or _described(content)
        model = content.member(content.root, "model_weights")
        root = content.root if model is None else model
        beside = {name: content.member(root, name) or content.member(content.root, name) for name in NOT_WEIGHTS}
        dropped = {name: NOT_WEIGHTS[name] for name, group in beside.items() if group is not None and len(group)}
        legacy = "layer_names" in root.attrs or "layer_names0" in root.attrs
        found = _legacy(content, root) if legacy else _native(content, dict(_layers_in(description)), dropped)
        tensors: dict[str, Tensor] = {}
        for name, dataset in found:
            tensor = content.tensor(dataset)
            if not name.isprintable():
                raise damaged(path, f"an unprintable name: {one_line(name, 40)}")
            if not tensor.is_floating_point():
                dropped[name] = "not floating point"
            elif name in tensors:
                raise WeightsError(
                    f"{path}: expected unique names, got two variables {name}; save a model of one network"
                )
            else:
                tensors[name] = tensor
        if not tensors:
            held = one_line(listed(content.root), 80) if len(content.root) else "nothing"
            raise WeightsError(
                f"{path}: expected an HDF5 file with a Keras model's variables, got one with {held}; give another"
            )
        return Stored(path, "Keras", tensors, {}, dropped, description=description)


def _described(content: Hdf5) -> dict[str, Any]:
    """The description of the whole model in an .h5, with its loss; empty in a file of weights alone."""
    found = {name: content.text(content.root, name) for name in ("model_config", "training_config")}
    read = {name: from_json(text) for name, text in found.items() if text}
    model, training = read.get("model_config"), read.get("training_config")
    return {**model, "compile_config": training} if isinstance(model, dict) else {}


def _legacy(content: Hdf5, root: Any) -> Iterator[tuple[str, Any]]:
    """Variables named by the last two parts of their paths, layer and variable.

    The attributes that list these names are not read: if they are damaged, HDF5 allocates gigabytes.
    """
    for group in content.groups(root):
        below = group.name.removeprefix(root.name).strip("/")
        if below.partition("/")[0] in NOT_WEIGHTS:
            continue
        for name, dataset in content.datasets(group).items():
            yield "/".join([*below.split("/"), re.sub(r":\d+$", "", name)][-2:]), dataset


def _native(
    content: Hdf5, layers: Mapping[str, tuple[str, Mapping[str, Any]]], dropped: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    """Variables named by their layer, from `layers` or (in recent files) an attribute, and their number in `vars`."""
    for group in content.groups(content.root):
        inside, _, last = group.name.strip("/").rpartition("/")
        datasets = content.datasets(group) if last == "vars" else {}
        if not datasets or inside.partition("/")[0] in NOT_WEIGHTS:
            continue
        kind = re.sub(r"_\d+$", "", inside.rpartition("/")[2])
        path = inside.replace("_layer_checkpoint_dependencies", "layers")
        layer, config = layers.get(path, ("", {}))
        variables = VARIABLES.get(kind, {}).get(len(datasets))
        if config.get("center") is False and config.get("scale") is True and len(datasets) == 3:
            variables = ("gamma", "moving_mean", "moving_variance")
        if variables is None or datasets.keys() != {str(i) for i in range(len(datasets))}:
            dropped[inside or "vars"] = f"{len(datasets)} variables of a {kind or 'model'}, of unknown names"
            continue
        # Keras before 3.6 wrote no names: the number is the position among the layers of that class in `model.layers`.
        number = re.search(r"_(\d+)$", inside)
        layer = layer or content.text(group, "name") or f"{kind}@{number[1] if number else 0}"
        for i, variable in enumerate(variables):
            yield f"{layer}/{variable}", datasets[str(i)]


def _layers_in(model: Any, above: str = "") -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
    """Name and configuration of layers by path in a native file, which numbers the layers of a class in their model."""
    counts: Counter[str] = Counter()
    config = model.get("config") if isinstance(model, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        known = IN_PATHS.get(str(layer.get("class_name"))) if isinstance(layer, dict) else None
        if known is None:
            continue
        path = f"{above}layers/{known}" + (f"_{counts[known]}" if counts[known] else "")
        counts[known] += 1
        inner = layer.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            yield path, (inner["name"], inner)
        yield from _layers_in(layer, f"{path}/")
