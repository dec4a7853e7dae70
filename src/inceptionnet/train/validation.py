"""The evaluation at the end of an epoch: of the weights that are kept and of the raw ones, with statistics that fit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from inceptionnet.data.augment import to_input
from inceptionnet.data.loading import EvalLoader, TrainLoader
from inceptionnet.distributed import World
from inceptionnet.errors import Interrupted
from inceptionnet.evaluate.evaluation import Evaluation, evaluate
from inceptionnet.train.batch_norm import RECALIBRATION_BATCHES, batch_statistics
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.plan import Job
from inceptionnet.train.step import Stepper
from inceptionnet.train.stop import StopWish
from inceptionnet.train.watch import GAP, GAP_BATCHES, GAP_IMAGES, batch_norm_gap


class Validation:
    """Evaluates and saves the weights of a training; all processes must call it."""

    def __init__(self, job: Job, stepper: Stepper, batches: TrainLoader, keeper: Keeper, world: World) -> None:
        self.job, self.stepper, self.batches, self.keeper, self.world = job, stepper, batches, keeper, world
        self.model = stepper.model
        self._doubted = False
        self.checks = EvalLoader(
            job.source.splits[job.held_out],
            job.prep,
            batch_size=job.plan.batch_size,
            workers=job.plan.workers,
            corrupt_images=job.plan.corrupt_images,
            world=world,
        )

    def run(self, epoch: int, train_accuracy: float, stop: StopWish) -> tuple[Evaluation, Evaluation | None]:
        """The evaluation of the weights that are kept and, where those are an average, of the raw ones; saves both."""
        average, raw = self.stepper.average, None
        if average is None:
            evaluation = self._evaluate(epoch, "", stop, raw=False)
            self._suspect_batch_norm(epoch, train_accuracy, evaluation)
            return evaluation, None
        raw = self._evaluate(epoch, " raw", stop, raw=True)
        with average.in_place():
            evaluation = self._evaluate(epoch, " averaged", stop, raw=False)
            self._suspect_batch_norm(epoch, train_accuracy, evaluation)
        return evaluation, raw

    def _evaluate(self, epoch: int, which: str, stop: StopWish, *, raw: bool) -> Evaluation:
        """Evaluate and save the weights that are in the model."""
        if self.job.recipe.batch_norm.mode == "recalibrate" and self.stepper.norms:
            with batch_statistics(self.model, self.stepper.norms, remembered=True), torch.no_grad():
                for x, _ in self._inputs(epoch, RECALIBRATION_BATCHES):
                    self.model.all_logits(x)  # auxiliary heads have statistics too
        title = f"epoch {epoch}/{self.job.recipe.schedule.epochs} {self.job.held_out}{which}"

        def advance(images: int, figures: str) -> None:
            if stop.wished and self.world.size == 1:
                raise Interrupted(f"stopped in the evaluation of epoch {epoch}; {self.keeper.how_to_go_on()}")
            self.keeper.bar.advance(0 if raw else images, figures, title)

        classes = self.job.source.classes
        evaluation = evaluate(self.model, self.checks, self.job.prep, classes, advance=advance, world=self.world)
        self.keeper.decode_errors(evaluation.bad if self.world.is_main else ())
        self.keeper.weights(self.model, evaluation, raw=raw)
        return evaluation

    def _suspect_batch_norm(self, epoch: int, train_accuracy: float, evaluation: Evaluation) -> None:
        """Where evaluation is far below training, find out whether batch norm is why, and say so.

        Only what two evaluations one after the other find, or the last one, is said: weights that have just moved fast
        are ahead of their statistics for an epoch, and how far is a matter of rounding.
        """
        doubted, self._doubted = self._doubted, False
        if train_accuracy - evaluation.top1 <= GAP:
            return
        norms = self.stepper.norms if self.job.recipe.batch_norm.mode != "freeze" else []
        if not norms or (self.stepper.fresh and epoch == 1):
            return  # trained with the running statistics; or they are too young to judge
        found = batch_norm_gap(self.model, self._inputs(epoch, GAP_BATCHES), norms)
        seen, batchwise, running = self.world.total(found)
        self._doubted = batchwise - running >= max(GAP * seen, GAP_IMAGES)
        if self._doubted and (doubted or epoch == self.job.recipe.schedule.epochs):
            self.keeper.once(
                "batch norm",
                f"batch norm's running statistics do not fit the weights: {seen:.0f} training images get "
                f"{batchwise / seen:.0%} right with their own statistics and {running / seen:.0%} with the running "
                "ones, which evaluation uses; --bn recalibrate, or a larger --set batch_norm.momentum, mends it",
            )

    def _inputs(self, epoch: int, batches: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels of the epoch's first training batches, this process's share."""
        for batch in islice(self.batches.epoch(epoch), batches):
            if self.world.total([len(batch)])[0] > 1:
                x = to_input(batch.images.to(self.model.device), self.job.prep, self.job.augment, batch.draws)
                yield x, batch.labels.to(self.model.device)
