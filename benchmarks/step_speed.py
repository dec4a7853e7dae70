"""Throughput of a training step, compared with timm's network in a bare loop or between settings of this package.

python benchmarks/step_speed.py [--networks inception_v3 inception_v4 inception_resnet_v2.slim] [--batch 16]
    [--size 299] [--rounds 5] [--steps 3] [--device cpu|cuda] [--precision fp32|bf16]
    [--variants] [--compile no|yes|both]

SGD with Nesterov momentum, 1000 classes, dropout 0.2, random images. In every round all sides are measured one after
another, each after a warm-up step. timm's loop is given float images on the device. Our step is that of `train`: it is
given uint8 images in memory, flips and normalises them, looks for dead features, and undoes a step whose loss or
gradient norm is not finite. On a CPU in fp32 it is measured with torch's convolutions too. timm and torchvision are
installed into a temporary folder if they are not installed.
`--compile yes` compiles both sides, on a GPU timm's with max-autotune; each compilation takes minutes. `--variants`
measures our step alone, with every combination of precision and memory format.
"""

import argparse
import importlib.util
import itertools
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
import torch.nn.functional as F
from input_speed import import_torchvision, shown, torchvision_transforms

from inceptionnet import create_model
from inceptionnet.data.loading import Batch
from inceptionnet.data.preprocess import CHANGES, Preprocessing
from inceptionnet.data.splits import Source
from inceptionnet.system.devices import cpu_says
from inceptionnet.train.plan import Job, Plan
from inceptionnet.train.recipe import Recipe
from inceptionnet.train.step import Stepper
from inceptionnet.train.watch import Features

PEERS = ("timm==1.0.31", "huggingface_hub", "pyyaml")
CLASSES, DROPOUT, RATE = 1000, 0.2, 0.01
PLAIN = {  # the settings of the bare loop
    "optimizer.name": "sgd",
    "optimizer.lr": RATE,
    "optimizer.lr_scaling": "none",
    "optimizer.weight_decay": 0,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0,
    "loss.label_smoothing": 0,
}
COMPILE = {"no": (False,), "yes": (True,), "both": (False, True)}
Step = Callable[[], object]


def ours(
    name: str,
    given: argparse.Namespace,
    precision: str,
    channels_last: bool = True,
    compiled: bool = False,
    checkpointing: bool = False,
    convolutions: str = "auto",
) -> Step:
    compute = {"precision": precision, "channels_last": channels_last, "compile": compiled}
    compute["convolutions"] = convolutions
    compute["gradient_checkpointing"] = checkpointing
    recipe = Recipe().changed(PLAIN | {f"compute.{key}": value for key, value in compute.items()})
    source = Source("random", tuple(map(str, range(CLASSES))), {}, "random images")
    job = Job(Plan("random", name, batch_size=given.batch), source, recipe, Preprocessing(given.size))
    model = create_model(name, num_classes=CLASSES, dropout=DROPOUT)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    stepper = Stepper(model.to(given.device), job, steps_per_epoch=1000)
    Features(model)
    images = torch.randint(256, (given.batch, given.size, given.size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels, rows = torch.randint(CLASSES, (given.batch,)), torch.arange(given.batch)
    if given.device == "cuda":  # as the loader returns them
        images, labels = images.pin_memory(), labels.pin_memory()
    batch = Batch(images, labels, rows, rows, torch.rand(given.batch, len(CHANGES)), given.batch)
    number = itertools.count()

    def step() -> None:
        if stepper.step(batch, next(number)).skipped:
            raise SystemExit(f"{name}: a step was skipped, so the times are not valid; use a larger --batch or --size")

    return step


def provide_timm(folder: str) -> None:
    """Make timm importable; installs it into `folder` if it is not installed."""
    if importlib.util.find_spec("timm") is None:
        torchvision_transforms(folder)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *PEERS]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    else:
        import_torchvision()  # timm imports it too, and would fail


def theirs(name: str, given: argparse.Namespace, memory: torch.memory_format, mode: str | None = None) -> Step:
    """A step of the bare loop over timm's network; `mode` is that of torch.compile, None: not compiled."""
    import timm

    model = timm.create_model(name.split(".")[0], num_classes=CLASSES, drop_rate=DROPOUT)
    counts = [sum(p.numel() for p in each.parameters()) for each in (model, create_model(name, num_classes=CLASSES))]
    if counts[0] != counts[1]:
        raise SystemExit(
            f"{name}: expected {counts[0]:,} parameters as in timm, got {counts[1]:,}; remove it from --networks"
        )
    model = model.train().to(given.device, memory_format=memory)
    if mode:
        model.compile(mode=mode)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, nesterov=True)
    x = torch.rand(given.batch, 3, given.size, given.size).mul_(2).sub_(1).to(given.device, memory_format=memory)
    labels = torch.randint(CLASSES, (given.batch,), device=given.device)

    def step() -> None:
        with torch.autocast(given.device, torch.bfloat16, enabled=given.precision == "bf16"):
            loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Step, steps: int, device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    return time.perf_counter() - start


def in_turns(sides: dict[str, Step], given: argparse.Namespace) -> dict[str, list[float]]:
    """Images/s of each side, per round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _, (name, step) in itertools.product(range(given.rounds), sides.items()):
        step()
        found[name].append(given.steps * given.batch / seconds(step, given.steps, given.device))
    return found


def compare(name: str, given: argparse.Namespace) -> None:
    torch.compiler.reset()  # else earlier networks count against the recompilation limit
    sides = {}
    for compiled in COMPILE[given.compile]:
        how = ", compiled" * compiled
        mode = ("max-autotune" if given.device == "cuda" else "default") if compiled else None
        sides[f"inceptionnet{how}"] = ours(name, given, given.precision, compiled=compiled)
        if given.device == "cpu" and given.precision == "fp32" and not compiled:
            sides["inceptionnet, torch's convolutions"] = ours(name, given, "fp32", convolutions="torch")
        for order, memory in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
            sides[f"timm, {order}{how}"] = theirs(name, given, memory, mode)
    found = in_turns(sides, given)
    for side, speeds in found.items():
        print(f"  {side:<34} {shown(speeds, 2)}")
    own, faster = (
        max((side for side in found if side.startswith(whose)), key=lambda side: statistics.median(found[side]))
        for whose in ("inceptionnet", "timm")
    )
    ratios = [a / b for a, b in zip(found[own], found[faster], strict=True)]
    print(f"  ratio of {own} to {faster}: {shown(ratios, 3)}")


def variants(name: str, given: argparse.Namespace) -> None:
    torch.compiler.reset()  # else earlier networks count against the recompilation limit
    sides, first = {}, {}
    for precision, last, compiled in itertools.product(("fp32", "bf16"), (True, False), COMPILE[given.compile]):
        row = f"{precision:<9} | {'yes' if last else 'no':<13} | {'yes' if compiled else 'no':<7}"
        sides[row] = ours(name, given, precision, last, compiled)
        first[row] = seconds(sides[row], 1, given.device)
    print("  precision | channels last | compile | first step, s | images/s")
    for row, speeds in in_turns(sides, given).items():
        print(f"  {row} | {first[row]:13.1f} | {shown(speeds, 2)}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--networks", nargs="+", default=["inception_v3", "inception_v4", "inception_resnet_v2.slim"]
    )
    for option, default in (("batch", 16), ("size", 299), ("rounds", 5), ("steps", 3)):
        arguments.add_argument(f"--{option}", type=int, default=default)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments.add_argument("--variants", action="store_true")
    arguments.add_argument("--compile", choices=COMPILE, default="no")
    given = arguments.parse_args()
    torch.manual_seed(0)
    processor = cpu_says("model name") or platform.processor()
    with tempfile.TemporaryDirectory() as folder:
        if not given.variants:
            provide_timm(folder)
            print(f"timm {version('timm')}", end=", ")
        chip = f"{torch.cuda.get_device_name()}, " if given.device == "cuda" else ""
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {chip}{processor}")
        what = "" if given.variants else f" in {given.precision}"
        print(f"{given.batch} images of {given.size} px{what}, {given.rounds} rounds of {given.steps} steps")
        print("images/s, median (range)")
        for name in given.networks:
            print(name, flush=True)
            (variants if given.variants else compare)(name, given)


if __name__ == "__main__":
    main()
