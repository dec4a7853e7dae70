"""From a plan to a job: the recipe, the preprocessing and the data of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Source
from inceptionnet.errors import ConfigurationError, listed
from inceptionnet.nets import NETWORKS
from inceptionnet.nets.edits import Configuration, check_edits
from inceptionnet.train.activation import with_activation
from inceptionnet.train.layers import ALL, HEAD
from inceptionnet.train.plan import Job, Plan, absolute, place_of
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.recipes import evaluation_interval, finetune, recipe_named
from inceptionnet.train.setting_groups import Preprocess
from inceptionnet.weights import read_record

OF_GRADIENT_DESCENT = ("optimizer", "schedule", "data", "loss", "batch_norm", "average", "augment", "watch")
"""Groups of settings without effect on a logistic regression, but for loss.class_weights."""


def resolve(plan: Plan, source: Source | None = None) -> Job:
    """Resolve a plan into a job: source, recipe and preprocessing.

    Preprocessing comes from the weights; settings suggested by the data override it, and the user's override both.

    Args:
        source: the data set of the plan, if it is open already.

    Raises:
        InceptionNetError: the plan is not possible.
    """
    check(plan)
    labels = str(Path(plan.labels).resolve()) if plan.labels else None
    plan = replace(plan, data=absolute(plan.data), weights=place_of(plan.weights), labels=labels)
    record = read_record(plan.weights) if plan.weights else None
    name = plan.recipe or ("finetune" if record else "default")
    if name == "finetune" and not record:
        raise ConfigurationError("--recipe finetune starts from pretrained weights; give --weights, or another recipe")
    network = plan.model or (record.configuration.name if record else None)
    if network is None:
        raise ConfigurationError("expected a network to train, got none; give --model, or --weights to start from")
    source = source or plan.open_source()
    start = record.preprocessing if record else None
    usual = {f"preprocess.{key}": getattr(start, key) for key in Preprocess.model_fields} if start else {}
    asked = {**plan.settings, **({} if plan.epochs is None else {"schedule.epochs": plan.epochs})}
    recipe = finetune(network, len(source.splits["train"])) if name == "finetune" else recipe_named(name, network)
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
    check_edits(Configuration(network, aux=recipe.network.aux, edits=recipe.network.edits))
    size = plan.size or (record.configuration.input_size if record else None) or NETWORKS[network].input_size
    seen_as = {"size_px": size, **recipe.preprocess.model_dump()}
    channels = record.configuration.in_channels if record else 3
    prep = replace(start, **seen_as) if start else Preprocessing(channels=channels, **seen_as)
    held = record.configuration if record else None
    return Job(replace(plan, model=network, recipe=name), source, recipe, prep, pretrained=held)


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
