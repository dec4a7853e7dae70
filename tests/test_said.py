"""What the command line says: options that the command has, numbers with their nouns, and nothing twice."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import inceptionnet
from inceptionnet import create_model
from inceptionnet.engines.choice import check_precision
from inceptionnet.errors import ConfigurationError, DataError, number_of
from inceptionnet.model.outputs import Outputs
from inceptionnet.system.extras import import_extra
from inceptionnet.weights import save_weights
from inceptionnet.weights.layouts.torchvision import GOOGLENET

from .conftest import write_images
from .documents import cli_commands
from .weights.published import as_published, write

Command = Callable[..., tuple[int, str, str]]

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OPTIONS = {
    name: {text for one in made.params for text in (*one.opts, *one.secondary_opts)}
    for name, made in cli_commands().items()
}
OTHERS = {
    "every command": {"--help"}, "inceptionnet": {"--version"}, "pip": {"--force-reinstall"},
    "nvidia-smi": {"--query-gpu", "--format"}, "docker run": {"--shm-size"}, "torchrun": {"--nproc-per-node"},
    "mlflow": {"--backend-store-uri"}, "tensorboard": {"--logdir"},
}  # fmt: skip
"""Options of other programs that are named."""


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights without a classifier."""
    path = tmp_path_factory.mktemp("weights") / "body.safetensors"
    save_weights(create_model("inception_v1.slim", width=0.125, input_size=32, num_classes=0), path)
    return path


@pytest.fixture(scope="module")
def one_logit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "one.safetensors"
    save_weights(create_model("inception_v1.slim", width=0.125, input_size=32, num_classes=1), path)
    return path


def test_every_option_that_is_named_exists() -> None:
    known = set().union(*OPTIONS.values(), *OTHERS.values())
    for file in Path(inceptionnet.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = set(OPTION.findall(node.value.replace("var(--", "")))
                assert named <= known, f"{file.name}: {named - known}"


def options_missing(name: str, text: str) -> set[str]:
    """The options in a text that the command does not have, but for those of another command that the text names."""
    return {one for one in OPTION.findall(text) if one not in OPTIONS[name]
            and not any(f"{other} {one}" in text and one in OPTIONS[other] for other in OPTIONS)}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("features", "{run}", "{flat}", "--out", "{out}"), "(expected one folder per class, got 3 images in one fold"),
        (("predict", "{run}", "{flat}", "--out", "{out}"), "(expected one folder per class, got 3 images in one fold"),
        (("predict", "{run}", "{asked}", "--out", "{out}"), "with the same folders in each (blue, green, red))"),
        (("features", "{run}", "{table}", "--out", "{out}"), "give the folder of its images, with this file as"),
        (("fid", "{table}", "{flat}", "--weights", "{run}"), "give the folder of its images, with this file as"),
        (("report", "{run}", "--data", "{asked}", "--out", "{out}"), "--splits train=FOLDER"),
        (("report", "{run}", "--data", "{flat}", "--out", "{out}"), "give a label file (--labels FILE)"),
        (("evaluate", "{run}", "{flat}"), "give a label file (--labels FILE)"),
        (("compare", "{flat}", "{run}"), "expected a run folder, got a folder without run.json"),
        (("predict", "{run}", "https://x.org/a.png"), "nothing is fetched unless --allow-urls"),
        (
            ("predict", "{run}", "{flat}", "--engine", "onnxruntime", "--precision", "int8", "--calibrate",
             "https://x.org/a.png"),
            "https://x.org/a.png: expected images on this machine, got an address; download them",
        ),
        (("export", "{run}", "{out}.onnx", "--check", "https://x.org/a.png"), "a.png: expected images on this machine"),
        (("explain", "{one_logit}", "{flat}", "--out", "{out}"), "state it: --activation sigmoid"),
    ],
)  # fmt: skip
def test_advice_names_options_of_the_command(
    command: Command, run: Path, one_logit: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    flat, asked, table = write_images(tmp_path / "data", 3) / "red", tmp_path / "asked", tmp_path / "labels.csv"
    for part in ("A", "B"):
        write_images(asked / part, 1)
    table.write_text("image,label\n")
    places = {"run": run, "flat": flat, "asked": asked, "table": table, "out": tmp_path / "out", "one_logit": one_logit}
    code, out, err = command(*(one.format(**places) for one in arguments))
    assert said in out + err and code == (0 if said.startswith("(") or "same folders" in said else 2)
    assert not options_missing(arguments[0], out + err)


def test_a_parameter_is_called_as_the_command_line_calls_it(command: Command, run: Path, colours: Path) -> None:
    """In Python an error begins with the name of a parameter."""
    with pytest.raises(ConfigurationError, match=r"^calibrate: expected images for precision int8, got none; give 1"):
        check_precision("int8", calibrated=False)
    for arguments, said in (
        (("predict", run, colours, "--threshold", 2), "--threshold is 2.0; expected a probability"),
        (("predict", run, colours, "--precision", "int8"), "--calibrate: expected images for precision int8"),
        (("show", "inception_v1", "--size", 0), "--size is 0; expected a whole number"),
        (("show", "inception_v1", "--width", 0), "--width is 0.0; expected a finite number"),
        (("show", "inception_v1", "--edit", "no-such"), "unknown edit"),  # begins with no parameter
    ):
        code, _, err = command(*arguments)
        assert code == 2 and err.splitlines()[-1].startswith(f"error: {said}"), err


def test_numbers_with_their_nouns(command: Command, run: Path, tmp_path: Path) -> None:
    assert [number_of("class", n) for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert number_of("real image", 1) == "1 real image" and number_of("day", 2) == "2 days"
    image = next(write_images(tmp_path / "data", 1).rglob("*.png"))
    code, out, _ = command("features", run, image, "--out", tmp_path / "f.parquet")
    assert code == 0 and "1 image without labels (image files)" in out and "f.parquet: 1 image, " in out
    code, out, _ = command("predict", run, image, "--out", tmp_path / "p.parquet")
    assert code == 0 and "p.parquet: 1 image\n" in out
    code, out, _ = command(
        "bench", run, "--engines", "eager", "--batch", 1, "--rounds", 1, "--threads", torch.get_num_threads()
    )
    assert code == 0 and f"{number_of('thread', torch.get_num_threads())}, 1 interleaved round\n" in out


def test_a_note_on_weights_is_said_once(
    command: Command, colours: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of several networks that fit a file is read as, and what was assumed."""
    file = tmp_path / "other.pth"
    write(as_published(create_model("inception_v1.torchvision"), GOOGLENET), file)
    for arguments in (("predict", file, next(colours.rglob("*.png"))), ("convert", file, tmp_path / "w.safetensors")):
        caplog.clear()
        with caplog.at_level(logging.INFO, "inceptionnet"):
            code, out, _ = command(*arguments)
        said = out + caplog.text
        assert code == 0 and len(re.findall(r"fits inception_v1\.slim", said)) == 1, said
        assert said.count("read as inception") == (arguments[0] == "predict")


def test_weights_without_a_classifier_are_refused_before_engines_are_measured(
    command: Command, headless: Path, colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inceptionnet.classifier import loading

    def measured(*_: object) -> None:
        raise AssertionError("an engine was built")

    monkeypatch.setattr("inceptionnet.classifier.backends.network_backend", measured)
    assert loading.described(headless)[0].classes == ()
    for arguments in (
        ("predict", headless, colours),
        ("predict", headless, colours, "--out", colours.parent / "never.parquet"),
        ("evaluate", headless, colours),
    ):
        code, _, err = command(*arguments, "--engine", "auto")
        assert code == 2 and "expected weights with a classifier, got none" in err, err


def test_an_image_alone_that_cannot_be_read_is_said_once(command: Command, run: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"x")
    for arguments in (
        ("predict", run, image), ("predict", run, "/dev/video99", "--every", "1s"),
        ("explain", run, image, "--out", tmp_path / "maps"), ("predict", run, image, "--out", tmp_path / "rows"),
    ):  # fmt: skip
        code, out, err = command(*arguments)
        assert code == 2 and "error: " not in out and err.count("\n") == 1, (out, err)


def test_predict_says_that_it_takes_videos_and_a_camera(command: Command) -> None:
    _, out, _ = command("predict", "--help")
    assert "/dev/video0" in out.partition("Options")[0]


def test_fonts_are_not_talked_about(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = logging.getLogger("matplotlib.font_manager")
    monkeypatch.setattr(fonts, "level", logging.NOTSET)
    import_extra("matplotlib", "reports", "plotting")
    with caplog.at_level(logging.INFO):
        fonts.warning("findfont: Font family 'x' not found.")
        assert not caplog.text
    monkeypatch.setattr(fonts, "level", logging.DEBUG)
    import_extra("matplotlib", "reports", "plotting")
    assert fonts.level == logging.DEBUG, "a program that asks for them gets them"


def test_advice_can_be_left_out() -> None:
    error = DataError("x: expected a, got b", "do c")
    assert (str(error), error.reason) == ("x: expected a, got b: do c", "x: expected a, got b")
    assert DataError("y").reason == str(DataError("y")) == "y"


def test_one_logit_is_explained() -> None:
    with pytest.raises(ConfigurationError, match=r"state it: --activation sigmoid, here or in convert$"):
        Outputs("softmax", 1).check("w")


def test_what_reads_badly(command: Command, run: Path, colours: Path, tmp_path: Path) -> None:
    """Lists of endings where a folder is empty, and another command's help."""
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (("check", tmp_path / "empty"), ".webp), got an empty one\n"),
        (("show", "inception_v9"), "did you mean inception_v4, inception_v3 or inception_v2?\n"),
        (("predict", run, colours, "--top", 0), "or equal to 1; see inceptionnet predict --help\n"),
        (("nothing",), "No such command 'nothing'; see inceptionnet --help\n"),
        (("predict", run, colours, "--classes", tmp_path / "no.txt"), f"error: --classes {tmp_path}/no.txt: expected"),
        (("predict", run, colours, "--device", "tpu"), "error: --device tpu: not available (no such device); use"),
        (("convert", run, tmp_path / "w.h5"), "w.h5: expected a file ending in .safetensors; for others see export\n"),
    ):
        code, _, err = command(*arguments)
        assert code == 2 and said in err and err.count("\n") == 1, err
    assert not (tmp_path / "w.h5").exists()


def test_a_file_that_is_called_as_an_option(
    command: Command, monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("labels").mkdir()
    assert command("check", "labels")[2].startswith("error: labels: expected images")
