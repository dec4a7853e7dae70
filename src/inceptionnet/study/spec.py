"""A study: a claim, the trainings that test it, and the rule for the verdict; written in TOML, before any run.

The built-in studies are the TOML files in builtin/, which are examples for a study of one's own too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from inceptionnet.errors import ConfigurationError, nearest
from inceptionnet.study.statistics import Expectation
from inceptionnet.system.opening import text_of
from inceptionnet.train.setting_groups import Settings

BUILTIN = Path(__file__).parent / "builtin"
MOST_BYTES, MOST_DOTS = 2**18, 100
"""Of a study, and of a line in it: the time of reading a key grows with the square of the dots in it."""
OPTIONS = ("model", "weights", "recipe", "epochs", "batch_size", "size", "width")
"""The options of `inceptionnet train` that an arm may have besides its settings."""

Quantity = Literal["accuracy", "early_accuracy", "accuracy_in_equal_time", "top5_accuracy", "dead_features"]
QUANTITIES: dict[str, str] = {
    "accuracy": "accuracy after the last epoch",
    "early_accuracy": "mean accuracy over the first half of the epochs",
    "accuracy_in_equal_time": "accuracy when the faster of the two has finished",
    "top5_accuracy": "top-5 accuracy after the last epoch",
    "dead_features": "share of dead features in the last epoch",
}
"""What is compared, in words; all are shares of the held-out images or of the features."""
OF_ENSEMBLES: tuple[Quantity, ...] = ("accuracy", "top5_accuracy")
"""What an ensemble has of them."""


class Arm(Settings):
    """One way to train: what it has differently from the base of the study."""

    about: str = Field(default="", description="What it is, in words.")
    model: str | None = None
    weights: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    size: int | None = None
    width: float | None = None
    same_cost_as: str = Field(default="", description="Another arm: the width is chosen to have its multiply-adds.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the recipe, by dotted key.")
    crops: Literal[1, 10, 12, 144] = Field(default=1, description="Crops of each image in the final evaluation.")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="A setting and its values; the one with the best mean accuracy is taken."
    )
    ensemble: list[str] = Field(
        default_factory=list, description="Other arms: their networks of the same seed are evaluated as an ensemble."
    )
    paper: str = Field(default="", description="The paper's own figure for it.")

    @field_validator("settings", "grid", mode="before")
    @classmethod
    def _dotted(cls, value: object) -> object:
        return dict(_flat(value)) if isinstance(value, Mapping) else value

    def on(self, base: Arm) -> Arm:
        """The arm with everything that it does not state taken from the base."""
        own = self.model_dump(exclude_unset=True)
        merged = base.model_dump(exclude_none=True) | own
        if self.same_cost_as:
            merged.pop("width", None)
        return Arm(**merged | {"settings": base.settings | self.settings})


class Comparison(Settings):
    """What is said of two arms, and how it is judged (see `decide`)."""

    arm: str
    against: str
    quantity: Quantity = "accuracy"
    expect: Expectation
    margin: float = Field(gt=0, lt=1, description="Smallest difference of interest: a share, 0.02 is 2 points.")
    words: str = Field(default="", description="The part of the claim that it tests.")

    @property
    def title(self) -> str:
        """What is compared, in one line."""
        sign = {"higher": "is higher than", "lower": "is lower than", "equal": "is the same as"}[self.expect]
        within = f" within {100 * self.margin:g} points" if self.expect == "equal" else ""
        return f"{self.arm} {sign} {self.against}{within}: {QUANTITIES[self.quantity]}"


class Quick(Arm):
    """What `--quick` changes: options of the base, and which arms there are."""

    seeds: int | None = None
    arms: list[str] = Field(default_factory=list)


class Study(Settings):
    """A claim and how it is tested."""

    claim: str
    source: str = Field(default="", description="Paper, section and figure.")
    notes: list[str] = Field(default_factory=list, description="What to know before the result is believed.")
    seeds: int = Field(default=3, ge=1)
    figure: Literal["top1_error", "dead_features"] = "top1_error"
    base: Arm = Arm()
    arms: dict[str, Arm]
    compare: list[Comparison]
    quick: Quick | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(self.arms) < 2:
            raise ValueError(f"expected two arms or more, got {len(self.arms)}")
        if odd := [name for name in self.arms if not re.fullmatch(r"[\w.-]+", name)]:
            raise ValueError(f"arms: expected names of letters, digits, _, - and ., got {odd[0]!r}")
        if not self.compare:
            raise ValueError("expected a comparison of two arms, got none; add [[compare]]")
        named = {"arm": [], "against": [], "same_cost_as": [], "arms of quick": []}  # type: dict[str, list[str]]
        for one in self.compare:
            named["arm"].append(one.arm)
            named["against"].append(one.against)
            if one.arm == one.against:
                raise ValueError(f"{one.arm!r} is compared with itself")
        named["same_cost_as"] = [arm.same_cost_as for arm in self.arms.values() if arm.same_cost_as]
        named["ensemble"] = [name for arm in self.arms.values() for name in arm.ensemble]
        named["arms of quick"] = self.quick.arms if self.quick else []
        for key, names in named.items():
            for name in names:
                if name not in self.arms:
                    raise ValueError(f"{key}: no arm {name!r}; {nearest(name, self.arms)}")
        for name in self.arms:
            self._check_ensemble(name)
        for name, arm in self.arms.items():
            if arm.same_cost_as and (arm.same_cost_as == name or self.arms[arm.same_cost_as].same_cost_as):
                raise ValueError(f"same_cost_as of {name}: expected an arm with a width of its own")
        return self

    def _check_ensemble(self, name: str) -> None:
        """An ensemble trains nothing itself. Raises: ValueError."""
        if not (members := self.arms[name].ensemble):
            return
        stated = self.arms[name].model_dump(exclude_defaults=True).keys() - {"about", "crops", "ensemble", "paper"}
        if stated:  # a study.json has all fields
            raise ValueError(f"arms.{name}: an ensemble has the networks of its arms; leave {min(stated)} out")
        if len(set(members)) < max(2, len(members)):
            raise ValueError(f"arms.{name}.ensemble: expected two different arms or more, got {', '.join(members)}")
        if bad := [one for one in members if self.arms[one].ensemble or self.arms[one].grid]:
            raise ValueError(f"arms.{name}.ensemble: {bad[0]} has no single network for each seed; name another arm")
        for one in self.compare:
            if name in (one.arm, one.against) and one.quantity not in OF_ENSEMBLES:
                raise ValueError(f"{name} is an ensemble, which has no {one.quantity}; compare {OF_ENSEMBLES[0]}")

    @property
    def trained(self) -> dict[str, Arm]:
        """The arms that are trained: all but the ensembles."""
        return {name: arm for name, arm in self.arms.items() if not arm.ensemble}

    def arm(self, name: str) -> Arm:
        """An arm with the base's options."""
        return self.arms[name].on(self.base)

    def quickly(self) -> Study:
        """The study in minutes, for a first look: shorter, narrower, perhaps fewer arms.

        Raises:
            ConfigurationError: it has no such form.
        """
        if self.quick is None:
            raise ConfigurationError("--quick: this study has no [quick] part; give --epochs, --width and --size")
        about = self.model_dump(exclude_unset=True)
        quick = about.pop("quick")
        seeds, arms = quick.pop("seeds", self.seeds), quick.pop("arms", None) or list(self.arms)
        about |= {"seeds": seeds, "base": about.get("base", {}) | quick}
        about["arms"] = {name: about["arms"][name] for name in arms}
        about["compare"] = [one for one in about["compare"] if one["arm"] in arms and one["against"] in arms]
        return Study(**about)


def read_study(name: str) -> Study:
    """A built-in study by its name, or one of a .toml file.

    Raises:
        ConfigurationError: neither, or the file is not a study; the message names the place and near names.
    """
    path = BUILTIN / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
        if path.suffix != ".toml":
            raise ConfigurationError(f"no study {name!r}: {nearest(name, studies())} (or name a .toml file)")
    try:
        text = text_of(path, MOST_BYTES)
        if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"a line of more than {MOST_DOTS} dots")
        about = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{path}: expected a study in TOML: {what}") from None
    part = ""
    try:
        study = Study(**about)
        if study.quick:
            part = "quick: "
            study.quickly()
    except ValidationError as error:
        raise ConfigurationError(f"{path}: {part}{_said(error)}") from None
    return study


def studies() -> list[str]:
    """The names of the built-in studies."""
    return sorted(path.stem for path in BUILTIN.glob("*.toml"))


def _said(error: ValidationError) -> str:
    """The first thing that is wrong, with near names for an unknown key."""
    first = error.errors()[0]
    *parents, last = (str(part) for part in first["loc"]) if first["loc"] else ("",)
    if first["type"] == "extra_forbidden":
        owner = "arm" if parents[:1] == ["arms"] else parents[0] if parents else "study"
        kinds: dict[str, type[Settings]] = {"base": Arm, "arm": Arm, "compare": Comparison, "quick": Quick}
        known = kinds.get(owner, Study).model_fields
        return f"{'.'.join([*parents, last])}: unknown key; {nearest(last, known)}"
    where = ".".join([*parents, last])
    return f"{where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}"


def _flat(values: Mapping[str, object], before: str = "") -> list[tuple[str, object]]:
    """TOML's `optimizer.lr = 0.01` is a table in a table: its dotted keys."""
    found: list[tuple[str, object]] = []
    for key, value in values.items():
        found += _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [(f"{before}{key}", value)]
    return found
