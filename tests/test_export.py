"""Exported files run by their own runtimes, from the file alone, against what torch gives; and what cannot go wrong."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import re
import resource
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import inceptionnet
from inceptionnet import create_model, load_model, read_record, save_weights
from inceptionnet.cli.export import export as command_of_export
from inceptionnet.data import Preprocessing
from inceptionnet.data.augment import as_input
from inceptionnet.engines import export as exporting
from inceptionnet.engines.agreement import BATCHES, MAX_IMAGES, Agreement, Images, compare, random_images
from inceptionnet.engines.export import export
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.graph import FromPixels
from inceptionnet.engines.kinds import KEYS, KINDS, Graph, read_metadata
from inceptionnet.engines.onnx import to_onnx
from inceptionnet.engines.openvino import import_openvino, openvino_core, to_openvino
from inceptionnet.engines.program import to_program
from inceptionnet.engines.sessions import Session
from inceptionnet.errors import ConfigurationError, MissingExtraError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs

openvino = import_openvino()
Command = Callable[..., tuple[int, str, str]]
pytestmark = [
    pytest.mark.usefixtures("converted_once"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable"),  # torch before 2.13 says so of its own
]
GRAPHS = [".onnx", ".xml", ".pt2"]
ODD = ('a "b"', "<c> & d", "é\n日本")


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def exact(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    compiled = openvino_core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)["logits"]


def settled(model: InceptionNet) -> InceptionNet:
    """With batch norm's statistics those of some noise and all biases moved, so that a layer left out is noticed."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    side = model.network.input_size
    with torch.no_grad():
        model.train()(torch.randn(4, 3, side, side, generator=generator))
        for name, tensor in model.state_dict().items():
            if name.endswith("bias"):
                tensor.normal_(0, 0.1, generator=generator)
    return model.eval()


def cut(name: str, size: int, endpoints: str) -> InceptionNet:
    """A narrow network of some of its endpoints, those after which the next one kept still fits, and new logits."""
    torch.manual_seed(0)
    model = create_model(name, width=0.125, num_classes=4, input_size=size)
    for endpoint in model.body._modules.keys() - set(endpoints.split()):
        del model.body._modules[endpoint]
    logits = model.head.get_submodule("logits")
    assert isinstance(logits, nn.Linear)
    if model.network.head.keys() <= {"pool", "dropout", "logits"}:
        channels = model.eval().body(torch.zeros(1, 3, size, size)).shape[1]
        model.head.register_module("logits", nn.Linear(channels, 4))
    return settled(model)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network's weights file."""
    torch.manual_seed(0)
    model = settled(create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    prep = Preprocessing(32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    save_weights(model, path, classes=ODD, preprocessing=prep, provenance={"license": "CC0"})
    return path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion takes no time, and what is written gives other numbers than the network."""

    def other(model: InceptionNet, **options: object) -> nn.Module:
        return Tiny(model.num_classes)

    monkeypatch.setattr(exporting, "fused", other)


class Tiny(nn.Sequential):
    """(N, 3, 32, 32) → (N, classes); with the parts of a network that an export asks for."""

    def __init__(self, classes: int = 3) -> None:
        torch.manual_seed(3)
        head = nn.Sequential(OrderedDict(logits=nn.Linear(3 * 32 * 32, classes)))
        super().__init__(OrderedDict(body=nn.Flatten(), head=head))
        self.eval().requires_grad_(False)


def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file gives is taken for right."""
    monkeypatch.setattr(exporting, "compare", lambda *_, **__: Agreement(1, (1,), 0.0, 0.0, 1.0, 1.0))


def there(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Each has what those before it lack: 5×5 with biases and LRN; separable convolutions and pools as branches; average
# pools and factorised convolutions; residuals with their scale; a linear layer with batch norm. Fixed batches convert
# faster.
NETWORKS = [
    ("inception_v1", 64, "conv_1 pool_1 norm_1 conv_2_reduce conv_2 norm_2 pool_2 inception_3a"),
    ("inception_v2.slim", 64, "conv_1 pool_1 conv_2_reduce conv_2 inception_3a inception_3b inception_3c"),
    ("inception_v3", 79, "conv_1a conv_4a pool_5a mixed_5b mixed_6a mixed_6b"),
    ("inception_resnet_v2.slim", 79, "stem_conv_1 stem_conv_5 mixed_5b residual_a1"),
    ("inception_resnet_v1.facenet", 80, "stem_conv_1 stem_conv_5 stem_conv_6 residual_a1 reduction_a reduction_b"),
]
QUICK = ("inception_v3", "inception_resnet_v2.slim")


@pytest.mark.parametrize(
    ("name", "size", "endpoints"),
    [pytest.param(*one, marks=[] if one[0] in QUICK else pytest.mark.slow, id=one[0]) for one in NETWORKS],
)
def test_every_part_of_the_family_keeps_its_numbers(name: str, size: int, endpoints: str, tmp_path: Path) -> None:
    model = cut(name, size, endpoints)
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    x[1:] *= torch.tensor([0.3, 3]).view(2, 1, 1, 1)  # noise alone, averaged over the image, is always the same
    want = model(x).detach().numpy()
    assert np.ptp(want, 0).min() > 1e-2 * np.abs(want).max(), "images that all give the same would prove nothing"
    module = fused(model, siblings=False, channels_last=False)
    for ending in GRAPHS:
        KINDS[ending].write(Graph(module, x, False, {}), tmp_path / f"a{ending}")
    program = torch.export.load(tmp_path / "a.pt2").module()
    runs = {
        "onnx": lambda x: session(tmp_path / "a.onnx").run(["logits"], {"images": x})[0],
        "openvino": exact(tmp_path / "a.xml"),
        "torch": lambda x: program(torch.from_numpy(x)).detach().numpy(),
    }
    for runtime, run in runs.items():
        assert run(x.numpy()) == pytest.approx(want, abs=1e-5 * float(np.abs(want).max())), runtime


def in_production(file: Path, images: list[Path]) -> list[tuple[str, float]]:
    """The class of each image and its probability, as somebody finds it who has the file and its runtime only."""
    if file.suffix == ".onnx":
        ready = session(file)
        about = {key: json.loads(value) for key, value in ready.get_modelmeta().custom_metadata_map.items()}
        run = lambda x: ready.run(["logits"], {"images": x})[0]  # noqa: E731
    elif file.suffix == ".xml":
        held = openvino_core().read_model(file).get_rt_info(["inceptionnet"]).value
        about, run = {key: json.loads(value) for key, value in held.items()}, exact(file)
    else:
        extra = dict.fromkeys(("classes", "preprocessing", "input"), "")
        program = torch.export.load(file, extra_files=extra).module()
        about = {key: json.loads(value) for key, value in extra.items()}
        run = lambda x: program(torch.from_numpy(x)).detach().numpy()  # noqa: E731
    prep, answers = about["preprocessing"], []
    assert (prep["resize"], prep["interpolation"]) == ("squash", "bilinear")
    for path in images:
        image = Image.open(path).convert("RGB")
        left, top = (int(side * (1 - prep["crop"]) / 2) for side in image.size)
        image = image.crop((left, top, image.width - left, image.height - top))
        x = np.asarray(image.resize((prep["size_px"], prep["size_px"]), Image.Resampling.BILINEAR))[None]
        if about["input"]["type"] == "float32":
            x = (x / np.float32(255) - np.float32(prep["mean"])) / np.float32(prep["std"])
        logits = run(x if about["input"]["layout"] == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))[0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        answers.append((about["classes"][shares.argmax()], float(shares.max())))
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        (".onnx", ["--with-preprocessing"]),
        pytest.param(".xml", ["--with-preprocessing"], marks=pytest.mark.slow),
        pytest.param(".pt2", ["--dynamic-batch"], marks=pytest.mark.slow),
    ],
)
def test_the_file_alone_predicts_what_the_network_predicts(
    ending: str, options: list[str], run: Path, colours: Path, tmp_path: Path, command: Command
) -> None:
    file = tmp_path / f"colours{ending}"
    code, out, _ = command("export", run, file, "--check", colours, *options, "--json")
    about = json.loads(out)
    assert code == 0 and about["written"]
    assert about["compared_on"] == f"36 of 36 images of {colours}"
    assert about["difference"]["images"] == 36 and about["difference"]["batch_sizes"] == list(BATCHES)
    assert about["difference"]["logits"] < 1e-5 and about["difference"]["top1_agreement"] == 1
    images = sorted(colours.rglob("*.png"))[::5]
    _, out, _ = command("predict", run, *images, "--top", 1, "--json")
    expected = [(row["top"][0]["class"], row["top"][0]["probability"]) for row in json.loads(out)["predictions"]]
    assert len({name for name, _ in expected}) == 3
    for (name, share), (want, want_share) in zip(in_production(file, images), expected, strict=True):
        assert (name, share) == (want, pytest.approx(want_share, abs=1e-5))
    assert there(tmp_path).keys() == {file.name, "colours.bin"} if ending == ".xml" else {file.name}
    package = str(Path(inceptionnet.__file__).parent).encode()
    assert not any(package in held for held in there(tmp_path).values()), "where the code lay is nobody's business"


CONSUMER = """
import json, sys
import numpy as np
file, inputs, outputs = sys.argv[1:]
x = np.load(inputs)
said = {}
if file.endswith(".onnx"):
    import onnxruntime
    y = onnxruntime.InferenceSession(file).run(None, {"images": x})[0]
elif file.endswith(".xml"):
    import openvino
    model = openvino.Core().compile_model(file, "CPU")
    y = model(x)[0]
    said["hint"] = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    layers = [layer.get_rt_info() for layer in model.get_runtime_model().get_ops()]
    said["computed"] = sorted({layer["runtimePrecision"].astype(str) for layer in layers
                               if layer["layerType"].astype(str) in ("Convolution", "Pooling", "FullyConnected")})
else:
    import torch
    with torch.no_grad():
        y = torch.export.load(file).module()(torch.from_numpy(x)).numpy()
np.save(outputs, y)
others = ["inceptionnet"] if file.endswith(".pt2") else ["inceptionnet", "torch"]
print(json.dumps(said | {"imported": [name for name in others if name in sys.modules]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "raw"),
    [
        pytest.param(ending, raw, marks=[] if (ending, raw) == (".onnx", False) else pytest.mark.slow)
        for ending in GRAPHS
        for raw in (False, True)
    ],
)
def test_another_process_in_the_runtimes_defaults_gets_the_same_logits(
    ending: str, raw: bool, weights: Path, tmp_path: Path
) -> None:
    """Without this package, and for OpenVINO and ONNX Runtime without torch; no setting is given."""
    file = tmp_path / "new" / "folder" / f"a{ending}"
    assert export(weights, file, with_preprocessing=raw).written
    prep = read_record(weights).preprocessing
    pixels = random_images(prep).pixels
    x = as_input(pixels, prep).contiguous()
    np.save(tmp_path / "x.npy", np.stack(pixels) if raw else x.numpy())
    want = load_model(weights).eval()(x).detach().numpy()
    free = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", CONSUMER, file, tmp_path / "x.npy", tmp_path / "y.npy"],
        capture_output=True, text=True, cwd=tmp_path, env=free | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["imported"] == []
    assert np.abs(np.load(tmp_path / "y.npy") - want).max() < 1e-5 * np.abs(want).max()
    if ending == ".xml":
        assert said["computed"] == ["f32"]
        assert said["hint"] in ("f32", "bf16"), "bf16 is of the processor; the layers do not follow it"


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True])
def test_openvino_reads_that_each_layer_is_to_be_computed_in_float32(raw: bool, weights: Path, tmp_path: Path) -> None:
    """What a processor without bfloat16 can show: OpenVINO itself honours the marks of the layers it reads.

    Its rewrites before compilation keep them, and it compresses no weights of marked layers.
    """
    from openvino._offline_transformations import apply_moc_transformations

    assert export(weights, tmp_path / "a.xml", with_preprocessing=raw).written
    core = openvino_core()
    model = core.read_model(tmp_path / "a.xml")
    inputs = {source.get_node().get_name() for source in model.inputs}
    compiled = core.compile_model(model, "CPU")
    kinds = {layer.get_rt_info()["layerType"].astype(str) for layer in compiled.get_runtime_model().get_ops()}
    assert "Convolution" in kinds and "FullyConnected" not in kinds, "OpenVINO's own layer would lose the mark"
    pools = [layer for layer in model.get_ops() if layer.get_type_name() == "MaxPool"]
    floored = {one.get_type_info().version_id for one in pools if one.get_attributes()["rounding_type"] == "floor"}
    assert floored == {"opset1"}, "others are replaced, and lose the mark"
    for _ in range(2):
        floats = [
            layer for layer in model.get_ops()
            if layer.get_output_size() and layer.get_type_name() != "Constant" and layer.get_name() not in inputs
            and layer.get_output_element_type(0) == openvino.Type.f32
        ]  # fmt: skip
        assert len(floats) > 100
        assert [layer for layer in floats if "DisablePrecisionConversion_0" not in layer.get_rt_info()] == []
        apply_moc_transformations(model, False)


def test_weights_are_written_as_convert_writes_them_without_auxiliary_heads(tmp_path: Path, command: Command) -> None:
    torch.manual_seed(0)
    source, file = tmp_path / "aux.safetensors", tmp_path / "main.safetensors"
    model = create_model("inception_v1", width=0.125, num_classes=3, input_size=80, aux=True)
    save_weights(model, source, classes=ODD, provenance={"data": "insects"})
    code, out, err = command("export", source, file)
    assert code == 0, err
    assert "3 logits" in out and "8 random images, since none were given" in out
    main, record = load_model(file), read_record(file)
    assert not main.aux and record.classes == ODD and record.provenance == {"data": "insects"}
    x = torch.randn(2, 3, 80, 80)
    assert torch.equal(main.eval()(x), model.eval()(x))
    about = read_metadata(file)
    assert about["network"] == "inception_v1" and about["classes"] == list(ODD)


@pytest.mark.parametrize("ending", GRAPHS)
def test_metadata_come_back_letter_by_letter(ending: str, tmp_path: Path) -> None:
    about = {key: {"of": [*ODD, key], "number": 0.1, "none": None} for key in KEYS}
    file = tmp_path / f"a{ending}"
    told = {key: json.dumps(value) for key, value in about.items()}
    KINDS[ending].write(Graph(Tiny(), torch.zeros(2, 3, 32, 32), True, told), file)
    assert KINDS[ending].metadata(file) == about


@pytest.mark.slow
def test_a_network_without_classifier_gives_features_for_a_fixed_batch(
    weights: Path, tmp_path: Path, command: Command
) -> None:
    source, file = tmp_path / "features.safetensors", tmp_path / "features.pt2"
    model = load_model(weights, num_classes=0).eval()
    save_weights(model, source)
    code, out, err = command("export", source, file, "--plain", "--batch-size", 3)
    assert code == 0, err
    assert "features (no classifier)" in out and "float32 (3, 3, 32, 32)" in out and "probabilities" not in out
    x = torch.randn(3, 3, 32, 32)
    assert model(x).std(0).median() > 0.1, "features that are always the same would prove nothing"
    program = torch.export.load(file).module()
    assert torch.allclose(program(x), model(x), atol=1e-4)
    with pytest.raises(Exception, match=r"(?i)shape|guard|size"):
        program(x[:1])
    about = read_metadata(file)
    assert about["output"] == "features" and about["classes"] == [] and about["input"]["batch"] == 3


def test_pixels_become_what_the_network_takes() -> None:
    prep = Preprocessing(4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    got = FromPixels(nn.Identity(), prep)(pixels)
    by_hand = [(pixels[..., i] / 255 - prep.mean[i]) / prep.std[i] for i in range(3)]
    assert torch.allclose(got, torch.stack(by_hand, 1), atol=1e-6)


@pytest.mark.parametrize("ending", [".pt2", ".xml"])
def test_a_wrong_file_is_not_left(ending: str, weights: Path, tmp_path: Path, command: Command, tiny: None) -> None:
    file = tmp_path / f"wrong{ending}"
    code, out, err = command("export", weights, file)
    assert code == 1 and "not written" in out
    assert err.splitlines()[-1].startswith(f"error: {file}: not written: expected logits within ")
    assert there(tmp_path) == {}
    file.write_text("an older one")
    code, out, err = command("export", weights, file, "--json")
    assert code == 1 and json.loads(out)["written"] is False and json.loads(out)["difference"]["logits"] > 0.01
    assert there(tmp_path) == {file.name: b"an older one"}


def test_the_tolerance_decides(weights: Path, tmp_path: Path, tiny: None) -> None:
    apart = export(weights, tmp_path / "a.pt2").agreement.logits
    assert not export(weights, tmp_path / "a.pt2", tolerance=apart * 0.99).written and there(tmp_path) == {}
    assert export(weights, tmp_path / "a.pt2", tolerance=apart * 1.01).written
    assert (tmp_path / "a.pt2").stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o022) or 0)


@pytest.mark.parametrize("ending", [*GRAPHS, ".safetensors"])
def test_a_disk_that_is_full_leaves_what_was_there(ending: str, weights: Path, tmp_path: Path, tiny: None) -> None:
    file = tmp_path / f"a{ending}"
    file.write_text("an older one")
    with files_of_at_most(4096), pytest.raises((ConfigurationError, WeightsError), match=r"write|written") as error:
        export(weights, file)
    assert "\n" not in str(error.value) and str(file.name) in str(error.value)
    assert there(tmp_path) == {file.name: b"an older one"}


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def test_ctrl_c_leaves_what_was_there(
    weights: Path, tmp_path: Path, command: Command, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Agreement:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "compare", interrupted)
    (tmp_path / "a.pt2").write_text("an older one")
    code, out, err = command("export", weights, tmp_path / "a.pt2")
    assert code == 130 and not out and err.splitlines()[-1] == "error: stopped"
    assert there(tmp_path) == {"a.pt2": b"an older one"}


def test_a_new_bin_is_never_left_with_an_old_xml(
    weights: Path, tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreeing(monkeypatch)
    export(weights, tmp_path / "a.xml")
    whole, replace = there(tmp_path), os.replace
    (tmp_path / "a.bin").write_text("of the older one")

    def fails_at_the_end(source: Path, target: Path) -> None:
        if Path(target) == tmp_path / "a.xml":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_end)
    with pytest.raises(ConfigurationError, match="No space left"):
        export(weights, tmp_path / "a.xml")
    assert there(tmp_path) == {"a.bin": whole["a.bin"]}
    monkeypatch.setattr(os, "replace", replace)
    export(weights, tmp_path / "a.xml")
    assert there(tmp_path).keys() == whole.keys() and read_metadata(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.onx", [], "expected a file ending in .onnx .pt2 .safetensors .xml; did you mean .onnx"),
        ("a", [], "expected a file ending in"),
        ("bad.png/a.onnx", [], "a.onnx: cannot be written: Not a directory; give another path"),
        ("folder.pt2", [], "folder.pt2: cannot be written: Is a directory; give another path"),
        ("a.safetensors", ["--batch-size", "2"], "batch_size needs a graph, which a weights file does not have"),
        ("a.onnx", ["--batch-size", "2", "--dynamic-batch"], "--batch-size 2 exclude each other; omit one"),
        (
            "a.safetensors",
            ["--with-preprocessing"],
            "with_preprocessing needs a graph, which a weights file does not have",
        ),
        ("a.pt2", ["--check", "empty"], "empty: expected images ("),
        ("a.pt2", ["--check", "bad.png"], "expected images, got 1 of which none can be decoded, such as"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    name: str, options: list[str], message: str, weights: Path, tmp_path: Path, command: Command, tiny: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("folder.pt2", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bad.png").write_text("no image")
    before = sorted(tmp_path.iterdir())
    code, out, err = command("export", weights, tmp_path / name, *options)
    assert code == 2 and not out
    assert message in err.splitlines()[-1] and err.count("error:") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("ending", "package", "extra"), [(".onnx", "onnxscript", "onnx"), (".xml", "openvino", "openvino")]
)
def test_a_missing_extra_is_named(
    ending: str, package: str, extra: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs .*{package}.*inceptionnet\[{extra}\]"):
        export(weights, tmp_path / f"a{ending}")
    convert = to_onnx if ending == ".onnx" else to_openvino
    with pytest.raises(MissingExtraError, match=package):
        convert(Tiny(), torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("ending", [*GRAPHS, ".safetensors"])
def test_files_of_others_are_told_from_ones_own(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a{ending}"
    with pytest.raises(WeightsError, match=f"a{ending}"):
        read_metadata(file)
    file.write_text("<net><rt_info/></net>")
    with pytest.raises(WeightsError, match=f"a{ending}"):
        read_metadata(file)


def test_a_program_that_somebody_else_exported_says_nothing_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "a.pt2"
    torch.export.save(to_program(Tiny(), torch.zeros(2, 3, 32, 32)), file, extra_files={"author": "me"})
    with pytest.raises(
        WeightsError,
        match=r"a.pt2: expected metadata with network, configuration and preprocessing, got none; write it with",
    ):
        read_metadata(file)


def test_images_that_cannot_be_read_are_left_out_and_many_are_sampled(
    weights: Path, tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(MAX_IMAGES + 6):
        Image.new("RGB", (40, 36), (3 * i, i, 255 - i)).save(folder / f"{i:03}.png")
    (folder / "000.png").write_text("no image")  # the first and last are among any number spread evenly
    code, out, err = command("export", weights, tmp_path / "a.safetensors", "--check", folder)
    assert code == 0, err
    assert f"{MAX_IMAGES - 1} of {MAX_IMAGES + 6} images of {folder}" in out
    assert "000.png: is not an image in a known format" in out


class Known(nn.Module):
    """Logits (a, 0) for images whose values are all a."""

    num_classes = 2
    outputs = Outputs("softmax", 2)

    def forward(self, x: Tensor) -> Tensor:
        a = x.mean((1, 2, 3))
        return torch.stack([a, torch.zeros_like(a)], 1)


def known(*values: int) -> Images:
    return Images([np.full((2, 2, 3), value, np.uint8) for value in values], "images made by hand")


PLAIN = Preprocessing(2, mean=(0.0,), std=(1.0,))


def test_differences_by_hand() -> None:
    """Logits 1, 0.4 and 0.2 against 0; the file gives 0.1 less, so that 0.1 is the most of 1."""

    def less(x: np.ndarray) -> np.ndarray:
        return Known()(torch.from_numpy(x)).numpy() - np.float32([0.1, 0])

    found = compare(Known(), less, known(255, 102, 51), PLAIN, raw=False, batch_size=None)  # type: ignore[arg-type]
    assert (found.images, found.batch_sizes) == (3, (1, 3))
    assert found.logits == pytest.approx(0.1, rel=1e-4)
    assert found.top1_agreement == 1
    steepest = 1 / (1 + math.exp(-0.2)) - 1 / (1 + math.exp(-0.1))
    assert found.probabilities == pytest.approx(steepest, rel=1e-4)
    found = compare(
        Known(), lambda x: less(x) - np.float32([0.15, 0]), known(255, 102, 51), PLAIN, raw=False, batch_size=1
    )  # type: ignore[arg-type]
    assert found.top1_agreement == pytest.approx(2 / 3), "0.2 - 0.25 is below 0"


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (1, None, [1, 3]),
        (4, None, [1, 3]),
        (9, None, [1, 3, 1, 3, 1]),
        (10, None, [1, 3, 1, 3, 1, 3]),
        (5, 2, [2, 2, 2]),
        (1, 4, [4]),
    ],
)
def test_every_image_is_asked_about_in_batches_of_the_sizes_wanted(
    images: int, batch_size: int | None, sizes: list[int]
) -> None:
    asked: list[np.ndarray] = []

    def run(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return Known()(torch.from_numpy(x).permute(0, 3, 1, 2) / 255).numpy()

    values = range(0, 10 * images, 10)
    found = compare(Known(), run, known(*values), PLAIN, raw=True, batch_size=batch_size)  # type: ignore[arg-type]
    assert [len(x) for x in asked] == sizes
    assert {int(value) for x in asked for value in x[:, 0, 0, 0]} == set(values)
    assert found.logits < 1e-6 and found.images == images


@pytest.mark.parametrize(
    ("factor", "in_fp32", "in_int8"),
    [
        (1.0, "", ""),
        (1.01, r"expected embeddings within 0\.0001 of the largest value, got a difference of 0\.01", ""),
        (
            1.5,
            "expected embeddings within",
            r"of the embeddings of at most 5\.0% of their squared values in int8, got 25",
        ),
        (math.nan, "got a difference of nan", "got 100.0%"),
        (None, "got a difference of inf", "got 100.0%"),
    ],
)
def test_embeddings_are_compared_too(factor: float | None, in_fp32: str, in_int8: str) -> None:
    """The logits are the network's; the embeddings are so many times the network's, or of another length."""
    model = settled(create_model("inception_v1.slim", width=0.125, num_classes=3, input_size=32))

    def compute(x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        with torch.inference_mode():
            logits, pooled = (give(torch.from_numpy(x)).numpy() for give in (model, model.embed))
        return [logits, pooled[:, :5] if factor is None else pooled * np.float32(factor)]

    prep = Preprocessing(32)
    found = compare(model, Session(compute, embeds=True), random_images(prep), prep, raw=False, batch_size=None)
    assert found.logits < 1e-6 and found.embedding is not None
    for least, message in ((None, in_fp32), (0.95, in_int8)):
        refused = exporting._refused(found, 1e-4, least)
        assert bool(refused) == bool(message) and re.search(message, refused), refused


@pytest.mark.parametrize("broken", [lambda y: y * np.nan, lambda y: y[:, :1], lambda y: y.T])
def test_what_is_no_number_or_of_another_shape_never_agrees(
    broken: Callable[[np.ndarray], np.ndarray], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:  # fmt: skip
    kind = KINDS[".safetensors"]

    def run(path: Path) -> Callable[[np.ndarray], np.ndarray]:
        right = kind.run(path)
        return lambda x: broken(right(x))

    monkeypatch.setitem(KINDS, ".safetensors", replace(kind, run=run))
    code, out, err = command("export", weights, tmp_path / "a.safetensors", "--json")
    assert code == 1 and json.loads(out)["difference"]["logits"] is None
    assert "not written" in err and there(tmp_path) == {}


def test_drawn_images_are_images() -> None:
    """Always the same, all different, with all of the grey values, and smooth where they are coarse."""
    first, again = random_images(Preprocessing(64)), random_images(Preprocessing(64))
    assert all(np.array_equal(a, b) for a, b in zip(first.pixels, again.pixels, strict=True))
    assert len({one.tobytes() for one in first.pixels}) == len(first.pixels) == 8
    assert all(one.shape == (64, 64, 3) and one.dtype == np.uint8 for one in first.pixels)
    assert min(one.min() for one in first.pixels) < 5 and max(one.max() for one in first.pixels) > 250
    steps = [np.abs(np.diff(one.astype(int), axis=0)).mean() for one in first.pixels]
    assert steps[0] < 5 < steps[-1]
    assert random_images(Preprocessing(64, channels=1)).pixels[0].shape == (64, 64, 1)


def test_converters_keep_quiet(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO):
        for ending in GRAPHS:
            KINDS[ending].write(Graph(Tiny(), torch.zeros(2, 3, 32, 32), True, {}), tmp_path / f"a{ending}")
    assert capfd.readouterr() == ("", "") and caplog.records == []
    assert {logging.getLogger(name).level for name in ("torch.onnx", "onnxscript")} == {logging.NOTSET}


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    """Nothing is imported that could, and no identifier written; other packages may still import it."""
    program = (
        "import sys; from inceptionnet.engines.openvino import import_openvino as get; ov = get(); "
        "assert ov is get() and callable(ov.convert_model) and not any('telemetry.' in m for m in sys.modules if "
        "m.startswith('openvino_telemetry')) and 'openvino_telemetry' not in sys.modules"
    )
    home = {**os.environ, "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "CI": ""}
    subprocess.run([sys.executable, "-c", program], env=home, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    """They are written twice, since the command line starts without torch."""
    own, of_command = (inspect.signature(one).parameters for one in (export, command_of_export))
    shared = own.keys() & of_command.keys()
    assert {"precision", "tolerance", "min_agreement"} <= shared
    for name in shared:
        assert (own[name].default or None) == (of_command[name].default or None), name


def test_a_file_that_its_runtime_cannot_run_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> Any:
        raise RuntimeError("Exception from plugin.cpp:54:\nno such layer on this CPU")

    monkeypatch.setitem(KINDS, ".onnx", replace(KINDS[".onnx"], run=fails, by_default=None))
    with pytest.raises(ConfigurationError, match=r"not written: .* cannot run it .*cpp:54: no such layer on this CPU"):
        export(weights, tmp_path / "a.onnx")
    assert there(tmp_path) == {}
