"""What a run does before its first epoch: it fits the classifier, and looks for the highest learning rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from inceptionnet.data.loading import Batch, TrainLoader
from inceptionnet.errors import Interrupted
from inceptionnet.system.distributed import World
from inceptionnet.train import range_test
from inceptionnet.train.head import about, features_of, fit_head
from inceptionnet.train.keeper import Keeper
from inceptionnet.train.plan import Job
from inceptionnet.train.step import Stepper
from inceptionnet.train.stop import StopRequest
from inceptionnet.train.watch import Features


class Preparation:
    """The steps before the first epoch; all processes must call them."""

    def __init__(self, job: Job, stepper: Stepper, batches: TrainLoader, keeper: Keeper, world: World) -> None:
        self.job = job
        self.stepper = stepper
        self.batches = batches
        self.keeper = keeper
        self.world = world

    def fit_head(self, features: Features, stop: StopRequest) -> None:
        """Fit the classifier by logistic regression to the features of the training images."""
        start, keeper, model = time.monotonic(), self.keeper, self.stepper.model
        advance = self._advance(stop, "features of train", "interrupted while features were computed")
        part = features_of(model, self.job, keeper.run.features, self.world, save=keeper.attempt, advance=advance)
        keeper.decode_errors(part.errors if self.world.is_main else ())
        counted = keeper.at.counted
        counted.seen, counted.trained_s = len(part.labels), time.monotonic() - start
        fitted = fit_head(model, self.job, part, self.world)
        counted.loss_sum, counted.correct = fitted.loss * counted.seen, round(fitted.accuracy * counted.seen)
        if not {name for name, _ in model.head.named_children()} - {"pool", "dropout", "logits"}:
            features.alive = (part.features != 0).any(0)
        if self.stepper.average:
            self.stepper.average.load(model.state_dict())
        keeper.attempt(lambda: keeper.run.write_sealed("head.json", about(fitted)))
        keeper.note(f"classifier: logistic regression on {fitted.summary}")

    def range_test(self, stop: StopRequest) -> None:
        """Lower the peak learning rate where a range test asks for it; range_test.json has its curve."""
        stepper, keeper, peak = self.stepper, self.keeper, self.stepper.peak_lr
        title = "learning-rate range test"
        advance = self._advance(stop, title, f"interrupted in the {title}", extra=True)
        found = range_test.about(range_test.run(stepper, self._batches(), advance), peak)
        stepper.peak_lr = keeper.at.peak_lr = found["peak_lr"]
        keeper.attempt(lambda: keeper.run.write_sealed("range_test.json", found))
        rises = f"the loss rises at {found['rises_at']:.2g}" if found["rises_at"] else "the loss never rises"
        now = f"is {stepper.peak_lr:.3g}, a fifth of that" if stepper.peak_lr < peak else f"stays {peak:.3g}"
        keeper.note(f"learning-rate range test: {rises}; the peak learning rate {now}")

    def _batches(self) -> Iterator[Batch]:
        """Training batches without end, of epochs that no run has."""
        for epoch in count(1_000_000):
            yield from self.batches.epoch(epoch)

    def _advance(
        self, stop: StopRequest, title: str, interrupted: str, *, extra: bool = False
    ) -> Callable[[int], None]:
        """Shows progress, and raises when the run is to stop."""

        def advance(images: int) -> None:
            self.keeper.bar.advance(images, "", title, extra=extra)
            if self.world.total([stop.requested])[0]:
                raise Interrupted(f"{interrupted}; {self.keeper.resume_hint()}")

        return advance
