"""Frames of videos that PyAV writes here: which ones, when, which way up, and what is said of damaged ones."""

from __future__ import annotations

import csv
import json
import re
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from inceptionnet.data import video
from inceptionnet.data.names import is_camera
from inceptionnet.data.video import Every, Frame, frames_of
from inceptionnet.errors import ConfigurationError, DecodeError, MissingExtraError

Command = Callable[..., tuple[int, str, str]]
SIZE = 64, 48
CORNER, STEP = (255, 0, 0), 8
"""The upper left quarter of every frame is red; the rest of frame i is grey i * STEP."""


def clip(
    path: Path,
    count: int = 30,
    *,
    codec: str = "mpeg4",
    rate: int = 10,
    times_ms: Sequence[int] = (),
    fast: bool = False,
) -> Path:
    """A video of frames at a rate, or at these times."""
    options = {"movflags": "faststart"} if fast else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=1000 if times_ms else rate)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for i in range(count):
            pixels = np.full((SIZE[1], SIZE[0], 3), min(i * STEP, 255), np.uint8)
            pixels[: SIZE[1] // 2, : SIZE[0] // 2] = CORNER
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """The beginning of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A .mp4 that is to be shown by a matrix, as telephones write it."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def of(path: Path, every: str = "1s") -> tuple[list[Frame], str]:
    """What comes of a video, and the error at its end."""
    found = []
    try:
        for frame in frames_of(path, Every.parse(every)):
            found.append(frame)
    except DecodeError as error:
        return found, str(error).removeprefix(f"{path}: ")
    return found, ""


def greys(frames: Sequence[Frame]) -> list[int]:
    """The numbers of frames by what they show."""
    return [round(np.asarray(frame.image)[-4:, -4:].mean() / STEP) for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.webm", "a.flv"])
def test_a_frame_each_second(tmp_path: Path, name: str) -> None:
    codec = {".webm": "libvpx-vp9", ".flv": "flv1"}.get(Path(name).suffix, "mpeg4")
    frames, why = of(clip(tmp_path / name, codec=codec))
    assert not why and [frame.time_s for frame in frames] == [0, 1, 2]
    assert [frame.number for frame in frames] == greys(frames) == [0, 10, 20]
    assert {frame.image.size for frame in frames} == {SIZE}


@pytest.mark.parametrize(
    ("every", "numbers"),
    [("7 frames", [0, 7, 14, 21, 28]), ("1 frame", [*range(30)]), ("500ms", [0, 5, 10, 15, 20, 25]),
     ("0.25 s", [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]), ("1min", [0])],
)  # fmt: skip
def test_intervals(tmp_path: Path, every: str, numbers: list[int]) -> None:
    frames, why = of(clip(tmp_path / "a.mp4"), every)
    assert not why and [frame.number for frame in frames] == numbers


@pytest.mark.parametrize("every", ["", "0s", "-1s", "1", "s", "1.5 frames", "0 frames", "1h", "nans", "1e3s"])
def test_no_intervals(every: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an interval above 0 such as 1s"):
        Every.parse(every)


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    """The first frame at or after each second; between 2 and 5 seconds nothing is shown anew."""
    times = [0, 40, 80, 1990, 2010, 5000, 5100]
    frames, why = of(clip(tmp_path / "a.mkv", len(times), times_ms=times))
    assert not why and [frame.time_s for frame in frames] == [0, 1.99, 2.01, 5]
    assert greys(frames) == [0, 3, 4, 5]


def test_a_stream_that_does_not_begin_at_zero(tmp_path: Path) -> None:
    frames, why = of(clip(tmp_path / "a.ts", 50, codec="mpeg2video", rate=25))
    assert not why and [(frame.time_s, frame.number) for frame in frames] == [(0, 0), (1, 25)]


@pytest.mark.parametrize(
    ("matrix", "corner"), [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)),
                           ((0, -1, 1, 0), (-1, 0))]
)  # fmt: skip
def test_turned_as_the_video_says(tmp_path: Path, matrix: tuple[int, int, int, int], corner: tuple[int, int]) -> None:
    """By 0, 90, 180 and 270 degrees clockwise: the red corner moves with it."""
    frames, why = of(turned(clip(tmp_path / "a.mp4"), matrix))
    pixels = np.asarray(frames[0].image).astype(int)
    assert not why and frames[0].image.size == (SIZE if matrix[0] else SIZE[::-1])
    reds = {at: int(pixels[at][0]) for at in ((0, 0), (0, -1), (-1, 0), (-1, -1))}
    assert max(reds, key=reds.__getitem__) == corner and sorted(reds.values())[2] < 60


@pytest.mark.parametrize(
    ("name", "fast", "share", "numbers", "said"),
    [("a.mp4", True, 0.8, [0, 10], r"is truncated: it has \d+ of 30 frames"),
     ("a.mp4", False, 0.85, [], "has no video, only a header|is no video, or a damaged one"),
     ("a.mkv", False, 0.65, [0, 10], r"is truncated: it has 1\.\d of 3\.0 s"),
     ("a.flv", False, 0.65, [0, 10], r"is truncated: it has 1\.\d of 3\.0 s")],
)  # fmt: skip
def test_truncated(tmp_path: Path, name: str, fast: bool, share: float, numbers: list[int], said: str) -> None:
    """The frames until then, and the reason; nothing is padded with grey."""
    path = clip(tmp_path / name, codec="flv1" if name == "a.flv" else "mpeg4", fast=fast)
    frames, why = of(cut(path, share))
    assert [frame.number for frame in frames] == greys(frames) == numbers
    assert re.match(said, why), why


def test_damaged_within(tmp_path: Path) -> None:
    """A frame that cannot be decoded is left out and counted, and the others go on."""
    path = clip(tmp_path / "a.avi")
    data = bytearray(path.read_bytes())
    first = data.index(b"\0\0\1\xb6")
    for _ in range(15):  # a picture of MPEG-4
        first = data.index(b"\0\0\1\xb6", first + 1)
    data[first : first + 8] = bytes(8)
    path.write_bytes(data)
    frames, why = of(path, "1 frame")
    assert re.fullmatch(r"1 of its frames cannot be decoded, the first near 1\.[5-9] s", why), why
    assert [frame.time_s for frame in frames] == pytest.approx([i / 10 for i in range(30) if i != 15])


def test_what_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{clip(tmp_path / 'a.mp4')}'\n")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    for name, said in (
        ("sound.mp4", "has no video, only audio"),
        ("list.mp4", "is no video, or a damaged one"),
        ("concat.mp4", "is no video, or a damaged one"),
        ("empty.mp4", "is no video, or a damaged one"),
        ("folder.mp4", "cannot be read (Is a directory)"),
        ("none.mp4", "cannot be read (No such file or directory)"),
    ):
        assert of(tmp_path / name)[0] == [] and said in of(tmp_path / name)[1], name
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    for name in ("a.mp4", clip(tmp_path / "a.mkv", codec="ffv1").name):
        frames, why = of(tmp_path / name)
        assert not frames and "1000" in why and "pixels" in why
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"inceptionnet\[video\]"):
        of(tmp_path / "a.mp4")


def test_few_frames_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next frame is decoded when it is asked for."""
    monkeypatch.setattr(video, "THREADS", 1)
    made: list[int] = []
    upright = video._upright
    monkeypatch.setattr(video, "_upright", lambda frame: (made.append(1), upright(frame))[1])
    frames = frames_of(clip(tmp_path / "a.mp4"), Every.parse("1 frame"))
    next(frames)
    assert len(made) == 1
    frames.close()


def test_the_command(command: Command, run: Path, colours: Path, tmp_path: Path) -> None:
    """Images and videos of a folder in order; a truncated one has its frames and its reason."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "b.png").write_bytes((colours / "red" / "00.png").read_bytes())
    clip(folder / "a.mp4")
    cut(clip(folder / "c.mkv"), 0.65)
    table = tmp_path / "t.csv"
    code, text, _ = command("predict", run, folder, "--every", "1s", "--json", "--csv", table, "--batch-size", 2)
    rows = json.loads(text)["predictions"]
    assert code == 1 and json.loads(text)["notes"] == []
    a, b, c = (str(folder / name) for name in ("a.mp4", "b.png", "c.mkv"))
    assert [(row["file"], row.get("time_s"), row.get("frame")) for row in rows] == [
        (a, 0, 0), (a, 1, 10), (a, 2, 20), (b, None, None), (c, 0, 0), (c, 1, 10), (c, None, None),
    ]  # fmt: skip
    assert "is truncated" in rows[-1]["error"] and rows[3]["top"][0]["class"] == "red"
    with open(table, newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["file"], row["time_s"], row["frame"]) for row in read][1:4:2] == [(a, "1.0", "10"), (b, "", "")]
    code, text, _ = command("predict", run, folder / "a.mp4", "--every", "10 frames", "--top", 1)
    assert code == 0 and f"{a} 2.000 s" in text
    code, text, _ = command("predict", run, folder)
    assert code == 0 and "2 non-image files ignored (.mkv, .mp4)" in text
    for arguments, said in (
        ((folder / "a.mp4",), "a.mp4: is a video; give --every 1s"),
        ((folder / "*.mp4",), "a.mp4: is a video; give --every 1s"),
        ((folder, "--every", "often"), "--every often: expected an interval"),
        ((folder / "none.mp4", "--every", "1s"), "none.mp4: cannot be read (No such file or directory)"),
    ):
        code, _, err = command("predict", run, *arguments)
        assert code == 2 and err.count("\n") == 1 and said in err, err


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> str:
    """A path at which a pattern answers as a camera does: 10 frames a second, 25 of them, on a clock of its own."""
    graph = "testsrc=size=64x48:rate=10:duration=2.5,setpts=PTS+1000/TB"
    monkeypatch.setattr(video, "_camera", lambda av, path: av.open(graph, "r", format="lavfi"))
    return "/dev/video7"


def test_a_camera_begins_with_its_first_frame(camera: str) -> None:
    frames, why = of(Path(camera))
    assert [(frame.time_s, frame.number) for frame in frames] == [(0, 0), (1, 10), (2, 20)]
    assert why == "the camera gives no more frames; is it connected?"
    assert [frame.number for frame in of(Path(camera), "10 frames")[0]] == [0, 10, 20]


def test_a_camera_by_the_command(command: Command, run: Path, camera: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each frame as it comes; Ctrl-C is how it ends."""
    code, text, _ = command("predict", run, camera, "--every", "1s")
    *rows, last = text.splitlines()
    assert code == 1 and all(row.startswith(f"{camera} {i}.000 s  ") for i, row in enumerate(rows))
    assert len(rows) == 3 and "error: the camera gives no more frames" in last
    chosen = video._Video.chosen

    def stopped(self: video._Video, every: Every) -> Iterator[Frame]:
        yield next(chosen(self, every))
        raise KeyboardInterrupt

    monkeypatch.setattr(video._Video, "chosen", stopped)
    code, text, _ = command("predict", run, camera, "--every", "1s", "--json")
    (row,) = json.loads(text)["predictions"]
    assert code == 0 and (row["file"], row["time_s"], row["frame"]) == (camera, 0, 0)


def test_cameras_that_cannot_be_read(command: Command, run: Path, colours: Path) -> None:
    for arguments, said in (
        (("/dev/video99",), "/dev/video99: is a camera; give --every 1s"),
        (("/dev/video99", "--every", "1s"), "/dev/video99: cannot be opened as a camera ("),
        (("/dev/video99", colours, "--every", "1s"), "expected one camera alone, since it has no end, got 37 inputs"),
    ):
        code, _, err = command("predict", run, *arguments)
        assert code == 2 and err.count("\n") == 1 and said in err, err


@pytest.mark.parametrize("name", ["/dev/video0", "/dev/video12", "/dev/v4l/by-id/usb-046d_C270-video-index0"])
def test_where_cameras_are(name: str) -> None:
    assert is_camera(name) and not any(map(is_camera, (f"x{name}", name[1:], "/dev/video", "/dev/video0.mp4")))
