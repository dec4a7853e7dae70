"""Train a network on labelled pictures: one loop, and a run folder that is whole after every epoch."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import inceptionnet
from inceptionnet import plots
from inceptionnet.create import create_model
from inceptionnet.data.loading import BadImages, EvalLoader, TrainLoader, normalise
from inceptionnet.data.preprocess import Augment, Preprocessing
from inceptionnet.data.sources import Source, open_source
from inceptionnet.devices import pick_device
from inceptionnet.errors import ConfigurationError, InceptionNetError, Interrupted, MissingExtraError, TrainingError
from inceptionnet.evaluate.evaluation import Evaluation, evaluate
from inceptionnet.model import InceptionNet
from inceptionnet.progress import Bar
from inceptionnet.train.optimizers import make_optimizer, rate_at
from inceptionnet.train.recipe import Preprocess, Recipe
from inceptionnet.train.run import Run
from inceptionnet.weights import read_record, save_weights


@dataclass(frozen=True)
class Plan:
    """What a training is asked for; see the `train` command for the meaning of each."""

    data: str
    model: str | None
    epochs: int = 30
    batch_size: int = 32
    size: int | None = None
    width: float | None = None
    weights: str | None = None
    seed: int = 0
    workers: int = 1
    bad_images: BadImages = "fail"
    device: str = "auto"
    settings: Mapping[str, object] = field(default_factory=dict)


def train(plan: Plan, out: Path) -> Evaluation:
    """Train as planned and leave a run folder at `out` (see train/run.py); returns the last evaluation.

    Every picture's randomness follows from seed, epoch and picture, so the number of workers changes nothing.

    Raises:
        InceptionNetError: what was asked for cannot be done, before anything is written; or the training had to stop,
            and the weights so far are in the run folder.
    """
    _check(plan)
    source = open_source(plan.data, seed=plan.seed)
    # Weights bring the preprocessing they were trained with; the data and then the user may want another.
    start = read_record(plan.weights).preprocessing if plan.weights else None
    usual = {f"preprocess.{key}": getattr(start, key) for key in Preprocess.model_fields} if start else {}
    recipe = Recipe().changed({**usual, **source.suggestions, **plan.settings})
    torch.manual_seed(plan.seed)
    model = create_model(
        plan.model,
        num_classes=len(source.classes),
        input_size=plan.size,
        width=plan.width,
        weights=plan.weights,
        dropout=recipe.network.dropout,
        residual_scale=recipe.network.residual_scale,
        aux=recipe.network.aux or None,
    )
    device = pick_device(plan.device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen_as = {"size_px": model.network.input_size, **recipe.preprocess.model_dump()}
    prep = replace(start, **seen_as) if start else Preprocessing(channels=model.network.in_channels, **seen_as)
    return _Training(plan, source, recipe, model, prep, Run(out)).run()


class _Training:
    """One run of the loop, with what its parts share."""

    def __init__(
        self, plan: Plan, source: Source, recipe: Recipe, model: InceptionNet, prep: Preprocessing, run: Run
    ) -> None:
        self.plan, self.source, self.recipe, self.model, self.prep, self.folder = plan, source, recipe, model, prep, run
        self.held_out = "val" if "val" in source.splits else "test"
        shared = {"batch_size": plan.batch_size, "workers": plan.workers, "bad_images": plan.bad_images}
        augment = Augment(**recipe.augment.model_dump())
        self.batches = TrainLoader(source.splits["train"], self.prep, augment, seed=plan.seed, **shared)  # type: ignore[arg-type]
        self.checks = EvalLoader(source.splits[self.held_out], self.prep, **shared)  # type: ignore[arg-type]
        self.optimizer = make_optimizer(model, recipe.optimizer)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate_at(step, len(self.batches), plan.epochs, recipe.schedule)
        )
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.bad: dict[str, str] = {}
        self.provenance: dict[str, Any] = {
            "package": f"inceptionnet {inceptionnet.__version__}",
            "data": source.title,
            "split": source.note,
            "seed": plan.seed,
            "epochs": 0,
        }

    def run(self) -> Evaluation:
        """All epochs, then the pictures of the run."""
        plan, splits = self.plan, self.source.splits
        self.folder.create()  # not before everything that can be refused has been
        self.folder.write_json("run.json", self._description())
        total = plan.epochs * (len(splits["train"]) + len(splits[self.held_out]))
        with Bar(total, "training") as bar:
            bar.note(f"{self.source.title}: {self.source.note}; evaluating on {self.held_out}")
            try:
                for epoch in range(1, plan.epochs + 1):
                    evaluation = self._epoch(epoch, bar)
            except KeyboardInterrupt:
                self._save()
                raise Interrupted(
                    f"stopped in epoch {epoch} of {plan.epochs}; the weights so far are in {self.folder.weights}; "
                    f"go on from them with --weights {self.folder.weights} and another --out"
                ) from None
            except TrainingError:
                raise
            except InceptionNetError:
                self._save()
                raise
            self._draw(evaluation, bar)
        return evaluation

    def _epoch(self, epoch: int, bar: Bar) -> Evaluation:
        """Train on every picture once, evaluate, and leave the run folder whole."""
        start = time.monotonic()
        loss, accuracy, seen = self._train_epoch(epoch, bar)
        rate = seen / (time.monotonic() - start)
        title = f"epoch {epoch}/{self.plan.epochs} {self.held_out}"
        evaluation = evaluate(
            self.model,
            self.checks,
            self.prep,
            self.source.classes,
            advance=lambda pictures, figures: bar.advance(pictures, figures, title),
        )
        self._note_bad(evaluation.bad, bar)
        figures = {
            "epoch": epoch,
            "train_loss": loss,
            "train_top1": accuracy,
            f"{self.held_out}_loss": evaluation.loss,
            f"{self.held_out}_top1": evaluation.top1,
            "pictures_per_s": rate,
        }
        self.provenance |= {"epochs": epoch, f"{self.held_out}_top1": evaluation.top1}
        self._save()
        self.folder.log_metrics(figures)
        self.folder.write_json("evaluation.json", {"split": self.held_out, **evaluation.to_dict()})
        bar.note(
            f"epoch {epoch}/{self.plan.epochs}  train loss {loss:.4f} accuracy {accuracy:.1%}  "
            f"{self.held_out} loss {evaluation.loss:.4f} accuracy {evaluation.top1:.1%}  {rate:.0f} pictures/s"
        )
        return evaluation

    def _train_epoch(self, epoch: int, bar: Bar) -> tuple[float, float, int]:
        """Mean loss, accuracy and number of pictures."""
        self.model.train()
        loss_sum, right, seen = 0.0, 0, 0
        for batch in self.batches.epoch(epoch):
            self._note_bad(batch.bad, bar)
            if len(batch) > 1:  # batch norm cannot train on one picture
                loss, logits = self._step(batch.pictures, batch.labels)
                loss_sum += loss * len(batch)
                right += int((logits.argmax(1).cpu() == batch.labels).sum())
                seen += len(batch)
                if not math.isfinite(loss_sum):
                    raise TrainingError(
                        f"the loss is {loss} in epoch {epoch}, not a number to learn from; lower the learning rate, "
                        f"--set optimizer.lr={self.recipe.optimizer.lr / 4:.2g}, or for residual nets the scale"
                    )
            figures = f"loss {loss_sum / max(seen, 1):.3f}  accuracy {right / max(seen, 1):.1%}"
            bar.advance(len(batch) + len(batch.bad), figures, f"epoch {epoch}/{self.plan.epochs}")
        return loss_sum / max(seen, 1), right / max(seen, 1), seen

    def _step(self, pictures: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        """One step of the optimiser; the loss and the main logits (N, classes) it was taken on."""
        device = self.model.device
        self._set_memory()
        x, labels = normalise(pictures.to(device, non_blocking=True), self.prep), labels.to(device)
        outputs = self.model.all_logits(x) if self.model.aux else {"logits": self.model(x)}
        settings = self.recipe.loss
        losses = {
            head: F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
            for head, logits in outputs.items()
        }
        loss = sum(value * (1 if head == "logits" else settings.aux_weight) for head, value in losses.items())
        assert isinstance(loss, Tensor)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if (norm := self.recipe.optimizer.clip_norm) is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), norm)
        self.optimizer.step()
        self.schedule.step()
        return losses["logits"].item(), outputs["logits"].detach()

    def _set_memory(self) -> None:
        """Batch norm's momentum for this step.

        A fresh network's running statistics begin as the plain mean of the first steps. From their initial 0 and 1 they
        would need a hundred steps and more, and a small data set would be evaluated with statistics of nothing.
        """
        momentum = self.recipe.batch_norm.momentum
        if self.plan.weights is None:
            momentum = max(momentum, 1 / (self.schedule.last_epoch + 1))
        for norm in self.norms:
            norm.momentum = momentum

    def _note_bad(self, bad: tuple[tuple[str, str], ...], bar: Bar) -> None:
        """Name each picture that cannot be decoded, once."""
        new = {name: reason for name, reason in bad if name not in self.bad}
        if new:
            self.bad |= new
            self.folder.write_bad_pictures(sorted(self.bad.items()))
            for name, reason in new.items():
                bar.note(f"left out: {name}: {reason}")

    def _save(self) -> None:
        save_weights(
            self.model,
            self.folder.weights,
            classes=self.source.classes,
            preprocessing=self.prep,
            provenance=self.provenance,
        )

    def _draw(self, evaluation: Evaluation, bar: Bar) -> None:
        split = self.source.splits[self.held_out]
        try:
            plots.curves(self.folder.read_metrics(), self.folder.path / "curves.png", self._title())
            plots.predictions(evaluation, split, self.prep, self.folder.path / "predictions.png", self._title())
        except MissingExtraError as error:
            bar.note(f"no curves.png and predictions.png: {error}")

    def _title(self) -> str:
        return f"{self.model.network.name} on {self.source.title}"

    def _description(self) -> dict[str, Any]:
        """What run.json holds."""
        return {
            "plan": asdict(self.plan),
            "recipe": self.recipe.model_dump(),
            "configuration": asdict(self.model.configuration),
            "preprocessing": self.prep.to_dict(),
            "data": {
                "title": self.source.title,
                "note": self.source.note,
                "classes": self.source.classes,
                "pictures": {name: len(split) for name, split in self.source.splits.items()},
            },
            "environment": {
                "inceptionnet": inceptionnet.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "device": str(self.model.device),
                "cores": os.cpu_count(),
            },
        }


def _check(plan: Plan) -> None:
    for name, least in (("epochs", 1), ("batch_size", 2), ("workers", 0), ("seed", 0)):
        if getattr(plan, name) < least:
            option = f"--{name.replace('_', '-')}"
            raise ConfigurationError(f"{option} is {getattr(plan, name)}; expected {least} or more")
