"""On a CUDA device: the CPU's numbers, bf16, fp16, memory order, graphs, checkpoints, torchrun over NCCL.

    pytest -m cuda tests

Skipped without such a device; INCEPTIONNET_TEST_DEVICE=cpu runs the same bodies on the CPU, to see that they run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inceptionnet import create_model, load, load_model, optimize
from inceptionnet.data import Preprocessing, open_source
from inceptionnet.data.loading import EvalLoader
from inceptionnet.engines import builders, cuda, timing
from inceptionnet.engines.bench import Measurement, bench
from inceptionnet.engines.candidates import TOLERANCE
from inceptionnet.engines.timing import noise
from inceptionnet.errors import Interrupted
from inceptionnet.evaluate.evaluation import evaluate
from inceptionnet.model.network import InceptionNet
from inceptionnet.system.devices import pick_device
from inceptionnet.system.extras import version_of
from inceptionnet.train.loop import resume, train
from inceptionnet.train.resolve import resolve
from inceptionnet.train.run import Run
from inceptionnet.train.step import Stepper, StepResult

from .conftest import DEVICE, steps_of, tiny_plan
from .test_gpu_engines import stand_in
from .test_reference import images, randomise
from .test_step import SGD, V1, batch

pytestmark = pytest.mark.cuda

OF_TORCH = ("eager", "channels_last", "fused")


@pytest.fixture
def device() -> torch.device:
    return torch.device(DEVICE)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "cache"))


def network(name: str = "inception_v3", size: int = 79) -> InceptionNet:
    """With weights and statistics that tell images apart."""
    model = create_model(name, width=0.25, input_size=size, num_classes=7)
    randomise(model, seed=0)
    return model.eval()


def off(got: Tensor, model: InceptionNet, x: Tensor) -> float:
    """Largest difference to the CPU's logits in float64, as a share of the largest logit."""
    with torch.no_grad():
        expected = model.double()(x.double().cpu())
    model.float()
    return float((got.double().cpu() - expected).abs().max() / expected.abs().max())


def stepper(data: Path, device: torch.device, settings: dict[str, Any], **changes: Any) -> Stepper:
    """A training of the colours before its first step."""
    job = resolve(tiny_plan(data, settings=SGD | settings, **changes))
    model = job.model()
    if job.recipe.compute.channels_last:
        model.to(memory_format=torch.channels_last)
    return Stepper(model.to(device), job, steps_per_epoch=4)


def gradient(one: Stepper) -> Tensor:
    return torch.cat([p.grad.flatten().cpu() for p in one.model.parameters() if p.grad is not None])


def test_auto_is_the_device(device: torch.device) -> None:
    assert pick_device("auto").type == device.type
    assert pick_device(DEVICE) == device


def test_a_training_is_on_the_device(colours: Path, device: torch.device, tmp_path: Path, monkeypatch: Any) -> None:
    """Network, gradients and optimiser, with batches from worker processes; its weights then load anywhere."""
    seen: set[str] = set()
    plain = Stepper.step

    def step(self: Stepper, *arguments: Any) -> StepResult:
        result = plain(self, *arguments)
        for parameter in self.model.parameters():
            seen.update({parameter.device.type, parameter.grad.device.type})
            seen.update(value.device.type for value in self.optimizer.state[parameter].values() if value.dim())
        return result

    monkeypatch.setattr(Stepper, "step", step)
    train(tiny_plan(colours, device=DEVICE, workers=2), tmp_path / "run")
    assert seen == {device.type}
    assert torch.device(json.loads((tmp_path / "run" / "run.json").read_text())["environment"]["device"]) == device
    assert load_model(tmp_path / "run" / "weights.safetensors").device.type == "cpu"


def test_a_step_is_the_cpus(colours: Path, device: torch.device) -> None:
    """Convolutions in training are torch's own, on CUDA in TF32, which has three digits."""
    found = []
    for at in (torch.device("cpu"), device):
        one = stepper(colours, at, {}, **V1)
        found.append((one.step(batch(65), 0), gradient(one)))
    (cpu, cpu_gradient), (result, its_gradient) = found
    assert (result.images, result.lr, result.skipped) == (cpu.images, cpu.lr, False)
    assert result.loss == pytest.approx(cpu.loss, rel=2e-3)
    assert result.gradient_norm == pytest.approx(cpu.gradient_norm, rel=2e-2)
    assert float(torch.cosine_similarity(its_gradient, cpu_gradient, dim=0)) > 0.99


def test_a_step_in_bf16_is_nearly_that_in_fp32(colours: Path, device: torch.device) -> None:
    """The network computes in bf16, weights, gradients and optimiser stay float32."""
    results, gradients = {}, {}
    for precision in ("fp32", "bf16"):
        one = stepper(colours, device, {"compute.precision": precision, "optimizer.momentum": 0.9}, **V1)
        seen: list[torch.dtype] = []
        one.model.head.register_forward_hook(lambda head, inputs, logits, seen=seen: seen.append(logits.dtype))
        results[precision], gradients[precision] = one.step(batch(65), 0), gradient(one)
        assert seen == [torch.float32 if precision == "fp32" else torch.bfloat16]
        kept = [*one.model.state_dict().values(), *(value["momentum_buffer"] for value in one.optimizer.state.values())]
        assert {tensor.dtype for tensor in kept} <= {torch.float32, torch.int64}
    assert 0 < abs(results["bf16"].loss - results["fp32"].loss) < 0.02
    assert float(torch.cosine_similarity(gradients["bf16"], gradients["fp32"], dim=0)) > 0.95


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_stay_channels_last(colours: Path, device: torch.device, precision: str) -> None:
    """Through every convolution and batch norm, so that none of them copies."""
    one = stepper(colours, device, {"compute.precision": precision}, size=64)
    wrong = []

    def look(module: nn.Module, inputs: Any, y: Tensor) -> None:
        if not y.is_contiguous(memory_format=torch.channels_last):
            wrong.append(module)

    count = 0
    for module in one.model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            count += 1
            module.register_forward_hook(look)
    one.step(batch(64), 0)
    assert count > 50 and wrong == []


def test_stopped_and_resumed_in_bf16(colours: Path, device: torch.device, tmp_path: Path, monkeypatch: Any) -> None:
    """By SIGINT in the second of three epochs. What is restored is what was saved, bit for bit.

    What follows is so on the CPU alone: on CUDA some sums have no fixed order, so that two runs drift apart even if
    nothing happens to them, and the losses are only near.
    """
    settings = {"compute.precision": "bf16", "network.dropout": 0.2, "augment.color": "full", "augment.mixup": 0.4,
                "augment.cutmix": 1, "log.every_steps": 1, "optimizer.lr": 0.002}  # fmt: skip
    plan = tiny_plan(colours, device=DEVICE, model="inception_v1", size=65, width=0.25, settings=settings)
    train(plan, tmp_path / "whole")
    losses = [row["loss"] for row in steps_of(tmp_path / "whole")]
    plain, stop_at = Stepper.step, len(losses) // 2

    def step(self: Stepper, data: Any, number: int) -> StepResult:
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, data, number)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "step", step)
        with pytest.raises(Interrupted, match=f"interrupted in epoch 2 after step {stop_at % 4 + 1}; resume with"):
            train(plan, tmp_path / "run")
    (file,) = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]
    saved, restored = load_file(file), dict[str, Tensor]()

    def first(self: Stepper, data: Any, number: int) -> StepResult:
        if not restored:
            restored.update({f"model.{name}": tensor.cpu().clone() for name, tensor in self.model.state_dict().items()})
            for key, values in self.optimizer.state_dict()["state"].items():
                restored.update({f"optimizer.{key}.{name}": value.cpu().clone() for name, value in values.items()})
        return plain(self, data, number)

    monkeypatch.setattr(Stepper, "step", first)
    resume(tmp_path / "run")
    assert restored.keys() == saved.keys() - {"watch.alive"}
    assert [key for key in restored if not torch.equal(restored[key], saved[key])] == []
    rows = steps_of(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(len(losses)))
    resumed = [row["loss"] for row in rows]
    if device.type == "cpu":
        assert resumed == losses
    assert resumed == pytest.approx(losses, abs=0.1)


@pytest.fixture
def cudnn(device: torch.device, monkeypatch: Any) -> None:
    """Where there is no GPU, the engine `cudnn` runs by torch's own calls; where there is one, it is built quickly."""
    if device.type != "cuda":
        stand_in(monkeypatch)
    monkeypatch.setattr(cuda, "SEARCH_S", 2.0)


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("engine", [*OF_TORCH, "cudnn"])
@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v1"])
def test_engines_have_the_cpus_logits(name: str, engine: str, device: torch.device) -> None:
    """In fp32 without TF32, in bf16 and fp16 to their digits."""
    model, x = network(name), images(79, 79, torch.float32)
    exact = optimize(model, engine, batch_size=2, device=DEVICE)
    assert off(exact(x.to(device)), model, x) < TOLERANCE["fp32"] and exact.about["device"] == str(x.to(device).device)
    for precision, least in (("bf16", 1e-4), ("fp16", 1e-5)):
        low = optimize(model, engine, batch_size=2, device=DEVICE, precision=precision)
        assert least < off(low(x.to(device)), model, x) < TOLERANCE[precision]


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize(
    ("name", "precision"), [("inception_v1.slim", "fp32"), ("inception_v4", "bf16"), ("inception_resnet_v2", "fp16")]
)
def test_cudnns_calls_for_any_number_of_images(name: str, precision: str, device: torch.device) -> None:
    """On CUDA a graph of fixed size, whose memory the next call writes over."""
    model = network(name)
    made = optimize(model, "cudnn", batch_size=4, device=DEVICE, precision=precision)
    images = [noise(count, 3, 79).to(device) for count in (4, 1, 3, 9, 4)]
    answers = [made(x) for x in images]
    for x, answer in zip(images, answers, strict=True):
        assert off(answer, model, x) < TOLERANCE[precision]
    assert made.about["layers"]["cudnn"] > 0 and made(images[0][:0]).shape == (0, 7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cudnns_call_does_not_read_its_output(dtype: torch.dtype, device: torch.device, monkeypatch: Any) -> None:
    """Torch gives it as the summand too, times 0, which would be NaN if memory held NaN before."""
    if device.type != "cuda":
        stand_in(monkeypatch)
    with torch.inference_mode():
        conv = nn.Conv2d(64, 96, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
        layer = cuda.Layer(conv, relu=True)
        x = torch.randn(8, 64, 17, 17).to(device, dtype, memory_format=torch.channels_last)
        expected = conv(x).relu()
        torch.full_like(expected, torch.nan)
        got = layer(x)
    assert layer.way == "cudnn" and float((got - expected).abs().max()) <= cuda.WITHIN * float(expected.abs().max())


@pytest.mark.usefixtures("cudnn")
def test_calls_of_a_graph_from_several_streams(device: torch.device) -> None:
    model = network("inception_v1.slim", 64)
    made = optimize(model, "cudnn", batch_size=4, device=DEVICE)
    inputs, answers = [noise(4, 3, 64).roll(i, 0).to(device) for i in range(4)], dict[int, Tensor]()
    if device.type == "cuda":
        torch.cuda.synchronize()

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else nullcontext():
            for _ in range(20):
                answers[number] = made(inputs[number])
            answers[number] = answers[number].cpu()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(off(answers[i], model, x) < TOLERANCE["fp32"] for i, x in enumerate(inputs))


@pytest.mark.skipif(version_of("tensorrt") is None, reason="tensorrt is not installed")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_tensorrt_has_the_cpus_logits(precision: str, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("TensorRT runs on GPUs")
    model = network("inception_v1.slim", 64)
    made = optimize(model, "tensorrt", batch_size=4, device=DEVICE, precision=precision)
    for count in (4, 1, 3, 9, 4):
        x = noise(count, 3, 64).to(device)
        assert off(made(x), model, x) < TOLERANCE[precision]
    assert made(noise(4, 3, 64).to(device)[:0]).shape == (0, 7)


def test_tf32_is_off_in_engines_alone(device: torch.device) -> None:
    """Torch has it on for convolutions on CUDA; there a float32 has 10 bits of its 23 left."""
    before = torch.backends.cudnn.conv.fp32_precision
    made = optimize(network(), "channels_last", device=DEVICE)
    conv, x = nn.Conv2d(256, 256, 3).requires_grad_(False), noise(8, 256, 28)
    expected = conv.double()(x.double())
    conv, x = conv.float().to(device), x.to(device)

    def difference() -> float:
        return float((conv(x).double().cpu() - expected).abs().max() / expected.abs().max())

    made._run = lambda images: torch.full((1, 1), difference()).to(device)
    assert float(made(noise(1, 3, 79).to(device))) < 1e-5
    assert torch.backends.cudnn.conv.fp32_precision == before
    if device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 0):
        assert difference() > 5e-5


def short_network() -> InceptionNet:
    """The first layers of a network, which compile in seconds."""
    model = network("inception_v1.slim", 64)
    model.body = model.body[:3]
    model.head.logits = nn.Linear(16, 7)
    return model.eval()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_for_any_number_of_images(device: torch.device, precision: str) -> None:
    """On CUDA a graph of fixed size, whose memory the next call writes over."""
    model = short_network()
    made = optimize(model, "compile", batch_size=4, device=DEVICE, precision=precision)
    images = {count: noise(count, 3, 64).to(device) for count in (4, 1, 3, 5, 9, 4)}
    answers = {count: made(x) for count, x in images.items()}
    for count, x in images.items():
        assert answers[count].shape == (count, 7)
        assert off(answers[count], model, x) < TOLERANCE[precision]
    assert made(images[4][:0]).shape == (0, 7)


# dynamo looks at the gradients of tensors that have none; torch wants TF32; graphs of a cache are of another version.
@pytest.mark.filterwarnings("ignore")
def test_compiled_steps_are_the_same(colours: Path, device: torch.device) -> None:
    losses = []
    for compiled in (False, True):
        torch.compiler.reset()
        job = resolve(tiny_plan(colours, settings=SGD | {"compute.compile": compiled, "compute.precision": "bf16"}))
        model = job.model()
        model.body, model.head.logits = model.body[:3], nn.Linear(8, 3)
        nn.init.zeros_(model.head.logits.weight)
        one = Stepper(model.to(device), job, steps_per_epoch=4)
        losses.append([one.step(batch(32, seed=number), number).loss for number in range(3)])
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[0][0] == pytest.approx(np.log(3), abs=0.1)


def test_the_choice_leaves_out_what_is_for_cpus(device: torch.device, monkeypatch: Any) -> None:
    monkeypatch.setattr(timing, "REST_S", 0.0)
    monkeypatch.delitem(builders.BUILDERS, "compile")
    monkeypatch.delitem(builders.BUILDERS, "tensorrt")
    monkeypatch.setattr(cuda, "SEARCH_S", 2.0)
    made = optimize(network(), batch_size=2, device=DEVICE)
    on_gpus = ("cudnn",) if device.type == "cuda" else ()
    assert set(made.about["latency_ms"]) >= {*OF_TORCH, *on_gpus}
    skipped = {name: why for name, why in made.about["skipped"].items() if "expected device c" in why}
    if device.type == "cuda":
        assert set(skipped) == {"winograd", "onnxruntime", "openvino"}
        assert all("expected device cpu, got cuda" in why for why in skipped.values())
    else:
        assert set(skipped) == {"cudnn"}


def test_bench_measures_the_devices_memory(device: torch.device) -> None:
    model = network().to(device)
    (row,) = bench("it", model, [("fused", "bf16")], batch_size=2, peaks={"bf16": 1e12}, threads=1, rounds=3)
    assert isinstance(row, Measurement) and row.latency_ms > 0
    if device.type == "cuda":
        weights_mb = sum(p.numel() for p in model.parameters()) * 2 / 2**20
        assert weights_mb / 2 < row.memory_mb < 2000


def test_answers_of_a_loaded_network_have_the_cpus_digits(colours: Path, run: Path, device: torch.device) -> None:
    """By the default engine too."""
    cpu, other = load(run, device="cpu"), load(run, device=DEVICE)
    red = colours / "red"
    for expected, got in ((cpu.logits(red), other.logits(red)), (cpu.embed(red), other.embed(red))):
        assert float((got - expected).abs().max() / expected.abs().max()) < TOLERANCE["fp32"]


def test_evaluation_is_the_cpus(colours: Path, run: Path, device: torch.device) -> None:
    source = open_source(str(colours), seed=0)
    prep, found = Preprocessing(32), []
    for at in ("cpu", DEVICE):
        model = load_model(run / "weights.safetensors").to(at)
        loader = EvalLoader(source.splits["train"], prep, batch_size=5, workers=1, corrupt_images="fail")
        found.append(evaluate(model, loader, prep, source.classes))
    cpu, other = found
    clear = cpu.confidence > 0.6
    assert clear.sum() > len(clear) // 2
    assert other.predicted[clear].tolist() == cpu.predicted[clear].tolist()
    assert (other.indices.tolist(), other.labels.tolist()) == (cpu.indices.tolist(), cpu.labels.tolist())
    assert other.losses == pytest.approx(cpu.losses, abs=0.02)


NCCL = """
import json, sys
from pathlib import Path
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from inceptionnet import create_model
from inceptionnet.system.distributed import joined_world
from inceptionnet.train import batch_norm, loop
from inceptionnet.train.plan import Plan

plan, out = Plan(**json.loads(sys.argv[1])), Path(sys.argv[2])
with joined_world() as world:
    loop.train(plan, out, world)
    device = torch.device(plan.device)
    x = torch.arange(3.0, device=device)
    dist.all_reduce(x)
    model = create_model("inception_v1.slim", width=0.125, num_classes=3).to(device)
    batch_norm.synchronise(model, device)
    network = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    network(torch.rand(4, 3, 32, 32, device=device)).square().sum().backward()
    norms = [type(norm).__name__ for norm in batch_norm.norms_of(model)]
    about = {"processes": world.size, "sum": x.tolist(), "gathered": world.gather("it"), "total": world.total([2.5]),
             "backends": str(dist.get_backend_config()), "norms": norms,
             "finite": all(bool(p.grad.isfinite().all()) for p in model.parameters())}
    (out / "about.json").write_text(json.dumps(about))
"""


def test_one_process_of_torchrun(colours: Path, device: torch.device, tmp_path: Path) -> None:
    """A training, then by hand what more processes than one would use: NCCL, common batch norm, common gradients."""
    script, plan = tmp_path / "script.py", tiny_plan(colours, device=DEVICE, epochs=1)
    script.write_text(NCCL)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", str(script),
         json.dumps(asdict(plan)), str(tmp_path / "run")],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    assert about["processes"] == 1 and about["sum"] == [0, 1, 2] and about["finite"]
    assert about["gathered"] == ["it"] and about["total"] == [2.5]
    if device.type == "cuda":
        assert "cuda:nccl" in about["backends"] and set(about["norms"]) == {"SyncBatchNorm"}
    assert len(Run(tmp_path / "run").read_metrics()) == 1
