"""The evaluation after each epoch: of the averaged weights and of the raw ones, with recalibrated batch norm if set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from inceptionnet.data.augment import to_input
from inceptionnet.data.loading import EvalLoader, TrainLoader
from inceptionnet.errors import Interrupted
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.distributed import World
from inceptionnet.train.batch_norm import RECALIBRATION_BATCHES, batch_statistics
from inceptionnet.train.figures import AnyEvaluation, accuracy_of, accuracy_words, evaluate_model
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.plan import Job
from inceptionnet.train.step import Stepper
from inceptionnet.train.stop import StopRequest
from inceptionnet.train.watch import GAP, GAP_BATCHES, GAP_IMAGES, batch_norm_gap


class Validation:
    """Evaluates and saves the weights after an epoch; all processes must call it."""

    def __init__(self, job: Job, stepper: Stepper, batches: TrainLoader, keeper: Keeper, world: World) -> None:
        self.job = job
        self.stepper = stepper
        self.batches = batches
        self.keeper = keeper
        self.world = world
        self.model: InceptionNet = stepper.model
        self._suspected = False
        self.checks: EvalLoader = EvalLoader(
            job.source.splits[job.held_out],
            job.prep,
            batch_size=job.plan.batch_size,
            workers=job.plan.workers,
            corrupt_images=job.plan.corrupt_images,
            world=world,
        )

    def run(self, epoch: int, train_accuracy: float, stop: StopRequest) -> tuple[AnyEvaluation, AnyEvaluation | None]:
        """Evaluate and save the weights; with averaging the raw weights too, as the second result."""
        average, raw = self.stepper.average, None
        if epoch == 0:  # the average is that of the same weights
            evaluation = self._evaluate(epoch, "", stop, raw=False)
            return evaluation, evaluation if average else None
        if average is None:
            evaluation = self._evaluate(epoch, "", stop, raw=False)
            self._suspect_batch_norm(epoch, train_accuracy, evaluation)
            return evaluation, None
        raw = self._evaluate(epoch, " raw", stop, raw=True)
        with average.in_place():
            evaluation = self._evaluate(epoch, " averaged", stop, raw=False)
            self._suspect_batch_norm(epoch, train_accuracy, evaluation)
        return evaluation, raw

    def _evaluate(self, epoch: int, which: str, stop: StopRequest, *, raw: bool) -> AnyEvaluation:
        """Evaluate and save the model's current weights."""
        if epoch and self.job.recipe.batch_norm.mode == "recalibrate" and self.stepper.norms:
            with batch_statistics(self.model, self.stepper.norms, remembered=True), torch.no_grad():
                for x, _ in self._inputs(epoch, RECALIBRATION_BATCHES):
                    self.model.all_logits(x)  # auxiliary heads have statistics too
        title = f"{self.keeper.title} {self.job.held_out}{which}"

        def advance(images: int, figures: str) -> None:
            if stop.requested and self.world.size == 1:
                raise Interrupted(f"stopped during the evaluation of epoch {epoch}; {self.keeper.resume_hint()}")
            self.keeper.bar.advance(0 if raw else images, figures, title)

        classes = self.job.source.classes
        evaluation = evaluate_model(self.model, self.checks, self.job.prep, classes, advance=advance, world=self.world)
        self.keeper.decode_errors(evaluation.decode_errors if self.world.is_main else ())
        if evaluation.not_finite:
            share = f"{evaluation.not_finite} of {len(evaluation.labels)}"
            self.keeper.note(
                f"warning: the outputs{which} are not finite for {share} {self.job.held_out} images, which count as "
                "incorrect: the training diverges; start again with a lower --set optimizer.lr"
            )
        self.keeper.weights(self.model, evaluation, raw=raw)
        return evaluation

    def _suspect_batch_norm(self, epoch: int, train_accuracy: float, evaluation: AnyEvaluation) -> None:
        """If held-out accuracy is far below training accuracy, check whether batch norm is the cause, and warn.

        With several labels an image both are subset accuracy.

        It warns only if two evaluations in a row find it, or the last one: running statistics lag behind weights that
        change fast for an epoch, and by how much depends on rounding.
        """
        suspected, self._suspected = self._suspected, False
        if train_accuracy - accuracy_of(evaluation) <= GAP:
            return
        norms = self.stepper.norms if self.job.recipe.batch_norm.mode != "freeze" else []
        if not norms or (self.stepper.fresh and epoch == 1):
            return  # trained with the running statistics; or these are too new to judge
        found = batch_norm_gap(self.model, self._inputs(epoch, GAP_BATCHES), norms)
        seen, batchwise, running = self.world.total(found)
        self._suspected = batchwise - running >= max(GAP * seen, GAP_IMAGES)
        if self._suspected and (suspected or self.keeper.last):
            accuracy = accuracy_words(self.model.outputs)
            self.keeper.once(
                "batch norm",
                f"batch norm's running statistics do not fit the weights: {accuracy} on {seen:.0f} training images is "
                f"{batchwise / seen:.0%} with batch statistics and {running / seen:.0%} with running statistics, which "
                "evaluation uses; use --bn recalibrate, or a larger --set batch_norm.momentum",
            )

    def _inputs(self, epoch: int, batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of the first training batches of the epoch, this process's share."""
        for batch in islice(self.batches.epoch(epoch), batches):
            if self.world.total([len(batch)])[0] > 1:
                x = to_input(batch.images.to(self.model.device), self.job.prep, self.job.augment, batch.draws)
                yield x, batch.labels.to(self.model.device)
