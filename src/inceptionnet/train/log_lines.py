"""The log lines at the start and at the end of a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from inceptionnet.errors import number_of
from inceptionnet.system.distributed import World
from inceptionnet.train.figures import BEST, AnyEvaluation, best_row, deciding, figures, value_of, written
from inceptionnet.train.layers import training_summary
from inceptionnet.train.plan import Job
from inceptionnet.train.position import Counted, Position
from inceptionnet.train.run import Run
from inceptionnet.train.setting_groups import Schedule
from inceptionnet.train.step import Stepper
from inceptionnet.train.targets import imbalance_of
from inceptionnet.train.watch import DATA_WAIT_SHARE

CLASSIFIER = "logistic regression on the features of the training images"


def opening(job: Job, stepper: Stepper, steps: int, world: World) -> Iterator[str]:
    """On which images, and how, the network is trained, with `steps` per epoch."""
    yield f"{job.source.title}: {job.source.note}; evaluating on {job.held_out}"
    recipe = job.recipe
    if edits := stepper.model.configuration.edits:
        yield f"the network is edited: {', '.join(edits)}"
    if imbalance := imbalance_of(job.source, recipe.model_dump()):
        yield imbalance
    if not recipe.schedule.epochs:
        weights = sum(weight.numel() for weight in stepper.model.head.get_submodule("logits").parameters())
        yield f"fitting the classifier alone ({weights:,} parameters): {CLASSIFIER}"
        return
    if recipe.network.fit_head:
        yield f"the classifier is fitted first: {CLASSIFIER}"
    settings, peak = recipe.optimizer, stepper.peak_lr
    batch, parts = job.plan.batch_size, job.plan.accumulate
    shares = [f"{n} {what}" for n, what in ((world.size, "processes"), (parts, "accumulation steps")) if n > 1]
    divided = f" ({' × '.join([*shares, f'{batch / (world.size * parts):.3g}'])})" if shares else ""
    rule = f" ({settings.lr:g} for {settings.lr_batch}, {settings.lr_scaling} scaling)"
    about = "" if recipe.schedule.minutes is None else "about "
    rule = rule if peak != settings.lr else ""
    yield (
        f"recipe {job.plan.recipe}: {settings.name}, effective batch size {batch}{divided}, peak learning rate "
        f"{peak:.3g}{rule}, {about}"
        f"{number_of('epoch', recipe.schedule.epochs)} of {number_of('step', steps)}"
    )
    if stepper.note:
        yield stepper.note
    if recipe.schedule.patience and job.held_out != "val":
        yield f"no early stopping: there is no validation split, and {job.held_out} is not for choosing an epoch"
    yield from training_summary(stepper.model, stepper.frozen, peak, settings.layer_decay)


def epoch_line(
    title: str,
    counted: Counted,
    accuracy: str,
    held_out: str,
    evaluation: AnyEvaluation,
    raw: AnyEvaluation | None,
) -> str:
    """The results of an epoch, of averaged weights and of the raw ones."""
    found = written(figures(evaluation))
    if raw and raw is not evaluation:  # as before any training
        rest = {name: value for name, value in figures(raw).items() if name != "loss"}
        found = f"averaged {found} (raw {written(rest).removeprefix('accuracy ')})"
    wait = ""
    if counted.data_wait > DATA_WAIT_SHARE:
        wait = f", {counted.data_wait:.0%} of the time waiting for data"
    train = f"train loss {counted.loss:.4f} {accuracy} {counted.accuracy:.1%}"
    return f"{title}  {train}  {held_out} {found}  {counted.images_per_s:.0f} images/s{wait}"


def schedule_goes_on(names: Collection[str], stepper: Stepper, at: Position, last_lr: float) -> Iterator[str]:
    """What becomes of the learning rate after settings of these names have changed."""
    schedule = stepper.recipe.schedule
    if schedule.minutes is not None:
        yield f"the {schedule.name} schedule follows the clock, to the end of {schedule.minutes:.3g} min"
        return
    if "schedule.epochs" in names:
        ends = f"now ends after {schedule.epochs} epochs"
        yield f"the {schedule.name} schedule " + (
            ends if schedule.name == "cosine" else "does not depend on the number of epochs"
        )
    if at.batch == at.steps_per_epoch and at.epoch == schedule.epochs:
        yield "no step is left to train"
    elif at.step and any(name.startswith(("schedule.", "optimizer.lr", "batch_size")) for name in names):
        was = f"; it was {last_lr:.3g} in the last step" if last_lr else ""
        yield f"the learning rate goes on at {stepper.rate(at.step):.3g}{was}"


def stopped_early(rows: Sequence[dict[str, float]], schedule: Schedule, *, last: bool) -> str:
    """Why a run ends before its last epoch: its patience is over; empty if it goes on, or this is the `last` epoch."""
    if not (schedule.patience and rows) or last:
        return ""
    patience, best, epoch = schedule.patience, best_row(rows), int(rows[-1]["epoch"])
    if not best or epoch - best["epoch"] < patience:
        return ""
    epochs = "epoch" if patience == 1 else number_of("epoch", patience)
    better = f"no better {BEST[deciding(best)]} on val in the last {epochs}"
    of = "" if schedule.minutes is not None else f" of {schedule.epochs}"
    return f"stopped early, after epoch {epoch}{of}: {better}"


def closing(rows: Sequence[dict[str, float]], run: Run) -> Iterator[str]:
    """Which epoch was the best one, if it was not the last."""
    best = best_row(rows)
    if best and best is not rows[-1]:
        which = f"best epoch {best['epoch']:.0f}" if best["epoch"] else "best before the first epoch"
        yield (
            f"{which}: val {BEST[deciding(best)]} {value_of(best)}, last epoch "
            f"{value_of(rows[-1])}; the best one's weights are {run.best_weights.name}, and val flatters them, since "
            "it chose them"
        )
