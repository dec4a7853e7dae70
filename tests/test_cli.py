"""The command line as a person or a script meets it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from pyarrow import parquet

import inceptionnet
from inceptionnet.cli import app, options
from inceptionnet.data import open_source
from inceptionnet.engines.builders import BUILDERS
from inceptionnet.engines.runtimes import DTYPES
from inceptionnet.explain import METHODS
from inceptionnet.nets import NETWORKS
from inceptionnet.train.recipe import Recipe, choices_of
from inceptionnet.train.recipes import layer_decay
from inceptionnet.train.reporting import next_commands
from inceptionnet.train.run import Run

from .conftest import write_images

# `inceptionnet.cli.train` is the command, not its module.
cli_train, cli_explain = (sys.modules[f"inceptionnet.cli.{name}"] for name in ("train", "explain"))


def test_version_and_help(command) -> None:
    assert command("--version") == (0, f"inceptionnet {inceptionnet.__version__}\n", "")
    code, out, _ = command("--help")
    assert code == 0 and all(
        name in out
        for name in ("models", "weights", "show", "recipes", "check", "train", "evaluate", "predict", "convert")
    )


def test_without_a_command_it_prints_its_help(command) -> None:
    code, out, err = command()
    assert (code, err) == (0, "") and out.strip() == command("--help")[1].strip()


@pytest.mark.parametrize("name", [one.name or one.callback.__name__ for one in app.registered_commands])
def test_flags_have_no_type_in_the_help(command, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0 and "<bool>" not in out and "--help" in out


def test_choices_are_those_of_the_package() -> None:
    """They are written out in the options, so that help imports nothing heavy."""
    recipe = {key: choices_of(key) for key, _ in Recipe().items()}
    assert get_args(options.EngineName) == (*BUILDERS, "auto") and get_args(options.PrecisionName) == (*DTYPES, "auto")
    assert get_args(cli_train.BatchNormMode) == tuple(recipe["batch_norm.mode"])
    assert get_args(cli_train.RecipeName) == ("default", "finetune", "paper")
    assert set(get_args(cli_explain.Method)) == set(METHODS)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["check", "--help"], ["models"], ["show", "inception_v4"]],
)
def test_no_heavy_import_before_it_is_needed(arguments: list[str]) -> None:
    code = (
        "import sys; from inceptionnet.cli import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'safetensors', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_models(command) -> None:
    code, out, _ = command("models", "--json")
    listed = json.loads(out)
    assert code == 0 and [row["name"] for row in listed["models"]] == list(NETWORKS)
    v4 = next(row for row in listed["models"] if row["name"] == "inception_v4")
    assert (v4["parameters"], v4["input_size_px"]) == (42_679_816, 299)
    code, out, _ = command("models")
    assert code == 0 and all(name in out for name in NETWORKS) and "42,679,816" in out and "arXiv:1602.07261" in out


def test_show(command, tmp_path: Path) -> None:
    code, out, _ = command("show", "inception_v4", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["parameters"] == 42_679_816 and shown["minimum_size_px"] == 75
    rows = {row["endpoint"]: row for row in shown["endpoints"]}
    assert rows["reduction_a"]["output"] == [1024, 17, 17] and rows["pool"]["receptive_field_px"] == [None, None]
    assert sum(row["parameters"] for row in shown["endpoints"]) == shown["parameters"]
    code, out, _ = command("show", "inception_v4", "--size", 151, "--width", 0.5, "--num-classes", 10)
    assert code == 0 and "17×17×512" in out and "1×1×10" in out and "input 151×151×3" in out
    assert "[v4] figures 3 to 9" in out, "brackets are text, not markup"
    code, out, _ = command("show", "inception_v3", "--aux")
    assert "aux.mixed_6e.logits" in out and "27,161,264" in out
    code, out, _ = command("show", "inception_v1", "--svg", tmp_path / "v1.svg")
    assert code == 0 and (tmp_path / "v1.svg").read_text().startswith("<svg")


def test_evaluate_and_predict(command, run: Path, colours: Path, tmp_path: Path) -> None:
    code, out, _ = command("evaluate", run, colours, "--json")
    figures = json.loads(out)
    assert code == 0 and figures["split"] == "val" and figures["networks"] == ["inception_v1.slim"]
    trained = json.loads((run / "evaluation.json").read_text())
    assert (figures["top1"], figures["classes"]) == (trained["top1"], trained["classes"]), "the split of the training"
    code, out, _ = command("evaluate", run / "weights.safetensors", colours, "--split", "all")
    assert code == 0 and "on 36 images" in out and "macro F1" in out

    table = tmp_path / "rows.csv"
    code, out, _ = command("predict", run, colours / "red", colours / "blue" / "00.png", "--json", "--csv", table)
    rows = json.loads(out)["predictions"]
    assert code == 0 and len(rows) == 13 and {len(row["top"]) for row in rows} == {3}
    with open(table, newline="") as file:
        assert len(list(csv.DictReader(file))) == 13
    broken = tmp_path / "broken.png"
    broken.touch()
    code, out, _ = command("predict", run, broken, colours / "red" / "00.png", "--top", 1)
    assert code == 1 and "error: is empty (0 bytes)" in out and "00.png" in out
    assert "1 of 2 images could not be read" in out
    code, out, err = command("predict", run, broken)
    assert code == 2 and err.count("\n") == 1 and "could be read" not in err


def test_train_end_to_end(command, colours: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "run"
    code, out, err = command(
        "train", colours, "--out", out_folder, "--model", "inception_v1.slim", "--width", 0.125, "--size", 32,
        "--epochs", 1, "--batch-size", 8, "--workers", 0, "--set", "optimizer.lr=0.003",
    )  # fmt: skip
    assert code == 0 and "held-out images" in out
    assert "epoch 1/1  train loss" in err and "held out as val, chosen by file name and seed 0" in err
    assert json.loads((out_folder / "run.json").read_text())["recipe"]["optimizer"]["lr"] == 0.003


def test_recipes_side_by_side(command) -> None:
    code, out, _ = command("recipes")
    assert code == 0 and all(name in out for name in ("default", "finetune", "paper [v1]", "paper [v4]", "rmsprop"))
    assert "compute.precision" not in out and "[v3] Szegedy" in out, "only where they differ"
    code, out, _ = command("recipes", "inception_v3", "--all")
    assert code == 0 and "compute.precision" in out and "paper [v3]" in out and "paper [v1]" not in out
    code, out, _ = command("recipes", "--json")
    assert json.loads(out)["paper [v3]"]["optimizer.eps"] == 1.0


def test_recipes_are_quick() -> None:
    code = (
        "import sys; from inceptionnet.cli import main\n"
        "sys.argv[1:] = ['recipes']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_resume_and_repeat(command, run: Path, tmp_path: Path) -> None:
    code, out, err = command("train", "--repeat", run, "--out", tmp_path / "again", "--workers", 0)
    assert code == 0 and "held-out images" in out
    same = (tmp_path / "again" / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    assert same
    code, out, err = command("train", "--resume", "--out", tmp_path / "again", "--workers", 0)
    assert code == 0 and "resuming in epoch 6 after 4 of its 4 steps" in err


def test_settings_are_listed(command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command("train", "--settings")
    lines = out.splitlines()
    assert code == 0 and max(map(len, lines)) <= 80
    at = lines.index("  optimizer.name=adamw")
    assert lines[at + 1] == "      Optimiser; rmsprop is TensorFlow's. Choices: adamw, sgd, rmsprop."
    assert {line.strip().partition("=")[0] for line in lines} >= {key for key, _ in Recipe().items()}
    code, out, _ = command(
        "train", "--settings", "--recipe", "paper", "--model", "inception_v3", "--set", "schedule.epochs=7"
    )
    assert code == 0 and "recipe paper of inception_v3" in out
    assert all(f"  {line}\n" in out for line in ("optimizer.name=rmsprop", "schedule.epochs=7", "network.aux=true"))
    code, out, _ = command("train", "--settings", "--recipe", "finetune")
    assert code == 0 and "  optimizer.lr=0.0003\n" in out and f"layer_decay={layer_decay('inception_v3')}\n" in out
    code, out, _ = command("train", "--settings", "--weights", run)
    assert code == 0 and "recipe finetune of inception_v1.slim" in out
    assert f"layer_decay={layer_decay('inception_v1.slim')}\n" in out
    for arguments, message in (
        (("--recipe", "paper"), "--recipe paper depends on the network, got none; give --model"),
        (("--set", "optimizer.rl=1"), "did you mean optimizer.lr"),
    ):
        code, _, err = command("train", "--settings", *arguments)
        assert code == 2 and message in err and err.count("\n") == 1
    code, out, _ = command("recipes", "inception_v3", "--all")
    rows = [line.split() for line in out.splitlines()]
    assert ["network.aux", "false", "false", "true"] in rows, "values as --settings has them"
    *_, cited, last = out.splitlines()
    assert cited.startswith("[v3] ") and last == "train --settings describes every setting"


def test_a_run_ends_with_the_next_commands(command, colours: Path, tmp_path: Path) -> None:
    data = shutil.copytree(colours, tmp_path / "my data")
    code, out, _ = command(
        "train", data, "--out", tmp_path / "a run", "--model", "inception_v1.slim", "--width", 0.125, "--size", 32,
        "--epochs", 1, "--batch-size", 8, "--workers", 0, "--set", "log.report=false",
    )  # fmt: skip
    first, title, *lines = out.splitlines()
    assert code == 0 and "accuracy" in first and title == "next:" and len(lines) == 4
    words = [shlex.split(line) for line in lines]
    run = str(tmp_path / "a run")
    assert words[0] == ["inceptionnet", "evaluate", run, str(data), "--split", "val"]
    assert words[1] == ["inceptionnet", "predict", run, str(data)] and words[2] == ["inceptionnet", "report", run]
    assert words[3] == ["inceptionnet", "train", "--repeat", run, "--out", f"{run}-again"]
    for line in words[:3]:
        code, out, err = command(*line[1:], *(() if line[1] == "predict" else ("--workers", 0)))
        assert code == 0, err


def test_next_commands_for_data_that_is_not_a_folder_of_images(run: Path, tmp_path: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    about["plan"]["data"] = "digits"
    (tmp_path / "run.json").write_text(json.dumps(about))
    (tmp_path / "evaluation.json").write_text('{"split": "test"}')
    lines = next_commands(Run(tmp_path))
    assert lines[0].endswith(" digits --split test") and lines[1].endswith(" IMAGE")


def test_what_cannot_be_done_is_one_line_and_exit_code_2(command, run: Path, colours: Path, tmp_path: Path) -> None:
    empty, single, hollow = tmp_path / "empty", tmp_path / "single", tmp_path / "hollow"
    empty.mkdir()
    shutil.copytree(colours / "red", single / "red")
    (write_images(hollow, 2) / "zebra").mkdir()
    text = tmp_path / "text.safetensors"
    text.write_text("no weights")
    new = tmp_path / "new"
    base = ("--out", new, "--size", 32, "--workers", 0)
    for arguments, message in (
        (
            ("train", colours, "--model", "inception_v33", *base),
            "unknown network 'inception_v33': did you mean inception_v3",
        ),
        (
            ("train", colours, "--model", "inception_v3", *base),
            "--size is 32 px; inception_v3 takes images of 75 px",
        ),
        (("train", colours, "--model", "inception_v1", *base, "--set", "optimizer.rl=1"), "did you mean optimizer.lr"),
        (("train", colours, "--model", "inception_v1", *base, "--epochs", 0), "--epochs is 0; expected 1 or more"),
        (("train", colours, "--model", "inception_v1", *base, "--epochs", "many"), "--epochs"),
        (
            ("train", colours, "--model", "inception_v1", *base, "--corrupt-images", "eat"),
            "'eat' is not one of 'fail'",
        ),
        (("train", colours, "--model", "inception_v1", *base, "--device", "abacus"), "--device abacus"),
        (("train", colours, *base), "expected a network to train, got none; give --model"),
        (("train", colours, "--model", "inception_v1", "--out", run), "exists and is not empty"),
        (("train", tmp_path / "nothing", "--model", "inception_v1", *base), "got no such file or folder"),
        (("train", empty, "--model", "inception_v1", *base), "expected images"),
        (("train", single, "--model", "inception_v1", *base), "expected at least 2 classes, got 1 (red)"),
        (("train", hollow, "--model", "inception_v1", *base), "got none in zebra"),
        (("train", colours, "--weights", text, *base), "of an unknown format"),
        (("train", colours, "--model", "inception_v1"), "expected --out RUN, the run folder to create, got none"),
        (
            ("train", "--out", new),
            "expected DATA to train on, got none; give it, or --resume to continue the run in --out",
        ),
        (
            ("train", colours, "--model", "inception_v1", *base, "--recipe", "papre"),
            "'papre' is not one of 'default'",
        ),
        (
            ("train", colours, "--model", "inception_v1", *base, "--recipe", "finetune"),
            "starts from pretrained weights",
        ),
        (
            ("train", colours, "--model", "inception_v1", *base, "--bn", "freeze"),
            "keeps the statistics of pretrained weights",
        ),
        (
            ("train", colours, "--model", "inception_v1", *base, "--bn", "freez"),
            "'freez' is not one of 'update'",
        ),
        (
            ("train", colours, "--model", "inception_v1", *base, "--accumulate", 17),
            "expected at most half of --batch-size 32",
        ),
        (("train", colours, "--resume", "--out", run, "--data", single), "expected the data once, got"),
        (("train", single, "--resume", "--out", run), "expected at least 2 classes, got 1"),
        (
            ("train", "--resume", "--out", run, "--epochs", 3),
            "--epochs is 3, but the run is in epoch 6; give 6 or more",
        ),
        (("train", "--resume", "--out", new), "expected a run folder, got none with run.json"),
        (("train", "--repeat", empty, "--out", new), "expected a run folder, got none with run.json"),
        (("recipes", "inception_v33"), "unknown network 'inception_v33': did you mean inception_v3"),
        (("evaluate", text, colours), "of an unknown format"),
        (("evaluate", tmp_path / "nowhere", colours), "no such file"),
        (("evaluate", empty, colours), "got a folder without weights.safetensors"),
        (("evaluate", run, hollow), "got none in zebra"),
        (("evaluate", run, colours, "--split", "test"), "expected the split test, got train, val"),
        (("predict", run, empty), "expected images, got none: it is empty"),
        (("predict", run, colours, "--top", 0), "--top"),
        (("predict", run, colours, "--batch-size", 0), "--batch-size"),
        (("predict", run, colours, "--device", "meta"), "--device meta: not available"),
        (("evaluate", run, colours, "--batch-size", 0), "--batch-size"),
        (("evaluate", run, colours, "--workers", -1), "--workers"),
        (("predict", run, colours, "--csv", text / "x.csv"), "cannot be written"),
        (("show", "inception_v4", "--size", 10), "takes images of 75 px or more"),
        (("show", "inception_v4", "--svg", text / "x.svg"), "cannot be written"),
        (("show",), "Missing argument"),
        (("fly",), "No such command 'fly'"),
        (("models", "--foo"), "No such option: --foo"),
    ):
        code, _, err = command(*arguments)
        assert code == 2, arguments
        assert err.startswith("error: ") and err.count("\n") == 1, err
        assert message in err, (arguments, err)
        assert "Traceback" not in err and not new.exists()


def test_evaluate_on_many_crops_by_two_networks_without_some(command, run: Path, colours: Path, tmp_path: Path) -> None:
    held_out = open_source(colours).splits["val"].names
    names = tmp_path / "names.txt"
    names.write_text(f"{held_out[0]}\n{Path(held_out[1]).name}\nof no image\n")
    code, out, _ = command("evaluate", run, run, colours, "--crops", 12, "--exclude", names, "--json", "--workers", 0)
    figures = json.loads(out)
    same_name = sum(Path(name).name == Path(held_out[1]).name or name == held_out[0] for name in held_out)
    assert code == 0 and figures["excluded"] == same_name > 1 and figures["unmatched_lines"] == 1
    assert figures["images"] == len(held_out) - same_name
    assert figures["crops"] == [{"count": 12, "scales_px": [37]}] * 2 and len(figures["weights"]) == 2
    quick = ("--sample", 2, "--workers", 0)
    code, out, _ = command("evaluate", run, colours, "--crops", 144, "--scales", "40,50", *quick)
    assert code == 0 and "72 crops (shorter side 40, 50 px)" in out and "on 2 images" in out
    image = next(colours.rglob("*.png"))
    code, out, _ = command("evaluate", run, colours, "--crops", 10, "--show-crops", image, tmp_path / "sheet.png")
    assert code == 0 and "10 crops of 32 px" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 10 * 84 + 4 and sheet.height > 32 + 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--crops", 7), "--crops is 7; expected 1, 10, 12 or 144"),
        (("--predictions", "table.txt"), "--predictions table.txt: expected a file ending in .csv or .parquet"),
        (("--predictions", "/proc/no/table.csv", "--workers", 0), "table.csv: cannot be written"),
        (("--crops", 12, "--scales", "wide"), "--scales 'wide': expected whole numbers"),
        (("--exclude", "no.txt"), "--exclude no.txt: expected a text file"),
        (("--show-crops", "no.jpg", "out.png"), "no.jpg: cannot be read"),
    ],
)
def test_what_cannot_be_evaluated(command, run: Path, colours: Path, arguments: tuple, message: str) -> None:
    code, _, told = command("evaluate", run, colours, *arguments)
    assert code == 2 and message in told and told.count("\n") == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_predictions_of_an_evaluation_as_a_table(command, run: Path, colours: Path, tmp_path: Path, kind: str) -> None:
    table = tmp_path / f"table.{kind}"
    code, out, _ = command("evaluate", run, colours, "--predictions", table, "--json", "--workers", 0)
    figures = json.loads(out)
    if kind == "csv":
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = parquet.read_table(table).to_pylist()
    assert code == 0 and len(rows) == figures["images"]
    correct = sum(row["label"] == row["predicted"] for row in rows)
    assert correct / len(rows) == figures["top1"]
    assert sum(float(row["loss"]) for row in rows) / len(rows) == pytest.approx(figures["loss"], rel=1e-6)
    held_out = open_source(colours).splits["val"]
    assert [row["image"] for row in rows] == list(held_out.names)
    assert [row["label"] for row in rows] == [("blue", "green", "red")[i] for i in held_out.labels]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (("evaluate", "RUN", "DATA", "--predictions", "OUT"), "p.csv"),
        (("evaluate", "RUN", "DATA", "--predictions", "OUT"), "p.parquet"),
        (("predict", "RUN", "IMAGE", "--csv", "OUT"), "p.csv"),
        (("features", "RUN", "DATA", "--out", "OUT"), "f.parquet"),
        (("explain", "RUN", "IMAGE", "--out", "OUT"), "e.png"),
        (("convert", "RUN", "OUT"), "c.safetensors"),
        (("export", "RUN", "OUT"), "c.safetensors"),
        (("show", "RUN", "--svg", "OUT"), "n.svg"),
        pytest.param(("report", "RUN", "--out", "OUT"), "r.html", marks=pytest.mark.slow),
        pytest.param(("bench", "RUN", "--engines", "eager", "--batch", 1, "--rounds", 1, "--plot", "OUT"), "b.png",
                     marks=pytest.mark.slow),
        pytest.param(("train", "DATA", "--model", "inception_v1.slim", "--width", 0.125, "--size", 32, "--epochs", 1,
                      "--out", "OUT"), "run", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_missing_folder_of_an_output_is_created(
    line: tuple, name: str, command, run: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that cannot be, since a file is in its place, is one line."""
    monkeypatch.setenv("INCEPTIONNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("")
    image = next(colours.rglob("*.png"))
    for folder in ("new/folder", "file"):
        out = tmp_path / folder / name
        places = {"RUN": run, "DATA": colours, "IMAGE": image, "OUT": out}
        code, _, err = command(*(places.get(word, word) for word in line))
        if folder == "file":
            assert code == 2 and "Not a directory" in err.splitlines()[-1] and "error: " in err, err
        else:
            assert code == 0 and out.exists(), err
