"""Images, a trained network and converted ones that several tests share; torch with one thread, so that sums have one
order and processes do not fight over cores.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

# Read when torch is imported, here and in the processes that tests start; an empty value makes libgomp complain there.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from inceptionnet.cli import main
from inceptionnet.data.fingerprint import fingerprint, sizes
from inceptionnet.model.network import InceptionNet
from inceptionnet.train.loop import train
from inceptionnet.train.plan import Plan

from .forked import Forked

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that import onnxruntime themselves

DEVICE = os.environ.get("INCEPTIONNET_TEST_DEVICE", "cuda")
"""Of the tests marked `cuda`."""
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 40, 50)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` need such a device, or INCEPTIONNET_TEST_DEVICE to name another one to try them on."""
    if torch.cuda.is_available() or DEVICE != "cuda":
        return
    skip = pytest.mark.skip(reason="no CUDA device here; INCEPTIONNET_TEST_DEVICE=cpu tries the test on the CPU")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c() -> None:
    """A shell that starts the tests in the background has Ctrl-C ignored, by them and by what they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def write_images(folder: Path, count: int, seed: int = 0) -> Path:
    """`count` noisy 40×32 images for each colour, in folders named after it."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noisy = np.array(colour) + rng.normal(0, 25, (32, 40, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def with_torch() -> Iterator[Forked]:
    """Runs a program in a fresh process in which torch alone is imported."""
    yield (forked := Forked("torch"))
    forked.close()


@pytest.fixture(scope="session")
def with_training() -> Iterator[Forked]:
    """Runs a program in a fresh process in which what a training needs is imported."""
    yield (forked := Forked("inceptionnet.train.loop", "inceptionnet.evaluate"))
    forked.close()


@pytest.fixture
def in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training step's inputs in float64, where two ways to compute the same do not switch a ReLU.

    With a network in float64 and std and mean of 0.5.
    """
    from inceptionnet.train import step

    monkeypatch.setattr(step, "to_input", lambda images, *how: images.double() / 127.5 - 1)


def without_repeats(model: InceptionNet) -> InceptionNet:
    """The model, less the endpoints that are built like the one before them: most of an Inception-ResNet.

    For tests that capture a network, which takes seconds for each of its blocks.
    """
    before = None
    for name, node in model.network.body.items():
        if node == before:
            del model.body._modules[name]
        before = node
    return model


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three colours that a small network learns in seconds, not split."""
    return write_images(tmp_path_factory.mktemp("data") / "colours", 12)


EPOCHS_OF_RUN = 6
"""In 12 runs from other random weights, 3 epochs left 3 networks that did not know all colours; 6 epochs left none."""


@pytest.fixture(scope="session")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a narrow network trained on the colours until it knows them all."""
    out = tmp_path_factory.mktemp("runs") / "colours"
    train(tiny_plan(colours, epochs=EPOCHS_OF_RUN, settings={"log.report": True}), out)
    return out


def tiny_plan(data: Path | str, *, settings: Mapping[str, object] | None = None, **changes: object) -> Plan:
    """A training of a second; without the report and figures at its end, which would take longer than that."""
    plan = {
        "data": str(data), "model": "inception_v1.slim", "epochs": 3, "batch_size": 8, "size": 32, "width": 0.125,
        "workers": 0, "settings": {"log.report": False, **(settings or {})},
    }  # fmt: skip
    return Plan(**(plan | changes))  # type: ignore[arg-type]


def steps_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's steps.jsonl."""
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


DESCENT = {"network.fit_head": False, "batch_norm.mode": "update", "average.decay": None}
"""Fine-tuning by gradient descent alone, of one network, with updated statistics."""


def as_if_on(run: Path, data: Path, **plan: object) -> Path:
    """Change run.json of a run folder as if it had been trained on that data, with a changed plan; returns the folder.

    For tests of what is read from a run folder: its weights and figures stay.
    """
    about = json.loads((run / "run.json").read_text())
    about["plan"] |= {"data": str(data), **plan}
    source = Plan(**about["plan"]).open_source()
    about["data"] |= {
        "title": source.title,
        "classes": source.classes,
        "images": {name: len(split) for name, split in source.splits.items()},
        "fingerprint": fingerprint(source),
        "sizes": sizes(source),
    }
    (run / "run.json").write_text(json.dumps(about))
    return run


class _ByValue(pickle.Pickler):
    """Two equal networks give the same bytes, which torch's own pickling of tensors does not."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, torch.Tensor):
            x = thing.detach().contiguous()
            return tuple, ((str(x.dtype), tuple(x.shape), x.numpy().tobytes()),)
        return NotImplemented


def by_value(module: torch.nn.Module) -> bytes:
    """Equal for networks that compute the same."""
    _ByValue(into := io.BytesIO()).dump(module)
    return into.getvalue()


@pytest.fixture(scope="session")
def converted_once() -> Iterator[None]:
    """Every network becomes an ONNX or OpenVINO model once, however many tests ask for it: that takes seconds."""
    from inceptionnet.engines import builders, writing

    kept: dict[object, Any] = {}

    def remembered(convert: Callable[..., Any], copied: Callable[[Any], Any]) -> Callable[..., Any]:
        def converted(module: torch.nn.Module, example: torch.Tensor, **options: Any) -> Any:
            known_by = (convert.__name__, by_value(module), example.shape, repr(sorted(options.items())))
            if known_by not in kept:
                kept[known_by] = convert(module, example, **options)
            return copied(kept[known_by])

        return converted

    with pytest.MonkeyPatch.context() as patch:
        for place in (writing, builders):
            patch.setattr(place, "to_onnx", remembered(place.to_onnx, copy.deepcopy))
            patch.setattr(place, "to_openvino", remembered(place.to_openvino, lambda model: model.clone()))
        yield


def differing(one: Path, other: Path) -> list[str]:
    """The tensors of two .safetensors files that are not the same bit by bit, or that only one of them has."""
    first, second = load_file(one), load_file(other)
    same = {name for name in first.keys() & second.keys() if torch.equal(first[name], second[name])}
    return sorted((first.keys() | second.keys()) - same)


@pytest.fixture(scope="session")
def openvino_in_8_bits() -> None:
    """Skips a test where ONEDNN_MAX_CPU_ISA imitates an older CPU and OpenVINO plans for the one that there is: it then
    finds no max pool in 8 bits."""
    if not os.environ.get("ONEDNN_MAX_CPU_ISA"):
        return
    from inceptionnet import create_model
    from inceptionnet.engines.int8 import quantised_openvino
    from inceptionnet.engines.openvino import openvino_core, to_openvino

    model = create_model("inception_v1.slim", width=0.125, input_size=32, num_classes=3).eval()
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    try:
        openvino_core().compile_model(quantised_openvino(to_openvino(model, x), x))
    except RuntimeError as error:
        pytest.skip(f"OpenVINO has no 8 bits on this imitated CPU: {error}")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command line; gives exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inceptionnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out = capsys.readouterr()
        return int(end.value.code or 0), out.out, out.err

    return run


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
"""Debian's chromium, or another one that PATH has."""


class Page(HTMLParser):
    """What a page loads, and the text of its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data") and not (value or "").startswith(("#", "data:")):
                self.loads.append(f"{tag} {name}={value}")
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if BROWSER is None:
        pytest.skip("no chromium on this machine; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run"]  # fmt: skip
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=quiet)
        yield opened
        opened.close()


def opened(browser, file: Path, **options: object):
    """The page in a tab, with whatever the console said and whatever it asked the network for."""
    tab = browser.new_context(**options).new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
    tab.goto(file.as_uri())
    return tab, said
