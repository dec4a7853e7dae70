"""The report: what is on the page, and that a browser shows it."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from inceptionnet.data.preprocess import Preprocessing
from inceptionnet.data.splits import Split, StreamSplit
from inceptionnet.errors import RunError
from inceptionnet.evaluate.evaluation import Evaluation
from inceptionnet.evaluate.metrics import measure
from inceptionnet.registry.create import create_model
from inceptionnet.report import images, page
from inceptionnet.report.page import Subject, rendered, write_report
from inceptionnet.report.plots import over_epochs
from inceptionnet.train.loop import train
from inceptionnet.train.run import Run
from tests.conftest import Page, opened, tiny_plan

SIZE = 32


def noise(seed: int, size: int = SIZE) -> bytes:
    """An image that no file format makes small."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def subject(
    count: int, classes: int, *, wrong: float = 0.3, files: int = 20, size: int = SIZE, name: str = "{}.png"
) -> Subject:
    """A report's subject with random predictions, a share of them incorrect."""
    rng = np.random.default_rng(0)
    names = tuple(f"class {i}" for i in range(classes))
    labels = rng.integers(classes, size=count)
    predicted = np.where(rng.random(count) < wrong, rng.integers(classes, size=count), labels)
    confidence = rng.uniform(0.2, 1, count).astype(np.float32)
    indices = np.arange(count)
    evaluation = Evaluation(
        names, indices, labels, predicted, confidence, labels == predicted, -np.log(confidence), (("x.jpg", "cut off"),)
    )
    encoded = [noise(i, size) for i in range(files)]
    split = Split([name.format(i) for i in range(count)], labels, lambda i: encoded[i % files])
    torch.manual_seed(0)
    model = create_model("inception_v1.slim", num_classes=classes, input_size=SIZE, width=0.125)
    epochs = [
        {"epoch": e, "step": 5 * e, "lr": 0.1 / e, "train_loss": 2 / e, "train_top1": 0.2 * e, "val_loss": 3 / e,
         "val_top1": 0.15 * e, "val_raw_loss": 4 / e, "val_raw_top1": 0.1 * e, "dead_features": 0.0, "skipped_steps": 0,
         "images_per_s": 100.0 + e, "data_wait": 0.25, "elapsed_s": 60.0 * e} for e in (1, 2, 3)
    ]  # fmt: skip
    return Subject(
        "a net on images", measure(evaluation), split, "val", "held out", model, Preprocessing(SIZE), epochs,
        {"plan": {"seed": 7, "classes": list(names), "nested": {"deep": None, "on": True}}, "version": "1"},
        repeat="inceptionnet train --repeat a --out b",
    )  # fmt: skip


def test_the_page_stands_alone_and_says_the_figures() -> None:
    about = subject(200, 6)
    text = rendered(about)
    found = Page(text)
    assert found.loads == [] and not re.search(r"url\((?!#)|@import", text)
    assert len(found.ids) == len(set(found.ids))
    evaluation, metrics = about.metrics.evaluation, about.metrics
    for figure in (evaluation.top1, evaluation.topk, metrics.ece, metrics.macro_recall, metrics.macro_precision):
        assert f"{100 * figure:.1f}\N{NO-BREAK SPACE}%" in found.text
    assert "1 image could not be decoded and is not counted" in found.text and "x.jpg: cut off" in found.text
    assert "3 epochs in 0:03:00" in found.text and "102 images/s" in found.text
    assert "val, raw weights" in text and "val, averaged" in text  # both curves
    assert "nested.deep" in found.text and "inceptionnet train --repeat a --out b" in found.text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    cells = {(i, j): n for i, j, n in data["cells"]}
    assert all(cells.get((i, j), 0) == metrics.confusion_matrix[i, j] for i in range(6) for j in range(6))
    assert sum(map(len, data["images"].values())) == 200


def test_what_was_found_before_the_training_is_said_beside_the_accuracy(run: Path, tmp_path: Path, command) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    about = Run(copied).about() | {"leaks": ["warning: 3 of 9 val images are <copies>", "looked at 5 images only"]}
    Run(copied).write_sealed("run.json", about)
    code, _, err = command("report", copied, "--out", tmp_path / "r.html", "--workers", 0)
    assert code == 0, err
    before = Page((tmp_path / "r.html").read_text(encoding="utf-8")).text.partition("top-1 accuracy")[0]
    assert "Found in the images before the training" in before and "3 of 9 val images are <copies>" in before
    assert "warning: 3 of 9" not in before and "looked at 5 images only" in before


def test_names_are_text_whatever_they_hold() -> None:
    bad = "</script><img src=x onerror=alert(1)>&\"'{}.png"
    about = subject(20, 3, name=bad)
    about = replace(about, title=bad, settings={bad: {bad: bad}})
    found = Page(rendered(about))
    assert found.loads == [] and bad in found.text


def test_many_classes_and_images_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST", 300)
    about = subject(3000, 200, wrong=0.6)
    content = page._content(about)
    assert len(content["shown"]) == page.MATRIX and len(content["pairs"]) == page.PAIRS
    assert sorted(content["data"]["clustered"]) == list(range(page.MATRIX))
    assert content["small"] == 300
    monkeypatch.setattr(images, "BUDGET_BYTES", 50_000)
    small = images.small_images(about.metrics.evaluation, about.split, about.prep)  # type: ignore[arg-type]
    assert sum(len(file) for cell in small.values() for _, _, file in cell) <= 50_000


def test_each_cell_has_its_first_image_before_any_has_many() -> None:
    about = subject(400, 4)
    turns = images._round_robin(about.metrics.evaluation)
    labels, predicted = about.metrics.evaluation.labels, about.metrics.evaluation.predicted
    cells = [(int(labels[i]), int(predicted[i])) for i in turns]
    assert sorted(turns) == list(range(400))
    assert {(i, j) for i, j in cells[:12]} == {(i, j) for i in range(4) for j in range(4) if i != j}
    most_confident = max(
        (i for i in range(400) if labels[i] != predicted[i]), key=about.metrics.evaluation.confidence.__getitem__
    )
    assert most_confident in turns[:12]


def test_confused_classes_are_neighbours() -> None:
    confusion = np.diag([10, 10, 10, 10, 10, 10])
    confusion[0, 3] = confusion[3, 0] = confusion[1, 4] = confusion[5, 2] = 6
    order = page._clustered(confusion)
    places = {k: order.index(k) for k in range(6)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in ((0, 3), (1, 4), (2, 5)))
    assert page._clustered(np.ones((2, 2), np.int64)) == [0, 1]


def test_images_that_have_gone_since_are_left_out(tmp_path: Path) -> None:
    about = subject(40, 3)

    def read(index: int) -> bytes:
        return b"no image" if index % 2 else noise(index)

    split = Split(about.split.names, about.split.labels, read)  # type: ignore[union-attr]
    content = page._content(replace(about, split=split))
    assert content["small"] == 20 and 0 < len(content["confident_errors"]) < images.ERRORS


def test_a_stream_has_a_report_without_images() -> None:
    about = replace(subject(40, 3), split=StreamSplit("stream", 40, 1, lambda shard: iter(())))
    text = rendered(about)
    assert "were streamed" in text and 'id="examples"' not in text


@pytest.mark.parametrize("epochs", [[1], [0, 1], [1, 2, 3], list(range(1, 31))])
def test_epochs_are_whole_numbers(epochs: list[int]) -> None:
    axes = Figure().subplots()
    axes.plot(epochs, epochs, "o")
    over_epochs(axes)
    assert all(tick.is_integer() for tick in axes.get_xticks())


def test_weights_without_a_run_have_no_curves() -> None:
    text = rendered(replace(subject(40, 3), epochs=(), settings={}, repeat=""))
    assert 'id="training"' not in text and "Repeat this run" not in text


@pytest.mark.parametrize("answers", ["all correct", "all incorrect", "one image"])
def test_pages_of_odd_evaluations(answers: str) -> None:
    count = 1 if answers == "one image" else 12
    about = subject(count, 3, wrong=0.0)
    evaluation = about.metrics.evaluation
    if answers == "all incorrect":
        evaluation = replace(evaluation, predicted=(evaluation.labels + 1) % 3, in_top=~evaluation.in_top)
    text = rendered(replace(about, metrics=measure(evaluation)))
    assert ("Most confident errors" in text) == (answers == "all incorrect")
    assert ("Most confident correct predictions" in text) == (answers != "all incorrect")


def test_without_captum_the_page_says_how_to_have_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    text = rendered(subject(20, 3))
    assert "pip install &#39;inceptionnet[explain]&#39;" in text and "<img" in text


def test_an_unwritable_place_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"report.html: cannot be written"):
        write_report(tmp_path / "file" / "report.html", subject(4, 3))


def test_a_training_leaves_a_report_that_can_be_made_again(run: Path, tmp_path: Path, command) -> None:
    first = (run / "report.html").read_text(encoding="utf-8")
    again = tmp_path / "again.html"
    code, out, err = command("report", run, "--out", again, "--workers", 0)
    assert code == 0, err
    top1 = json.loads((run / "evaluation.json").read_text())["top1"]
    assert out.startswith(f"{again}: accuracy {top1:.2%} on")
    figures = r'<div class="tile">.*?</div>'
    assert re.findall(figures, first) == re.findall(figures, again.read_text(encoding="utf-8")) != []


def test_other_data_and_weights_without_their_run(run: Path, colours: Path, tmp_path: Path, command) -> None:
    weights, out = run / "weights.safetensors", tmp_path / "r.html"
    code, _, err = command("report", weights, "--data", colours, "--split", "all", "--out", out, "--workers", 0)
    assert code == 0, err
    text = Page(out.read_text(encoding="utf-8")).text
    assert "Evaluated on all" in text and "provenance" in text
    code, _, err = command("report", weights)
    assert code == 2 and err.endswith(": expected a run folder, or --data and --out with weights; give both\n")
    assert command("report", tmp_path / "nothing", "--data", colours, "--out", out)[0] == 2
    (tmp_path / "empty").mkdir()
    code, _, err = command("report", tmp_path / "empty")
    assert code == 2 and "expected a run folder, or --data and --out with weights" in err


def test_what_cannot_be_reported_is_said_before_any_work(
    run: Path, colours: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = tmp_path / "half"
    shutil.copytree(run, half)
    (half / "evaluation.json").write_text("{}")
    for arguments, message in (
        ((half,), "evaluation.json: is damaged: 'split'"),
        ((run, "--split", "test"), "expected the split test, got train, val"),
        ((run, "--data", tmp_path / "nothing"), "got no such file or folder"),
    ):
        code, _, err = command("report", *arguments)
        assert code == 2 and message in err and err.count("\n") == 1, err
    shutil.copy(run / "evaluation.json", half)
    (half / "metrics.csv").unlink()
    code, _, err = command("report", half, "--data", colours, "--workers", 0)
    assert code == 2 and "metrics.csv: cannot be read" in err
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, err = command("report", run)
    assert code == 2 and "the report needs jinja2; install it with: pip install 'inceptionnet[reports]'" in err


def test_a_training_without_jinja2_is_whole_and_says_what_is_missing(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    train(tiny_plan(colours, epochs=1, settings={"log.report": True}), tmp_path / "run")
    assert "warning: report.html not written: the report needs jinja2" in capsys.readouterr().err
    assert (tmp_path / "run" / "predictions.png").exists() and (tmp_path / "run" / "weights.safetensors").exists()


def test_a_training_can_go_without(colours: Path, tmp_path: Path) -> None:
    train(tiny_plan(colours, epochs=1, settings={"log.report": False}), tmp_path / "run")
    made = {file.name for file in (tmp_path / "run").iterdir()}
    assert "evaluation.json" in made and not made & {"curves.png", "predictions.png", "report.html"}


def test_a_browser_shows_the_images_of_a_cell(browser, tmp_path: Path) -> None:
    about = subject(150, 5)
    file = tmp_path / "report.html"
    write_report(file, about)
    tab, said = opened(browser, file, viewport={"width": 390, "height": 844})
    confusion = about.metrics.confusion_matrix
    assert tab.locator("#matrix button").count() == np.count_nonzero(confusion)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
    i, j, count = about.metrics.confused_pairs[0]
    tab.locator(f'#matrix button[data-cell="{i},{j}"]').click()
    assert (
        tab.locator("#cell h3")
        .inner_text()
        .startswith(f"{count} image{'s' * (count > 1)} of class {i} confused with class {j}")
    )
    shown = tab.locator("#cell img")
    assert shown.count() == count
    assert tab.evaluate("[...document.querySelectorAll('#cell img')].every(i => i.complete && i.naturalWidth === 32)")
    tab.locator('#table button[data-class="2"]').click()
    assert shown.count() == confusion[2].sum() - confusion[2, 2]
    tab.locator("#cell button").click()
    assert tab.locator("#cell").is_hidden()
    assert said == []


def test_a_browser_sorts_matrix_and_table(browser, tmp_path: Path) -> None:
    about = subject(150, 5)
    file = tmp_path / "report.html"
    write_report(file, about)
    tab, said = opened(browser, file, color_scheme="dark")
    recalls = [one.recall for one in about.metrics.classes]

    def rows() -> list[str]:
        return tab.locator("#matrix tbody th").all_inner_texts()

    assert rows() == [f"class {i}" for i in range(5)]
    tab.locator("#order").select_option("recall")
    assert rows() == [f"class {i}" for i in np.argsort(recalls, kind="stable")]
    tab.locator("#order").select_option("clustered")
    assert (
        sorted(rows()) == [f"class {i}" for i in range(5)] == sorted(tab.locator("#matrix thead th").all_inner_texts())
    )
    diagonal = tab.locator("#matrix .diagonal").all_inner_texts()
    assert sorted(map(int, diagonal)) == sorted(about.metrics.confusion_matrix.diagonal())
    for _ in range(2):
        tab.locator("#table thead button", has_text="recall").click()
    names = tab.locator("#table tbody tr td:first-child").all_inner_texts()
    assert names == [f"class {i}" for i in np.argsort(recalls, kind="stable")]
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert said == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("classes", [40, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 12, 200))])
def test_nothing_is_wider_than_the_page(browser, tmp_path: Path, classes: int, width: int) -> None:
    """With long names of classes and images, and long settings; wide tables scroll inside their own box."""
    names = [f"a rather long class name {i:05}" if i % 2 else f"an_unbroken_long_class_n{i:06}" for i in range(classes)]
    about = subject(20 * classes, classes, name="a/folder/with_a_long_name/" + "x" * 60 + "{}.png")
    evaluation = replace(about.metrics.evaluation, classes=tuple(names))
    about = replace(
        about, metrics=measure(evaluation), settings={"plan": {"data": "/home/" + "y" * 90, "classes": names}},
        repeat="inceptionnet train --repeat /home/" + "z" * 120,
    )  # fmt: skip
    file = tmp_path / "report.html"
    write_report(file, about)
    tab, said = opened(browser, file, viewport={"width": width, "height": 900})
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.locator("#matrix button").first.click()
    tab.locator("#table tbody button").first.click()
    inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert tab.evaluate(inside)
    sticking_out = """[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, nav, svg') &&
        one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((one) => one.outerHTML)"""
    assert tab.evaluate(sticking_out) == []
    boxes = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).length"
    assert (tab.evaluate(boxes) > 0) or classes == 3, "wide tables scroll"
    heads = (
        "[...document.querySelectorAll('#matrix thead span')].every((one) => one.scrollHeight <= one.clientHeight + 1)"
    )
    assert tab.evaluate(heads), "no name is cut above a column"
    rows = "[...document.querySelectorAll('#matrix tbody th')].every((one) => one.scrollWidth <= one.clientWidth + 1)"
    assert tab.evaluate(rows), "nor beside a row"
    assert said == []


@pytest.mark.slow
def test_ten_thousand_images_are_one_small_page(browser, tmp_path: Path) -> None:
    """Noise, which no codec makes small, as large as the page shows it, is the worst that can come."""
    about = subject(10_000, 100, files=8, size=images.SMALL_PX)
    file = tmp_path / "report.html"
    write_report(file, replace(about, prep=Preprocessing(images.SMALL_PX, crop=1.0)))
    assert file.stat().st_size < 10_000_000
    tab, said = opened(browser, file)
    assert tab.locator("#matrix tbody tr").count() == page.MATRIX
    assert said == []


@pytest.mark.parametrize("name", ["head.json", "range_test.json"])
def test_damaged_figures_of_a_preparation_are_one_line(name: str, run: Path, tmp_path: Path, command) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    for text, what in (('{"trials": [{"loss": 1}]}', ": Field required"), ('{"trials": 3}', ": Field required")):
        (copy / name).write_text(text)
        code, _, err = command("report", copy)
        assert code == 2 and f"{name}: not written by this version, or damaged (" in err and what in err, err
        assert err.count("\n") == 1


@pytest.mark.parametrize("column", ["lr", "val_top1", "val_loss", "train_top1"])
def test_a_column_that_is_missing_is_named(column: str, run: Path, tmp_path: Path, command) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    text = (run / "metrics.csv").read_text()
    (copy / "metrics.csv").write_text(text.replace(f",{column},", ",other,"))
    code, _, err = command("report", copy, "--workers", 0)
    if column == "train_top1":  # a curve less
        assert code == 0
    else:
        assert code == 2 and "metrics.csv: expected a column" in err and err.count("\n") == 1, err
