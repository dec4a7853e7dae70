"""The arguments of a training, and the job resolved from them: written to run.json, and read back from it."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

import inceptionnet
from inceptionnet.data.loading import CorruptImages
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.sources import STREAMS, open_source
from inceptionnet.data.splits import Source, Split, evenly_spaced
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, InceptionNetError, RunError, listed
from inceptionnet.model.build import initialise
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.edits import Configuration
from inceptionnet.registry.create import create_model
from inceptionnet.train.activation import start_head, with_activation
from inceptionnet.train.layers import ALL, HEAD
from inceptionnet.train.recipe import Preprocess, Recipe
from inceptionnet.train.recipes import evaluation_interval, finetune, recipe_named
from inceptionnet.train.run import Run
from inceptionnet.weights import read_record
from inceptionnet.weights.folder import weights_of
from inceptionnet.weights.hub import is_address

log = logging.getLogger("inceptionnet")

OF_GRADIENT_DESCENT = ("optimizer", "schedule", "data", "loss", "batch_norm", "average", "augment", "watch")
"""Groups of settings without effect on a logistic regression, but for loss.class_weights."""
SIZED = 500
"""Images of a split whose sizes are compared when a run is resumed."""


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
    """Of the network, in a job read from a run folder; for `empty_model`."""

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
        plan, network, outputs = self.plan, self.recipe.network, self.outputs
        torch.manual_seed(plan.seed)
        model = create_model(
            plan.model,
            num_classes=outputs.logits,
            input_size=plan.size,
            width=plan.width,
            weights=plan.weights,
            dropout=network.dropout,
            residual_scale=network.residual_scale,
            aux=network.aux,
            activation=None if plan.weights else outputs.activation,
        )
        if plan.weights:
            start_head(model, outputs, self.source.classes, plan.weights)
        return model

    def empty_model(self) -> InceptionNet:
        """The network of a job read from a run folder, with arbitrary weights, to load a checkpoint into."""
        assert self.configuration is not None
        model = InceptionNet(self.configuration)
        initialise(model, model.network)
        return model

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
                "classes": self.source.classes,
                "images": {name: len(split) for name, split in self.source.splits.items()},
                "fingerprint": fingerprint(self.source),
                "sizes": sizes(self.source),
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


def resolve(plan: Plan) -> Job:
    """Resolve a plan into a job: source, recipe and preprocessing.

    Preprocessing comes from the weights; settings suggested by the data override it, and the user's override both.

    Raises:
        InceptionNetError: the plan is not possible.
    """
    check(plan)
    labels = str(Path(plan.labels).resolve()) if plan.labels else None
    plan = replace(plan, data=_absolute(plan.data), weights=place_of(plan.weights), labels=labels)
    record = read_record(plan.weights) if plan.weights else None
    name = plan.recipe or ("finetune" if record else "default")
    if name == "finetune" and not record:
        raise ConfigurationError("--recipe finetune starts from pretrained weights; give --weights, or another recipe")
    network = plan.model or (record.configuration.name if record else None)
    if network is None:
        raise ConfigurationError("expected a network to train, got none; give --model, or --weights to start from")
    source = plan.open_source()
    start = record.preprocessing if record else None
    usual = {f"preprocess.{key}": getattr(start, key) for key in Preprocess.model_fields} if start else {}
    asked = {**plan.settings, **({} if plan.epochs is None else {"schedule.epochs": plan.epochs})}
    recipe = finetune(len(source.splits["train"])) if name == "finetune" else recipe_named(name, network)
    recipe = recipe.changed({**usual, **source.suggestions, **asked})
    check_length(recipe, asked)
    if name == "finetune" and "schedule.evaluate_every" not in asked:
        recipe = recipe.changed({"schedule.evaluate_every": evaluation_interval(recipe.schedule.epochs)})
    if "optimizer.lr" in asked and "optimizer.range_test" not in asked:
        recipe = recipe.changed({"optimizer.range_test": False})
    if recipe.batch_norm.mode == "freeze" and not record:
        raise ConfigurationError(
            "--bn freeze keeps the statistics of pretrained weights; give --weights, or --bn update"
        )
    if recipe.network.train_from != ALL and not record:
        raise ConfigurationError(
            f"--train-from {recipe.network.train_from} freezes the pretrained weights before it; give --weights, or "
            f"--train-from {ALL}"
        )
    if recipe.network.fit_head and not record:
        raise ConfigurationError(
            "--set network.fit_head=true fits the classifier to features of a pretrained network; give --weights"
        )
    recipe = with_activation(head_alone(recipe, asked), source, record)
    size = plan.size or (record.configuration.input_size if record else None) or NETWORKS[network].input_size
    seen_as = {"size_px": size, **recipe.preprocess.model_dump()}
    channels = record.configuration.in_channels if record else 3
    prep = replace(start, **seen_as) if start else Preprocessing(channels=channels, **seen_as)
    return Job(replace(plan, model=network, recipe=name), source, recipe, prep)


def check_length(recipe: Recipe, asked: Mapping[str, object]) -> None:
    """Check that a recipe with a time budget has no number of epochs besides. Raises: ConfigurationError."""
    if recipe.schedule.minutes is not None and "schedule.epochs" in asked:
        raise ConfigurationError(
            f"--epochs is {asked['schedule.epochs']}, but the time budget of {recipe.schedule.minutes:.3g} min says "
            "how many epochs there are; give one of --epochs and --time"
        )


def head_alone(recipe: Recipe, asked: Mapping[str, object]) -> Recipe:
    """The recipe; where only the classifier is trained, by logistic regression, without epochs of gradient descent.

    Args:
        asked: settings that the user has stated.

    Raises:
        ConfigurationError: one of them has no effect then.
    """
    if recipe.network.train_from != HEAD:
        if not recipe.schedule.epochs:
            raise ConfigurationError(f"schedule.epochs is 0; expected 1 or more, or --train-from {HEAD}")
        return recipe
    idle = [key for key in asked if key.partition(".")[0] in OF_GRADIENT_DESCENT or key == "network.aux"]
    idle = [key for key in idle if key != "loss.class_weights"]
    if idle:
        options = {"schedule.epochs": "--epochs", "schedule.minutes": "--time"}
        names = listed(options.get(key, key) for key in idle)
        raise ConfigurationError(
            f"--train-from {HEAD} fits the classifier by logistic regression, which has no {names}; omit "
            f"{'it' if len(idle) == 1 else 'them'}, or train from an endpoint, such as the last one"
        )
    return recipe.changed(
        {"network.fit_head": True, "schedule.epochs": 0, "network.aux": False, "optimizer.range_test": False}
    )


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
            f"{run.path / 'run.json'}: not written by this version ({what}); start again with another --out"
        ) from None
    if data is None:
        check_there(run, plan.data)
    now = run.data().moved(None if data is None else _absolute(data), labels)
    plan = replace(plan, data=now.data, labels=now.labels)
    source = plan.open_source()
    if what := _difference(source, about["data"]):
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


def _difference(source: Source, trained_on: Mapping[str, Any]) -> str:
    """How a data set differs from that of a run, in words; empty if it does not, as far as `fingerprint` sees."""
    if list(source.classes) != trained_on["classes"]:
        gone, new = (set(trained_on["classes"]) - set(source.classes), set(source.classes) - set(trained_on["classes"]))
        said = [f"without {listed(gone)}"] * bool(gone) + [f"with {listed(new)}"] * bool(new)
        return f"the classes are not the same ({' and '.join(said) or 'another order'})"
    images = {name: len(split) for name, split in source.splits.items()}
    if images != trained_on["images"]:
        counts = (", ".join(f"{n} {name}" for name, n in one.items()) for one in (images, trained_on["images"]))
        return f"{next(counts)} instead of {next(counts)} images"
    if fingerprint(source) != trained_on["fingerprint"]:
        return "names or labels of images are not the same"
    return "" if sizes(source) == trained_on["sizes"] else "the files of images do not have the same sizes"


def fingerprint(source: Source) -> str:
    """A hash of the classes, and of the names and labels of every split; the images themselves are not read."""
    digest = hashlib.sha256("\0".join(source.classes).encode(errors="surrogateescape"))
    for name, split in source.splits.items():
        digest.update(f"\1{name}\0{len(split)}".encode())
        if isinstance(split, Split):
            digest.update("\0".join(split.names).encode(errors="surrogateescape"))
            digest.update(split.labels.tobytes())
    return digest.hexdigest()


def sizes(source: Source) -> str:
    """A hash of the sizes in bytes of up to SIZED encoded images of every split, evenly spaced; none of a stream's."""
    digest = hashlib.sha256()
    for name, split in source.splits.items():
        if not isinstance(split, Split):
            continue
        for i in map(int, evenly_spaced(len(split), SIZED)):
            try:
                size = len(split.read(i))
            except DecodeError:
                size = -1
            digest.update(f"{name} {i} {size}\n".encode())
    return digest.hexdigest()


def _absolute(data: str) -> str:
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


def check(plan: Plan) -> None:
    """Check the numbers of a plan. Raises: ConfigurationError."""
    least = {"epochs": 1, "batch_size": 2, "accumulate": 1, "workers": 0, "seed": 0}
    for name, smallest in least.items():
        value = getattr(plan, name)
        if value is not None and value < smallest:
            raise ConfigurationError(f"--{name.replace('_', '-')} is {value}; expected {smallest} or more")
    if plan.accumulate > plan.batch_size // 2:
        raise ConfigurationError(
            f"--accumulate is {plan.accumulate}; expected at most half of --batch-size {plan.batch_size}, since batch "
            "norm needs two images"
        )
