"""What a study costs: how long its trainings and evaluations take, by the speed measured here."""

from __future__ import annotations

from collections.abc import Sequence

from inceptionnet.errors import ConfigurationError, number_of
from inceptionnet.study.trainings import Ensemble, Training
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.train.budget import Speed, measure

Speeds = dict[tuple[str, str], Speed]
"""Of each arm and value of its grid; none of what is trained already."""


def speeds_of(left: Sequence[Training], world: World) -> Speeds:
    """The measured speed of each arm of which a training is left; that of the slowest process."""
    found: Speeds = {}
    for one in left:
        if (one.arm, one.value) not in found and not one.finished:
            same = next((found[key] for key in found if key[0] == one.arm), None)
            found[one.arm, one.value] = same or measure(one.job.empty_model(), one.job, ALONE)
    slowest = world.gather(found)
    return {key: max((each[key] for each in slowest if key in each), key=lambda speed: speed.train_s) for key in found}


def epoch_s(one: Training, speeds: Speeds) -> float:
    """Seconds of an epoch with its evaluation."""
    if (one.arm, one.value) not in speeds:
        return 0.0
    recipe = one.job.recipe
    weights = 1 + (recipe.average.decay is not None)
    train_s = len(one.job.source.splits["train"]) * speeds[one.arm, one.value].train_s
    return train_s + weights * _held_out_s(one, speeds) / recipe.schedule.evaluate_every


def affordable_epochs(found: Sequence[Training], speeds: Speeds, minutes: float, world: World) -> int:
    """The epochs for each training that fit into so many minutes. Raises: ConfigurationError: not one does."""
    one_epoch_s = sum(epoch_s(one, speeds) for one in found) / world.size
    epochs = int(60 * minutes / one_epoch_s) if one_epoch_s else 0
    if epochs < 1:
        raise ConfigurationError(
            f"--time is {minutes:.3g} min, but an epoch of all {len(found)} trainings takes about "
            f"{one_epoch_s / 60:.2g} min here; give more time, fewer --seeds, a smaller --size or --width"
        )
    return epochs


def announcement(
    found: Sequence[Training],
    left: Sequence[Training],
    together: Sequence[Ensemble],
    speeds: Speeds,
    world: World,
) -> str:
    """What the study will cost, said before it starts.

    Args:
        left: the trainings that are not finished.
        together: the ensembles that are not evaluated.
    """
    left_s = sum(one.epochs * epoch_s(one, speeds) for one in left)
    left_s += sum(one.crops * _held_out_s(one, speeds) for one in left if one.crops > 1)
    left_s += sum(one.crops * _held_out_s(member, speeds) for one in together for member in one.members)
    epochs = {one.job.recipe.schedule.epochs for one in found}
    length = (f"{min(epochs)} to " if len(epochs) > 1 else "") + number_of("epoch", max(epochs))
    there = f", {len(found) - len(left)} are there" if len(left) < len(found) else ""
    shared = f" in {world.size} processes" if world.size > 1 else ""
    return (
        f"{number_of('training', len(found))} of {length}{there}; those left take about "
        f"{_duration(left_s / world.size)}{shared} by the speed measured here"
    )


def _held_out_s(one: Training, speeds: Speeds) -> float:
    """Seconds of one pass over the validation split."""
    speed = speeds.get((one.arm, one.value))
    return len(one.job.source.splits["val"]) * speed.forward_s if speed else 0.0


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"
