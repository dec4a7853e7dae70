"""The front door: one object for a network, whatever it is loaded from and however an image is held."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import inceptionnet
from inceptionnet import Classifier, create_model, load, load_model
from inceptionnet.data.augment import as_input
from inceptionnet.data.inputs import find_images
from inceptionnet.errors import ConfigurationError, DataError, DecodeError, InputError, WeightsError
from inceptionnet.evaluate.prediction import write_csv
from inceptionnet.weights.folder import weights_of
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from .data.server import Site
from .weights.published import as_published, write


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return load(run, device="cpu")


@pytest.fixture
def red(colours: Path) -> Path:
    return colours / "red" / "00.png"


Top = tuple[tuple[str, float], ...]


def close(got: Top, want: Top, within: float = 1e-5) -> bool:
    """Batches of other sizes sum in another order."""
    return [name for name, _ in got] == [name for name, _ in want] and all(
        abs(p - q) < within for (_, p), (_, q) in zip(got, want, strict=True)
    )


def every_form(red: Path) -> dict[str, object]:
    image = Image.open(red)
    pixels = np.asarray(image)
    return {
        "path": red,
        "text": str(red),
        "bytes": red.read_bytes(),
        "PIL": image,
        "palette": Image.open(red).convert("RGB"),
        "array": pixels,
        "tensor": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        "transparent": image.convert("RGBA"),
    }


def test_every_form_of_an_image_is_the_same_image(classifier: Classifier, red: Path) -> None:
    expected = classifier.predict(red)
    assert expected.label == "red" and expected.probability > 0.5 and expected.file == str(red)
    assert sum(p for _, p in expected.top) == pytest.approx(1, abs=1e-5)
    for form, image in every_form(red).items():
        assert classifier.predict(image).top == expected.top, form
        assert close(classifier.predict([image, image])[1].top, expected.top), form
    ready = classifier.preprocess(Image.open(red))
    assert ready.shape == (3, 32, 32) and close(classifier.predict(ready).top, expected.top)
    assert classifier.predict(torch.stack([ready] * 2))[1].label == "red"
    assert classifier.predict(np.stack([np.asarray(Image.open(red))] * 3))[2].label == "red"


def test_grey_16_bit_and_turned_images_are_made_plain(classifier: Classifier, red: Path) -> None:
    grey = Image.fromarray(np.full((40, 30), 200, np.uint8))
    assert classifier.predict(grey).top == classifier.predict(np.full((40, 30), 200, np.uint8)).top
    deep = Image.fromarray(np.full((40, 30), 200 * 257, np.uint16))
    assert classifier.predict(deep).top == classifier.predict(grey).top
    turned, plain = io.BytesIO(), Image.open(red)
    exif = Image.Exif()
    exif[0x0112] = 3
    plain.transpose(Image.Transpose.ROTATE_180).save(turned, "PNG", exif=exif)
    assert classifier.predict(turned.getvalue()).top == classifier.predict(red).top


@pytest.mark.parametrize(
    "wrong",
    [
        3, None, {"a": 1}, np.zeros((4, 4, 3)), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8),
        torch.zeros(6, 4, 3, dtype=torch.uint8), torch.zeros(2, 2), torch.zeros(5, 32, 32), [[b""]],
        torch.zeros(3, 8, 8, dtype=torch.int64), bytearray(b"x"), [torch.zeros(1, 3, 32, 32)],
    ],
    ids=lambda wrong: f"{type(wrong).__name__} {getattr(wrong, 'shape', '')}",
)  # fmt: skip
def test_what_is_no_image_is_refused_in_one_line(classifier: Classifier, wrong: object) -> None:
    with pytest.raises(InputError, match=r"expected an image: a path.*; got ") as caught:
        classifier.predict(wrong)
    assert "\n" not in str(caught.value)


def test_corrupt_images_raise_unless_they_are_skipped(classifier: Classifier, red: Path, tmp_path: Path) -> None:
    text, missing = tmp_path / "text.jpg", tmp_path / "missing.jpg"
    text.write_text("hello")
    given = [red, text, missing, b"", red]
    with pytest.raises(DecodeError, match=r"text\.jpg: is not an image"):
        classifier.predict(given)
    with pytest.raises(DecodeError, match=r"missing\.jpg: cannot be read \(No such file"):
        classifier.predict(missing)
    rows = classifier.predict(given, skip_errors=True, batch_size=2)
    assert [bool(row.error) for row in rows] == [False, True, True, True, False]
    assert rows[0].top == rows[4].top and rows[1].label == "" and rows[1].probability == 0 and "empty" in rows[3].error
    write_csv(tmp_path / "new" / "rows.csv", rows)
    lines = (tmp_path / "new" / "rows.csv").read_text().splitlines()
    assert lines[0].startswith("file,error,class_1,probability_1,class_2") and len(lines) == 6


def test_batch_size_changes_nothing(classifier: Classifier, colours: Path) -> None:
    one, many = (classifier.predict(colours, 2, batch_size=n) for n in (1, 16))
    assert [row.file for row in one] == sorted(map(str, colours.rglob("*.png"))) and len(one) == 36
    for a, b in zip(one, many, strict=True):
        assert [name for name, _ in a.top] == [name for name, _ in b.top] and len(a.top) == 2
        assert [p for _, p in a.top] == pytest.approx([p for _, p in b.top], abs=1e-5)


def test_logits_embeddings_and_features_are_the_networks(classifier: Classifier, run: Path, red: Path) -> None:
    model = load_model(run).eval()
    x = classifier.preprocess(Image.open(red))[None]
    with torch.inference_mode():
        logits, pooled, grids = model(x), model.embed(x), model.features(x)
    torch.testing.assert_close(classifier.logits(red), logits[0])
    torch.testing.assert_close(classifier.logits([red] * 3, batch_size=2), logits.expand(3, -1))
    torch.testing.assert_close(classifier.embed([red]), pooled)
    found = classifier.features(red)
    assert list(found) == list(grids)
    for name, grid in found.items():
        torch.testing.assert_close(grid, grids[name][0])


def test_loaded_from_a_file_a_folder_memory_and_a_pickle(
    classifier: Classifier, run: Path, red: Path, tmp_path: Path
) -> None:
    expected = classifier.predict(red)
    saved = tmp_path / "there" / "saved.safetensors"
    classifier.save(saved)
    again = load(saved, device="cpu")
    assert again.classes == classifier.classes == ("blue", "green", "red") and again.record == classifier.record
    in_memory = load(load_model(run), classes=classifier.classes, preprocessing=classifier.preprocessing, device="cpu")
    for other in (again, in_memory, pickle.loads(pickle.dumps(classifier)), load(weights_of(run), device="cpu")):
        assert other.predict(red).top == expected.top
    assert repr(classifier).startswith("Classifier(inception_v1.slim, 3 classes, 32 px, eager fp32 on cpu, from ")
    with pytest.raises(ConfigurationError, match="expected 3 class names, one per class, got 2"):
        load(run, classes=["a", "b"])
    with pytest.raises(ConfigurationError, match=r"preprocessing: .*its settings are size_px, crop"):
        load(run, preprocessing={"size": 3})
    assert load(run, preprocessing={"size_px": 48}, device="cpu").preprocessing.size_px == 48


def test_a_network_given_is_left_alone() -> None:
    model = create_model("inception_v1.slim", num_classes=2, width=0.125).train()
    made = load(model, device="cpu")
    assert model.training and not made.model.training and made.classes == ("0", "1")


def test_several_threads_get_what_one_gets(classifier: Classifier, colours: Path) -> None:
    files = sorted(colours.rglob("*.png"))
    expected = [row.top for row in classifier.predict(files)]
    found: dict[int, list[Top]] = {}

    def work(number: int) -> None:
        found[number] = [classifier.predict(file).top for file in files]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    classifier.explain(files[0], method="gradcam")
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(close(got, want) for tops in found.values() for got, want in zip(tops, expected, strict=True))


def test_evaluate_is_the_commands(classifier: Classifier, run: Path, colours: Path, command) -> None:
    metrics = classifier.evaluate(colours, split="all")
    code, printed, _ = command("evaluate", run, colours, "--split", "all")
    assert code == 0 and f"top-1 accuracy {metrics.evaluation.top1:.2%}" in printed and "on 36 images" in printed


def test_explain(classifier: Classifier, red: Path) -> None:
    pytest.importorskip("captum")
    found = classifier.explain(red)
    assert found.label == "red" and found.values.shape == (32, 32) and 0 <= float(found.values.max()) <= 1
    assert found.probability == pytest.approx(classifier.predict(red).probability, abs=1e-5)
    assert classifier.explain(red, "blue", method="occlusion").label == "blue" and found.image.mode == "RGB"
    with pytest.raises(ConfigurationError, match="has no class 'yellow'"):
        classifier.explain(red, "yellow")
    with pytest.raises(ConfigurationError, match="expected one image to explain, got 2"):
        classifier.explain([red, red])


@pytest.mark.usefixtures("converted_once")
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        pytest.param(".onnx", {}, marks=pytest.mark.slow),
        pytest.param(".onnx", {"with_preprocessing": True}, marks=pytest.mark.slow),
        pytest.param(".xml", {"batch_size": 2}, marks=pytest.mark.slow),
        pytest.param(".pt2", {"with_preprocessing": True}, marks=pytest.mark.slow),
        (".safetensors", {}),
    ],
)
def test_exports_are_taken_wherever_weights_are(
    classifier: Classifier, colours: Path, tmp_path: Path, command, ending: str, options: dict
) -> None:
    file = tmp_path / f"made{ending}"
    assert classifier.export(file, **options).written
    made, files = load(file, device="cpu"), sorted((colours / "red").glob("*.png"))[:3]
    assert made.classes == classifier.classes and made.preprocessing == classifier.preprocessing
    for got, want in zip(made.predict(files), classifier.predict(files), strict=True):
        assert close(got.top, want.top, 1e-3)
    assert pickle.loads(pickle.dumps(made)).predict(files[0]).label == "red"
    assert (
        made.evaluate(colours, split="all").evaluation.top1 == classifier.evaluate(colours, split="all").evaluation.top1
    )
    assert command("predict", file, *files)[0] == 0
    if ending != ".safetensors":
        with pytest.raises(WeightsError, match="an exported file gives logits and embeddings only; load the weights"):
            made.features(files[0])
        if ending == ".pt2":
            with pytest.raises(WeightsError, match="file with the output embedding, got one without"):
                made.embed(files[0])
        else:
            want = classifier.embed(files).numpy()
            assert made.embed(files) == pytest.approx(want, abs=1e-3 * float(want.max()))
        with pytest.raises(ConfigurationError, match="has an engine and a precision of its own; leave them out"):
            load(file, precision="bf16")


def test_an_export_of_somebody_else_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "empty", [], [])
    (tmp_path / "foreign.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(WeightsError, match="expected metadata with network, configuration and preprocessing"):
        load(tmp_path / "foreign.onnx")
    with pytest.raises(WeightsError, match="expected a file of ONNX, got No such file or directory"):
        load(tmp_path / "missing.onnx")


@pytest.mark.parametrize("engine", ["fused", "channels_last"])
def test_engines(run: Path, red: Path, classifier: Classifier, engine: str) -> None:
    fast = load(run, engine=engine, device="cpu", batch_size=2)
    assert fast.about["engine"] == engine and f"{engine} fp32 on cpu" in repr(fast)
    assert close(fast.predict([red] * 3)[2].top, classifier.predict(red).top)
    torch.testing.assert_close(fast.embed(red), classifier.embed(red))
    assert pickle.loads(pickle.dumps(fast)).about["engine"] == engine


def test_a_network_without_classifier(red: Path, tmp_path: Path) -> None:
    bare = load(create_model("inception_v1.slim", num_classes=0, width=0.125), device="cpu")
    assert bare.embed(red).shape == (128,) and bare.classes == ()
    for ask in (bare.predict, bare.logits, bare.explain):
        with pytest.raises(WeightsError, match="expected weights with a classifier, got none"):
            ask(red)


def test_what_was_assumed_is_said(tmp_path: Path, red: Path, command, caplog: pytest.LogCaptureFixture) -> None:
    """Of a file of another layout, and of what was converted from one, in Python and by both commands."""
    file, own = tmp_path / "other.pth", tmp_path / "own.safetensors"
    write(as_published(create_model("inception_v1.torchvision"), GOOGLENET), file)
    with caplog.at_level("INFO", "inceptionnet"):
        assumed = load(file, device="cpu").assumed
    assert "read as inception_v1.torchvision (torchvision's googlenet); preprocessing: the layout's default" in assumed
    assert (
        "class names: ImageNet's, since there are 1000; global average pool assumed; it fits inception_v1.slim too"
        in assumed
    )
    assert assumed in caplog.text
    assert command("convert", file, own)[0] == 0
    again = load(own, device="cpu").assumed
    assert assumed == f"{again}; it fits inception_v1.slim too"
    for weights, told in ((file, assumed), (own, again)):
        caplog.clear()
        with caplog.at_level("INFO", "inceptionnet"):
            code, printed, _ = command("predict", weights, red, "--json")
        assert code == 0 and json.loads(printed)["assumed"] == told and told in caplog.text


def test_a_transform_of_a_data_set(classifier: Classifier, colours: Path) -> None:
    class Folder(Dataset):
        def __init__(self) -> None:
            self.files, self.transform = sorted(colours.rglob("*.png"))[:4], classifier.preprocess

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, i: int) -> torch.Tensor:
            return self.transform(Image.open(self.files[i]))

    (x,) = DataLoader(Folder(), batch_size=4, num_workers=0)
    torch.testing.assert_close(classifier.logits(x), classifier.logits(Folder().files))


def test_fit(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"log.report": False, "optimizer.lr": 0.002}
    options = {"model": "inception_v1.slim", "epochs": 1, "batch_size": 8, "size": 32, "width": 0.125, "workers": 0}
    made = inceptionnet.fit(colours, settings=settings, device="cpu", **options)
    assert made.classes == ("blue", "green", "red") and Path(made.source).parent == Path("runs")
    tuned = inceptionnet.fit(
        colours, "tuned", weights=made.source, train_from="head", workers=0, settings={"log.report": False}
    )
    torch.testing.assert_close(tuned.embed(colours / "red"), made.embed(colours / "red"))
    assert tuned.record.provenance["seed"] == 0 and inceptionnet.load("tuned").classes == made.classes


class TestFindImages:
    def test_zip_parquet_glob_and_folder_are_the_same_images(self, colours: Path, tmp_path: Path, classifier) -> None:
        packed = tmp_path / "red.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted((colours / "red").glob("*.png")):
                archive.write(file, f"deep/{file.name}")
        expected = [one.read() for one in find_images([colours / "red"])]
        assert [one.read() for one in find_images([packed])] == expected
        assert [one.read() for one in find_images([str(colours / "r*" / "*.png")])] == expected
        odd = tmp_path / "a[1].png"  # a file that is called like a pattern
        odd.write_bytes(expected[0])
        assert classifier.predict(str(odd)).label == classifier.predict(expected[0]).label
        assert [one.read() for one in find_images([str(colours / "**" / "red" / "*.png")])] == expected
        assert [row.label for row in classifier.predict(packed)] == ["red"] * 12

        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table({"image": pa.array(expected, pa.binary())}), tmp_path / "x.parquet")
        found = find_images([tmp_path / "x.parquet"])
        assert [one.read() for one in found] == expected and found[1].name == "x.parquet:1"

    def test_standard_input_is_an_image_or_paths(
        self, red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def given(data: bytes) -> list:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
            return find_images(["-"])

        (image,) = given(red.read_bytes())
        assert image.name == "-" and image.read() == red.read_bytes()
        assert [one.name for one in given(f"{red}\n\n{red}\n".encode())] == [str(red)] * 2
        assert [one.name for one in given(f"{red}\r\n".encode("utf-16"))] == [str(red)]
        odd = [os.fsencode(tmp_path) + b"/caf\xe9.png", os.fsencode(tmp_path) + "/a\u2028b.png".encode()]
        for name in odd:
            Path(os.fsdecode(name)).write_bytes(red.read_bytes())
        assert [one.read() for one in given(b"\n".join(odd))] == [red.read_bytes()] * 2
        for kind in ("JPEG", "PPM", "GIF", "WEBP", "BMP"):
            into = io.BytesIO()
            Image.new("RGB", (300, 300), (255, 254, 253)).save(into, kind)
            (image,) = given(into.getvalue())
            assert image.read() == into.getvalue(), kind
        (text,) = given(b"P2\n1 1\n255\n7\n")
        assert text.read().startswith(b"P2")
        with pytest.raises(DataError, match="standard input: expected an image, or paths"):
            given(b"")

    def test_nothing_is_fetched_unless_that_is_asked_for(self, red: Path) -> None:
        with Site({"red.png": red.read_bytes()}).served() as site:
            self.fetched(site.url, red)

    def fetched(self, address: str, red: Path) -> None:
        with pytest.raises(ConfigurationError, match="nothing is fetched unless --allow-urls is given"):
            find_images([f"{address}/red.png"])
        there, missing = find_images([f"{address}/red.png", f"{address}/none.png"], allow_urls=True)
        assert there.read() == red.read_bytes()
        with pytest.raises(DecodeError, match=r"none\.png: the server has no such file"):
            missing.read()

    def test_places_without_images(self, tmp_path: Path) -> None:
        for place, message in (
            (tmp_path, "expected images, got none: it is empty"),
            (str(tmp_path / "*.png"), "a pattern that images match"),
        ):
            with pytest.raises(DataError, match=message):
                find_images([place])

    def test_results_inside_the_folder_are_not_meant(self, red: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        for name in ("a.png", "out/a-map.png"):
            shutil.copy(red, tmp_path / name)
        (only,) = find_images([tmp_path], besides=tmp_path / "out")
        assert only.name == str(tmp_path / "a.png")
        named = tmp_path / "out" / "a-map.png"
        assert [one.name for one in find_images([named], besides=tmp_path / "out")] == [str(named)], "if it is named"
        assert [one.name for one in find_images([named.parent], besides=named.parent)] == [str(named)]
        only_results = tmp_path / "more"
        shutil.copytree(named.parent, only_results / "out")
        with pytest.raises(DataError, match="expected images, got none but those in"):
            find_images([only_results], besides=only_results / "out")


def test_as_input_is_what_preprocess_gives(classifier: Classifier, red: Path) -> None:
    from inceptionnet.data import centre_crop

    prep, image = classifier.preprocessing, Image.open(red).convert("RGB")
    torch.testing.assert_close(classifier.preprocess(image), as_input([centre_crop(image, prep)], prep)[0])
