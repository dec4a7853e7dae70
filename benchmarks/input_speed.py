"""Throughput of training crops per core, from JPEG bytes to uint8 pixels, compared with torchvision on Pillow.

python benchmarks/input_speed.py FOLDER [--size 224 299] [--area 0.08] [--rounds 9]

torchvision is installed into a temporary folder, which is deleted at the end. Both pipelines run in this process on one
thread, interleaved, over all JPEGs of FOLDER, which are held in memory. CPU time is the main result, since other
processes may use the cores.
"""

import argparse
import io
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import simplejpeg
import torch
from PIL import Image

from inceptionnet.data import Augment, Preprocessing, decode
from inceptionnet.data.augment import training_crop
from inceptionnet.data.bands import Box
from inceptionnet.data.decode import decode_box
from inceptionnet.data.resizing import random_box, resize

TORCHVISION = "torchvision==0.28.0"  # the release that belongs to torch 2.13
Crop = Callable[[bytes, int], np.ndarray]  # image, its number → pixels


def torchvision_transforms(folder: str):
    """Install torchvision into `folder`; returns its transforms."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, TORCHVISION]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    sys.path.append(folder)
    torchvision = import_torchvision()
    print(f"torchvision {torchvision.__version__}", end=", ")
    return torchvision.transforms


def import_torchvision():
    """torchvision, also with a build of torch that lacks its compiled operators (for detection)."""
    register_fake = torch.library.register_fake

    def tolerant(*args, **options):
        register = register_fake(*args, **options)

        def register_if_there(function):
            try:
                return register(function)
            except RuntimeError:
                return function

        return register_if_there

    torch.library.register_fake = tolerant
    try:
        import torchvision
    finally:
        torch.library.register_fake = register_fake
    return torchvision


def usual_transforms(size: int) -> Callable[[bytes], torch.Tensor]:
    """What tutorials do with an uploaded image before the network: Pillow, and torchvision's transforms."""
    transforms = import_torchvision().transforms
    mean = std = [0.5] * 3
    crop = (transforms.Resize(round(size / 0.875)), transforms.CenterCrop(size))
    prepare = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(mean, std)])
    return lambda data: prepare(Image.open(io.BytesIO(data)).convert("RGB"))


def theirs(transforms, size: int, area: float) -> Crop:
    crop = transforms.RandomResizedCrop(size, scale=(area, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)
    return lambda data, _: np.asarray(crop(Image.open(io.BytesIO(data)).convert("RGB")))


def ours(size: int, area: float) -> Crop:
    prep, augment = Preprocessing(size), Augment(area)
    return lambda data, number: training_crop(data, prep, augment, np.random.default_rng((0, 0, number)), name="x")


def one_round(sides: dict[str, Crop], images: list[bytes]) -> dict[str, tuple[float, float]]:
    """Images/s of each pipeline by CPU time and by wall time, interleaved every ten images."""
    spent = {name: np.zeros(2) for name in sides}
    for start in range(0, len(images), 10):
        for name, crop in sides.items():
            before = time.process_time(), time.perf_counter()
            for number in range(start, min(start + 10, len(images))):
                crop(images[number], number)
            spent[name] += np.array([time.process_time(), time.perf_counter()]) - before
    return {name: tuple(len(images) / seconds) for name, seconds in spent.items()}


def shown(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def fidelity(images: list[bytes], size: int, area: float) -> None:
    """Print the mean difference between our crop and the same box decoded at full size and resized by Pillow."""
    crop, boxes, full, reduced = ours(size, area), [], [], []

    def choose(width: int, height: int) -> Box:
        boxes.append(random_box(width, height, np.random.default_rng((0, 0, len(boxes))), area_min=area))
        return boxes[-1]

    for number, data in enumerate(images):
        decoded = decode_box(data, choose, at_least_px=size)
        shrink = round((boxes[-1][2] - boxes[-1][0]) / decoded.shape[1])
        box = [(edge + shrink // 2) // shrink * shrink for edge in boxes[-1]]  # the box of the decoded pixels
        gap = np.abs(crop(data, number) - resize(decode(data).crop(box), size, "bilinear").astype(int)).mean()
        (full if shrink == 1 else reduced).append(gap)
    shares = ", ".join(
        f"{len(gaps)} images decoded at {what}: {np.mean(gaps):.2f} (max. {max(gaps):.2f})"
        for what, gaps in (("full size", full), ("a fraction of the size", reduced))
        if gaps
    )
    print(f"  mean difference from full decoding and Pillow's resize, in grey values of 255: {shares}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--size", type=int, nargs="+", default=[224, 299])
    arguments.add_argument("--area", type=float, default=0.08)
    arguments.add_argument("--rounds", type=int, default=9)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    images = [p.read_bytes() for p in sorted(given.folder.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg")]
    with tempfile.TemporaryDirectory() as folder:
        transforms = torchvision_transforms(folder)
        print(f"torch {torch.__version__}, pillow {PIL.__version__}, simplejpeg {simplejpeg.__version__}", end=", ")
        print(f"Python {platform.python_version()}, {len(images)} images, {given.rounds} rounds, median (range)")
        for size in given.size:
            sides = {"torchvision": theirs(transforms, size, given.area), "inceptionnet": ours(size, given.area)}
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for turn in range(-1, given.rounds):  # the first warms up
                for name, speed in one_round(sides, images).items():
                    found[name] += [speed] if turn >= 0 else []
            print(f"{size} px, crops of at least {given.area} of the area, images/s per core")
            for kind, what in enumerate(("CPU time", "wall time")):
                speeds = {name: [speed[kind] for speed in each] for name, each in found.items()}
                ratios = [b / a for a, b in zip(*speeds.values(), strict=True)]
                named = ", ".join(f"{name} {shown(each)}" for name, each in speeds.items())
                print(f"  {what}: {named}, ratio {shown(ratios, 2)}")
            fidelity(images, size, given.area)


if __name__ == "__main__":
    main()
