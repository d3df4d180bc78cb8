"""Raw frames from a pipe: YUV4MPEG2 as it states itself, or rawvideo as the caller states it.

A pipe is read once, forwards. `sample` reads up to `BUFFERED` frames ahead and keeps them for `frames`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import av

from x2roto.clip import ALL_FRAMES, ClipInfo, Frame, FrameRange, frames_end, spread, within
from x2roto.errors import InputError
from x2roto.source.container import y4m_frame_bytes
from x2roto.source.libav import Converter
from x2roto.source.mending import Mender, OnBadFrame
from x2roto.source.timeline import timeline
from x2roto.source.video import MAX_PIXELS, describe, input_of, libav_errors, prepared

if TYPE_CHECKING:
    from av.video.stream import VideoStream

STANDARD_INPUT = Path("-")
BUFFERED = 32  # frames `sample` may look at before the run starts


@dataclass(frozen=True, slots=True)
class RawFormat:
    """What a headerless stream holds: display `width`, `height`, frames per second, ffmpeg's `pix_fmt` name."""

    width: int
    height: int
    rate: Fraction
    pix_fmt: str = "rgb24"

    def check(self) -> None:
        """Raise `InputError` for a size, rate or pixel format that cannot be."""
        if not 0 < self.width * self.height <= MAX_PIXELS or min(self.width, self.height) < 1 or self.rate <= 0:
            raise InputError(
                f"raw frames of {self.width}x{self.height} at {self.rate} cannot be: check size and rate"
            )
        try:
            av.VideoFormat(self.pix_fmt, self.width, self.height)
        except ValueError as error:
            raise InputError(
                f"pixel format {self.pix_fmt!r} is not known: use ffmpeg's names, such as rgb24"
            ) from error

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, rows and planes without padding (ffmpeg's rawvideo)."""
        layout = av.VideoFormat(self.pix_fmt, self.width, self.height)
        planes = {part.plane for part in layout.components}
        return sum(_plane_bytes(layout, plane) for plane in planes)


def _plane_bytes(layout: av.VideoFormat, plane: int) -> int:
    parts = [part for part in layout.components if part.plane == plane]
    if len(layout.components) > 1 and not layout.is_planar:  # packed: all samples of a pixel side by side
        return layout.width * layout.height * layout.padded_bits_per_pixel // 8
    return sum(part.width * part.height for part in parts) * ((parts[0].bits + 7) // 8)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What a whole frame takes of the pipe; `header_bytes` come before the first."""

    header_bytes: int
    frame_bytes: int

    @classmethod
    def of(cls, head: bytes, raw: RawFormat | None) -> Self:
        if raw is not None:
            return cls(0, raw.frame_bytes)
        header, _, rest = head.partition(b"\n")
        plain = rest.startswith(b"FRAME\n")  # frame headers with parameters have no one length
        return cls(len(header) + 1, len(b"FRAME\n") + y4m_frame_bytes(header) if plain else 0)

    def left_of(self, total: int) -> int:
        """Bytes of a last, unfinished frame after `total` bytes."""
        return (total - self.header_bytes) % self.frame_bytes if self.frame_bytes else 0


class _Counted:
    """A pipe that knows how much was read of it; a partial last frame shows in the count."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self.head = b""
        self.total = 0

    def read(self, size: int) -> bytes:
        data = self._pipe.read(size)
        self.total += len(data)
        if len(self.head) < 1024:
            self.head += data[:1024]
        return data


class StreamSource:
    """Frames of a pipe. `frames` can be called once; a second call raises `InputError`."""

    def __init__(
        self,
        pipe: BinaryIO,
        *,
        raw: RawFormat | None = None,
        on_bad_frame: OnBadFrame = "error",
        start_frame: int = 1001,
        rate: Fraction | None = None,
    ) -> None:
        self._mender = Mender(on_bad_frame, STANDARD_INPUT, start_frame)
        self._pipe = _Counted(pipe)
        self._converter = Converter()
        self._taken = False
        self._resources = ExitStack()
        with libav_errors(STANDARD_INPUT), self._resources:
            video = self._open(raw)
            first = next(input_of(video).decode(video), None)
            if first is None:
                raise InputError("standard input ended before its first frame: pipe y4m or raw frames into it")
            self._resources = self._resources.pop_all()
        self._last = self._converter.rgb(first)
        stated = describe(video, first, timeline((), complete=False), rate or (raw.rate if raw else None))
        self.info: ClipInfo = replace(stated, first_frame=start_frame)
        self._tick = video.time_base or Fraction(1)
        self._unit = _Unit.of(self._pipe.head, raw)
        self._buffer = [Frame(0, self._time(first), self._last)]
        self._rest = self._decoded(video)

    def _open(self, raw: RawFormat | None) -> VideoStream:
        name, options = "yuv4mpegpipe", {"max_pixels": str(MAX_PIXELS)}
        if raw is not None:
            raw.check()
            size = f"{raw.width}x{raw.height}"
            name, options = "rawvideo", {"video_size": size, "pixel_format": raw.pix_fmt, "framerate": str(raw.rate)}
        container = av.open(cast("BinaryIO", self._pipe), "r", format=name, options=options, buffer_size=1 << 20)
        return prepared(self._resources.enter_context(container), STANDARD_INPUT, None, "NONE")

    def _time(self, frame: av.VideoFrame) -> Fraction | None:
        return None if frame.pts is None else frame.pts * self._tick

    def _decoded(self, video: VideoStream) -> Iterator[Frame]:
        """The frames after the first; the piece of a frame that a broken pipe leaves is a bad frame."""
        index = 0
        try:
            for index, decoded in enumerate(input_of(video).decode(video), start=1):
                rgb = self._converter.rgb(decoded)
                self._last = rgb
                yield Frame(index, self._time(decoded), rgb)
        except av.FFmpegError as error:
            if not self._unit.left_of(self._pipe.total):
                number = index + self._mender.first_frame
                raise InputError(f"standard input: not understood after frame {number}: check the pipe") from error
        left = self._unit.left_of(self._pipe.total)
        if left:
            reason = f"the pipe ended {self._unit.frame_bytes - left} bytes too early"
            yield self._mender.stand_in(index + 1, None, reason, lambda: self._last, self._last)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @property
    def bad_frames(self) -> dict[int, str]:
        """Why, for each index read so far that a held frame stands in for."""
        return self._mender.bad_frames

    def frames(self, ranges: Sequence[FrameRange] = ALL_FRAMES) -> Iterator[Frame]:
        """The frames of the ranges in order, once; raises `InputError` at a bad one when the policy is "error"."""
        if self._taken:
            raise InputError("standard input can be read only once: save it to a file first")
        self._taken = True
        return self._selected(ranges)

    def _selected(self, ranges: Sequence[FrameRange]) -> Iterator[Frame]:
        end = frames_end(ranges)
        for frame in self._all():
            if end is not None and frame.index >= end:
                return
            if within(ranges, frame.index):
                yield frame

    def _all(self) -> Iterator[Frame]:
        while self._buffer:
            yield self._buffer.pop(0)
        yield from self._rest

    def sample(self, count: int, ranges: Sequence[FrameRange] = ALL_FRAMES) -> list[Frame]:
        """`count` frames evenly over those of the ranges among the first `BUFFERED` of the pipe."""
        if self._taken:
            raise InputError("standard input is already being read: sample it before reading its frames")
        self._buffer += islice(self._rest, BUFFERED - len(self._buffer))
        seen = [frame for frame in self._buffer if within(ranges, frame.index)]
        return [seen[position] for position in spread(count, range(len(seen)))]
