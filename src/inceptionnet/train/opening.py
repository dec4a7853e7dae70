"""The log lines at the start of a run: on which images, and how, the network is trained."""

from __future__ import annotations

from collections.abc import Iterator

from inceptionnet.system.distributed import World
from inceptionnet.train.layers import training_summary
from inceptionnet.train.plan import Job
from inceptionnet.train.step import Stepper
from inceptionnet.train.targets import imbalance_of

CLASSIFIER = "logistic regression on the features of the training images"


def opening(job: Job, stepper: Stepper, steps: int, world: World) -> Iterator[str]:
    """Data, classifier, and gradient descent, with `steps` per epoch."""
    yield f"{job.source.title}: {job.source.note}; evaluating on {job.held_out}"
    recipe = job.recipe
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
    rule = rule if peak != settings.lr else ""
    yield (
        f"recipe {job.plan.recipe}: {settings.name}, effective batch size {batch}{divided}, peak learning rate "
        f"{peak:.3g}{rule}, {recipe.schedule.epochs} epochs of {steps} steps"
    )
    if recipe.schedule.patience and job.held_out != "val":
        yield f"no early stopping: there is no validation split, and {job.held_out} is not for choosing an epoch"
    yield from training_summary(stepper.model, stepper.frozen, peak, settings.layer_decay)
