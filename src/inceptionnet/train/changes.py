"""Changing the settings of a run that has begun: what may change when it is resumed, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inceptionnet.errors import ConfigurationError
from inceptionnet.train.activation import with_activation
from inceptionnet.train.plan import Job, place_of
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.resolve import check, check_length, head_alone
from inceptionnet.train.settings import value_text
from inceptionnet.weights import read_record

FIXED = {
    "model": "the checkpoint holds the weights of this network",
    "weights": "it has started from them",
    "recipe": "its settings are those of the run; change single ones with --set",
    "size": "it was trained and evaluated at this image size",
    "width": "the checkpoint holds the weights of this width",
    "seed": "the held-out images and the order of the others follow from it",
    "splits": "they say which images it is trained on",
    "group_by": "the held-out images follow from it",
}
"""Why an option cannot change in a run, or in a repetition of one."""

FIXED_SETTINGS = {
    "optimizer.name": "the checkpoint holds the state of this optimiser",
    "optimizer.layer_decay": "the state of the optimiser is ordered by it",
    "data.sampler": "the order of the images of an epoch follows from it",
    "network": "the checkpoint holds the weights and the optimiser's state of this network",
    "preprocess": "the run was trained and evaluated with it",
}
"""Why a setting, or a group of settings, cannot change in a run that has begun; every other setting can."""

EMA = "the running average of the weights begins with the run"


@dataclass(frozen=True)
class Changes:
    """What a run is to be resumed or repeated with; None, and what is equal to the run's own, is no change."""

    data: str | None = None
    """Where the same images are now."""
    labels: str | None = None
    """Where the file of their labels is now."""
    epochs: int | None = None
    batch_size: int | None = None
    accumulate: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    """workers, device and corrupt_images."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Options of FIXED that are given; they are refused unless they are the run's own."""


@dataclass(frozen=True)
class Change:
    """One setting before and after; `str` is for a log line."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name} {value_text(self.before)} → {value_text(self.after)}"


def changed(job: Job, changes: Changes, *, begun: bool) -> Job:
    """The job with its changes; `data` is the job's already.

    Args:
        begun: the run goes on, so that what is in its checkpoints must stay.

    Raises:
        ConfigurationError: a change that is not possible, with the reason.
    """
    plan = job.plan
    for name, value in changes.fixed.items():
        own = _own(job, name)
        if value is not None and (place_of(value) if name == "weights" else value) != own:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} {value}: cannot change in a run that is "
                f"{'resumed' if begun else 'repeated'}, which has {value_text(own)}: "
                f"{FIXED[name]}; omit it, or start another run"
            )
    asked = {**changes.settings, **({} if changes.epochs is None else {"schedule.epochs": changes.epochs})}
    recipe = head_alone(job.recipe.changed(asked), asked)
    check_length(recipe, asked)
    if begun:
        _check_settings(job.recipe, recipe)
    start = read_record(plan.weights) if plan.weights and recipe.network.activation == "auto" else None
    recipe = with_activation(recipe, job.source, start)
    numbers = {"batch_size": changes.batch_size, "accumulate": changes.accumulate}
    plan = replace(
        plan,
        **{name: value for name, value in numbers.items() if value is not None},  # type: ignore[arg-type]
        **changes.machine,
        epochs=recipe.schedule.epochs if changes.epochs is not None else plan.epochs,
        settings={**plan.settings, **changes.settings},
    )
    check(plan)
    return replace(job, plan=plan, recipe=recipe)


def differences(before: Job, after: Job) -> Iterator[Change]:
    """The settings that differ and matter to the result; the number of workers does not."""
    for name in ("data", "labels", "batch_size", "accumulate", "corrupt_images"):
        one, other = getattr(before.plan, name), getattr(after.plan, name)
        if one != other:
            yield Change(name, one, other)
    old = dict(before.recipe.items())
    yield from (Change(key, old[key], value) for key, value in after.recipe.items() if value != old[key])


def _own(job: Job, name: str) -> Any:
    """The run's value of an option."""
    assert job.configuration is not None
    own = {"size": job.prep.size_px, "width": job.configuration.width or 1.0}
    return own[name] if name in own else getattr(job.plan, name)


def _check_settings(before: Recipe, after: Recipe) -> None:
    old = dict(before.items())
    for key, value in after.items():
        why = FIXED_SETTINGS.get(key) or FIXED_SETTINGS.get(key.partition(".")[0])
        if key == "average.decay" and (value is None) != (old[key] is None):
            why = EMA
        if value != old[key] and why:
            raise ConfigurationError(
                f"setting {key} cannot change from {value_text(old[key])} to {value_text(value)} in a run that has "
                f"begun: {why}; omit it, or start another run"
            )
