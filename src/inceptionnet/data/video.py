"""Videos and cameras as images: the frames at an interval, each with its time; by PyAV, which has FFmpeg.

Times are those of the frames themselves, so that a variable frame rate is right; a camera's begin with its first frame.
A frame is turned as the video says. A frame that the decoder says is damaged is left out, and that is said: like an
image, it is never padded with grey. Every frame is decoded, also those in between, which most formats need. A few of
them are held at any time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from inceptionnet.data.limits import MAX_SIDE
from inceptionnet.data.names import is_camera
from inceptionnet.errors import ConfigurationError, DecodeError, one_line
from inceptionnet.system.devices import cores_allowed
from inceptionnet.system.extras import import_extra
from inceptionnet.system.opening import opened

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"
"""What FFmpeg may take a file for: containers, and no list of other files, which it would open."""
CAMERA = "video4linux2"
"""FFmpeg's name of how Linux gives the frames of a camera."""
MAX_PIXELS = 2**25
"""Of a frame; 8K has 33.2 million."""
STREAMS = 16
"""In a file whose decoders are limited already while its streams are looked for."""
THREADS = 4
MISSING_S = 1.0
"""A file that ends this much before its stated duration is truncated."""
_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|frames?)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_EPSILON_S = 1e-6


@dataclass(frozen=True)
class Every:
    """Which frames to take: the first at or after each multiple of so many seconds, or every so many frames."""

    seconds: float = 0.0
    frames: int = 0

    @classmethod
    def parse(cls, text: str) -> Every:
        """The interval in a text such as 1s, 500ms, 2min or 10 frames. Raises: ConfigurationError."""
        match = _EVERY.fullmatch(text.strip())
        number = float(match[1]) if match else 0.0
        if match and number > 0 and match[2] in _SECONDS:
            return cls(seconds=number * _SECONDS[match[2]])
        if match and number >= 1 and number.is_integer() and match[2] not in _SECONDS:
            return cls(frames=int(number))
        raise ConfigurationError(f"--every {text}: expected an interval above 0 such as 1s, 500ms, 2min or '10 frames'")


class Frame(NamedTuple):
    """A frame of a video, upright."""

    time_s: float
    """From the start of the video."""
    number: int
    """From 0, of all frames that could be decoded."""
    image: Image.Image


def frames_of(path: Path, every: Every) -> Iterator[Frame]:
    """The frames of a video at an interval, in order; those of a camera as they come, without end.

    Raises:
        DecodeError: after what could be decoded: it cannot be opened, has no video or no frame, is too large,
            truncated or damaged. The message begins with the path.
        MissingExtraError: without PyAV.
    """
    av = import_extra("av", "video", f"reading {path}")
    if is_camera(str(path)):
        with closing(_camera(av, path)) as camera:
            yield from _Video(camera, path, live=True).chosen(every)
        raise DecodeError(f"{path}: the camera gives no more frames; is it connected?")
    try:
        with opened(path) as file, closing(_opened(av, file, path)) as container:
            video = _Video(container, path)
            yield from video.chosen(every)
            if why := video.damage():
                raise DecodeError(f"{path}: {why}")
    except OSError as error:  # FFmpeg's own are handled where they come from
        raise DecodeError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None


def _camera(av: Any, path: Path) -> Any:
    """A camera that is on. Raises: DecodeError."""
    try:
        return av.open(str(path), "r", format=CAMERA)
    except Exception as error:  # FFmpeg has many
        raise DecodeError(f"{path}: cannot be opened as a camera ({_reason(error)})") from None


def _opened(av: Any, file: Any, path: Path) -> Any:
    """The container. Raises: DecodeError."""
    formats, limits = {"format_whitelist": FORMATS}, [{"max_pixels": str(MAX_PIXELS)}] * STREAMS
    try:
        try:
            return av.open(file, "r", container_options=formats, stream_options=limits)
        except ValueError as error:
            if isinstance(error, av.FFmpegError):
                raise
            file.seek(0)  # of this format the streams are not known before some of it is decoded
            return av.open(file, "r", container_options=formats)
    except Exception as error:  # FFmpeg has many
        raise DecodeError(f"{path}: is no video, or a damaged one ({_reason(error)})") from None


@dataclass
class _Video:
    """What is read of an open file."""

    container: Any
    path: Path
    live: bool = False
    """Whether it is a camera, whose clock began before its first frame."""
    number: int = 0
    end_s: float = 0.0
    """Where the last packet of any stream ends."""
    packets: int = 0
    corrupt: list[float] = field(default_factory=list)
    """When frames came that could not be decoded."""

    def __post_init__(self) -> None:
        streams = self.container.streams.video
        if not streams:
            kinds = " and ".join(sorted({stream.type or "data" for stream in self.container.streams}))
            raise DecodeError(f"{self.path}: has no video, only {kinds or 'a header: it is damaged or truncated'}")
        self.stream = streams[0]
        start = self.container.start_time
        self.start_s = start / 1e6 if start is not None and not self.live else 0.0
        codec = self.stream.codec_context
        if codec is None:
            raise DecodeError(f"{self.path}: its video has a codec that PyAV does not know")
        self._check_size(codec.width, codec.height)
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        codec.thread_type, codec.thread_count = "AUTO", min(THREADS, cores_allowed())

    def chosen(self, every: Every) -> Iterator[Frame]:
        due = 0.0
        for frame in self._frames():
            if self.live and not self.number:
                self.start_s = frame.time or 0.0
            time_s = self._time(frame)
            self.end_s, number = max(self.end_s, time_s), self.number
            self.number += 1
            if every.frames and number % every.frames:
                continue
            if every.seconds and time_s < due - _EPSILON_S:
                continue
            if every.seconds:
                due = every.seconds * (math.floor((time_s + _EPSILON_S) / every.seconds) + 1)
            self._check_size(frame.width, frame.height)
            yield Frame(round(time_s, 6), number, _upright(frame))

    def _frames(self) -> Iterator[Any]:
        """Every frame that the decoder gives whole."""
        packets = iter(self.container.demux())
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception:  # within the file's structure; nothing can be read behind it
                self.corrupt.append(self.end_s)
                return
            begin_s = self.end_s
            if packet.pts is not None:
                begin_s = float(packet.pts * packet.time_base) - self.start_s
                self.end_s = max(self.end_s, begin_s + float((packet.duration or 0) * packet.time_base))
            if packet.stream is not self.stream:
                continue
            self.packets += packet.size > 0
            try:
                decoded = packet.decode()
            except Exception:
                self.corrupt.append(begin_s)
                continue
            for frame in decoded:
                if frame.is_corrupt:
                    self.corrupt.append(self._time(frame))
                else:
                    yield frame

    def _time(self, frame: Any) -> float:
        if frame.time is not None:
            return float(frame.time) - self.start_s
        rate = self.stream.average_rate
        return self.number / float(rate) if rate else float(self.number)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
            raise DecodeError(
                f"{self.path}: has frames of {width}×{height} pixels, more than the limit of {MAX_PIXELS}: scale it"
            )

    def damage(self) -> str:
        """What is wrong with a video that was read to its end; else empty."""
        if not self.number:
            why = f"damaged, or of more than {MAX_PIXELS} pixels" if self.packets else "there is none"
            return f"has no frame that can be decoded ({why})"
        stated, counted = self.stream.frames, self.packets
        duration = self.container.duration
        missing_s = duration / 1e6 - self.end_s if duration is not None else 0.0
        if counted < stated or missing_s > MISSING_S:
            had = f"{counted} of {stated} frames" if counted < stated else f"{self.end_s:.1f} of {duration / 1e6:.1f} s"
            return f"is truncated: it has {had}"
        if self.corrupt:
            return f"{len(self.corrupt)} of its frames cannot be decoded, the first near {self.corrupt[0]:.1f} s"
        return ""


def _upright(frame: Any) -> Image.Image:
    turns = round(frame.rotation / 90) % 4  # counterclockwise
    return Image.fromarray(np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns)))


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error, 100)
