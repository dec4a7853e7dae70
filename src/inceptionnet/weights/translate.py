"""Mapping a published file's tensors to a network of this package: recognise the layout, then map every layer.

A layer that the file lacks is an error. Tensors that are not used are reported with the reason, and so is every value
that is computed (a gamma of 1, a bias folded into batch norm's mean).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.model.build import tensors_of
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import Row, analyse
from inceptionnet.nets.arguments import other_embedding
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Conv, Linear, Network, SeparableConv
from inceptionnet.weights.bare import bare, bare_tensors
from inceptionnet.weights.beside import beside, channels_of
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.heads import Head, head_of
from inceptionnet.weights.layouts import Layout
from inceptionnet.weights.layouts.keras import named
from inceptionnet.weights.module_body import check_body
from inceptionnet.weights.module_heads import check_eps, inside_of, module_head
from inceptionnet.weights.origins import BACKGROUND
from inceptionnet.weights.recognise import Found, recognise
from inceptionnet.weights.strangers import changed_weights, reparametrised
from inceptionnet.weights.torch_heads import TorchHead, read_head, stated_head

AVERAGE_POOL = "global average pool assumed"
"""Of a state dict, which does not say it (timm's networks have other pools too)."""


@dataclass(frozen=True)
class Translation:
    """A published file's tensors under this package's names."""

    layout: Layout
    configuration: Configuration
    tensors: Mapping[str, Tensor]
    """By this package's names; views of the file's tensors except where values are computed."""
    background: bool
    """Whether the file's class 0 is ImageNet's background, which was removed."""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the file that are not used, each with the reason."""
    initialised: Mapping[str, str] = field(default_factory=dict)
    """Tensors that the file has no values for, each with how it was computed."""
    changed: tuple[str, ...] = ()
    """One line for each value that was computed or derived."""
    assumed: tuple[str, ...] = ()
    """One clause for each thing about the function that the file does not say."""
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std that the file's own network subtracts from and divides images in [0, 1] by."""


def translate(
    stored: Stored, *, name: str | None = None, keep_background: bool = False, head: str | None = None
) -> Translation:
    """Map the file's tensors to the names of the network that they belong to.

    Args:
        name: one of the networks that the layout fits; default: the one that reproduces the publisher's own code.
        keep_background: keep all of 1001 classes.
        head: of a PyTorch file, the layers between the last grid and the logits, where the file does not tell.

    Raises:
        WeightsError: an unknown layout, missing layers, or a network that the layout does not fit.
    """
    if own := bare_tensors(stored):
        layout, configuration = bare(own, name)
        derived = () if configuration.width == 1 else (f"width {configuration.width:g}, from the tensors' shapes",)
        return Translation(layout, configuration, own.tensors, background=False, dropped=own.dropped, changed=derived)
    if why := changed_weights(stored.tensors):
        raise WeightsError(f"{stored.path}: {why}")
    tensors = named(stored.tensors) if stored.format == "Keras" else dict(stored.tensors)
    return _Translator(stored, tensors, recognise(tensors, stored), name, keep_background, head).run()


class _Translator:
    """The state of one translation: tensors used, missing and computed so far."""

    def __init__(
        self,
        stored: Stored,
        tensors: Mapping[str, Tensor],
        found: Found,
        name: str | None,
        keep_background: bool,
        stated: str | None,
    ) -> None:
        self.stored, self.found, self.tensors = stored, found, found.tensors
        self.layout, self.style = found.layout, found.layout.style
        known = {*found.copies, *found.origin.values()}
        self.outside = {name: tensor for name, tensor in tensors.items() if name not in known}
        self.keep_background, self.stated = keep_background, stated
        self.used: set[str] = set()
        self.at: dict[str, tuple[str, str]] = {}
        self.missing: list[str] = []
        self.initialised: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        self.assumed: list[str] = []
        self.notes: list[str] = []
        self.normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self.folded = 0
        self.background = False
        self.classifier = next((n for n in self.layout.classifier if self._weight_of(n) in self.tensors), None)
        classes = 0 if self.classifier is None else self._classes_of(self.classifier)
        self.configuration = Configuration(
            self._network(name, classes),
            num_classes=0,
            in_channels=self._in_channels(),
            embedding=self._embedding(),
            last=found.last,
        )

    def run(self) -> Translation:
        """Translate every layer of the network: body, head, auxiliary heads."""
        network = configure(self.configuration)
        ours: dict[str, Tensor] = {}
        self.entries = self._entries()
        self._map(analyse(network), network, ours)
        self._complete()
        if self.style.order == "torch":
            self._torch_head(network, ours)
        else:
            self._plain_head(ours)
        self._aux(ours)
        self._complete()
        changed = [f"{self.folded} convolutions' biases folded into the batch norm's mean"] if self.folded else []
        if self.layout.bgr_255:
            first = next(iter(ours))
            if ours[first].dim() == 4:  # else its shape will be refused
                ours[first] = ours[first].flip(1) * 127.5
            changed.append("first convolution: channels from BGR to RGB, × 127.5, so that it takes RGB in [-1, 1]")
        if self.background:
            changed.append(f"class 0 of {BACKGROUND}, the background, removed")
        return Translation(
            self.layout,
            self.configuration,
            ours,
            self.background,
            {**self.stored.dropped, **self.found.copies, **self.dropped, **self._left()},
            self.initialised,
            (*self.found.notes, *self.notes, *changed),
            tuple(self.assumed),
            self.normalisation,
        )

    def _map(self, rows: Iterable[Row], network: Network, ours: dict[str, Tensor]) -> None:
        """The tensors of these layers, which are next of their endpoints."""
        for row in rows:
            if isinstance(row.node, Conv | SeparableConv | Linear):
                where, _, rest = row.path.partition(".")
                endpoint = rest.partition(".")[0]
                entry = next(self.entries[f"aux.{endpoint}" if where == "aux" else endpoint])
                if where == "body":
                    self.at[row.path] = self._modules_of(entry, "gamma" in tensors_of(row, network.conventions))
                ours |= self._layer(entry, row, tensors_of(row, network.conventions))

    def _modules_of(self, entry: str, normed: bool) -> tuple[str, str]:
        """The file's paths of a layer's convolution and batch norm."""
        names = [self.style.tensor(entry, part, normed=normed) for part in ("weight", "mean" if normed else "bias")]
        convolution, norm = (self.found.origin.get(name, "").rpartition(".")[0] for name in names)
        return convolution, norm if normed else ""

    def _complete(self) -> None:
        """Raises: WeightsError if tensors are missing so far."""
        if not self.missing:
            return
        if why := reparametrised(self.tensors, [name.rpartition(".")[0] for name in self.missing]):
            raise WeightsError(f"{self.stored.path}: {self.layout.name}, but {why}")
        raise WeightsError(
            f"{self.stored.path}: {self.layout.name}, but without {listed(self.missing)}; get the complete file"
        )

    def _plain_head(self, ours: dict[str, Tensor]) -> None:
        """The classifier of a file of TensorFlow or Keras: one layer."""
        if self.classifier is None:
            return
        classes = self._classes_of(self.classifier)
        self.background = classes == BACKGROUND and not self.keep_background
        self._classifies(classes - self.background)
        network = configure(self.configuration)
        self._map((row for row in analyse(network) if row.path == "head.logits"), network, ours)

    def _classifies(self, classes: int, activation: str | None = None) -> None:
        """Note the number of logits; a single one is assumed to have a sigmoid."""
        if classes == 1 and activation is None:
            activation = "sigmoid"
            self.assumed.append("one logit: sigmoid, the probability of the second of two classes, assumed")
        self.configuration = replace(
            self.configuration, num_classes=classes, activation=activation or self.configuration.activation
        )

    def _torch_head(self, network: Network, ours: dict[str, Tensor]) -> None:
        """The layers that a PyTorch file has behind the body, under any names."""
        origin = self.found.origin
        left = {origin[n]: t for n, t in self.tensors.items() if n not in self.used and not self._is_aux(n)}
        found = beside(
            {**left, **self.outside}, self.found, self.stored.path, self.configuration, _ends_with(network, ours)
        )
        layers, self.normalisation = found.layers, found.normalisation
        self.dropped |= found.dropped
        self.notes += found.notes
        if found.unclear and self.stated is None:
            raise WeightsError(f"{self.stored.path}: {found.unclear}")
        modules = self.stored.modules
        body = [self.found.origin[name].rpartition(".")[0] for name in sorted(self.used)]
        if modules:
            check_eps(layers, modules, body, network.conventions.batch_norm_eps)
            inside = inside_of(modules, self.found.prefix, [convolution for convolution, _ in self.at.values()])
            self.assumed += check_body(self.stored.path, modules, network, self.at, inside)
        read: TorchHead | None
        if self.stated is not None:
            read = stated_head(layers, self.stated)
        elif modules:
            read = module_head(layers, modules, self.layout, self.found.prefix, body)
        else:
            read = read_head(layers)
        if read is None:
            return
        for layer, reason in read.dropped.items():
            self.dropped |= {f"{layer}.{part}": reason for part in layers.tensors[layer]}
        self.assumed += read.assumed
        pooled = {} if read.pool == "avg" else {"global_pool": read.pool}
        self.configuration = replace(self.configuration, **pooled)  # type: ignore[arg-type]
        if not read.parts:
            return
        if not modules and self.stated is None and read.pool == "avg":
            self.assumed.append(AVERAGE_POOL)
        head = head_of(read.parts, self.stored.path, read.activation)
        self._take(head, ours, said=read.activation is not None or bool(modules))

    def _take(self, head: Head, ours: dict[str, Tensor], *, said: bool) -> None:
        """The head's tensors and configuration, without the background class."""
        self.background = head.num_classes == BACKGROUND and not self.keep_background
        tensors = dict(head.tensors)
        if self.background:
            tensors |= {name: t[1:] for name, t in tensors.items() if name.startswith("head.logits.")}
        ours |= tensors
        self.initialised |= head.initialised
        single = head.num_classes == 1 and not said
        self._classifies(head.num_classes - self.background, None if single else head.activation)
        self.configuration = replace(
            self.configuration, hidden=head.hidden, logits_bias=head.logits_bias, dropout=head.dropout
        )

    def _is_aux(self, name: str) -> bool:
        mark = self.style.separator
        return any(name.startswith(entry + mark) for names in self.layout.aux.values() for entry in names)

    def _aux(self, ours: dict[str, Tensor]) -> None:
        """The auxiliary heads, if the file has all their layers for the same classes."""
        entries = [entry for names in self.layout.aux.values() for entry in names]
        classes = self.configuration.num_classes
        if not (entries and classes and NETWORKS[self.configuration.name].aux):
            return
        if not all(self._weight_of(entry, conv=True) in self.tensors for entry in entries):
            return
        logits = {names[-1]: self._classes_of(names[-1]) - self.background for names in self.layout.aux.values()}
        if other := {count for count in logits.values() if count != classes}:
            reason = f"auxiliary head for {other.pop()} classes, where the classifier has {classes}"
            self.dropped |= {self.found.origin[n]: reason for n in self.tensors if self._is_aux(n)}
            return
        self.configuration = replace(self.configuration, aux=True)
        network = configure(self.configuration)
        self._map((row for row in analyse(network) if row.path.startswith("aux.")), network, ours)

    def _entries(self) -> dict[str, Iterator[str]]:
        """By endpoint, the names of its layers, each used once."""
        names = {**self.layout.body, **{f"aux.{on}": names for on, names in self.layout.aux.items()}}
        if self.classifier is not None:
            names["logits"] = (self.classifier,)
        return {endpoint: iter(entries) for endpoint, entries in names.items()}

    def _layer(self, entry: str, row: Row, names: Mapping[str, str]) -> dict[str, Tensor]:
        """One layer's tensors under this package's names."""
        normed = "gamma" in names
        found: dict[str, Tensor] = {}
        for part, ours in names.items():
            theirs = self.style.tensor(entry, part, normed=normed)
            if theirs in self.tensors:
                self.used.add(theirs)
                found[ours] = self._as_torch(self.tensors[theirs], part, row)
            elif part == "gamma" and self.style.order == "tensorflow":
                self.initialised[ours] = "computed: gamma is 1, which the file omits"
            else:
                self.missing.append(theirs)
        bias = self.style.tensor(entry, "bias", normed=normed)
        if normed and bias in self.tensors and names["mean"] in found:
            # gamma · (x + bias - mean) / std + beta: the bias only shifts the mean.
            self.used.add(bias)
            mean, shift = found[names["mean"]], self.tensors[bias].flatten()
            if mean.shape != shift.shape:
                raise WeightsError(f"{self.stored.path}: {bias} has {len(shift)} values for {len(mean)} channels")
            found[names["mean"]] = mean - shift
            self.folded += 1
        if "beta" in names and names["beta"] in found and names["gamma"] not in found:
            found[names["gamma"]] = torch.ones_like(found[names["beta"]])
        return found

    def _as_torch(self, tensor: Tensor, part: str, row: Row) -> Tensor:
        """The tensor with its axes in torch's order, without the background class."""
        if part not in ("weight", "depthwise", "pointwise"):
            tensor = tensor.flatten()  # Caffe kept a vector as a matrix of one row
        if self.style.order == "tensorflow":
            if tensor.dim() == 4:  # height, width, in, out; of a depthwise kernel in, multiplier
                depthwise = part == "depthwise"
                tensor = tensor.permute(2, 3, 0, 1).flatten(0, 1)[:, None] if depthwise else tensor.permute(3, 2, 0, 1)
            elif tensor.dim() == 2:
                tensor = tensor.t()
        if isinstance(row.node, Linear) and tensor.dim() == 4:
            tensor = tensor.flatten(1)
        return tensor[1:] if self.background and row.path.endswith(".logits") else tensor

    def _left(self) -> dict[str, str]:
        """The file's tensors that are not used, each with the reason."""
        known = self.dropped.keys()
        left = {self.found.origin[name]: name for name in self.tensors.keys() - self.used}
        reasons = {name: self._reason(left[name]) for name in sorted(left) if name not in known}
        return {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, name: str) -> str:
        if name.endswith("num_batches_tracked"):
            return ""  # a counter that affects no output
        if self._is_aux(name):
            has = NETWORKS[self.configuration.name].aux
            return "incomplete auxiliary head" if has else "auxiliary head, which the network does not have"
        if self.style.order == "torch":
            return ""  # of the head
        return f"not part of {self.configuration.name}"

    def _weight_of(self, entry: str, *, conv: bool = False) -> str:
        """The name of a layer's weight; `conv`: of a convolution with batch norm, if the file has one."""
        normed = self.style.tensor(entry, "weight", normed=True)
        return normed if conv and normed in self.tensors else self.style.tensor(entry, "weight", normed=False)

    def _classes_of(self, classifier: str) -> int:
        name = self._weight_of(classifier)
        shape = self.tensors[name].shape
        if len(shape) not in (2, 4) or not shape.numel():
            raise WeightsError(
                f"{self.stored.path}: expected a classifier's matrix, got {name} of shape {tuple(shape)}"
            )
        return int(shape[-1] if self.style.order == "tensorflow" else shape[0])

    def _embedding(self) -> int | None:
        """The length of the face network's embedding, None if it is the published one."""
        for entry in self.layout.body.get("embedding", ()):
            kernel = self.tensors.get(self.style.tensor(entry, "weight", normed=False))
            kernel = self.tensors.get(self.style.tensor(entry, "weight", normed=True), kernel)
            if kernel is not None and kernel.dim() == 2:
                length = int(kernel.shape[1 if self.style.order == "tensorflow" else 0])
                return other_embedding(self.layout.networks[0], length)
        return None

    def _in_channels(self) -> int:
        first = next(self.layout.layers())
        for part, normed in (("weight", True), ("weight", False), ("depthwise", False)):
            if part in self.style.parts and (name := self.style.tensor(first, part, normed=normed)) in self.tensors:
                shape = self.tensors[name].shape
                if len(shape) == 4 and shape.numel():
                    return int(shape[2] if self.style.order == "tensorflow" else shape[1])
        return 3

    def _network(self, asked: str | None, classes: int) -> str:
        """The network asked for, if the layout fits it; by default the one that reproduces the publisher's code."""
        fits = self.layout.networks
        if asked is None:
            return self.layout.by_classes.get(classes, fits[0])
        if asked not in fits:
            raise WeightsError(
                f"{self.stored.path}: {self.layout.name}, which fits {listed(fits, ordered=True, last='or')}, "
                f"not {asked}; omit the name or change it"
            )
        return asked


def _ends_with(network: Network, ours: Mapping[str, Tensor]) -> int:
    """The number of channels of the last grid, or of the embedding behind it, by the file's tensors."""
    in_head = any(name.startswith("head.") for name in ours)
    return channels_of(network.head if in_head else network.body, "head" if in_head else "body", ours)
