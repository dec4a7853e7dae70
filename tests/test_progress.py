"""The progress bar: its rate and the time that is left, by hand, by a clock that the test moves."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from inceptionnet.system import progress
from inceptionnet.system.progress import Bar, PartOf


class Clock:
    """Stands for the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "120"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)


def work(bar: Bar, clock: Clock, seconds: float, images: int, **options: bool) -> None:
    """One step."""
    clock.now += seconds
    bar.advance(images, "loss 1.0", **options)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_the_time_left_follows_from_the_images(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1000, "training") as bar:
        work(bar, clock, 5, 100)
        assert lines(capsys) == [], "a line every ten seconds"
        work(bar, clock, 6, 10)
        assert lines(capsys) == ["training  loss 1.0  10 images/s  1:29 left"]  # 110 in 11 s, 890 to come


def test_images_done_by_an_earlier_process_say_nothing_of_the_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar(1000, "training", done=900) as bar:
        work(bar, clock, 20, 10)
    assert lines(capsys) == ["training  loss 1.0  0.5 images/s  3:00 left"]


def test_the_rate_is_that_of_late(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A slow start, such as the first steps of a compiled network, is forgotten."""
    with Bar(10_000, "training") as bar:
        work(bar, clock, 100, 1)
        for _ in range(44):
            work(bar, clock, 1, 20)
    assert lines(capsys)[-1] == "training  loss 1.0  20 images/s  7:36 left"  # 9119 to come


def test_what_the_total_does_not_have(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """The steps of a range test count for the speed, and not for what is left."""
    with Bar(1000, "training") as bar:
        work(bar, clock, 11, 110, extra=True)
        assert lines(capsys) == ["training  loss 1.0  10 images/s  1:40 left"]


@pytest.mark.parametrize("images", [0, 5])
def test_a_time_that_is_known(images: int, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1000, "training") as bar:
        bar.ends_in(480, 480)
        work(bar, clock, 30, images)
        rate = "0.17 images/s  " * bool(images)
        assert lines(capsys) == [f"training  loss 1.0  {rate}7:30 left"]
        work(bar, clock, 500, images)
        assert lines(capsys)[0].endswith("0:00 left")


def test_nothing_done_yet(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1000, "training") as bar:
        work(bar, clock, 30, 0)
    assert lines(capsys) == ["training  loss 1.0"]


@pytest.mark.usefixtures("terminal")
def test_in_a_terminal_the_rate_stays_when_the_end_moves(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1000, "training", done=500) as bar:
        for _ in range(40):
            bar.ends_in(200 + 100 - clock.now, 400)  # of which half was over before
            work(bar, clock, 1, 20)
    shown = re.findall("training (━*)(╸|╺)?.* loss 1.0  20 images/s  (.*) left", capsys.readouterr().err)
    assert shown[-1][2] == "2:40"


@pytest.mark.usefixtures("terminal")
def test_in_a_terminal_the_bar_is_the_share_of_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bar(1000, "training") as bar:
        told: list[dict[str, object]] = []
        monkeypatch.setattr(bar, "_progress", SimpleNamespace(update=lambda _, **kept: told.append(kept), stop=list))
        work(bar, clock, 1, 100)
        bar.ends_in(300, 400)
        work(bar, clock, 20, 1)
    assert [(one["completed"], one["total"]) for one in told] == [(100, 1000), (120, 400)]


def test_a_part_counts_in_the_whole(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Bar(1000, "study") as bar:
        part = PartOf(bar, "a 1", print)
        clock.now += 10.5
        part.ends_in(1, 1)  # says nothing: the whole has another end
        part.advance(105, "loss 1.0", "epoch 2", extra=True)
    assert lines(capsys) == ["a 1, epoch 2  loss 1.0  10 images/s  1:40 left"]
