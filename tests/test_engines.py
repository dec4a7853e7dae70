"""Engines: the network's own numbers by whichever way they come, and a choice that can be accounted for."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inceptionnet import create_model, save_weights
from inceptionnet.data import Preprocessing
from inceptionnet.engines import builders, candidates, choice, fastest, timing
from inceptionnet.engines.builders import Builder
from inceptionnet.engines.cache import Choice, cache_file, recall, remember
from inceptionnet.engines.choice import optimize
from inceptionnet.engines.runtimes import Engine, Target
from inceptionnet.engines.timing import measured
from inceptionnet.errors import ConfigurationError, InceptionNetError, InputError, MissingExtraError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.extras import version_of

pytestmark = pytest.mark.usefixtures("converted_once")
OF_TORCH = ("eager", "channels_last", "fused")
OWN = pytest.param("winograd", marks=pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"))
OF_OTHERS = tuple(
    pytest.param(name, marks=pytest.mark.skipif(version_of(name) is None, reason=f"{name} is not installed"))
    for name in ("onnxruntime", "openvino")
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timing, "REST_S", 0.0)


def network(name: str = "inception_v1.slim", size: int = 64, width: float = 0.125, **options: int) -> InceptionNet:
    """A network with statistics of its own, as after training."""
    torch.manual_seed(0)
    model = create_model(name, width=width, input_size=size, num_classes=7, **options)
    with torch.no_grad():
        for _ in range(3):
            model(images(4, model.configuration.in_channels, size))
    return model.eval()


def images(count: int, channels: int = 3, size: int = 64) -> Tensor:
    return torch.rand(count, channels, size, size) * 2 - 1


def close(got: Tensor, model: InceptionNet, x: Tensor, tolerance: float = 1e-5) -> bool:
    with torch.no_grad():
        expected = model(x)
    assert got.shape == expected.shape and got.dtype == torch.float32
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("engine", [*OF_TORCH, OWN])
@pytest.mark.parametrize("name", ["inception_v1.slim", "inception_v3", "inception_resnet_v1"])
def test_engines_without_extras_give_the_networks_numbers(name: str, engine: str) -> None:
    size = 64 if name == "inception_v1.slim" else 79
    model = network(name, size)
    made = optimize(model, engine, batch_size=2)
    for count in (2, 3, 1):
        x = images(count, size=size)
        assert close(made(x), model, x)
    assert made.about["engine"] == made.name == engine and made.about["difference"] <= 1e-5
    library = "inceptionnet" if engine == "winograd" else "torch"
    assert made.about["library"] == f"{library} {version_of(library)}" and made.about["shape"] == [3, size, size]


@pytest.mark.slow
@pytest.mark.parametrize("engine", OF_OTHERS)
def test_runtimes_give_the_networks_numbers_for_any_number_of_images(
    engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = network(in_channels=1)
    made = optimize(model, engine, batch_size=2)
    for count in (2, 5, 1):
        x = images(count, 1)
        assert close(made(x), model, x)
        wide = x.double().expand(-1, -1, -1, -1).transpose(2, 3).contiguous().transpose(2, 3)
        assert close(made(wide), model, x), "other types and layouts of memory"
    assert made(images(0, 1)).shape == (0, 7)
    assert made.about["library"] == f"{engine} {version_of(engine)}"
    assert capfd.readouterr() == ("", "")


def test_what_an_engine_takes_and_gives() -> None:
    model = network()
    made = optimize(model, "fused", batch_size=2)
    with torch.no_grad():
        assert made(images(0)).shape == model(images(0)).shape == (0, 7)
    logits = made(images(2).requires_grad_())
    logits[0] += 1  # an ordinary tensor, though it was made in inference mode
    assert not logits.requires_grad
    for wrong in (images(2, 1), images(2, size=65), images(2)[0], images(2).byte()):
        with pytest.raises(InputError, match=r"expected float images of shape \(N, 3, 64, 64\), got"):
            made(wrong)
    with pytest.raises(InputError, match="takes images of 75 px or more"):
        optimize(create_model("inception_v3", width=0.125), "eager", size_px=74)
    x = images(2)
    before = made(x)
    with torch.no_grad():
        model.head.get_submodule("logits").bias += 1
    assert torch.equal(made(x), before), "a copy"
    assert model.training is False and optimize(model.train(), "eager")(x).shape == (2, 7) and model.training


@pytest.mark.parametrize("engine", OF_TORCH)
def test_bf16_is_what_its_digits_allow(engine: str) -> None:
    model, x = network("inception_v3", 79), images(3, size=79)
    made = optimize(model, engine, batch_size=3, precision="bf16")
    assert made.precision == made.about["precision"] == "bf16"
    assert 1e-4 < made.about["difference"] < 3e-2 and close(made(x), model, x, 3e-2)


@pytest.mark.slow
@pytest.mark.skipif(version_of("openvino") is None, reason="openvino is not installed")
def test_openvino_computes_in_bf16_only_where_that_is_asked_for() -> None:
    """And the test above that it does not where it is not, on a CPU that could."""
    try:
        made = optimize(network(), "openvino", precision="bf16")
    except ConfigurationError as error:
        expected = "engine openvino: expected bf16, got f32 on this CPU"
        assert expected in str(error) or "engine openvino cannot run here" in str(error), "an imitated CPU"
    else:
        assert 1e-4 < made.about["difference"] < 3e-2


@pytest.mark.slow
def test_compiled_once_and_never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's own interpreter in place of the C++ compiler, which would take half a minute."""
    options: list[dict[str, object]] = []
    original = torch.compile

    def compiled(module: torch.nn.Module, **asked: object) -> object:
        options.append(asked["options"])  # type: ignore[arg-type]
        return original(module, backend="eager", dynamic=False)

    monkeypatch.setattr(torch, "compile", compiled)
    model = network()
    made = optimize(model, "compile", batch_size=2)
    small, own = network(size=32), images(1, size=32)
    other = optimize(small, "compile")
    with torch.compiler.set_stance("fail_on_recompile"):
        for count in (2, 1, 5, 0):
            x = images(count)
            assert len(made(x)) == count and (not count or close(made(x), model, x))
            with torch.inference_mode():
                assert len(made(x + 0)) == count
        x = images(2).to(memory_format=torch.channels_last).requires_grad_()
        assert close(made(x), model, x) and close(other(own), small, own)
    assert options == [{"freezing": True, "cpp.threads": torch.get_num_threads()}] * 2


@pytest.mark.parametrize("engine", [OWN, *OF_OTHERS])
def test_streams_divide_a_batch(engine: str) -> None:
    """Also one of fewer images than streams, and an uneven one; outside inference mode and within it."""
    model = network()
    made = builders.build_engine(engine, model, Target(images(4), "fp32", 4, streams=2))
    assert made.about["streams"] == 2 and made.about["threads"] == 4
    for count in (4, 5, 1, 0):
        x = images(count)
        assert made(x).shape == (count, 7) and (not count or close(made(x), model, x))
        with torch.inference_mode():
            assert len(made(x)) == count
    with pytest.raises(ConfigurationError, match="engine eager: expected 1 stream, got 2; choose"):
        builders.build_engine("eager", model, Target(images(4), "fp32", 4, streams=2))


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_threads_and_streams_are_measured_for_the_fastest_engine(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls take as long as the table says, by threads and streams; a gain of 2 % is not taken for one."""
    built = list[tuple[int, int]]()

    def table(takes: dict[tuple[int, int], float]) -> None:
        def build(model: InceptionNet, target: Target) -> Engine:
            built.append((target.threads, target.streams))
            return Engine("winograd", model, target, "torch")

        def turns(engines: list[Engine], x: Tensor, rounds: int) -> list[list[float]]:
            return [[takes[each.about["threads"], each.about["streams"]]] * rounds for each in engines]

        monkeypatch.setitem(fakes.builders, "winograd", build)
        monkeypatch.setattr(builders, "_streams", lambda name, model, target: build(model, target))
        monkeypatch.setattr(fastest, "take_turns", turns)
        monkeypatch.setattr(
            fastest, "measured", lambda engines, x: {each.label: 1.0 + i for i, each in enumerate(engines)}
        )

    model = network()
    table({(4, 1): 1.0, (2, 1): 0.98, (4, 2): 0.9, (4, 4): 0.8})
    made = optimize(model, "winograd", batch_size=8, precision="auto")
    assert (made.about["threads"], made.about["streams"], made.about["cached"]) == (4, 4, False)
    assert built == [(4, 1), (2, 1), (4, 2), (4, 4)] and made.about["why"].startswith("fastest of 1: winograd ")
    built.clear()
    again = optimize(model, "winograd", batch_size=8, precision="auto")
    assert again.about["streams"] == 4 and again.about["cached"] and built == [(4, 1), (4, 4)]
    built.clear()
    table({(4, 1): 1.0, (2, 1): 0.98})
    assert optimize(model, "winograd", precision="auto").about["threads"] == 4 and built == [(4, 1), (2, 1)]
    table({(4, 1): 1.0, (2, 1): 0.5, (4, 2): 2.0, (4, 4): 2.0})
    assert optimize(model, "winograd", batch_size=7, precision="auto").about["threads"] == 2
    assert optimize(model, "winograd", batch_size=7, precision="auto", threads=4).about["threads"] == 4


def test_threads_are_those_asked_for_and_put_back() -> None:
    def run(x: Tensor) -> Tensor:
        return torch.tensor([[float(torch.get_num_threads())]])

    before = torch.get_num_threads()
    made = Engine("it", run, Target(images(1), "fp32", before + 1), "torch")
    assert made(images(1)).tolist() == [[before + 1]]
    assert torch.get_num_threads() == before and optimize(network(), "fused").about["threads"] == before


def test_a_file_brings_its_size(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "w.safetensors"
    save_weights(model, path, preprocessing=Preprocessing(72))
    made, x = optimize(path, "fused"), images(2, size=72)
    assert close(made(x), model, x)
    assert optimize(path, "fused", size_px=80)(images(1, size=80)).shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "opnvino"}, "unknown engine 'opnvino': did you mean openvino"),
        ({"precision": "fp61"}, "unknown precision 'fp61': did you mean fp16"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number, 1 or more"),
        ({"threads": 1.5}, "threads is 1.5; expected"),
        (
            {"engine": "onnxruntime", "precision": "bf16"},
            "engine onnxruntime does not support bf16; choose eager or",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InceptionNetError, match=message) as caught:
        optimize(network(), **({"engine": "eager"} | options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"needs onnxruntime; install it with: pip install 'inceptionnet\[onnx"):
        optimize(network(), "onnxruntime")


def test_weights_that_are_no_numbers() -> None:
    model = network()
    with torch.no_grad():
        model.head.get_submodule("logits").bias[0] = torch.nan
    with pytest.raises(WeightsError, match=r"expected finite logits, got .*; check its weights"):
        optimize(model, "eager")


class Fakes:
    """Stands in for the engines: the network itself after a nap, or with a fault; counts what is built."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.builders: dict[str, Builder] = {"eager": builders.BUILDERS["eager"]}

    def add(self, name: str, nap_s: float = 0.0, change: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        def build(model: InceptionNet, target: Target) -> Engine:
            self.built.append(name)

            def run(x: Tensor) -> Tensor:
                time.sleep(nap_s)
                return change(model(x))

            return Engine(name, run, target, "torch")

        self.builders[name] = build

    def add_broken(self, name: str, error: Exception) -> None:
        def build(*_: object) -> Engine:
            raise error

        self.builders[name] = build


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Three sound engines of which `quick` is the fastest by far."""
    made = Fakes()
    monkeypatch.setattr(timing, "ROUNDS", 3)
    for module in (builders, choice):
        monkeypatch.setattr(module, "BUILDERS", made.builders)
    slow_eager = made.builders["eager"]

    def eager(*given: object) -> Engine:
        engine = slow_eager(*given)  # type: ignore[arg-type]
        run = engine._run
        engine._run = lambda x: (time.sleep(0.06), run(x))[1]
        return engine

    made.builders["eager"] = eager
    made.add("slow", 0.04)
    made.add("quick")
    return made


def test_auto_on_a_cpu_leaves_out_what_is_for_gpus(fakes: Fakes) -> None:
    fakes.builders |= {"cudnn": builders._cudnn, "tensorrt": builders._tensorrt}
    made = optimize(network(), device="cpu")
    assert made.name == "quick"
    assert made.about["skipped"] == {
        name: f"engine {name}: expected device cuda, got cpu; choose fused, or device cuda"
        for name in ("cudnn", "tensorrt")
    }


def test_auto_takes_the_fastest_and_says_why(fakes: Fakes) -> None:
    model, x = network(), images(3)
    made = optimize(model)
    assert made.name == "quick" and close(made(x), model, x)
    about = made.about
    assert about["why"].startswith("fastest of 3: quick ") and set(about["latency_ms"]) == {"eager", "slow", "quick"}
    assert about["latency_ms"]["eager"] >= 60 and about["latency_ms"]["slow"] >= 40
    assert about["skipped"] == {} and about["cached"] is False and about["difference"] == 0


def test_wrong_numbers_and_failures_are_skipped_with_the_reason(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.add("off", change=lambda y: y + 2e-4 * y.abs().max())
    fakes.add("nearly", 0.04, change=lambda y: y + 5e-5 * y.abs().max())
    fakes.add("nan", change=lambda y: y * torch.nan)
    fakes.add("cut", change=lambda y: y[:, :-1])
    fakes.add("raises", change=lambda y: 1 / 0)
    fakes.add_broken("broken", RuntimeError("no compiler\n  in sight"))
    fakes.builders["onnxruntime"] = builders._onnxruntime
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made = optimize(network())
    assert made.name == "quick" and "nearly" in made.about["latency_ms"]
    skipped = made.about["skipped"]
    assert set(skipped) == {"off", "nan", "cut", "raises", "broken", "onnxruntime"}
    assert (
        "expected logits within 0.0001 of the network's, relative to the largest, got a difference of 2.0e-04"
        in skipped["off"]
    )
    assert "difference of nan" in skipped["nan"] and "shape (1, 7), got (1, 6)" in skipped["cut"]
    assert "fails here (ZeroDivisionError: division by zero)" in skipped["raises"]
    assert "cannot run here (RuntimeError: no compiler in sight)" in skipped["broken"]
    assert "pip install 'inceptionnet[onnx]'" in skipped["onnxruntime"]
    with pytest.raises(ConfigurationError, match="engine off: expected logits within"):
        optimize(network(), "off")


def test_another_best_class_is_other_numbers_but_not_where_two_are_equal() -> None:
    softmax = Outputs("softmax", 3)
    expected = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.5, 1.0]])
    swapped = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.5, 1.0]])
    with pytest.raises(ConfigurationError, match=r"difference of 5.0e-01 and another predicted class; choose"):
        candidates._difference("x", swapped, expected, 0.4, softmax)
    tie = torch.tensor([[1.0, 0.99, 0.0]])
    assert candidates._difference("x", torch.tensor([[0.99, 1.0, 0.0]]), tie, 0.03, softmax) == pytest.approx(
        0.01, rel=1e-4
    )
    lead = torch.tensor([[1.0, 0.96, 0.0]])
    with pytest.raises(ConfigurationError, match="and another predicted class"):
        candidates._difference("x", torch.tensor([[0.975, 0.985, 0.0]]), lead, 0.03, softmax)


def test_the_choice_is_remembered_but_not_for_other_conditions(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "measured", lambda engines, x: {"eager": 3.0, "slow": 2.0, "quick": 1.0})
    model = network()
    optimize(model)
    assert fakes.built == ["slow", "quick"]
    made = optimize(model)
    assert fakes.built == ["slow", "quick", "quick"] and made.name == "quick" and made.about["cached"]
    assert made.about["why"].startswith("fastest of 3: quick ")
    with torch.no_grad():
        model.head.get_submodule("logits").bias += 1
    assert optimize(model).about["cached"], "speed does not depend on weights"
    conditions = [
        {"batch_size": 2}, {"size_px": 65}, {"precision": "bf16"}, {"remeasure": True},
    ]  # fmt: skip
    for options in conditions:
        assert not optimize(model, **options).about["cached"], options  # type: ignore[arg-type]
    assert not optimize(network(width=0.25)).about["cached"]
    key = next(iter(json.loads(cache_file().read_text())["choices"].values()))["key"]
    assert key["network"]["name"] == "inception_v1.slim" and key["threads"] == [torch.get_num_threads(), False]
    assert key["versions"]["torch"] == version_of("torch")


def test_an_engine_that_went_wrong_since_is_measured_again(fakes: Fakes, caplog: pytest.LogCaptureFixture) -> None:
    optimize(network())
    fakes.add("quick", change=lambda y: -y)
    with caplog.at_level(logging.WARNING, "inceptionnet"):
        made = optimize(network())
    assert made.name == "slow" and "quick" in made.about["skipped"]
    assert "cached engine quick: expected logits within" in caplog.text


@pytest.fixture
def lower(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """`quick` in bf16 and int8 too, each faster than the precision above and further from the network's numbers."""
    monkeypatch.setattr(fastest, "cpu_says", lambda key: "fma avx512_bf16" if key == "flags" else "")
    monkeypatch.setattr(
        fastest, "LACKS", {"bf16": ("eager", "slow"), "int8": ("eager", "slow"), "fp16": ("eager", "slow", "quick")}
    )
    changes = {"fp32": (0.02, 0.0), "bf16": (0.01, 0.01), "int8": (0.0, 2.0)}

    def build(model: InceptionNet, target: Target) -> Engine:
        nap_s, off = changes[target.precision]
        fakes.built.append(f"quick {target.precision}")

        def run(x: Tensor) -> Tensor:
            time.sleep(nap_s)
            y = model(x)
            return y + off * y.abs().max() * torch.eye(y.shape[1])[0]

        return Engine("quick", run, target, "torch")

    fakes.builders["quick"] = build
    return fakes


def test_precision_auto_without_images_is_bf16_at_most(lower: Fakes) -> None:
    made = optimize(network(), precision="auto")
    assert (made.name, made.precision, made.label) == ("quick", "bf16", "quick bf16")
    about = made.about
    assert about["skipped"]["int8"] == "no images are given to calibrate int8 on"
    assert set(about["latency_ms"]) == {"eager", "slow", "quick", "quick bf16"} and "quick int8" not in lower.built
    assert about["why"].startswith("fastest of 4: quick bf16 ") and about["precision"] == "bf16"
    assert about["why"].endswith("; logits in bf16 differ by 1.0% of the largest, on noise")


def test_precision_auto_without_bf16_in_the_processor_is_fp32(lower: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "cpu_says", lambda key: "fma avx2")
    made = optimize(network(), precision="auto")
    assert made.label == "quick" and "quick bf16" not in lower.built
    assert made.about["skipped"]["bf16"] == "this processor has no instructions for bf16"


def test_precision_auto_with_images_is_the_fastest_that_agrees(lower: Fakes) -> None:
    """Here int8 predicts another class for all of them, and bf16 for none."""
    model, x = network(), images(48)
    made = optimize(model, precision="auto", calibrate=x, agreement=0.9)
    assert (made.label, made.about["compared_on"]) == ("quick bf16", 32) and made.about["agreement"] == 1
    assert made.about["why"].startswith("fastest of 5: quick int8 ")
    assert (
        "; the faster ones do not agree; bf16 predicts the class of fp32 for 100.0% of 32 images" in made.about["why"]
    )
    refused = made.about["skipped"]["quick int8"]
    assert "engine quick: expected a top-1 agreement of at least 90.0% in int8, got 0.0% on 32 images; " in refused
    lower.built.clear()
    again = optimize(model, precision="auto", calibrate=x, agreement=0.9)
    assert again.label == "quick bf16" and again.about["cached"] and lower.built == ["quick int8", "quick bf16"]
    anything = optimize(model, precision="auto", calibrate=x, agreement=0)
    assert anything.label == "quick int8" and anything.about["calibrated_on"] == 16
    one = optimize(model, "slow", precision="auto", calibrate=x)
    assert one.label == "slow" and set(one.about["latency_ms"]) == {"slow"}


@pytest.mark.parametrize("agreement", [-0.1, 1.5])
def test_agreement_is_a_share(agreement: float) -> None:
    with pytest.raises(ConfigurationError, match=r"agreement is .*; expected a share from 0 to 1, such as 0.99"):
        optimize(network(), "eager", agreement=agreement)


def test_predict_in_the_precision_that_is_chosen(command, lower: Fakes, run: Path, colours: Path) -> None:
    code, out, _ = command("predict", run, colours / "red", "--json", "--precision", "auto")
    told = json.loads(out)
    assert code == 0 and (told["engine"], told["precision"]) == ("quick", "bf16")


CHOICE = Choice("a", {"a": 1.5, "b": 2.0}, {"c": "is not installed"})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"choices": 3}', '{"choices": {}}', "\x00\xff", '{"choices": {"KEY": {"choice": 1}}}',
             '{"choices": {"KEY": {"choice": {"engine": "a", "latency_ms": {}, "skipped": {}}}}}'],
)  # fmt: skip
def test_a_damaged_cache_is_no_error(text: str, caplog: pytest.LogCaptureFixture) -> None:
    key = {"network": "x"}
    remember(key, CHOICE)
    assert recall(key) == CHOICE and CHOICE.why == "fastest of 2: a 1.5 ms, b 2 ms"
    assert Choice("a", {"a": 1042.36}, {}).why == "fastest of 1: a 1040 ms"
    entry = next(iter(json.loads(cache_file().read_text())["choices"]))
    cache_file().write_bytes(text.replace("KEY", entry).encode("latin-1"))
    assert recall(key) is None
    assert len(caplog.messages) == (text != '{"choices": {}}')
    assert all(
        "is damaged" in line and "measuring the engines again" in line and "\n" not in line for line in caplog.messages
    )
    remember(key, CHOICE)
    assert recall(key) == CHOICE


def test_a_cache_that_cannot_be_written_is_one_line(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "inceptionnet"):
        assert optimize(network()).name == "quick"
    assert len(caplog.messages) == 1 and "engines.json: cannot be written (" in caplog.text


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("INCEPTIONNET_CACHE", "own")
    assert cache_file() == Path("own/engines.json")
    monkeypatch.delenv("INCEPTIONNET_CACHE")
    assert cache_file() == tmp_path / "inceptionnet" / "engines.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_file() == tmp_path / "home" / ".cache" / "inceptionnet" / "engines.json"


class Clockwork:
    """Engines whose calls take set times on a clock of their own; each logs its calls."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[str]()

    def engine(self, name: str, times: Iterator[float]) -> Engine:
        def run(x: Tensor) -> Tensor:
            self.now += next(times)
            self.calls.append(name)
            return x

        return Engine(name, run, Target(images(1, size=1), "fp32", 1), "torch")


def always(value: float) -> Iterator[float]:
    while True:
        yield value


def test_measuring_by_hand() -> None:
    """First calls of a turn do not count; one takes 1, 2, 3 … ms, whose median is 10.5; a hiccup does no harm."""
    clock = Clockwork()
    growing = iter([value for i in range(1, 21) for value in (0.1, i / 1000)])
    engines = [
        clock.engine("slow", always(0.0031)),
        clock.engine("even", chain([0.002, 0.9], always(0.002))),
        clock.engine("rising", growing),
    ]
    times = measured(engines, images(1, size=1), lambda: clock.now)
    assert times == {"slow": 3.1, "even": 2.0, "rising": 10.5}
    assert clock.calls[:8] == ["slow", "slow", "even", "even", "rising", "rising", "even", "even"]
    assert clock.calls.count("slow") == 2 and clock.calls.count("even") == 40


def test_the_time_goes_to_those_that_might_be_the_fastest() -> None:
    clock = Clockwork()
    takes = {"half as fast": 0.02, "nearly as fast": 0.012, "fastest": 0.01}
    engines = [clock.engine(name, always(seconds)) for name, seconds in takes.items()]
    assert measured(engines, images(1, size=1), lambda: clock.now) == {name: 1000 * s for name, s in takes.items()}
    assert [clock.calls.count(name) for name in takes] == [2 * timing.LEAST_ROUNDS, 40, 40]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.01, 20), (0.6, 5), (2.0, 3), (11.0, 1)])
def test_measuring_ends_in_time(seconds: float, rounds: int) -> None:
    clock = Clockwork()
    measured([clock.engine("one", always(seconds))], images(1, size=1), lambda: clock.now)
    assert clock.calls.count("one") == 2 * rounds


def test_predict_by_an_engine(command, run: Path, colours: Path) -> None:
    _, plain, _ = command("predict", run, colours / "red", "--json")
    code, out, _ = command("predict", run, colours / "red", "--json", "--engine", "fused", "--batch-size", 5)
    assert code == 0
    one, two = json.loads(plain), json.loads(out)
    assert (one["engine"], one["precision"], two["engine"]) == ("eager", "fp32", "fused")
    for row, other in zip(one["predictions"], two["predictions"], strict=True):
        assert [one["class"] for one in row["top"]] == [one["class"] for one in other["top"]]
        for one, same in zip(row["top"], other["top"], strict=True):
            assert one["probability"] == pytest.approx(same["probability"], abs=1e-4)


def test_evaluate_by_an_engine(
    command, fakes: Fakes, run: Path, colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one that auto finds is given all the images, every crop of them."""
    arguments = ("evaluate", run, colours, "--json", "--workers", 0, "--crops", 10)
    _, plain, _ = command(*arguments)
    with caplog.at_level(logging.INFO, "inceptionnet"):
        code, out, _ = command(*arguments, "--engine", "auto")
    one, other = json.loads(plain), json.loads(out)
    assert code == 0 and "engine quick: fastest of 3: quick" in caplog.text
    assert one["engines"] == [{"engine": "eager", "precision": "fp32", "device": "cpu"}]
    assert [(each["engine"], each["precision"]) for each in other["engines"]] == [("quick", "fp32")]
    assert other["engines"][0]["batch_size"] <= 32 and other["top1"] == one["top1"]
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)


def test_an_engine_that_nobody_knows(command, run: Path, colours: Path) -> None:
    for arguments in (("predict", run, colours), ("evaluate", run, colours)):
        code, out, err = command(*arguments, "--engine", "tensorflow")
        assert (code, out, err.count("\n")) == (
            2,
            "",
            1,
        ) and "'tensorflow' is not one of 'eager', 'channels_last', " in err


@pytest.mark.slow
@pytest.mark.skipif(version_of("openvino") is None, reason="openvino is not installed")
def test_engines_that_go_in_any_order_leave_signal_handlers_alone() -> None:
    """Two OpenVINO cores would leave a stack for them that is gone; SIGCHLD comes when a reading process ends."""
    program = (
        "import faulthandler, signal, subprocess, torch; from inceptionnet.engines.openvino import *; "
        "faulthandler.enable(); x = torch.zeros(2, 3, 8, 8); layer = torch.nn.Conv2d(3, 2, 3).eval(); "
        "first, second = (openvino_core().compile_model(to_openvino(layer, x), 'CPU') for _ in range(2)); "
        "del first; del second; signal.signal(signal.SIGCHLD, lambda *_: print('ended')); subprocess.run('true')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
