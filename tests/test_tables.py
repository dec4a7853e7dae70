"""Tables as people see them: in a terminal of 80 columns every cell is whole."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from inceptionnet.cli import main
from inceptionnet.cli.tables import _widths
from inceptionnet.nets import NETWORKS
from inceptionnet.weights.known import PUBLISHED


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs a command in a terminal of so many columns; the lines printed."""

    def run(columns: int, *arguments: str) -> list[str]:
        for name, value in (("COLUMNS", str(columns)), ("FORCE_COLOR", "1"), ("TERM", "xterm"), ("LINES", "25")):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["inceptionnet", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()]

    return run


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_models_fit_80_columns(terminal: Callable[..., list[str]]) -> None:
    lines = terminal(80, "models")
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    rows = {cells(line)[0]: cells(line)[1:] for line in lines if cells(line)[0] in NETWORKS}
    assert list(rows) == list(NETWORKS) and rows["inception_v3"] == ["299", "23,834,568", "5.71 G"]
    wide = "\n".join(terminal(200, "models"))
    assert "[v3] section 6, released filter counts" in wide and "BN-Inception as in the paper" in wide


def test_weights_fit_80_columns(terminal: Callable[..., list[str]]) -> None:
    lines = terminal(80, "weights")
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    names = {cells(line)[0] for line in lines}
    assert {one.name.partition("/")[2] for one in PUBLISHED} <= names
    assert ["inception_v4.tf_in1k", "1000", "299", "80.16", "94.97"] in map(cells, lines)
    assert ["inceptionv4", "inception_v4.slim", "1001", "299", "80.06", "94.93"] in map(cells, lines)


@pytest.mark.parametrize("arguments", [["inception_v3"], ["inception_v1.torchvision", "--aux"], ["inception_v4"]])
def test_show_fits_80_columns(terminal: Callable[..., list[str]], arguments: list[str]) -> None:
    lines = terminal(80, "show", *arguments)
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    rows = {cells(line)[0]: cells(line)[1:] for line in lines if line.startswith(" ")}
    classes = NETWORKS[arguments[0]].head["logits"].filters  # type: ignore[union-attr]
    assert rows["logits"][0] == f"1×1×{classes}" and rows["logits"][-1] == "whole image"
    assert {*NETWORKS[arguments[0]].body} <= rows.keys()


def test_text_is_wrapped_between_words_only() -> None:
    assert _widths([["name", "abc"], ["text", "one two three"]], [4, 5], 16) == [4, 7]
    assert _widths([["name", "abc"], ["text", "one two three"]], [4, 5], 10) == [4, 5]  # a word is never broken
