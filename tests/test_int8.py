"""Networks in 8 bits: scales by hand, what files hold, how much of a trained network is kept, and what is refused."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from PIL import Image
from torch import Tensor, nn

from inceptionnet import create_model, load_model, optimize, read_record, save_weights
from inceptionnet.engines import int8
from inceptionnet.engines.agreement import agreement
from inceptionnet.engines.export import export
from inceptionnet.engines.int8 import quantised_onnx, quantised_openvino, split_calibration, weight_bits
from inceptionnet.engines.kinds import read_metadata
from inceptionnet.engines.onnx import to_onnx
from inceptionnet.engines.openvino import import_openvino, openvino_core, to_openvino
from inceptionnet.errors import ConfigurationError, MissingExtraError
from inceptionnet.model.outputs import Outputs

from .test_export import in_production, there

openvino = import_openvino()
Command = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("converted_once")
BY = {"onnxruntime": ".onnx", "openvino": ".xml"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path_factory.mktemp("cache")))


class Layer(nn.Module):
    """One convolution, 3 channels to 2, of which the second has weights ten times the first's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3)
        with torch.no_grad():
            self.conv.weight[1] *= 10
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def ranged() -> Tensor:
    """Images of which one reaches down to -0.8 and another one up to 0.9, so that neither alone says the range."""
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5
    x[2, 0, 0, 0], x[4, 1, 2, 3] = -0.8, 0.9
    return x


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 64)])
def test_scales_of_onnx_by_hand(bits: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "weight_bits", lambda: bits)
    plain, layer = to_onnx(Layer(), ranged()[:2], metadata={"a": "b"}), Layer()
    before = plain.SerializeToString()
    made = quantised_onnx(plain, ranged())
    assert plain.SerializeToString() == before
    held = {one.name: to_array(one) for one in made.graph.initializer}
    (scale,) = (value for name, value in held.items() if name.startswith("images") and name.endswith("scale"))
    assert scale == pytest.approx((0.9 + 0.8) / 255, rel=1e-6)
    (weight,) = (value for value in held.values() if value.dtype == np.int8 and value.ndim == 4)
    (scales,) = (value for name, value in held.items() if "weight" in name and name.endswith("scale"))
    largest = layer.conv.weight.abs().amax((1, 2, 3)).numpy()
    assert scales == pytest.approx(largest / (127 if bits == 8 else 63.5), rel=0.01)
    assert np.abs(weight).max() in (most - 1, most)
    assert {entry.key: entry.value for entry in made.metadata_props} == {"a": "b"}


@pytest.mark.parametrize("bits", [8, 7])
def test_ranges_of_openvino_by_hand(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_here = bits <= weight_bits()
    monkeypatch.setattr(int8, "weight_bits", lambda: bits)
    made, layer = quantised_openvino(to_openvino(Layer(), ranged()[:2]), ranged()), Layer()
    (of_images,) = (op for op in made.get_ordered_ops() if op.get_type_name() == "FakeQuantize")
    low, high = (float(of_images.input_value(i).get_node().data.item()) for i in (1, 2))
    # One step is moved so that 0 is met exactly.
    assert (low, high) == (pytest.approx(-0.8, abs=1.7 / 255), pytest.approx(0.9, abs=1.7 / 255))
    (weight,) = (op.data for op in made.get_ordered_ops() if op.get_element_type() == openvino.Type.i8)
    assert np.abs(weight.astype(int)).max() in ((127, 128) if bits == 8 else (63, 64))
    if not runs_here:
        return  # sums of two such products overflow on this processor, which is why it gets 7 bits
    want = layer(ranged()).numpy()
    compiled = openvino_core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert compiled(ranged().numpy())[0] == pytest.approx(
        want, abs=(0.02 if bits == 8 else 0.04) * float(np.abs(want).max())
    )


@pytest.mark.parametrize(
    ("machine", "flags", "bits"),
    [
        ("x86_64", "fma avx2", 7), ("x86_64", "avx512f avx512_vnni", 8), ("AMD64", "", 7), ("aarch64", "", 8),
        ("arm64", "", 8), ("x86_64", "avx2 avx_vnni", 8),
    ],
)  # fmt: skip
def test_where_eight_bits_could_overflow(machine: str, flags: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8.platform, "machine", lambda: machine)
    monkeypatch.setattr(int8, "cpu_says", lambda key: {"flags": flags}[key])
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert weight_bits() == bits
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")  # which OpenVINO obeys too; it means nothing to ARM
    assert weight_bits() == (7 if machine in ("x86_64", "AMD64") else 8)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    assert weight_bits() == bits


def test_images_are_dealt(caplog: pytest.LogCaptureFixture) -> None:
    assert split_calibration([0, 1, 2, 3, 4, 5, 6]) == ([0, 3, 6], [1, 2, 4, 5])
    assert "calibrating on only 3 images" in caplog.text
    assert split_calibration([7]) == ([7], [7])
    caplog.clear()
    calibrating, others = split_calibration(range(384))
    assert (len(calibrating), len(others)) == (int8.CALIBRATED, int8.COMPARED) and not caplog.text


def test_what_is_kept_by_hand() -> None:
    want = torch.tensor([[1.0, 0.0], [0.0, 3.0]])  # about the mean (0.5, 1.5): 0.25 + 2.25 twice, 5 in all
    got = want + torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    found = agreement(want, got, outputs=Outputs(logits=want.shape[1]), batch_sizes=())
    assert found.explained_variance == pytest.approx(1 - 4 / 5) and found.top1_agreement == found.share == 0.5
    features = agreement(want, got, outputs=Outputs(), batch_sizes=())
    assert features.top1_agreement is None and features.share == pytest.approx(0.2)
    assert agreement(want, want * torch.nan, outputs=Outputs(), batch_sizes=()).share == 0
    assert agreement(want, -want, outputs=Outputs(), batch_sizes=()).share == 0, "never less than nothing"


@pytest.mark.usefixtures("openvino_in_8_bits")
@pytest.mark.slow
@pytest.mark.parametrize(("engine", "ending"), BY.items())
def test_a_trained_network_in_8_bits(
    engine: str,
    ending: str,
    run: Path,
    colours: Path,
    tmp_path: Path,
    command: Command,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a file that its runtime runs, from pixels on, and by `predict` and `evaluate`: the same classes."""
    file, of_fp32 = tmp_path / f"colours{ending}", tmp_path / f"fp32{ending}"
    code, out, err = command(
        "export", run, file, "--precision", "int8", "--calibrate", colours, "--with-preprocessing", "--json"
    )
    about = json.loads(out)
    assert code == 0 and "calibrating on only 12 images" in caplog.text, err
    assert about["compared_on"] == f"24 of 36 images of {colours}" and about["min_agreement"] == 0.95
    assert about["difference"]["top1_agreement"] == 1 and 1e-4 < about["difference"]["logits"] < 0.4
    assert about["metadata"]["precision"] == read_metadata(file)["precision"] == "int8"
    assert read_metadata(file)["quantisation"] == {"images": 12, "weight_bits": weight_bits()}
    export(run / "weights.safetensors", of_fp32)
    sizes = [
        sum(len(held) for name, held in there(tmp_path).items() if name.startswith(stem)) for stem in ("col", "fp")
    ]
    assert sizes[0] < 0.9 * sizes[1], "a small network, of which the graph is the greater part"
    assert read_metadata(of_fp32)["precision"] == "fp32" and "quantisation" not in read_metadata(of_fp32)

    images = sorted(colours.rglob("*.png"))[::5]
    _, out, _ = command("predict", run, *images, "--json")
    expected = [row["top"][0]["class"] for row in json.loads(out)["predictions"]]
    assert [name for name, _ in in_production(file, images)] == expected
    given = ("--engine", engine, "--precision", "int8", "--calibrate", colours, "--json")
    code, out, _ = command("predict", run, *images, *given)
    found = json.loads(out)
    assert code == 0 and [row["top"][0]["class"] for row in found["predictions"]] == expected
    assert (found["engine"], found["precision"]) == (engine, "int8")
    code, out, _ = command("evaluate", run, colours, *given)
    (used,) = json.loads(out)["engines"]
    assert code == 0 and json.loads(out)["top1"] == 1
    assert (used["agreement"], used["calibrated_on"], used["compared_on"]) == (1, 12, 24)


@pytest.mark.usefixtures("openvino_in_8_bits")
@pytest.mark.slow
def test_a_file_for_a_fixed_number_of_images(run: Path, colours: Path, tmp_path: Path) -> None:
    for ending in BY.values():
        done = export(
            run / "weights.safetensors", tmp_path / f"a{ending}",
            precision="int8", calibrate=[str(colours)], check=[str(colours / "red")], batch_size=5,
        )  # fmt: skip
        assert done.written and done.agreement.batch_sizes == (5,) and done.agreement.top1_agreement == 1
        assert str(done.images) == f"12 of 12 images of {colours / 'red'}"


@pytest.mark.slow
def test_optimize_in_8_bits(run: Path, colours: Path) -> None:
    """By whichever is the faster; from a file with paths, and from a network with a tensor."""
    file = run / "weights.safetensors"
    made = optimize(file, precision="int8", calibrate=colours, batch_size=2)
    assert made.name in BY and set(made.about["latency_ms"]) == {f"{name} int8" for name in BY}
    assert "engine fused does not support int8; choose onnxruntime or openvino" in made.about["skipped"]["fused int8"]
    assert made.about["agreement"] == 1 and made.about["calibrated_on"] == 12 and made.about["compared_on"] == 24
    again = optimize(file, precision="int8", calibrate=[str(colours)], batch_size=2)
    assert again.about["cached"] and again.name == made.name
    model, size = load_model(file).eval(), read_record(file).preprocessing.size_px
    x = torch.rand(9, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    by_tensor = optimize(model, "onnxruntime", precision="int8", calibrate=x, size_px=size, agreement=0)
    with torch.no_grad():
        assert agreement(model(x), by_tensor(x), outputs=model.outputs, batch_sizes=()).explained_variance > 0.9
    assert by_tensor.about["calibrated_on"] == 3


def spoiling(folder: Path) -> Path:
    """Images next to black, whose ranges fit no others."""
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(folder / f"{i}.png")
    return folder


@pytest.mark.usefixtures("openvino_in_8_bits")
@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_a_spoilt_network_is_refused(
    ending: str, run: Path, colours: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark, file = spoiling(tmp_path / "dark"), tmp_path / "there" / f"a{ending}"
    file.parent.mkdir()
    given = ("export", run, file, "--precision", "int8", "--calibrate", dark, "--check", colours)
    code, out, err = command(*given)
    assert code == 1 and "not written" in out and there(file.parent) == {}
    said = err.splitlines()[-1]
    assert (
        said.startswith(f"error: {file}: not written: the network: expected a top-1 agreement of at least 95.0%")
        and "in int8, got " in said
    )
    assert command(*given, "--min-agreement", 0)[0] == 0 and file.exists()


@pytest.mark.slow
def test_features_that_are_spoilt_and_kept(run: Path, colours: Path, tmp_path: Path, command: Command) -> None:
    source = tmp_path / "features.safetensors"
    record = read_record(run / "weights.safetensors")
    save_weights(load_model(run / "weights.safetensors", num_classes=0), source, preprocessing=record.preprocessing)
    given = ("export", source, tmp_path / "a.onnx", "--precision", "int8", "--check", colours, "--calibrate")
    code, out, err = command(*given, colours)
    assert code == 0 and "features" in out and "of the features" in out, err
    code, _, err = command(*given, spoiling(tmp_path / "dark"))
    assert code == 1 and "explained variance of the features" in err


@pytest.mark.slow
def test_a_named_engine_that_spoils_the_network(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers are turned round, so that no class stays; `auto` then has nothing left."""
    made = quantised_onnx

    def turned(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
        (weight,) = (one for one in model.graph.initializer if one.name.endswith("logits.weight"))
        weight.CopyFrom(onnx.numpy_helper.from_array(-to_array(weight), weight.name))
        return made(model, images)

    monkeypatch.setattr("inceptionnet.engines.builders.quantised_onnx", turned)
    monkeypatch.setitem(sys.modules, "nncf", None)
    x = torch.rand(60, 3, 32, 32) * 2 - 1
    model = load_model(run / "weights.safetensors")
    with pytest.raises(
        ConfigurationError,
        match=r"engine onnxruntime: expected a top-1 agreement of at least .* in int8, got .*% on 40",
    ):
        optimize(model, "onnxruntime", precision="int8", calibrate=x, size_px=32)
    with pytest.raises(
        ConfigurationError, match=r"no engine can run .* in int8 on this machine: .*inceptionnet\[openvino\].*"
    ) as said:
        optimize(model, precision="int8", calibrate=x, size_px=32)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: --calibrate: expected images for precision int8, got none; give 100"),
        (("--precision", "bf16"), "'bf16' is not one of 'fp32', 'int8'"),
        (("--calibrate", "empty"), "empty: expected images ("),
        (("--calibrate", "nowhere"), "nowhere: expected"),
        (("--calibrate", "empty", "--precision", "int4"), "'int4' is not one of 'fp32', 'int8'"),
        (("--calibrate", "empty", "--precision", "fp32"), "--calibrate: expected precision int8 or auto for cal"),
        (("--calibrate", "empty", "--plain"), "error: --plain: int8 needs batch norm folded; omit it"),
        (("--calibrate", "empty", "a.pt2"), "expected .onnx or .xml for int8, got a torch.export file"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported(
    arguments: tuple[str, ...], message: str, run: Path, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (*_, file) = [name for name in ("a.onnx", *arguments) if name.startswith("a.")]
    options = ("--precision", "int8", *(name for name in arguments if name != file))
    code, out, err = command("export", run, file, *options)
    assert code == 2 and not out and message in err.splitlines()[-1] and err.count("error:") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "^calibrate: expected images for precision int8, got none; give 100 or more"),
        (
            {"calibrate": torch.zeros(3, 3, 64, 64)},
            "expected precision int8 or auto for calibration images, got fp32",
        ),
        (
            {"precision": "int8", "calibrate": torch.zeros(3, 3, 32, 32)},
            r"shape \(N, 3, 64, 64\).*got \(3, 3, 32",
        ),
        ({"precision": "int8", "calibrate": torch.zeros(0, 3, 64, 64)}, "expected float images"),
        ({"precision": "int8", "calibrate": "folder"}, "expected a tensor of images for a network"),
        (
            {"precision": "int8", "calibrate": torch.zeros(3, 3, 64, 64), "engine": "compile"},
            "compile does not support",
        ),
    ],
)
def test_what_cannot_be_optimized(options: dict[str, object], message: str) -> None:
    model = create_model("inception_v1.slim", width=0.125, input_size=64, num_classes=7)
    with pytest.raises(ConfigurationError, match=message) as caught:
        optimize(model, **options)  # type: ignore[arg-type]  # of any type, as people give them
    assert "\n" not in str(caught.value)


def test_predict_and_evaluate_say_what_int8_needs(run: Path, colours: Path, command: Command) -> None:
    for words in (("predict", run, colours / "red"), ("evaluate", run, colours)):
        code, _, err = command(*words, "--precision", "int8", "--engine", "openvino")
        assert code == 2 and "--calibrate: expected images for precision int8" in err and err.count("\n") == 1
        code, _, err = command(*words, "--precision", "int8", "--calibrate", colours)
        assert code == 2 and "engine eager does not support int8; choose onnxruntime or openvino" in err


@pytest.mark.slow
def test_bench_in_8_bits(run: Path, command: Command) -> None:
    code, out, err = command(
        "bench", run, "--precision", "fp32,int8", "--engines", "fused,openvino", "--batch", 1, "--rounds", 2, "--json"
    )
    rows = json.loads(out)["rows"]
    assert code == 0, err
    assert [(row["engine"], row["precision"]) for row in rows] == [
        ("fused", "fp32"), ("openvino", "fp32"), ("openvino", "int8"), ("fused", "int8"),
    ]  # fmt: skip
    assert "does not support int8" in rows[-1]["reason"]


def test_missing_packages(run: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"needs nncf; install it with: pip install 'inceptionnet\[openvino\]'"):
        export(run / "weights.safetensors", tmp_path / "a.xml", precision="int8", calibrate=[str(colours)])
    with pytest.raises(MissingExtraError, match=r"needs nncf; install it with: pip install 'inceptionnet\[openvino\]'"):
        quantised_openvino(to_openvino(Layer(), ranged()[:2]), ranged())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_quantising_says_nothing_and_reports_to_nobody(tmp_path: Path) -> None:
    """In a process of its own: nothing printed, nothing in the home folder, no other logger's class changed."""
    program = (
        "import logging, sys, torch; from torch import nn; from inceptionnet.engines.int8 import *; "
        "from inceptionnet.engines.onnx import to_onnx; from inceptionnet.engines.openvino import to_openvino; "
        "x = torch.rand(3, 3, 8, 8); layer = nn.Conv2d(3, 2, 3).eval(); "
        "quantised_openvino(to_openvino(layer, x), x); quantised_onnx(to_onnx(layer, x), x); "
        "assert 'openvino_telemetry' not in sys.modules and type(logging.getLogger('another')) is logging.Logger"
    )
    home = {**os.environ, **dict.fromkeys(("HOME", "LOCALAPPDATA", "TMPDIR"), str(tmp_path))}
    home["PATH"] = str(Path(sys.executable).parent)  # torch speaks of a CUDA compiler that it finds in the others
    for variable in ("CI", "ORT_DISABLE_TELEMETRY"):
        home.pop(variable, None)
    done = subprocess.run([sys.executable, "-c", program], env=home, capture_output=True, text=True, check=False)
    # What torch says of /usr/local/cuda on a machine without a GPU is not of quantising.
    said = [line for line in done.stderr.splitlines() if "No CUDA runtime is found" not in line]
    assert (done.returncode, done.stdout, said) == (0, "", [])
    assert list(tmp_path.iterdir()) == []
    assert {logging.getLogger(name).level for name in ("nncf",)} <= {logging.INFO, logging.NOTSET}
