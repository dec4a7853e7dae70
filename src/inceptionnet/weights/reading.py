"""Any weights file, or address on the hub, as one thing: what it says of itself, its tensors, and a report of both.

This package's own files say everything in their metadata. A published file of another library is recognised by its
names (translate.py); classes and preprocessing then come, in this order, from whoever asks, from the description beside
it on the hub, from what is known of the published file of that name (known.py), or from how that layout was published.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import floor
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.data.imagenet import imagenet_classes
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import InceptionNetError, WeightsError
from inceptionnet.model import InceptionNet
from inceptionnet.weights.fitting import fitted
from inceptionnet.weights.formats import Stored, open_weights
from inceptionnet.weights.hub import fetch, is_address
from inceptionnet.weights.known import Published, published_as, published_at
from inceptionnet.weights.native import Record, is_native, record_of
from inceptionnet.weights.translate import BACKGROUND, translate

log = logging.getLogger("inceptionnet")


@dataclass(frozen=True)
class Report:
    """How a file was read, for people and for the metadata of what is written from it."""

    source: str
    format: str
    layout: str
    network: str
    others: tuple[str, ...]
    """Networks that the file fits as well; `name` chooses one."""
    mapped: int
    """Tensors taken."""
    dropped: Mapping[str, str]
    made_up: Mapping[str, str]
    changed: tuple[str, ...]
    classes: str
    preprocessing: str
    """Where each of the two comes from."""
    published: str = ""
    """The published file that this is by its name, with its licence."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was opened."""

    path: Path
    record: Record
    tensors: Mapping[str, Tensor] = field(repr=False)
    report: Report

    def model(self, **changes: Any) -> InceptionNet:
        """The network with the file's weights; `changes` are arguments of `create_model` that shall differ from it.

        Raises:
            ConfigurationError: a change that cannot be made.
            WeightsError: tensors that do not fit the network, or are not finite.
        """
        held = self.record.configuration
        asked = dict(changes)
        if asked.get("num_classes") == 0:
            asked.setdefault("aux", False)
        model = fitted(replace(held, **asked), self.tensors, held, self.path)
        channels = model.configuration.in_channels
        prep = self.record.preprocessing
        model.preprocessing = prep if prep.channels == channels else with_channels(prep, channels)
        return model

    def classifier(self) -> Record:
        """The record of a file that classes can be predicted with.

        Raises:
            WeightsError: a file without classifier.
        """
        if self.record.configuration.num_classes == 0:
            raise WeightsError(
                f"{self.path}: has no classifier, so that it predicts no classes; train one on top of it"
            )
        return self.record


def read_weights(source: str | Path, *, name: str | None = None, keep_background: bool = False) -> WeightsFile:
    """Open a weights file of any known format and layout, or fetch one from the hub (`hf:owner/name`).

    Args:
        name: the network expected; left out, the file says it, or its layout decides.
        keep_background: all of 1001 classes, the background too.

    Raises:
        WeightsError: no such file, of no known format or layout, damaged, or of another network.
        MissingExtraError: the format or the hub needs a package that is not installed.
    """
    config: Mapping[str, Any] = {}
    known: Published | None
    if is_address(str(source)):
        fetched = fetch(str(source))
        path, title, config = fetched.path, fetched.address, fetched.config
        known = published_at(str(source))
        if known and known.sha256 and str(source) == known.source:
            _check_hash(path, known)
    else:
        path = Path(source)
        title, known = path.name, published_as(path.name)
        if known and known.sha256 and path.is_file():
            _check_hash(path, known)
    stored = open_weights(path)
    if is_native(stored.metadata):
        return _own(stored, title, name)
    return _published(stored, title, name, keep_background, config, known)


def read_record(source: str | Path) -> Record:
    """What a weights file says of itself: network, classes, preprocessing, provenance; see `read_weights`.

    Raises:
        WeightsError: as `read_weights`.
    """
    return read_weights(source).record


def load_model(source: str | Path, *, name: str | None = None, **changes: Any) -> InceptionNet:
    """The network that a weights file describes, with its weights.

    Args:
        source: a weights file of any known format and layout, or an address on the hub (`hf:owner/name`).
        name: the network expected; left out, the file says it, or its layout decides.
        changes: arguments of `create_model` that shall differ from the file's. What the file cannot fill then (logits
            for other classes, auxiliary heads it lacks) starts anew, and a line in the log says so; 0 classes leave
            the classifier out; other input channels get kernels that are summed (one) or repeated.

    Raises:
        WeightsError: no weights file, one of another network, or tensors that do not fit.
    """
    return read_weights(source, name=name, keep_background=changes.get("num_classes") == BACKGROUND).model(**changes)


def _own(stored: Stored, title: str, name: str | None) -> WeightsFile:
    record = record_of(stored.metadata, stored.path)
    held = record.configuration.name
    if name is not None and name != held:
        raise WeightsError(f"{stored.path}: holds {held}, not {name}; leave the name out or change it")
    report = Report(
        title, stored.format, "inceptionnet", held, (), len(stored.tensors), {}, {}, (), "the file", "the file"
    )
    return WeightsFile(stored.path, record, stored.tensors, report)


def _published(
    stored: Stored, title: str, name: str | None, keep: bool, config: Mapping[str, Any], known: Published | None
) -> WeightsFile:
    """A file of another library."""
    found = translate(stored, name=name, keep_background=keep)
    layout, configuration = found.layout, found.configuration
    held = (configuration.num_classes or 0) + found.background
    if known and (known.network not in layout.networks or known.classes != held):
        known = None  # somebody's own file of the same name
    classes, classes_from = _class_names(configuration.num_classes or 0, layout.by_classes, keep)
    prep, prep_from = _preprocessing(layout.preprocessing, config, known)
    if configuration.in_channels != prep.channels:
        prep = with_channels(prep, configuration.in_channels)
    report = Report(
        source=title,
        format=stored.format,
        layout=layout.name,
        network=configuration.name,
        others=tuple(other for other in layout.networks if other != configuration.name),
        mapped=len(found.tensors) - len(found.made_up),
        dropped=found.dropped,
        made_up=found.made_up,
        changed=(*stored.notes, *found.changed),
        classes=classes_from,
        preprocessing=prep_from,
        published=f"{known.name} ({known.license})" if known else "",
    )
    provenance: dict[str, Any] = {
        "source": title, "layout": layout.name, "changed": list(report.changed), "preprocessing": prep_from,
        "classes": classes_from,
    }  # fmt: skip
    if known:
        provenance["published"] = {key: getattr(known, key) for key in ("name", "license", "top1", "top5")}
    if report.others and name is None:
        log.info(
            "%s: read as %s (%s); it fits %s as well, which the name chooses",
            title, report.network, report.layout, " and ".join(report.others),
        )  # fmt: skip
    return WeightsFile(stored.path, Record(configuration, classes, prep, provenance), found.tensors, report)


def _class_names(count: int, by_classes: Mapping[int, str], keep: bool) -> tuple[tuple[str, ...], str]:
    """Names of the classes, and where they come from."""
    if count == 1000:
        return imagenet_classes(), "ImageNet's, since there are 1000"
    if count == BACKGROUND and keep:
        return ("background", *imagenet_classes()), "ImageNet's with the background first, since there are 1001"
    if count in by_classes:
        return tuple(map(str, range(count))), "numbers: the order of the 2015 graph's classes is not ImageNet's"
    return tuple(map(str, range(count))), "numbers: the file has no names" if count else "none: no classifier"


def _preprocessing(
    usual: Preprocessing, config: Mapping[str, Any], known: Published | None
) -> tuple[Preprocessing, str]:
    """How images are made into input, and where that comes from."""
    stated = config.get("pretrained_cfg")
    if isinstance(stated, Mapping):
        try:
            return _of_timm(stated), "config.json beside the file"
        except (KeyError, TypeError, ValueError, ArithmeticError, InceptionNetError):
            log.warning("config.json beside the file: its preprocessing cannot be used; the layout's is")
    if known:
        return known.preprocessing, f"known of {known.name}"
    return usual, "as this layout was published; state another if the weights were trained otherwise"


def _of_timm(stated: Mapping[str, Any]) -> Preprocessing:
    """What timm's `pretrained_cfg` says."""
    channels, size_px, _ = stated["input_size"]
    return Preprocessing(
        size_px=size_px,
        crop=size_px / floor(size_px / stated["crop_pct"]),  # it resizes to whole pixels, and rounds down
        resize="squash" if stated.get("crop_mode") == "squash" else "keep-aspect",
        interpolation=stated["interpolation"],
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        channels=channels,
    )


def with_channels(prep: Preprocessing, channels: int) -> Preprocessing:
    """The same for another number of channels, each with the mean of the means and of the deviations."""
    mean, std = (sum(values) / len(values) for values in (prep.mean, prep.std))
    return replace(prep, channels=channels, mean=(mean,), std=(std,))


def _check_hash(path: Path, known: Published) -> None:
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if not got.startswith(known.sha256):
        raise WeightsError(
            f"{path}: named as the published {known.name}, whose SHA-256 begins with {known.sha256}, but has "
            f"{got[:16]}…; get it anew, or rename it if it is your own"
        )
