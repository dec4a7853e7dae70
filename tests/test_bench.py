"""Benchmarks of engines: what is counted, against clocks and numbers of the test's own."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from inceptionnet import create_model
from inceptionnet.engines import builders
from inceptionnet.engines.bench import Measurement, Skipped, arithmetic_peak, bench
from inceptionnet.engines.runtimes import Engine, Target
from inceptionnet.engines.timing import REST_S, take_turns
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.network import InceptionNet


def waiting(seconds: float):
    """A builder of an engine that takes this long."""

    def build(model: InceptionNet, target: Target) -> Engine:
        def run(x: Tensor) -> Tensor:
            time.sleep(seconds)
            return torch.zeros(len(x), 7)

        return Engine("slow" if seconds > 0.01 else "quick", run, target, "torch")

    return build


def broken(model: InceptionNet, target: Target) -> Engine:
    raise ConfigurationError("engine broken cannot run here: for a reason; choose another")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> InceptionNet:
    monkeypatch.setattr(builders, "BUILDERS", {"quick": waiting(0.004), "slow": waiting(0.02), "broken": broken})
    return create_model("inception_v1.slim", num_classes=7, width=0.125, input_size=64).eval()


def test_figures_of_engines_of_known_speed(model: InceptionNet) -> None:
    with FlopCounterMode(display=False) as flops, torch.inference_mode():
        model(torch.zeros(3, 3, 64, 64))
    engines = [(name, "fp32") for name in ("quick", "slow", "broken")]
    rows = bench("net", model, engines, batch_size=3, peaks={"fp32": 1e12}, threads=1, rounds=5)
    assert [(row.engine, row.precision) for row in rows] == engines
    quick, slow, refused = rows
    assert isinstance(quick, Measurement) and isinstance(slow, Measurement) and isinstance(refused, Skipped)
    assert 4 <= quick.latency_ms <= quick.p95_ms and 20 <= slow.latency_ms <= slow.p95_ms
    for row in (quick, slow):
        assert row.images_per_s == pytest.approx(3 / row.latency_ms * 1000)
        assert row.share_of_peak == pytest.approx(flops.get_total_flops() / (row.latency_ms / 1000) / 1e12)
        assert row.load_time_s >= row.latency_ms / 2000 and row.memory_mb >= 0
    assert "for a reason" in refused.reason


def test_engines_take_turns(model: InceptionNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls each, after a rest in which the threads of the one before stop looking for work."""
    order, rests = list[str](), list[tuple[int, float]]()
    monkeypatch.setattr(time, "sleep", lambda seconds: rests.append((len(order), seconds)))

    def noted(name: str) -> Engine:
        def run(x: Tensor) -> Tensor:
            order.append(name)
            return x.flatten(1)

        return Engine(name, run, Target(torch.zeros(1, 3, 4, 4), "fp32", 1), "torch")

    times = take_turns([noted("a"), noted("b")], torch.zeros(1, 3, 4, 4), 3)
    assert order == ["a", "a", "b", "b"] * 3 and [len(found) for found in times] == [3, 3]
    assert rests == [(calls, REST_S) for calls in range(0, 12, 2)]


def test_the_peak_is_of_this_machine() -> None:
    before = torch.get_num_threads()
    for precision in ("fp32", "int8"):
        assert 1e9 < arithmetic_peak(torch.device("cpu"), precision, before + 1) < 1e13
    assert torch.get_num_threads() == before


def test_the_peak_of_a_slow_processor_takes_no_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of 2·side³ operations at 1 GFLOP/s: 34 ms for a side of 256, 268 ms for 512, and none beyond it."""
    sides = list[int]()

    def timed(run: object, x: Tensor) -> float:
        sides.append(len(x))
        return 2 * len(x) ** 3 / 1e9 * 1000

    monkeypatch.setattr("inceptionnet.engines.bench.timed", timed)
    assert arithmetic_peak(torch.device("cpu"), "bf16", 1) == pytest.approx(1e9)
    assert sorted(set(sides)) == [256, 512]


@pytest.mark.slow
def test_a_table_a_plot_and_json(command, run: Path, tmp_path: Path) -> None:
    plot = tmp_path / "speed.png"
    given = ("--engines", "eager,fused", "--batch", "1,2", "--rounds", 2)
    code, out, err = command("bench", run, *given, "--plot", plot)
    assert code == 0 and "images/s" in out and "GFLOP/s" in out, err
    with Image.open(plot) as drawn:
        assert drawn.size[0] > 800
    code, out, _ = command("bench", run, *given, "--json", "--precision", "bf16")
    found = json.loads(out)
    assert code == 0 and found["peak_gflops"]["bf16"] > 0 and {row["precision"] for row in found["rows"]} == {"bf16"}
    assert [(row["engine"], row["batch_size"]) for row in found["rows"]] == [
        ("eager", 1), ("fused", 1), ("eager", 2), ("fused", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inception_v9",), "inception_v9"),
        (("inception_v3", "--engines", "eagre"), "unknown engine 'eagre': did you mean eager?"),
        (("inception_v3", "--batch", "1,x"), "--batch 1,x: expected comma-separated whole numbers"),
        (("inception_v3", "--batch", ""), "--batch : expected comma-separated whole numbers"),
        (("inception_v3", "--batch", "1", "16"), "16: expected a network name or a weights file; separate"),
        (("inception_v3", "--precision", "fp8"), "unknown precision 'fp8': did you mean fp32 or fp16?"),
        (("inception_v3", "--plot", "speed.txt"), "--plot speed.txt: expected a .png file"),
        (("inception_v3", "--device", "abacus"), "--device abacus"),
    ],
)
def test_what_cannot_be_measured(command, arguments: tuple, message: str) -> None:
    code, _, err = command("bench", *arguments)
    assert code == 2 and message in err and err.count("\n") == 1
