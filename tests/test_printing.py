"""What is printed or logged for people has no control characters; what is written as data is exact."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import inceptionnet
from inceptionnet.cli.tables import print_json, print_table
from inceptionnet.errors import ConfigurationError, DecodeError, MissingExtraError, reason_of, visible
from inceptionnet.evaluate.prediction import Prediction, write_csv
from inceptionnet.system.printing import VISIBLE, say
from inceptionnet.system.progress import Bar, PartOf

from .data.made import write_tar, write_zip

SOURCE = Path(inceptionnet.__file__).parent
EVIL = "a\x1b]0;title\x07\x1b[2Jb\x9b31m\r\nerror: c\u202egpj.\u2066\x7f\u200b"
"""A name that sets the title of a window, clears the screen, begins another line and turns the text around."""
SEEN = r"a\x1b]0;title\x07\x1b[2Jb\x9b31m\r\nerror: c\u202egpj.\u2066\x7f\u200b"


def obeyed(text: str) -> set[str]:
    """Characters of a text that a terminal obeys, besides line ends."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c != "\n"}


def test_control_characters_are_escapes() -> None:
    assert visible(EVIL) == SEEN
    for code in (*range(32), *range(0x7F, 0xA0), 0xAD, 0x61C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF, 0xE0041):
        assert visible(chr(code)) in (rf"\x{code:02x}", rf"\u{code:04x}", rf"\U{code:08x}", r"\t", r"\n", r"\r")
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\udce9"


@pytest.mark.parametrize("text", ["", "plain", "é 猫 ß", "👩\u200d🔬", "می\u200cخواهم", "no\xa0break", r"C:\new\x1b"])
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_only_one_place_prints() -> None:
    """A rule that holds for files that do not exist yet."""
    for file in SOURCE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {func.id for func in calls if isinstance(func, ast.Name)}
        assert "print" not in names or file.name == "printing.py", file
        written = {ast.unparse(func) for func in calls if isinstance(func, ast.Attribute)}
        assert not written & {"sys.stdout.write", "sys.stderr.write", "typer.echo", "warnings.warn"}, file
        if any(name.endswith("onsole.print") for name in written):
            assert file.name in ("tables.py", "progress.py"), file


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("x", EVIL)
    say(EVIL, end="", error=True)
    say()
    assert capsys.readouterr() == (f"x\n{SEEN}\n\n", SEEN)


def test_errors_are_clean_wherever_they_are_shown() -> None:
    for error in (DecodeError(f"{EVIL}: cannot be read"), MissingExtraError(f"{EVIL}: cannot be read")):
        assert str(error) == f"{SEEN}: cannot be read" and error.args == (f"{EVIL}: cannot be read",)
        assert reason_of(error, EVIL) == "cannot be read"
    assert isinstance(ConfigurationError("x"), ValueError) and str(ConfigurationError()) == ""


def test_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    print_table(["file", "n"], [[EVIL, "1"], ["[red]x", "22"]], right={1}, title=EVIL, note=EVIL)
    out = capsys.readouterr().out
    assert not obeyed(out) and out.count(SEEN) == 3 and " [red]x " in out
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "200"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    print_table(["file", "n"], [[EVIL, "1"]], title=EVIL)
    out = capsys.readouterr().out
    assert obeyed(out.replace("\x1b[1m", "").replace("\x1b[0m", "")) == set() and out.count(SEEN) == 2


def test_rows_line_up_whatever_characters_they_have(capsys: pytest.CaptureFixture[str]) -> None:
    """猫 is as wide as two letters."""
    print_table(["file", "n", "text"], [["猫.jpg", "1", "x"], ["ab.jpg", "22", "y y"]], right={1})
    rows = capsys.readouterr().out.split("\n")[3:5]
    assert rows == [" 猫.jpg    1   x    ", " ab.jpg   22   y y  "]


def test_text_is_wrapped_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "30"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    print_table(["file", "text"], [["a.jpg", "one two three four five six"]])
    assert capsys.readouterr().out.split("\n")[3:5] == [
        " a.jpg   one two three four   ",
        "         five six             ",
    ]


def test_json_is_exact_and_clean(capsys: pytest.CaptureFixture[str]) -> None:
    values = {EVIL: [EVIL, "é 猫", os.fsdecode(b"\xe9"), "\U000e0041"], "n": 0.5}
    print_json(values)
    out = capsys.readouterr().out
    assert json.loads(out) == values and not obeyed(out) and "é 猫" in out


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a handler of somebody else gets of the package's log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("inceptionnet")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_the_log(logged: io.StringIO) -> None:
    logging.getLogger("inceptionnet").warning("%s: 100%% of %d", EVIL, 3)
    assert logged.getvalue() == f"{SEEN}: 100% of 3\n"


def test_the_log_of_other_libraries_keeps_its_lines() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(VISIBLE)
    record = logging.LogRecord("other", logging.INFO, "", 0, "one\ntwo %s", ("\x1b[2J",), None)
    handler.handle(record)
    assert stream.getvalue() == "one\ntwo \\x1b[2J\n"


def test_the_progress_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with Bar(10, EVIL) as bar:
        bar.note(EVIL)
        lines: list[str] = []
        PartOf(bar, EVIL, lines.append).note("x")
    assert capsys.readouterr().err == f"{SEEN}\n"
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "300"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with Bar(10, f"[red]{EVIL}") as bar:
        bar.advance(1, f"[/red] {EVIL}", EVIL)
        bar.note(f"[red]{EVIL}")
    err = capsys.readouterr().err
    assert "\x1b]0;" not in err and "\x9b" not in err and "\u202e" not in err
    assert f"[red]{SEEN}" in err and f"[/red] {SEEN}" in err


def evil_images(folder: Path) -> Path:
    """Two classes, whose names and files are hostile; one image is corrupt."""
    name = EVIL.replace("/", "")
    for label in ("cat", f"dog{name}"):
        (folder / label).mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(noise).save(folder / label / f"{i}{name}.png", "PNG")
    (folder / "cat" / f"0{name}.png").write_bytes(b"no image")
    return folder


def test_check_shows_hostile_names_and_its_json_is_exact(command, tmp_path: Path) -> None:
    root = evil_images(tmp_path / "set")
    _, out, err = command("check", root)
    assert not obeyed(out + err) and f"0{SEEN}.png" in out and f"dog{SEEN}" in out
    assert all(not line.startswith("error: c") for line in (out + err).split("\n"))
    _, out, err = command("check", root, "--json")
    assert not obeyed(out + err)
    assert f"dog{EVIL}" in json.loads(out)["splits"]["train"]["classes"]


ARGUMENTS = [
    ("predict", EVIL, "x.jpg"),
    ("check", EVIL),
    ("show", EVIL),
    (EVIL,),
    ("show", f"--{EVIL}"),
    ("convert", EVIL, "out.safetensors"),
    ("study", EVIL),
    ("train", "digits", "--set", f"{EVIL}=1", "--out", "x"),
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=[" ".join(one)[:8] for one in ARGUMENTS])
def test_an_error_is_one_clean_line(
    command, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(*arguments)
    assert code == 2 and not obeyed(out + err) and err.startswith("error: ") and err.count("\n") == 1, err


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_names_in_archives(command, suffix: str, tmp_path: Path) -> None:
    name = EVIL.replace(".", "")
    members = {f"{label}/{i}{name}.png": b"" for label in ("cat", "dog") for i in range(2)}
    path = (write_zip if suffix == ".zip" else write_tar)(tmp_path / f"x{suffix}", members)
    _, out, err = command("check", path)
    assert not obeyed(out + err) and r"\x1b]0;title" in out + err


def test_a_table_of_predictions_is_exact(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", [Prediction(EVIL, ((EVIL, 0.5),))], ())
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[1][0] == EVIL and EVIL in rows[1][1:]


def test_a_message_has_an_end(tmp_path: Path) -> None:
    """Names and keys in files may be as long as the file."""
    text = str(DecodeError(f"{'x' * 10**6}: is no image"))
    assert len(text) < 3100 and text.startswith("xxx") and text.endswith("…" + " " + "x" * 987 + ": is no image")
    assert str(DecodeError("x" * 3000)) == "x" * 3000
