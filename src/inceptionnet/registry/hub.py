"""Models to and from the Hugging Face Hub by huggingface_hub's own methods (extra `hub`).

What is saved is this package's weights file, `model.safetensors`, which says all that a prediction needs; beside it a
`config.json` with timm's keys and a model card. `create_model(weights="hf:owner/name")` reads the same repository.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.model.network import InceptionNet
from inceptionnet.nets.edits import Configuration
from inceptionnet.system.extras import import_extra
from inceptionnet.weights import read_weights, save_weights

import_extra("huggingface_hub", "hub", "inceptionnet.registry.hub")
from huggingface_hub import ModelHubMixin, hf_hub_download  # noqa: E402  # after the check

FILE = "model.safetensors"


class HubInceptionNet(
    InceptionNet,
    ModelHubMixin,
    library_name="inceptionnet",
    pipeline_tag="image-classification",
    tags=["image-classification", "inception"],
):
    """An `InceptionNet` with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Example:
        >>> import tempfile
        >>> from inceptionnet import create_model
        >>> model = HubInceptionNet.of(create_model("inception_v3", width=0.125, num_classes=2), classes=("cat", "dog"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)  # or model.push_to_hub("owner/name")
        ...     again = HubInceptionNet.from_pretrained(folder)
        >>> again.classes
        ('cat', 'dog')
    """

    def __init__(self, configuration: Configuration) -> None:
        super().__init__(configuration)
        self.classes: tuple[str, ...] = ()
        """Names in the order of the logits, or of the two that one logit tells apart; empty: they are numbered."""

    @classmethod
    def of(
        cls, model: InceptionNet, *, classes: tuple[str, ...] = (), preprocessing: Preprocessing | None = None
    ) -> HubInceptionNet:
        """The same network, whose weights are shared with `model`."""
        made = cls(model.configuration)
        made.load_state_dict(model.state_dict(keep_vars=True), assign=True)
        made.classes, made.preprocessing = tuple(classes), preprocessing or model.preprocessing
        made.origin = dict(model.origin)
        return made.train(model.training)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self, save_directory / FILE, classes=self.classes, preprocessing=self.preprocessing)
        config = {
            "architecture": self.network.name,
            "num_classes": self.num_classes,
            "num_features": self.num_features,
            "pretrained_cfg": self.pretrained_cfg,
            "inceptionnet": asdict(self.configuration),
        }
        (save_directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> HubInceptionNet:
        """The file in a folder or repository; `model_kwargs` are arguments of `create_model` that differ from it."""
        path = Path(model_id) / FILE
        if not Path(model_id).is_dir():
            # What the hub refuses comes as huggingface_hub's own errors, here as from its other methods.
            path = Path(
                hf_hub_download(
                    model_id,
                    FILE,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )
        stored = read_weights(path)
        model = stored.model(**model_kwargs)
        names = () if stored.record.numbered else stored.record.classes
        return cls.of(model, classes=names if len(names) == model.outputs.classes else ()).eval()
