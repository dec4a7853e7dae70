"""A network as a backbone that gives a list of grids: what `create_model(features_only=True)` makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from inceptionnet.model.backbone import Indices
from inceptionnet.model.network import InceptionNet


class FeatureInfo:
    """What is known of the grids that a `FeatureNet` gives, in their order, with timm's accessors.

    Each takes an index or several of all features of the network, or None for those that are given.
    """

    def __init__(self, info: Sequence[dict[str, Any]], out_indices: Sequence[int]) -> None:
        self.info: list[dict[str, Any]] = list(info)
        self.out_indices: tuple[int, ...] = tuple(out_indices)

    def get(self, key: str, idx: int | Sequence[int] | None = None) -> Any:
        """One value of one feature, or a list of those of several."""
        if isinstance(idx, int):
            return self.info[idx][key]
        return [self.info[i][key] for i in (self.out_indices if idx is None else idx)]

    def get_dicts(self, keys: Sequence[str] | None = None, idx: int | Sequence[int] | None = None) -> Any:
        """All that is known of a feature, or of several; `keys` chooses."""
        if isinstance(idx, int):
            return {key: value for key, value in self.info[idx].items() if keys is None or key in keys}
        return [self.get_dicts(keys, i) for i in (self.out_indices if idx is None else idx)]

    def channels(self, idx: int | Sequence[int] | None = None) -> Any:
        """Channels of each grid."""
        return self.get("num_chs", idx)

    def reduction(self, idx: int | Sequence[int] | None = None) -> Any:
        """Input pixels from one place of the grid to the next."""
        return self.get("reduction", idx)

    def module_name(self, idx: int | Sequence[int] | None = None) -> Any:
        """Path of the endpoint in the `InceptionNet`."""
        return self.get("module", idx)

    def __len__(self) -> int:
        return len(self.info)


class FeatureNet(nn.Module):
    """The grids of `feature_info` that are asked for, from a network without its head and what comes after them.

    Shapes: (N, in_channels, H, W) → a list of (N, C, H', W').
    """

    def __init__(self, model: InceptionNet, out_indices: Indices = None) -> None:
        super().__init__()
        info = model.feature_info
        kept = model.prune_intermediate_layers(out_indices)
        self.model = model
        self.feature_info: FeatureInfo = FeatureInfo(info, kept)

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """As `InceptionNet.pretrained_cfg`."""
        return self.model.pretrained_cfg

    @property
    def default_cfg(self) -> dict[str, Any]:
        """As `InceptionNet.pretrained_cfg`."""
        return self.model.pretrained_cfg

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As `InceptionNet.set_grad_checkpointing`."""
        self.model.set_grad_checkpointing(enable)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The grids, in the order of the network. Raises: InputError: as `InceptionNet.forward`."""
        found = self.model.forward_intermediates(x, self.feature_info.out_indices, intermediates_only=True)
        assert isinstance(found, list)
        return found
