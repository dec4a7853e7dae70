"""The arguments of a training, and the job resolved from them: written to run.json, and read back from it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

import inceptionnet
from inceptionnet.data.fingerprint import description, difference
from inceptionnet.data.loading import CorruptImages, TrainLoader
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.sources import STREAMS, open_source
from inceptionnet.data.splits import Source
from inceptionnet.errors import DataError, InceptionNetError, RunError
from inceptionnet.model.initialisation import initialise
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.nets.edits import Configuration
from inceptionnet.registry.create import create_model
from inceptionnet.system.devices import pick_device
from inceptionnet.system.distributed import World
from inceptionnet.train.activation import start_head
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.run import Run
from inceptionnet.weights.folder import weights_of
from inceptionnet.weights.hub import is_address


@dataclass(frozen=True)
class Plan:
    """The arguments of a training; see the `train` command for their meaning."""

    data: str
    model: str | None
    recipe: str | None = None
    """None: finetune with weights, else default."""
    epochs: int | None = None
    """None: as in the recipe."""
    batch_size: int = 32
    accumulate: int = 1
    size: int | None = None
    width: float | None = None
    weights: str | None = None
    seed: int = 0
    splits: str | None = None
    """Which folders are the splits, see `open_source`."""
    workers: int = 1
    corrupt_images: CorruptImages = "fail"
    device: str = "auto"
    settings: Mapping[str, object] = field(default_factory=dict)
    labels: str | None = None
    """The file with the labels of the images."""
    group_by: str | None = None
    """What a split must not divide, see `open_source`."""

    def open_source(self) -> Source:
        """The data set, with its splits. Raises: DataError, ConfigurationError."""
        return open_source(self.data, seed=self.seed, labels=self.labels, splits=self.splits, group_by=self.group_by)


@dataclass(frozen=True)
class Job:
    """A training with all its settings resolved."""

    plan: Plan
    source: Source
    recipe: Recipe
    prep: Preprocessing
    configuration: Configuration | None = None
    """Of the network, in a job read from a run folder."""
    pretrained: Configuration | None = None
    """Of the weights that a new run starts from."""

    @property
    def held_out(self) -> str:
        """The split that is evaluated after every epoch."""
        return "val" if "val" in self.source.splits else "test"

    @property
    def outputs(self) -> Outputs:
        """What the logits mean."""
        activation, classes = self.recipe.network.activation, len(self.source.classes)
        return Outputs(activation, 1 if activation == "sigmoid" and not self.source.multi_label else classes)

    @property
    def augment(self) -> Augment:
        """The augmentation of training images."""
        return Augment(**self.recipe.augment.model_dump())

    def model(self) -> InceptionNet:
        """The network at the start of training; it depends on the plan only, including its seed.

        A classifier in the weights stays if it has the same outputs, with sigmoid if its classes are the same too.
        """
        plan, outputs = self.plan, self.outputs
        torch.manual_seed(plan.seed)
        activation = None if plan.weights else outputs.activation
        model: InceptionNet = create_model(plan.model, weights=plan.weights, activation=activation, **self._asked())
        if plan.weights:
            start_head(model, outputs, self.source.classes, plan.weights)
        return model

    def empty_model(self) -> InceptionNet:
        """The network of the job with arbitrary weights: to load a checkpoint into, or to measure and to check."""
        model = InceptionNet(self.trained_configuration)
        initialise(model, model.network)
        return model

    @property
    def trained_configuration(self) -> Configuration:
        """Of the network that is trained: that of the run, or what the plan makes of the weights' or of the name."""
        if self.configuration is not None:
            return self.configuration
        start = self.pretrained or Configuration(str(self.plan.model))
        return replace(start, activation=self.outputs.activation, **self._asked())

    def _asked(self) -> dict[str, Any]:
        """Arguments of `create_model`, with or without weights."""
        plan, network = self.plan, self.recipe.network
        asked = {
            "num_classes": self.outputs.logits, "input_size": plan.size, "width": plan.width, "aux": network.aux,
            "dropout": network.dropout, "residual_scale": network.residual_scale,
            "edits": network.edits or None,  # none: those of the weights
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value is not None}

    def placed(self, model: InceptionNet) -> InceptionNet:
        """The network on the device and in the memory layout of the training."""
        if self.recipe.compute.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's type stubs
        return model.to(pick_device(self.plan.device))

    def batches(self, batch_size: int, workers: int, world: World) -> TrainLoader:
        """Training batches of the job's images; `batch_size` over all processes and accumulation steps."""
        plan = self.plan
        return TrainLoader(
            self.source.splits["train"],
            self.prep,
            self.augment,
            batch_size=batch_size,
            seed=plan.seed,
            workers=workers,
            corrupt_images=plan.corrupt_images,
            parts=plan.accumulate,
            sampler=self.recipe.data.sampler,
            world=world,
        )

    def describe(self, model: InceptionNet, processes: int) -> dict[str, Any]:
        """The content of run.json."""
        return {
            "plan": asdict(self.plan),
            "recipe": self.recipe.model_dump(),
            "configuration": asdict(model.configuration),
            "preprocessing": self.prep.to_dict(),
            "data": {
                "title": self.source.title,
                "note": self.source.note,
                **description(self.source),
            },
            "environment": {
                "inceptionnet": inceptionnet.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "device": str(model.device),
                "processes": processes,
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
            },
        }


def read_job(run: Run, data: str | None = None, labels: str | None = None) -> Job:
    """The job of a run folder.

    Args:
        data, labels: where the run's images and the file of their labels are now, if they have moved.

    Raises:
        RunError: there is no run, or its data has changed.
    """
    about = run.about()
    try:
        plan = TypeAdapter(Plan).validate_python(asdict(Plan(**about["plan"])))
        recipe = Recipe.model_validate(about["recipe"])
        prep = Preprocessing.from_dict(about["preprocessing"])
        configuration = Configuration(**about["configuration"])
    except (KeyError, TypeError, ValueError, AttributeError, InceptionNetError) as error:
        what = " ".join(str(error).split())
        raise RunError(
            f"{run.path / 'run.json'}: not written by this version ({what}); train again into another folder"
        ) from None
    if data is None:
        check_there(run, plan.data)
    now = run.data().moved(None if data is None else absolute(data), labels)
    plan = replace(plan, data=now.data, labels=now.labels)
    source = plan.open_source()
    if what := difference(source, about["data"]):
        restore = "restore them" if data is None else "give the place of the same images with --data"
        raise RunError(
            f"{plan.data}: expected the images of the run in {run.path}, got other ones: {what}; {restore}, or start "
            f"from its weights with --weights {run.path} and another --out"
        )
    return Job(plan, source, recipe, prep, configuration)


def check_there(run: Run, data: str) -> None:
    """Check that the run's data is where it was. Raises: RunError."""
    if os.path.isabs(data) and not os.path.exists(data) and "{" not in data:
        raise RunError(f"{data}: the images of the run in {run.path} are not there; give their new place with --data")


def is_data_of(run: Run, data: str) -> bool:
    """Whether a data set has the images that a run was trained on, wherever they are now."""
    try:
        read_job(run, data)
    except (RunError, DataError):
        return False
    return True


def absolute(data: str) -> str:
    """An absolute path, so that run.json holds from any folder; other kinds of data are unchanged."""
    scheme = next((start for start in STREAMS if data.startswith(start)), "")
    path = data.removeprefix(scheme)
    if data == "digits" or (scheme and not (scheme == "hf:" and Path(path).is_dir())):
        return data
    return scheme + str(Path(path).resolve())


def place_of(weights: str | None) -> str | None:
    """Where weights are: their address, or the absolute path of their file."""
    place = weights_of(weights) if weights else None
    return str(Path(place).resolve()) if place and not is_address(place) else place
