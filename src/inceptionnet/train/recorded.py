"""The forms of the JSON files in a run folder, as far as they are read again: files may be damaged, or of strangers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from inceptionnet.errors import RunError

Form = TypeVar("Form", bound=BaseModel)


class RecordedPlan(BaseModel):
    """What the data of a run is read from, as its `Plan` has it."""

    data: str
    labels: str | None = None
    splits: str | None = None
    group_by: str | None = None

    def moved(self, data: str | None, labels: str | Path | None = None) -> RecordedPlan:
        """The same data at another place; a file of labels that lies in it has moved with it, unless it is given."""
        at = None if labels is None else str(Path(labels).resolve())
        if at is None and data is not None and self.labels and Path(self.labels).is_relative_to(self.data):
            at = str(Path(data).resolve() / Path(self.labels).relative_to(self.data))
        return self.model_copy(update={"data": self.data if data is None else data, "labels": at or self.labels})


class RecordedData(BaseModel):
    """What the images of a run are recognised by."""

    classes: list[str]
    images: dict[str, int | None]
    fingerprint: str
    sizes: str


class RecordedChange(BaseModel):
    """A setting that changed while the run trained."""

    setting: str
    epoch: int
    before: Any
    after: Any


class Recorded(BaseModel):
    """The form of run.json; what is in plan, recipe, configuration and preprocessing is checked where it is used."""

    plan: RecordedPlan
    recipe: dict[str, Any]
    configuration: dict[str, Any]
    preprocessing: dict[str, Any]
    data: RecordedData
    environment: dict[str, Any]
    changes: list[RecordedChange] = []
    leaks: list[str] = []


class RecordedPenalty(BaseModel):
    """A trial of the penalty of a logistic regression."""

    penalty: float
    loss: float
    accuracy: float


class RecordedHead(BaseModel):
    """What a report reads of head.json."""

    penalty: float
    measure: str = Field(max_length=100)
    accuracy: float
    summary: str
    trials: list[RecordedPenalty]


class RecordedRate(BaseModel):
    """A trial of a learning rate."""

    lr: float
    loss: float
    smoothed: float


class RecordedRangeTest(BaseModel):
    """What a report reads of range_test.json."""

    recipe_lr: float
    rises_at: float | None
    peak_lr: float
    trials: list[RecordedRate]


def recorded(values: Mapping[str, Any], form: type[Form], file: Path, advice: str) -> Form:
    """The values of a file in a form. Raises: RunError: the first field of another form, and the advice."""
    try:
        return form.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'its content'}: {first['msg']}"
        raise RunError(f"{file}: not written by this version, or damaged ({what}); {advice}") from None
