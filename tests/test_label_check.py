"""`check --weights`: the images whose labels are the least probable by cross-validated predictions."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inceptionnet import load
from inceptionnet.data import open_source
from inceptionnet.data.splits import Source, Split, StreamSplit
from inceptionnet.errors import DataError
from inceptionnet.evaluate.label_ranking import rank_labels
from inceptionnet.train import head, label_check
from inceptionnet.train.loop import train

from .conftest import opened, write_images
from .test_head import plan

Command = Callable[..., tuple[int, str, str]]
SWAPPED = {"red/00.png": "blue/red_00.png", "green/03.png": "red/green_03.png", "blue/07.png": "green/blue_07.png"}


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three colours, three of them in the folder of another colour."""
    root = write_images(tmp_path_factory.mktemp("labels") / "swapped", 12)
    for before, after in SWAPPED.items():
        (root / before).rename(root / after)
    return root


def clusters(images: int, classes: int) -> tuple[torch.Tensor, np.ndarray]:
    """Features far apart for each class, so that predictions of held-out images are certain."""
    labels = np.arange(images) % classes
    noise = np.random.default_rng(0).normal(0, 0.1, (images, classes))
    return torch.from_numpy(5 * np.eye(classes)[labels] + noise).float(), labels


def split_of(labels: np.ndarray) -> Split:
    return Split([f"{i:03}.png" for i in range(len(labels))], labels, lambda index: b"")


def test_swapped_labels_come_first() -> None:
    features, correct = clusters(200, 4)
    swapped = np.random.default_rng(1).choice(200, 10, replace=False)
    labels = correct.copy()
    labels[swapped] = (labels[swapped] + 1) % 4
    positions, splits = np.arange(200) + 7, ["train"] * 150 + ["val"] * 50
    ranking, fitted = label_check.judged(
        features, split_of(labels), classes=tuple("abcd"), splits=splits, positions=positions
    )
    first = ranking.positions[:10] - 7
    assert sorted(first) == sorted(swapped) and ranking.differing.tolist() == list(range(10))
    assert ranking.names[:10] == [f"{i:03}.png" for i in first] and ranking.splits[:10] == [splits[i] for i in first]
    assert (ranking.predicted[:10] == correct[first]).all() and (ranking.labels[:10] == labels[first]).all()
    assert ranking.accuracy == pytest.approx(0.95) and fitted.folds == 5 and ranking.informative
    own = fitted.held_out.double().softmax(1).numpy()[np.arange(200), labels]
    assert ranking.label_probability == pytest.approx(np.sort(own))


def test_the_order_of_the_ranking_by_hand() -> None:
    labels = np.array([0, 1, 0, 1, 2])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    names = list("vwxyz")
    ranking = rank_labels(
        probabilities, labels, classes=("a", "b", "c", "unused"), names=names, splits=["val"] * 5,
        positions=np.arange(5), units=names,
    )  # fmt: skip
    assert list(ranking.names) == ["w", "x", "v", "y"]  # w and x are equally improbable; z is alone in its class
    assert ranking.label_probability.tolist() == [0.4, 0.4, 0.7, 0.8]
    assert ranking.predicted.tolist() == [0, 1, 0, 1] and ranking.predicted_probability.tolist() == [0.5, 0.5, 0.7, 0.8]
    assert ranking.accuracy == 0.5 and ranking.largest_share == 0.5 and not ranking.informative
    says_little, no_proof, few, alone = ranking.cautions()
    assert "agree with 50.0% of the labels, not clearly more than always the largest class (50.0%)" in says_little
    assert no_proof.startswith("a low probability is no proof")
    assert few.endswith("low probabilities: a, b") and alone.endswith("one image or one group: 1 image of c")


def test_images_of_one_group_do_not_predict_one_another() -> None:
    """Every group has a feature of its own, by which its images would predict each other's labels with certainty."""
    group, rng = np.repeat(np.arange(40), 3), np.random.default_rng(0)
    features = torch.from_numpy(10 * np.eye(40)[group]).float()
    labels = rng.permutation(np.arange(40) % 2)[group]
    labels[-3:] = 2  # all images of a class are of one group
    about = {"classes": tuple("abc"), "splits": ["train"] * 120, "positions": np.arange(120)}
    alike, _ = label_check.judged(features, split_of(labels), **about)  # type: ignore[arg-type]
    grouped = replace(split_of(labels), groups=[f"patient {i}" for i in group])
    apart, fitted = label_check.judged(features, grouped, **about)  # type: ignore[arg-type]
    assert alike.accuracy > 0.85 and np.median(alike.label_probability) > 0.9 and not alike.alone
    assert apart.label_probability.max() < 0.6 and not apart.informative and fitted.folds == 5
    assert (apart.alone, apart.unranked, len(apart)) == (("c",), 3, 117)
    assert "one image or one group: 3 images of c" in apart.cautions()[-1]


def test_the_command(mislabelled: Path, run: Path, tmp_path: Path, command: Command) -> None:
    (mislabelled / "red" / "cut.png").write_bytes(b"no image")
    page, table = tmp_path / "labels.html", tmp_path / "labels.csv"
    code, out, err = command(
        "check", mislabelled, "--weights", run, "--html", page, "--table", table, "--workers", 0, "--limit-listed", 3
    )
    (mislabelled / "red" / "cut.png").unlink()
    assert code == 1 and "cross-validation on the features of 36 images" in err
    lines = [line.split() for line in out.splitlines()]
    ranked = [line for line in lines if len(line) == 7 and line[0].isdecimal()]
    assert {line[1]: line[5] for line in ranked} == {after: before.split("/")[0] for before, after in SWAPPED.items()}
    assert "3 of 36 images are predicted as another class than their label" in out
    assert "agree with 91.7% of the labels (always the largest class: 33.3%)" in out
    assert "corrupt image skipped: red/cut.png: " in out and "1 of 37 images is corrupt and not ranked" in out
    assert "the images of all splits together (" in out and f"{page}: thumbnails of 3 images" in out
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 37)]
    assert {row["image"] for row in rows[:3]} == set(SWAPPED.values())
    assert {row["split"] for row in rows} == {"train", "val"}
    below = [float(row["label_probability"]) for row in rows]
    assert below == sorted(below) and list(rows[0])[3:5] == ["label", "predicted"]


def test_the_page_stands_alone(
    browser: object,
    mislabelled: Path,
    run: Path,
    tmp_path: Path,
    command: Command,
) -> None:
    page = tmp_path / "labels.html"
    code, _, _ = command("check", mislabelled, "--weights", run, "--html", page, "--workers", 0)
    assert code == 0
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|url\(""", text)
    for width, scheme, ground in ((1280, "light", "rgb(255, 255, 255)"), (390, "dark", "rgb(20, 23, 26)")):
        tab, said = opened(browser, page, viewport={"width": width, "height": 800}, color_scheme=scheme)
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        cards = tab.locator(".labels figure")
        assert cards.count() == 3 and {one.split(" ")[0] for one in tab.locator(".labels b").all_inner_texts()} == {
            "red", "green", "blue",
        }  # fmt: skip
        captions = [one.split("\n") for one in tab.locator(".labels .quiet").all_inner_texts()]
        assert {name for _, name in captions} == set(SWAPPED.values())
        assert [place.split(", ")[0] for place, _ in captions] == ["1", "2", "3"]
        tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        assert tab.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))") == [
            40, 40, 40,
        ]  # fmt: skip
        assert said == []


def test_names_are_escaped_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inceptionnet.report import labels as page_module

    from .data.made import png

    names = [f"<b>{i}" for i in range(6)]
    split = Split(names, np.array([0, 0, 0, 1, 1, 1]), lambda index: png(40 * index) if index else b"gone")
    probabilities = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.7, 0.3], [0.1, 0.9]])
    ranking = rank_labels(
        probabilities, split.labels, classes=("<i>", "&"), names=names, splits=["train"] * 6, positions=np.arange(6),
        units=names,
    )  # fmt: skip
    monkeypatch.setattr(page_module, "MOST", 4)
    file = tmp_path / "page.html"
    shown = page_module.write_labels(file, ranking, split, title="<u>", notes=["a note"])
    text = file.read_text()
    assert shown == 3 and text.count("<figure>") == 3  # one of four cannot be decoded any more
    assert "<b>1" not in text and "&lt;b&gt;1" in text and "&lt;i&gt;" in text and "<u>" not in text
    assert "The first 3 of 5 images are shown" in text and "A note." in text


def test_features_that_a_run_keeps_are_not_computed_again(
    colours: Path, run: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(plan(colours, run), tmp_path / "head")
    data = shutil.copytree(colours, tmp_path / "moved")
    computed: list[str] = []
    real = head.EvalLoader

    def counting(images: Split, *rest: object, **options: object) -> object:
        computed.extend(images.names)
        return real(images, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(head, "EvalLoader", counting)

    def ranked(*arguments: object) -> tuple[list[str], str, dict[str, float]]:
        computed.clear()
        code, out, _ = command("check", data, "--workers", 0, "--json", *arguments)
        found = json.loads(out)
        assert code == 0 and found["images"] == 36
        return sorted(computed), out, {row["image"]: row["label_probability"] for row in found["labels"]}

    val = sorted(open_source(data).splits["val"].names)
    once, _, kept = ranked("--weights", tmp_path / "head")
    assert once == val
    every, out, whole = ranked("--weights", run)  # the same features, but of a run without them
    assert len(every) == 36 and kept == pytest.approx(whole, abs=0.01)
    assert "the weights were trained on colours: their features may repeat incorrect labels" in out
    (data / "red" / "00.png").write_bytes((data / "red" / "01.png").read_bytes())  # no longer the data of the run
    assert len(ranked("--weights", tmp_path / "head")[0]) == 36


def test_errors(mislabelled: Path, run: Path, tmp_path: Path, command: Command) -> None:
    listing = tmp_path / "labels.csv"
    listing.write_text("image,label\n" + "".join(f"{kind}/{i:02}.png,{kind};any\n" for kind in ("red", "blue")
                                                  for i in range(8, 12)))  # fmt: skip
    for arguments, expected in {
        ("--html", tmp_path / "x.html"): "is for the ranking of labels; add --weights",
        ("--table", tmp_path / "x.csv"): "is for the ranking of labels; add --weights",
        ("--weights", run, "--table", tmp_path / "x.txt"): "expected a file ending in .csv or .parquet",
        ("--weights", run, "--html", tmp_path / "no" / "x.html"): "there is no folder",
        ("--weights", run, "--labels", listing): "expected one label an image to rank the labels, got several",
        ("--weights", tmp_path / "none.pt"): "none.pt",
    }.items():
        code, out, err = command("check", mislabelled, "--workers", 0, *arguments)
        assert code == 2 and expected in err and err.count("\n") <= 2 and not out, err
    stream = Source("web", ("a", "b"), {"train": StreamSplit("web", 4, 1, lambda shard: iter(()))}, "")
    with pytest.raises(DataError, match=r"^web: expected images in files to rank their labels, got a stream; download"):
        label_check.all_images(stream)


def test_classes_of_one_image_each_cannot_be_ranked() -> None:
    features, labels = clusters(4, 4)
    about = {"classes": tuple("abcd"), "splits": ["train"] * 4, "positions": np.arange(4)}
    with pytest.raises(DataError, match="to hold some out, got 4 images of 4 classes; add"):
        label_check.judged(features, split_of(labels), **about)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="got 4 images of 1 class; add"):
        label_check.judged(features, split_of(labels * 0), **about)  # type: ignore[arg-type]


def test_the_weights_of_others_have_no_caution(mislabelled: Path, run: Path) -> None:
    classifier = load(run, device="cpu")
    source = open_source(mislabelled)
    assert not label_check.trained_on(classifier, None, source)  # trained on images of another name
