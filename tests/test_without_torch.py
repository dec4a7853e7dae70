"""Prediction by exported files where torch is not installed: the same numbers, and one line for what needs it."""

from __future__ import annotations

import io
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from inceptionnet import Classifier, load
from inceptionnet.data.augment import as_input
from inceptionnet.data.images import Item, Transform, as_pixels, normalised, together, together_as_array
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.engines.fusion import fused
from inceptionnet.engines.graph import FromPixels, WithEmbedding
from inceptionnet.engines.kinds import KINDS, Graph, input_of, read_metadata
from inceptionnet.engines.sessions import EMBEDDING, OUTPUT, Session, onnx_metadata
from inceptionnet.errors import ConfigurationError, InputError, WeightsError
from inceptionnet.model.network import InceptionNet
from inceptionnet.model.outputs import Outputs
from inceptionnet.nets import NETWORKS
from inceptionnet.registry.create import create_model
from inceptionnet.serve.models import Model
from inceptionnet.serve.settings import Settings
from inceptionnet.system.protobuf import fields_of

from .test_export import cut
from .without_torch import without_torch

PREP = Preprocessing(79, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def network() -> Classifier:
    """Parts of Inception-v3, whose conversion is quick."""
    return load(cut("inception_v3", 79, "conv_1a conv_4a pool_5a"), classes=CLASSES, preprocessing=PREP, device="cpu")


def size_of(model: InceptionNet) -> int:
    return model.embed(torch.zeros(1, 3, 79, 79)).shape[1]


def written(
    network: Classifier, path: Path, *, raw: bool = False, batch: int | None = None, embeds: bool = True
) -> Path:
    """An exported file of the network's parts, as `export` writes one of a whole network."""
    model, prep = network.model, network.preprocessing
    module = fused(model, channels_last=False)
    about = {
        "network": "inception_v3", "configuration": {"name": "inception_v3", "num_classes": 4, "width": 0.125,
                                                     "input_size": 79},
        "classes": CLASSES, "activation": "softmax", "preprocessing": prep.to_dict(),
        "input": input_of(raw=raw, batch=batch), "output": "logits", "precision": "fp32", "provenance": {},
        "source": "x", "version": "1", **({"embedding": size_of(model)} if embeds else {}),
    }  # fmt: skip
    whole = WithEmbedding(module).eval() if embeds else module
    example = torch.zeros(batch or 2, 3, 79, 79)
    if raw:
        whole, example = FromPixels(whole, prep).eval(), example.permute(0, 2, 3, 1).to(torch.uint8)
    metadata = {key: json.dumps(value) for key, value in about.items()}
    outputs = (OUTPUT, EMBEDDING) if embeds else (OUTPUT,)
    write = KINDS[path.suffix].write
    assert write is not None
    write(Graph(whole, example, batch is None, metadata, None, outputs), path)
    return path


@pytest.fixture(scope="module")
def files(network: Classifier, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {
        ".onnx": written(network, folder / "a.onnx"),
        ".xml": written(network, folder / "a.xml", raw=True, batch=2),
    }


@pytest.fixture(scope="module")
def images(colours: Path) -> list[str]:
    return [str(colours / colour / "00.png") for colour in ("red", "green", "blue")]


PROGRAM = """
import json, numpy as np
from inceptionnet import load
file, *images = sys.argv[1:]
clf = load(file)
one, many = clf.embed(images[0]), clf.embed(images)
assert isinstance(many, np.ndarray) and many.dtype == np.float32 and one.shape == many[0].shape
x = np.stack([clf.preprocess(__import__("PIL.Image").Image.open(image)) for image in images])
found = {
    "repr": repr(clf), "top": [row.top for row in clf.predict(images)], "embedding": many.tolist(),
    "logits": clf.logits(images).tolist(), "of arrays": clf.logits(x).tolist(),
}
print(json.dumps(found))
assert run("predict", file, *images, "--json") == 0
assert run("show", file, "--json") == 0
assert not {"torch", "scipy", "safetensors", "onnx"} & sys.modules.keys()
"""


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_the_same_numbers_without_torch(
    ending: str, network: Classifier, files: dict[str, Path], images: list[str]
) -> None:
    printed, _ = without_torch(PROGRAM, files[ending], *images)
    first, rest = printed.split("\n", 1)
    found = json.loads(first)
    of_command, at = json.JSONDecoder().raw_decode(rest)
    assert found["repr"].startswith("Classifier(inception_v3, 4 classes, 79 px, ")
    want = network.logits(images).numpy()
    within = 1e-5 * float(np.abs(want).max())
    assert np.ptp(want, 0).min() > 100 * within, "images that all give the same would prove nothing"
    assert np.array(found["logits"]) == pytest.approx(want, abs=within)
    assert np.array(found["of arrays"]) == pytest.approx(want, abs=within)
    pooled = network.embed(images).numpy()
    assert np.array(found["embedding"]) == pytest.approx(pooled, abs=1e-5 * float(np.abs(pooled).max()))
    for got, row, theirs in zip(found["top"], network.predict(images), of_command["predictions"], strict=True):
        assert [name for name, _ in got] == [name for name, _ in row.top]
        assert [p for _, p in got] == pytest.approx([p for _, p in row.top], abs=1e-5)
        assert got == [[one["class"], one["probability"]] for one in theirs["top"]]
    assert json.loads(rest[at:])["classes"] == list(CLASSES)


def test_what_needs_torch_says_so_in_one_line(files: dict[str, Path], images: list[str], colours: Path) -> None:
    _, err = without_torch(
        """
file, image, data = sys.argv[1:]
for line in (["train", data, "--out", "never"], ["evaluate", file, data], ["predict", "w.safetensors", image],
             ["features", "w.safetensors", data, "--out", "never.parquet"], ["export", "w.safetensors", "a.onnx"]):
    assert run(*line) == 2, line
import inceptionnet
from inceptionnet.errors import MissingExtraError
for ask in (lambda: inceptionnet.create_model, lambda: inceptionnet.load("w.safetensors"),
            lambda: inceptionnet.load(file).evaluate(data)):
    try:
        ask()
        raise AssertionError(ask)
    except MissingExtraError as error:
        print(error, file=sys.stderr)
for line in (["--help"], ["train", "--help"], ["models"]):
    assert run(*line) == 0
""",
        files[".onnx"], images[0], colours,
    )  # fmt: skip
    says = [line.removeprefix("error: ") for line in err.splitlines()]
    ends = " needs torch; install it with: pip install 'inceptionnet[torch]'"
    assert all(line.endswith(ends) for line in says), err
    assert [line.removesuffix(ends) for line in says] == [
        "inceptionnet train", "inceptionnet evaluate", "loading w.safetensors", "loading w.safetensors",
        "inceptionnet export", "inceptionnet.create_model", "loading w.safetensors", "evaluating",
    ]  # fmt: skip


IN_PARTS = """
file, data, out = sys.argv[1:]
for command in ("features", "predict"):
    assert run(command, file, data, "--out", f"{out}/{command}", "--batch-size", 4, "--part-size", 20) == 0
for wrong in (["--endpoint", "mixed_7c"], ["--grid"]):
    assert run("features", file, data, "--out", f"{out}/never", *wrong) == 2
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_tables_without_torch(
    network: Classifier, files: dict[str, Path], colours: Path, ending: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    (data / "green" / "03.png").write_bytes(b"no image")
    _, err = without_torch(IN_PARTS, files[ending], data, tmp_path)
    for line, asked in zip(err.splitlines()[-2:], ("endpoint mixed_7c", "the grid"), strict=True):
        assert line.startswith(f"error: {files[ending]}: {asked}: an exported file gives only embed"), err
    table, answers = (pq.read_table(tmp_path / name) for name in ("features", "predict"))
    assert table.column_names == ["image", "split", "label", "features", "error"] and table.num_rows == 36
    rows = table.to_pylist()
    (bad,) = (row for row in rows if row["error"])
    assert bad["image"].endswith("green/03.png") and bad["features"] is None and bad["label"] == "green"
    good = [row for row in rows if not row["error"]]
    names = [Path(row["image"]) for row in good]
    pooled = network.embed([data / name for name in names]).numpy()
    assert np.array([row["features"] for row in good]) == pytest.approx(pooled, abs=1e-5 * float(np.abs(pooled).max()))
    assert answers["image"].to_pylist() == table["image"].to_pylist()
    assert answers["error"].null_count == 35


def test_a_missing_runtime_is_named_with_the_extra_that_needs_no_torch(files: dict[str, Path]) -> None:
    for ending, package in ((".onnx", "onnxruntime"), (".xml", "openvino")):
        _, err = without_torch(
            "sys.modules[sys.argv[2]] = None\nassert run('predict', sys.argv[1], 'x.png') == 2", files[ending], package
        )
        extra = {"openvino": "openvino-runtime"}.get(package, package)
        assert f"needs {package}; install it with: pip install 'inceptionnet[{extra}]'" in err


def test_files_of_before_predict_but_do_not_embed(network: Classifier, images: list[str], tmp_path: Path) -> None:
    old = load(written(network, tmp_path / "old.onnx", embeds=False))
    assert old.predict(images[0]).label == network.predict(images[0]).label
    with pytest.raises(WeightsError, match=r"old\.onnx: expected an exported file with the output embedding, got one"):
        old.embed(images)


def test_a_file_that_promises_what_it_lacks_is_refused(
    network: Classifier, files: dict[str, Path], images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(files[".onnx"])
    del model.graph.output[1]
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="expected the output embedding, as its metadata says, got none; export it"):
        load(tmp_path / "x.onnx")
    zeros = np.zeros((2, 7), np.float32)
    for given, wrong in (
        ([zeros[:1, :5]], "logits"), ([zeros[:, :4]], "logits"), ([zeros[0, :4]], "logits"),
        ([zeros[:1, :4], zeros[:1]], "embedding"),
    ):  # fmt: skip
        session = Session(lambda x, names, given=given: given, embeds=True)
        monkeypatch.setitem(KINDS, ".onnx", replace(KINDS[".onnx"], run=lambda path, session=session: session))
        clf = load(files[".onnx"])
        with pytest.raises(
            WeightsError, match=rf"expected the output {wrong} of shape \(1, (4|24)\), got .*; export it"
        ):
            (clf.predict if wrong == "logits" else clf.embed)(images[0])


def test_preprocessed_images_of_another_size_are_refused(files: dict[str, Path]) -> None:
    for file in files.values():
        for wrong in (np.zeros((3, 80, 79), np.float32), torch.zeros(3, 79, 80)):
            with pytest.raises(InputError, match=r"expected preprocessed images of shape \(3, 79, 79\), got \(3, "):
                load(file).predict(wrong)


def test_an_exported_file_answers_tensors_too(network: Classifier, files: dict[str, Path], images: list[str]) -> None:
    x = torch.stack([network.preprocess(Image.open(image)) for image in images])
    for file in files.values():
        clf = load(file)
        assert np.array_equal(clf.logits(x), clf.logits(images))
        torch.testing.assert_close(clf.run(x), torch.from_numpy(clf.logits(images)))


@pytest.mark.parametrize("ending", ["", ".onnx", ".xml"])
def test_answers_for_a_service(ending: str, network: Classifier, files: dict[str, Path], images: list[str]) -> None:
    clf = load(files[ending]) if ending else network
    seen = [Item(image, image).seen(clf.preprocessing) for image in images[:2]]
    assert [(one.dtype, one.shape) for one in seen] == [(np.uint8, (79, 79, 3))] * 2
    ready = torch.zeros(3, 79, 79, dtype=torch.float64)
    logits, both = clf.answer(seen), clf.answer([*seen, ready], embedding=True)
    assert logits.embedding is None and logits.logits.dtype == np.float32
    assert np.array_equal(logits.logits, np.asarray(clf.logits(images[:2])))
    assert both.logits[:2] == pytest.approx(logits.logits, abs=1e-5 * float(np.abs(logits.logits).max()))
    assert both.embedding is not None and both.embedding.shape == (3, size_of(network.model))
    assert both.embedding[:2] == pytest.approx(np.asarray(clf.embed(images[:2])), rel=1e-4, abs=1e-5)
    nothing = clf.answer([], embedding=True)
    assert nothing.logits.shape == (0, 4) and nothing.embedding is not None and len(nothing.embedding) == 0


def test_without_a_classifier_there_is_only_the_embedding(images: list[str]) -> None:
    bare = load(create_model("inception_v1.slim", num_classes=0, width=0.125, input_size=32), device="cpu")
    seen = [Item(images[0], images[0]).seen(bare.preprocessing)]
    assert bare.answer(seen).logits.shape == (1, 0) and bare.answer(seen).embedding is None
    both = bare.answer(seen, embedding=True)
    assert both.embedding is not None and np.array_equal(both.embedding, bare.embed(images[:1]).numpy())


ONE_OF_EACH_HEAD = {tuple(network.head): name for name, network in sorted(NETWORKS.items(), reverse=True)}


@pytest.mark.parametrize("name", ONE_OF_EACH_HEAD.values())
def test_the_second_output_is_what_the_logits_come_from(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, width=0.125, num_classes=3).eval()
    x = torch.randn(2, 3, model.minimum_size, model.minimum_size)
    with torch.inference_mode():
        want = (model(x), model.embed(x))
        assert want[1].shape[1] == model.head_hidden_size
        for network in (model, fused(model)):
            for got, one in zip(WithEmbedding(network)(x), want, strict=True):
                torch.testing.assert_close(got, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("outputs", [Outputs("softmax", 5), Outputs("sigmoid", 1), Outputs("sigmoid", 5)], ids=str)
def test_probabilities_are_rounded_once(outputs: Outputs) -> None:
    """Of arrays and tensors the same bits, and within one unit in the last place of torch in float64."""
    logits = (20 * np.random.default_rng(0).standard_normal((400, outputs.logits))).astype(np.float32)
    logits[0] = 0
    found = outputs.probabilities(logits)
    assert found.dtype == np.float32 and found.shape[1] == outputs.classes
    assert np.array_equal(found, outputs.probabilities(torch.from_numpy(logits)).numpy())
    x = torch.from_numpy(logits).double()
    want = x.softmax(1) if outputs.activation == "softmax" else x.sigmoid()
    want = torch.cat([(-x).sigmoid(), want], 1) if outputs.binary else want
    np.testing.assert_array_max_ulp(found, want.float().numpy(), 1)
    broken = outputs.probabilities(np.full((1, outputs.logits), np.nan, np.float32))
    assert np.isnan(broken).all()


def test_numpy_and_torch_make_the_same_input() -> None:
    prep = Preprocessing(16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = list(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))
    x = normalised(pixels, prep)
    assert x.flags.c_contiguous and np.array_equal(x, as_input(pixels, prep).numpy())
    assert np.array_equal(as_pixels(x, prep), np.stack(pixels))
    mixed = [pixels[0], x[1], torch.from_numpy(x[2]), x[3].astype(np.float64)]
    assert np.array_equal(together_as_array(mixed, prep), x)
    assert torch.equal(together(mixed, prep, torch.device("cpu")), torch.from_numpy(x))
    for join in (together_as_array, lambda *how: together(*how, torch.device("cpu"))):
        with pytest.raises(InputError, match=r"expected images of one size in a batch, got \(3, 8, 8\), \(3, 16, 16\)"):
            join([pixels[0], np.zeros((3, 8, 8), np.float32)], prep)
    image = Image.fromarray(pixels[0])
    assert np.array_equal(Transform(prep, as_array=True)(image), Transform(prep)(image).numpy())


def test_metadata_is_read_without_the_network(files: dict[str, Path], tmp_path: Path) -> None:
    """As the package onnx reads it, and of a file that is damaged anywhere an error in one line."""
    model = onnx.load(files[".onnx"])
    assert onnx_metadata(files[".onnx"]) == {one.key: one.value for one in model.metadata_props}
    small = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    onnx.helper.set_model_props(small, {"a": "é" * 200, "b": ""})
    data = small.SerializeToString()
    for length in range(len(data)):
        (tmp_path / "x.onnx").write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"x\.onnx: expected") as caught:
            read_metadata(tmp_path / "x.onnx")
        assert "\n" not in str(caught.value)
    (tmp_path / "x.onnx").write_bytes(data)
    assert onnx_metadata(tmp_path / "x.onnx") == {"a": "é" * 200, "b": ""}


def message(number: int, kind: int, content: bytes) -> bytes:
    return bytes([number << 3 | kind]) + content


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (message(1, 0, b"\x96\x01") + message(2, 2, b"\x02hi") + message(2, 2, b"\x00"), [b"hi", b""]),
        (message(3, 1, bytes(8)) + message(4, 5, bytes(4)) + message(2, 2, b"\x01x"), [b"x"]),
        (message(2, 0, b"\x05") + message(2, 2, b"\x01x"), [b"x"]),
        (b"", []),
        (message(2, 2, b"\x05hi"), "it is truncated"),
        (message(3, 1, bytes(7)), "it is truncated"),
        (message(1, 0, b"\x96"), "it is truncated"),
        (message(1, 0, b"\xff" * 11), "a number of more than 10 bytes"),
        (message(1, 3, b""), "expected a field of Protocol Buffers, got number 1 of kind 3"),
        (message(0, 2, b"\x00"), "expected a field of Protocol Buffers, got number 0 of kind 2"),
        (message(2, 2, struct.pack("B", 100) + bytes(100)), "field 2 has more than 50 bytes"),
        (2 * message(2, 2, struct.pack("B", 30) + bytes(30)), "field 2 has more than 50 bytes"),
    ],
)
def test_fields_by_hand(data: bytes, found: list[bytes] | str) -> None:
    if isinstance(found, list):
        assert list(fields_of(io.BytesIO(data), len(data), 2, 50)) == found
        return
    with pytest.raises(ValueError, match=found):
        list(fields_of(io.BytesIO(data), len(data), 2, 50))


SERVED = """
import sys, threading, time
import httpx
from inceptionnet.serve.app import application
from inceptionnet.serve.running import GracefulServer, bind, config
from inceptionnet.serve.settings import Settings

settings = Settings({"a": sys.argv[1]}, port=0)
socket = bind("127.0.0.1", 0)
server = GracefulServer(config(settings, application(settings)))
thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
thread.start()
while not server.started:  # before that, connections are refused
    time.sleep(0.01)
with httpx.Client(base_url=f"http://127.0.0.1:{socket.getsockname()[1]}", timeout=60) as client:
    while client.get("/health/ready").status_code != 200:
        pass
    with open(sys.argv[2], "rb") as image:
        asked = {"content": image.read(), "headers": {"Content-Type": "image/png"}}
    print(client.post("/predict?embedding=true", **asked).text)
    print(client.post("/predict?attribution=gradcam", **asked).text)
    print(client.get("/models/a").text)
server.should_exit = True
thread.join()
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("ending", [".onnx", ".xml"])
def test_served_without_torch(network: Classifier, files: dict[str, Path], ending: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 90, 3), np.uint8))
    image.save(tmp_path / "a.png")
    answered, refused, card = map(json.loads, without_torch(SERVED, files[ending], tmp_path / "a.png")[0].splitlines())
    (row,) = answered["predictions"]
    expected = network.predict(image)
    assert [one["class"] for one in row["top"]] == [name for name, _ in expected.top]
    assert [one["probability"] for one in row["top"]] == pytest.approx([p for _, p in expected.top], rel=1e-3)
    assert row["embedding"] == pytest.approx(network.embed(image).tolist(), rel=1e-2, abs=1e-3)
    assert refused == {"error": "a: attribution needs the weights, and an exported file is served"}
    assert card["embedding"] == len(row["embedding"]) and card["attribution"] is False


def test_an_engine_is_for_the_models_that_have_none_of_their_own(
    network: Classifier, files: dict[str, Path], tmp_path: Path
) -> None:
    exported, weights = str(files[".onnx"]), tmp_path / "a.safetensors"
    small = load(create_model("inception_v1.slim", num_classes=4, width=0.125, input_size=32), classes=CLASSES)
    small.save(weights)
    both = Settings({"a": str(weights), "b": exported}, engine="fused", device="cpu")
    assert [Model.load(name, both).engine for name in both.models] == ["fused", "ONNX"]
    with pytest.raises(ConfigurationError, match="has an engine and a precision of its own"):
        Model.load("b", Settings({"b": exported}, engine="fused"))
    assert Model.load("b", Settings({"b": exported})).engine == "ONNX"


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".pt2"])
def test_no_such_file(ending: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{ending}: expected a file of .*, got No such file or directory; name one"):
        load(tmp_path / f"absent{ending}")
