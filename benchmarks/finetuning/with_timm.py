"""Fine-tuning with timm's functions as its train script calls them; the script is in no package of the index.

The flags are those of the one example of fine-tuning with hyperparameters in timm's documentation of the script
(AdamW, learning rate 1e-4, weight decay 0.01, batch 32, 5 of 30 epochs of warm-up), and the script's defaults: cosine
schedule, label smoothing 0.1, random crops of 8 to 100 % of the area, flips, colour jitter 0.4. Of its options for
speed it has --channels-last, and --sched-on-updates, since there are few epochs.
"""

# ruff: noqa: E402

from __future__ import annotations

import copy
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import Job, arguments, epochs_of, trained, write_predictions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from input_speed import import_torchvision

import_torchvision()  # which timm imports, and some builds of torch lack parts of

from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed

from inceptionnet import create_model

MEASURED = 3
WARM_UP = 5 / 30


def main() -> None:
    job = arguments()
    random_seed(job.seed)
    model = create_model(weights=job.weights, num_classes=len(job.classes), input_size=job.size, drop_rate=0.0)
    model.reset_classifier(len(job.classes))
    model = model.to(memory_format=torch.channels_last)
    config = resolve_data_config({"input_size": (3, job.size, job.size)}, model=model)
    batches = loader(job, config, job.images / "train", training=True)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=0.01)
    step_s = measure(model, optimizer, batches)
    epochs = epochs_of(job.left_s, step_s * len(batches))
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=epochs,
        warmup_epochs=round(epochs * WARM_UP),
        warmup_lr=1e-5,
        step_on_epochs=False,
        updates_per_epoch=len(batches),
    )
    model.train()
    for epoch in range(epochs):
        for number, (x, labels) in enumerate(batches, start=epoch * len(batches) + 1):
            step(model, optimizer, x, labels)
            schedule.step_update(num_updates=number)
    trained(job, f"{epochs} epochs of {len(batches)} steps, planned from {step_s:.2f} s a step")
    predict(job, model, config)


def loader(job: Job, config: dict[str, Any], folder: Path, *, training: bool) -> Any:
    classes = {name: number for number, name in enumerate(job.classes)}
    dataset = create_dataset("", root=str(folder), is_training=training, class_map=classes)
    kept = ("input_size", "mean", "std", "crop_pct", "crop_mode")
    return create_loader(
        dataset,
        batch_size=job.batch,
        is_training=training,
        interpolation="random" if training else config["interpolation"],
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        device=torch.device("cpu"),
        use_prefetcher=False,
        **{key: config[key] for key in kept},
    )


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor) -> None:
    loss = LabelSmoothingCrossEntropy(0.1)(model(x.contiguous(memory_format=torch.channels_last)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def measure(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: Any) -> float:
    """Seconds of a step, images included, after one that is not counted; model and optimiser are as before."""
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    model.train()
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    start = time.perf_counter()
    for number, (x, labels) in enumerate(itertools.islice(endless, 1 + MEASURED)):
        step(model, optimizer, x, labels)
        start = time.perf_counter() if number == 0 else start
    took = (time.perf_counter() - start) / MEASURED
    model.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    return took


def predict(job: Job, model: torch.nn.Module, config: dict[str, Any]) -> None:
    batches = loader(job, config, job.held_out, training=False)
    model.eval()
    with torch.inference_mode():
        numbers = [number for x, _ in batches for number in model(x).argmax(1).tolist()]
    files = [job.held_out / name for name in batches.dataset.filenames()]
    write_predictions(files, [job.classes[number] for number in numbers])


if __name__ == "__main__":
    main()
