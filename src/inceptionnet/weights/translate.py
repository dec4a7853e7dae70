"""Mapping a published file's tensors to a network of this package: its layout, body, head and auxiliary heads.

A layer that the file lacks is an error. Tensors that are not used are reported with the reason, and so is every value
that is computed. The layers themselves are taken in layout_layers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from inceptionnet.errors import WeightsError, listed
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.analysis import analyse
from inceptionnet.nets.edits import Configuration, configure
from inceptionnet.nets.spec import Network
from inceptionnet.weights.bare import bare, bare_tensors
from inceptionnet.weights.beside import beside, channels_of
from inceptionnet.weights.formats import Stored
from inceptionnet.weights.heads import Head, head_of
from inceptionnet.weights.layout_layers import LayoutLayers
from inceptionnet.weights.layouts import Layout
from inceptionnet.weights.layouts.keras import named
from inceptionnet.weights.module_body import check_body
from inceptionnet.weights.module_heads import check_eps, inside_of, module_head
from inceptionnet.weights.origins import BACKGROUND
from inceptionnet.weights.recognise import Found, recognise
from inceptionnet.weights.strangers import changed_weights
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
    """The state of one translation: the configuration, and what was computed, assumed and left out so far."""

    def __init__(
        self,
        stored: Stored,
        tensors: Mapping[str, Tensor],
        found: Found,
        name: str | None,
        keep_background: bool,
        stated: str | None,
    ) -> None:
        self.stored, self.found, self.layout = stored, found, found.layout
        self.layers = LayoutLayers(stored.path, found)
        known = {*found.copies, *found.origin.values()}
        self.outside = {name: tensor for name, tensor in tensors.items() if name not in known}
        self.keep_background, self.stated = keep_background, stated
        self.initialised: dict[str, str] = {}
        self.dropped: dict[str, str] = {}
        self.assumed: list[str] = []
        self.notes: list[str] = []
        self.normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        self.background = False
        classifier = self.layers.classifier
        classes = 0 if classifier is None else self.layers.classes_of(classifier)
        self.configuration = Configuration(
            self._network(name, classes),
            num_classes=0,
            in_channels=self.layers.in_channels(),
            embedding=self.layers.embedding(),
            last=found.last,
        )

    def run(self) -> Translation:
        """Translate every layer of the network: body, head, auxiliary heads."""
        network = configure(self.configuration)
        ours = self.layers.take(analyse(network), network)
        self.layers.check_complete()
        if self.layout.style.order == "torch":
            self._torch_head(network, ours)
        else:
            self._plain_head(ours)
        self._aux(ours)
        self.layers.check_complete()
        folded = self.layers.folded
        changed = [f"{folded} convolutions' biases folded into the batch norm's mean"] if folded else []
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
            {**self.layers.initialised, **self.initialised},
            (*self.found.notes, *self.notes, *changed),
            tuple(self.assumed),
            self.normalisation,
        )

    def _plain_head(self, ours: dict[str, Tensor]) -> None:
        """The classifier of a file of TensorFlow or Keras: one layer."""
        classifier = self.layers.classifier
        if classifier is None:
            return
        classes = self.layers.classes_of(classifier)
        self.background = classes == BACKGROUND and not self.keep_background
        self._classifies(classes - self.background)
        ours |= self._taken("head.logits")

    def _taken(self, path: str) -> dict[str, Tensor]:
        """The tensors of the layers at a path of the network, as it is configured by now."""
        network = configure(self.configuration)
        rows = (row for row in analyse(network) if row.path.startswith(path))
        return self.layers.take(rows, network, background=self.background)

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
        origin, used = self.found.origin, self.layers.used
        left = {origin[n]: t for n, t in self.found.tensors.items() if n not in used and not self.layers.is_aux(n)}
        found = beside(
            {**left, **self.outside}, self.found, self.stored.path, self.configuration, _ends_with(network, ours)
        )
        rest, self.normalisation = found.layers, found.normalisation
        self.dropped |= found.dropped
        self.notes += found.notes
        if found.unclear and self.stated is None:
            raise WeightsError(f"{self.stored.path}: {found.unclear}")
        modules = self.stored.modules
        body = [origin[name].rpartition(".")[0] for name in sorted(used)]
        if modules:
            at = self.layers.at
            check_eps(rest, modules, body, network.conventions.batch_norm_eps)
            inside = inside_of(modules, self.found.prefix, [convolution for convolution, _ in at.values()])
            self.assumed += check_body(self.stored.path, modules, network, at, inside)
        read: TorchHead | None
        if self.stated is not None:
            read = stated_head(rest, self.stated)
        elif modules:
            read = module_head(rest, modules, self.layout, self.found.prefix, body)
        else:
            read = read_head(rest)
        if read is None:
            return
        for layer, reason in read.dropped.items():
            self.dropped |= {f"{layer}.{part}": reason for part in rest.tensors[layer]}
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

    def _aux(self, ours: dict[str, Tensor]) -> None:
        """The auxiliary heads, if the file has all their layers for the same classes."""
        entries = [entry for names in self.layout.aux.values() for entry in names]
        classes = self.configuration.num_classes
        if not (entries and classes and NETWORKS[self.configuration.name].aux):
            return
        if not all(self.layers.weight_of(entry, conv=True) in self.found.tensors for entry in entries):
            return
        logits = {names[-1]: self.layers.classes_of(names[-1]) - self.background for names in self.layout.aux.values()}
        if other := {count for count in logits.values() if count != classes}:
            reason = f"auxiliary head for {other.pop()} classes, where the classifier has {classes}"
            self.dropped |= {self.found.origin[n]: reason for n in self.found.tensors if self.layers.is_aux(n)}
            return
        self.configuration = replace(self.configuration, aux=True)
        ours |= self._taken("aux.")

    def _left(self) -> dict[str, str]:
        """The file's tensors that are not used, each with the reason."""
        known = self.dropped.keys()
        left = {self.found.origin[name]: name for name in self.found.tensors.keys() - self.layers.used}
        reasons = {name: self._reason(left[name]) for name in sorted(left) if name not in known}
        return {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, name: str) -> str:
        if name.endswith("num_batches_tracked"):
            return ""  # a counter that affects no output
        if self.layers.is_aux(name):
            has = NETWORKS[self.configuration.name].aux
            return "incomplete auxiliary head" if has else "auxiliary head, which the network does not have"
        if self.layout.style.order == "torch":
            return ""  # of the head
        return f"not part of {self.configuration.name}"

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
