"""Class names and preprocessing of a file of another library, and where they come from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor
from typing import Any

from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import InceptionNetError, listed, one_line
from inceptionnet.nets.edits import Configuration
from inceptionnet.system.opening import from_json
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.formats.class_names import class_names_in
from inceptionnet.weights.known import Published
from inceptionnet.weights.layouts import Layout
from inceptionnet.weights.record import NUMBERED, numbers, outputs_of

BACKGROUND = 1001
"""Classes of an ImageNet classifier whose class 0 is the background."""
log: logging.Logger = logging.getLogger("inceptionnet")


def class_names(
    configuration: Configuration, stored: Stored, layout: Layout, keep: bool, config: Mapping[str, Any]
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Class names, where they come from (the file, else ImageNet's if their number fits, else numbers), and the lists
    in the file that this tells of, by place. `config` is the content of config.json beside it."""
    outputs = outputs_of(configuration)
    count, numbered = outputs.classes, numbers(outputs)
    beside = {f"config.json ({place})": names for place, names in class_names_in(config).items() if names}
    named = {**stored.class_names, **_of_metadata(stored.metadata), **beside}
    fits = {place: names for place, names in named.items() if not _misfit(names, count)}
    if fits and len(set(fits.values())) == 1:
        return next(iter(fits.values())), f"the file's {listed(fits, last='and')}", tuple(fits)
    if len(set(fits.values())) > 1:
        disagree = f"{NUMBERED}: the file's {listed(fits, last='and')} disagree on their order"
        return numbered, f"{disagree}; give the names with --classes, here or in convert", tuple(fits)
    other = ""
    if named and count:
        found = listed(f"{place} {_misfit(names, count)}" for place, names in named.items())
        other = f" ({found} for {count} classes)"
    told = tuple(named) if other else ()
    if count == 1000:
        return imagenet_classes(), f"ImageNet's, since there are 1000{other}", told
    if count == BACKGROUND and keep:
        return ("background", *imagenet_classes()), "ImageNet's after the background, since there are 1001", ()
    if count in layout.by_classes:
        return numbered, f"{NUMBERED}: the 2015 graph orders its classes differently from ImageNet", ()
    if not count:
        return (), "none: no classifier", ()
    reason = f"the file's names do not fit{other}" if other else "the file has no names"
    return numbered, f"{NUMBERED}: {reason}", told


def _misfit(names: Sequence[str], count: int) -> str:
    """Why names that a file has cannot be those of so many classes; empty if they can."""
    if not names:
        return "is no list of names and not numbered from 0 without gaps"
    if len(names) != count:
        return f"has {len(names)}"
    odd = [name for name, times in Counter(names).items() if times > 1 or not name.strip() or not name.isprintable()]
    return f"has {one_line(repr(odd[0]), 40)}, blank, twice or of several lines" if odd else ""


def _of_metadata(metadata: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Class names in the metadata of a safetensors file, whose values are texts."""
    content: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            content[key] = from_json(text)
        except ValueError:
            continue
    return class_names_in(content)


def preprocessing(
    usual: Preprocessing,
    config: Mapping[str, Any],
    known: Published | None,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> tuple[Preprocessing, str]:
    """The preprocessing, and where it comes from; `normalisation` is a part of the file's own network."""
    prep, origin = _stated(usual, config, known)
    if normalisation is None:
        return prep, origin
    mean, std = normalisation
    prep = replace(prep, mean=mean, std=std, channels=max(prep.channels, len(mean)))
    return prep, f"mean and std: the file's own normalisation of images in [0, 1]; the rest: {origin}"


def _stated(usual: Preprocessing, config: Mapping[str, Any], known: Published | None) -> tuple[Preprocessing, str]:
    stated = config.get("pretrained_cfg") or (config if {"mean", "std", "input_size"} <= config.keys() else None)
    if isinstance(stated, Mapping):
        try:
            return _of_timm(stated), "config.json beside the file"
        except (KeyError, TypeError, ValueError, ArithmeticError, InceptionNetError):
            log.warning("config.json beside the file: its preprocessing cannot be used; using the layout's default")
    if known:
        return known.preprocessing, f"published for {known.name}"
    return usual, "the layout's default; give another if the weights were trained differently"


def _of_timm(stated: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that timm's `pretrained_cfg` states."""
    channels, size_px, _ = stated["input_size"]
    return Preprocessing(
        size_px=size_px,
        crop=size_px / floor(size_px / stated["crop_pct"]),  # timm resizes to whole pixels, rounded down
        resize="squash" if stated.get("crop_mode") == "squash" else "keep-aspect",
        interpolation=stated["interpolation"],
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        channels=channels,
    )


def with_channels(prep: Preprocessing, channels: int) -> Preprocessing:
    """The same for another number of channels, all with the average of `mean` and of `std`."""
    mean, std = (sum(values) / len(values) for values in (prep.mean, prep.std))
    return replace(prep, channels=channels, mean=(mean,), std=(std,))
