"""Comparing finished runs: the figures against those of `evaluate` and scipy, what differs, errors, and the page."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from inceptionnet import load_model, read_record, save_weights
from inceptionnet.errors import RunError
from inceptionnet.report.charts import COLOURS
from inceptionnet.report.plots import PALETTE
from inceptionnet.study.comparison import ONE_SEED, compare
from inceptionnet.study.comparison_page import write_comparison
from inceptionnet.study.curves import Curve, curve_charts, draw_curves, read_curve, save_figure, themed_svg
from inceptionnet.train.loop import train
from inceptionnet.train.run import Run
from inceptionnet.weights.folder import RUN_WEIGHTS

from .conftest import EPOCHS_OF_RUN, Page, as_if_on, opened, tiny_plan
from .test_sigmoid import tagged

Command = Callable[..., tuple[int, str, str]]
LR, SMOOTHING = 0.001, 0.25


def twin(run: Path, out: Path) -> Path:
    """A copy of a run whose logits are those of the next class: where one is correct, the other is not."""
    shutil.copytree(run, out)
    model, record = load_model(run), read_record(run)
    last = model.head.logits
    for tensor in (last.weight, last.bias):
        tensor.data = tensor.data.roll(1, 0)
    save_weights(model, out / RUN_WEIGHTS, classes=record.classes, preprocessing=record.preprocessing,
                 provenance=record.provenance)  # fmt: skip
    return out


def changed(run: Path, out: Path, change: Callable[[dict[str, Any]], object], name: str = "run.json") -> Path:
    """A copy of a run with another run.json."""
    shutil.copytree(run, out)
    about = json.loads((out / name).read_text())
    change(about)
    (out / name).write_text(json.dumps(about))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def other(colours: Path, folder: Path) -> Path:
    """Another run on the images of `run`, with other settings."""
    settings = {"optimizer.lr": LR, "loss.label_smoothing": SMOOTHING, "network.dropout": 0.5, "log.report": True}
    train(tiny_plan(colours, epochs=1, size=40, settings=settings), folder / "other")
    return folder / "other"


@pytest.fixture(scope="module")
def split_run(colours: Path, folder: Path) -> Path:
    """A run on images in the folders train, val and test."""
    for name, numbers in {"train": range(8), "val": range(8, 10), "test": range(10, 12)}.items():
        for colour in colours.iterdir():
            (folder / "split" / name / colour.name).mkdir(parents=True)
            for i in numbers:
                shutil.copy(colour / f"{i:02}.png", folder / "split" / name / colour.name)
    train(tiny_plan(folder / "split", epochs=1), folder / "on_split")
    return folder / "on_split"


@pytest.fixture(scope="module")
def labels_run(folder: Path) -> Path:
    """A run with several labels an image."""
    data = tagged(folder / "tagged", 24)
    train(tiny_plan(data, epochs=1, labels=str(data / "labels.csv")), folder / "labels")
    return folder / "labels"


def predictions(command: Command, run: Path, data: Path, split: str, file: Path) -> dict[str, dict[str, str]]:
    """What `evaluate` writes for a run by itself, by image."""
    code, _, err = command("evaluate", run, data, "--split", split, "--predictions", file, "--workers", 0)
    assert code == 0, err
    with open(file, newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def test_paired_figures_are_those_of_the_written_predictions(
    run: Path, other: Path, colours: Path, tmp_path: Path, command: Command
) -> None:
    third, table = twin(run, tmp_path / "twin"), tmp_path / "table.csv"
    code, out, err = command("compare", run, other, third, "--json", "--table", table, "--workers", 0)
    assert code == 0, err
    found, runs = json.loads(out), {"colours": run, "other": other, "twin": third}
    each = {name: predictions(command, one, colours, "val", tmp_path / f"{name}.csv") for name, one in runs.items()}
    assert [one["run"] for one in found["runs"]] == [*each]
    correct = {
        name: {image for image, row in rows.items() if row["label"] == row["predicted"]} for name, rows in each.items()
    }
    assert len(found["paired"]) == 3 and found["split"] == "val" and found["images"] == len(each["other"]) == 5
    for one in found["paired"]:
        b = len(correct[one["first"]] - correct[one["second"]])
        c = len(correct[one["second"]] - correct[one["first"]])
        assert (one["only_first_correct"], one["only_second_correct"]) == (b, c)
        assert one["p_value"] == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1)
        assert one["accuracy_difference"] == pytest.approx((b - c) / 5)
        low, high = one["accuracy_difference_interval"]
        assert low <= one["accuracy_difference"] <= high
    apart = {image for image in each["other"] if len({rows[image]["predicted"] for rows in each.values()}) > 1}
    assert len(apart) == found["disagreements"] == 5, "the twin says another class for every image"
    with open(table, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["image"] for row in rows} == apart
    for row in rows:
        for name, own in each.items():
            assert row[f"predicted_{name}"] == own[row["image"]]["predicted"]
            assert row[f"correct_{name}"] == str(row["image"] in correct[name])
            assert float(row[f"loss_{name}"]) == pytest.approx(float(own[row["image"]]["loss"]), rel=1e-3, abs=1e-5)
    spread = [np.ptp([float(row[f"loss_{name}"]) for name in each]) for row in rows]
    assert spread == sorted(spread, reverse=True)


def test_settings_that_differ_are_those_that_were_changed(run: Path, other: Path) -> None:
    found = compare([run, other])
    assert found.settings == {
        "size": [32, 40], "optimizer.lr": [0.004, LR], "schedule.epochs": [EPOCHS_OF_RUN, 1],
        "loss.label_smoothing": [0.1, SMOOTHING], "network.dropout": [None, 0.5],
    }  # fmt: skip
    rows = Run(run).read_metrics()
    evaluation = json.loads((run / "evaluation.json").read_text())
    first = found.runs[0]
    assert first.figures == {name: evaluation[name] for name in ("top1", "top2")}
    assert (first.epochs, first.seconds, first.split) == (EPOCHS_OF_RUN, rows[-1]["elapsed_s"], "val")
    assert first.parameters == sum(one.numel() for one in load_model(run).parameters())
    error, loss = found.curves["top1_error"][0], found.curves["loss"][0]
    assert error.values == pytest.approx([100 - 100 * row["val_top1"] for row in rows])
    assert loss.values == [row["val_loss"] for row in rows] and loss.epochs == [*range(1, EPOCHS_OF_RUN + 1)]
    assert loss.minutes == pytest.approx([row["elapsed_s"] / 60 for row in rows])


def test_other_held_out_images_are_said_and_nothing_is_compared_on_them(
    run: Path, colours: Path, tmp_path: Path, command: Command
) -> None:
    as_if_on(Path(shutil.copytree(run, tmp_path / "seed1")), colours, seed=1)
    code, out, err = command(
        "compare", run, tmp_path / "seed1", "--table", tmp_path / "t.csv", "--out", tmp_path / "out", "--workers", 0
    )
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if "did not hold out the same images" in line]
    assert "(colours; seed1)" in line and "McNemar" not in out
    assert re.search(r"seed +0 +1\s", out) and ONE_SEED in out
    assert f"{tmp_path / 't.csv'}: not written" in out and not (tmp_path / "t.csv").exists()
    page = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert "did not hold out the same images" in page.text and "McNemar" not in page.text
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["paired"] == [] and found["settings"] == {"seed": [0, 1]} and len(found["curves"]["loss"]) == 2


def test_a_test_split_is_used_and_nothing_was_chosen_by_it(split_run: Path, tmp_path: Path, command: Command) -> None:
    again = twin(split_run, tmp_path / "twin")
    code, out, err = command("compare", split_run, again, "--out", tmp_path / "out", "--workers", 0)
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["split"] == "test" and found["first_disagreements"][0]["image"].startswith("test/")
    assert "nothing was chosen by it" in out
    assert "nothing was chosen by it" in Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).text
    code, out, _ = command("compare", split_run, again, "--split", "val", "--workers", 0)
    assert code == 0 and "nothing was chosen" not in out and "the validation split, which flatters" in out


def test_data_that_moved_is_found_with_an_option(split_run: Path, folder: Path, tmp_path: Path, command) -> None:
    def gone(about: dict[str, Any]) -> None:
        about["plan"]["data"] = str(tmp_path / "gone")

    moved = changed(split_run, tmp_path / "moved", gone)
    code, _, err = command("compare", split_run, moved, "--workers", 0)
    assert code == 2 and "the images of the run in" in err and "with --data" in err and err.count("\n") == 1
    code, out, err = command("compare", split_run, moved, "--data", folder / "split", "--workers", 0)
    assert code == 0 and "no setting differs" in out and "the runs predict the same for every image" in out, err


def test_the_top5_error_is_drawn_where_all_runs_have_it(run: Path, tmp_path: Path) -> None:
    first, second = (twin(run, tmp_path / name) for name in ("first", "second"))
    rows = [{**row, "val_top5": 1 - row["val_top1"]} for row in Run(run).read_metrics()]
    Run(first).write_metrics(rows)
    assert [*compare([first, second]).curves] == ["top1_error", "loss"]
    Run(second).write_metrics(rows)
    found = compare([first, second])
    assert [*found.curves] == ["top1_error", "top5_error", "loss"]
    assert found.curves["top5_error"][1].values == pytest.approx([100 * row["val_top1"] for row in rows])


def test_several_labels(labels_run: Path, run: Path, tmp_path: Path, command: Command) -> None:
    again = twin(labels_run, tmp_path / "twin")
    found = compare([labels_run, again])
    assert found.same_images is not None and [*found.curves] == ["map", "subset_error", "loss"]
    members = found.same_images.evaluated.metrics.evaluation.members
    first, second = (one.correct for one in members)
    pair = found.same_images.paired[0, 1]
    assert pair.only_first_correct == np.sum(first & ~second) and pair.only_second_correct == np.sum(second & ~first)
    apart = (members[0].predicted != members[1].predicted).any(1).sum()
    assert len(found.same_images.disagreements) == apart
    assert {"mean_average_precision", "subset_accuracy"} < found.runs[0].figures.keys()
    write_comparison(tmp_path / "out", found)
    assert "subset accuracy" in Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).text
    code, _, err = command("compare", run, labels_run)
    assert code == 2 and "has several labels an image and" in err and err.count("\n") == 1


def test_what_cannot_be_compared_is_one_line(
    run: Path, other: Path, colours: Path, tmp_path: Path, command: Command
) -> None:
    begun, full, file = tmp_path / "begun", tmp_path / "full", tmp_path / "file"
    shutil.copytree(run, begun)
    (begun / "evaluation.json").unlink()
    full.mkdir()
    (full / "mine").touch()
    file.touch()
    for arguments, message in (
        ((run,), "expected two or more run folders to compare, got 1"),
        ((run, run.parent / "." / run.name), "the same run twice"),
        ((run, colours), f"{colours}: expected a run folder, got a folder without run.json"),
        ((run, tmp_path / "none"), "got no such folder"),
        ((run, begun), f"{begun}: expected a finished run, no epoch of it is finished yet"),
        ((run, other, "--split", "test"), "expected data with a split test, got train, val"),
        ((run, other, "--out", full), f"{full}: exists and is not empty"),
        ((run, other, "--out", file), "got a file; choose another --out"),
        ((run, other, "--out", file / "below"), "cannot be written"),
        ((run, other, "--table", tmp_path / "t.txt"), "--table"),
        ((run, other, "--device", "nowhere"), "nowhere"),
    ):
        code, _, err = command("compare", *arguments)
        assert code == 2 and message in err and err.count("\n") == 1, err


HEAD = "epoch,elapsed_s,images_per_s,data_wait,val_loss"
DAMAGED = {
    "no rows": ("metrics.csv", HEAD, "it has no rows"),
    "no time": ("metrics.csv", "epoch,val_loss\n1,2", "expected a number in column elapsed_s, got none"),
    "no speed": ("metrics.csv", "epoch,elapsed_s\n1,2", "expected a number in column images_per_s, got none"),
    "an infinite epoch": ("metrics.csv", f"{HEAD}\ninf,1,1,1,1", "expected a number in column epoch, got inf"),
    "a long cell": ("metrics.csv", f"{HEAD}\n{'1' * 200_000},1,1,1,1", "cannot be read: field larger than"),
    "a text for a number": ("evaluation.json", {"top1": "high"}, "is damaged"),
    "a list for a number": ("evaluation.json", {"images": [1]}, "is damaged"),
    "a text for intervals": ("evaluation.json", {"intervals": dict.fromkeys(("top1", "top2", "top5"), "x")}, "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_figures_are_one_line(case: str, run: Path, other: Path, tmp_path: Path, command: Command) -> None:
    name, content, message = DAMAGED[case]
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    if isinstance(content, dict):
        content = json.dumps(json.loads((run / name).read_text()) | content)
    (copy / name).write_text(str(content))
    code, _, err = command("compare", copy, other)
    assert code == 2 and name in err and message in err and err.count("\n") == 1, err


def test_other_data_is_refused_by_what_differs(
    run: Path, colours: Path, split_run: Path, tmp_path: Path, command: Command
) -> None:
    def trained_on(name: str, change: Callable[[Path], object]) -> Path:
        data = tmp_path / name
        shutil.copytree(colours, data)
        change(data)
        shutil.copytree(run, tmp_path / f"run_{name}")
        return as_if_on(tmp_path / f"run_{name}", data)

    def resaved(data: Path) -> None:
        for image in data.rglob("*.png"):
            Image.new("RGB", (50, 50), (10, 20, 30)).save(image)

    for name, change, message in (
        ("classes", lambda data: (data / "red").rename(data / "rose"), "other classes (without red and with rose)"),
        ("images", lambda data: (data / "red" / "00.png").rename(data / "red" / "x.png"), "other images ("),
        ("files", resaved, "other files under the same names"),
    ):
        code, _, err = command("compare", run, trained_on(name, change), "--workers", 0)
        assert code == 2 and message in err and err.count("\n") == 1, err
    code, _, err = command("compare", run, split_run)
    assert code == 2 and "other images (without " in err


def test_notes_say_what_makes_figures_incomparable(split_run: Path, tmp_path: Path) -> None:
    def elsewhere(about: dict[str, Any]) -> None:
        about["environment"]["device"] = "cuda:0"
        about["recipe"]["schedule"]["epochs"] = 9
        about["changes"] = [{"setting": "schedule.epochs", "epoch": 1, "before": 1, "after": 9}]

    notes = compare([split_run, changed(split_run, tmp_path / "moved", elsewhere)]).notes
    assert any("training times are not comparable: another device (cpu, cuda:0)" in note for note in notes)
    assert any("moved has 1 of 9 epochs" in note for note in notes)
    assert any("schedule.epochs from epoch 1: 1 → 9" in note for note in notes)


def test_runs_of_one_name_are_told_apart_by_their_folders(split_run: Path, tmp_path: Path) -> None:
    runs = [Path(shutil.copytree(split_run, tmp_path / place / "run")) for place in ("a", "b")]
    assert [one.name for one in compare(runs).runs] == ["a/run", "b/run"]


def test_curves_that_are_not_there(split_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected the columns epoch, elapsed_s and val_map or test_map, got epoch"):
        read_curve(Run(split_run), "map", label="", colour=0)
    with pytest.raises(RunError, match="no epoch of it is finished yet"):
        read_curve(Run(tmp_path), label="", colour=0)


def test_figures_draw_every_curve_and_are_the_same_each_time(tmp_path: Path) -> None:
    curves = [Curve(f"_run $x$ {i}", i, [1, 2, 3], [0.5, 1, 1.5], [30 - i, 20, 10 + i], faint=i == 1) for i in range(9)]
    figure = draw_curves({"top-1 error (%)": curves}, "a $title$")
    for axes, x in zip(figure.axes, ([1, 2, 3], [0.5, 1, 1.5]), strict=True):
        assert sorted(line.get_ydata()[0] for line in axes.lines) == [*range(22, 31)]
        assert all([*line.get_xdata()] == x for line in axes.lines)
    entries = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert len(entries) == 8 and entries[0].endswith(": 10 at the end") and not any("x$ 1:" in text for text in entries)
    files = save_figure(figure, tmp_path / "curves")
    assert [file.name for file in files] == ["curves.svg", "curves.png"]
    before = [file.read_bytes() for file in files]
    again = save_figure(draw_curves({"top-1 error (%)": curves}, "a $title$"), tmp_path / "b" / "curves")
    assert [file.read_bytes() for file in again] == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"curves.svg: cannot be written"):
        save_figure(figure, tmp_path / "file" / "curves")


def test_a_page_has_the_figures_in_its_own_colours() -> None:
    curves = [Curve(f"run {i}", i, [1, 2], [0.5, 1], [30, 20]) for i in range(8)]
    charts = [*curve_charts(curves, "loss", "a"), themed_svg(lambda: draw_curves({"loss": curves}), '"both" <b>')]
    for chart in charts:
        assert all(f"var(--c{i})" in chart for i in range(8)) and not any(colour in chart for colour in COLOURS)
    page = Page("".join(charts))
    assert page.loads == [] and len(page.ids) == len(set(page.ids))
    assert 'aria-label="&quot;both&quot; &lt;b&gt;"' in charts[2]


# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), severity 1, for linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}  # fmt: skip


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = to_xyz @ rgb.clip(0, 1) / (0.9505, 1, 1.089)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_are_readable_and_told_apart(mode: str) -> None:
    """Contrast 3:1 with the ground, as WCAG 2 asks of graphics; CIELAB distance 25, ten times what is just seen."""
    assets = Path(__file__).parent.parent / "src" / "inceptionnet" / "report" / "assets"
    at = 0 if mode == "light" else 1
    rules = (assets / "palette.css").read_text().split("@media")
    colours = re.findall(r"--c\d: (#\w{6});", rules[at])
    assert len(colours) == 8 and (mode == "dark" or tuple(colours) == PALETTE)
    ground = "#ffffff" if mode == "light" else re.findall(r"--ground: (#\w{6})", (assets / "report.css").read_text())[0]
    weights = np.array([0.2126, 0.7152, 0.0722])
    for colour in colours:
        low, high = sorted(float(weights @ linear(one)) for one in (colour, ground))
        assert (high + 0.05) / (low + 0.05) >= 3, colour
    for vision in VISION.values():
        seen = [lab(np.array(vision) @ linear(colour)) for colour in colours]
        assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) >= 25


@pytest.fixture(scope="module")
def page(run: Path, folder: Path) -> Path:
    """A page with long and odd names."""
    runs = [run, twin(run, folder / ("a_run_" + "x" * 40)), Path(shutil.copytree(run, folder / "a b <i>&amp;"))]
    write_comparison(folder / "out", compare(runs))
    return folder / "out" / "index.html"


def test_the_page_stands_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = Page(text)
    assert found.loads == [] and not re.search(r"url\((?!#)|@import", text) and len(found.ids) == len(set(found.ids))
    assert ONE_SEED in found.text and "not corrected for their number" in found.text and "a b <i>&amp;" in found.text


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(browser, page: Path, width: int) -> None:
    """Wide tables scroll inside their own box, and nothing is fetched."""
    tab, said = opened(browser, page, viewport={"width": width, "height": 900}, color_scheme="dark")
    assert tab.locator("svg.chart").count() == 4
    assert tab.locator("#images img").count() == 5, "the twin says another class for every image"
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    sticking_out = """[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, svg') &&
        one.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((one) => one.outerHTML)"""
    assert tab.evaluate(sticking_out) == []
    stroke = tab.evaluate("getComputedStyle(document.querySelector('svg.chart [style*=\"--c0\"]')).stroke")
    assert stroke == "rgb(43, 110, 252)", "the first colour in dark mode"
    assert said == []
