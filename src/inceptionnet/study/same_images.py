"""Runs on the same held-out images: whether they have them, the paired differences, and where predictions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inceptionnet.classifier import load
from inceptionnet.classifier.evaluating import Evaluated, evaluate_together
from inceptionnet.data.fingerprint import fingerprint
from inceptionnet.data.splits import AnySplit, Source, Split
from inceptionnet.errors import DataError, listed
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.evaluate.multi_label import MultiLabelEvaluation
from inceptionnet.evaluate.paired import Paired
from inceptionnet.study.opened_runs import OpenRun
from inceptionnet.system.files import as_text

NOTHING_CHOSEN = "the test split: nothing was chosen by it"
MAY_FLATTER = "the validation split, which flatters runs whose epoch or settings were chosen by it"


@dataclass(frozen=True)
class Disagreement:
    """An image for which not all runs predict the same; the sequences have one entry for each run."""

    image: str
    position: int
    """In the split."""
    label: str
    """The true class; several labels have ; between them, and there may be none."""
    predicted: Sequence[str]
    correct: Sequence[bool]
    confidence: Sequence[float]
    """Probability of the predicted class; empty with several labels an image."""
    losses: Sequence[float]
    """Cross-entropy; with several labels binary, mean over the labels."""


@dataclass(frozen=True, eq=False)
class SameImages:
    """The runs on the images that all of them held out."""

    evaluated: Evaluated
    """The ensemble of the runs; each one's own results are in its `members`."""
    paired: Mapping[tuple[int, int], Paired]
    """Every two runs by their positions, compared by top-1 accuracy, or of several labels an image subset accuracy."""
    disagreements: Sequence[Disagreement]
    """Those with the largest difference in cross-entropy between two runs first."""
    names: Sequence[str]
    """Of the runs."""

    @property
    def split(self) -> Split:
        """The images."""
        assert isinstance(self.evaluated.split, Split)
        return self.evaluated.split

    @property
    def images(self) -> int:
        """The number of images that could be decoded."""
        return len(self.evaluated.metrics.evaluation.labels)

    @property
    def measure(self) -> str:
        """What the pairs are compared by, in words."""
        several = isinstance(self.evaluated.metrics.evaluation, MultiLabelEvaluation)
        return "subset accuracy" if several else "top-1 accuracy"

    @property
    def note(self) -> str:
        """What the split has to do with what was chosen."""
        return NOTHING_CHOSEN if self.evaluated.split_name == "test" else MAY_FLATTER

    def columns(self) -> dict[str, list[Any]]:
        """All disagreements as a table: image, label, and of each run predicted, correct, confidence and loss."""
        rows = self.disagreements
        found: dict[str, list[Any]] = {"image": [one.image for one in rows], "label": [one.label for one in rows]}
        for i, name in enumerate(map(as_text, self.names)):
            found[f"predicted_{name}"] = [one.predicted[i] for one in rows]
            found[f"correct_{name}"] = [one.correct[i] for one in rows]
            if not isinstance(self.evaluated.metrics.evaluation, MultiLabelEvaluation):
                found[f"confidence_{name}"] = [one.confidence[i] for one in rows]
            found[f"loss_{name}"] = [one.losses[i] for one in rows]
        return found


def why_not_the_same(runs: Sequence[OpenRun], split: str) -> str:
    """Why the runs cannot be compared image by image on that split, in words; empty if they can.

    Args:
        split: auto (test, else val), val or test.

    Raises:
        DataError: a run has no such split.
    """
    held = [_held_out(one, split) for one in runs]
    if any(not isinstance(images, Split) for _, images in held):
        return (
            "the held-out images are streamed, and have no names to tell whether they are the same; inceptionnet "
            "evaluate RUN RUN DATA compares networks on one stream"
        )
    groups: dict[str, list[str]] = {}
    for one, (name, images) in zip(runs, held, strict=True):
        groups.setdefault(_digest(images, one.job.source, name), []).append(one.name)
    if len(groups) == 1:
        return ""
    told = "; ".join(listed(names, ordered=True, last="and") for names in groups.values())
    return (
        f"the runs did not hold out the same images ({told}), as with other random seeds on data that is not split: no "
        "comparison image by image"
    )


def evaluate_runs(runs: Sequence[OpenRun], split: str, *, device: str, batch_size: int, workers: int) -> SameImages:
    """Evaluate the weights of the runs' last epochs on the images that all of them held out.

    Raises:
        InceptionNetError: weights or images cannot be read.
    """
    plan, (name, _) = runs[0].job.plan, _held_out(runs[0], split)
    classifiers = [load(one.run.path, device=device, batch_size=batch_size) for one in runs]
    found = evaluate_together(
        classifiers, plan.data, split=name, labels=plan.labels, splits=plan.splits, group_by=plan.group_by,
        batch_size=batch_size, workers=workers,
    )  # fmt: skip
    assert isinstance(found.split, Split)
    members = found.metrics.evaluation.members
    return SameImages(found, found.metrics.paired, disagreements(members, found.split), [one.name for one in runs])


def disagreements(members: Sequence[Evaluation | MultiLabelEvaluation], images: Split) -> list[Disagreement]:
    """The images for which not all of them predict the same, the largest difference in cross-entropy first."""
    first, losses = members[0], np.stack([one.losses for one in members])
    differ = np.stack([_apart(one.predicted, first.predicted) for one in members]).any(0)
    chosen = np.flatnonzero(differ)
    chosen = chosen[np.argsort(-np.ptp(losses, axis=0)[chosen], kind="stable")]
    classes = [as_text(name) for name in first.classes]
    return [
        Disagreement(
            image=as_text(images.names[int(first.indices[i])]),
            position=int(first.indices[i]),
            label=_text(first.labels[i], classes),
            predicted=[_text(one.predicted[i], classes) for one in members],
            correct=[bool(one.correct[i]) for one in members],
            confidence=[float(one.confidence[i]) for one in members if isinstance(one, Evaluation)],
            losses=losses[:, i].tolist(),
        )
        for i in chosen.tolist()
    ]


def _apart(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(N,): whether predicted classes, or any of several labels, differ."""
    return np.asarray((one != other).reshape(len(one), -1).any(1))


def _text(label: Any, classes: Sequence[str]) -> str:
    return ";".join(classes[k] for k in np.flatnonzero(label).tolist()) if np.ndim(label) else classes[int(label)]


def _held_out(one: OpenRun, split: str) -> tuple[str, AnySplit]:
    splits = one.job.source.splits
    name = one.job.source.pick(split)[0] if split == "auto" else split
    if name not in splits:
        raise DataError(
            f"{one.run.path}: expected data with a split {name}, got {listed(splits, ordered=True)}; omit --split"
        )
    return name, splits[name]


def _digest(images: AnySplit, source: Source, name: str) -> str:
    """What the images of a split are recognised by."""
    return fingerprint(Source(source.title, source.classes, {name: images}, source.note))
