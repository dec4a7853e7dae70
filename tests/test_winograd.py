"""The engine winograd: its transforms exactly, each kernel alone against float64, whole networks, and its compiler."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from weakref import ref

import pytest
import torch
from torch import Tensor, nn

from inceptionnet import create_model
from inceptionnet.engines.cache import cache_file
from inceptionnet.engines.fusion import ChannelBias, fused
from inceptionnet.engines.winograd import compiling
from inceptionnet.engines.winograd import convolution as sizes
from inceptionnet.engines.winograd.compiling import NATIVE, library
from inceptionnet.engines.winograd.engine import Prepared, Winograd
from inceptionnet.engines.winograd.library import TILES, Library
from inceptionnet.engines.winograd.memory import Weights
from inceptionnet.engines.winograd.plan import WINOGRAD, Plan
from inceptionnet.engines.winograd.transforms import POINTS, points, transform
from inceptionnet.engines.winograd.transforms import filters as g_of
from inceptionnet.errors import ConfigurationError
from inceptionnet.model.modules import Concatenation, ResidualBlock, SameMaxPool, SamePad
from inceptionnet.nets import NETWORKS

QUICKLY = ("-O0",)
"""Options for tests of the compiling alone."""
PROCESSORS = {"native": NATIVE, "avx2": ("-mavx2", "-mfma"), "oldest": ()}
"""Options of the compiler; every x86-64 processor runs the last."""


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INCEPTIONNET_CACHE", str(tmp_path_factory.mktemp("kernels")))
        try:
            library()
        except ConfigurationError as error:
            pytest.skip(str(error))


@pytest.fixture(params=PROCESSORS)
def kernels(request: pytest.FixtureRequest) -> Library:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    if request.param == "avx2" and not ("avx2" in flags and "fma" in flags):
        pytest.skip("this processor has no AVX2")
    return library(PROCESSORS[request.param])


def run(module: nn.Module, x: Tensor, kernels: Library, threads: int = 1) -> tuple[Tensor, Plan]:
    """What the kernels make of a module, with memory full of NaN, so that a read of what nobody wrote is seen."""
    plan = Plan(module, x.shape, threads, kernels, Weights(kernels))
    prepared = Prepared(plan, kernels)
    for memory in (prepared.arena, prepared.scratch):
        memory.fill_(torch.nan)
    return prepared(x).clone(), plan


def close(got: Tensor, module: nn.Module, x: Tensor, tolerance: float = 1e-5) -> bool:
    expected = module.double()(x.double())
    assert got.shape == expected.shape
    return bool((got - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize(("m", "r"), sorted((size - r + 1, r) for size in POINTS for r in (2, 3, 5, 7) if size > r))
def test_transforms_are_exact(m: int, r: int) -> None:
    """In fractions, where there is no rounding: each output is the sum of products that a convolution is."""
    made, number = transform(m, r), random.Random(0)
    d = [Fraction(number.randint(-99, 99), 7) for _ in range(points(m, r))]
    g = [Fraction(number.randint(-99, 99), 5) for _ in range(r)]
    values = [sum(b * x for b, x in zip(row, d, strict=True)) for row in made.bt]
    filters = [sum(b * x for b, x in zip(row, g, strict=True)) for row in made.g]
    found = [sum(a * u * v for a, u, v in zip(row, filters, values, strict=True)) for row in made.at]
    assert found == [sum(d[i + k] * g[k] for k in range(r)) for i in range(m)]


def test_filters_by_hand() -> None:
    """F(3, 2) at 0, 1, -1 and infinity, but for powers of two."""
    made, rows = transform(3, 2), (g_of(3, 2) @ torch.tensor([3.0, 5.0], dtype=torch.float64)).tolist()
    scales = [max(abs(value) for value in row) for row in made.bt]
    assert [value * float(scale) for value, scale in zip(rows, scales, strict=True)] == [-3, 4, -1, 5]
    assert made.at == ((1, 1, 1, 0), (0, 1, -1, 0), (0, 1, 1, 1))


KERNELS = [(kernel, tile) for kernel, tiles in TILES.items() for tile in tiles]


@pytest.mark.parametrize(("kernel", "tile"), KERNELS, ids=lambda value: "x".join(map(str, value)))
def test_each_transformed_convolution_alone(
    kernel: tuple[int, int, int], tile: tuple[int, int], kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes and channels, several images, all paddings that the family has, with and without ReLU."""
    monkeypatch.setattr(sizes.Convolution, "tile", lambda self: tile if self.kernel == kernel[:2] else None)
    torch.manual_seed(0)
    for images, size, channels, filters, padded in ((1, (17, 13), 16, 32, True), (3, (9, 12), 21, 37, False)):
        around = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        conv = nn.Conv2d(channels, filters, kernel[:2], kernel[2], around)
        x = torch.relu(torch.randn(images, channels, *size))
        for module in (conv, nn.Sequential(conv, nn.ReLU())):
            got, plan = run(module, x, kernels)
            assert [layer.fields["kind"] for layer in plan.layers] == [WINOGRAD]
            assert close(got, module, x)
            module.float()


@pytest.mark.parametrize(
    ("filters", "kernel", "stride", "padding"),
    [
        (33, 1, 1, 0),
        (16, 3, 1, 1),
        (7, (1, 7), 1, (0, 3)),
        (40, 3, 2, 0),
        (24, 7, 2, 3),
        (64, (3, 1), 1, (1, 0)),
        (5, 2, 1, 0),
    ],
)
def test_each_direct_convolution_alone(
    filters: int, kernel: int, stride: int, padding: int, kernels: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "TILES", {})
    torch.manual_seed(0)
    for images, channels, size in ((1, 3, (19, 23)), (2, 20, (15, 15)), (5, 1, (7, 9))):
        module = nn.Sequential(nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU())
        x = torch.randn(images, channels, *size)
        got, _ = run(module, x, kernels)
        assert close(got, module, x)


def test_padding_as_tensorflow_has_it(kernels: Library) -> None:
    for size in ((14, 15), (17, 16)):
        module = nn.Sequential(
            SamePad((3, 3), 2), nn.Conv2d(20, 24, 3, 2), nn.ReLU(), SameMaxPool((3, 3), 2), nn.Conv2d(24, 5, 1)
        )
        x = torch.randn(2, 20, *size)
        got, _ = run(module, x, kernels)
        assert close(got, module, x)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 1, 1),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AvgPool2d(5, 3),
        nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.ReLU()), SameMaxPool((3, 3), 1),
    ],
)  # fmt: skip
def test_pools(pool: nn.Module, kernels: Library) -> None:
    """Values below zero, which padding must not win against."""
    for size in ((9, 12), (14, 8)):
        x = torch.randn(2, 19, *size) - 3
        got, plan = run(pool, x, kernels)
        assert close(got, pool, x) and plan.layers[0].module is None


@pytest.mark.parametrize("size", [5, 4, 1])
def test_local_response_norm(size: int, kernels: Library) -> None:
    norm = nn.LocalResponseNorm(size, alpha=0.3, k=2)
    x = torch.randn(2, 37, 5, 6) * 3
    got, plan = run(norm, x, kernels)
    assert close(got, norm, x) and plan.layers[0].module is None


def test_a_bias_after_a_pool(kernels: Library) -> None:
    module = nn.Sequential(
        nn.Conv2d(8, 20, 1, bias=False), nn.AvgPool2d(3, 1, 1), ChannelBias(torch.randn(20)), nn.ReLU()
    )
    x = torch.randn(2, 8, 9, 7)
    got, plan = run(module, x, kernels)
    assert close(got, module, x) and len(plan.layers) == 2


def test_branches_residuals_and_what_only_torch_has(kernels: Library) -> None:
    torch.manual_seed(0)
    inner = Concatenation({"a": nn.Conv2d(20, 7, 1), "b": nn.Conv2d(20, 9, (1, 3), padding=(0, 1))})
    branches = Concatenation(
        {
            "nothing": nn.Sequential(),
            "nested": nn.Sequential(nn.Conv2d(20, 20, 1), nn.ReLU(), inner),
            "pool": nn.MaxPool2d(3, 1, 1),
            "norm": nn.LocalResponseNorm(5, beta=0.5),
            "groups": nn.Sequential(nn.Conv2d(20, 20, 3, padding=1, groups=20), nn.ReLU()),
        }
    )
    block = ResidualBlock(branches, nn.Conv2d(96, 20, 1), 1.0, relu=True)
    linear = ResidualBlock(nn.Conv2d(20, 24, 3, padding=1), nn.Conv2d(24, 20, 1), 1.0, relu=False)
    unscaled = ResidualBlock(nn.Conv2d(20, 24, 1), nn.Conv2d(24, 20, 1), 0.5, relu=False)
    module = nn.Sequential(block, linear, unscaled, nn.GELU())
    x = torch.randn(2, 20, 9, 11)
    got, plan = run(module, x, kernels)
    assert close(got, module, x)
    assert sum(layer.module is not None for layer in plan.layers) == 5


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name: str) -> None:
    """Narrow, of an odd size, two images and then one; with statistics as after training."""
    torch.manual_seed(0)
    smallest = create_model(name, width=0.25, num_classes=7).minimum_size
    size = max(smallest + 10, 75) // 2 * 2 + 1
    model = create_model(name, width=0.25, num_classes=7, input_size=size)
    with torch.no_grad():
        for _ in range(2):
            model(torch.rand(4, 3, size, size) * 2 - 1)
    model.eval()
    made = fused(model)
    engine = Winograd(made.body, made.head, threads=2)
    for count in (2, 1):
        x = torch.rand(count, 3, size, size) * 2 - 1
        got = engine(x)
        with torch.no_grad():
            expected = model.double()(x.double())
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
        model.float()


def test_buffers_in_use_at_the_same_time_do_not_overlap() -> None:
    model = fused(create_model("inception_resnet_v2", width=0.125, input_size=79).eval())
    plan = Plan(model.body, (2, 3, 79, 79), 1, library(), Weights(library()))
    for one, other in combinations(plan.buffers, 2):
        if one.first <= other.last and other.first <= one.last:
            first, second = sorted((one, other), key=lambda buffer: buffer.start)
            assert first.start + first.size(2) <= second.start
    assert plan.size < sum(buffer.size(2) for buffer in plan.buffers) / 5


def test_weights_are_shared_by_plans_and_go_with_the_last(kernels: Library) -> None:
    conv, weights = nn.Conv2d(16, 32, 1), Weights(kernels)
    first, second = (Plan(conv, (images, 16, 8, 8), 1, kernels, weights) for images in (1, 2))
    assert first.layers[0].weight is second.layers[0].weight
    kept = ref(first.layers[0].weight)
    del first
    assert kept() is not None
    del second
    assert kept() is None


def test_threads_share_the_work_and_give_the_same_bits(kernels: Library) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 40, 3, 2),
        nn.ReLU(),
        nn.Conv2d(40, 96, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 70, 1),
    )
    for images in (1, 6):
        x = torch.randn(images, 3, 43, 43)
        one, _ = run(module, x, kernels)
        for threads in (2, 3, 8):
            got, plan = run(module, x, kernels, threads)
            tasks = [layer.fields["chunks"] * layer.fields["groups"] for layer in plan.layers]
            assert torch.equal(got, one) and min(tasks) >= min(threads, 5)


def test_torch_and_the_kernels_have_the_same_threads() -> None:
    """Two copies of OpenMP would have two sets of threads that fight over the cores."""
    program = (
        "import torch; from inceptionnet.engines.winograd.compiling import library; handle = library().handle; "
        "torch.set_num_threads(3); print(handle.threads_of_openmp())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    library.cache_clear()
    for compiler, message in (
        ("no-such-compiler", r"expected a C\+\+ compiler, got none \(no-such-compiler is not found\); install"),
        ("false", "false cannot be run|false cannot compile its kernels"),
    ):
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(ConfigurationError, match=message) as caught:
            library()
        assert "\n" not in str(caught.value)
    library.cache_clear()


def test_a_folder_from_which_nothing_may_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))

    def refuse(path: str) -> None:
        raise OSError(f"{path}: failed to map segment from shared object")

    library.cache_clear()
    monkeypatch.setattr(compiling.ctypes, "CDLL", refuse)
    with pytest.raises(ConfigurationError, match="failed to map segment from shared object; set TMPDIR to a folder"):
        library(QUICKLY)
    library.cache_clear()


def test_a_damaged_library_is_compiled_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    calls = list[list[str]]()
    original = compiling._said

    def said(command: list[str], **how: bool) -> str:
        calls.extend([command] * ("-o" in command))
        return original(command, **how)

    monkeypatch.setattr(compiling, "_said", said)
    for damage in (None, None, 5000, 0):
        library.cache_clear()
        with caplog.at_level(logging.WARNING, "inceptionnet"):
            assert library(QUICKLY).lanes >= 4
        (file,) = tmp_path.glob("kernels-*.so")
        if damage is not None:
            values = bytearray(file.read_bytes())
            values[damage] ^= 1
            file.write_bytes(values)
    library.cache_clear()
    assert library(QUICKLY).rows and len(calls) == 3
    assert len([line for line in caplog.messages if "is damaged; compiling it again" in line]) == 2
    library.cache_clear()


def test_a_change_of_any_source_is_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    kept = compiling._sources()
    assert {"kernels.cpp", "steps.h", "transforms.h"} < kept.keys()
    monkeypatch.setattr(compiling, "_said", lambda command: Path(command[-1]).touch() if "-o" in command else "")
    monkeypatch.setattr(compiling.ctypes, "CDLL", lambda: None)  # nothing is compiled, so that nothing can be loaded
    for changed in kept:
        monkeypatch.setattr(compiling, "_sources", lambda changed=changed: {**kept, changed: kept[changed] + "\n"})
        library.cache_clear()
        with pytest.raises(TypeError):
            library(QUICKLY)
    library.cache_clear()
    assert len(list(tmp_path.glob("kernels-*.so"))) == len(kept)


def test_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "file"))
    library.cache_clear()
    with caplog.at_level(logging.WARNING, "inceptionnet"):
        assert library(QUICKLY).lanes
    assert [line for line in caplog.messages if "cannot be written (" in line]
    library.cache_clear()


def test_the_cache_is_where_the_engines_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path))
    library.cache_clear()
    library(QUICKLY)
    assert [file.parent for file in tmp_path.glob("kernels-*.so")] == [cache_file().parent]
    library.cache_clear()
