"""What needs torch: its build, threads, the engines, data workers, and whether a small network predicts.

torch is imported in the functions, so that one which is missing or broken is a finding of each section.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inceptionnet.doctor.finding import Finding, described
from inceptionnet.errors import InceptionNetError
from inceptionnet.system.devices import SHARED_MEMORY, default_workers, free_shared_memory, pick_device

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
DRIVER = Path("/proc/driver/nvidia/version")
NETWORK, WIDTH, SIZE_PX = "inception_v1.slim", 0.25, 64
"""What the self-test builds."""
PROBABILITIES = 1e-4
"""The largest difference of two engines' probabilities in fp32; TF32, which they do not use, gives more."""


def torch_build() -> Iterator[Finding]:
    """torch's version and build, its instruction sets, CUDA devices and driver."""
    import torch

    yield Finding("torch", "version", torch.__version__, torch.__version__)
    cuda, hip = torch.version.cuda, torch.version.hip
    cudnn: Any = torch.backends.cudnn
    build = f"CUDA {cuda}, cuDNN {cudnn.version()}" if cuda else f"ROCm {hip}" if hip else "CPU"
    yield Finding("torch", "build", build, build)
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("torch", "kernels for", capability, capability)
    driver = nvidia_driver()
    yield Finding("torch", "NVIDIA driver", driver, driver or "none")
    devices: list[dict[str, Any]] = [
        {"name": about.name, "capability": f"{about.major}.{about.minor}", "memory": about.total_memory}
        for about in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    texts = [f"{one['name']} ({one['capability']}, {one['memory'] / 2**30:.0f} GiB)" for one in devices]
    if not devices and driver and not (cuda or hip):
        texts = ["none: this build of torch has no CUDA"]
    yield Finding("torch", "CUDA devices", devices, ", ".join(texts) or "none")
    device = str(pick_device())
    yield Finding("torch", "device auto", device, device)


def nvidia_driver() -> str | None:
    """The version of NVIDIA's driver; None if there is none."""
    try:
        text = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        try:
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            text = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return None
    found = re.search(r"\b\d{3}\.[\d.]+\b", text)
    return found[0] if found else None


def threads() -> Iterator[Finding]:
    """torch's threads, and the variables that set them."""
    for name in VARIABLES:
        yield Finding("threads", name, os.environ.get(name), os.environ.get(name, "not set"))
    import torch

    value = {"within an operation": torch.get_num_threads(), "between operations": torch.get_num_interop_threads()}
    yield Finding("threads", "torch", value, ", ".join(f"{number} {where}" for where, number in value.items()))


def engines() -> Iterator[Finding]:
    """The engines that can be used on this machine, and why the others cannot; none is built."""
    from inceptionnet.engines.builders import BUILDERS, check_usable

    devices = [pick_device(), *([] if pick_device().type == "cpu" else [pick_device("cpu")])]
    for name in BUILDERS:
        on, why = [], ""
        for device in devices:
            try:
                check_usable(name, device)
            except Exception as error:
                why = why or described(error)
            else:
                on.append(device.type)
        value = {"devices": on, "reason": "" if on else why}
        yield Finding("engines", name, value, f"on {' and '.join(on)}" if on else f"cannot be used: {why}")


def data_workers() -> Iterator[Finding]:
    """Processes that decode images, and the memory through which batches come from them."""
    number, free = default_workers(None), free_shared_memory()
    yield Finding("data workers", "by default", number, str(number))
    text = "unknown: not on this system" if free is None else f"{free / 1e6:.0f} MB free in {SHARED_MEMORY}"
    yield Finding("data workers", "shared memory", free, text)
    from inceptionnet.data.workers import check_temporary_folder

    try:
        check_temporary_folder()
    except InceptionNetError as error:
        yield Finding("data workers", "temporary folder", None, str(error), True)


def self_test() -> Iterator[Finding]:
    """One image decoded, a small network built, and its prediction by two engines, which must agree."""
    import torch
    from PIL import Image
    from torch import nn

    from inceptionnet.classifier import load
    from inceptionnet.data.preprocess import Preprocessing
    from inceptionnet.registry.create import create_model

    began = time.monotonic()
    Image.radial_gradient("L").resize((80, 64)).convert("RGB").save(file := io.BytesIO(), "jpeg")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(NETWORK, num_classes=3, width=WIDTH, input_size=SIZE_PX)
        # The papers' initial weights need training before their logits tell images apart.
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    classes, prep = ["a", "b", "c"], Preprocessing(SIZE_PX)
    eager, fused = (load(model, classes=classes, preprocessing=prep, engine=engine) for engine in ("eager", "fused"))
    one, other = (probabilities(clf.predict([file.getvalue()])) for clf in (eager, fused))
    off = max(abs(one[label] - other[label]) for label in classes)
    device, seconds = fused.about["device"], time.monotonic() - began
    value = {
        "network": NETWORK, "width": WIDTH, "size_px": SIZE_PX, "device": device, "seconds": round(seconds, 2),
        "probabilities": one, "difference": off,
    }  # fmt: skip
    what = f"{NETWORK}, width {WIDTH:g}, {SIZE_PX} px on {device}"
    if not off <= PROBABILITIES:  # also for NaN
        text = (
            f"{what}: engines eager and fused give probabilities that differ by {off:.1e}; expected {PROBABILITIES:g}"
        )
    else:
        text = f"{what}: an image decoded and predicted in {seconds:.1f} s; engines eager and fused differ by {off:.0e}"
    yield Finding("self-test", "prediction", value, text, not off <= PROBABILITIES)


def probabilities(predictions: Any) -> dict[str, float]:
    """Of the classes of the only image."""
    (prediction,) = predictions
    return dict(prediction.top)
