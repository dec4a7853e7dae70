"""What timm's users expect of a network, under timm's names; `InceptionNet` has it beside its own.

Source: timm 1.0.31, whose own tests run on these networks (tests/peers/test_timm_api.py, docs/timm.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import floor
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.errors import ConfigurationError
from inceptionnet.nets.analysis import Row, analyse, endpoints
from inceptionnet.nets.edits import Configuration
from inceptionnet.nets.spec import Branches, Linear, Network, Residual, SeparableConv

Indices = int | Sequence[int] | None
"""Which of the features: the last n, those of a sequence (negative ones count from the end), or None for all."""


class Backbone(nn.Module):
    """The part of `InceptionNet` that has timm's names; it needs these attributes and three methods."""

    if TYPE_CHECKING:  # torch.jit.script takes annotations that it finds here for its own
        network: Network
        configuration: Configuration
        preprocessing: Preprocessing
        origin: dict[str, Any]
        body: nn.Module
        head: nn.Module
        grad_checkpointing: bool

    def _endpoint(self, module: nn.Module, x: Tensor) -> Tensor:
        """The output of one endpoint of the body."""
        raise NotImplementedError

    def _check(self, x: Tensor) -> None:
        """Raises: InputError for what the network cannot take."""
        raise NotImplementedError

    def _become(self, configuration: Configuration) -> None:
        """Change into the network of that configuration, keeping every module that both have."""
        raise NotImplementedError

    @property
    def in_chans(self) -> int:
        """Channels of an image."""
        return self.network.in_channels

    @property
    def num_features(self) -> int:
        """Channels of the last grid of the body."""
        return self._grids()[-1].output.channels

    @property
    def head_hidden_size(self) -> int:
        """Length of what the logits are computed from; of the face network that is the embedding."""
        rows = [row for row in self._rows() if row.name != "logits"]
        return rows[-1].output.channels

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """The last endpoint at each stride: `num_chs`, `reduction` (input pixels a step) and `module` (its path)."""
        last = {row.field.step: row for row in self._grids()}
        return [
            {"num_chs": row.output.channels, "reduction": step, "module": row.path, "index": index}
            for index, (step, row) in enumerate(last.items())
        ]

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """timm's description of a model, for `timm.data.resolve_model_data_config`: input, preprocessing, names."""
        prep, grid = self.preprocessing, self._grids()[-1].output
        first = next(iter(self.network.body))
        conv = "depthwise" if isinstance(self.network.body[first], SeparableConv) else "conv"
        return {
            "architecture": self.network.name,
            "input_size": (self.in_chans, self.network.input_size, self.network.input_size),
            "fixed_input_size": False,
            "pool_size": (grid.height, grid.width),
            "crop_pct": _crop_pct(prep),
            "crop_mode": "squash" if prep.resize == "squash" else "center",
            "interpolation": prep.interpolation.removeprefix("tf1-"),
            "mean": prep.mean,
            "std": prep.std,
            "num_classes": classes_of(self.network),
            "first_conv": f"body.{first}.{conv}",
            "classifier": "head.logits",
            **self.origin,
        }

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The same as `pretrained_cfg`, by its older name."""
        return self.pretrained_cfg

    def forward_features(self, x: Tensor) -> Tensor:
        """The last grid of the body, not pooled.

        Shapes: (N, in_channels, H, W) → (N, num_features, H', W').

        Raises:
            InputError: as `forward`.
        """
        self._check(x)
        if not self.grad_checkpointing:  # as one module, whose hooks are called
            grid: Tensor = self.body(x)
            return grid
        for module in self.body.children():
            x = self._endpoint(module, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The head on a grid of `forward_features`; `pre_logits` leaves out the classifier, but not the dropout.

        Shapes: (N, num_features, H', W') → (N, num_classes), or (N, head_hidden_size).
        """
        for name, module in self.head.named_children():
            if not (pre_logits and name == "logits"):
                x = module(x)
        return x

    def get_classifier(self) -> nn.Module:
        """The linear layer that gives the logits, or an identity where there are no classes."""
        return dict(self.head.named_children()).get("logits", nn.Identity())

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, randomly initialised classifier, in the auxiliary heads too; 0 classes: none.

        Args:
            global_pool: "avg", "max", "avgmax", "catavgmax", or "" for the unpooled grid, with 0 classes only; by
                default as it is, and the average again where classes come after "".

        Raises:
            ConfigurationError: another pool, or classes without a pool.
        """
        c = self.configuration
        if global_pool is None:
            global_pool = c.global_pool or ("avg" if num_classes else "")
        aux = c.aux and num_classes > 0
        self._become(replace(c, num_classes=num_classes, global_pool=global_pool, aux=aux))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The last grid and the grids of `feature_info`, in the order of the network.

        Args:
            indices: which of `feature_info`; all by default.
            norm: for timm's signature; no network of the family has a norm behind its features.
            stop_early: compute no endpoint behind the last feature asked for.
            intermediates_only: the list alone.

        Raises:
            InputError: as `forward`.
            ConfigurationError: an index that does not exist, or an `output_fmt` other than NCHW.
        """
        if output_fmt != "NCHW":
            raise ConfigurationError(f"output_fmt is {output_fmt!r}; expected 'NCHW', the only format of these grids")
        self._check(x)
        infos = self.feature_info
        wanted = {infos[i]["module"].removeprefix("body.") for i in taken(len(infos), indices)}
        found = []
        for name, module in self.body.named_children():
            x = self._endpoint(module, x)
            if name in wanted:
                found.append(x)
            if stop_early and len(found) == len(wanted):
                break
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self, indices: Indices = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what is not needed for those features; gives their indices.

        The body ends with the last of them. The head goes with `prune_head`, or where the body is cut; then `forward`
        gives the last grid, and `reset_classifier` brings a head back.
        """
        infos = self.feature_info
        take = taken(len(infos), indices)
        cut = max(take) < len(infos) - 1
        if cut or prune_head:
            last = infos[max(take)]["module"].removeprefix("body.") if cut else self.configuration.last
            self._become(replace(self.configuration, num_classes=0, global_pool="", aux=False, last=last))
        return take

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the endpoints' inputs for the backward pass and compute the rest again: less memory, more time."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """For layer-wise learning rates: from a parameter's name to its layer's number.

        The convolutions before the first module are layer 0, then each endpoint is one (`coarse`: each stride); the
        head is the last. An auxiliary head belongs to the endpoint it stands on.
        """
        stem = True
        order: dict[str, float] = {}
        for row in self._grids():
            stem = stem and not isinstance(row.node, Branches | Residual)
            order[row.name] = row.field.step if coarse else 0 if stem else len(order)

        def layer(name: str) -> float:
            part, _, rest = name.partition(".")
            return float("inf") if part == "head" else order[rest.partition(".")[0]]

        return layer

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must not touch by name; none, since those of one dimension are known as such."""
        return set()

    def _rows(self) -> list[Row]:
        """The endpoints of body and head."""
        return endpoints(analyse(self.network))

    def _grids(self) -> list[Row]:
        return [row for row in self._rows() if row.path.startswith("body.")]


def taken(count: int, indices: Indices) -> list[int]:
    """The indices of the features asked for, ascending.

    Raises:
        ConfigurationError: one that does not exist.
    """
    if isinstance(indices, int):
        chosen = range(count - indices, count) if indices > 0 else range(0)
    else:
        chosen = range(count) if indices is None else [i + count if i < 0 else i for i in indices]  # type: ignore[assignment]
    if not chosen or min(chosen) < 0 or max(chosen) >= count:
        raise ConfigurationError(
            f"indices are {indices!r}; expected the last 1 to {count}, or some of 0 to {count - 1}"
        )
    return sorted(set(chosen))


def classes_of(network: Network) -> int:
    """Length of the logits; 0 without a classifier."""
    logits = network.head.get("logits")
    return logits.filters if isinstance(logits, Linear) else 0


def _crop_pct(prep: Preprocessing) -> float:
    """The crop in timm's terms, whose resized side is rounded down: the same pixels as `Preprocessing` resizes to."""
    resized = round(prep.size_px / prep.crop)
    if prep.resize == "squash" or floor(prep.size_px / prep.crop) == resized:
        return prep.crop
    return prep.size_px / (resized + 0.5)
