"""A classifier as the function of columns that Ray Data, datasets and Spark call; tests/peers has Ray and Spark."""

from __future__ import annotations

import copy
import inspect
import io
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from inceptionnet import Classifier, create_model, load
from inceptionnet.errors import InputError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def clf(run: Path) -> Classifier:
    return load(run)


@pytest.fixture(scope="module")
def files(colours: Path) -> list[Path]:
    return [colours / name / "05.png" for name in ("blue", "green", "red")]


def forms(files: list[Path]) -> dict[str, Any]:
    """The same images in every form that the libraries have them in."""
    arrays = [np.asarray(Image.open(file)) for file in files]
    encoded = [file.read_bytes() for file in files]
    ragged = np.empty(3, object)
    ragged[:] = arrays
    return {
        "a list of bytes": encoded,
        "an array of bytes": np.array(encoded, object),
        "byte arrays": [bytearray(encoded[0]), memoryview(encoded[1]), encoded[2]],
        "paths": list(map(str, files)),
        "an array of paths": np.array(list(map(str, files))),
        "pillow": [Image.open(file) for file in files],
        "one array": np.stack(arrays),
        "an array of arrays": ragged,
        "stored by datasets": [{"bytes": data, "path": None} for data in encoded],
        "only paths in datasets": [{"bytes": None, "path": str(file)} for file in files],
    }


def test_every_form_of_images(clf: Classifier, files: list[Path]) -> None:
    expected = clf.predict(list(map(str, files)), top=2)
    for name, images in forms(files).items():
        found = clf.columns({"id": [5, 6, 7], "image": images}, top=2)
        assert list(found) == ["id", "class_1", "probability_1", "class_2", "probability_2", "error"], name
        assert list(found["class_1"]) == ["blue", "green", "red"] and list(found["error"]) == [""] * 3, name
        assert list(found["probability_1"]) == pytest.approx([one.probability for one in expected], abs=1e-5)
        assert {type(column) for key, column in found.items() if key != "id"} == {
            np.ndarray if isinstance(images, np.ndarray) else list
        }
        alone = clf.columns(images, top=2)
        assert "id" not in alone and list(alone["class_1"]) == ["blue", "green", "red"]


def test_corrupt_images_have_their_reasons(clf: Classifier, files: list[Path]) -> None:
    bad = [files[0].read_bytes(), b"", None, files[0].read_bytes()[:100], "none.png"]
    names = [f"{i}.png" for i in range(5)]
    found = clf({"path": names, "bytes": np.array(bad, object)})
    whys = [str(why) for why in found["error"]]
    assert found["path"] == names and whys[0] == "" and "0 bytes" in whys[1] and "0 bytes" in whys[2]
    assert "truncated" in whys[3] and "No such file" in whys[4] and not any("png" in why for why in whys[:4])
    assert list(found["class_1"]) == ["blue", "", "", "", ""] and found["probability_1"].dtype == np.float32
    assert np.isnan(found["probability_1"]).tolist() == [False, True, True, True, True]
    assert clf({"image": []}) == {"class_1": [], "probability_1": [], "error": []}


def test_columns_that_cannot_be(clf: Classifier, files: list[Path]) -> None:
    for batch, options, said in (
        ({"pixels": [1]}, {}, "a column of images, one of image, img, bytes, content, got pixels"),
        ({"image": [b""]}, {"image": "photo"}, "a column of images, 'photo', got image"),
        ({}, {}, "got no columns"),
        (b"\x89PNG", {}, "expected a batch of images in columns, an array or a list, got bytes"),
        ({"image": "x.png"}, {}, "got str"),
        ({"image": [3.5]}, {}, "image 0: expected an image"),
    ):
        with pytest.raises(InputError, match=said):
            clf.columns(batch, **options)
    assert clf.columns({"photo": [files[2].read_bytes()]}, image="photo")["class_1"] == ["red"]


def test_several_labels_an_image(files: list[Path]) -> None:
    model = create_model("inception_v1.slim", width=0.125, num_classes=2, input_size=32)
    found = load(model, classes=["sea", "sky"], activation="sigmoid").columns(
        {"img": [files[0].read_bytes(), b"x"]}, threshold=0
    )
    assert list(found) == ["labels", "probability_sea", "probability_sky", "error"]
    assert set(found["labels"][0].split(";")) == {"sea", "sky"} and found["labels"][1] == ""
    assert 0 < found["probability_sea"][0] < 1 and np.isnan(found["probability_sky"][1])


def test_the_example_for_datasets(run: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a corrupt image; the first batch has none, so that a type that was guessed from it would not fit."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "flat"
    folder.mkdir()
    for i, file in enumerate(sorted(colours.rglob("*.png")) * 2):
        (folder / f"{i:02}.png").write_bytes(file.read_bytes())
    (folder / "70.png").write_bytes(b"no image")
    datasets.disable_progress_bars()
    example = runpy.run_path(str(ROOT / "examples" / "datasets_map.py"))
    example["main"](str(run), str(folder), str(tmp_path / "p.parquet"))
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) == 72 and [i for i, row in enumerate(rows) if row["error"]] == [70]
    assert sum(row["class_1"] == ("blue", "green", "red")[i % 36 // 12] for i, row in enumerate(rows)) > 60
    assert "class_3" in rows[0]


def test_spark_sees_one_parameter(clf: Classifier) -> None:
    """It counts them, and refuses a function of another number than it has columns."""
    assert list(inspect.signature(clf).parameters) == ["batch"]


def test_a_pickled_classifier_is_the_same_function(clf: Classifier, files: list[Path]) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(clf))
    images = {"image": [Image.open(io.BytesIO(file.read_bytes())) for file in files]}
    assert again(copy.copy(images)) == clf(images)
