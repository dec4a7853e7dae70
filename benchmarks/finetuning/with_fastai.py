"""fastai's `vision_learner` and `fine_tune` with their defaults.

The body is this package's network with the same weights, the head is fastai's. Images: `Resize`, `aug_transforms` and
the normalisation of the weights. The number of epochs is planned from measured steps, frozen and unfrozen.
"""

# ruff: noqa: E402

from __future__ import annotations

import copy
import itertools
import sys
import time
from pathlib import Path

import torch
from common import Job, arguments, epochs_of, trained, write_predictions
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from input_speed import import_torchvision

import_torchvision()  # which fastai imports, and some builds of torch lack parts of

from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    aug_transforms,
    set_seed,
    vision_learner,
)

from inceptionnet import create_model

MEASURED = 3


class Body(nn.Module):
    """The network without its head: images → last grid."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x.as_subclass(Tensor))


def main() -> None:
    job = arguments()
    set_seed(job.seed, reproducible=True)
    model = create_model(weights=job.weights, num_classes=0, input_size=job.size).to(memory_format=torch.channels_last)
    mean, std = model.preprocessing.mean, model.preprocessing.std
    loaders = ImageDataLoaders.from_folder(
        job.images,
        train="train",
        valid="val",
        seed=job.seed,
        bs=job.batch,
        num_workers=job.workers,
        item_tfms=Resize(job.size),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(mean, std)],
    )
    learner = vision_learner(loaders, lambda pretrained: model, cut=lambda whole: nn.Sequential(Body(whole)))
    epochs = plan(job, learner)
    with learner.no_bar():
        learner.fine_tune(epochs)
    trained(job, f"1 epoch of the head, {epochs} of all, of {len(loaders.train)} steps")
    files = job.files(job.held_out)
    with learner.no_bar(), learner.no_logging():
        probabilities, _ = learner.get_preds(dl=loaders.test_dl(files, num_workers=job.workers))
    write_predictions(files, [loaders.vocab[number] for number in probabilities.argmax(1).tolist()])


def plan(job: Job, learner: Learner) -> int:
    """Epochs of `fine_tune` after the first, which trains the head; the learner is as before."""
    state = copy.deepcopy(learner.model.state_dict())
    learner.freeze()
    frozen_s = step_s(learner)
    learner.unfreeze()
    whole_s = step_s(learner)
    validation_s = evaluation_s(learner)
    learner.model.load_state_dict(state)
    learner.freeze()
    steps = len(learner.dls.train)
    print(
        f"a step takes {frozen_s:.2f} s frozen, {whole_s:.2f} s unfrozen, validation {validation_s:.2f} s", flush=True
    )
    return epochs_of(job.left_s - steps * frozen_s - validation_s, steps * whole_s + validation_s)


def step_s(learner: Learner) -> float:
    """Seconds of a step, images included, after one that is not counted."""
    learner.model.train()
    start = time.perf_counter()
    endless = itertools.chain.from_iterable(itertools.repeat(learner.dls.train))
    for number, (x, labels) in enumerate(itertools.islice(endless, 1 + MEASURED)):
        learner.loss_func(learner.model(x), labels).backward()
        learner.model.zero_grad()
        start = time.perf_counter() if number == 0 else start
    return (time.perf_counter() - start) / MEASURED


def evaluation_s(learner: Learner) -> float:
    """Seconds of an evaluation of the validation images, from one batch."""
    learner.model.eval()
    start = time.perf_counter()
    with torch.no_grad():
        x, _ = next(iter(learner.dls.valid))
        learner.model(x)
    return (time.perf_counter() - start) * len(learner.dls.valid.dataset) / len(x)


if __name__ == "__main__":
    main()
