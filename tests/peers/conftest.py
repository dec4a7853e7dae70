"""The other libraries, imported as far as this build of torch lets them."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from .judging import DIFFERENCES

# Both are read at the first import.
os.environ["KERAS_BACKEND"] = "torch"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

DIFFERENCE = "relative difference"
Peer = Callable[[str], ModuleType]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Differences travel with the test's report, from whichever process it ran in."""
    report = yield
    report.user_properties += [(DIFFERENCE, value) for value in DIFFERENCES]
    DIFFERENCES.clear()
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found: dict[str, list[float]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        judge = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_")
        for name, value in report.user_properties:
            if name == DIFFERENCE and report.when == "call":
                found.setdefault(judge, []).append(value)
    for judge, values in sorted(found.items()):
        line = f"{judge}: {len(values)} comparisons, relative differences {min(values):.1e} to {max(values):.1e}"
        terminalreporter.write_line(line)


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for weights files, emptied after the test: together they are gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session")
def peer() -> Peer:
    """Import a library by name.

    Half of them import torchvision, whose compiled operators, for detection, are made for another build of torch: that
    they are missing is overlooked. What a library warns of while it is imported is not this package's.
    """

    def imported(name: str) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(torch.library, "register_fake", if_there(torch.library.register_fake))
            return importlib.import_module(name)

    return imported


@pytest.fixture(scope="session")
def tf(peer: Peer) -> Any:
    return peer("tensorflow")


@pytest.fixture(scope="session")
def keras(peer: Peer) -> Iterator[Any]:
    keras = peer("keras")
    keras.config.set_image_data_format("channels_last")
    saving = peer("keras.src.saving.saving_lib")
    with pytest.MonkeyPatch.context() as patch:
        # Keras 3.15.1 keeps it under another name than it looks for, so it computes it for every layer that it saves.
        patch.setattr(saving, "get_attr_skipset", functools.cache(saving.get_attr_skipset))
        yield keras


@pytest.fixture(scope="session")
def slim(peer: Peer, tf: Any) -> Iterator[Any]:
    """tf-slim, for which one name of TensorFlow's inside, moved since, is put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer("tensorflow.python.framework.ops"), "Tensor", tf.Tensor, raising=False)
        peer("tf_slim.nets.inception")
        yield peer("tf_slim")


def if_there(register_fake: Callable[..., Callable]) -> Callable[..., Callable]:
    """The decorator, but an operator that does not exist is passed over."""

    def tolerant(*args: object, **options: object) -> Callable:
        register = register_fake(*args, **options)

        def decorate(function: Callable) -> Callable:
            try:
                return register(function)
            except RuntimeError:
                return function

        return decorate

    return tolerant
