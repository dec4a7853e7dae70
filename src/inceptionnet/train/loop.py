"""Train a network on labelled images: one loop, in one process or many, that can be killed anywhere and resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inceptionnet.data.loading import Batch, TrainLoader
from inceptionnet.devices import pick_device
from inceptionnet.distributed import ALONE, World, restarted
from inceptionnet.errors import InceptionNetError, Interrupted, TrainingError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.train.checkpoint import Checkpoints, restore, tensors_of
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.layers import HEAD, described
from inceptionnet.train.plan import Job, Plan, decided, stored
from inceptionnet.train.position import Counted, Position
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper, StepResult
from inceptionnet.train.stop import StopWish
from inceptionnet.train.validation import Validation
from inceptionnet.train.watch import DEAD_SHARE, WAITING_SHARE, Features, remedy


def train(plan: Plan, out: Path, world: World = ALONE) -> Evaluation:
    """Train as planned and leave a run folder at `out` (see train/run.py); returns the last evaluation.

    All chance follows from seed, epoch and image, so neither workers nor processes change anything. Processes that
    torchrun started anew after a failure go on with the run.

    Raises:
        InceptionNetError: what was asked for cannot be done, before anything is written; or the training had to stop,
            and `resume` goes on from there.
    """
    run = Run(out)
    if restarted() and world.gather(run.exists)[0]:
        return resume(out, world, workers=plan.workers, device=plan.device)
    return _Training(decided(plan), run, world).run()


def repeat(old: Path, out: Path, world: World = ALONE, **machine: Any) -> Evaluation:
    """Run the training of a run folder again, from nothing but what it says, into a new one.

    Args:
        machine: fields of the plan that change no result, such as workers and device; and corrupt_images.

    Raises:
        InceptionNetError: as `train`, or `old` is no run folder.
    """
    job = stored(Run(old))
    return _Training(replace(job, plan=replace(job.plan, **machine)), Run(out), world).run()


def resume(out: Path, world: World = ALONE, **machine: Any) -> Evaluation:
    """Go on with a run that stopped or was killed, from its newest whole checkpoint to the end.

    On the same machine with as many threads the weights become, on a CPU, bit for bit those of a run never stopped.

    Args:
        machine: fields of the plan that change no result, such as workers and device; and corrupt_images.

    Raises:
        InceptionNetError: as `train`, or there is no run, or its data has changed.
    """
    job = stored(Run(out))
    return _Training(replace(job, plan=replace(job.plan, **machine)), Run(out), world, resumed=True).run()


class _Training:
    """One run of the loop, with what its parts share."""

    def __init__(self, job: Job, run: Run, world: World, *, resumed: bool = False) -> None:
        self.job, self.recipe, self.world, self.resumed = job, job.recipe, world, resumed
        plan, device = job.plan, pick_device(job.plan.device)
        newest = Checkpoints(run.path / "checkpoints", job.recipe.checkpoint.keep).newest() if resumed else None
        model = job.shell() if newest else job.model()
        if self.recipe.compute.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model.to(device)
        self.batches = TrainLoader(
            job.source.splits["train"],
            job.prep,
            job.augment,
            batch_size=plan.batch_size,
            seed=plan.seed,
            workers=plan.workers,
            corrupt_images=plan.corrupt_images,
            parts=plan.accumulate,
            world=world,
        )
        self.stepper = Stepper(self.model, job, steps_per_epoch=len(self.batches), world=world)
        self.features = Features(self.model)
        self.at = Position(len(self.batches))
        self.notes: list[str] = []
        if newest:
            tensors, state, wrong = newest
            self.at = Position.from_dict(state)
            self.features.alive = tensors.pop("watch.alive", None)
            restore(tensors, self.model, self.stepper.optimizer, self.stepper.average)
            self.notes += [f"warning: {line}; an older checkpoint is used" for line in wrong]
        self.keeper = Keeper(job, run, world, self.at, resumed=resumed)
        self.validation = Validation(job, self.stepper, self.batches, self.keeper, world)

    def run(self) -> Evaluation:
        """What is left of the epochs, then the images of the run."""
        keeper, epochs = self.keeper, self.recipe.schedule.epochs
        keeper.open(self.model, self._tensors(), resumed=self.resumed)
        with StopWish() as self.stop, keeper.bar, keeper.tracker:
            for line in (*self.notes, *self._opening()):
                keeper.note(line)
            try:
                for epoch in range(self.at.epoch, epochs + 1):
                    evaluation = self._epoch(epoch)
            except KeyboardInterrupt:
                message = f"stopped at once in epoch {self.at.epoch} of {epochs}; {keeper.how_to_go_on()}"
                raise Interrupted(message) from None
            keeper.draw(evaluation)
        return evaluation

    def _opening(self) -> Iterator[str]:
        """The lines with which a run begins."""
        job, settings, height = self.job, self.recipe.optimizer, self.stepper.height
        yield f"{job.source.title}: {job.source.note}; evaluating on {job.held_out}"
        batch, parts = job.plan.batch_size, job.plan.accumulate
        shares = [f"{n} {what}" for n, what in ((self.world.size, "processes"), (parts, "parts")) if n > 1]
        divided = f" ({' × '.join([*shares, f'{batch / (self.world.size * parts):.3g}'])})" if shares else ""
        rule = f" ({settings.lr:g} for {settings.lr_batch}, {settings.lr_scaling} scaling)"
        rule = rule if height != settings.lr else ""
        yield (
            f"recipe {job.plan.recipe}: {settings.name}, effective batch {batch}{divided}, learning rate {height:.3g}"
            f"{rule}, {self.recipe.schedule.epochs} epochs of {len(self.batches)} steps"
        )
        yield from described(self.model, self.stepper.frozen, height, settings.layer_decay)
        if self.resumed:
            yield f"going on in epoch {self.at.epoch} after {self.at.batch} of its {len(self.batches)} steps"

    def _epoch(self, epoch: int) -> Evaluation:
        """Train on every image once, evaluate, and leave the run folder whole."""
        at, held_out = self.at, self.job.held_out
        self._train_epoch(epoch)
        if not at.counted.seen:
            self._give_up()
        # Before the evaluation, which then needs no state of its own: a run killed in it evaluates again.
        self.keeper.checkpoint(self._tensors)
        evaluation, raw = self.validation.run(epoch, at.counted.accuracy, self.stop)
        row = self._row(evaluation, raw)
        self.keeper.epoch(row, evaluation)
        found = f"loss {evaluation.loss:.4f} accuracy {evaluation.top1:.1%}"
        if raw:
            found = f"averaged loss {evaluation.loss:.4f} accuracy {evaluation.top1:.1%} (raw {raw.top1:.1%})"
        waiting = ""
        if at.counted.waiting > WAITING_SHARE:
            waiting = f", {at.counted.waiting:.0%} of the time waiting for them"
        self.keeper.note(
            f"epoch {epoch}/{self.recipe.schedule.epochs}  train loss {at.counted.loss:.4f} accuracy "
            f"{at.counted.accuracy:.1%}  {held_out} {found}  {row['images_per_s']:.0f} images/s{waiting}"
        )
        if row["dead_features"] >= DEAD_SHARE:
            share = f"{row['dead_features']:.0%} of the features before the pool were zero for every image"
            helps = remedy(self.model.network, head_alone=self.recipe.network.train_from == HEAD)
            self.keeper.once("dead", f"{share} of an epoch; {helps}")
        at.epoch, at.batch, at.counted = epoch + 1, 0, Counted()
        return evaluation

    def _train_epoch(self, epoch: int) -> None:
        """Train on what is left of the epoch's batches."""
        at, keeper = self.at, self.keeper
        if at.batch == len(self.batches):  # killed in the evaluation
            return
        if at.batch == 0:
            self.features.clear()
        batches = self.batches.epoch(epoch, at.batch)
        for _ in range(at.batch, len(self.batches)):
            start = time.monotonic()
            batch = self._next(batches)
            waited = time.monotonic() - start
            keeper.decode_errors(batch.decode_errors)
            result = self.stepper.step(batch, at.step)
            at.counted.waited_s += waited
            at.counted.trained_s += time.monotonic() - start
            self._count(result, waited)
            at.batch += 1
            figures = f"loss {at.counted.loss:.3f}  accuracy {at.counted.accuracy:.1%}"
            if at.counted.waiting > WAITING_SHARE:
                figures += f"  waiting {at.counted.waiting:.0%}"
            keeper.bar.advance(batch.planned, figures, f"epoch {epoch}/{self.recipe.schedule.epochs}")
            if at.batch < len(self.batches) and keeper.due():
                keeper.checkpoint(self._tensors)
            if self.world.total([self.stop.wished])[0]:
                keeper.checkpoint(self._tensors)
                raise Interrupted(f"stopped in epoch {epoch} after step {at.batch}; {keeper.how_to_go_on()}")
            if at.skipped_in_row >= self.recipe.watch.skipped_steps:
                self._give_up()
        for _ in batches:  # nothing is left, but a stream that holds more than it states says so here
            pass

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; if one process cannot have its share, all stop, with the training so far saved."""
        batch, error = None, None
        try:
            batch = next(batches)
        except InceptionNetError as caught:
            error = caught
        if self.world.total([error is not None])[0]:
            self.keeper.checkpoint(self._tensors)
            self.keeper.note(self.keeper.how_to_go_on())
            raise error or TrainingError("another process of this run cannot go on and says why")
        assert batch is not None
        return batch

    def _count(self, result: StepResult, waited_s: float) -> None:
        """Add a step to the epoch's figures, and write it down."""
        at = self.at
        if result.skipped:
            at.skipped_in_row += 1
            at.counted.skipped += 1
            why = f"loss {result.loss:g}, gradient norm {result.gradient_norm:g}"
            self.keeper.note(f"warning: step {at.step} of the run skipped, nothing was changed by it: {why}")
        elif result.images:
            at.skipped_in_row = 0
            at.counted.loss_sum += result.loss * result.images
            at.counted.right += result.right
            at.counted.seen += result.images
        if at.step % self.recipe.log.every_steps == 0:
            row = {"step": at.step, "epoch": at.epoch, "loss": result.loss, "lr": result.lr}
            row |= {"gradient_norm": result.gradient_norm, "images": result.images, "waited_s": round(waited_s, 6)}
            self.keeper.step(row)

    def _give_up(self) -> None:
        self.keeper.checkpoint(self._tensors)
        lower = self.recipe.optimizer.lr / 4
        raise TrainingError(
            f"{self.at.skipped_in_row} steps in a row had no finite loss or gradient, so nothing was learnt from them; "
            f"the weights are as before them; start anew with a lower learning rate, --set optimizer.lr={lower:.2g}, "
            "or gradient clipping, --set optimizer.clip_norm=2, or for residual nets a lower scale, "
            "--set network.residual_scale=0.1"
        )

    def _row(self, evaluation: Evaluation, raw: Evaluation | None) -> dict[str, float]:
        """A line of metrics.csv."""
        counted, held_out = self.at.counted, self.job.held_out
        row = {
            "epoch": self.at.epoch,
            "step": self.at.step,
            "lr": self.stepper.rate(self.at.step - 1),
            "train_loss": counted.loss,
            "train_top1": counted.accuracy,
            f"{held_out}_loss": evaluation.loss,
            f"{held_out}_top1": evaluation.top1,
        }
        if raw:
            row |= {f"{held_out}_raw_loss": raw.loss, f"{held_out}_raw_top1": raw.top1}
        return row | {
            "dead_features": self.features.dead_share(self.world),
            "skipped_steps": counted.skipped,
            "images_per_s": counted.seen / counted.trained_s,
            "waiting": counted.waiting,
        }

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint."""
        alive = {} if self.features.alive is None else {"watch.alive": self.features.alive}
        return tensors_of(self.model, self.stepper.optimizer, self.stepper.average) | alive
