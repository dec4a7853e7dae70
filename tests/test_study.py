"""Studies: what they say before a run, how they continue, and what their result is."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inceptionnet import load
from inceptionnet.classifier.evaluating import evaluate_together
from inceptionnet.cli import main
from inceptionnet.errors import ConfigurationError, DataError, Interrupted, MissingExtraError, RunError, TrainingError
from inceptionnet.study import cost, running
from inceptionnet.study.curves import draw_curves
from inceptionnet.study.figures import curves_of
from inceptionnet.study.result import Outcome, judge
from inceptionnet.study.running import run_study
from inceptionnet.study.spec import Arm, Study, read_study, studies
from inceptionnet.study.tables import arm_table, comparison_table, ends_of_grids, grid_table, verdict_line
from inceptionnet.study.trainings import Asked, Training, trainings
from inceptionnet.train import loop
from inceptionnet.train.run import Run

from .conftest import opened

TINY: dict[str, Any] = {
    "claim": "Label smoothing changes nothing.",
    "source": "[v3] section 7",
    "base": {"model": "inception_v1.slim", "size": 32, "width": 0.125, "epochs": 1, "batch_size": 8},
    "arms": {
        "none": {"settings": {"loss": {"label_smoothing": 0}}, "paper": "23.1 %"},
        "smoothing": {"settings": {"loss.label_smoothing": 0.1}},
    },
    "compare": [{"arm": "smoothing", "against": "none", "expect": "equal", "margin": 0.02}],
}
BOTH: dict[str, Any] = TINY["arms"]
TOGETHER = {"ensemble": ["none", "smoothing"]}
ENSEMBLE: dict[str, Any] = {
    "arms": {**BOTH, "both": TOGETHER, "both_twelve": {**TOGETHER, "crops": 12}},
    "compare": [{"arm": "both", "against": "none", "expect": "higher", "margin": 0.01}],
}


def study(**changes: Any) -> Study:
    return Study(**TINY | changes)


def asked(data: Path, seeds: int = 2, **changes: Any) -> Asked:
    return Asked("tiny.toml", str(data), seeds, workers=0, device="cpu", **changes)


@pytest.fixture(scope="module")
def done(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two arms and two seeds, run to its end."""
    out = tmp_path_factory.mktemp("studies") / "tiny"
    run_study(study(), asked(colours), out)
    return out


def outcome(
    arm: str, seed: int, accuracies: list[float], *, minutes: float = 10, value: str = "", **changes: Any
) -> Outcome:
    """A training with these accuracies after its epochs, which took as long as each other."""
    epochs = len(accuracies)
    rows: list[Mapping[str, float]] = [
        {"epoch": i, "elapsed_s": 60 * minutes * i / epochs, "val_top1": accuracy, "dead_features": 0.0}
        for i, accuracy in enumerate(accuracies, 1)
    ]
    made = Outcome(arm, value, seed, f"runs/{arm}-{seed}", "inception_v3", 0.25, 79, 10**6, 10**7, epochs, 10, rows)
    return replace(made, **changes)


# What a study is.


@pytest.mark.parametrize("name", studies())
def test_built_in_studies_can_be_run(name: str, tmp_path: Path) -> None:
    """Every arm is a possible training, in both forms, on data that has the classes for it."""
    found = read_study(name)
    assert found.claim.endswith(".") and found.source.startswith("[v")
    for one in (found, found.quickly()):
        made = trainings(one, Asked(name, "digits", 1), tmp_path)
        assert {training.arm for training in made} == set(one.trained)


def test_an_arm_has_what_the_base_has() -> None:
    base = Arm(model="inception_v3", width=0.25, settings={"optimizer": {"lr": 0.1, "name": "sgd"}})
    arm = Arm(model="inception_v4", settings={"optimizer": {"lr": 0.2}}).on(base)
    assert (arm.model, arm.width) == ("inception_v4", 0.25)
    assert arm.settings == {"optimizer.lr": 0.2, "optimizer.name": "sgd"}


def test_equal_cost_is_about_equal(colours: Path, tmp_path: Path) -> None:
    """The width with the nearest multiply-adds; the steps of 8 filters are coarse for narrow networks."""
    made = trainings(read_study("residual"), asked(colours, 1), tmp_path)
    costs = {one.arm: one.multiply_adds for one in made}
    assert costs["resnet_v1"] == pytest.approx(costs["v3"], rel=0.03)
    assert costs["resnet_v2"] == pytest.approx(costs["v4"], rel=0.03)


def test_runs_that_are_the_same_have_one_folder(colours: Path, tmp_path: Path) -> None:
    arms = {"a": {}, "b": {}, "c": {"settings": {"loss.label_smoothing": 0}}}
    one = study(arms=arms, compare=[{"arm": "a", "against": "b", "expect": "equal", "margin": 0.1}])
    a, b, c = trainings(one, asked(colours, 1), tmp_path)
    assert a.folder == b.folder != c.folder
    other = trainings(one, asked(colours, 1, base={"epochs": 2}), tmp_path)
    assert not {training.folder for training in other} & {a.folder, c.folder}
    assert trainings(one, replace(asked(colours, 1), device="auto"), tmp_path)[0].folder == a.folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"none": {"widht": 1}, "smoothing": {}}}, r"arms.none.widht: unknown key; did you mean width"),
        ({"colour": 1}, r"colour: unknown key; did you mean source"),
        ({"arms": {"none": {}}}, "expected two arms or more, got 1"),
        ({"arms": {"none": {}, "a/b": {}}}, "arms: expected names of letters, digits, _, - and ., got 'a/b'"),
        ({"compare": []}, "expected a comparison of two arms, got none"),
        ({"compare": [{"arm": "smooth", "against": "none", "expect": "equal", "margin": 0.1}]},
         "arm: no arm 'smooth'; did you mean smoothing"),
        ({"compare": [{"arm": "none", "against": "none", "expect": "equal", "margin": 0.1}]}, "compared with itself"),
        ({"compare": [{"arm": "smoothing", "against": "none", "expect": "equl", "margin": 0.1}]},
         r"compare.0.expect: Input should be 'higher', 'lower' or 'equal'"),
        ({"compare": [{"arm": "smoothing", "against": "none", "expect": "equal", "margin": 0}]},
         r"compare.0.margin: Input should be greater than 0"),
        ({"arms": {"none": {}, "smoothing": {"same_cost_as": "smoothing"}}}, "expected an arm with a width of its own"),
        (ENSEMBLE | {"arms": BOTH | {"both": {"ensemble": ["none", "smoothin"]}}},
         "ensemble: no arm 'smoothin'; did you mean smoothing"),
        (ENSEMBLE | {"arms": BOTH | {"both": {"ensemble": ["none", "none"]}}},
         "arms.both.ensemble: expected two different arms or more, got none, none"),
        (ENSEMBLE | {"arms": BOTH | {"both": {"ensemble": ["none", "smoothing"], "width": 1}}},
         "arms.both: an ensemble has the networks of its arms; leave width out"),
        (ENSEMBLE | {"arms": {**BOTH, "smoothing": {"grid": {"optimizer.lr": [1, 2]}}, "both": TOGETHER}},
         "arms.both.ensemble: smoothing has no single network for each seed"),
        (ENSEMBLE | {"compare": [{"arm": "both", "against": "none", "expect": "equal", "margin": 0.1,
                                  "quantity": "early_accuracy"}]}, "both is an ensemble, which has no early_accuracy"),
        (ENSEMBLE | {"quick": {"arms": ["none", "both"]}}, "quick: ensemble: no arm 'smoothing'"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_study(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(toml(TINY | changes), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message) as error:
        read_study(str(file))
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", studies())
def test_a_study_is_read_from_its_study_json(name: str) -> None:
    """Which has every field, those that nobody stated too."""
    found = read_study(name)
    assert Study(**json.loads(json.dumps(found.model_dump()))) == found


def toml(values: Mapping[str, Any]) -> str:
    """TOML of nested values; JSON's inline tables and strings are TOML's but for colons."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {text(one)}" for key, one in value.items()) + "}"
        return "[" + ", ".join(map(text, value)) + "]" if isinstance(value, list) else json.dumps(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in values.items())


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(toml(TINY), encoding="utf-8")
    assert read_study(str(tmp_path / "mine.toml")) == study()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("residul", "no study 'residul': did you mean residual"),
        ("mine.toml", "mine.toml: expected a study in TOML: No such file or directory"),
        ("broken.toml", "broken.toml: expected a study in TOML: "),
    ],
)
def test_a_study_that_is_not_there(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.toml").write_text("claim = ", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        read_study(name)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"arms": {"none": {"model": "inception_v9"}, "smoothing": {}}}, {}, "arm none: unknown network"),
        ({"arms": {"none": {"settings": {"loss.label_smoothin": 0}}, "smoothing": {}}}, {},
         "arm none: unknown setting 'loss.label_smoothin'"),
        ({"base": {**TINY["base"], "settings": {"schedule.patience": 2}}}, {}, "a study has a number of epochs"),
        ({"arms": {"none": {"size": 32}, "smoothing": {"size": 64}}}, {"base": {"size": 48}}, "--size has no effect"),
    ],
)  # fmt: skip
def test_a_study_that_cannot_be_run(
    changes: dict[str, Any], options: dict[str, Any], message: str, colours: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_study(study(**changes), asked(colours, **options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_page_needs_is_missed_before_training(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match="needs jinja2"):
        run_study(study(), asked(colours), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_test_split_is_not_looked_at(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train", "test"):
        shutil.copytree(colours, tmp_path / "data" / name)
    with pytest.raises(
        DataError, match="expected a training and a validation split, got train, test; a study looks at"
    ):
        run_study(study(), asked(tmp_path / "data"), tmp_path / "out")


# How it is judged.


def test_a_planted_difference_holds_and_none_does_not() -> None:
    claims = [{"arm": "smoothing", "against": "none", "expect": "higher", "margin": 0.02}]
    noise = [0.0, 0.004, -0.004, 0.002]
    low = [outcome("none", i, [0.3, 0.6 + one]) for i, one in enumerate(noise)]
    for planted, verdict in ((0.1, "holds"), (0.0, "does not hold")):
        high = [outcome("smoothing", i, [0.3, 0.6 + planted - one]) for i, one in enumerate(noise)]
        assert judge(study(compare=claims), [*low, *high]).verdict == verdict


@pytest.mark.parametrize(
    ("quantity", "first", "second"),
    [
        ("accuracy", 0.8, 0.9),
        ("early_accuracy", 0.3, 0.4),
        ("accuracy_in_equal_time", 0.8, 0.6),  # the second takes twice as long: after 10 minutes it is halfway
    ],
)
def test_quantities_by_hand(quantity: str, first: float, second: float) -> None:
    claims = [{"arm": "none", "against": "smoothing", "quantity": quantity, "expect": "equal", "margin": 0.02}]
    outcomes = [
        outcome("none", 0, [0.2, 0.4, 0.6, 0.8], minutes=10),
        outcome("smoothing", 0, [0.2, 0.6, 0.7, 0.9], minutes=20),
    ]
    (judged,) = judge(study(compare=claims), outcomes).judged
    assert (judged.first, judged.second) == ((pytest.approx(first),), (pytest.approx(second),))


def test_a_training_that_stopped_has_the_accuracy_of_chance() -> None:
    whole = outcome("none", 0, [0.2, 0.6, 0.7, 0.9])
    stopped = replace(whole, rows=whole.rows[:2], error="no finite loss")
    assert stopped.curve("top1") == [0.2, 0.6, 0.1, 0.1] and stopped.curve("dead_features") == [0, 0, 1, 1]
    assert replace(whole, rows=[], error="no finite loss").curve("top1") == [0.1] * 4


def test_of_a_grid_the_best_value_is_compared() -> None:
    arms = {"sgd": {"grid": {"optimizer.lr": [0.1, 0.3]}}, "adamw": {}}
    one = study(arms=arms, compare=[{"arm": "sgd", "against": "adamw", "expect": "higher", "margin": 0.02}])
    outcomes = [outcome("adamw", seed, [0.5]) for seed in range(3)]
    for value, accuracy in (("optimizer.lr=0.1", 0.6), ("optimizer.lr=0.3", 0.7)):
        outcomes += [outcome("sgd", seed, [accuracy + seed / 100], value=value) for seed in range(3)]
    result = judge(one, outcomes)
    assert result.chosen == {"sgd": "optimizer.lr=0.3"} and result.verdict == "holds"
    assert result.judged[0].first == (0.7, 0.71, 0.72)
    assert [row[-1] for row in grid_table(result)[1]] == ["", "chosen"]
    assert arm_table(one, result)[1][0][0] == "sgd (optimizer.lr=0.3)"


def test_the_step_of_the_first_dead_features() -> None:
    """An arm of which all seeds have some, at different steps; and one of which one seed never has."""
    outcomes = []
    for arm, shares in (("none", ([0, 0.1, 0.2], [0.3, 0, 0])), ("smoothing", ([0, 0, 0.1], [0, 0, 0]))):
        for seed, dead in enumerate(shares):
            one = outcome(arm, seed, [0.5, 0.5, 0.5])
            rows = [{**row, "step": 1000 * i, "dead_features": dead[i - 1]} for i, row in enumerate(one.rows, 1)]
            outcomes.append(replace(one, rows=rows))
    about = study(figure="dead_features")
    columns, rows = arm_table(about, judge(about, outcomes))
    assert [row[columns.index("first dead at step")] for row in rows] == ["1,000 to 2,000", "3,000, 1 never"]
    outcomes[0], outcomes[1] = (replace(one, rows=[], error="no finite loss") for one in outcomes[:2])
    assert arm_table(about, judge(about, outcomes))[1][0][columns.index("first dead at step")] == "2 stopped before"
    assert "first dead at step" not in arm_table(study(), judge(study(), outcomes))[0]


@pytest.mark.parametrize(("classes", "units"), [(9, ["top-1 error (%)"]), (10, ["top-1 error (%)", "top-5 error (%)"])])
def test_the_top5_error_is_drawn_of_ten_classes(classes: int, units: list[str]) -> None:
    outcomes = []
    for arm in ("none", "smoothing"):
        one = outcome(arm, 0, [0.2, 0.6], classes=classes)
        outcomes.append(replace(one, rows=[{**row, "val_top5": 0.75} for row in one.rows]))
    figure = draw_curves(curves_of(study(), judge(study(), outcomes)))
    assert [axes.get_ylabel() for axes in figure.axes] == [unit for unit in units for _ in ("epoch", "minutes")]
    assert [[*line.get_ydata()] for line in figure.axes[0].lines] == [[80, 40]] * 2
    assert [*figure.axes[-1].lines[0].get_ydata()] == ([25, 25] if classes == 10 else [80, 40])


@pytest.mark.parametrize(("best", "said"), [
    (0, ["sgd has the lowest optimizer.lr of its grid: a lower one may be better."]),
    (1, []),
    (2, ["sgd has the highest optimizer.lr of its grid: a higher one may be better."]),
])  # fmt: skip
def test_a_best_value_at_the_end_of_its_grid_is_said(best: int, said: list[str]) -> None:
    rates = [0.1, 0.03, 0.3]
    arms = {"sgd": {"grid": {"optimizer.lr": rates, "loss.name": ["cross_entropy"]}}, "adamw": {}}
    one = study(arms=arms, compare=[{"arm": "sgd", "against": "adamw", "expect": "higher", "margin": 0.02}])
    outcomes = [outcome("adamw", seed, [0.5]) for seed in range(3)]
    for rate in rates:
        accuracy = 0.7 if rate == sorted(rates)[best] else 0.6
        value = f"optimizer.lr={rate:g} loss.name=cross_entropy"
        outcomes += [outcome("sgd", seed, [accuracy], value=value) for seed in range(3)]
    assert ends_of_grids(one, judge(one, outcomes)) == said


# How it is run.


def test_arms_with_more_crops_are_what_evaluate_gives(done: Path, colours: Path, tmp_path: Path) -> None:
    """The arms have the runs in common; the last accuracy is that of `evaluate --crops`."""
    arms = {name: {**TINY["arms"]["none"], "crops": crops} for name, crops in (("one", 1), ("twelve", 12))}
    claims = [{"arm": "twelve", "against": "one", "expect": "higher", "margin": 0.01}]
    result = run_study(study(arms=arms, compare=claims), asked(colours), tmp_path / "out", runs=done / "runs")
    for one in result.of("twelve"):
        evaluated = load(tmp_path / "out" / one.run).evaluate(colours, split="val", crops=12, workers=0)
        assert one.curve("top1")[-1] == evaluated.evaluation.top1
        assert one.final["val_loss"] == pytest.approx(evaluated.evaluation.loss, rel=1e-6)
    assert [one.run for one in result.of("one")] == [one.run for one in result.of("twelve")]


def test_ensembles_are_what_evaluate_gives(done: Path, colours: Path, tmp_path: Path) -> None:
    """Nothing is trained for them, and more seeds evaluate only what is new."""
    out, runs = tmp_path / "out", done / "runs"
    run_study(study(**ENSEMBLE), asked(colours, 1), out, runs=runs)
    first = (out / "outcomes" / "seed-0-both.json").stat().st_mtime_ns
    result = run_study(study(**ENSEMBLE), asked(colours, 2), out, runs=runs)
    assert (out / "outcomes" / "seed-0-both.json").stat().st_mtime_ns == first
    for name, crops in (("both", 1), ("both_twelve", 12)):
        for one in result.of(name):
            first_run, second_run = (out / result.of(arm)[one.seed].run for arm in TOGETHER["ensemble"])
            members = [load(path) for path in (first_run, second_run)]
            evaluated = evaluate_together(members, colours, split="val", crops=crops, workers=0)
            assert one.curve("top1") == [evaluated.metrics.evaluation.top1]
            assert one.final["val_loss"] == pytest.approx(evaluated.metrics.evaluation.loss, rel=1e-6)
    parts = [result.of(arm)[0] for arm in TOGETHER["ensemble"]]
    assert result.of("both")[0].multiply_adds == sum(one.multiply_adds for one in parts)
    table = {row[0]: row for row in arm_table(study(**ENSEMBLE), result)[1]}
    assert table["both"][2] == table["both"][-2] == "–" and table["both"][1] == "ensemble of 2"
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "none, smoothing" in page and "An ensemble has no curve." in page


def test_an_ensemble_without_one_of_its_networks(
    done: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that diverged leaves no weights: the ensemble counts with chance too, and says so."""
    shutil.copytree(done / "runs", tmp_path / "runs")
    real = running.train_run

    def lost(arms: Any, *rest: Any) -> None:
        real(arms, *rest)
        if arms[0].arm == "smoothing":
            Run(arms[0].folder).weights.unlink()

    monkeypatch.setattr(running, "train_run", lost)
    result = run_study(study(**ENSEMBLE), asked(colours, 1), tmp_path / "out", runs=tmp_path / "runs")
    (one,) = result.of("both")
    assert one.error == "smoothing, seed 0 has no network" and one.curve("top1") == [pytest.approx(1 / 3)]


def test_what_a_study_leaves(done: Path, colours: Path) -> None:
    about = json.loads((done / "study.json").read_text(encoding="utf-8"))
    made = trainings(study(), asked(colours), done / "runs")
    assert [(one["arm"], one["seed"]) for one in about["result"]["trainings"]] == [
        ("none", 0), ("smoothing", 0), ("none", 1), ("smoothing", 1),
    ]  # fmt: skip
    (compared,) = about["result"]["comparisons"]
    of = {(one.arm, one.seed): Run(one.folder).read_metrics()[-1]["val_top1"] for one in made}
    assert compared["first"] == [of["smoothing", 0], of["smoothing", 1]]
    assert compared["second"] == [of["none", 0], of["none", 1]]
    assert about["result"]["verdict"] == "undecided", "two seeds never decide"
    for one in made:
        assert (one.folder / "weights.safetensors").is_file() and not (one.folder / "checkpoints").exists()
    for name in ("figure.svg", "figure.png", "differences.svg", "differences.png", "index.html", "log.txt"):
        assert (done / name).stat().st_size > 200


def test_the_page(done: Path) -> None:
    page = (done / "index.html").read_text(encoding="utf-8")
    assert "Label smoothing changes nothing." in page and "undecided; --seeds 3 might decide it" in page
    assert page.count('<svg class="chart"') == 3 and "http://" not in page.replace("http://www.w3.org", "")
    assert "inceptionnet study tiny.toml" in page and "--seeds 2" in page
    for one in json.loads((done / "study.json").read_text(encoding="utf-8"))["result"]["trainings"]:
        assert f'<a href="{one["run"]}/">' in page and (done / one["run"]).is_dir()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page(browser, done: Path, width: int) -> None:
    """Wide tables scroll inside their own box, and nothing is fetched."""
    tab, said = opened(browser, done / "index.html", viewport={"width": width, "height": 900}, color_scheme="dark")
    assert tab.locator("svg.chart").count() == 3 and tab.locator(".verdict").count() == 1
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert said == []


def test_more_seeds_train_only_what_is_new(
    done: Path, colours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    real = loop.train
    monkeypatch.setattr(
        loop, "train", lambda plan, out, **options: (trained.append(plan.seed), real(plan, out, **options))
    )
    result = run_study(study(), asked(colours, 3), done)
    assert trained == [2, 2] and len(result.judged[0].first) == 3
    assert "6 trainings of 1 epoch, 4 are there; those left take about 1 min" in capsys.readouterr().err
    assert [row[:1] for row in comparison_table(result)[1]] == [["–"]] and "verdict: " in verdict_line(result)


def test_a_stopped_study_continues(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real, trained = tmp_path / "out", loop.train, list[int]()

    def interrupted(plan: Any, path: Path, **options: Any) -> None:
        if trained:
            raise KeyboardInterrupt
        real(plan, path, **options)
        trained.append(plan.seed)

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(Interrupted, match="run the same command again to continue"):
        run_study(study(), asked(colours, 1), out)
    assert trained == [0]
    assert json.loads((out / "study.json").read_text(encoding="utf-8"))["result"] is None
    monkeypatch.setattr(loop, "train", real)
    result = run_study(study(), asked(colours, 1), out)
    assert [one.arm for one in result.outcomes] == ["none", "smoothing"]


@pytest.mark.parametrize("relative", [False, True])
def test_finished_runs_of_another_study_are_used(
    relative: bool, done: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train", None)
    monkeypatch.chdir(tmp_path)
    runs, out = (
        (Path(os.path.relpath(done / "runs")), Path("other")) if relative else (done / "runs", tmp_path / "other")
    )
    other = study(claim="Something else.", arms={name: TINY["arms"][name] for name in ("smoothing", "none")})
    result = run_study(other, asked(colours), out, runs=runs)
    assert len(result.outcomes) == 4 and (tmp_path / "other" / "index.html").is_file()
    assert all((tmp_path / "other" / one.run / "run.json").is_file() for one in result.outcomes)


def test_runs_on_other_images_are_not_used(done: Path, colours: Path, tmp_path: Path) -> None:
    """The same place, but one image is gone."""
    moved = tmp_path / "data"
    shutil.copytree(colours, moved)
    one = asked(moved, 1)
    run_study(study(), one, tmp_path / "first")
    (moved / "red" / "00.png").unlink()
    with pytest.raises(RunError, match=r"was trained on other images than .* has now"):
        run_study(study(), one, tmp_path / "second", runs=tmp_path / "first" / "runs")


def test_a_run_of_two_arms_is_trained_once(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, real = list[Path](), loop.train
    monkeypatch.setattr(loop, "train", lambda plan, out, **how: (trained.append(out), real(plan, out, **how)))
    result = run_study(study(arms={"none": {}, "smoothing": {}}), asked(colours, 1), tmp_path / "out")
    assert len(trained) == 1 and [one.arm for one in result.outcomes] == ["none", "smoothing"]
    assert result.judged[0].difference.mean == 0


def test_a_training_without_finite_loss_is_a_result(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train

    def diverging(plan: Any, path: Path, **options: Any) -> None:
        real(plan, path, **options)
        if plan.settings["loss.label_smoothing"]:
            Run(path).write_metrics([{**Run(path).read_metrics()[0], "epoch": 0.0}])
            raise TrainingError("10 steps in a row had no finite loss or gradient")

    monkeypatch.setattr(loop, "train", diverging)
    result = run_study(study(), asked(colours, 1), tmp_path / "out")
    assert [one.error != "" for one in result.outcomes] == [False, True]
    assert result.judged[0].first == (pytest.approx(1 / 3),)
    rows = [{**result.outcomes[0].rows[0], "val_loss": float("nan")}]
    told = replace(result, outcomes=[replace(result.outcomes[0], rows=rows)]).to_dict()
    assert told["trainings"][0]["rows"][0]["val_loss"] is None
    assert "no finite loss" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"claim": "Other."}, {}, "has another study; choose another --out"),
        ({}, {"base": {"epochs": 2}}, r"has a study with other options \(epochs not given instead of 2\); choose"),
        ({}, {"settings": {"optimizer.lr": 1.0}}, r"other options \(optimizer.lr not given instead of 1.0\); choose"),
        ({}, {"settings": {"loss.label_smoothing": 0.0}}, r"\(loss.label_smoothing not given instead of 0.0\); choose"),
    ],
)
def test_a_folder_with_another_study(
    changes: dict[str, Any], options: dict[str, Any], message: str, done: Path, colours: Path
) -> None:
    before = (done / "study.json").read_bytes()
    with pytest.raises(RunError, match=message):
        run_study(study(**changes), asked(colours, **options), done)
    assert (done / "study.json").read_bytes() == before


def test_a_folder_with_something_else(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="exists and has no study; choose another --out"):
        run_study(study(), asked(colours), tmp_path)


def test_a_time_budget_becomes_epochs(
    done: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds an epoch of every training: four trainings have two epochs each in 90 seconds, and keep them."""
    monkeypatch.setattr(cost, "epoch_s", lambda one, speeds: 10.0)
    seen = list[Training]()
    monkeypatch.setattr(
        running, "_train", lambda left, *rest: seen.extend(left) or (_ for _ in ()).throw(KeyboardInterrupt)
    )
    plan = asked(colours)
    for _ in range(2):  # a study that is continued has the epochs that were chosen
        with pytest.raises(KeyboardInterrupt):
            run_study(study(base={**TINY["base"], "epochs": 30}), plan, tmp_path / "out", minutes=1.5)
    assert [one.job.recipe.schedule.epochs for one in seen] == [2] * 8
    with pytest.raises(RunError, match="has a study without a time budget; omit --time"):
        run_study(study(), asked(colours), done, minutes=5)
    with pytest.raises(ConfigurationError, match=r"--time is 0\.1 min, but an epoch of all 4 trainings"):
        run_study(study(), plan, tmp_path / "short", minutes=0.1)


# The command.


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as done:
        patch.setattr("sys.argv", ["inceptionnet", *map(str, words)])
        main()
    captured = capsys.readouterr()
    return int(done.value.code or 0), captured.out, captured.err


def test_the_command(colours: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "study")
    assert code == 0 and all(name in out for name in studies())
    code, out, _ = command(capsys, "study", "residual")
    assert code == 0 and "figures 23 to 26" in out and "width for the cost of v3" in out
    assert "resnet_v1 is the same as v3 within 2 points" in out
    code, out, _ = command(capsys, "study", "residual", "--json")
    assert json.loads(out)["arms"]["v3"]["model"] == "inception_v3"
    (tmp_path / "tiny.toml").write_text(toml(TINY), encoding="utf-8")
    words = ("study", tmp_path / "tiny.toml", colours, "--out", tmp_path / "out", "--runs", done / "runs", "--seeds", 2)
    code, out, err = command(capsys, *words, "--workers", 0, "--device", "cpu")
    assert code == 0 and "verdict: undecided" in out and "of 1 epoch;" in err
    code, out, _ = command(capsys, *words, "--workers", 0, "--device", "cpu", "--json")
    assert json.loads(out)["comparisons"][0]["arm"] == "smoothing"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("residual", "digits"), "expected --out DIR"),
        (("residual", "digits", "--out", "x", "--epochs", "2", "--time", "3m"), "give one of them"),
        (("mine.toml",), "mine.toml: expected a study in TOML"),
    ],
)
def test_what_the_command_cannot_do(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = command(capsys, "study", *words)
    assert code == 2 and message in err and err.count("\n") == 1
