"""Workers of the part `inference` of benchmarks/gpu.py: networks of this package and of timm with the same weights.

`plain` measures all sides that are not prepared for a batch size, interleaved, and prints one row per side. `compiled
NETWORK PRECISION BATCH SIDE` prepares one side for a batch size, compiled or captured, and measures one batch for each
line that it reads. The logits are first compared with those of the CPU in fp32.

The input is on the GPU: float32 and contiguous for this package, in timm's precision and channels last for timm. A time
is that of one batch, synchronised with the GPU before and after.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from gpu_results import Row, ratios, speed
from gpu_workers import Answering, Cell, Side, asked_for, failure, work
from safetensors.torch import save_file
from torch import Tensor, nn

from inceptionnet import create_model, load_model
from inceptionnet.engines import timing
from inceptionnet.engines.bench import arithmetic_peak
from inceptionnet.engines.builders import build_engine
from inceptionnet.engines.candidates import TOLERANCE
from inceptionnet.engines.runtimes import DTYPES, Target
from inceptionnet.engines.timing import AnyRun, finish, noise, take_turns, timed
from inceptionnet.nets.analysis import analyse, multiply_adds
from inceptionnet.system.settings import exact

TIMMS = {"inception_v3.torchvision": "inception_v3", "inception_v4.slim": "inception_v4",
         "inception_resnet_v2.slim": "inception_resnet_v2"}  # fmt: skip
"""Our network's name → timm's."""
PLAIN = ("channels_last", "fused", "eager")
TF32, FP32 = "timm, channels last, TF32 (as it comes)", "timm, channels last, true fp32"
ROUNDS, LEAST, ENOUGH_S = 20, 3, 4.0
"""Maximum and minimum number of rounds; after LEAST rounds, none starts later than ENOUGH_S."""
INPUTS = 4
"""Number of different batches to cycle through, for batch sizes up to 32."""
THREADS = 2
"""CPU threads of a process that compiles."""
FEW = 4
"""Number of images whose logits are compared."""
SIDES = {"ours": "ours, compile", "cudnn": "ours, cudnn", "tensorrt": "ours, tensorrt",
         "timm": "timm, compiled (reduce-overhead)", "tuned": "timm, compiled (max-autotune)"}  # fmt: skip
ENGINES = {"ours": "compile", "cudnn": "cudnn", "tensorrt": "tensorrt"}
MODES = {"timm": "reduce-overhead", "tuned": "max-autotune"}


class Pair:
    """A network of this package and, if timm is installed, timm's with the same weights; on the CPU."""

    def __init__(self, name: str, tiny: bool) -> None:
        torch.manual_seed(0)
        size = 75 if tiny else None
        self.theirs: nn.Module | None = None
        if importlib.util.find_spec("timm") is None:
            # Narrow, since many processors compute bf16 a hundred times slower than fp32.
            self.ours = create_model(name, input_size=size, width=0.25 if tiny else 1.0)
            self.size = self.ours.network.input_size
            randomise(self.ours)
        else:
            import timm

            self.theirs = timm.create_model(TIMMS[name], pretrained=False)
            self.size = size or 299
            randomise(self.theirs)
            with tempfile.TemporaryDirectory() as folder:
                save_file(self.theirs.state_dict(), file := Path(folder) / "timm.safetensors")
                self.ours = load_model(file, name=name, input_size=self.size)
        self.ours.eval().requires_grad_(False)
        self.work = 2 * multiply_adds(analyse(self.ours.network))
        with torch.inference_mode():
            self.expected = self.ours(images(FEW, self.size))

    def difference(self, run: AnyRun, batch: int, device: str) -> float:
        """Largest difference from the CPU's logits in fp32, relative to the largest absolute logit."""
        x = images(FEW, self.size)
        x = torch.cat([x] * -(-batch // FEW))[:batch].to(device)
        got = run(x)[:FEW].float().cpu()
        return float((got - self.expected[: len(got)]).abs().max() / self.expected[: len(got)].abs().max())


def randomise(model: nn.Module) -> None:
    """Random weights for inference whose logits differ between images; those of the initial weights hardly do."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, 0.0, 0.1)
    model.eval().requires_grad_(False)


def images(count: int, size: int) -> Tensor:
    """Coarse colour patches with noise, always the same. Shapes: → (count, 3, size, size) in [-1, 1]."""
    patches = nn.functional.interpolate(noise(count, 3, 5), size=(size, size), mode="bilinear")
    return 0.8 * patches + 0.2 * noise(count, 3, size)


def of_timm(module: nn.Module, precision: str, device: str, mode: str | None = None) -> AnyRun:
    """timm's network with channels last, compiled if `mode` is given."""
    dtype = DTYPES[precision]
    module = copy.deepcopy(module).to(device, dtype).to(memory_format=torch.channels_last)
    if mode:
        frozen: dict[str, Any] = {"options": {"freezing": True}} if device == "cpu" else {"mode": mode}
        module = torch.compile(module, dynamic=False, **frozen)
    context = (
        torch.no_grad if mode else torch.inference_mode
    )  # a tensor created in inference mode would trigger another compilation

    def run(x: Tensor) -> Tensor:
        with context():
            logits: Tensor = module(x.to(dtype, memory_format=torch.channels_last))
        return logits

    return run


def of_ours(name: str, pair: Pair, batch: int, precision: str, device: str) -> AnyRun:
    model = copy.deepcopy(pair.ours).to(device)
    return build_engine(name, model, Target(noise(batch, 3, pair.size).to(device), precision, torch.get_num_threads()))


def without_tf32(run: AnyRun, device: str) -> AnyRun:
    """`run` without TF32, as this package's engines run in fp32."""

    def truly(x: Tensor) -> Tensor:
        with exact(torch.device(device)):
            answer: Tensor = run(x)
        return answer

    return truly


def plain_runs(pair: Pair, precision: str, device: str) -> dict[str, Callable[[], AnyRun]]:
    """Builders of the sides that are not compiled, by name."""
    made: dict[str, Callable[[], AnyRun]] = {
        f"ours, {engine}": lambda engine=engine: of_ours(engine, pair, 1, precision, device) for engine in PLAIN
    }
    theirs = pair.theirs
    if theirs is not None and precision == "fp32":
        made[TF32] = lambda: of_timm(theirs, precision, device)
        made[FP32] = lambda: without_tf32(of_timm(theirs, precision, device), device)
    elif theirs is not None:
        made["timm, channels last"] = lambda: of_timm(theirs, precision, device)
    return made


def batches(pair: Pair, batch: int, precision: str, device: str) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """The input of each turn, for this package and for timm (in its precision and memory format), cycled."""
    generator = torch.Generator().manual_seed(batch)
    count = INPUTS if batch <= 32 else 1
    some = [(torch.rand(batch, 3, pair.size, pair.size, generator=generator) * 2 - 1).to(device) for _ in range(count)]
    theirs = [x.to(DTYPES[precision], memory_format=torch.channels_last) for x in some]
    return cycle(some), cycle(theirs)


def in_turns(runs: dict[str, AnyRun], pair: Pair, batch: int, precision: str, given: argparse.Namespace) -> Row:
    """Times in ms of each side, per round."""
    ours, theirs = batches(pair, batch, precision, given.device)
    given_to = {by: ours if by.startswith("ours") else theirs for by in runs}
    turns = [lambda _, run=run, some=given_to[by]: run(next(some)) for by, run in runs.items()]
    x, times, began = torch.empty(0, device=given.device), [[] for _ in turns], time.monotonic()
    for count in range(2 if given.tiny else ROUNDS):
        if count >= LEAST and time.monotonic() - began > ENOUGH_S:
            break
        for own, taken in zip(times, take_turns(turns, x, 1), strict=True):
            own += taken
    return dict(zip(runs, times, strict=True))


def ceilings(device: str, tiny: bool) -> Row:
    """Peak rates of the device: products of large random matrices, and copies within its memory."""
    at = torch.device(device)
    peaks = {precision: arithmetic_peak(at, precision, torch.get_num_threads()) for precision in ("bf16", "fp32")}
    source = torch.randint(127, (2**24 if tiny else 2**30,), dtype=torch.uint8, device=at)
    target = torch.empty_like(source)
    ms = min(timed(target.copy_, source) for _ in range(5))
    note = ", ".join(f"{precision} matrix product {peak / 1e12:.1f} TFLOP/s" for precision, peak in peaks.items())
    copied = 2 * len(source) / ms * 1000
    return {"note": f"{note}, copy {copied / 1e12:.2f} TB/s read and written", "peak": peaks["bf16"], "copied": copied}


def plain(given: argparse.Namespace, answering: Answering) -> None:
    said = ceilings(given.device, given.tiny)
    answering.say(said)
    networks, sizes = of(given.tiny)
    pairs = {name: Pair(name, given.tiny) for name in networks}
    for precision in ("bf16", "fp32"):
        for name, pair in pairs.items():
            runs, differences = dict[str, AnyRun](), dict[str, float]()
            for by, make in plain_runs(pair, precision, given.device).items():
                try:
                    run = make()
                    differences[by] = pair.difference(run, 2, given.device)
                    runs[by] = run
                except Exception as error:
                    answering.say({"name": f"{name}, {precision}: {by}", **failure(error)})
            for batch in sizes:
                columns = {"network": name, "precision": precision, "batch": batch}
                try:
                    times = in_turns(runs, pair, batch, precision, given)
                except Exception as error:
                    answering.say({"name": f"{name}, {precision}, batch {batch}", **failure(error)})
                    continue
                best = min((by for by in runs if by.startswith("timm") and by != TF32), default=None)
                for by, taken in times.items():
                    row = {"name": named(name, precision, batch, by), **columns, "by": by}
                    row |= figures({"work": pair.work, "difference": differences[by]}, taken, batch, said["peak"])
                    answering.say(
                        checked(ratios(row, taken, times[best]) if best not in (None, by) else row, precision, by)
                    )
                if given.device == "cuda":
                    torch.cuda.empty_cache()


def figures(about: Row, times: list[float], batch: int, peak: float) -> Row:
    """Table columns of one side, from its description and its times."""
    found = speed(times, batch)
    share = about["work"] * batch / (found["ms"] / 1000) / peak
    found |= {"of the bf16 peak": f"{share:.1%}", "difference": f"{about['difference']:.1e}"}
    layers = ", ".join(f"{way} {number}" for way, number in about.get("layers", {}).items())
    return found | {"layers": layers} if layers else found


def checked(row: Row, precision: str, by: str) -> Row:
    """The row, with an error if the logits differ by more than the tolerance; TF32 has that of bf16."""
    limit = TOLERANCE["bf16" if by == TF32 else precision]
    off = row["difference"]
    return (
        row if float(off) <= limit else row | {"error": f"logits differ by {off} of the largest, tolerance {limit:g}"}
    )


def compiled(given: argparse.Namespace) -> tuple[Row, Callable[[], float]]:
    _, name, precision, batch, side = given.what
    torch.set_num_threads(THREADS)
    count, pair = int(batch), Pair(name, given.tiny)
    began = time.monotonic()
    if side in ENGINES:
        run = of_ours(ENGINES[side], pair, count, precision, given.device)
    else:
        if pair.theirs is None:
            raise ModuleNotFoundError("timm is not installed")
        run = of_timm(pair.theirs, precision, given.device, MODES[side])
    difference = pair.difference(run, count, given.device)
    seconds = time.monotonic() - began
    ours, theirs = batches(pair, count, precision, given.device)
    some, x = ours if side in ENGINES else theirs, torch.empty(0, device=given.device)

    def turn() -> float:
        return take_turns([lambda _: run(next(some))], x, 1)[0][0]

    turn()
    finish(x.device)
    about = {"work": pair.work, "difference": difference, "seconds": round(seconds, 1)}
    return about | {"layers": run.about["layers"]} if side == "cudnn" else about, turn


def of(tiny: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Networks and batch sizes, the most informative first."""
    return (tuple(TIMMS)[:1], (2, 1)) if tiny else (tuple(TIMMS), (32, 256, 1))


def planned(tiny: bool, timm: bool) -> list[str]:
    """Names of the rows that `plain` prints."""
    networks, sizes = of(tiny)
    theirs = {"bf16": ["timm, channels last"], "fp32": [TF32, FP32]}
    return [
        named(name, precision, batch, by)
        for precision in ("bf16", "fp32")
        for name in networks
        for batch in sizes
        for by in (*(f"ours, {engine}" for engine in PLAIN), *(theirs[precision] if timm else ()))
    ]


def cells(tiny: bool, timm: bool, options: Sequence[str]) -> list[Cell]:
    """What is compiled, the most informative first: bf16, then fp16, fp32 and timm's slowest mode of compilation."""
    networks, sizes = of(tiny)
    ours = ["ours", "cudnn", "tensorrt"] if "cuda" in options else ["ours"]
    if importlib.util.find_spec("tensorrt") is None:
        ours = [side for side in ours if side != "tensorrt"]
    every = [("bf16", name, batch) for batch in sizes for name in networks]
    every += [] if tiny else [("fp16", name, sizes[0]) for name in networks]
    every += [] if tiny else [("fp32", name, batch) for batch in sizes for name in networks]
    plans = [(*one, [*ours, "timm"] if timm else ours) for one in every]
    plans += [("bf16", name, sizes[0], ["tuned"]) for name in networks] if timm else []
    return [
        Cell(
            {"network": name, "precision": precision, "batch": batch},
            batch,
            [
                Side(
                    named(name, precision, batch, SIDES[side]),
                    SIDES[side],
                    ["gpu_inference.py", "compiled", name, precision, str(batch), side, *options],
                )
                for side in sides
            ],
        )
        for precision, name, batch, sides in plans
    ]


def named(network: str, precision: str, batch: int, by: str) -> str:
    return f"{network}, {precision}, batch {batch}: {by}"


def main() -> None:
    given = asked_for(__doc__, "NETWORK PRECISION BATCH SIDE")
    if given.device == "cuda":
        timing.REST_S = 0.005  # the pause is for the threads of CPU runtimes
    work(given, plain, compiled)


if __name__ == "__main__":
    main()
