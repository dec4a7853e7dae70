"""A recipe: all settings of a training run, and changing them by dotted key.

`--set key=value` changes one setting; values may be text. The run folder holds the whole recipe of the run. The named
recipes are in recipes.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.train.setting_groups import (
    Augmentation,
    Averaging,
    BatchNorm,
    Checkpoint,
    Compute,
    Data,
    Log,
    Loss,
    Network,
    Optimizer,
    Preprocess,
    Schedule,
    Settings,
    Watch,
)

LISTS = ("network.residual_scale", "network.edits", "log.trackers")
"""Settings that are lists themselves; several values of any other setting are the trials of a search."""


class Recipe(Settings):
    """All settings, by group."""

    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    data: Data = Data()
    loss: Loss = Loss()
    network: Network = Network()
    batch_norm: BatchNorm = BatchNorm()
    average: Averaging = Averaging()
    augment: Augmentation = Augmentation()
    preprocess: Preprocess = Preprocess()
    compute: Compute = Compute()
    watch: Watch = Watch()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()

    def changed(self, settings: Mapping[str, object]) -> Recipe:
        """A copy with these settings changed, by dotted key; values may be text.

        Raises:
            ConfigurationError: an unknown key (with the nearest known ones), or an invalid value.
        """
        known = dict(self.items())
        merged = self.model_dump()
        for key, value in settings.items():
            if key not in known:
                raise ConfigurationError(f"unknown setting {key!r}: {nearest(key, known)}")
            if len(values_of(key, value)) != 1:
                raise ConfigurationError(f"setting {key} is {value!r}; expected one value, several start a search")
            group, _, name = key.partition(".")
            merged[group][name] = _from_text(key, value) if isinstance(value, str) else value
        try:
            return Recipe.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"][:2])
            raise ConfigurationError(  # the input is the word itself, also of a list
                f"setting {key} is {settings.get(key)!r}: {first['msg']}{_nearest_choice(key, first['input'])}"
            ) from None

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every setting as (dotted key, value)."""
        for group, values in self.model_dump().items():
            for name, value in values.items():
                yield f"{group}.{name}", value


def parse_settings(texts: Sequence[str]) -> dict[str, object]:
    """`["optimizer.lr=0.02"]` → `{"optimizer.lr": "0.02"}`.

    Raises:
        ConfigurationError: no `=`, or the same key twice.
    """
    settings: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set {text!r}: expected key=value, such as optimizer.lr=0.02")
        if key in settings:
            raise ConfigurationError(f"--set {key} is given twice; give it once")
        settings[key] = value
    return settings


def with_shortcuts(
    settings: Mapping[str, object], *, bn: str | None, train_from: str | None, minutes: float | None = None
) -> dict[str, object]:
    """The settings with those that have an option of their own; what is set by its key comes first."""
    own = {"batch_norm.mode": bn, "network.train_from": train_from, "schedule.minutes": minutes}
    return {key: value for key, value in own.items() if value is not None} | dict(settings)


def values_of(key: str, value: object) -> list[object]:
    """The values that a setting is given: several for a search, separated by commas or in a list; else the one."""
    if key in LISTS:
        return [value]
    if isinstance(value, str):
        return list(value.split(","))
    return list(value) if isinstance(value, list | tuple) else [value]


def _from_text(key: str, text: str) -> object:
    """Text as a value: `none` is None unless it is one of the choices, commas separate a list, else as it is."""
    if text.lower() == "none" and "none" not in choices_of(key):
        return None
    return text.split(",") if key in LISTS and "," in text else text


def choices_of(key: str) -> tuple[str, ...]:
    """The words that a setting takes; empty for numbers and other values."""
    group, _, name = key.partition(".")
    annotation = type(getattr(Recipe(), group)).model_fields[name].annotation
    several = [get_args(part) for part in get_args(annotation)]  # of a tuple of words
    return tuple(
        word for word in (*get_args(annotation), *(w for words in several for w in words)) if isinstance(word, str)
    )


def _nearest_choice(key: str, value: object) -> str:
    """The closest choice to a misspelt one."""
    choices = choices_of(key)
    hint = nearest(str(value), choices) if choices else ""
    return f"; {hint}" if hint.startswith("did you mean") else ""
