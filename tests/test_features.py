"""The table of features against the network's own methods, whatever the images lie in."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from inceptionnet import create_model, load_model, save_weights
from inceptionnet.data import open_source
from inceptionnet.data.jobs import check_out, open_job
from inceptionnet.data.loading import EvalLoader
from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Source, StreamSplit
from inceptionnet.data.unlabelled import open_images
from inceptionnet.errors import ConfigurationError, MissingExtraError
from inceptionnet.evaluate.feature_rows import features_schema
from inceptionnet.evaluate.features import feature_shape, feature_tables
from inceptionnet.system import parts
from inceptionnet.system.distributed import ALONE
from inceptionnet.system.parts import write_parquet
from inceptionnet.weights.folder import weights_of

Command = Callable[..., tuple[int, str, str]]
PREP = Preprocessing(64, crop=1.0, interpolation="bicubic", mean=(0.4,), std=(0.2,))


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights without classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "body.safetensors"
    save_weights(create_model("inception_v1.slim", width=0.125, num_classes=0), path, preprocessing=PREP)
    return path


@pytest.fixture
def photos(colours: Path, tmp_path: Path) -> Path:
    """Images in no order: side by side, and deeper; one is broken."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for i, place in enumerate(("b.png", "a.png", "deep/c.png", "deep/er/d.png")):
        shutil.copy(colours / "red" / f"{i:02}.png", folder / place)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("none")
    return folder


def seen(path: Path) -> torch.Tensor:
    """What the network with `PREP` is to see of an image, by Pillow alone."""
    square = np.asarray(Image.open(path).resize((64, 64), Image.Resampling.BICUBIC), np.float32)
    return torch.from_numpy((square / 255 - 0.4) / 0.2).permute(2, 0, 1)[None].float()


def vectors(table: Any) -> np.ndarray:
    return np.array(table["features"].to_pylist(), np.float32)


def test_every_image_of_every_split_with_its_label(command: Command, run: Path, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    code, text, _ = command("features", run, colours, "--out", out, "--batch-size", 5, "--workers", 0)
    assert code == 0 and "36 images, 128 features each, embed of inception_v1.slim" in text and "held out" in text
    table = pq.read_table(out)
    assert table.column_names == ["image", "split", "label", "features", "error"] and table["error"].null_count == 36
    rows = {row["image"]: row for row in table.to_pylist()}
    assert sorted(rows) == sorted(str(file.relative_to(colours)) for file in colours.rglob("*.png"))
    assert all(row["label"] == name.partition("/")[0] for name, row in rows.items())
    source = open_source(colours)
    assert {name: row["split"] for name, row in rows.items()} == {
        name: split for split, images in source.splits.items() for name in images.names
    }
    model = load_model(weights_of(run)).eval()
    prep = Preprocessing.from_dict(json.loads(table.schema.metadata[b"preprocessing"]))
    loader = EvalLoader(source.splits["val"], prep, batch_size=50, workers=0, corrupt_images="fail")
    with torch.no_grad():
        (expected,) = (model.embed(batch.images.float() / 127.5 - 1).numpy() for batch in loader)
    got = np.array([rows[name]["features"] for name in source.splits["val"].names])
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-5) and np.ptp(got, axis=0).max() > 0.01


def test_one_split_as_json(command: Command, run: Path, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    code, text, _ = command("features", run, colours, "--out", out, "--split", "val", "--json", "--workers", 0)
    about = json.loads(text)
    held_out = len(open_source(colours).splits["val"])
    assert code == 0 and about["images"] == held_out == pq.read_metadata(out).num_rows
    assert about["shape"] == [128] and set(pq.read_table(out)["split"].to_pylist()) == {"val"}
    stored = pq.read_schema(out).metadata
    said = {key: json.loads(stored[key.encode()]) for key in ("network", "endpoint", "shape")}
    assert said == {"network": "inception_v1.slim", "endpoint": "embed", "shape": [128]}
    assert json.loads(stored[b"weights"]) == str(run)


@pytest.mark.parametrize("grid", [False, True])
def test_an_endpoint_and_a_image_without_label(
    command: Command, body: Path, colours: Path, tmp_path: Path, grid: bool
) -> None:
    out, image = tmp_path / "f.parquet", colours / "blue" / "03.png"
    code, _, _ = command("features", body, image, "--out", out, "--endpoint", "inception_4b", *["--grid"] * grid)
    assert code == 0
    with torch.no_grad():
        (expected,) = load_model(body).eval().features(seen(image))["inception_4b"].numpy()
    expected = expected if grid else expected.mean((1, 2))
    table = pq.read_table(out)
    assert json.loads(table.schema.metadata[b"shape"]) == list(expected.shape)
    assert table.schema.field("features").type.list_size == expected.size
    (got,) = vectors(table)
    assert np.allclose(got.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)
    assert table.select(["image", "split", "label"]).to_pylist() == [
        {"image": str(image), "split": "all", "label": None}
    ]


def test_images_in_no_order_and_a_broken_one(command: Command, body: Path, photos: Path, tmp_path: Path) -> None:
    """A folder, its zip and its files named singly; a batch may hold nothing but what is broken."""
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(photos.rglob("*.*")):
            archive.write(file, file.relative_to(photos))
    found = {}
    for name, data in (("folder", [photos]), ("zip", [packed]), ("files", [photos / "a.png", photos])):
        out = tmp_path / f"{name}.parquet"
        code, text, _ = command("features", body, *data, "--out", out, "--batch-size", 1, "--workers", 0)
        assert code == 0 and "images without labels (" in text and "broken.jpg: is not an image" in text
        assert len(text.splitlines()) == 3
        found[name] = pq.read_table(out)
    names = ["a.png", "b.png", "broken.jpg", "deep/c.png", "deep/er/d.png"]
    assert found["folder"]["image"].to_pylist() == names and found["folder"]["label"].null_count == 5
    whys = found["folder"]["error"].to_pylist()
    assert whys[2].startswith("is not an image") and whys[:2] + whys[3:] == [None] * 4
    assert [row is None for row in found["folder"]["features"].to_pylist()] == [False, False, True, False, False]
    assert found["zip"].equals(found["folder"])
    assert found["files"]["image"].to_pylist() == [str(photos / name) for name in ("a.png", *names)]
    with torch.no_grad():
        expected = load_model(body).eval().embed(seen(photos / "deep" / "c.png"))[0].numpy()
    assert np.allclose(found["folder"]["features"][3].as_py(), expected, rtol=1e-3, atol=1e-4)


def test_what_is_a_data_set(colours: Path, photos: Path, tmp_path: Path) -> None:
    """One class is enough, and a stray image does not hurt; where most are strays there are no labels."""
    one = tmp_path / "one"
    shutil.copytree(colours / "red", one / "red")
    assert open_images([str(one)]).classes == ("red",)
    shutil.copy(photos / "a.png", one / "stray.png")
    source = open_images([str(one)])
    assert source.classes == ("red",) and "1 image outside the class folders ignored" in source.note
    assert open_images([str(photos)]).note == (
        "5 images without labels (only 2 of them are in class folders); 1 non-image file ignored (.txt)"
    )
    flat = open_images([str(colours / "red")])
    assert flat.classes == () and "12 images without labels (" in flat.note and "12 images in one folder" in flat.note


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "f.csv"], "expected a file ending in .parquet"),
        (["--out", "/proc/none/f.parquet"], "--out /proc/none/f.parquet: cannot be written"),
        (["--out", "f.parquet", "--endpoint", "inception_4z"], "did you mean inception_4"),
        (["--out", "f.parquet", "--grid"], "endpoint embed is pooled and has no grid"),
        (["--out", "f.parquet", "--split", "test"], "expected the split test, got train, val"),
        (["--out", "f.parquet", "--device", "cuda:99"], "--device cuda:99: not available"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    command: Command, body: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = command("features", body, colours, *arguments)
    assert code == 2 and not out and err.count("\n") == 1 and said in err
    assert not list(tmp_path.iterdir())


def test_no_images_and_no_such_place(command: Command, body: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data, said in (
        (["empty"], "expected images"),
        (["nothing"], "got no such file or folder"),
        (["empty", "empty"], "expected images, got none: it is empty"),
    ):
        out = tmp_path / "f.parquet"
        code, _, err = command("features", body, *(tmp_path / name for name in data), "--out", out)
        assert code == 2 and err.count("\n") == 1 and said in err and not out.exists()


def test_a_stream_is_read_by_its_shards(
    command: Command, body: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every split of it, one after another; a part is a shard, whose images may be none."""
    files = sorted((colours / "red").iterdir())
    shards = {"train": [files[:3], []], "val": [files[3:5]]}

    def stream(name: str) -> StreamSplit:
        def read(shard: int) -> Iterator[tuple[str, int, bytes]]:
            return ((file.name, 1, file.read_bytes()) for file in shards[name][shard])

        return StreamSplit(name, sum(map(len, shards[name])), len(shards[name]), read)

    source = Source("hf:some/stream", ("a", "b"), {name: stream(name) for name in shards}, "")
    monkeypatch.setattr("inceptionnet.data.jobs.open_source", lambda *_, **__: source)
    code, _, _ = command("features", body, "hf:some/stream", "--out", tmp_path / "f", "--workers", 0)
    parts = [pq.read_table(file) for file in sorted((tmp_path / "f").glob("part-*"))]
    assert code == 0 and [part.num_rows for part in parts] == [3, 0, 2]
    table = pq.read_table(tmp_path / "f")
    assert table["image"].to_pylist() == [file.name for file in files[:5]] and set(table["label"].to_pylist()) == {"b"}
    assert table["split"].to_pylist() == ["train"] * 3 + ["val"] * 2
    shards["val"] = [files[3:4]]
    code, _, err = command("features", body, "hf:some/stream", "--out", tmp_path / "less", "--workers", 0)
    assert code == 2 and "expected 5 images as the stream states, got 4" in err


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for out in ("f.parquet", "folder"):
        with pytest.raises(MissingExtraError, match=r"inceptionnet\[parquet\]"):
            check_out(Path(out), ALONE)


def test_bounded_groups_and_a_file_that_is_whole_or_not_there(
    body: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of two batches; what stops in between leaves the file that was there, and nothing else."""
    model, out = load_model(body), tmp_path / "f.parquet"
    job = open_job([str(colours / "red")])
    shape = feature_shape(model, PREP)
    monkeypatch.setattr(parts, "GROUP_BYTES", 4 * shape[0] * 6)
    counted: list[int] = []
    schema = features_schema(shape, {})

    def tables() -> Iterator[Any]:
        chunks = (chunk for part in job.parts for chunk in part())
        yield from feature_tables(model, chunks, PREP, schema=schema, batch_size=3, advance=counted.append)

    write_parquet(out, schema, tables())
    about = pq.read_metadata(out)
    assert about.num_rows == 12 and counted == [3] * 4
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [6, 6]
    before = out.read_bytes()

    def stopped() -> Iterator[Any]:
        yield next(tables())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_parquet(out, schema, stopped())
    assert out.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["f.parquet"]


def test_an_unknown_endpoint_names_what_there_is(body: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"endpoint 'xyz': expected embed or one of inception_v1.slim; known: "
    ):
        feature_shape(load_model(body), PREP, "xyz")
