"""Reading any weights file, local or on the hub: its record (network, classes, preprocessing), tensors and a report.

This package's own files hold the record in their metadata. A file of another library is recognised by its tensor names
(translate.py). Its classes and preprocessing come from the first of these that has them: the caller, config.json
beside the file on the hub, what is known of the published file of that name (known.py), how the layout was published.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.edits import check_edits
from inceptionnet.system.opening import WEIGHTS_BYTES, opened
from inceptionnet.weights.bare import BARE
from inceptionnet.weights.description import described, undescribed
from inceptionnet.weights.fitting import fitted
from inceptionnet.weights.folder import HUB_WEIGHTS, weights_of
from inceptionnet.weights.formats import Stored, open_weights
from inceptionnet.weights.hub import config_in, fetch, is_address
from inceptionnet.weights.known import Published, published_as, published_at
from inceptionnet.weights.native import is_native, record_of
from inceptionnet.weights.origins import BACKGROUND, class_names, preprocessing, with_channels
from inceptionnet.weights.record import Record
from inceptionnet.weights.translate import AVERAGE_POOL, translate

log: logging.Logger = logging.getLogger("inceptionnet")


@dataclass(frozen=True)
class Report:
    """How a file was read; shown to the user and kept in the metadata of files written from it."""

    source: str
    format: str
    layout: str
    network: str
    others: tuple[str, ...]
    """Other networks that the file fits; `name` chooses one."""
    mapped: int
    """Number of tensors loaded from the file."""
    dropped: Mapping[str, str]
    """Tensors of the file that are not used, each with the reason."""
    initialised: Mapping[str, str]
    """Tensors that the file has no values for: "randomly initialised", or "computed: " and how."""
    changed: tuple[str, ...]
    """One line for each conversion step that is more than a renaming."""
    classes: str
    """Where the class names come from."""
    preprocessing: str
    """Where the preprocessing comes from."""
    assumed: tuple[str, ...] = ()
    """One clause for each thing about the network's function that the file does not say."""
    published: str = ""
    """The published file of the same name, with its licence."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was opened."""

    path: Path
    record: Record
    tensors: Mapping[str, Tensor] = field(repr=False)
    report: Report

    def model(self, **changes: Any) -> InceptionNet:
        """The network with the file's weights; `changes` are arguments of `create_model` that differ from the file's.

        Raises:
            ConfigurationError: an argument that cannot be used.
            WeightsError: tensors that do not fit the network, or are not finite.
        """
        return self.fit(**changes)[0]

    def fit(self, **changes: Any) -> tuple[InceptionNet, tuple[str, ...]]:
        """As `model`, with the names of the tensors that are randomly initialised. Raises: as `model`."""
        held = self.record.configuration
        asked = dict(changes)
        if asked.get("num_classes") == 0:
            asked.setdefault("aux", False)
        configuration = replace(held, **asked)
        if "edits" in asked:
            check_edits(configuration)
        model, initialised = fitted(configuration, self.tensors, held, self.path)
        channels = model.configuration.in_channels
        prep = self.record.preprocessing
        model.preprocessing = prep if prep.channels == channels else with_channels(prep, channels)
        return model, initialised

    @property
    def assumed(self) -> str:
        """In one line, what was assumed about a file of another library; empty for this package's own.

        Said of a file that was converted from one too.
        """
        told = self.record.provenance
        if "layout" not in told:
            return ""
        parts = [
            f"read as {self.record.configuration.name} ({told['layout']})",
            f"preprocessing: {_origin(told.get('preprocessing'))}",
            f"class names: {_origin(told.get('classes'))}",
        ]
        said = told.get("assumed")
        parts += map(str, said) if isinstance(said, list) else ()
        if self.report.others:
            parts.append(f"it fits {' and '.join(self.report.others)} too")
        if self.report.dropped:
            parts.append(f"not used: {listed(self.report.dropped, 3)}")
        return "; ".join(parts)


def _origin(origin: object) -> str:
    """Where something comes from, as it was reported when the file was read."""
    return str(origin).partition(";")[0] if origin else "of unknown origin"


def read_weights(
    source: str | Path, *, name: str | None = None, keep_background: bool = False, head: str | None = None
) -> WeightsFile:
    """Open a weights file of any known format and layout, or fetch one from the hub (`hf:owner/name`).

    A run folder stands for the weights in it.

    Args:
        name: the expected network; default: as the file or its layout says.
        keep_background: keep all of 1001 classes, including the background.
        head: of a PyTorch file that does not tell it, the layers between the last grid and the logits, in order: names
            of layers in the file and functions, such as "fc1 relu fc2"; first, if it is not the average, the global
            pool (max, avgmax, catavgmax), last sigmoid for logits that have it.

    Raises:
        WeightsError: no such file, an unknown format or layout, a damaged file, or another network.
        MissingExtraError: the format or the hub needs a package that is not installed.
    """
    read = opened_weights(source, name=name, keep_background=keep_background, head=head)
    if name is None and (others := read.report.others):
        log.info(
            "%s: read as %s (%s); it also fits %s: choose it by name, or with convert --model",
            read.report.source, read.report.network, read.report.layout, listed(others, ordered=True, last="and"),
        )  # fmt: skip
    return read


def opened_weights(
    source: str | Path, *, name: str | None = None, keep_background: bool = False, head: str | None = None
) -> WeightsFile:
    """As `read_weights`, for callers that say themselves which of several networks that fit the file is read as."""
    config: Mapping[str, Any] = {}
    known: Published | None
    source = weights_of(source)
    if is_address(source):
        fetched = fetch(source)
        path, title, config = fetched.path, fetched.address, fetched.config
        known = published_at(source)
        if known and known.sha256 and source == known.source:
            _check_hash(path, known)
    else:
        path = Path(source)
        title, known = path.name, published_as(path.name)
        if path.name == HUB_WEIGHTS:
            config = config_in(path.parent)
        if known and known.sha256 and path.is_file():
            _check_hash(path, known)
    stored = open_weights(path)
    if is_native(stored.metadata):
        return _own(stored, title, name)
    return _published(stored, title, name, keep_background, head, config, known)


def read_record(source: str | Path) -> Record:
    """A weights file's record: network, classes, preprocessing, provenance; see `read_weights`.

    Raises:
        WeightsError: as `read_weights`.
    """
    return read_weights(source).record


def load_model(source: str | Path, *, name: str | None = None, head: str | None = None, **changes: Any) -> InceptionNet:
    """Load a network with its weights from a file.

    Args:
        source: a weights file of any known format and layout, or an address on the hub (`hf:owner/name`).
        name: the expected network; default: as the file or its layout says.
        head: as for `read_weights`.
        changes: arguments of `create_model` that differ from the file's. Layers that the file has no weights for
            (logits for other classes, auxiliary heads) are randomly initialised and logged; num_classes=0 removes the
            classifier; for other input channels the first kernels are summed (one channel) or repeated.

    Raises:
        WeightsError: not a weights file, another network, or tensors that do not fit.
    """
    keep = changes.get("num_classes") == BACKGROUND
    return read_weights(source, name=name, keep_background=keep, head=head).model(**changes)


def _own(stored: Stored, title: str, name: str | None) -> WeightsFile:
    record = record_of(stored)
    held = record.configuration.name
    if name is not None and name != held:
        raise WeightsError(f"{stored.path}: expected {name}, got {held}; omit the name or change it")
    report = Report(
        title, stored.format, "inceptionnet", held, (), len(stored.tensors), {}, {}, (), "the file", "the file"
    )
    return WeightsFile(stored.path, record, stored.tensors, report)


def _published(
    stored: Stored,
    title: str,
    name: str | None,
    keep: bool,
    head: str | None,
    config: Mapping[str, Any],
    known: Published | None,
) -> WeightsFile:
    """A file of another library."""
    own = described(stored, name)
    found = own.translation if own else translate(stored, name=name, keep_background=keep, head=head)
    said = () if own else undescribed(found, stored)
    layout, configuration = found.layout, found.configuration
    held = (configuration.num_classes or 0) + found.background
    if known and (known.network not in layout.networks or known.classes != held):
        known = None  # somebody's own file of the same name
    classes, classes_from, told = class_names(configuration, stored, layout, keep, config)
    if own:
        prep, prep_from = own.preprocessing, own.origin
    else:
        prep, prep_from = preprocessing(layout.preprocessing, config, known, found.normalisation)
    assumed = (*said, *(clause for clause in found.assumed if not (known and clause == AVERAGE_POOL)))
    if configuration.in_channels != prep.channels:
        prep = with_channels(prep, configuration.in_channels)
    used = {place.partition(".")[0] for place in told}
    report = Report(
        source=title,
        format=stored.format,
        layout=layout.name,
        network=configuration.name,
        others=tuple(other for other in layout.networks if other != configuration.name),
        mapped=len(found.tensors) - len(found.initialised),
        dropped={name: reason for name, reason in found.dropped.items() if name not in used},
        initialised=found.initialised,
        changed=(*stored.notes, *found.changed),
        classes=classes_from,
        preprocessing=prep_from,
        assumed=assumed,
        published=f"{known.name} ({known.license})" if known else "",
    )
    provenance: dict[str, Any] = {
        "source": title, "layout": layout.name, "changed": list(report.changed), "preprocessing": prep_from,
        "classes": classes_from, "assumed": list(assumed),
    }  # fmt: skip
    if known:
        provenance["published"] = {key: getattr(known, key) for key in ("name", "license", "top1", "top5")}
    for note in found.changed if layout.name == BARE else ():
        log.info("%s: %s", title, note)
    return WeightsFile(stored.path, Record(configuration, classes, prep, provenance), found.tensors, report)


def _check_hash(path: Path, known: Published) -> None:
    with opened(path, WEIGHTS_BYTES) as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if not got.startswith(known.sha256):
        raise WeightsError(
            f"{path}: named like the published {known.name}, whose SHA-256 starts with {known.sha256}, but has "
            f"{got[:16]}…; download it again, or rename it if it is your own"
        )
