"""One training step: forward and backward passes with gradient accumulation, then the update, unless not finite."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inceptionnet.data.augment import to_input
from inceptionnet.data.loading import Batch
from inceptionnet.data.order import parts_of
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.distributed import ALONE, World
from inceptionnet.train.average import Average
from inceptionnet.train.batch_norm import Norm, blend, momentum_at, norms_of, restore, snapshot, synchronise
from inceptionnet.train.convolutions import convolutions
from inceptionnet.train.dropout import SeededDropout, seeded
from inceptionnet.train.layers import freeze
from inceptionnet.train.optimizers import lr_factor, make_optimizer, peak_lr
from inceptionnet.train.plan import Job
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.targets import class_weights, cross_entropy, mix, soft, targets_of


@dataclass(frozen=True)
class StepResult:
    """The result of a step, over the images of all processes."""

    images: int
    loss: float
    """Mean cross-entropy of the main head, with label smoothing and class weights, without the auxiliary heads; of
    several labels an image the mean over the labels too."""
    correct: int
    """Correctly classified images, with several labels those with all of them correct; of mixed images those that got
    the labels of the larger part."""
    gradient_norm: float
    lr: float
    """Learning rate of the head, which layer-wise decay does not lower."""
    skipped: bool
    """Whether loss or gradient was not finite, so that nothing was updated."""


class Stepper:
    """The network, optimiser and weight average of a training, and the step that updates them."""

    def __init__(
        self,
        model: InceptionNet,
        job: Job,
        *,
        steps_per_epoch: int,
        world: World = ALONE,
    ) -> None:
        self.model = model
        self.job = job
        self.recipe: Recipe = job.recipe
        self.world = world
        self.outputs: Outputs = model.outputs
        self.steps_per_epoch = steps_per_epoch
        self.fresh: bool = job.plan.weights is None
        self.extra_steps = 0
        """Steps that another batch size needed for what is done; the schedule does not count them."""
        self.progress: float | None = None
        """The share of the time that is over, with a time budget."""
        recipe = self.recipe
        weights = class_weights(job.source, recipe)
        self.class_weights: Tensor | None = None if weights is None else weights.to(model.device)
        self.dropouts: list[SeededDropout] = seeded(model)
        if world.size > 1:
            synchronise(model, model.device)
        self.frozen: dict[str, nn.Module] = freeze(model, recipe.network.train_from)
        kept = {norm for module in self.frozen.values() for norm in norms_of(module)}
        self.norms: list[Norm] = [norm for norm in norms_of(model) if norm not in kept]
        """The batch norms that are not frozen."""
        for norm in self.norms:
            norm.momentum = 1.0  # see `blend`
        self.optimizer: torch.optim.Optimizer = make_optimizer(model, recipe.optimizer)
        self.peak_lr: float = peak_lr(recipe.optimizer, job.plan.batch_size)
        decay, frozen = recipe.average.decay, tuple(f"body.{name}." for name in self.frozen)
        self.average = Average(model, decay, without=frozen) if decay is not None else None
        model.set_grad_checkpointing(recipe.compute.gradient_checkpointing)
        self.kernels: AbstractContextManager[object]
        self.note: str
        self.kernels, self.note = convolutions(recipe.compute, model)
        network: nn.Module = _AllLogits(model)
        if recipe.compute.compile:
            network.compile()
        self.network: nn.Module = network
        if world.size > 1:
            with warnings.catch_warnings():
                # Newer versions of torch have another name for `broadcast_buffers`, which older ones do not know.
                warnings.simplefilter("ignore", FutureWarning)
                self.network = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def step(self, batch: Batch, number: int, rate: float | None = None) -> StepResult:
        """Train step `number` of the run (from 0) on this process's share of a batch; all processes must call it.

        Args:
            rate: the learning rate of the head; None: that of the schedule.
        """
        recipe, device = self.recipe, self.model.device
        rows = parts_of(batch.planned, self.job.plan.accumulate, pairs=self.job.augment.mixes)
        mine = [(batch.rows >= part.start) & (batch.rows < part.stop) for part in rows]
        counts = self.world.total([float(part.sum()) for part in mine])
        # Batch norm cannot train on one image; a part with so few, because of corrupt images, is skipped.
        used = [i for i, count in enumerate(counts) if count > 1]
        images = int(sum(counts[i] for i in used))
        rate = self.rate(number) if rate is None else rate
        if not used:
            return StepResult(0, 0.0, 0, 0.0, rate, skipped=False)
        self._prepare(number, rate)
        kept = snapshot(self.norms)
        sums = torch.zeros(2, device=device)
        x = to_input(batch.images.to(device, non_blocking=True), self.job.prep, self.job.augment, batch.draws)
        labels = batch.labels.to(device, non_blocking=True)
        targets = targets_of(labels, self.outputs, x.dtype)
        if self.job.augment.mixes:
            # A key with a fifth number, since those of dropout have three.
            key = (self.job.plan.seed, number, 0, 0, 1)
            x, targets = mix(x, targets, batch.rows, batch.planned, self.job.augment, key)
        labels = targets.argmax(-1)
        targets = soft(targets, recipe.loss.label_smoothing, self.class_weights)
        if not recipe.compute.channels_last:
            x = x.contiguous()
        for i in used:
            chosen = mine[i].nonzero()[:, 0]
            for k, dropout in enumerate(self.dropouts):
                dropout.set_rows((self.job.plan.seed, number, k), batch.planned, batch.rows[chosen])
            last = i == used[-1]
            before = kept if i == used[0] else snapshot(self.norms)
            with nullcontext() if last or self.world.size == 1 else self.network.no_sync():  # type: ignore[operator]
                self._part(x, labels, targets, chosen if len(rows) > 1 else None, images, sums)
            if recipe.batch_norm.mode != "freeze":
                blend(before, momentum_at(number, recipe.batch_norm.momentum, fresh=self.fresh))
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        *mine_summed, norm = torch.cat([sums, nn.utils.get_total_norm(gradients)[None]]).tolist()  # one device sync
        loss, correct = self.world.total(mine_summed)
        loss /= images * (self.outputs.logits if self.outputs.multi_label else 1)
        result = StepResult(images, loss, int(correct), norm, rate, not (math.isfinite(loss) and math.isfinite(norm)))
        if result.skipped:
            restore(kept)
            return result
        if recipe.optimizer.clip_norm is not None and norm > recipe.optimizer.clip_norm:
            torch._foreach_mul_(gradients, recipe.optimizer.clip_norm / norm)
        self.optimizer.step()
        if self.average:
            self.average.update(number)
        return result

    def rate(self, number: int) -> float:
        """The learning rate of a step: by its number, or with a time budget by `progress`."""
        schedule, step = self.recipe.schedule, number - self.extra_steps
        if self.progress is not None:
            step = math.floor(self.progress * schedule.epochs * self.steps_per_epoch)
        return self.peak_lr * lr_factor(step, self.steps_per_epoch, schedule)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Steps within the block, which are the first of the run, leave no trace; they have no average."""
        average, self.average = self.average, None
        kept = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        try:
            yield
        finally:
            self.average = average
            self.model.load_state_dict(kept)
            self.optimizer.state.clear()
            self.optimizer.zero_grad(set_to_none=True)

    def _prepare(self, number: int, rate: float) -> None:
        """Set modes and learning rates, which depend on the number of the step only: schedules have no state."""
        self.model.train()
        for module in self.frozen.values():
            module.eval()
        for norm in self.norms:
            norm.train(self.recipe.batch_norm.mode != "freeze")
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)

    def _part(
        self, x: Tensor, labels: Tensor, targets: Tensor, chosen: Tensor | None, images: int, sums: Tensor
    ) -> None:
        """Accumulate the gradients of a part, and add its loss and correct predictions to `sums`."""
        if chosen is not None:
            x, labels, targets = (values[chosen.to(x.device)] for values in (x, labels, targets))
        settings = self.recipe.loss
        autocast = self.recipe.compute.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast), self.kernels:
            outputs = self.network(x)
        if autocast:
            outputs = {head: logits.float() for head, logits in outputs.items()}
        losses = {head: cross_entropy(logits, targets, self.outputs) for head, logits in outputs.items()}
        loss = sum(value * (1 if head == "logits" else settings.aux_weight) for head, value in losses.items())
        assert isinstance(loss, Tensor)
        # DistributedDataParallel averages over processes; the gradient is to be the mean over all images of the step,
        # and the sum over labels: that of a logit has then the size that it has with softmax, however many there are.
        with self.kernels if self.recipe.compute.gradient_checkpointing else nullcontext():
            (loss * (self.world.size / images)).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([losses["logits"].detach(), self.outputs.hits(outputs["logits"], labels).sum()])


class _AllLogits(nn.Module):
    """A module that returns main and auxiliary logits by name, for the loss."""

    def __init__(self, model: InceptionNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.model.all_logits(x) if self.model.aux else {"logits": self.model(x)}
