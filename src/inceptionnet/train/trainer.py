"""The training loop: in one process or many, and resumable after an interruption at any point."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from inceptionnet.data.loading import Batch, TrainLoader
from inceptionnet.errors import (
    ConfigurationError,
    InceptionNetError,
    Interrupted,
    ProcessError,
    RunError,
    TrainingError,
)
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.distributed import World
from inceptionnet.system.failures import is_lost
from inceptionnet.system.progress import PartOf
from inceptionnet.train.budget import Clock
from inceptionnet.train.changes import Change
from inceptionnet.train.checkpoint import Checkpoints, restore, tensors_of
from inceptionnet.train.figures import AnyEvaluation, accuracy_name, accuracy_words, figures
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.layers import HEAD
from inceptionnet.train.log_lines import closing, epoch_line, opening, schedule_goes_on, stopped_early
from inceptionnet.train.plan import Job
from inceptionnet.train.position import Counted, Position
from inceptionnet.train.preparation import Preparation
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper, StepResult
from inceptionnet.train.stop import StopRequest
from inceptionnet.train.trackers import check_installed
from inceptionnet.train.validation import Validation
from inceptionnet.train.watch import DATA_WAIT_SHARE, DEAD_SHARE, Features, advice


class Trainer:
    """One run of the training loop, and its state."""

    def __init__(
        self,
        job: Job,
        run: Run,
        world: World,
        began: float | None = None,
        *,
        resumed: bool = False,
        changes: Sequence[Change] = (),
        notes: Sequence[str] = (),
        bar: PartOf | None = None,
    ) -> None:
        plan = job.plan
        check_installed(job.recipe.log.trackers)
        checkpoints = Checkpoints(run.checkpoints, job.recipe.checkpoint.keep)
        goes_on = resumed and bool(checkpoints.files())
        if resumed and not goes_on and run.weights.is_file():
            raise RunError(
                f"{run.path}: has weights, but no checkpoint to resume from; start from the weights with --weights "
                f"{run.path} and another --out"
            )
        self.job = job
        self.recipe: Recipe = job.recipe
        self.world = world
        self.resumed = resumed
        self.changes = changes
        self.model: InceptionNet = job.placed(job.empty_model() if goes_on else job.model())
        self.accuracy: str = accuracy_words(self.model.outputs)
        self.batches: TrainLoader = job.batches(plan.batch_size, plan.workers, world)
        self.stepper: Stepper = Stepper(self.model, job, steps_per_epoch=len(self.batches), world=world)
        self.features: Features = Features(self.model)
        first = 0 if self.recipe.network.fit_head else 1
        self.at: Position = Position(len(self.batches), plan.batch_size, epoch=first)
        self.notes: list[str] = list(notes)
        if goes_on and (newest := checkpoints.newest(self._take)):
            self._go_on()
            self.notes += [f"warning: {line}; using an older checkpoint" for line in newest[2]]
        self.keeper: Keeper = Keeper(
            job, run, checkpoints, world, self.at, began, resumed=resumed, changes=changes, bar=bar
        )
        minutes = self.recipe.schedule.minutes
        self.clock: Clock | None = None if minutes is None else Clock(minutes, report=self.recipe.log.report)
        self.validation: Validation = Validation(job, self.stepper, self.batches, self.keeper, world)
        self.preparation: Preparation = Preparation(job, self.stepper, self.batches, self.keeper, world)
        self.stop: StopRequest

    def _take(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Load a checkpoint. Raises: RunError: it does not fit this training."""
        restore(tensors, self.model, self.stepper.optimizer, self.stepper.average)
        self.at = Position.from_dict(state)
        self.features.alive = tensors.get("watch.alive")

    def _go_on(self) -> None:
        """Take over the position of a checkpoint, also with another number of epochs or another batch size."""
        at, plan, epochs = self.at, self.job.plan, self.recipe.schedule.epochs
        if at.epoch > epochs and self.recipe.schedule.minutes is None:
            raise ConfigurationError(
                f"--epochs is {epochs}, but the run is in epoch {at.epoch}; give {at.epoch} or more"
            )
        self._last_lr = at.counted.lr or (at.rows[-1]["lr"] if at.rows else 0.0)
        if at.continued:
            self.batches.continue_in(at.continued)
        if at.batch_size != plan.batch_size:
            began = self.batches.continue_after(at.epoch, at.batch, at.batch_size, at.continued)
            at.change_batch_size(plan.batch_size, len(self.batches), began)
        self.stepper.extra_steps = at.extra_steps
        if any(change.name in ("optimizer.lr", "optimizer.range_test") for change in self.changes):
            at.peak_lr = None
        if at.peak_lr is not None:
            self.stepper.peak_lr = at.peak_lr

    def run(self, *, leaks: bool = True) -> AnyEvaluation:
        """Train the remaining epochs, then draw the plots and the report."""
        try:
            self.keeper.open(self.model, self._tensors(), resumed=self.resumed)
            return self._run(leaks=leaks)
        except RuntimeError as error:
            if is_lost(error):
                self.keeper.note(self.keeper.resume_hint())
            raise
        finally:
            self.keeper.close()

    def _run(self, *, leaks: bool) -> AnyEvaluation:
        keeper = self.keeper
        evaluation: AnyEvaluation | None = None
        found = keeper.leaks() if leaks and not self.resumed else []
        if self.clock:
            keeper.bar.ends_in(self.clock.seconds - keeper.elapsed(), self.clock.seconds)
        with StopRequest() as self.stop, keeper.bar, keeper.trackers:
            for line in (*self.notes, *self._opening(), *found):
                keeper.note(line)
            keeper.track()
            try:
                while not keeper.last:
                    evaluation = self._epoch(self.at.epoch) or evaluation
                    if line := stopped_early(self.at.rows, self.recipe.schedule, last=keeper.last):
                        keeper.note(line)
                        break
            except KeyboardInterrupt:
                raise Interrupted(f"interrupted in {keeper.title}; {keeper.resume_hint()}") from None
            assert evaluation is not None
            for line in closing(self.at.rows, keeper.run):
                keeper.note(line)
            keeper.draw(evaluation)
            keeper.finish()
        return evaluation

    def _opening(self) -> Iterator[str]:
        """The log lines at the start of a run."""
        yield from opening(self.job, self.stepper, len(self.batches), self.world)
        if self.resumed:
            yield f"resuming in epoch {self.at.epoch} after {self.at.batch} of its {len(self.batches)} steps"
        if self.changes:
            yield f"changed: {'; '.join(map(str, self.changes))}"
            names = {change.name for change in self.changes}
            yield from schedule_goes_on(names, self.stepper, self.at, self._last_lr)

    def _epoch(self, epoch: int) -> AnyEvaluation | None:
        """Train one epoch; if an evaluation is due, write a checkpoint, evaluate, and write the metrics."""
        at, held_out, schedule = self.at, self.job.held_out, self.recipe.schedule
        if epoch == 0:
            self.preparation.fit_head(self.features, self.stop)
        else:
            self._train_epoch(epoch)
        due = epoch % schedule.evaluate_every == 0
        self.keeper.last = self._progress(at.evaluation_s * due) == 1 if self.clock else epoch == schedule.epochs
        if self.clock and not at.counted.seen and at.rows:
            return None  # the time was over before the first step of this epoch
        if not at.counted.seen:
            self._give_up()
        if not (due or self.keeper.last):
            at.epoch, at.batch = epoch + 1, 0
            return None
        # Before the evaluation, which then needs no state of its own: a run killed during it evaluates again.
        self.keeper.checkpoint(self._tensors)
        start = self.keeper.elapsed()
        evaluation, raw = self.validation.run(epoch, at.counted.accuracy, self.stop)
        at.evaluation_s = self.keeper.elapsed() - start
        if epoch == 0 and self.stepper.average:  # it was one evaluation for both weights
            at.evaluation_s *= 2
        row = self._row(evaluation, raw)
        self.keeper.epoch(row, evaluation)
        self.keeper.best()
        self.keeper.note(epoch_line(self.keeper.title, at.counted, self.accuracy, held_out, evaluation, raw))
        if row["dead_features"] >= DEAD_SHARE:
            share = f"{row['dead_features']:.0%} of the features before the pool were zero for every image of the epoch"
            helps = advice(self.model.network, head_alone=self.recipe.network.train_from == HEAD)
            self.keeper.once("dead", f"{share}; {helps}")
        at.epoch, at.batch, at.counted = epoch + 1, 0, Counted()
        return evaluation

    def _train_epoch(self, epoch: int) -> None:
        """Train on the remaining batches of the epoch."""
        at, keeper = self.at, self.keeper
        if at.step == 0:
            if self.recipe.optimizer.range_test:
                self.preparation.range_test(self.stop)
            at.began_s = keeper.elapsed()
        if at.batch == len(self.batches):  # killed during the evaluation
            return
        if at.batch == 0:
            self.features.clear()
        batches = self.batches.epoch(epoch, at.batch)
        for _ in range(at.batch, len(self.batches)):
            if self.clock:
                self.stepper.progress = self._progress()
                if self.stepper.progress == 1 and at.step:
                    return
            start = time.monotonic()
            batch = self._next(batches)
            waited = time.monotonic() - start
            keeper.decode_errors(batch.decode_errors)
            result = self.stepper.step(batch, at.step)
            at.counted.waited_s += waited
            at.counted.trained_s += time.monotonic() - start
            self._count(result, waited)
            at.batch += 1
            so_far = f"loss {at.counted.loss:.3f}  {self.accuracy} {at.counted.accuracy:.1%}"
            if at.counted.data_wait > DATA_WAIT_SHARE:
                so_far += f"  data wait {at.counted.data_wait:.0%}"
            keeper.bar.advance(batch.planned, so_far, keeper.title)
            if at.batch < len(self.batches) and keeper.due():
                keeper.checkpoint(self._tensors)
            if self.world.total([self.stop.requested])[0]:
                keeper.checkpoint(self._tensors)
                raise Interrupted(f"interrupted in epoch {epoch} after step {at.batch}; {keeper.resume_hint()}")
            if at.skipped_in_row >= self.recipe.watch.skipped_steps:
                self._give_up()
        for _ in batches:  # none is left, but a stream with more images than stated raises here
            pass

    def _progress(self, ahead_s: float = 0.0) -> float:
        """The share of the budget's time that is over in `ahead_s` seconds, by the clock of the main process."""
        assert self.clock
        over = self.clock.progress(self.at, self.keeper.elapsed() + ahead_s)
        return self.world.total([over if self.world.is_main else 0.0])[0]

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; if one process fails to read its share, all write a checkpoint and stop."""
        batch, error = None, None
        try:
            batch = next(batches)
        except InceptionNetError as caught:
            error = caught
        if self.world.total([error is not None])[0]:
            self.keeper.checkpoint(self._tensors)
            self.keeper.note(self.keeper.resume_hint())
            said = self.world.gather(None if error is None else str(error))
            rank = next(rank for rank, one in enumerate(said) if one is not None)
            raise error or ProcessError(f"it ends, since process {rank} failed: {said[rank]}")
        assert batch is not None
        return batch

    def _count(self, result: StepResult, waited_s: float) -> None:
        """Add a step to the totals of the epoch, and log it."""
        at = self.at
        if result.skipped:
            at.skipped_in_row += 1
            at.counted.skipped += 1
            why = f"loss {result.loss:g}, gradient norm {result.gradient_norm:g}"
            self.keeper.note(f"warning: step {at.step} skipped without an update: {why}")
        elif result.images:
            at.skipped_in_row = 0
            at.counted.loss_sum += result.loss * result.images
            at.counted.correct += result.correct
            at.counted.seen += result.images
        at.counted.lr = result.lr
        if at.step % self.recipe.log.every_steps == 0:
            row = {"step": at.step, "epoch": at.epoch, "loss": result.loss, "lr": result.lr}
            row |= {"gradient_norm": result.gradient_norm, "images": result.images, "data_wait_s": round(waited_s, 6)}
            self.keeper.step(row)

    def _give_up(self) -> None:
        self.keeper.checkpoint(self._tensors)
        lower = self.recipe.optimizer.lr / 4
        raise TrainingError(
            f"{self.at.skipped_in_row} steps in a row had no finite loss or gradient, and were skipped; start again "
            f"with a lower learning rate, --set optimizer.lr={lower:.2g}, or gradient clipping, "
            "--set optimizer.clip_norm=2, or for residual networks a lower scale, --set network.residual_scale=0.1"
        )

    def _row(self, evaluation: AnyEvaluation, raw: AnyEvaluation | None) -> dict[str, float]:
        """A row of metrics.csv."""
        counted, held_out = self.at.counted, self.job.held_out
        row = {
            "epoch": self.at.epoch,
            "step": self.at.step,
            "lr": counted.lr,
            "train_loss": counted.loss,
            f"train_{accuracy_name(self.model.outputs)}": counted.accuracy,
            **{f"{held_out}_{name}": value for name, value in figures(evaluation).items()},
        }
        if raw:
            row |= {f"{held_out}_raw_{name}": value for name, value in figures(raw).items()}
        return row | {
            "dead_features": self.features.dead_share(self.world),
            "skipped_steps": counted.skipped,
            "images_per_s": counted.images_per_s,
            "data_wait": counted.data_wait,
        }

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of a checkpoint."""
        alive = {} if self.features.alive is None else {"watch.alive": self.features.alive}
        return tensors_of(self.model, self.stepper.optimizer, self.stepper.average) | alive
